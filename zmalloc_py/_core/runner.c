/* runner.c - what the command line needs in C because it must work when there is no memory left.
 *
 * A script that has used up its cap leaves its data alive behind the exception. Showing the exception,
 * and saying that the cap was the reason, is done beyond the limit (scopes_report_begin); the script's own code
 * (atexit, __del__, sys.excepthook) runs within it. */
#define PY_SSIZE_T_CLEAN
#include "runner.h"

#include "hooks.h"
#include "scopes.h"
#include "verdict.h"
#include "where.h"
#include "zsize.h"

#include <signal.h>
#include <stdio.h>

/* ---- ending ------------------------------------------------------------------------------- */

/* Ends the process after Python has been finalized, as an interpreter does. */
static void leave(int status)
{
    fflush(stderr);
    Py_Exit(status);
}

/* An unhandled KeyboardInterrupt ends Python by SIGINT itself, so that a shell stops its loop. */
static void leave_by_sigint(void)
{
    (void)Py_FinalizeEx();
#if !defined(_WIN32)
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
#endif
    exit(130);
}

/* ---- the line about the cap ------------------------------------------------------------------ */

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* What the line says, taken before the report itself asks for anything. */
struct death {
    size_t peak, hard;
    uint64_t refusals, errors;
};

static struct death take_figures(void)
{
    struct hook_figures hooks;
    hooks_figures(&hooks);
    struct death figures = {zaccount_peak(&python_account), scopes_in_force().hard, 0, verdict_figures.errors};
    for (int d = 0; d < DOMAINS; d++)
        figures.refusals += hooks.refusals[d];
    return figures;
}

/* ", 2 requests refused" or the like; "" for none. */
static void say_count(char *text, size_t room, uint64_t n, const char *what, const char *done)
{
    text[0] = '\0';
    if (n)
        snprintf(text, room, ", %llu %s%s %s", (unsigned long long)n, what, plural(n), done);
}

static void say_limit(const struct death *f)
{
    char limit[ZSIZE_TEXT], hard[ZSIZE_TEXT + 24] = "", peak[ZSIZE_TEXT], asked[ZSIZE_TEXT], place[1200];
    char refused[64], raised[64], line[1600];
    where_format(place, sizeof place);
    say_count(raised, sizeof raised, f->errors, "error", "raised");
    say_count(refused, sizeof refused, f->refusals, "request", "refused");
    if (f->hard != SIZE_MAX && f->hard > where_limit()) {
        memcpy(hard, " (hard limit ", 13);
        zsize_format(hard + 13, f->hard);
        strcat(hard, ")");
    }
    snprintf(line, sizeof line, "zmalloc: stopped at the limit of %s%s: peak %s%s%s, the last one for %s%s\n",
             zsize_format(limit, where_limit()), hard, zsize_format(peak, f->peak), raised, refused,
             zsize_format(asked, where_bytes()), place);
    fputs(line, stderr);
    fflush(stderr);
}

static bool has_hit_limit(void)
{
    struct zaccount_figures used, held;
    zaccount_stats(&python_account, &used);
    zaccount_stats(&held_account, &held);
    return used.limit_hit || held.limit_hit;
}

/* ---- the traceback --------------------------------------------------------------------------- */

/* The code of the function that calls the script: it and what is above are not the script's. */
static PyObject *own_code(PyObject *function)
{
    return PyFunction_Check(function) ? PyFunction_GET_CODE(function) : NULL;
}

static bool runs(PyFrameObject *frame, PyObject *code)
{
    PyCodeObject *running = PyFrame_GetCode(frame);
    Py_DECREF(running); /* the frame keeps it */
    return (PyObject *)running == code;
}

/* The traceback from below the frame of `code` on; NULL if it ends there. Borrowed. */
static PyObject *strip(PyObject *traceback, PyObject *code)
{
    PyTracebackObject *tb = (PyTracebackObject *)traceback;
    while (tb && runs(tb->tb_frame, code))
        tb = tb->tb_next;
    return (PyObject *)tb;
}

static bool has_own_excepthook(void)
{
    return PySys_GetObject("excepthook") != PySys_GetObject("__excepthook__");
}

/* The exception that is set, with what is left of its traceback. */
static void fetch_stripped(PyObject **type, PyObject **value, PyObject **traceback, PyObject *code)
{
    PyErr_Fetch(type, value, traceback);
    PyErr_NormalizeException(type, value, traceback);
    PyObject *rest = Py_XNewRef(strip(*traceback, code));
    Py_XDECREF(*traceback);
    *traceback = rest;
    if (*value)
        PyException_SetTraceback(*value, rest ? rest : Py_None);
}

/* Shows the exception that is set, through sys.excepthook; it is gone afterwards. The script's own hook
 * is its own code and runs within the limit. */
static void show_exception(PyObject *code)
{
    PyObject *type, *value, *traceback;
    const bool exempt = !has_own_excepthook();
    if (exempt)
        scopes_report_begin();
    fetch_stripped(&type, &value, &traceback, code);
    PyErr_Restore(type, value, traceback);
    PyErr_Print();
    if (exempt)
        scopes_report_end();
}

