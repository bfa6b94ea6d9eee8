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

ZPORT_PRIVATE_BEGIN

#define ZCORE_MAGIC 0x7a6d616c6c6f6331u /* "zmalloc1" */
#define ZCORE_SYMBOL "zmalloc_core_v1"

typedef void *zcore_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

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
    bool (*climb)(zaccount *a, size_t n, bool open, size_t *reserve);
    void (*uncharge)(zaccount *a, size_t n);
    void (*give_back)(zaccount *a, size_t n);
    void (*count)(zaccount *a, int64_t delta, int allocations, int frees);
    zcore_alloc *alloc;
    void *(*alloc_over)(zaccount *a, zcore_alloc *beneath, void *ctx, void *ptr, size_t osize,
                        size_t nsize);
    void (*children)(zaccount *a, int delta);
    int (*free)(zaccount *a);
    const char *(*name)(const zaccount *a);
    zaccount *(*parent)(const zaccount *a);
    size_t (*used)(const zaccount *a);
    size_t (*peak)(const zaccount *a);
    void (*reset_peak)(zaccount *a);
    void (*stats)(const zaccount *a, struct zaccount_figures *out, size_t size);
    int (*set_limit)(zaccount *a, size_t limit, size_t reserve);
    void (*seal)(zaccount *a);
    void (*clear_hit)(zaccount *a);
    void (*on_pressure)(zaccount *a, size_t mark, void (*f)(zaccount *, size_t, void *), void *ud);
    void (*fail_after)(zaccount *a, int64_t n, int64_t repeat);
    zaccount **(*link)(zaccount *a); /* where the register keeps the next account's address */

    void (*set_single)(zaccount *a);
    void (*kinds)(const zaccount *a, uint64_t out[ZACCOUNT_KINDS]);
    void (*set_overhead)(zaccount *a, unsigned percent, unsigned strikes);
    void (*enter)(zaccount *a, struct zaccount_scope *scope);
    void (*leave)(zaccount *a, struct zaccount_scope *scope);
    size_t (*tell_peak)(zaccount *a, struct zaccount_scope *scope, bool begins_anew);
    int (*guest_limit)(zaccount *a, size_t limit, size_t reserve);
    void (*guest_seal)(zaccount *a);
    struct zaccount_scope *(*guest)(zaccount *a);
    bool (*is_bound)(const zaccount *a);

    /* asked of the owner only */
    size_t (*below)(const zaccount *a);
    zaccount *(*default_account)(void);

    /* Reallocators with zaccount_alloc()'s contract that a front of this copy adds; NULL: none. The ud of
     * the first is as zaccount_alloc()'s, that of the second points to the account's address. */
    zcore_alloc *_Atomic front;
    zcore_alloc *_Atomic wrapper;

    /* asked of the copy that made the account */
    void (*faults)(const zaccount *a, uint64_t *passed, uint64_t *failed);
};

/* The fields that every table of this symbol has. */
#define ZCORE_LEAST (offsetof(struct zcore, faults) + sizeof(void *))

extern ZPORT_HIDDEN struct zcore zcore_self;

/* The copy that owns this process's register. */
struct zcore *zcore_owner(void);

/* The account that a reallocator of any copy in this process counts into, NULL if it is none of theirs; then
 * ud has not been looked into. */
zaccount *zcore_account_of(zcore_alloc *f, void *ud);

/* The register: asked through the owner's table. */
void zcore_enlist(zaccount *a);
void zcore_delist(zaccount *a);
size_t zcore_total(void);
zaccount *zcore_c_account(void);
zaccount *zcore_default_account(void);
size_t zcore_below(const zaccount *a);

/* What the children of an account hold: a part of what it holds itself. */
size_t zaccount_below(const zaccount *a);

/* Values of zaccount.quick: addresses, so that one comparison tells this copy's accounts from others', too. */
extern ZPORT_HIDDEN const char zaccount_is_shared;  /* no parent */
extern ZPORT_HIDDEN const char zaccount_is_single; /* nor other threads */

/* ---- the inside of an account ------------------------------------------------------------- */

