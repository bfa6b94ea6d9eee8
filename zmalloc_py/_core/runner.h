/* runner.h - running a script to its end and reporting on it when nothing is left. */
#ifndef ZMALLOC_RUNNER_H
#define ZMALLOC_RUNNER_H

#include <Python.h>

/* Exit status of a script that died of its cap. */
#define RUNNER_STATUS_LIMIT 53

/* _execute(function, note): calls function(). If that raises, calls note(status, died), shows the exception
 * as Python would, without the frames above function's callee, and ends the process with the status that
 * Python would give, or with RUNNER_STATUS_LIMIT. died is False for sys.exit(). */
PyObject *runner_execute(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* -1 with an exception set once _execute() has been called: _execute() itself, _reporter() and whatever else
 * serves the command line only are refused from then on. */
int runner_before_the_program(void);

/* _run_file(path, namespace): what the interpreter does with a script. path None: standard input.
 * _run_text(code, namespace): what it does with -c. Python's own compile() is not used: it creates the
 * classes of module ast first, 200 kB of them. */
PyObject *runner_run_file(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *runner_run_text(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* _reporter(function): a callable without arguments that calls function() beyond the limit. Calling it
 * allocates nothing until it is there. */
PyObject *runner_reporter(PyObject *module, PyObject *function);

#endif
