/* fail_after.h - fail_after(): for the length of a block. */
#ifndef ZMALLOC_FAIL_AFTER_H
#define ZMALLOC_FAIL_AFTER_H

#include <Python.h>

PyObject *fail_after_make(PyObject *module, PyObject *args, PyObject *keywords);
extern const char fail_after_doc[];

/* The type. fail_after_type() is in module.c. */
PyTypeObject *fail_after_init(PyObject *module);
PyTypeObject *fail_after_type(PyObject *module);

#endif