/* Fields before `used` are written when the account is made, but `next`, which the register's lock
 * guards. The marks are written under one lock of the copy by those who set them, and read by all
 * without: a charge reads the marks again after it has changed `used`, and takes itself back if one has
 * fallen meanwhile. All of that is sequentially consistent, so that a mark which has been set is
 * either seen by a charge or was set when that charge was already in `used`. */
struct zaccount {
    struct zcore *core;
    const void *quick; /* how zaccount_alloc() may go about it: zaccount_is_single, _shared, or NULL */
    zaccount *parent;
    zaccount *next;
    char name[32];

    _Alignas(64) _Atomic size_t used; /* written by every charge */
    _Atomic size_t peak;              /* as of the last time that use fell; see zaccount_peak() */
    _Atomic size_t gate;              /* a charge that ends at or below needs no second look */
    _Atomic size_t rearm;             /* an uncharge that ends at or below needs one */
    _Atomic uint64_t frees;
    _Atomic bool single;          /* one thread at a time charges, */
    size_t request, request_kind; /* and this is what it is asking the heap for */

    _Alignas(64) _Atomic uint64_t kinds[ZACCOUNT_KINDS]; /* blocks made, by kind */

    _Alignas(64) _Atomic size_t limit; /* the smallest there is: the owner's, the guest's, a scope's */
    _Atomic size_t hard;
    _Atomic size_t mark; /* of on_pressure */
    _Atomic size_t watch; /* a charge that ends above is looked at by whoever makes it, see zaccount_watch() */
    void (*_Atomic pressure)(zaccount *a, size_t used, void *ud);
    void *_Atomic pressure_ud;
    _Atomic unsigned changes; /* of the three above: odd while they do not belong together */
    _Atomic bool fired;  /* the callback has run and use has not been below the mark since */
    _Atomic bool open;   /* reserves serve what is charged to this account, */
    _Atomic size_t close; /* until its use has fallen to this */
    _Atomic bool sealed;
    _Atomic bool guest_sealed;
    _Atomic bool hit;
    _Atomic bool failing; /* fault injection is on: every growth takes the second look */
    _Atomic unsigned waiting; /* so do the next ones after a refusal, until the same comes again: how many */
    _Atomic int64_t fail_after;
    _Atomic int64_t fail_repeat;
    _Atomic uint64_t fault_passed, fault_failed; /* since it was switched on last */
    _Atomic uint64_t refusals;
    _Atomic size_t last_refused;
    _Atomic uint64_t retries;
    _Atomic uint64_t overhead_refusals;
    _Atomic unsigned poor; /* retries in a row that found little room */
    _Atomic unsigned percent, strikes;
    _Atomic int children;

    /* under the marks' lock */
    size_t own_limit, own_hard;    /* the owner's */
    struct zaccount_scope guest;   /* the first of the scopes, with marks that zaccount_guest_limit() sets */
    struct zaccount_scope *scopes; /* what others have entered */
    _Atomic size_t peak_before;    /* the owner's peak, before `peak` was begun anew for a scope's sake */
};

/* An account that needs no zaccount_new(): static storage, entered by zaccount_enlist(). */
#define ZACCOUNT_STATIC(title)                                                                   \
    {                                                                                            \
        .core = &zcore_self, .quick = &zaccount_is_shared, .name = title, .gate = SIZE_MAX, .limit = SIZE_MAX,                 \
        .hard = SIZE_MAX, .mark = SIZE_MAX, .watch = SIZE_MAX, .children = 1 /* itself: never freed */,             \
        .own_limit = SIZE_MAX, .own_hard = SIZE_MAX, .guest = {.limit = SIZE_MAX},               \
        .percent = 5, .strikes = 8                                                               \
    }

/* Makes one in memory of the caller's, as if it were static; zaccount_enlist() is still to come. */
void zaccount_begin(zaccount *a, const char *name, zaccount *parent);

void zaccount_enlist(zaccount *a);

/* The lock of those who set marks, never taken while charging. Held over fork(), too. */
void zaccount_lock_marks(void);
void zaccount_unlock_marks(void);

/* Where an open reserve closes that the account's own cap has opened. */
size_t zaccount_close_mark(const zaccount *a);

