/* zaccount.c - the counters: charging, reading, the life of an account.
 *
 * Invariants:
 *  - `used` never passes the ceiling in force by a charge: a charge looks before it adds (compare
 *    and exchange) and again after, in case a mark came down between the two.
 *  - No lock and no allocation on the way of a charge.
 *  - `gate` <= every mark above which a charge wants a second look (zmarks.c sets it). What a charge
 *    itself changes (the reserve opens, the callback has fired) is kept in flags that only the second
 *    look reads. */
#include "zaccount.h"
#include "zcore.h"
#include "zport.h"

#include <assert.h>
#include <string.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_seq_cst)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_seq_cst)
#define HINT(field) ZACCOUNT_HINT(field)

static bool is_own(const zaccount *a)
{
    return zport_likely(a->core == &zcore_self);
}

/* ---- charging ---------------------------------------------------------------------------- */

static bool is_next_to_fail(zaccount *a)
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

/* True when fault injection wants this growth refused. */
static bool is_injected(zaccount *a)
{
    const bool fails = is_next_to_fail(a);
    atomic_fetch_add(fails ? &a->fault_failed : &a->fault_passed, 1);
    return fails;
}

void zaccount_note_refusal(zaccount *a, size_t n)
{
    SET(a->last_refused, n);
    zaccount_count(a, &a->refusals, 1);
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

static bool climb_parents(zaccount *a, size_t n, bool open, size_t *reserve)
{
    if (a->parent->core->climb(a->parent, n, open, reserve))
        return true;
    atomic_fetch_sub(&a->used, n);
    zaccount_note_refusal(a, n);
    return false;
}

bool zaccount_climb(zaccount *a, size_t n, bool open, size_t *reserve)
{
    *reserve = 0;
    if (n == 0)
        return true;
    if (GET(a->failing) && is_injected(a)) {
        zaccount_note_refusal(a, n);
        return false;
    }
    size_t used = GET(a->used);
    for (;;) {
        const size_t limit = GET(a->limit), most = open ? GET(a->hard) : limit;
        if (n > most || used > most - n) {
            zaccount_note_refusal(a, n);
            SET(a->hit, true);
            const size_t hard = GET(a->hard);
            *reserve = hard > limit ? hard - limit : 0;
            return false;
        }
        if (!atomic_compare_exchange_weak(&a->used, &used, used + n))
            continue;
        if (zport_likely(used + n <= (open ? GET(a->hard) : GET(a->limit))))
            break;
        used = atomic_fetch_sub(&a->used, n) - n; /* a mark came down: look again */
    }
    if (a->parent && !climb_parents(a, n, open, reserve))
        return false;
    feel_pressure(a, used + n);
    return true;
}

void zaccount_open_reserve(zaccount *a, size_t n, size_t reserve)
{
    if (reserve == 0 || GET(a->open))
        return;
    const size_t used = GET(a->used), limit = GET(a->limit);
    const bool is_by_own = n > limit || used > limit - n;
    const size_t fall = reserve < used / 2 ? reserve : used / 2;
    SET(a->close, is_by_own ? zaccount_close_mark(a) : used - fall);
    SET(a->open, true);
    zaccount_raise(&a->rearm, GET(a->close));
}

bool zaccount_charge_slow(zaccount *a, size_t n)
{
    size_t reserve;
    if (zaccount_climb(a, n, GET(a->open), &reserve))
        return true;
    zaccount_open_reserve(a, n, reserve);
    return false;
}

/* a itself is charged; a refusal further up takes that back. */
bool zaccount_charge_parents(zaccount *a, size_t n)
{
    size_t reserve;
    if (climb_parents(a, n, GET(a->open), &reserve))
        return true;
    zaccount_open_reserve(a, n, reserve);
    return false;
}

/* Use is low enough for what waited for that. */
void zaccount_rearm(zaccount *a, size_t now)
{
    SET(a->rearm, 0); /* first, so that whoever sets a flag from here on raises it again */
    const size_t low = GET(a->close), mark = GET(a->mark);
    if (now <= low)
        SET(a->open, false);
    if (now <= mark)
        SET(a->fired, false);
    if (GET(a->open))
        zaccount_raise(&a->rearm, low);
    if (GET(a->fired) && mark != SIZE_MAX)
        zaccount_raise(&a->rearm, mark);
}

static size_t quarters_above(const zaccount *a, unsigned quarters)
{
    const size_t limit = GET(a->limit), hard = GET(a->hard);
    const size_t quarter = (hard > limit ? hard - limit : 0) / 4;
    return quarters < 4 ? limit + quarters * quarter : hard > limit ? hard : limit;
}

/* False: there is not so much left. */
static bool take_up_to(zaccount *a, size_t n, unsigned quarters)
{
    assert(!a->parent);
    size_t used = GET(a->used);
    for (;;) {
        const size_t most = quarters_above(a, quarters);
        if (n > most || used > most - n)
            return false;
        if (!atomic_compare_exchange_weak(&a->used, &used, used + n))
            continue;
        if (zport_likely(used + n <= quarters_above(a, quarters)))
            break;
        used = atomic_fetch_sub(&a->used, n) - n; /* a mark came down: look again */
    }
    feel_pressure(a, used + n);
    return true;
}

bool zaccount_take_quarters(zaccount *a, size_t n, unsigned quarters)
{
    const bool fails = GET(a->failing) && is_injected(a);
    if (!fails && take_up_to(a, n, quarters))
        return true;
    zaccount_note_refusal(a, n);
    if (!fails)
        SET(a->hit, true);
    return false;
}

bool zaccount_take_below(zaccount *a, size_t n)
{
    return !GET(a->failing) && take_up_to(a, n, 0);
}

bool zaccount_open_last_quarter(zaccount *a)
{
    const size_t limit = GET(a->limit);
    if (GET(a->used) <= limit || GET(a->open))
        return false;
    SET(a->close, limit);
    SET(a->open, true);
    zaccount_raise(&a->rearm, limit);
    if (GET(a->used) <= limit) /* it fell before rearm stood */
        SET(a->open, false);
    return true;
}

void zaccount_close_last_quarter(zaccount *a)
{
    SET(a->open, false);
}

bool zaccount_take_beyond(zaccount *a, size_t n, size_t room)
{
    size_t used = GET(a->used), most;
    assert(!a->parent);
    do {
        if (!zport_add(GET(a->hard), room, &most))
            most = SIZE_MAX;
        if (n > most || used > most - n) {
            zaccount_note_refusal(a, n);
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
        zaccount_count(a, &a->kinds[0], (uint64_t)allocations);
    if (frees)
        zaccount_count(a, &a->frees, (uint64_t)frees);
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
    const size_t used = GET(a->used), peak = GET(a->peak), before = GET(a->peak_before);
    const size_t most = used > peak ? used : peak;
    return most > before ? most : before;
}

void zaccount_kinds(const zaccount *a, uint64_t out[ZACCOUNT_KINDS])
{
    if (!is_own(a)) {
        a->core->kinds(a, out);
        return;
    }
    for (int i = 0; i < ZACCOUNT_KINDS; i++)
        out[i] = HINT(a->kinds[i]);
}

void zaccount_faults(const zaccount *a, uint64_t *passed, uint64_t *failed)
{
    if (!is_own(a)) {
        a->core->faults(a, passed, failed);
        return;
    }
    *passed = GET(a->fault_passed);
    *failed = GET(a->fault_failed);
}

static uint64_t allocations(const zaccount *a)
{
    uint64_t sum = 0;
    for (int i = 0; i < ZACCOUNT_KINDS; i++)
        sum += HINT(a->kinds[i]);
    return sum;
}

/* Another copy's struct may be shorter, or longer: what it does not know it gets as nothing. */
static void write_stats(const zaccount *a, struct zaccount_figures *out, size_t size)
{
    const struct zaccount_figures figures = {
        .peak = zaccount_peak(a),
        .used = GET(a->used),
        .limit = GET(a->limit),
        .hard_limit = GET(a->hard),
        .allocations = allocations(a),
        .frees = HINT(a->frees),
        .refusals = HINT(a->refusals),
        .last_refused = HINT(a->last_refused),
        .retries = HINT(a->retries),
        .overhead_refusals = HINT(a->overhead_refusals),
        .limit_hit = GET(a->hit),
        .reserve_open = GET(a->open),
        .sealed = GET(a->sealed),
        .guest_sealed = GET(a->guest_sealed),
    };
    memset(out, 0, size);
    memcpy(out, &figures, size < sizeof figures ? size : sizeof figures);
}

void zaccount_stats(const zaccount *a, struct zaccount_figures *out)
{
    if (is_own(a))
        write_stats(a, out, sizeof *out);
    else
        a->core->stats(a, out, sizeof *out);
}

const char *zaccount_name(const zaccount *a)
{
    return is_own(a) ? a->name : a->core->name(a);
}

zaccount *zaccount_parent(const zaccount *a)
{
    return is_own(a) ? a->parent : a->core->parent(a);
}

void zaccount_set_single(zaccount *a)
{
    if (!is_own(a)) {
        a->core->set_single(a);
        return;
    }
    SET(a->single, true);
    a->quick = a->parent ? NULL : &zaccount_is_single;
}

zaccount *zaccount_default(void)
{
    return zcore_owner()->default_account();
}

/* ---- life -------------------------------------------------------------------------------- */

static void count_child(zaccount *a, int delta)
{
    if (is_own(a))
        atomic_fetch_add(&a->children, delta);
    else
        a->core->children(a, delta);
}

void zaccount_begin(zaccount *a, const char *name, zaccount *parent)
{
    static const zaccount blank = ZACCOUNT_STATIC("");
    memcpy(a, &blank, sizeof *a);
    if (name)
        strncpy(a->name, name, sizeof a->name - 1);
    a->parent = parent;
    a->quick = parent ? NULL : &zaccount_is_shared;
}

zaccount *zaccount_new(const char *name, zaccount *parent)
{
    /* The struct is aligned to a cache line, more than malloc promises: room to move it. */
    char *block = malloc(sizeof(zaccount) + _Alignof(zaccount) + sizeof(void *));
    if (!block)
        return NULL;
    uintptr_t at = (uintptr_t)block + sizeof(void *) + _Alignof(zaccount) - 1;
    at -= at % _Alignof(zaccount);
    zaccount *a = (zaccount *)at;
    zaccount_begin(a, name, parent);
    ((void **)a)[-1] = block;
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
    zaccount_forget_refused(a);
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
    .climb = zaccount_climb,
    .uncharge = zaccount_uncharge,
    .give_back = zaccount_give_back,
    .count = count_family,
    .alloc = zaccount_alloc,
    .alloc_over = zaccount_alloc_over,
    .children = count_child,
    .free = zaccount_free,
    .name = zaccount_name,
    .parent = zaccount_parent,
    .used = zaccount_used,
    .peak = zaccount_peak,
    .reset_peak = zaccount_reset_peak,
    .stats = write_stats,
    .set_limit = zaccount_set_limit,
    .seal = zaccount_seal,
    .clear_hit = zaccount_clear_hit,
    .on_pressure = zaccount_on_pressure,
    .fail_after = zaccount_fail_after,
    .link = link_of,
    .set_single = zaccount_set_single,
    .kinds = zaccount_kinds,
    .set_overhead = zaccount_set_overhead,
    .enter = zaccount_enter,
    .leave = zaccount_leave,
    .tell_peak = zaccount_tell_peak,
    .guest_limit = zaccount_guest_limit,
    .guest_seal = zaccount_guest_seal,
    .guest = zaccount_guest,
    .is_bound = zaccount_is_bound,
    .below = zcore_below,
    .default_account = zcore_default_account,
    .faults = zaccount_faults,
};
