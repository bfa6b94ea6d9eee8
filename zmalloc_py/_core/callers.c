/* callers.c - walking the C stack up to the interpreter's loop. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "callers.h"

#include "hooks_inside.h"

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(_WIN32)

#include <unwind.h>

/* Where functions begin. What is not exported is known to the objects that call it. */
enum { BUILTINS = 3 };
static uintptr_t fragile[BUILTINS + 3];
static uintptr_t loops[2]; /* the interpreter takes over */
static uintptr_t setters[3];

static uintptr_t address_of(PyObject *builtins, const char *name)
{
    PyObject *function = PyObject_GetAttrString(builtins, name);
    const bool is_plain = function && PyCFunction_Check(function); /* nobody has put something else there */
    const uintptr_t address = is_plain ? (uintptr_t)PyCFunction_GetFunction(function) : 0;
    Py_XDECREF(function);
    return address;
}

static uintptr_t address_of_setdefault(void)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)&PyDict_Type, "setdefault");
    const bool is_plain = method && Py_IS_TYPE(method, &PyMethodDescr_Type);
    const uintptr_t address = is_plain ? (uintptr_t)((PyMethodDescrObject *)method)->d_method->ml_meth : 0;
    Py_XDECREF(method);
    return address;
}

int callers_init(void)
{
    static const char *const names[BUILTINS] = {"compile", "exec", "eval"};
    PyObject *builtins = PyImport_ImportModule("builtins");
    if (!builtins)
        return -1;
    for (int i = 0; i < BUILTINS; i++)
        fragile[i] = address_of(builtins, names[i]);
    fragile[BUILTINS] = (uintptr_t)Py_CompileStringObject;
    fragile[BUILTINS + 1] = (uintptr_t)PyRun_StringFlags;
    fragile[BUILTINS + 2] = (uintptr_t)PyDictItems_Type.tp_iter;
    loops[0] = (uintptr_t)_PyEval_EvalFrameDefault;
    loops[1] = (uintptr_t)PyEval_EvalCode;
    setters[0] = address_of_setdefault();
    setters[1] = (uintptr_t)PyDict_SetDefault;
#if PY_VERSION_HEX >= 0x030d0000
    setters[2] = (uintptr_t)PyDict_SetDefaultRef;
#endif
    Py_DECREF(builtins);
    PyErr_Clear(); /* one that is not there is not called */
    return 0;
}

static bool is_among(uintptr_t address, const uintptr_t *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == address)
            return true;
    return false;
}

struct search {
    const uintptr_t *list;
    size_t count;
    bool found;
};

static _Unwind_Reason_Code look(struct _Unwind_Context *context, void *arg)
{
    struct search *search = arg;
    const uintptr_t start = (uintptr_t)_Unwind_GetRegionStart(context);
    if (start == 0 || is_among(start, loops, sizeof loops / sizeof *loops))
        return _URC_NORMAL_STOP;
    search->found = is_among(start, search->list, search->count);
    return search->found ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

static bool is_called(const uintptr_t *list, size_t count)
{
    struct search search = {.list = list, .count = count};
    _Unwind_Backtrace(look, &search);
    return search.found;
}

bool callers_are_fragile(void)
{
    return is_called(fragile, sizeof fragile / sizeof *fragile);
}

bool callers_set_a_default(void)
{
    return is_called(setters, sizeof setters / sizeof *setters);
}

/* Functions of tools that have wrapped our hooks. */
static size_t note_tool(uintptr_t *tools, size_t count, uintptr_t top, uintptr_t ours)
{
    if (top != ours)
        tools[count++] = top;
    return count;
}

bool callers_trace_a_resize(void)
{
    static const PyMemAllocatorDomain domains[] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    uintptr_t tools[3];
    size_t count = 0;
    for (int i = 0; i < 3; i++) {
        PyMemAllocatorEx top;
        PyMem_GetAllocator(domains[i], &top);
        count = note_tool(tools, count, (uintptr_t)top.realloc, (uintptr_t)hooks_ours[i].realloc);
    }
    return count && is_called(tools, count);
}

bool callers_trace_an_object(void)
{
    PyMemAllocatorEx top;
    const PyMemAllocatorEx *ours = &hooks_ours[OBJ];
    uintptr_t tools[3];
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &top);
    size_t count = note_tool(tools, 0, (uintptr_t)top.malloc, (uintptr_t)ours->malloc);
    count = note_tool(tools, count, (uintptr_t)top.calloc, (uintptr_t)ours->calloc);
    count = note_tool(tools, count, (uintptr_t)top.realloc, (uintptr_t)ours->realloc);
    return count && is_called(tools, count);
}

#else

int callers_init(void)
{
    return 0;
}

bool callers_are_fragile(void)
{
    return false;
}

bool callers_set_a_default(void)
{
    return false;
}

bool callers_trace_a_resize(void)
{
    return false;
}

bool callers_trace_an_object(void)
{
    return false;
}

#endif
