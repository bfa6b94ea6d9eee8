/* limit_error.c - the type. Its figures are plain attributes, so that it can be pickled and copied. */
#define PY_SSIZE_T_CLEAN
#include "limit_error.h"

#include "threads.h"
#include "zport.h"
#include "zsize.h"

#include <stdio.h>

typedef struct {
    PyBaseExceptionObject base;
    uint64_t number;
} LimitError;

/* Left by the hook that found the error raised, for the instance that may be made of it later. */
struct left {
    bool is_waiting;
    struct limit_figures figures;
};

static struct left *left_here(void)
{
    return thread_rare(RARE_FIGURES, sizeof(struct left));
}

void limit_error_leave(const struct limit_figures *figures)
{
    *left_here() = (struct left){.is_waiting = true, .figures = *figures};
}

static PyObject *message(const struct limit_figures *f)
{
    char limit[ZSIZE_TEXT], used[ZSIZE_TEXT], asked[ZSIZE_TEXT], hard[ZSIZE_TEXT], place[1200], text[1600];
    where_format_place(&f->place, place, sizeof place);
    zsize_format(asked, f->requested);
    snprintf(text, sizeof text, "%s of %s: %s in use%s%s%s%s (hard limit %s)", f->scope,
             zsize_format(limit, f->limit), zsize_format(used, f->used), f->requested ? ", " : "",
             f->requested ? asked : "", f->requested ? " requested" : "", place, zsize_format(hard, f->hard));
    return PyUnicode_FromString(text);
}

static int set(PyObject *self, const char *name, PyObject *value)
{
    const int failed = value ? PyObject_SetAttrString(self, name, value) : -1;
    Py_XDECREF(value);
    return failed;
}

static int fill(PyObject *self, const struct limit_figures *f)
{
    ((LimitError *)self)->number = f->number;
    PyObject *text = message(f), *args = text ? PyTuple_Pack(1, text) : NULL;
    Py_XDECREF(text);
    PyObject *line = f->place.length ? PyLong_FromLong(f->place.line) : Py_NewRef(Py_None);
    return set(self, "args", args) < 0 || set(self, "used", PyLong_FromSize_t(f->used)) < 0 ||
                   set(self, "limit", PyLong_FromSize_t(f->limit)) < 0 ||
                   set(self, "hard_limit", PyLong_FromSize_t(f->hard)) < 0 ||
                   set(self, "requested", PyLong_FromSize_t(f->requested)) < 0 ||
                   set(self, "scope", PyUnicode_FromString(f->scope)) < 0 ||
                   set(self, "file", where_file(&f->place)) < 0 || set(self, "line", line) < 0
               ? -1
               : 0;
}

static int limit_error_begin(PyObject *self, PyObject *args, PyObject *keywords)
{
    if (((PyTypeObject *)PyExc_MemoryError)->tp_init(self, args, keywords) < 0)
        return -1;
    struct left *left = left_here();
    if (!left->is_waiting || PyTuple_GET_SIZE(args))
        return 0;
    left->is_waiting = false;
    if (fill(self, &left->figures) < 0)
        PyErr_Clear(); /* an error without its figures is better than another one */
    return 0;
}

PyObject *limit_error_new(PyTypeObject *type, const struct limit_figures *figures)
{
    limit_error_leave(figures);
    PyObject *error = PyObject_CallNoArgs((PyObject *)type);
    left_here()->is_waiting = false;
    return error;
}

/* CPython 3.10's own for subclasses of MemoryError leaves the object to the garbage collector while it takes it
 * apart, and what it holds (frames, with objects that have a __del__) may well run one. */
static void limit_error_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, limit_error_dealloc)
    ((PyTypeObject *)PyExc_MemoryError)->tp_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static int limit_error_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return ((PyTypeObject *)PyExc_MemoryError)->tp_traverse(self, visit, arg);
}

static int limit_error_clear(PyObject *self)
{
    return ((PyTypeObject *)PyExc_MemoryError)->tp_clear(self);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "What Python holds has passed a limit. A MemoryError.\n\n"
                "used, limit, hard_limit and requested are bytes when the error was raised; scope tells the kind\n"
                "of limit, file and line what asked for the bytes that passed it (None where it is not known)."},
    {Py_tp_init, limit_error_begin},
    {Py_tp_dealloc, limit_error_dealloc},
    {Py_tp_traverse, limit_error_traverse},
    {Py_tp_clear, limit_error_clear},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "zmalloc.LimitError",
    .basicsize = sizeof(LimitError),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static bool is_memory_error(PyObject *exception)
{
    return PyType_FastSubclass(Py_TYPE(exception), Py_TPFLAGS_BASE_EXC_SUBCLASS) &&
           PyType_IsSubtype(Py_TYPE(exception), (PyTypeObject *)PyExc_MemoryError);
}

bool limit_error_is_plain(PyObject *exception, const void *unused)
{
    (void)unused;
    return is_memory_error(exception) && Py_TYPE(exception)->tp_init != limit_error_begin;
}

bool limit_error_is_of(PyObject *exception, const void *number)
{
    if (!is_memory_error(exception) || Py_TYPE(exception)->tp_init != limit_error_begin)
        return false;
    const uint64_t own = ((LimitError *)exception)->number;
    return own == 0 || own == *(const uint64_t *)number;
}

int limit_error_init(PyObject *module, PyTypeObject **type)
{
    static const char *const names[] = {"used", "limit", "hard_limit", "requested", "scope", "file", "line"};
    PyObject *made = PyType_FromModuleAndSpec(module, &spec, PyExc_MemoryError);
    *type = (PyTypeObject *)made;
    for (size_t i = 0; made && i < sizeof names / sizeof *names; i++)
        if (PyObject_SetAttrString(made, names[i], Py_None) < 0)
            return -1;
    return made ? PyModule_AddType(module, *type) : -1;
}
