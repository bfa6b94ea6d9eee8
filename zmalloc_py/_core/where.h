/* where.h - the file and line that Python is executing, read without allocating anything. */
#ifndef ZMALLOC_WHERE_H
#define ZMALLOC_WHERE_H

#include <Python.h>
#include <stdbool.h>

/* This thread's thread state if it holds the GIL, else NULL. */
PyThreadState *where_thread_state(void);

/* Notes that n bytes were refused because of a cap of `limit` bytes, and at which line. May be called in a hook, with the GIL or without
 * (then file and line are unknown). */
void where_note(size_t n, size_t limit);

/* The last note as (bytes, file or None, line or None), or None if there is none. A new reference. */
PyObject *where_last(void);

/* The bytes of the last note, and the cap; 0 if there is none. */
size_t where_bytes(void);
size_t where_limit(void);

/* Its place as text for a report, " at FILE:LINE" or "". Allocates nothing. */
void where_format(char *buffer, size_t room);

#endif
