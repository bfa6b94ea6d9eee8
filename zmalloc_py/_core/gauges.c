/* gauges.c - per-thread scopes.
 *
 * Invariant: `hooks.looks_at_thread` counts the gauges of the process, so that free, which goes by the map alone
 * where it can, looks at the thread as long as there is one. */
#include "gauges.h"
#include "hooks.h"
#include "hooks_inside.h"

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

static void unlink_gauge(struct thread *t, struct gauge **at)
{
    *at = (*at)->next;
    if (!t->gauges)
        t->state &= ~(unsigned)MEASURED;
    atomic_fetch_sub(&hooks.looks_at_thread, 1);
}

/* Frees those that others have ended. */
static void sweep(struct thread *t, bool all)
{
    for (struct gauge **at = &t->gauges; *at;) {
        struct gauge *g = *at;
        if (!all && !atomic_load(&g->ended)) {
            at = &g->next;
            continue;
        }
        unlink_gauge(t, at);
        if (atomic_load(&g->ended))
            free(g);
        else
            g->thread = NULL;
    }
}

void gauges_add(struct gauge *g)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    sweep(t, false);
    g->thread = t;
    g->next = t->gauges;
    t->gauges = g;
    t->state |= MEASURED;
    atomic_fetch_add(&hooks.looks_at_thread, 1);
}

bool gauges_remove(struct gauge *g)
{
    struct thread *t = g->thread;
    if (!t)
        return true;
    if (t != thread_self()) {
        g->limit = g->hard = SIZE_MAX;
        atomic_store(&g->ended, true);
        return false;
    }
    struct gauge **at = &t->gauges;
    while (*at && *at != g)
        at = &(*at)->next;
    if (*at)
        unlink_gauge(t, at);
    g->thread = NULL;
    sweep(t, false);
    return true;
}

void gauges_thread_ended(struct thread *t)
{
    sweep(t, true);
}

static size_t most(const struct gauge *g, unsigned quarters)
{
    return quarters < 4 && !g->is_open ? g->limit + (g->hard - g->limit) / 4 * quarters : g->hard;
}

static bool refuses(struct gauge *g, size_t n, unsigned quarters)
{
    if (g->limit == SIZE_MAX || quarters == GAUGES_BEYOND)
        return false;
    const int64_t net = GET(g->net);
    const size_t held = net > 0 ? (size_t)net : 0, top = most(g, quarters);
    if (n <= top && held <= top - n)
        return false;
    g->is_open = held > g->limit;
    SET(g->hit, true);
    return true;
}

static void add(struct thread *t, int64_t n)
{
    for (struct gauge *g = t->gauges; g; g = g->next) {
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
    for (struct gauge *g = t->gauges; g; g = g->next)
        if (refuses(g, n, quarters))
            return false;
    add(t, (int64_t)n);
    return true;
}

static void take_off(struct thread *t, size_t n, bool clamps)
{
    for (struct gauge *g = t->gauges; g; g = g->next) {
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
    for (struct gauge *g = t->gauges; g; g = g->next) {
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
    for (struct gauge *g = t->gauges; g; g = g->next)
        if (gauges_is_over(g, debt))
            return g;
    return NULL;
}

bool gauges_have_reserve(const struct thread *t)
{
    bool any = false;
    for (const struct gauge *g = t->gauges; g; g = g->next) {
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
    for (struct gauge *g = t->gauges; g; g = g->next)
        if (g->number == number)
            return g;
    return NULL;
}
