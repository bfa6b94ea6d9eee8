/* tied.h - what belongs to one thread and hangs in a list of it: its gauges, its faults.
 *
 * The list is written by its thread alone, which may be in the middle of a hook without the GIL: another thread only
 * marks what it ends. All of it wants the GIL. */
#ifndef ZMALLOC_TIED_H
#define ZMALLOC_TIED_H

#include "threads.h"

/* The first member of what hangs there. */
struct tied {
    struct tied *next;
    struct thread *thread; /* NULL: in no list */
    _Atomic bool ended;    /* by another thread: its own takes it out and frees it */
    void (*drop)(struct tied *one);
};

/* Puts one into a list of this thread. drop frees it. */
void tied_add(struct tied **list, struct tied *one, void (*drop)(struct tied *one));

/* Takes it out of its thread's list. True: the caller has it back, and frees it. False: its thread will. */
bool tied_remove(struct tied **list, struct tied *one);

/* Takes out, and frees, those of this thread that others have ended; `all`: the thread ends, and the others are their
 * owners' again. So many. */
size_t tied_sweep(struct tied **list, bool all);

#endif
