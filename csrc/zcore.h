/* zcore.h - several copies of the core in one process, and the inside of an account.
 *
 * Internal to the core and to the fronts that are compiled together with it. Each copy exports one
 * data symbol, zmalloc_core_v1, a table of functions. A copy that is loaded looks for that symbol in
 * the objects that are there already; the first copy owns the register of accounts, the others enter
 * theirs in it. An account begins with the address of the table of the copy that made it, so each
 * copy can tell its own accounts, whose inside it knows, from those it must ask the table about.
 *
 * A program that has the core linked in statically and does not export its symbols (-rdynamic) is
 * not found: it shares by handing over an account. */
#ifndef ZCORE_H
#define ZCORE_H

#include "zaccount.h"
#include "zport.h"

#include <stdatomic.h>

#define ZCORE_MAGIC 0x7a6d616c6c6f6331u /* "zmalloc1" */
#define ZCORE_SYMBOL "zmalloc_core_v1"

/* The table. Its layout is the interface between copies: fields are added at the end only, and
 * `size` says which are there. A change of meaning is a new symbol, zmalloc_core_v2. */
struct zcore {
    uint64_t magic;
    size_t size;
    const char *version;
    struct zcore *_Atomic owner; /* the copy that keeps the register: itself, or an older one */
    struct zcore *_Atomic next;  /* the list of all copies, from the owner on */

    /* asked of the owner only */
    void (*enlist)(zaccount *a);
    void (*delist)(zaccount *a);
    size_t (*total)(void);
    zaccount *(*c_account)(void);

    /* asked of the copy that made the account */
    bool (*charge)(zaccount *a, size_t n);
    void (*uncharge)(zaccount *a, size_t n);
    void (*give_back)(zaccount *a, size_t n);
    void (*count)(zaccount *a, int64_t delta, int allocations, int frees);
    void *(*alloc)(void *ud, void *ptr, size_t osize, size_t nsize);
    void (*children)(zaccount *a, int delta);
    int (*free)(zaccount *a);
    const char *(*name)(const zaccount *a);
    zaccount *(*parent)(const zaccount *a);
    size_t (*used)(const zaccount *a);
    size_t (*peak)(const zaccount *a);
    void (*reset_peak)(zaccount *a);
    void (*stats)(const zaccount *a, struct zaccount_figures *out);
    int (*set_limit)(zaccount *a, size_t limit, size_t reserve);
    void (*seal)(zaccount *a);
    void (*clear_hit)(zaccount *a);
    void (*on_pressure)(zaccount *a, size_t mark, void (*f)(zaccount *, size_t, void *), void *ud);
    void (*fail_after)(zaccount *a, int64_t n, int64_t repeat);
    zaccount **(*link)(zaccount *a); /* where the register keeps the next account's address */

    /* asked of the owner only; a table of 0.1.0 or later */
    size_t (*below)(const zaccount *a);
};

/* The fields that every table of this symbol has. */
#define ZCORE_LEAST (offsetof(struct zcore, link) + sizeof(void *))

extern ZPORT_HIDDEN struct zcore zcore_self;

/* The copy that owns this process's register. */
struct zcore *zcore_owner(void);

/* The register: asked through the owner's table. */
void zcore_enlist(zaccount *a);
void zcore_delist(zaccount *a);
size_t zcore_total(void);
zaccount *zcore_c_account(void);
size_t zcore_below(const zaccount *a);

/* What the children of an account hold: a part of what it holds itself. */
size_t zaccount_below(const zaccount *a);

/* ---- the inside of an account ------------------------------------------------------------- */

/* Fields before `used` are written when the account is made, but `next`, which the register's lock
 * guards. The marks are written under one lock of the copy by those who set them, and read by all
 * without: a charge reads the marks again after it has changed `used`, and takes itself back if one has
 * fallen meanwhile. All of that is sequentially consistent, so that a mark which has been set is
 * either seen by a charge or was set when that charge was already in `used`. */
struct zaccount {
    struct zcore *core;
    zaccount *parent;
    zaccount *next;
    char name[32];

    _Alignas(64) _Atomic size_t used; /* written by every charge */
    _Atomic size_t peak;              /* as of the last time that use fell; see zaccount_peak() */
    _Atomic size_t gate;              /* a charge that ends at or below needs no second look */
    _Atomic size_t rearm;             /* an uncharge that ends at or below needs one */
    _Atomic uint64_t allocations;
    _Atomic uint64_t frees;