/* Growths need not take the second look any more because of `waiting`; unless others are at the marks: then
 * the next one does. */
void zaccount_stop_waiting(zaccount *a);

/* The guest's scope; the peak of a scope that is entered, or the guest's. */
struct zaccount_scope *zaccount_guest(zaccount *a);
size_t zaccount_tell_peak(zaccount *a, struct zaccount_scope *scope, bool begins_anew);

/* Has the account a cap that its guest cannot lift? */
bool zaccount_is_bound(const zaccount *a);

bool zaccount_charge_slow(zaccount *a, size_t n);
bool zaccount_charge_parents(zaccount *a, size_t n);
void zaccount_rearm(zaccount *a, size_t now);

/* The same for zaccount_alloc(), whose caller may make a refused request again. */
bool zaccount_grow_slow(zaccount *a, const void *ptr, size_t osize, size_t n);
bool zaccount_grow_parents(zaccount *a, const void *ptr, size_t osize, size_t n);

/* a is to be freed: no request to it will come again. */
void zaccount_forget_refused(const zaccount *a);

/* Charges a and its parents, up to their limits, or their hard limits if `open`. When a cap refuses,
 * *reserve is what it has beyond its limit. */
bool zaccount_climb(zaccount *a, size_t n, bool open, size_t *reserve);

/* A cap has refused n bytes that were charged to a: in its figures; and from here on reserves serve it,
 * until its use has fallen. */
void zaccount_note_refusal(zaccount *a, size_t n);
void zaccount_open_reserve(zaccount *a, size_t n, size_t reserve);

/* For an owner who takes what passes the limit on credit and sees to it himself (an account without a parent).
 * Takes n bytes as long as use ends at or below limit + `quarters` quarters of the reserve. The last quarter is
 * for whoever cleans up after a refusal: it opens with one that came while use was above the limit, and closes as
 * soon as use is at or below. False: refused, with its figures. Opening is true if it was closed; who finds that
 * nobody cleans up closes it again. */
bool zaccount_take_quarters(zaccount *a, size_t n, unsigned quarters);
bool zaccount_open_last_quarter(zaccount *a);
void zaccount_close_last_quarter(zaccount *a);

/* The same up to the limit, for whoever can do without: false is no refusal, and no fault is injected, but as long as
 * faults are it is false. */
bool zaccount_take_below(zaccount *a, size_t n);

/* From now on zaccount_take_fast() is false for a charge that ends above `watch`, too. */
void zaccount_watch(zaccount *a, size_t watch);

/* Takes n bytes as long as use ends at most `room` above the hard limit. For whoever has to say that
 * the limit was hit. An account without a parent. */
bool zaccount_take_beyond(zaccount *a, size_t n, size_t room);

/* The fast paths, for accounts of this copy: inline in the hooks. Those called _alone are for accounts
 * without a parent. */

#define ZACCOUNT_HINT(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* field += n for a counter that nothing is decided by. */
ZPORT_INLINE void zaccount_count(const zaccount *a, _Atomic uint64_t *field, uint64_t n)
{
    if (ZACCOUNT_HINT(a->single) || zport_is_alone())
        atomic_store_explicit(field, ZACCOUNT_HINT(*field) + n, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(field, n, memory_order_relaxed);
}

/* *field += n, *field -= n, with what it was before. */
ZPORT_INLINE size_t zaccount_add_to(_Atomic size_t *field, size_t n)
{
    if (zport_unlikely(!zport_is_alone()))
        return atomic_fetch_add_explicit(field, n, memory_order_seq_cst);
    const size_t before = ZACCOUNT_HINT(*field);
    atomic_store_explicit(field, before + n, memory_order_relaxed);
    return before;
}

ZPORT_INLINE size_t zaccount_take_from(_Atomic size_t *field, size_t n)
{
    return zaccount_add_to(field, (size_t)0 - n);
}

/* Takes n bytes of an account that several threads charge if use stays at or below the gate; false says nothing
 * yet. */
static ZPORT_NOINLINE bool zaccount_take_shared(zaccount *a, size_t n)
{
    size_t used = ZACCOUNT_HINT(a->used), after;
    do {
        if (!zport_add(used, n, &after) || after > ZACCOUNT_HINT(a->gate))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&a->used, &used, after, memory_order_seq_cst,
                                                    memory_order_relaxed));
    if (zport_likely(after <= atomic_load_explicit(&a->gate, memory_order_seq_cst)))
        return true;
    atomic_fetch_sub_explicit(&a->used, n, memory_order_seq_cst); /* the gate came down meanwhile */
    return false;
}

