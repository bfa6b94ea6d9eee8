/* gauges.c - per-thread scopes.
 *
 * Invariant: `hooks.looks_at_thread` counts the gauges of the process, so that free, which goes by the map alone
 * where it can, looks at the thread as long as there is one. */
#include "gauges.h"
#include "hooks.h"
#include "hooks_inside.h"

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

static struct gauge *first(const struct thread *t)
{
    return (struct gauge *)t->gauges;
}

static struct gauge *next(const struct gauge *g)
{
    return (struct gauge *)g->tied.next;
}

/* So many are gone from this thread's list. */
static void note_gone(struct thread *t, size_t count)
{
    if (!t->gauges)
        t->state &= ~(unsigned)MEASURED;
    atomic_fetch_sub(&hooks.looks_at_thread, (int)count);
}

void gauges_add(struct gauge *g)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    note_gone(t, tied_sweep(&t->gauges, false));
    tied_add(&t->gauges, &g->tied);
    t->state |= MEASURED;
    atomic_fetch_add(&hooks.looks_at_thread, 1);
}

bool gauges_remove(struct gauge *g)
{
    struct thread *t = g->tied.thread;
    if (!t)
        return true;
    if (t != thread_self())
        g->limit = g->hard = SIZE_MAX;
    if (!tied_remove(&t->gauges, &g->tied))
        return false;
    note_gone(t, 1 + tied_sweep(&t->gauges, false));
    return true;
}

void gauges_thread_ended(struct thread *t)
{
    note_gone(t, tied_sweep(&t->gauges, true));
}

static size_t most(const struct gauge *g, size_t n, unsigned quarters)
{
    const bool is_open = g->is_open && gauges_is_small(n, g->hard - g->limit);
    return quarters < 4 && !is_open ? g->limit + (g->hard - g->limit) / 4 * quarters : g->hard;
}

static bool refuses(struct gauge *g, size_t n, unsigned quarters)
{
    if (g->limit == SIZE_MAX || quarters == GAUGES_BEYOND)
        return false;
    const int64_t net = GET(g->net);
    const size_t held = net > 0 ? (size_t)net : 0, top = most(g, n, quarters);
    if (n <= top && held <= top - n)
        return false;
    g->is_open = held > g->limit;
    SET(g->hit, true);
    return true;
}

static void add(struct thread *t, int64_t n)
{
    for (struct gauge *g = first(t); g; g = next(g)) {
        const int64_t net = GET(g->net) + n;
        SET(g->net, net);
        if (net > GET(g->peak))
            SET(g->peak, net);
        if (g->limit != SIZE_MAX && net > 0 && (size_t)net > g->limit)
            SET(g->unsettled, true);
    }
}

bool gauges_take(struct thread *t, size_t n, unsigned quarters)
{
    for (struct gauge *g = first(t); g; g = next(g))
        if (refuses(g, n, quarters))
            return false;
    add(t, (int64_t)n);
    return true;
}

static void take_off(struct thread *t, size_t n, bool clamps)
{
    for (struct gauge *g = first(t); g; g = next(g)) {
        int64_t net = GET(g->net) - (int64_t)n;
        if (clamps && g->is_clamped && net < 0)
            net = 0;
        SET(g->net, net);
        if (net <= 0 || (size_t)net <= g->limit)
            g->is_open = false;
    }
}

void gauges_give_back(struct thread *t, size_t n)
{
    take_off(t, n, false);
}

void gauges_drop(struct thread *t, size_t n)
{
    take_off(t, n, true);
}

void gauges_count(struct thread *t, int allocations, int frees)
{
    for (struct gauge *g = first(t); g; g = next(g)) {
        SET(g->allocations, GET(g->allocations) + allocations);
        SET(g->frees, GET(g->frees) + frees);
    }
}

bool gauges_is_over(const struct gauge *g, size_t debt)
{
    const int64_t net = GET(g->net);
    const size_t held = net > 0 ? (size_t)net : 0;
    if (g->limit == SIZE_MAX)
        return false;
    return held > g->limit || (g->hard > g->limit && (debt > g->hard || held > g->hard - debt));
}

struct gauge *gauges_over(const struct thread *t, size_t debt)
{
    for (struct gauge *g = first(t); g; g = next(g))
        if (gauges_is_over(g, debt))
            return g;
    return NULL;
}

bool gauges_have_reserve(const struct thread *t)
{
    bool any = false;
    for (const struct gauge *g = first(t); g; g = next(g)) {
        if (g->limit == SIZE_MAX)
            continue;
        if (g->hard == g->limit)
            return false;
        any = true;
    }
    return any;
}

struct gauge *gauges_find(const struct thread *t, uint64_t number)
{
    for (struct gauge *g = first(t); g; g = next(g))
        if (g->number == number)
            return g;
    return NULL;
}
