/* fail_after.c - the object of fail_after().
 *
 * Invariant: the thread's fault is in force from the last thing that __enter__ does until the first that __exit__
 * does, and neither makes an object. The counts of one that has ended are kept in its object. */
#define PY_SSIZE_T_CLEAN
#include "fail_after.h"

#include "callers.h"
#include "caps.h"
#include "faults.h"
#include "sizes.h"
#include "with.h"

#include <stdlib.h>

typedef struct {
    With with;
    bool was_entered;
    uint64_t n;
    int64_t repeat;
    struct fault *fault; /* until its end */
    uint64_t passed, failed; /* at the end */
} FailAfter;

/* ---- the block ----------------------------------------------------------------------------------- */

static PyObject *fail_after_enter(PyObject *op)
{
    FailAfter *self = (FailAfter *)op;
    if (self->was_entered) {
        PyErr_SetString(PyExc_RuntimeError, "this fail_after has been entered already: call zmalloc.fail_after() anew "
                                            "for each with statement");
        return NULL;
    }
    self->was_entered = true;
    faults_add(self->fault);
    return Py_NewRef(op);
}

/* Another thread's goes on until it is told, and may be freed by that thread then: the counts come first. */
static void end(FailAfter *self)
{
    struct fault *f = self->fault;
    self->fault = NULL;
    self->passed = atomic_load(&f->passed);
    self->failed = atomic_load(&f->failed);
    if (faults_remove(f))
        free(f);
}

static PyObject *fail_after_leave(PyObject *op, PyObject *error)
{
    FailAfter *self = (FailAfter *)op;
    (void)error;
    if (self->was_entered && self->fault)
        end(self);
    Py_RETURN_NONE;
}

static void fail_after_dealloc(PyObject *op)
{
    if (((FailAfter *)op)->fault)
        end((FailAfter *)op);
    with_dealloc(op);
}

static const struct with_way way = {"FailAfter", fail_after_enter, fail_after_leave};

/* ---- the attributes ------------------------------------------------------------------------------ */

/* Looking at the counts in the block does not change them. */
static PyObject *number(uint64_t n)
{
    struct thread *t = thread_self();
    const bool was_on = faults_pause(t);
    PyObject *result = PyLong_FromUnsignedLongLong(n);
    faults_resume(t, was_on);
    return result;
}

static uint64_t passed_of(const FailAfter *self)
{
    return self->fault ? atomic_load(&self->fault->passed) : self->passed;
}

static uint64_t failed_of(const FailAfter *self)
{
    return self->fault ? atomic_load(&self->fault->failed) : self->failed;
}

static PyObject *get_passed(PyObject *op, void *unused)
{
    (void)unused;
    return number(passed_of((FailAfter *)op));
}

static PyObject *get_failed(PyObject *op, void *unused)
{
    (void)unused;
    return number(failed_of((FailAfter *)op));
}

static PyObject *get_n(PyObject *op, void *unused)
{
    (void)unused;
    return number(((FailAfter *)op)->n);
}

static PyObject *get_repeat(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(((FailAfter *)op)->repeat);
}

static PyObject *get_async(PyObject *op, void *unused)
{
    (void)op, (void)unused;
    PyErr_SetString(PyExc_TypeError, "fail_after() works in a plain with statement, also inside async functions");
    return NULL;
}

static PyObject *fail_after_repr(PyObject *op)
{
    const FailAfter *self = (FailAfter *)op;
    const char *state = !self->was_entered ? "not entered" : self->fault ? "entered" : "ended";
    return PyUnicode_FromFormat("<zmalloc.fail_after %llu, repeat %lld, %s, %llu passed, %llu failed>",
                                (unsigned long long)self->n, (long long)self->repeat, state,
                                (unsigned long long)passed_of(self), (unsigned long long)failed_of(self));
}

