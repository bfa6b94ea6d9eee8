/* zmarks.c - what an account is watched by: limits, seals, scopes, the pressure mark, fault injection.
 *
 * Invariants:
 *  - One lock for those who set marks; it is never taken by a charge, which only tries it.
 *  - `limit` and `hard` are the smallest there are among the owner's, the guest's and the scopes'.
 *  - `gate` <= every mark above which a charge wants a second look, and 0 while each one does. */
#include "zaccount.h"
#include "zcore.h"
#include "zport.h"

#include <assert.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_seq_cst)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_seq_cst)

static bool is_own(const zaccount *a)
{
    return zport_likely(a->core == &zcore_self);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t hard_of(size_t limit, size_t reserve)
{
    return reserve > SIZE_MAX - limit ? SIZE_MAX : limit + reserve;
}

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

/* ---- the gate ------------------------------------------------------------------------------- */

/* The lock is held. A charge that begins to wait meanwhile sets the flag first and the gate after it, so
 * one of the two looks sees it. */
static void set_gate(zaccount *a)
{
    const size_t gate = smaller(smaller(GET(a->limit), GET(a->mark)), GET(a->watch));
    SET(a->gate, GET(a->failing) ? 0 : gate);
    if (GET(a->waiting))
        SET(a->gate, 0);
}

void zaccount_stop_waiting(zaccount *a)
{
    if (!zport_try_lock(&marks_lock))
        return;
    SET(a->waiting, 0);
    set_gate(a);
    zaccount_unlock_marks();
}

void zaccount_watch(zaccount *a, size_t watch)
{
    zaccount_lock_marks();
    SET(a->watch, watch);
    set_gate(a);
    zaccount_unlock_marks();
}

/* ---- limits ---------------------------------------------------------------------------------- */

size_t zaccount_close_mark(const zaccount *a)
{
    const size_t limit = GET(a->limit), hard = GET(a->hard);
    return hard > limit ? limit - smaller(hard - limit, limit / 2) : 0;
}

/* The lock is held. */
static void apply(zaccount *a)
{
    size_t limit = smaller(a->own_limit, a->guest.limit);
    size_t hard = smaller(a->own_hard, hard_of(a->guest.limit, a->guest.reserve));
    for (const struct zaccount_scope *s = a->scopes; s; s = s->next) {
        limit = smaller(limit, s->limit);
        hard = smaller(hard, hard_of(s->limit, s->reserve));
    }
    if (limit == GET(a->limit) && hard == GET(a->hard))
        return;
    SET(a->limit, limit);
    SET(a->hard, hard);
    SET(a->open, false);
    set_gate(a);
}

int zaccount_set_limit(zaccount *a, size_t limit, size_t reserve)
{
    if (!is_own(a))
        return a->core->set_limit(a, limit, reserve);
    const size_t hard = hard_of(limit, reserve);
    zaccount_lock_marks();
    const bool allowed = !GET(a->sealed) || (limit <= a->own_limit && hard <= a->own_hard);
    if (allowed) {
        a->own_limit = limit;
        a->own_hard = hard;
        SET(a->open, false);
        apply(a);
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

void zaccount_set_overhead(zaccount *a, unsigned percent, unsigned strikes)
{
    if (!is_own(a)) {
        a->core->set_overhead(a, percent, strikes);
        return;
    }
    SET(a->percent, percent);
    SET(a->strikes, strikes);
    SET(a->poor, 0);
}

/* ---- peaks ----------------------------------------------------------------------------------- */

/* What has been the most since the last time becomes a part of the owner's peak, the guest's and each
 * scope's. The lock is held. */
static void fold_peak(zaccount *a)
{
    const size_t recent = larger(atomic_exchange(&a->peak, 0), GET(a->used));
    SET(a->peak_before, larger(GET(a->peak_before), recent));
    a->guest.peak = larger(a->guest.peak, recent);
    for (struct zaccount_scope *s = a->scopes; s; s = s->next)
        s->peak = larger(s->peak, recent);
}

void zaccount_reset_peak(zaccount *a)
{
    if (!is_own(a)) {
        a->core->reset_peak(a);
        return;
    }
    zaccount_lock_marks();
    fold_peak(a);
    SET(a->peak_before, 0);
    zaccount_unlock_marks();
}

size_t zaccount_tell_peak(zaccount *a, struct zaccount_scope *scope, bool begins_anew)
{
    zaccount_lock_marks();
    fold_peak(a);
    const size_t peak = scope->peak;
    if (begins_anew)
        scope->peak = 0;
    zaccount_unlock_marks();
    return peak;
}

size_t zaccount_scope_peak(zaccount *a, struct zaccount_scope *scope)
{
    return a->core->tell_peak(a, scope, false);
}

size_t zaccount_guest_peak(zaccount *a)
{
    return a->core->tell_peak(a, a->core->guest(a), false);
}

void zaccount_guest_reset_peak(zaccount *a)
{
    a->core->tell_peak(a, a->core->guest(a), true);
}

/* ---- scopes and guests ----------------------------------------------------------------------- */

void zaccount_enter(zaccount *a, struct zaccount_scope *scope)
{
    if (!is_own(a)) {
        a->core->enter(a, scope);
        return;
    }
    zaccount_lock_marks();
    fold_peak(a);
    scope->peak = 0;
    scope->next = a->scopes;
    a->scopes = scope;
    apply(a);
    zaccount_unlock_marks();
}

void zaccount_leave(zaccount *a, struct zaccount_scope *scope)
{
    if (!is_own(a)) {
        a->core->leave(a, scope);
        return;
    }
    zaccount_lock_marks();
    fold_peak(a);
    struct zaccount_scope **at = &a->scopes;
    while (*at && *at != scope)
        at = &(*at)->next;
    assert(*at); /* it was entered */
    if (*at)
        *at = scope->next;
    apply(a);
    zaccount_unlock_marks();
}

struct zaccount_scope *zaccount_guest(zaccount *a)
{
    return &a->guest;
}

int zaccount_guest_limit(zaccount *a, size_t limit, size_t reserve)
{
    if (!is_own(a))
        return a->core->guest_limit(a, limit, reserve);
    zaccount_lock_marks();
    struct zaccount_scope *guest = &a->guest;
    const bool allowed =
        !GET(a->guest_sealed) ||
        (limit <= guest->limit && hard_of(limit, reserve) <= hard_of(guest->limit, guest->reserve));
    if (allowed) {
        guest->limit = limit;
        guest->reserve = reserve;
        SET(a->open, false);
        apply(a);
    }
    zaccount_unlock_marks();
    return allowed ? 0 : -1;
}

void zaccount_guest_seal(zaccount *a)
{
    if (!is_own(a)) {
        a->core->guest_seal(a);
        return;
    }
    zaccount_lock_marks();
    SET(a->guest_sealed, true);
    zaccount_unlock_marks();
}

bool zaccount_is_bound(const zaccount *a)
{
    struct zaccount_figures f;
    zaccount_lock_marks();
    bool bound = GET(a->guest_sealed) || a->own_limit != ZACCOUNT_UNLIMITED;
    zaccount_unlock_marks();
    for (a = a->parent; a && !bound; a = zaccount_parent(a)) {
        zaccount_stats(a, &f);
        bound = f.limit != ZACCOUNT_UNLIMITED;
    }
    return bound;
}

/* ---- the pressure mark ----------------------------------------------------------------------- */

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

/* ---- fault injection ------------------------------------------------------------------------- */

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
    if (on) {
        SET(a->fault_passed, 0);
        SET(a->fault_failed, 0);
    }
    SET(a->failing, on);
    set_gate(a);
    zaccount_unlock_marks();
}
