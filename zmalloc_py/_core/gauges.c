/* gauges.c - per-thread scopes.
 *
 * Invariant: `hooks.looks_at_thread` counts the gauges of the process, so that free, which goes by the map alone
 * where it can, looks at the thread as long as there is one. */
#include "gauges.h"
#include "hooks.h"
#include "hooks_inside.h"

#include <stdlib.h>

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

/* ---- the ledger ------------------------------------------------------------------------------ */

static void raise_to(_Atomic int64_t *most, int64_t n)
{
    if (n > GET(*most))
        SET(*most, n);
}

/* Brings the gauges up to date. The next call of a hook looks at them. */
static void settle(struct thread *t)
{
    struct ledger *l = t->ledger;
    if (!l)
        return;
    atomic_fetch_add(&l->turn, 1);
    for (struct gauge *g = first(t); g; g = next(g)) {
        if (l->earlier_top != GAUGES_ELSEWHERE) {
            const int64_t earlier = GET(g->net) + l->earlier_top;
            g->earlier_peak = earlier > GET(g->peak) ? earlier : GET(g->peak);
        }
        raise_to(&g->peak, GET(g->net) + GET(l->top));
        count_up(&g->net, GET(l->net));
        count_up(&g->allocations, GET(l->allocations));
        count_up(&g->frees, GET(l->frees));
    }
    SET(l->net, 0);
    SET(l->top, 0);
    SET(l->allocations, 0);
    SET(l->frees, 0);
    l->high = l->low = 0;
    l->earlier_top = GAUGES_ELSEWHERE;
    atomic_fetch_add(&l->turn, 1);
}

/* More than any thread can take or free. */
static const int64_t far_away = INT64_MAX / 4;

static void narrow(int64_t *room, size_t n)
{
    if (n < (size_t)*room)
        *room = (int64_t)n;
}

void gauges_arm(struct thread *t, bool owes)
{
    int64_t up = far_away, down = far_away;
    settle(t);
    for (const struct gauge *g = first(t); g; g = next(g)) {
        const int64_t net = GET(g->net);
        const size_t held = net > 0 ? (size_t)net : 0;
        if (g->limit != SIZE_MAX)
            narrow(&up, held < g->limit ? g->limit - held : 0);
        if (g->hard > g->limit && owes)
            narrow(&up, (g->hard - g->limit) / 8);
        if (g->is_clamped)
            narrow(&down, held);
    }
    t->ledger->high = up;
    t->ledger->low = -down;
}

static struct gauge_figures read_once(const struct gauge *g)
{
    struct gauge_figures f = {GET(g->net), GET(g->peak), GET(g->allocations), GET(g->frees)};
    if (!g->tied.thread)
        return f;
    const int64_t top = f.net + GET(g->ledger->top);
    f.net += GET(g->ledger->net);
    f.allocations += GET(g->ledger->allocations);
    f.frees += GET(g->ledger->frees);
    f.peak = top > f.peak ? top : f.peak;
    f.peak = f.net > f.peak ? f.net : f.peak; /* the top comes a moment later */
    return f;
}

struct gauge_figures gauges_read(const struct gauge *g)
{
    enum { MOST_TRIES = 10000 }; /* in the child of a fork nobody may end the turn */
    struct gauge_figures f;
    unsigned turn;
    int tries = 0;
    do {
        turn = atomic_load(&g->ledger->turn);
        f = read_once(g);
        atomic_thread_fence(memory_order_acquire);
    } while ((turn % 2 || GET(g->ledger->turn) != turn) && ++tries < MOST_TRIES);
    return f;
}

/* ---- the list -------------------------------------------------------------------------------- */

static void leave_ledger(struct gauge *g)
{
    if (atomic_fetch_sub(&g->ledger->gauges, 1) == 1)
        free(g->ledger);
}

void gauges_free(struct gauge *g)
{
    if (g)
        leave_ledger(g);
    free(g);
}

