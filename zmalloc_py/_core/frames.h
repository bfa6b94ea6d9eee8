/* frames.h - what a thread is executing, read from the interpreter's own structures without allocating.
 *
 * From 3.11 on the public functions may have to make a frame object, which a hook cannot. The layouts are those
 * of the versions that were tested; on others nothing is known (FRAMES_ARE_KNOWN) and the callers do without.
 *
 * All of it wants the GIL, but frames_state(). */
#ifndef ZMALLOC_FRAMES_H
#define ZMALLOC_FRAMES_H

#include <Python.h>
#include <stdbool.h>

#define FRAMES_ARE_KNOWN (PY_VERSION_HEX >= 0x030a0000 && PY_VERSION_HEX < 0x030e0000)

/* This thread's state if it holds the GIL, else NULL. */
PyThreadState *frames_state(void);

/* A place in a running function. All borrowed. */
struct spot {
    const void *frame; /* NULL: no Python code is running */
    const void *at;    /* the instruction */
    PyCodeObject *code;
    PyObject *globals;
};
void frames_top(PyThreadState *state, struct spot *spot);
/* The same instruction of the same frame, if there is one. */
bool frames_is_same(const struct spot *a, const struct spot *b);
/* The caller's, the frame's below; false at the bottom. */
bool frames_next(struct spot *spot);
int frames_line(const struct spot *spot);

/* Is this frame running or waiting at this instruction in the thread? */
bool frames_is_at(PyThreadState *state, const struct spot *spot);

/* Is an exception on its way? */
bool frames_has_error(PyThreadState *state);

/* Is any exception being handled, alone or in a group, for which is(exception, ud) is true? */
bool frames_is_handling(PyThreadState *state, bool (*is)(PyObject *exception, const void *ud), const void *ud);

/* Is a tracing or profiling function running? */
bool frames_is_tracing(PyThreadState *state);

/* Is n the size of a traceback's entry, or, from 3.11 on, of the innermost frame's object? CPython takes the exception
 * out that is on its way while it makes the two, so that it cannot be seen. */
bool frames_is_of_unwinding(PyThreadState *state, size_t n);

/* Is the instruction there one that CPython gets wrong when what it asks for is refused? MAKE_FUNCTION of 3.12 and
 * 3.13 gives up one reference too many to the function's code; 3.10, before the first instruction of a function that
 * has been called often, returns without an exception. */
bool frames_is_fragile(const struct spot *spot);

/* Is n the size of the tuple in which a with statement hands its three arguments to an __exit__ in C, or, on 3.10, of
 * the frame of one in Python? Where there is none __exit__ is not called: a lock stays locked. */
bool frames_is_leaving_with(const struct spot *spot, size_t n);

/* Calls that are open in this thread, where their frames are blocks like any other (up to 3.10); else 0. */
int frames_depth(PyThreadState *state);

#endif
