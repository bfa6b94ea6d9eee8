/* with.c - bound methods that are there before they are asked for. */
#define PY_SSIZE_T_CLEAN
#include "with.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

/* ---- the bound method ---------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    const struct with_way *way;
    PyObject *self; /* borrowed as long as self owns this object, owned once it has been fetched */
    bool owns_self;
} Bound;

static PyObject *call_enter(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names)
{
    (void)args;
    if (PyVectorcall_NARGS(flags) != 0 || names) {
        PyErr_SetString(PyExc_TypeError, "__enter__() takes no arguments");
        return NULL;
    }
    return ((Bound *)callable)->way->enter(((Bound *)callable)->self);
}

static PyObject *call_exit(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names)
{
    (void)names;
    const Bound *bound = (Bound *)callable;
    return bound->way->leave(bound->self, PyVectorcall_NARGS(flags) > 0 ? args[0] : Py_None);
}

static PyObject *new_bound(PyTypeObject *type, const struct with_way *way, PyObject *self, bool is_enter)
{
    Bound *bound = PyObject_New(Bound, type);
    if (!bound)
        return NULL;
    bound->call = is_enter ? call_enter : call_exit;
    bound->way = way;
    bound->self = self;
    bound->owns_self = false;
    return (PyObject *)bound;
}

static void bound_dealloc(PyObject *op)
{
    Bound *bound = (Bound *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject *self = bound->owns_self ? bound->self : NULL;
    PyObject_Free(op);
    Py_DECREF(type);
    Py_XDECREF(self);
}

static PyMemberDef bound_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Bound, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot bound_slots[] = {
    {Py_tp_dealloc, bound_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, bound_members},
    {0, NULL},
};

static PyType_Spec bound_spec = {
    .name = "zmalloc._core.bound_method",
    .basicsize = sizeof(Bound),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bound_slots,
};

/* ---- the descriptor ------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    const struct with_way *way;
    PyTypeObject *owner; /* borrowed: it owns this */
    bool is_enter;
} Method;

static bool belongs(const Method *method, PyObject *instance)
{
    if (Py_TYPE(instance) == method->owner)
        return true;
    PyErr_Format(PyExc_TypeError, "not a zmalloc.%s", method->way->name);
    return false;
}

/* NULL with an exception once the module is being taken down. */
static PyObject *late_bound(PyObject *op, PyObject *instance)
{
    PyObject *module = PyType_GetModule(Py_TYPE(op));
    PyTypeObject *type = module ? with_types_of(module)->bound : NULL;
    if (type)
        return new_bound(type, ((Method *)op)->way, instance, ((Method *)op)->is_enter);
    if (module)
        PyErr_SetString(PyExc_RuntimeError, "zmalloc is being taken down with its interpreter");
    return NULL;
}

static PyObject *method_get(PyObject *op, PyObject *instance, PyObject *type)
{
    const Method *method = (Method *)op;
    (void)type;
    if (!instance || instance == Py_None)
        return Py_NewRef(op);
    if (!belongs(method, instance))
        return NULL;
    With *self = (With *)instance;
    PyObject **ready = method->is_enter ? &self->enter : &self->exit;
    PyObject *bound = *ready ? *ready : late_bound(op, instance);
    if (!bound)
        return NULL;
    *ready = NULL;
    ((Bound *)bound)->owns_self = true;
    Py_INCREF(instance);
    return bound;
}

/* type(obj).__enter__(obj) and __exit__(obj, ...), as contextlib.ExitStack does it: nothing is allocated. */
static PyObject *call_method(PyObject *op, PyObject *const *args, size_t flags, PyObject *names)
{
    const Method *method = (Method *)op;
    const Py_ssize_t nargs = PyVectorcall_NARGS(flags);
    (void)names;
    if (nargs < 1) {
        PyErr_Format(PyExc_TypeError, "needs a zmalloc.%s", method->way->name);
        return NULL;
    }
    if (!belongs(method, args[0]))
        return NULL;
    return method->is_enter ? method->way->enter(args[0]) : method->way->leave(args[0], nargs > 1 ? args[1] : Py_None);
}

/* A type has its methods, and they have theirs, which has the module, which has the type: the collector has to see it. */
static int method_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_traverse, method_traverse},
    {Py_tp_descr_get, method_get},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, method_members},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "zmalloc._core.method",
    .basicsize = sizeof(Method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = method_slots,
};

static int add_method(const struct with_types *types, PyTypeObject *type, const struct with_way *way, bool is_enter)
{
    Method *method = PyObject_GC_New(Method, types->method);
    if (!method)
        return -1;
    method->call = call_method;
    method->way = way;
    method->owner = type;
    method->is_enter = is_enter;
    PyObject_GC_Track(method);
    const int failed =
        PyObject_SetAttrString((PyObject *)type, is_enter ? "__enter__" : "__exit__", (PyObject *)method);
    Py_DECREF(method);
    return failed;
}

int with_equip(const struct with_types *types, PyTypeObject *type, const struct with_way *way)
{
    return add_method(types, type, way, true) < 0 ? -1 : add_method(types, type, way, false);
}

/* ---- objects ------------------------------------------------------------------------------------- */

PyObject *with_new(const struct with_types *types, PyTypeObject *type, size_t size, const struct with_way *way)
{
    PyObject *op = PyObject_Malloc(size);
    if (!op)
        return PyErr_NoMemory();
    memset(op, 0, size);
    PyObject_Init(op, type);
    With *self = (With *)op;
    self->enter = new_bound(types->bound, way, op, true);
    self->exit = self->enter ? new_bound(types->bound, way, op, false) : NULL;
    if (self->exit)
        return op;
    Py_DECREF(op);
    return NULL;
}

void with_dealloc(PyObject *op)
{
    With *self = (With *)op;
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(self->enter);
    Py_XDECREF(self->exit);
    PyObject_Free(op);
    Py_DECREF(type);
}

int with_init(PyObject *module, struct with_types *types)
{
    types->bound = (PyTypeObject *)PyType_FromModuleAndSpec(module, &bound_spec, NULL);
    types->method = (PyTypeObject *)PyType_FromModuleAndSpec(module, &method_spec, NULL);
    return types->bound && types->method ? 0 : -1;
}
