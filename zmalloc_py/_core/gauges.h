/* gauges.h - what one thread has taken, less what it has freed itself, since a moment.
 *
 * A thread that has gauges has MEASURED in its state, which takes its hooks off their fast path. Its hooks write into
 * the thread's ledger, one for all its gauges, as long as none of them can be concerned; then the gauges are brought up
 * to date. So what a block costs does not depend on how many there are. Gauges and ledger are written by their thread
 * alone; others read them by gauges_read(). */
#ifndef ZMALLOC_GAUGES_H
#define ZMALLOC_GAUGES_H

#include "tied.h"

#define GAUGES_ELSEWHERE INT64_MIN

/* What a thread has taken, less what it has freed, since its gauges were brought up to date, and the most of that. */
struct ledger {
    _Atomic int64_t net, top, allocations, frees;
    int64_t earlier_top;  /* before the last request; GAUGES_ELSEWHERE: it went into the gauges */
    int64_t high, low;    /* between the two no gauge is concerned */
    _Atomic unsigned turn; /* odd: figures are on their way into the gauges */
    _Atomic int gauges;   /* that hold it */
};

struct gauge {
    struct tied tied;
    struct ledger *ledger; /* its thread's; till it is added one of its own */
    uint64_t number;   /* of the scope that it belongs to */
    size_t limit, hard; /* bytes above 0; SIZE_MAX: it only measures */
    bool is_clamped;   /* frees of what was there before give no credit */
    bool is_open;      /* the last quarter serves the unwinding after a refusal */
    int64_t earlier_peak; /* before the last request that came here */
    _Atomic bool hit, unsettled;
    _Atomic int64_t net, peak, allocations, frees; /* without what is in the ledger */
};

/* NULL: no memory. It limits nothing yet. */
struct gauge *gauges_new(void);
void gauges_free(struct gauge *g); /* may be NULL */

/* Puts one into this thread's list; all hooks leave the path that does not look at threads. Holds
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

/* As if the last request, for n bytes, had never been: the allocator beneath has refused it. */
void gauges_give_back(struct thread *t, size_t n);
void gauges_drop(struct thread *t, size_t n);

/* None of this thread's gauges is above its limit: until one comes near it the ledger will do. `owes`: what unwinding
 * will take may reach a hard limit before. */
void gauges_arm(struct thread *t, bool owes);

/* Takes n bytes where no gauge is concerned; false: see gauges_take(). */
ZPORT_INLINE bool gauges_take_fast(struct thread *t, size_t n)
{
    struct ledger *l = t->ledger;
    const int64_t net = atomic_load_explicit(&l->net, memory_order_relaxed);
    if (zport_unlikely(n > (uint64_t)(l->high - net)))
        return false;
    const int64_t now = net + (int64_t)n;
    atomic_store_explicit(&l->net, now, memory_order_relaxed);
    l->earlier_top = atomic_load_explicit(&l->top, memory_order_relaxed);
    if (now > l->earlier_top)
        atomic_store_explicit(&l->top, now, memory_order_relaxed);
    return true;
}

/* The same for n bytes that are freed: see gauges_drop(). */
ZPORT_INLINE bool gauges_drop_fast(struct thread *t, size_t n)
{
    struct ledger *l = t->ledger;
    const int64_t net = atomic_load_explicit(&l->net, memory_order_relaxed);
    if (zport_unlikely(n > (uint64_t)(net - l->low)))
        return false;
    atomic_store_explicit(&l->net, net - (int64_t)n, memory_order_relaxed);
    return true;
}

ZPORT_INLINE void gauges_count(struct thread *t, int allocations, int frees)
{
    if (allocations)
        count_up(&t->ledger->allocations, allocations);
    if (frees)
        count_up(&t->ledger->frees, frees);
}

struct gauge_figures {
    int64_t net, peak, allocations, frees;
};

/* Of any thread's gauge. Holds the GIL. */
struct gauge_figures gauges_read(const struct gauge *g);

/* The first of this thread's gauges that is above its limit, or, with what unwinding will take, above its hard limit;
 * NULL if none is. */
struct gauge *gauges_over(struct thread *t, size_t debt);

/* Is it? Of any thread's gauge. Holds the GIL. */
bool gauges_is_over(const struct gauge *g, size_t debt);

/* Has each of them that limits more than a plain hard cap, and is there one? */
bool gauges_have_reserve(const struct thread *t);

/* Up to date; NULL if it is not this thread's. */
struct gauge *gauges_find(struct thread *t, uint64_t number);

void gauges_thread_ended(struct thread *t);

#endif
