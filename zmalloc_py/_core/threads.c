/* threads.c - the list of thread records and what happens to it when threads end and processes fork.
 *
 * Invariant: `list.lock` is held for a few instructions only: at a thread's first hook, at its end, and
 * while sums are made. It is free in a forked child. */
#include "threads.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

_Thread_local struct thread this_thread = {.state = UNLISTED};

struct counts gil_counts[DOMAINS];

static struct {
    zport_mutex lock;
    struct thread *first;
    struct sums ended[DOMAINS]; /* what threads that are gone have counted */
    pthread_key_t key;          /* its destructor tells that a thread ends */
    void (*recount)(void);
    void (*at_end)(struct thread *t);
} list = {.lock = ZPORT_MUTEX_INIT};

void thread_join(struct thread *t)
{
    zport_lock(&list.lock);
    t->next = list.first;
    t->link = &list.first;
    if (list.first)
        list.first->link = &t->next;
    list.first = t;
    zport_unlock(&list.lock);
    t->state &= ~(unsigned)UNLISTED;
    pthread_setspecific(list.key, t);
}

/* list.lock is held. */
static void add_to(struct sums sum[DOMAINS], const struct counts count[DOMAINS])
{
    for (int d = 0; d < DOMAINS; d++) {
        sum[d].used += atomic_load_explicit(&count[d].used, memory_order_relaxed);
        sum[d].allocations += atomic_load_explicit(&count[d].allocations, memory_order_relaxed);
        sum[d].frees += atomic_load_explicit(&count[d].frees, memory_order_relaxed);
    }
}

/* list.lock is held. */
static void move_to_ended(struct thread *t)
{
    add_to(list.ended, t->count);
    for (int d = 0; d < DOMAINS; d++) {
        atomic_store_explicit(&t->count[d].used, 0, memory_order_relaxed);
        atomic_store_explicit(&t->count[d].allocations, 0, memory_order_relaxed);
        atomic_store_explicit(&t->count[d].frees, 0, memory_order_relaxed);
    }
}

void thread_fold(struct thread *t)
{
    zport_lock(&list.lock);
    move_to_ended(t);
    zport_unlock(&list.lock);
}

void *thread_rare(enum rare which, size_t size)
{
    enum { LARGEST = 1280 };
    static max_align_t shared[RARE][LARGEST / sizeof(max_align_t)];
    struct thread *t = thread_self();
    if (!t->rare[which] && !(t->rare[which] = calloc(1, size)))
        return shared[which];
    return t->rare[which];
}

static void forget_rare(struct thread *t)
{
    for (int which = 0; which < RARE; which++) {
        free(t->rare[which]);
        t->rare[which] = NULL;
    }
}

static void on_thread_end(void *record)
{
    struct thread *t = record;
    list.at_end(t);
    forget_rare(t);
    zport_lock(&list.lock);
    move_to_ended(t);
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    zport_unlock(&list.lock);
    t->state |= GONE; /* other destructors may still free: see thread_fold() */
}

void threads_sum(struct sums out[DOMAINS], size_t all)
{
    zport_lock(&list.lock);
    for (int d = 0; d < DOMAINS; d++)
        out[d] = list.ended[d];
    add_to(out, gil_counts);
    for (struct thread *t = list.first; t; t = t->next)
        add_to(out, t->count);
    zport_unlock(&list.lock);
    out[OBJ].used = (int64_t)all - out[RAW].used - out[MEM].used - out[STACK].used;
}

void threads_adjust(enum domain d, int64_t used)
{
    zport_lock(&list.lock);
    list.ended[d].used += used;
    zport_unlock(&list.lock);
}

/* ---- fork -------------------------------------------------------------------------------- */

static void before_fork(void)
{
    zport_lock(&list.lock);
}

static void in_parent(void)
{
    zport_unlock(&list.lock);
}

/* Only the thread that forked lives on. The others' records are in memory that nobody owns now. */
static void in_child(void)
{
    struct thread *self = NULL;
    bool others = false;
    for (struct thread *t = list.first; t; t = t->next) {
        if (t == &this_thread) {
            self = t;
            continue;
        }
        others = true;
        add_to(list.ended, t->count);
    }
    list.first = self;
    if (self) {
        self->next = NULL;
        self->link = &list.first;
    }
    zport_unlock(&list.lock);
    if (others)
        list.recount();
}

void threads_init(void (*recount)(void), void (*at_end)(struct thread *t))
{
    list.recount = recount;
    list.at_end = at_end;
    pthread_key_create(&list.key, on_thread_end);
    zport_atfork(before_fork, in_parent, in_child);
}