/* The same for an account that one thread at a time charges: it alone writes used. */
ZPORT_INLINE bool zaccount_take_single(zaccount *a, size_t n)
{
    size_t after;
    if (zport_unlikely(!zport_add(ZACCOUNT_HINT(a->used), n, &after) || after > ZACCOUNT_HINT(a->gate)))
        return false;
    atomic_store_explicit(&a->used, after, memory_order_relaxed);
    return true;
}

/* Takes n bytes if use stays at or below the gate; false says nothing yet. */
ZPORT_INLINE bool zaccount_take_fast(zaccount *a, size_t n)
{
    if (zport_likely(zport_is_alone()))
        return zaccount_take_single(a, n);
    return zaccount_take_shared(a, n);
}

/* *field = max(*field, value) */
ZPORT_INLINE void zaccount_raise(_Atomic size_t *field, size_t value)
{
    size_t now = atomic_load_explicit(field, memory_order_relaxed);
    if (zport_unlikely(now < value) && zport_is_alone()) {
        atomic_store_explicit(field, value, memory_order_relaxed);
        return;
    }
    while (zport_unlikely(now < value) &&
           !atomic_compare_exchange_weak_explicit(field, &now, value, memory_order_seq_cst,
                                                  memory_order_relaxed))
        ;
}

ZPORT_INLINE bool zaccount_take_alone(zaccount *a, size_t n)
{
    return zport_likely(zaccount_take_fast(a, n)) || zaccount_charge_slow(a, n);
}

/* The parent's part of a charge, where a's own is done; false says nothing yet. */
ZPORT_INLINE bool zaccount_take_parent(zaccount *a, size_t n)
{
    zaccount *parent = a->parent;
    return zport_likely(!parent) ||
           (zport_likely(parent->quick == &zaccount_is_shared) && zaccount_take_fast(parent, n));
}

ZPORT_INLINE bool zaccount_take(zaccount *a, size_t n)
{
    if (zport_unlikely(!zaccount_take_fast(a, n)))
        return zaccount_charge_slow(a, n);
    return zport_likely(zaccount_take_parent(a, n)) || zaccount_charge_parents(a, n);
}

/* Use has its maxima where it turns down, so the peak is looked at here and not at each charge. */
ZPORT_INLINE void zaccount_note_drop(zaccount *a, size_t before, size_t now)
{
    zaccount_raise(&a->peak, before);
    if (zport_unlikely(now <= atomic_load_explicit(&a->rearm, memory_order_seq_cst)))
        zaccount_rearm(a, now);
}

ZPORT_INLINE void zaccount_drop_alone(zaccount *a, size_t n)
{
    const size_t before = zaccount_take_from(&a->used, n);
    zaccount_note_drop(a, before, before - n);
}

ZPORT_INLINE void zaccount_drop(zaccount *a, size_t n)
{
    if (ZACCOUNT_HINT(a->single)) {
        const size_t before = ZACCOUNT_HINT(a->used);
        atomic_store_explicit(&a->used, before - n, memory_order_relaxed);
        zaccount_note_drop(a, before, before - n);
    } else {
        zaccount_drop_alone(a, n);
    }
    zaccount *parent = a->parent;
    if (zport_likely(!parent))
        return;
    if (zport_likely(parent->quick == &zaccount_is_shared))
        zaccount_drop_alone(parent, n);
    else
        zaccount_uncharge(parent, n);
}

/* ---- the sized reallocator, for zaccount_alloc() and what fronts make of it --------------------- */

