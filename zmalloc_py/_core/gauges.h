/* gauges.h - what one thread has taken, less what it has freed itself, since a moment.
 *
 * A thread that has gauges has MEASURED in its state, which takes its hooks off their fast path. A gauge is written
 * by its thread alone; others may read its figures. */
#ifndef ZMALLOC_GAUGES_H
#define ZMALLOC_GAUGES_H

#include "tied.h"

struct gauge {
    struct tied tied;
    uint64_t number;   /* of the scope that it belongs to */
    size_t limit, hard; /* bytes above 0; SIZE_MAX: it only measures */
    bool is_clamped;   /* frees of what was there before give no credit */
    bool is_open;      /* the last quarter serves the unwinding after a refusal */
    _Atomic bool hit, unsettled;
    _Atomic int64_t net, peak, allocations, frees;
};

/* Puts one from malloc into this thread's list; all hooks leave the path that does not look at threads. Holds
 * the GIL. */
void gauges_add(struct gauge *g);

/* Takes it out. True: the caller has it back, and frees it. False: its thread, which may be in the middle of a
 * hook without the GIL, will. Holds the GIL. */
bool gauges_remove(struct gauge *g);

/* Is this what cleaning up takes, and not what a thread goes on with that runs away, too? The last quarter of a reserve
 * is for the former. */
ZPORT_INLINE bool gauges_is_small(size_t n, size_t reserve)
{
    return n <= reserve / 16;
}

/* This thread takes n bytes: false if a gauge refuses; then none has changed. quarters as for
 * zaccount_take_quarters(), GAUGES_BEYOND: none refuses. */
enum { GAUGES_BEYOND = 5 };
bool gauges_take(struct thread *t, size_t n, unsigned quarters);
void gauges_give_back(struct thread *t, size_t n);
void gauges_drop(struct thread *t, size_t n);
void gauges_count(struct thread *t, int allocations, int frees);

/* The first of this thread's gauges that is above its limit, or, with what unwinding will take, above its hard limit;
 * NULL if none is. */
struct gauge *gauges_over(const struct thread *t, size_t debt);
bool gauges_is_over(const struct gauge *g, size_t debt);

/* Has each of them that limits more than a plain hard cap, and is there one? */
bool gauges_have_reserve(const struct thread *t);

struct gauge *gauges_find(const struct thread *t, uint64_t number);

void gauges_thread_ended(struct thread *t);

#endif
