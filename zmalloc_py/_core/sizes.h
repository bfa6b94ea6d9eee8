/* sizes.h - sizes as Python values. */
#ifndef ZMALLOC_SIZES_H
#define ZMALLOC_SIZES_H

#include <Python.h>

/* An int of bytes or text such as "64 MiB" or "80%" (csrc/zsize.h has the grammar). 0, or -1 with a
 * TypeError, ValueError or OverflowError that names the value; `what` names the argument. */
int size_from_object(PyObject *value, const char *what, size_t *size);

/* A value as a message shows it: its repr, shortened. NULL with an exception. */
PyObject *sizes_shown(PyObject *value);

#endif