static void flush_stderr(void)
{
    PyObject *file = PySys_GetObject("stderr");
    PyObject *done = file && file != Py_None ? PyObject_CallMethod(file, "flush", NULL) : NULL;
    if (!done)
        PyErr_Clear();
    Py_XDECREF(done);
}

/* ---- _execute ------------------------------------------------------------------------------- */

/* Tells the runner's Python part how the script ended, while there is room to say it. */
static void note_status(PyObject *note, long status, bool died)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    scopes_report_begin();
    PyObject *done = PyObject_CallFunction(note, "lO", status, died ? Py_True : Py_False);
    if (!done)
        PyErr_Clear();
    Py_XDECREF(done);
    scopes_report_end();
    PyErr_Restore(type, value, traceback);
}

static void end_with_exception(PyObject *function, PyObject *note)
{
    const struct death figures = take_figures();
    const bool by_limit = PyErr_ExceptionMatches(PyExc_MemoryError) && has_hit_limit();
    const bool by_sigint = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
    const int status = by_limit ? RUNNER_STATUS_LIMIT : by_sigint ? -SIGINT : 1;
    note_status(note, status, true);
    show_exception(own_code(function));
    scopes_report_begin();
    flush_stderr();
    if (by_limit)
        say_limit(&figures);
    scopes_report_end();
    if (by_sigint)
        leave_by_sigint();
    leave(status);
}

/* What Python makes of sys.exit(value). */
static long exit_status(PyObject *value)
{
    PyObject *code = PyObject_GetAttrString(value, "code");
    long status = 1;
    if (code == Py_None)
        status = 0;
    else if (code && PyLong_Check(code))
        status = PyLong_AsLong(code) & 0xff; /* what the system lets through */
    PyErr_Clear();
    Py_XDECREF(code);
    return status;
}

static void end_with_exit(PyObject *function, PyObject *note)
{
    PyObject *type, *value, *traceback;
    fetch_stripped(&type, &value, &traceback, own_code(function));
    note_status(note, exit_status(value), false);
    PyErr_Restore(type, value, traceback);
    PyErr_Print(); /* ends the process, unless it is an interactive one */
}

/* What the command line alone may call would be a way past the cap for the program that it runs. */
static bool runs_a_program;

int runner_before_the_program(void)
{
    if (!runs_a_program)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "zmalloc runs a program already");
    return -1;
}

PyObject *runner_execute(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    if (runner_before_the_program() < 0)
        return NULL;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_execute() takes a function and a note");
        return NULL;
    }
    runs_a_program = true;
    PyObject *result = PyObject_CallNoArgs(args[0]);
    if (result)
        return result;
    if (PyErr_ExceptionMatches(PyExc_SystemExit))
        end_with_exit(args[0], args[1]);
    else
        end_with_exception(args[0], args[1]);
    Py_RETURN_NONE;
}

/* ---- _run_file, _run_text -------------------------------------------------------------------- */

/* At a full cap CPython can lose the exception itself. */
static PyObject *checked(PyObject *result)
{
    if (!result && !PyErr_Occurred() && has_hit_limit())
        PyErr_NoMemory();
    return result;
}

static bool has_namespace(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs == 2 && PyDict_Check(args[1]))
        return true;
    PyErr_SetString(PyExc_TypeError, "expected a program and a dict");
    return false;
}

PyObject *runner_run_file(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    PyObject *path = NULL;
    if (!has_namespace(args, nargs))
        return NULL;
    if (args[0] == Py_None)
        return checked(
            PyRun_FileExFlags(stdin, "<stdin>", Py_file_input, args[1], args[1], 0, NULL));
    if (!PyUnicode_FSConverter(args[0], &path))
        return NULL;
    FILE *file = fopen(PyBytes_AS_STRING(path), "rb");
    PyObject *result = NULL;
    if (file)
        result = checked(PyRun_FileExFlags(file, PyBytes_AS_STRING(path), Py_file_input, args[1],
                                           args[1], 1, NULL));
    else
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, args[0]);
    Py_DECREF(path);
    return result;
}

PyObject *runner_run_text(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    PyCompilerFlags flags = {.cf_flags = PyCF_IGNORE_COOKIE,
                             .cf_feature_version = PY_MINOR_VERSION};
    if (!has_namespace(args, nargs))
        return NULL;
    const char *text = PyUnicode_AsUTF8(args[0]);
    if (!text)
        return NULL;
    return checked(PyRun_StringFlags(text, Py_file_input, args[1], args[1], &flags));
}

/* ---- _reporter ------------------------------------------------------------------------------ */

static PyObject *call_exempt(PyObject *function, PyObject *unused)
{
    (void)unused;
    scopes_report_begin();
    PyObject *result = PyObject_CallNoArgs(function);
    scopes_report_end();
    return result;
}

static PyMethodDef reporter_def = {"report", call_exempt, METH_NOARGS, NULL};

PyObject *runner_reporter(PyObject *module, PyObject *function)
{
    (void)module;
    return runner_before_the_program() < 0 ? NULL : PyCFunction_New(&reporter_def, function);
}
