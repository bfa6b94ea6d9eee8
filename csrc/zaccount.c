/* zaccount.c - the counters, the caps and the sized reallocator.
 *
 * Invariants:
 *  - `used` never passes the ceiling in force by a charge: a charge looks before it adds (compare
 *    and exchange) and again after, in case a mark came down between the two.
 *  - No lock and no allocation on the way of a charge.
 *  - `gate` <= every mark above which a charge wants a second look; only those who set marks write
 *    it, under `lock`. What a charge itself changes (the reserve opens, the callback has fired) is
 *    kept in flags that only the second look reads. */
#include "zaccount.h"
#include "zcore.h"
#include "zport.h"

#include <assert.h>
#include <string.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_seq_cst)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_seq_cst)
#define HINT(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define BUMP(field, n) atomic_fetch_add_explicit(&(field), (n), memory_order_relaxed)

static bool is_own(const zaccount *a)
{
    return zport_likely(a->core == &zcore_self);
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- marks ------------------------------------------------------------------------------- */

/* One for all accounts of this copy: fork() could not find each account's own. */
static zport_mutex marks_lock = ZPORT_MUTEX_INIT;

void zaccount_lock_marks(void)
{
    zport_lock(&marks_lock);
}

void zaccount_unlock_marks(void)
{
    zport_unlock(&marks_lock);
}

static size_t ceiling(const zaccount *a)
{
    return GET(a->open) ? GET(a->hard) : GET(a->limit);
}

/* Where an open reserve closes. */
static size_t close_mark(const zaccount *a)
{
    const size_t limit = GET(a->limit), hard = GET(a->hard);
    return hard > limit ? limit - min_size(hard - limit, limit / 2) : 0;
}

static void set_gate(zaccount *a)
{
    const size_t gate = min_size(GET(a->limit), GET(a->mark));
    SET(a->gate, GET(a->failing) ? 0 : gate);
}

int zaccount_set_limit(zaccount *a, size_t limit, size_t reserve)
{
    if (!is_own(a))
        return a->core->set_limit(a, limit, reserve);
    const size_t hard = reserve > SIZE_MAX - limit ? SIZE_MAX : limit + reserve;
    zaccount_lock_marks();
    const bool allowed = !GET(a->sealed) || (limit <= GET(a->limit) && hard <= GET(a->hard));
    if (allowed) {
        SET(a->limit, limit);
        SET(a->hard, hard);
        SET(a->open, false);
        set_gate(a);
    }
    zaccount_unlock_marks();
    return allowed ? 0 : -1;
}

void zaccount_seal(zaccount *a)
{
    if (!is_own(a)) {
        a->core->seal(a);
        return;
    }
    zaccount_lock_marks();
    SET(a->sealed, true);
    zaccount_unlock_marks();
}

void zaccount_clear_hit(zaccount *a)
{
    if (!is_own(a))
        a->core->clear_hit(a);
    else
        SET(a->hit, false);
}

/* Use that is above the mark already has not passed it: the callback is for the next time. */
static void note_mark(zaccount *a)
{
    const size_t mark = GET(a->mark);
    if (GET(a->used) <= mark)
        return;
    SET(a->fired, true);
    zaccount_raise(&a->rearm, mark);
    if (GET(a->used) <= mark) /* it fell before rearm stood */
        SET(a->fired, false);
}

void zaccount_on_pressure(zaccount *a, size_t mark, void (*f)(zaccount *, size_t, void *),
                          void *ud)
{
    if (!is_own(a)) {
        a->core->on_pressure(a, mark, f, ud);
        return;
    }
    zaccount_lock_marks();
    atomic_fetch_add(&a->changes, 1); /* nobody calls the old one from here on but who is at it */
    SET(a->pressure, f);
    SET(a->pressure_ud, ud);
    SET(a->mark, f ? mark : SIZE_MAX);
    SET(a->fired, false);
    note_mark(a);
    atomic_fetch_add(&a->changes, 1);
    set_gate(a);
    note_mark(a); /* a charge that came meanwhile found no callback: it is one from before */
    zaccount_unlock_marks();
}

void zaccount_fail_after(zaccount *a, int64_t n, int64_t repeat)
{
    if (!is_own(a)) {
        a->core->fail_after(a, n, repeat);
        return;
    }
    zaccount_lock_marks();
    const bool on = n >= 0 && repeat != 0;
    SET(a->failing, false);
    SET(a->fail_after, on ? n : 0);
    SET(a->fail_repeat, on ? repeat : 0);
    SET(a->failing, on);
    set_gate(a);
    zaccount_unlock_marks();
}

/* ---- charging ---------------------------------------------------------------------------- */

/* True when fault injection wants this growth refused. */
static bool is_injected(zaccount *a)
{
    int64_t left = GET(a->fail_after);
    while (left > 0)
        if (atomic_compare_exchange_weak(&a->fail_after, &left, left - 1))
            return false;
    int64_t repeat = GET(a->fail_repeat);
    while (repeat != 0)
        if (repeat < 0 || atomic_compare_exchange_weak(&a->fail_repeat, &repeat, repeat - 1))
            return true;
    return false;
}

static void note_refusal(zaccount *a, size_t n)
{
    SET(a->last_refused, n);
    BUMP(a->refusals, 1);
}

/* The limit was hit: from here on the reserve serves, until use has fallen to close_mark(). */
static void refuse(zaccount *a, size_t n)
{
    note_refusal(a, n);
    SET(a->hit, true);
    if (GET(a->hard) > GET(a->limit)) {
        SET(a->open, true);
        zaccount_raise(&a->rearm, close_mark(a));
    }
}

/* Use has passed the mark on its way up: runs the callback, once. */
static void feel_pressure(zaccount *a, size_t used)
{
    const unsigned changes = GET(a->changes);
    const size_t mark = GET(a->mark);
    void (*f)(zaccount *, size_t, void *) = GET(a->pressure);
    void *ud = GET(a->pressure_ud);
    if (used <= mark || !f || changes % 2 || GET(a->changes) != changes ||
        atomic_exchange(&a->fired, true))
        return;
    zaccount_raise(&a->rearm, mark);
    f(a, used, ud);
    if (GET(a->used) <= GET(a->mark)) /* it fell before rearm stood */
        SET(a->fired, false);
}

bool zaccount_charge_slow(zaccount *a, size_t n)
{
    if (n == 0)
        return true;
    if (GET(a->failing) && is_injected(a)) {
        note_refusal(a, n);
        return false;
    }
    size_t used = GET(a->used);
    for (;;) {
        const size_t most = ceiling(a);
        if (n > most || used > most - n) {
            refuse(a, n);
            return false;
        }
        if (!atomic_compare_exchange_weak(&a->used, &used, used + n))
            continue;
        if (zport_likely(used + n <= ceiling(a)))
            break;
        used = atomic_fetch_sub(&a->used, n) - n; /* a mark came down: look again */
    }
    if (a->parent && !zaccount_charge_parents(a, n))
        return false;
    feel_pressure(a, used + n);
    return true;
}

/* a itself is charged; a refusal further up takes that back. */
bool zaccount_charge_parents(zaccount *a, size_t n)
{
    if (zaccount_charge(a->parent, n))
        return true;
    atomic_fetch_sub(&a->used, n);
    note_refusal(a, n);
    return false;
}

/* Use is low enough for what waited for that. */
void zaccount_rearm(zaccount *a, size_t now)
{
    SET(a->rearm, 0); /* first, so that whoever sets a flag from here on raises it again */
    const size_t low = close_mark(a), mark = GET(a->mark);
    if (now <= low)
        SET(a->open, false);
    if (now <= mark)
        SET(a->fired, false);
    if (GET(a->open))
        zaccount_raise(&a->rearm, low);
    if (GET(a->fired) && mark != SIZE_MAX)
        zaccount_raise(&a->rearm, mark);
}

bool zaccount_take_beyond(zaccount *a, size_t n, size_t room)
{
    size_t used = GET(a->used), most;
    assert(!a->parent);
    do {
        if (!zport_add(GET(a->hard), room, &most))
            most = SIZE_MAX;
        if (n > most || used > most - n) {
            note_refusal(a, n);
            return false;
        }
    } while (!atomic_compare_exchange_weak(&a->used, &used, used + n));
    return true;
}

bool zaccount_charge(zaccount *a, size_t n)
{
    return is_own(a) ? zaccount_take(a, n) : a->core->charge(a, n);
}

void zaccount_uncharge(zaccount *a, size_t n)
{
    if (!is_own(a)) {
        a->core->uncharge(a, n);
        return;
    }
    assert(GET(a->used) >= n);
    zaccount_drop(a, n);
}

void zaccount_give_back(zaccount *a, size_t n)
{
    for (; a && is_own(a); a = a->parent) {
        const size_t now = atomic_fetch_sub(&a->used, n) - n;
        if (now <= HINT(a->rearm))
            zaccount_rearm(a, now);
    }
    if (a)
        a->core->give_back(a, n);
}

/* For counts that nothing can refuse: the C family learns a block's size when it has it. */
static void count_family(zaccount *a, int64_t delta, int allocations, int frees)
{
    if (delta > 0)
        atomic_fetch_add(&a->used, (size_t)delta);
    else if (delta < 0)
        zaccount_drop(a, (size_t)-delta);
    if (allocations)
        BUMP(a->allocations, (uint64_t)allocations);
    if (frees)
        BUMP(a->frees, (uint64_t)frees);
}

/* ---- the sized reallocator --------------------------------------------------------------- */

static void *resize(zaccount *a, void *ptr, size_t osize, size_t nsize)
{
    const bool grows = nsize > osize;
    if (grows && !zaccount_take(a, nsize - osize))
        return NULL;
    void *p = zport_realloc(ptr, nsize);
    if (!p && grows) {
        zaccount_give_back(a, nsize - osize);
        return NULL;
    }
    if (!grows)
        zaccount_drop(a, osize - nsize);
    return p ? p : ptr; /* a shrink that the heap refuses: the block it has is large enough */
}

void *zaccount_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    zaccount *a = ud;
    assert(a);
    if (!is_own(a))
        return a->core->alloc(a, ptr, osize, nsize);
    if (ptr && nsize)
        return resize(a, ptr, osize, nsize);
    if (ptr) {
        BUMP(a->frees, 1);
        zaccount_drop(a, osize);
        zport_free(ptr);
        return NULL;
    }
    if (nsize == 0 || !zaccount_take(a, nsize))
        return NULL;
    void *p = zport_malloc(nsize);
    if (p)
        BUMP(a->allocations, 1);
    else
        zaccount_give_back(a, nsize);
    return p;
}

