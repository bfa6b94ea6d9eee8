/* faults.h - requests of one thread that are refused on purpose: the n-th from now on.
 *
 * A thread that has faults has FAULTY in its state, which takes its hooks off their fast path. A fault is written by
 * its thread alone; others may read its counts.
 *
 * What is counted, and refused, is a request that grows: malloc and calloc of RAW, MEM and OBJ, and realloc to more
 * than the block has. Granted, and not counted, is:
 *  - what CPython does not survive the refusal of, see faults.c;
 *  - all that the thread asks for while it is exempt, and for a verdict at a limit;
 *  - a resize of a block from before the hooks, which may be a shrink. */
#ifndef ZMALLOC_FAULTS_H
#define ZMALLOC_FAULTS_H

#include "tied.h"

#include <stddef.h>

struct fault {
    struct tied tied;
    uint64_t n;     /* let through, then */
    int64_t repeat; /* refused: so many, or below 0 all that follow */
    _Atomic uint64_t passed, failed;
};

/* Puts one from calloc into this thread's list. Holds the GIL. */
void faults_add(struct fault *f);

/* Takes it out. True: the caller has it back, and frees it. False: its thread, which may be in the middle of a hook
 * without the GIL, will. Holds the GIL. */
bool faults_remove(struct fault *f);

void faults_thread_ended(struct thread *t);

/* A growing request of this thread, which has FAULTY: is it to be refused? The fault that began last is asked first;
 * what it refuses the others do not see. */
bool faults_refuse(struct thread *t, enum domain d, size_t n);

/* Between the two nothing of this thread is counted or refused. pause tells what resume is to be given. */
bool faults_pause(struct thread *t);
void faults_resume(struct thread *t, bool was_on);

#endif
