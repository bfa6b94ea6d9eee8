/* modes.c - what is counted: each block ("exact"), or what the system gives ("held"). */
#define PY_SSIZE_T_CLEAN
#include "modes.h"

#include "arrays.h"
#include "hooks.h"
#include "runner.h"
#include "scopes.h"

/* All that has to be in place for everything to be counted. As hooks_install(). */
int modes_install(void)
{
    if (arrays_watch() < 0) /* first, for what it takes is not to be counted */
        return -1;
    const int done = hooks_install();
    if (done >= 0)
        arrays_look();
    return done;
}

/* Why a process that asked for mode `held` counts exactly; NULL: it does not. */
static const char *why_exact;

/* Falls back to exact with a warning. As hooks_install(). */
static int install_held(void)
{
    if (hooks_count_arenas())
        return modes_install();
    if (arrays_watch() < 0)
        return -1;
    const int done = hooks_install_held(&why_exact);
    if (done < 0)
        return -1;
    arrays_look();
    if (why_exact && PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                                      "mode 'held' is not possible, so each block is counted: %s", why_exact) < 0)
        return -1;
    return 1;
}

static int install_exact(void)
{
    if (!hooks_count_arenas())
        return modes_install();
    const int done = hooks_install_exact();
    if (done >= 0)
        arrays_look();
    return done;
}

enum mode { MODE_SAME, MODE_EXACT, MODE_HELD, MODE_WRONG };

static enum mode mode_from_text(const char *text)
{
    return strcmp(text, "exact") == 0 ? MODE_EXACT : strcmp(text, "held") == 0 ? MODE_HELD : MODE_WRONG;
}

/* -1 with an exception set. None: the one it is in. */
static int mode_from_object(PyObject *value, enum mode *mode)
{
    *mode = MODE_SAME;
    if (!value || value == Py_None)
        return 0;
    const char *text = PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    if (PyErr_Occurred())
        return -1;
    *mode = text ? mode_from_text(text) : MODE_WRONG;
    if (*mode != MODE_WRONG)
        return 0;
    PyErr_Format(text ? PyExc_ValueError : PyExc_TypeError, "mode=%R is no mode: expected 'exact' or 'held'", value);
    return -1;
}

PyObject *modes_py_install(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"mode", NULL};
    PyObject *value = NULL;
    enum mode mode;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$O:install", names, &value) ||
        mode_from_object(value, &mode) < 0)
        return NULL;
    if (mode == MODE_HELD && hooks_were_installed() && !hooks_count_arenas()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "mode 'held' cannot follow on mode 'exact': start the process with ZMALLOC_MODE=held, or "
                        "import zmalloc with ZMALLOC_NO_INSTALL=1 and install it then");
        return NULL;
    }
    if (mode == MODE_EXACT && hooks_count_arenas() && scopes_are_sealed()) {
        PyErr_SetString(PyExc_PermissionError,
                        "a limit is sealed: what the system gives stays counted, so the mode stays 'held'");
        return NULL;
    }
    const int done = mode == MODE_HELD ? install_held() : mode == MODE_EXACT ? install_exact() : modes_install();
    return done < 0 ? NULL : PyBool_FromLong(done);
}

const char *modes_name(void)
{
    return hooks_count_arenas() ? "held" : "exact";
}

PyObject *modes_py_mode(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyUnicode_FromString(modes_name());
}

/* For the command line, before the program starts: what is counted until then is forgotten. */
PyObject *modes_py_begin_held(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (runner_before_the_program() < 0 || install_held() < 0)
        return NULL;
    return PyUnicode_FromString(modes_name());
}

const char *modes_note(void)
{
    return why_exact;
}

/* ZMALLOC_MODE chooses the mode. */
int modes_obey_variable(void)
{
    const char *text = getenv("ZMALLOC_MODE");
    if (!text || !*text)
        return modes_install();
    const enum mode mode = mode_from_text(text);
    if (mode == MODE_WRONG) {
        PyErr_Format(PyExc_ValueError, "ZMALLOC_MODE='%s' is no mode: expected 'exact' or 'held'", text);
        return -1;
    }
    return mode == MODE_HELD ? install_held() : modes_install();
}

const char modes_install_doc[] =
    "install(*, mode=None)\n--\n\n"
    "Put the hooks in, or back in after another tool has taken them out.\n\n"
    "True if they had to be put in, False if they were there. After a loss counting begins\n"
    "anew (stats().reinstalled); under a limit what was charged stays charged.\n\n"
    "mode='exact' counts each block as requested; 'held' counts what the system gives, arenas, large\n"
    "blocks and frames, and costs nothing at small objects; None is the mode that the process is in,\n"
    "exact if it is in none. From 'held' to 'exact' is possible at any time: what lives then is not\n"
    "counted. The other way is a RuntimeError. Where there are no arenas to count a RuntimeWarning\n"
    "says so, and the mode is exact. TypeError or ValueError for another mode.";

const char modes_mode_doc[] =
    "mode()\n--\n\n'exact' or 'held': what is counted. See install().";
