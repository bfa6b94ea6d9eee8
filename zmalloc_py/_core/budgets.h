/* budgets.h - budget(), track() and exempt(): for the length of a block. */
#ifndef ZMALLOC_BUDGETS_H
#define ZMALLOC_BUDGETS_H

#include <Python.h>

PyObject *budgets_budget(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *budgets_track_process(PyObject *module, PyObject *unused); /* in each mode: by what is counted in it */
PyObject *budgets_track(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *budgets_exempt(PyObject *module, PyObject *unused);
extern const char budgets_budget_doc[], budgets_track_doc[], budgets_exempt_doc[];

struct budget_types {
    PyTypeObject *budget, *track, *exempt;
};
int budgets_init(PyObject *module, struct budget_types *types);
const struct budget_types *budgets_types(PyObject *module); /* in module.c */

#endif