static void drop(struct tied *one)
{
    gauges_free((struct gauge *)one);
}

struct gauge *gauges_new(void)
{
    struct gauge *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->ledger = calloc(1, sizeof *g->ledger);
    if (!g->ledger) {
        free(g);
        return NULL;
    }
    g->ledger->gauges = 1;
    g->limit = g->hard = SIZE_MAX;
    return g;
}

static void join_ledger(struct thread *t, struct gauge *g)
{
    if (!t->ledger) {
        t->ledger = g->ledger;
        return;
    }
    leave_ledger(g);
    g->ledger = t->ledger;
    atomic_fetch_add(&g->ledger->gauges, 1);
}

/* Takes out of this thread's list those that others have ended, or all. */
static size_t sweep(struct thread *t, bool all)
{
    settle(t);
    return tied_sweep(&t->gauges, all);
}

/* So many are gone from this thread's list. */
static void note_gone(struct thread *t, size_t count)
{
    if (!t->gauges) {
        t->state &= ~(unsigned)MEASURED;
        t->ledger = NULL;
    }
    atomic_fetch_sub(&hooks.looks_at_thread, (int)count);
}

void gauges_add(struct gauge *g)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    note_gone(t, sweep(t, false));
    join_ledger(t, g);
    tied_add(&t->gauges, &g->tied, drop);
    t->state |= MEASURED;
    atomic_fetch_add(&hooks.looks_at_thread, 1);
}

bool gauges_remove(struct gauge *g)
{
    struct thread *t = g->tied.thread;
    if (!t)
        return true;
    if (t != thread_self()) {
        g->limit = g->hard = SIZE_MAX;
        return tied_remove(&t->gauges, &g->tied);
    }
    settle(t);
    tied_remove(&t->gauges, &g->tied);
    note_gone(t, 1 + sweep(t, false));
    return true;
}

void gauges_thread_ended(struct thread *t)
{
    note_gone(t, sweep(t, true));
}

/* ---- where they are concerned -------------------------------------------------------------------- */

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
        g->earlier_peak = GET(g->peak);
        raise_to(&g->peak, net);
        if (g->limit != SIZE_MAX && net > 0 && (size_t)net > g->limit)
            SET(g->unsettled, true);
    }
}

bool gauges_take(struct thread *t, size_t n, unsigned quarters)
{
    settle(t);
    for (struct gauge *g = first(t); g; g = next(g))
        if (refuses(g, n, quarters))
            return false;
    add(t, (int64_t)n);
    return true;
}

static void take_off(struct thread *t, size_t n, bool clamps)
{
    settle(t);
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
    struct ledger *l = t->ledger;
    if (l->earlier_top != GAUGES_ELSEWHERE) {
        count_up(&l->net, -(int64_t)n);
        SET(l->top, l->earlier_top);
        return;
    }
    take_off(t, n, false);
    for (struct gauge *g = first(t); g; g = next(g))
        SET(g->peak, g->earlier_peak);
}

void gauges_drop(struct thread *t, size_t n)
{
    take_off(t, n, true);
}

static bool is_over(const struct gauge *g, int64_t net, size_t debt)
{
    const size_t held = net > 0 ? (size_t)net : 0;
    if (g->limit == SIZE_MAX)
        return false;
    return held > g->limit || (g->hard > g->limit && (debt > g->hard || held > g->hard - debt));
}

bool gauges_is_over(const struct gauge *g, size_t debt)
{
    return is_over(g, gauges_read(g).net, debt);
}

struct gauge *gauges_over(struct thread *t, size_t debt)
{
    settle(t);
    for (struct gauge *g = first(t); g; g = next(g))
        if (is_over(g, GET(g->net), debt))
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

struct gauge *gauges_find(struct thread *t, uint64_t number)
{
    settle(t);
    for (struct gauge *g = first(t); g; g = next(g))
        if (g->number == number)
            return g;
    return NULL;
}