/* ---- reading ----------------------------------------------------------------------------- */

size_t zaccount_used(const zaccount *a)
{
    return is_own(a) ? GET(a->used) : a->core->used(a);
}

size_t zaccount_peak(const zaccount *a)
{
    if (!is_own(a))
        return a->core->peak(a);
    const size_t used = GET(a->used), peak = GET(a->peak);
    return used > peak ? used : peak;
}

void zaccount_reset_peak(zaccount *a)
{
    if (!is_own(a))
        a->core->reset_peak(a);
    else
        SET(a->peak, 0);
}

void zaccount_stats(const zaccount *a, struct zaccount_figures *out)
{
    if (!is_own(a)) {
        a->core->stats(a, out);
        return;
    }
    *out = (struct zaccount_figures){
        .peak = zaccount_peak(a),
        .used = GET(a->used),
        .limit = GET(a->limit),
        .hard_limit = GET(a->hard),
        .allocations = HINT(a->allocations),
        .frees = HINT(a->frees),
        .refusals = HINT(a->refusals),
        .last_refused = HINT(a->last_refused),
        .limit_hit = GET(a->hit),
        .reserve_open = GET(a->open),
        .sealed = GET(a->sealed),
    };
}

const char *zaccount_name(const zaccount *a)
{
    return is_own(a) ? a->name : a->core->name(a);
}

