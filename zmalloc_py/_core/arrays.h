/* arrays.h - the data of numpy's arrays, which up to numpy 2.4 do not come from PyMem.
 *
 * numpy 1.22 to 2.4 take array data from libc through a struct of function pointers, the default data
 * handler. Those are wrapped in place: every array then goes by here, in each thread and context, and those
 * made earlier are freed right. numpy 2.5 and later ask RAW and are left alone. Earlier ones than 1.22 have
 * no handler: their data are not counted.
 *
 * Not counted: what a data handler set by somebody else gives, and what numpy and its friends take from
 * libc for themselves. */
#ifndef ZMALLOC_ARRAYS_H
#define ZMALLOC_ARRAYS_H

#include <Python.h>

/* Wraps numpy's handler if numpy has been imported, the hooks are in, and it has not been done. Raises nothing,
 * and works at the cap, at the latest at the next call. Holds the GIL. */
void arrays_look(void);

/* Has the interpreter tell us of imports, to look when numpy's come: a finder on sys.meta_path that never finds
 * anything. Once an interpreter. 0, or -1 with an exception set. */
int arrays_watch(void);

/* How arrays are counted: "handler", "raw", "not"; None while no numpy has been seen. A new reference. */
PyObject *arrays_state(void);

#endif