    _Alignas(64) _Atomic size_t limit;
    _Atomic size_t hard;
    _Atomic size_t mark; /* of on_pressure */
    void (*_Atomic pressure)(zaccount *a, size_t used, void *ud);
    void *_Atomic pressure_ud;
    _Atomic unsigned changes; /* of the three above: odd while they do not belong together */
    _Atomic bool fired;  /* the callback has run and use has not been below the mark since */
    _Atomic bool open;   /* the reserve serves */
    _Atomic bool sealed;
    _Atomic bool hit;
    _Atomic bool failing; /* fault injection is on: every growth takes the second look */
    _Atomic int64_t fail_after;
    _Atomic int64_t fail_repeat;
    _Atomic uint64_t refusals;
    _Atomic size_t last_refused;
    _Atomic int children;
};

/* An account that needs no zaccount_new(): static storage, entered by zaccount_enlist(). */
#define ZACCOUNT_STATIC(title)                                                                   \
    {                                                                                            \
        .core = &zcore_self, .name = title, .gate = SIZE_MAX, .limit = SIZE_MAX,                 \
        .hard = SIZE_MAX, .mark = SIZE_MAX, .children = 1 /* itself: never freed */              \
    }

void zaccount_enlist(zaccount *a);

/* The lock of those who set marks, never taken while charging. Held over fork(), too. */
void zaccount_lock_marks(void);
void zaccount_unlock_marks(void);

bool zaccount_charge_slow(zaccount *a, size_t n);
bool zaccount_charge_parents(zaccount *a, size_t n);
void zaccount_rearm(zaccount *a, size_t now);

/* Takes n bytes as long as use ends at most `room` above the hard limit. For whoever has to say that
 * the limit was hit. An account without a parent. */
bool zaccount_take_beyond(zaccount *a, size_t n, size_t room);

/* The fast paths, for accounts of this copy: inline in the hooks. Those called _alone are for accounts
 * without a parent. */

/* Takes n bytes if use stays at or below the gate; false says nothing yet. */
ZPORT_INLINE bool zaccount_take_fast(zaccount *a, size_t n)
{
    size_t used = atomic_load_explicit(&a->used, memory_order_relaxed);
    do {
        const size_t gate = atomic_load_explicit(&a->gate, memory_order_relaxed);
        if (zport_unlikely(n > gate || used > gate - n))
            return false;
    } while (zport_unlikely(!atomic_compare_exchange_weak_explicit(
        &a->used, &used, used + n, memory_order_seq_cst, memory_order_relaxed)));
    if (zport_likely(used + n <= atomic_load_explicit(&a->gate, memory_order_seq_cst)))
        return true;
    atomic_fetch_sub_explicit(&a->used, n, memory_order_seq_cst); /* the gate came down meanwhile */
    return false;
}

/* *field = max(*field, value) */
ZPORT_INLINE void zaccount_raise(_Atomic size_t *field, size_t value)
{
    size_t now = atomic_load_explicit(field, memory_order_relaxed);
    while (zport_unlikely(now < value) &&
           !atomic_compare_exchange_weak_explicit(field, &now, value, memory_order_seq_cst,
                                                  memory_order_relaxed))
        ;
}

ZPORT_INLINE bool zaccount_take_alone(zaccount *a, size_t n)
{
    return zport_likely(zaccount_take_fast(a, n)) || zaccount_charge_slow(a, n);
}

ZPORT_INLINE bool zaccount_take(zaccount *a, size_t n)
{
    if (zport_unlikely(!zaccount_take_fast(a, n)))
        return zaccount_charge_slow(a, n);
    return zport_likely(!a->parent) || zaccount_charge_parents(a, n);
}

/* Use has its maxima where it turns down, so the peak is looked at here and not at each charge. */
ZPORT_INLINE void zaccount_drop_alone(zaccount *a, size_t n)
{
    const size_t before = atomic_fetch_sub_explicit(&a->used, n, memory_order_seq_cst);
    zaccount_raise(&a->peak, before);
    if (zport_unlikely(before - n <= atomic_load_explicit(&a->rearm, memory_order_seq_cst)))
        zaccount_rearm(a, before - n);
}

ZPORT_INLINE void zaccount_drop(zaccount *a, size_t n)
{
    zaccount_drop_alone(a, n);
    if (zport_unlikely(a->parent != NULL))
        zaccount_uncharge(a->parent, n);
}

#endif
