/* scopes.h - the limits in force, and the object that limit() returns.
 *
 * Limits form a set: threads and tasks do not nest, so there is no stack of them. The smallest is in
 * force. There is at most one bare limit, set by a call; the others are scopes, entered by `with`; and
 * there are sealed ones, which stay for the life of the process. */
#ifndef ZMALLOC_SCOPES_H
#define ZMALLOC_SCOPES_H

#include <Python.h>

/* Each interpreter's module has types of its own. */
struct scope_types {
    PyTypeObject *bound, *method, *limit;
};

/* Makes the types and adds the public one to the module. 0, or -1 with an exception set. */
int scopes_init(PyObject *module, struct scope_types *types);

/* The types of a module that scopes_init() has seen (in module.c, which knows the module's state). */
const struct scope_types *scope_types(PyObject *module);

/* limit(n, *, held, seal): the function of the module. */
PyObject *scopes_limit(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names);

/* Caps the process for good at n bytes used (SIZE_MAX: not) and `held` bytes held (likewise). */
void scopes_seal(size_t n, size_t held);

/* Between the two this thread may go beyond the limits, for a report about a script that has left nothing.
 * What the report leaves behind (modules that it imported) is added to the limits in force, so that the
 * script's own last words have the room that they had before; the peak does not remember it. Do not nest. */
void scopes_report_begin(void);
void scopes_report_end(void);

/* The peak of use, without what a report that is being made has asked for. */
size_t scopes_peak(void);

/* The smallest limit on use, or SIZE_MAX; the smallest on what is held. */
size_t scopes_in_force(void);
size_t scopes_held_in_force(void);

/* The sealed ones among them, or SIZE_MAX. Where held is use (hooks_held_is_used()) a seal on held is one
 * on use. */
size_t scopes_sealed(void);
size_t scopes_held_sealed(void);

#endif
