/* runner.h - running a script to its end and reporting on it when nothing is left. */
#ifndef ZMALLOC_RUNNER_H
#define ZMALLOC_RUNNER_H

#include <Python.h>

/* Exit status of a script that died of its cap. */
#define RUNNER_STATUS_LIMIT 53

/* _execute(function, note): calls function(). If that raises anything but SystemExit, shows it as Python
 * would, without the frames above function's callee, calls note(status) and ends the process. */
PyObject *runner_execute(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* _reporter(function): a callable without arguments that calls function() beyond the limit. Calling it
 * allocates nothing until it is there. */
PyObject *runner_reporter(PyObject *module, PyObject *function);

#endif
