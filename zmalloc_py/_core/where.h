/* where.h - the file and line that Python is executing, read without allocating anything. */
#ifndef ZMALLOC_WHERE_H
#define ZMALLOC_WHERE_H

#include <Python.h>
#include <stdbool.h>

#include "frames.h"

enum { PLACE_ROOM = 256 };

/* A line of a file. */
struct place {
    int line, length; /* of the file's name; 0: unknown */
    Py_UCS4 file[PLACE_ROOM];
};

/* Where this thread is. May be called in a hook, with the GIL or without (then nothing is known). */
void where_read(struct place *place);

/* The file's name as a str, or None. A new reference. */
PyObject *where_file(const struct place *place);

/* " at FILE:LINE" or "". Allocates nothing. */
void where_format_place(const struct place *place, char *buffer, size_t room);

/* Notes that n bytes were refused because of a cap of `limit` bytes, and at which line. May be called in a hook, with
 * the GIL or without (then file and line are unknown). */
void where_note(size_t n, size_t limit);
void where_note_place(size_t n, size_t limit, const struct place *place);

/* The last note as (bytes, file or None, line or None), or None if there is none. A new reference. */
PyObject *where_last(void);

/* The bytes of the last note, and the cap; 0 if there is none. */
size_t where_bytes(void);
size_t where_limit(void);

/* Its place as text for a report, " at FILE:LINE" or "". Allocates nothing. */
void where_format(char *buffer, size_t room);

#endif
