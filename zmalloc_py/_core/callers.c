/* callers.c - walking the C stack up to the interpreter's loop. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "callers.h"

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(_WIN32)

#include <unwind.h>

/* Where functions begin. What is not exported is known to the objects that call it. */
enum { BUILTINS = 3 };
static uintptr_t fragile[BUILTINS + 3];
static uintptr_t loops[2]; /* the interpreter takes over */

static uintptr_t address_of(PyObject *builtins, const char *name)
{
    PyObject *function = PyObject_GetAttrString(builtins, name);
    const bool is_plain = function && PyCFunction_Check(function); /* nobody has put something else there */
    const uintptr_t address = is_plain ? (uintptr_t)PyCFunction_GetFunction(function) : 0;
    Py_XDECREF(function);
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

static _Unwind_Reason_Code look(struct _Unwind_Context *context, void *found)
{
    const uintptr_t start = (uintptr_t)_Unwind_GetRegionStart(context);
    if (start == 0 || is_among(start, loops, sizeof loops / sizeof *loops))
        return _URC_NORMAL_STOP;
    if (!is_among(start, fragile, sizeof fragile / sizeof *fragile))
        return _URC_NO_REASON;
    *(bool *)found = true;
    return _URC_NORMAL_STOP;
}

bool callers_are_fragile(void)
{
    bool found = false;
    _Unwind_Backtrace(look, &found);
    return found;
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

#endif
