/* arrays.c - finding numpy's default data handler, and wrapping it.
 *
 * Invariants:
 *  - No header of numpy's is used: what is read of it is its C API, whose slots never change within a
 *    version of its binary interface. Only known versions are touched.
 *  - The wrapped functions never get their old pointers back: numpy's library is never unloaded.
 *  - All of this holds the GIL. There is one numpy in a process: it does not load into interpreters that have
 *    a GIL of their own. Its functions may be called without the GIL.
 *  - They ignore ctx, but for handing it on: the handler's own functions do, so others may reuse them. */
#define PY_SSIZE_T_CLEAN
#include "arrays.h"

#include "hooks.h"
#include "hooks_inside.h"

/* numpy's PyDataMem_Handler of version 1. */
struct handler {
    char name[127];
    unsigned char version;
    void *ctx;
    struct outside functions;
};

enum { HANDLER_VERSION = 1 };

/* Slots of numpy's C API. */
enum { GET_BINARY_VERSION = 0, GET_FEATURE_VERSION = 211, DEFAULT_HANDLER = 306 };

/* Of numpy 1 and numpy 2; of 1.22, the first that has handlers. */
enum { BINARY_VERSION_1 = 0x01000009, BINARY_VERSION_2 = 0x02000000, FIRST_WITH_HANDLERS = 0x0f };

/* numpy keeps freed blocks of less than 1024 bytes for itself. */
enum { UNCACHED = 4096 };

static enum { UNSEEN, BY_HANDLER, BY_RAW, UNCOUNTED } state;

/* What the handler called before it was wrapped. */
static struct outside numpys;

/* ---- the functions that numpy calls ----------------------------------------------------------- */

static void *array_malloc(void *ctx, size_t n)
{
    return hooks_outside_allocate(&numpys, ctx, 1, n, false);
}

static void *array_calloc(void *ctx, size_t count, size_t size)
{
    return hooks_outside_allocate(&numpys, ctx, count, size, true);
}

static void *array_realloc(void *ctx, void *p, size_t n)
{
    return hooks_outside_resize(&numpys, ctx, p, n);
}

static void array_free(void *ctx, void *p, size_t n)
{
    hooks_outside_release(&numpys, ctx, p, n);
}

/* ---- finding the handler ---------------------------------------------------------------------- */

/* What a dict has under a name, or NULL; no exception. Borrowed. */
static PyObject *get(PyObject *dict, const char *name)
{
    PyObject *key = PyUnicode_FromString(name);
    PyObject *value = key ? PyDict_GetItemWithError(dict, key) : NULL;
    Py_XDECREF(key);
    if (!value)
        PyErr_Clear();
    return value;
}

/* The value of a name in a module that has been imported, or NULL. Borrowed. Goes by the dictionaries alone:
 * numpy 2 has modules with numpy 1's names, whose __getattr__ complains. */
static PyObject *value_in(const char *module_name, const char *name)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = modules ? get(modules, module_name) : NULL;
    return module && PyModule_Check(module) ? get(PyModule_GetDict(module), name) : NULL;
}

static void **numpys_api(void)
{
    PyObject *capsule = value_in("numpy._core._multiarray_umath", "_ARRAY_API");
    if (!capsule)
        capsule = value_in("numpy.core._multiarray_umath", "_ARRAY_API");
    if (!capsule || !PyCapsule_IsValid(capsule, NULL))
        return NULL;
    return PyCapsule_GetPointer(capsule, NULL);
}

static unsigned call_version(void *function)
{
    return ((unsigned (*)(void))function)();
}

static bool has_handlers(void **api)
{
    const unsigned binary = call_version(api[GET_BINARY_VERSION]);
    if (binary != BINARY_VERSION_1 && binary != BINARY_VERSION_2)
        return false;
    return call_version(api[GET_FEATURE_VERSION]) >= FIRST_WITH_HANDLERS;
}

/* Not the handler in use: the current context may have another, which its owner takes away one day. */
static struct handler *default_handler(void **api)
{
    PyObject *const *capsule = has_handlers(api) ? api[DEFAULT_HANDLER] : NULL;
    if (!capsule || !*capsule || !PyCapsule_IsValid(*capsule, "mem_handler"))
        return NULL;
    struct handler *h = PyCapsule_GetPointer(*capsule, "mem_handler");
    return h->version == HANDLER_VERSION ? h : NULL;
}

