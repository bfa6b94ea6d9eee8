/* modes.h - install(), mode() and ZMALLOC_MODE: which of the two ways of counting the process is in. */
#ifndef ZMALLOC_MODES_H
#define ZMALLOC_MODES_H

#include <Python.h>

/* All that has to be in place for everything to be counted, in the mode that the process is in. As hooks_install(). */
int modes_install(void);

/* The same at the first import, where ZMALLOC_MODE chooses the mode. */
int modes_obey_variable(void);

const char *modes_name(void);

/* Why a process that asked for mode `held` counts exactly, NULL if it does not. */
const char *modes_note(void);

/* install(*, mode), mode() and _begin_held(), functions of the module. */
PyObject *modes_py_install(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *modes_py_mode(PyObject *module, PyObject *unused);
PyObject *modes_py_begin_held(PyObject *module, PyObject *unused);
extern const char modes_install_doc[], modes_mode_doc[];

#endif
