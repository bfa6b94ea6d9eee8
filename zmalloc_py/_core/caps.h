/* caps.h - limit() and the object that it returns. */
#ifndef ZMALLOC_CAPS_H
#define ZMALLOC_CAPS_H

#include <Python.h>
#include <stdbool.h>

#include "scopes.h"
#include "with.h"

/* What limits and budgets may go beyond n unless told otherwise, for the error and its handlers. */
#define CAPS_USUAL_RESERVE ((size_t)1 << 20)

/* limit(n, *, reserve, held, seal): the function of the module. */
PyObject *caps_limit(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
extern const char caps_limit_doc[];

/* Makes the type and adds it to the module. 0, or -1 with an exception set. */
int caps_init(PyObject *module, PyTypeObject **type);
PyTypeObject *caps_type(PyObject *module); /* in module.c */

/* What only exact counting can tell: -1 with a RuntimeError in mode `held`. what: "track()" */
int caps_need_exact(const char *what);

/* A limit on use of n bytes with the usual reserve, and on what is held, for the life of the process; SIZE_MAX:
 * none. */
void caps_seal(size_t n, size_t held);

/* The hooks count: -1 with an exception if they cannot. */
int caps_need_hooks(void);

/* A reserve may be 0, unlike other sizes. 0, or -1 with an exception set. */
int caps_reserve_from_object(PyObject *value, size_t *reserve);

PyObject *caps_size_or_none(size_t n);

/* What a scope does when its with statement ends: its cap is lifted, what is on its way of it is taken back, and
 * if use was above its limit, without an error's having come, garbage is collected and use looked at again.
 * None, or NULL with a LimitError. Nothing of it can fail but for that. */
PyObject *caps_leave(PyObject *module, struct scope *s, PyObject *error);

#endif