static PyGetSetDef getset[] = {
    {"__aenter__", get_async, NULL, NULL, NULL},
    {"n", get_n, NULL, "How many requests are let through first.", NULL},
    {"repeat", get_repeat, NULL, "How many are refused then; -1: all that follow.", NULL},
    {"passed", get_passed, NULL, "Requests that were let through since it was entered, until its end.", NULL},
    {"failed", get_failed, NULL, "Requests that were refused.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Requests that fail on purpose: see zmalloc.fail_after()."},
    {Py_tp_dealloc, fail_after_dealloc},
    {Py_tp_repr, fail_after_repr},
    {Py_tp_getset, getset},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "zmalloc.FailAfter",
    .basicsize = sizeof(FailAfter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

/* ---- fail_after() -------------------------------------------------------------------------------- */

static int complain(PyObject *type, PyObject *value, const char *name, const char *problem, const char *expected)
{
    PyObject *shown = sizes_shown(value);
    if (shown)
        PyErr_Format(type, "%s=%U %s: expected %s", name, shown, problem, expected);
    Py_XDECREF(shown);
    return -1;
}

/* An int between least and what 63 bits hold. */
static int count_from_object(PyObject *value, const char *name, long long least, const char *expected, int64_t *count)
{
    int overflow;
    PyObject *n = PyBool_Check(value) || !PyIndex_Check(value) ? NULL : PyNumber_Index(value);
    if (!n)
        return PyErr_Occurred() ? -1 : complain(PyExc_TypeError, value, name, "has the wrong type", expected);
    *count = PyLong_AsLongLongAndOverflow(n, &overflow);
    Py_DECREF(n);
    if (overflow || *count < least)
        return complain(PyExc_ValueError, value, name, "is out of range", expected);
    return 0;
}

static int read_arguments(PyObject *args, PyObject *keywords, int64_t *n, int64_t *repeat)
{
    static char *names[] = {"n", "repeat", NULL};
    static const char repeats[] = "an int from 1 to 2**63 - 1, or -1 for all that follow";
    PyObject *wanted, *told = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:fail_after", names, &wanted, &told))
        return -1;
    if (count_from_object(wanted, "n", 0, "an int from 0 to 2**63 - 1", n) < 0)
        return -1;
    if (told && count_from_object(told, "repeat", -1, repeats, repeat) < 0)
        return -1;
    return *repeat == 0 ? complain(PyExc_ValueError, told, "repeat", "is out of range", repeats) : 0;
}

PyObject *fail_after_make(PyObject *module, PyObject *args, PyObject *keywords)
{
    int64_t n, repeat = 1;
    if (read_arguments(args, keywords, &n, &repeat) < 0 || caps_need_exact("fail_after()") < 0 ||
        caps_need_hooks() < 0)
        return NULL;
    FailAfter *self = (FailAfter *)with_new(with_types_of(module), fail_after_type(module), sizeof *self, &way);
    if (!self)
        return NULL;
    self->n = (uint64_t)n;
    self->repeat = repeat;
    self->fault = calloc(1, sizeof *self->fault);
    if (self->fault) {
        self->fault->n = self->n;
        self->fault->repeat = repeat;
        return (PyObject *)self;
    }
    Py_DECREF(self);
    return PyErr_NoMemory();
}

const char fail_after_doc[] =
    "fail_after(n, repeat=1)\n--\n\n"
    "Have allocations fail on purpose in a with statement, to test what code makes of a MemoryError.\n\n"
    "Of this thread's requests for memory n are let through and the next `repeat` are refused, -1: all that\n"
    "follow; then all is as usual. The same code makes the same requests, so running it with n = 0, 1, 2, ...\n"
    "until `failed` is 0 refuses each of its requests once. A request is a malloc, a calloc or a growing\n"
    "realloc of CPython's RAW, MEM or OBJ domain, of whatever size. The object has passed and failed, also\n"
    "after its end. A refusal is CPython's own MemoryError, or whatever the code that asked makes of it; no\n"
    "limit is hit, nothing is collected; stats().refusals and last_refused tell it.\n\n"
    "Granted, and not counted, is what CPython does not survive the refusal of, or makes a SystemError of: what\n"
    "it asks for while an exception is on its way, chunks and objects of frames (3.11+), what module threading\n"
    "asks for, a thread's first frames, locks, the compiler, iter() of a dict's items(), the table of interned\n"
    "strings (3.12), tables of dicts (3.13), functions that are being defined (3.12+), a cache of calls (3.10); what\n"
    "this thread asks for in exempt() or for a limit's verdict; and resizes of blocks from before the import.\n\n"
    "In a block in another one its own count comes first, and what it refuses the outer one does not see.\n"
    "Raises TypeError or ValueError for a wrong n or repeat, RuntimeError for an object that is entered twice.";

PyTypeObject *fail_after_init(PyObject *module)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (callers_init() < 0 || !type || with_equip(with_types_of(module), type, &way) < 0 ||
        PyModule_AddType(module, type) < 0) {
        Py_XDECREF(type);
        return NULL;
    }
    return type;
}
