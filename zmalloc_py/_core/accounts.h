/* accounts.h - lua_allocator(), and the object that stands for the account behind it. */
#ifndef ZMALLOC_ACCOUNTS_H
#define ZMALLOC_ACCOUNTS_H

#include <Python.h>

/* Makes the type and adds it to the module. 0, or -1 with an exception set. */
int accounts_init(PyObject *module, PyTypeObject **type);

/* The type of a module that accounts_init() has seen (in module.c, which knows the module's state). */
PyTypeObject *account_type(PyObject *module);

/* lua_allocator(name, *, parent): the function of the module. */
PyObject *accounts_lua_allocator(PyObject *module, PyObject *args, PyObject *keywords);

extern const char accounts_lua_allocator_doc[];

#endif
