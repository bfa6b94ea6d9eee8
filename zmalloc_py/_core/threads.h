/* threads.h - what the hooks keep for each thread: how deep they are, and the counts by domain.
 *
 * A thread's record is written by that thread alone, without locks, and read by whoever asks for the
 * sums. The sums of all threads are exact whenever no hook is running. The account's own counter, which
 * the cap is checked against, is not here: it is one for the process. */
#ifndef ZMALLOC_THREADS_H
#define ZMALLOC_THREADS_H

#include "zport.h"

#include <stdatomic.h>
#include <stdint.h>

/* PYMEM_DOMAIN_RAW, _MEM and _OBJ, and the chunks that Python frames live in from 3.11 on. */
enum domain { RAW, MEM, OBJ, STACK, DOMAINS };

struct counts {
    _Atomic int64_t used; /* below 0 where a thread frees what another took; not kept for OBJ */
    _Atomic int64_t allocations;
    _Atomic int64_t frees;
};

/* What MEM and OBJ hooks count of small frees, in place of the thread's record: they hold the GIL, so as
 * long as there is but one they do not meet. */
extern struct counts gil_counts[DOMAINS];

/* Bits of thread.state. Anything but 0 takes the hooks off their fast path. */
enum {
    WAITING = 0xff,   /* hooks of this thread that are waiting for the allocator beneath: */
    OUTER = 0x01,     /*   a MEM or OBJ call, */
    INNER = 0x10,     /*   any other */
    UNLISTED = 0x100, /* no hook has run in this thread yet */
    GONE = 0x200,     /* the thread is ending: its record is no longer in the list */
    EXEMPT = 0x400,   /* the thread may go beyond the limit, see hooks_exempt() */
    PROBING = 0x800,  /* hooks note that they were reached, and count nothing */
    ASKED = 0x1000,   /* an error has been asked for that has not come yet: see delivery.h */
    CROSSED = 0x2000, /* a RAW call has passed the limit: the next MEM or OBJ call sees to it */
    MEASURED = 0x4000, /* the thread has scopes of its own: see gauges.h */
    LENIENT = 0x8000, /* refused nothing up to the hard limit, and asked for nothing */
    ADOPTING = 0x10000, /* a block from before the hooks is being resized */
    FAULTY = 0x20000 /* requests are refused on purpose: see faults.h */
};

/* What a thread keeps for what happens seldom. */
enum rare { RARE_FAULTS, RARE_FIGURES, RARE_UNWINDING, RARE };

struct thread {
    unsigned state;
    unsigned seen; /* domains whose hooks a probe has reached */
    struct counts count[DOMAINS];

    /* The MEM or OBJ call that is on its way down, for the RAW call that pymalloc may make of it. */
    size_t size;      /* it asks for */
    const void *block; /* a realloc: the block it resizes; else NULL */
    size_t old_held;   /* what RAW holds for that, if RAW is behind it */
    void *raw;        /* what RAW gave for it */
    void *freeing;    /* the block that is on its way down to be freed */
    size_t free_size;

    /* Errors at the limit (delivery.c). */
    struct ask *ask;       /* what ASKED stands for */
    uint64_t raised_number; /* the scope of the last error */
    size_t raised_at;       /* what was in use then, or since */
    size_t above;           /* bytes taken above the limit since then, and since it was passed last */
    size_t stack;           /* bytes of this thread's frame chunks */
    struct tied *gauges;   /* this thread's scopes */
    struct ledger *ledger; /* and what they have not been told of yet; NULL: there are none */
    unsigned exempt;        /* exempt() scopes that are open */
    unsigned crossing;      /* which time of passing the limit `above` is of */
    struct tied *faults;   /* what FAULTY stands for */

    void *rare[RARE]; /* see thread_rare() */
    struct thread *next, **link;
};

extern _Thread_local struct thread this_thread;

/* glibc puts what a library that is loaded at run time keeps for each thread where two instructions find it, as long as
 * it is less than 512 bytes (its tunable rtld.optional_static_tls); else finding it is a call. So what is seldom wanted
 * is not in the record: thread_rare(). A hook finds the record once: the compiler is kept from doing so again wherever
 * it is used. */
ZPORT_INLINE struct thread *thread_self(void)
{
    struct thread *t = &this_thread;
#if defined(__GNUC__)
    __asm__("" : "+r"(t));
#endif
    return t;
}

/* Takes this thread's record into the list; lets the record of a thread that is going count once more. */
void thread_join(struct thread *t);
void thread_fold(struct thread *t);

/* This thread's memory for one of the things that happen seldom, of `size` bytes, zero at first: the same at each call,
 * and gone when the thread ends. With the GIL held: where the system gives none the threads share one. */
void *thread_rare(enum rare which, size_t size);

struct sums {
    int64_t used, allocations, frees;
};

/* The sums of all threads, those that have ended included. `all` is what the account says that all
 * domains hold together: OBJ holds what the others do not. */
void threads_sum(struct sums out[DOMAINS], size_t all);

/* Makes a domain's use add up again after blocks were lost sight of. Not OBJ's. */
void threads_adjust(enum domain d, int64_t used);

/* Sets up the end of threads and forks: once. recount runs in a child whose parent had other threads,
 * which may have been in the middle of something; at_end in each thread that ends, without the GIL. */
void threads_init(void (*recount)(void), void (*at_end)(struct thread *t));

ZPORT_INLINE void count_up(_Atomic int64_t *counter, int64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

#endif
