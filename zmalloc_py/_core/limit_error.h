/* limit_error.h - zmalloc.LimitError: the MemoryError of a limit that says its figures. */
#ifndef ZMALLOC_LIMIT_ERROR_H
#define ZMALLOC_LIMIT_ERROR_H

#include <Python.h>
#include <stdbool.h>

#include "where.h"

struct limit_figures {
    uint64_t number; /* of the scope */
    const char *scope; /* what it is called, static text */
    size_t used, limit, hard, requested; /* bytes */
    struct place place;
};

/* Makes the type and adds it to the module. 0, or -1 with an exception set. */
int limit_error_init(PyObject *module, PyTypeObject **type);

PyTypeObject *limit_error_type(PyObject *module); /* in module.c */

/* An error with these figures, NULL with an exception set. */
PyObject *limit_error_new(PyTypeObject *type, const struct limit_figures *figures);

/* What the interpreter makes an instance of in this thread, the next time, has these figures. */
void limit_error_leave(const struct limit_figures *figures);

/* Is it a LimitError of the scope with *(const uint64_t *)number? A MemoryError of CPython's own? */
bool limit_error_is_of(PyObject *exception, const void *number);
bool limit_error_is_plain(PyObject *exception, const void *unused);

#endif