/* ---- wrapping it -------------------------------------------------------------------------------- */

/* Does it ask RAW? If so and it is not noticed, because our hook in RAW has been thrown out, a block is still
 * counted once: RAW calls below others are not. */
static bool is_counted_by_raw(const struct handler *h)
{
    hooks_probe_begin();
    void *p = h->functions.malloc(h->ctx, UNCACHED);
    const unsigned seen = hooks_probe_end();
    if (p)
        h->functions.free(h->ctx, p, UNCACHED);
    return seen & 1u << RAW;
}

/* Whoever calls them at this moment must not mark a block whose free does not yet unmark it. */
static void wrap(struct handler *h)
{
    numpys = h->functions;
    h->functions.free = array_free;
    h->functions.realloc = array_realloc;
    atomic_thread_fence(memory_order_seq_cst);
    h->functions.malloc = array_malloc;
    h->functions.calloc = array_calloc;
}

void arrays_look(void)
{
    void **api = state == UNSEEN && hooks_were_installed() ? numpys_api() : NULL;
    if (!api)
        return;
    struct handler *h = default_handler(api);
    state = !h ? UNCOUNTED : is_counted_by_raw(h) ? BY_RAW : BY_HANDLER;
    if (state == BY_HANDLER)
        wrap(h);
}

PyObject *arrays_state(void)
{
    static const char *const names[] = {"", "handler", "raw", "not"};
    return state == UNSEEN ? Py_NewRef(Py_None) : PyUnicode_FromString(names[state]);
}

/* ---- being told of imports ------------------------------------------------------------------------ */

/* numpy's package goes on importing modules of its own after the one that has the handler, long before anybody
 * makes an array: so it is enough to look whenever the next is asked for. No module's loader is touched. */
static PyObject *find_spec(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    (void)self, (void)names;
    if (state == UNSEEN && nargs > 0 && PyUnicode_Check(args[0])) {
        const char *name = PyUnicode_AsUTF8(args[0]);
        if (!name)
            PyErr_Clear();
        else if (strncmp(name, "numpy.", 6) == 0)
            arrays_look();
    }
    Py_RETURN_NONE;
}

static PyMethodDef watcher_methods[] = {
    {"find_spec", (PyCFunction)(void (*)(void))find_spec, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("find_spec(name, path=None, target=None)\n--\n\nNone: it only looks on.")},
    {NULL, NULL, 0, NULL},
};

static void watcher_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_Free(op);
    Py_DECREF(type);
}

static PyType_Slot watcher_slots[] = {
    {Py_tp_methods, watcher_methods},
    {Py_tp_dealloc, watcher_dealloc},
    {Py_tp_doc, "Sees numpy's import, so that its arrays are counted. Finds no module."},
    {0, NULL},
};

static PyType_Spec watcher_spec = {
    .name = "zmalloc._core.ImportWatcher",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = watcher_slots,
};

static bool is_watched(PyObject *finders)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(finders); i++) {
        if (strcmp(Py_TYPE(PyList_GET_ITEM(finders, i))->tp_name, watcher_spec.name) == 0)
            return true;
    }
    return false;
}

/* sys.meta_path, borrowed from sys. NULL with an exception, or without one if there is no such list. What
 * PySys_GetObject() does not find for want of memory it takes for missing. */
static PyObject *list_of_finders(void)
{
    PyObject *sys = PyImport_ImportModule("sys");
    PyObject *name = sys ? PyUnicode_FromString("meta_path") : NULL;
    PyObject *finders = name ? PyDict_GetItemWithError(PyModule_GetDict(sys), name) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(sys);
    return finders && PyList_Check(finders) ? finders : NULL;
}

/* It is never taken out again: another thread may be going through the list, and would leave one finder out. */
int arrays_watch(void)
{
    PyObject *finders = list_of_finders();
    if (!finders)
        return PyErr_Occurred() ? -1 : 0;
    if (is_watched(finders))
        return 0;
    PyObject *type = PyType_FromSpec(&watcher_spec);
    PyObject *watcher = type ? (PyObject *)PyObject_New(PyObject, (PyTypeObject *)type) : NULL;
    Py_XDECREF(type);
    if (!watcher && !PyErr_Occurred()) /* PyType_FromSpec() sets none for its copy of the name */
        PyErr_NoMemory();
    const int failed = watcher ? PyList_Insert(finders, 0, watcher) : -1;
    Py_XDECREF(watcher);
    return failed;
}
