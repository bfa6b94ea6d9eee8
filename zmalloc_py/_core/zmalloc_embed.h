/* zmalloc_embed.h - for programs that have CPython inside: counted from before Py_Initialize() on.
 *
 *     zmalloc_py_install();                // zmalloc._core is built in, and the hooks are in
 *     Py_InitializeFromConfig(&config);    // every block is counted from here on
 *     PyImport_ImportModule("zmalloc");    // finds both; the rest of the package comes from sys.path
 *
 * Compile the C files of csrc/ and zmalloc_py/_core/ into the program, and export its symbols (-rdynamic),
 * so that other copies of the library in the process, a Lua module's, find this one and count into the same
 * total. zaccount.h then has the figures of all accounts; Python's is zmalloc_py_account().
 *
 * The package on sys.path must be of the same version; importing another one is an ImportError. Without
 * zmalloc_py_install() nothing is built in, and importing zmalloc counts from the import on, as ever. */
#ifndef ZMALLOC_EMBED_H
#define ZMALLOC_EMBED_H

#include <Python.h>

#include "zaccount.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Call it before Py_Initialize(). Preinitializes Python as `python` does (PyPreConfig_InitPythonConfig),
 * unless the program has called Py_PreInitialize() itself: allocators may be wrapped from then on. Once is
 * enough for all interpreters to come, again and again does no harm.
 * 0; or -1, with nothing done: Python is initialized already (import zmalloc first thing instead), Python could
 * not be preinitialized, there is no memory, or this is a free-threaded build. */
int zmalloc_py_install(void);

/* The account of Python: for reading, and as a parent of others. */
zaccount *zmalloc_py_account(void);

/* The module zmalloc._core, which zmalloc_py_install() has entered in PyImport_Inittab. */
PyMODINIT_FUNC PyInit__core(void);

#ifdef __cplusplus
}
#endif
#endif