/* n bytes more, for the block at ptr (NULL: a new one), of osize bytes (a new one: of that kind). */
ZPORT_INLINE bool zaccount_grow(zaccount *a, const void *ptr, size_t osize, size_t n)
{
    const bool taken = ZACCOUNT_HINT(a->single) ? zaccount_take_single(a, n) : zaccount_take_fast(a, n);
    if (zport_unlikely(!taken))
        return zaccount_grow_slow(a, ptr, osize, n);
    return zport_likely(zaccount_take_parent(a, n)) || zaccount_grow_parents(a, ptr, osize, n);
}

/* For an account of this copy. beneath(ctx, ...) is a lua_Alloc that counts nothing. If it is somebody else's
 * (may_refuse) its answer is passed on as it is, also to a shrink: it goes by the sizes that it knows. */
ZPORT_INLINE void *zaccount_realloc(zaccount *a, zcore_alloc *beneath, void *ctx, bool may_refuse,
                                    void *ptr, size_t osize, size_t nsize)
{
    if (nsize == 0) {
        if (ptr) {
            zaccount_count(a, &a->frees, 1);
            zaccount_drop(a, osize);
        }
        return beneath(ctx, ptr, osize, 0);
    }
    if (!ptr) {
        if (zport_unlikely(!zaccount_grow(a, ptr, osize, nsize)))
            return NULL;
        void *p = beneath(ctx, NULL, osize, nsize);
        if (zport_likely(p != NULL))
            zaccount_count(a, &a->kinds[osize % ZACCOUNT_KINDS], 1);
        else
            zaccount_give_back(a, nsize);
        return p;
    }
    if (nsize > osize && zport_unlikely(!zaccount_grow(a, ptr, osize, nsize - osize)))
        return NULL;
    void *p = beneath(ctx, ptr, osize, nsize);
    if (zport_unlikely(!p)) {
        if (nsize > osize)
            zaccount_give_back(a, nsize - osize);
        if (nsize > osize || may_refuse)
            return NULL;
        p = ptr; /* the block there is is large enough */
    }
    if (nsize < osize)
        zaccount_drop(a, osize - nsize);
    return p;
}

/* The same with an allocator that somebody else has made, which may have given blocks before. */
void *zaccount_alloc_over(zaccount *a, zcore_alloc *beneath, void *ctx, void *ptr, size_t osize,
                          size_t nsize);

/* zaccount_alloc() itself, inline in what fronts call it by. All take what it takes, in the same places. */
void *zaccount_alloc_any(zaccount *a, void *ptr, size_t osize, size_t nsize);
void *zaccount_alloc_default(zaccount *none, void *ptr, size_t osize, size_t nsize);
void *zaccount_create_single(zaccount *a, void *ptr, size_t kind, size_t n);
void *zaccount_create_shared(zaccount *a, void *ptr, size_t kind, size_t n);
void *zaccount_release_single(zaccount *a, void *ptr, size_t n, size_t nothing);
void *zaccount_release_shared(zaccount *a, void *ptr, size_t n, size_t nothing);
void *zaccount_enlarge_single(zaccount *a, void *ptr, size_t osize, size_t nsize);
void *zaccount_enlarge_shared(zaccount *a, void *ptr, size_t osize, size_t nsize);
void *zaccount_shrink(zaccount *a, void *ptr, size_t osize, size_t nsize);

#define ZACCOUNT_CASES(way)                                                                      \
    (nsize == 0      ? ptr ? zaccount_release_##way(a, ptr, osize, nsize) : NULL                 \
     : !ptr          ? zaccount_create_##way(a, ptr, osize, nsize)                               \
     : nsize > osize ? zaccount_enlarge_##way(a, ptr, osize, nsize)                              \
                     : zaccount_shrink(a, ptr, osize, nsize))

ZPORT_INLINE void *zaccount_dispatch(zaccount *a, void *ptr, size_t osize, size_t nsize)
{
    if (zport_unlikely(!a))
        return zaccount_alloc_default(a, ptr, osize, nsize);
    if (zport_likely(a->quick == &zaccount_is_single))
        return ZACCOUNT_CASES(single);
    if (zport_likely(a->quick == &zaccount_is_shared))
        return ZACCOUNT_CASES(shared);
    return zaccount_alloc_any(a, ptr, osize, nsize);
}

ZPORT_PRIVATE_END

#endif