zaccount *zaccount_parent(const zaccount *a)
{
    return is_own(a) ? a->parent : a->core->parent(a);
}

/* ---- life -------------------------------------------------------------------------------- */

static void count_child(zaccount *a, int delta)
{
    if (is_own(a))
        atomic_fetch_add(&a->children, delta);
    else
        a->core->children(a, delta);
}

zaccount *zaccount_new(const char *name, zaccount *parent)
{
    static const zaccount blank = ZACCOUNT_STATIC("");
    /* The struct is aligned to a cache line, more than malloc promises: room to move it. */
    char *block = malloc(sizeof(zaccount) + _Alignof(zaccount) + sizeof(void *));
    if (!block)
        return NULL;
    uintptr_t at = (uintptr_t)block + sizeof(void *) + _Alignof(zaccount) - 1;
    at -= at % _Alignof(zaccount);
    zaccount *a = (zaccount *)at;
    memcpy(a, &blank, sizeof *a);
    ((void **)a)[-1] = block;
    if (name)
        strncpy(a->name, name, sizeof a->name - 1);
    a->parent = parent;
    SET(a->children, 0);
    if (parent)
        count_child(parent, 1);
    zaccount_enlist(a);
    return a;
}

int zaccount_free(zaccount *a)
{
    if (!a)
        return 0;
    if (!is_own(a))
        return a->core->free(a);
    if (GET(a->used) || GET(a->children))
        return -1;
    zcore_owner()->delist(a);
    if (a->parent)
        count_child(a->parent, -1);
    free(((void **)a)[-1]);
    return 0;
}

/* ---- this copy's table ------------------------------------------------------------------- */

static zaccount **link_of(zaccount *a)
{
    return &a->next;
}

struct zcore zcore_self = {
    .magic = ZCORE_MAGIC,
    .size = sizeof(struct zcore),
    .enlist = zcore_enlist,
    .delist = zcore_delist,
    .total = zcore_total,
    .c_account = zcore_c_account,
    .charge = zaccount_charge,
    .uncharge = zaccount_uncharge,
    .give_back = zaccount_give_back,
    .count = count_family,
    .alloc = zaccount_alloc,
    .children = count_child,
    .free = zaccount_free,
    .name = zaccount_name,
    .parent = zaccount_parent,
    .used = zaccount_used,
    .peak = zaccount_peak,
    .reset_peak = zaccount_reset_peak,
    .stats = zaccount_stats,
    .set_limit = zaccount_set_limit,
    .seal = zaccount_seal,
    .clear_hit = zaccount_clear_hit,
    .on_pressure = zaccount_on_pressure,
    .fail_after = zaccount_fail_after,
    .link = link_of,
    .below = zcore_below,
};
