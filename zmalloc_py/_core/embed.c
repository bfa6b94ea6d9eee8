/* embed.c - the extension module inside a program that embeds CPython. */
#define PY_SSIZE_T_CLEAN
#include "zmalloc_embed.h"

#include "hooks.h"

#include <stdbool.h>

/* A no-op where the program has done it. */
static bool preinitialize(void)
{
    PyPreConfig config;
    PyPreConfig_InitPythonConfig(&config);
    return !PyStatus_Exception(Py_PreInitialize(&config));
}

int zmalloc_py_install(void)
{
    static bool done;
    if (done)
        return 0;
#if defined(Py_GIL_DISABLED)
    return -1;
#endif
    if (Py_IsInitialized() || !preinitialize() ||
        PyImport_AppendInittab("zmalloc._core", PyInit__core) < 0)
        return -1;
    hooks_init();
    hooks_install_early();
    done = true;
    return 0;
}

zaccount *zmalloc_py_account(void)
{
    return &python_account;
}
