/* hooks.c - the hooks in RAW, MEM, OBJ and the arena allocator.
 *
 * Invariants:
 *  - A block is counted once. MEM and OBJ call RAW for what is large, and debug allocators shift the
 *    pointer in between; so while a hook waits for the allocator beneath (thread.state & WAITING),
 *    further malloc, calloc and realloc calls of that thread pass uncounted. free never does: it goes
 *    by the mark in the map.
 *  - A block is charged before the allocator is asked and given back if that fails; unmarked before it
 *    is freed or may move, marked when it has its address.
 *  - The hooks ignore ctx and are put in with the ctx that they found: a reader who sees half of a
 *    change calls a valid function with the right ctx.
 *  - No lock (but at a thread's first call and its end), no allocation, no call into Python.
 *
 * `held` counts what the system gives. pymalloc's large blocks are RAW calls inside a MEM or OBJ call:
 * they are charged at the size that the outer call asked for, which is what the outer free will know. */
#include "hooks.h"

#include "arenas.h"
#include "delivery.h"
#include "faults.h"
#include "gauges.h"
#include "hooks_inside.h"
#include "relief.h"
#include "where.h"

#include <string.h>

/* How far a debug allocator moves a pointer, at most. */
enum { LARGEST_SHIFT = 64 };

/* The least that RAW takes for a MEM or OBJ block: its size is always marked in the long form, which needs
 * the map bytes of 144 bytes, so that free need not ask of small marks whether RAW is behind them. */
enum { SMALLEST_RAW = 256 };

/* What a report may take beyond the limit. */
static const size_t exempt_room = (size_t)8 << 20;

zaccount python_account = ZACCOUNT_STATIC("Python");
zaccount held_account = ZACCOUNT_STATIC("Python, held");

zmap hooks_map;
PyMemAllocatorEx hooks_original[3];
PyObjectArenaAllocator hooks_original_arena;
struct hook_state hooks;

/* ---- charging ---------------------------------------------------------------------------- */

static ZPORT_NOINLINE bool take_exempt(zaccount *a, size_t n)
{
    return is_capped(a) ? zaccount_take_beyond(a, n, exempt_room) : zaccount_take_alone(a, n);
}

/* What is held: no credit, no error but the refusal. */
static bool take_held(const struct thread *t, size_t n)
{
    return t->state & EXEMPT ? take_exempt(&held_account, n) : zaccount_take_alone(&held_account, n);
}

static ZPORT_NOINLINE bool take_used_slow(struct thread *t, enum domain d, size_t n)
{
    return t->state & EXEMPT ? take_exempt(&python_account, n) : delivery_take(t, d, n);
}

ZPORT_INLINE bool take_used(struct thread *t, enum domain d, size_t n)
{
    return zport_likely(zaccount_take_fast(&python_account, n)) || take_used_slow(t, d, n);
}

static ZPORT_NOINLINE void *refuse(enum domain d, size_t n)
{
    delivery_note_refused(d);
    const size_t limit = atomic_load(&python_account.limit);
    const bool by_used = n > limit || zaccount_used(&python_account) > limit - n;
    atomic_fetch_add_explicit(&hooks.refusals[d], 1, memory_order_relaxed);
    where_note(n, by_used ? limit : atomic_load(&held_account.limit));
    return NULL;
}

/* See faults.h. */
ZPORT_INLINE bool has_fault(struct thread *t, enum domain d, size_t n)
{
    return zport_unlikely(t->state & FAULTY) && faults_refuse(t, d, n);
}

/* No limit has anything to do with it. */
static ZPORT_NOINLINE void *refuse_on_purpose(enum domain d, size_t n)
{
    atomic_fetch_add_explicit(&hooks.refusals[d], 1, memory_order_relaxed);
    where_note(n, where_limit());
    return NULL;
}

/* What is held has no peak and no reserve, and mostly no cap. */
ZPORT_INLINE bool hold(const struct thread *t, size_t n)
{
    if (zport_unlikely(is_capped(&held_account)))
        return take_held(t, n);
    zaccount_add_to(&held_account.used, n);
    if (zport_likely(!is_capped(&held_account)))
        return true;
    zaccount_take_from(&held_account.used, n); /* a cap came meanwhile */
    return take_held(t, n);
}

ZPORT_INLINE void unhold(size_t n)
{
    zaccount_take_from(&held_account.used, n);
}

/* RAW blocks and chunks count in both accounts. */
ZPORT_INLINE bool take_both(struct thread *t, enum domain d, size_t n)
{
    if (zport_unlikely(!take_used(t, d, n)))
        return false;
    if (zport_likely(hold(t, n)))
        return true;
    zaccount_give_back(&python_account, n);
    return false;
}

static void give_back_both(size_t n)
{
    zaccount_give_back(&python_account, n);
    unhold(n);
}

/* Which accounts a domain's blocks are charged to. d is a constant wherever this is inlined. */
ZPORT_INLINE bool take_for(enum domain d, struct thread *t, size_t n)
{
    return d == RAW || d == STACK ? take_both(t, d, n) : take_used(t, d, n);
}

ZPORT_INLINE void give_back_for(enum domain d, size_t n)
{
    if (d == RAW || d == STACK)
        give_back_both(n);
    else
        zaccount_give_back(&python_account, n);
}

/* A scope of the thread's own is concerned. */
static ZPORT_NOINLINE bool take_in_gauges(enum domain d, struct thread *t, size_t n)
{
    if (!gauges_take(t, n, t->state & (LENIENT | EXEMPT | ADOPTING) || d == STACK ? 4 : 3) &&
        !(delivery_cannot_refuse(d, n) && gauges_take(t, n, GAUGES_BEYOND))) {
        give_back_for(d, n);
        delivery_note_gauge_refusal(t, n);
        return false;
    }
    delivery_note_gauges(t, d, n);
    return true;
}

/* The same for a thread that has scopes of its own. */
ZPORT_INLINE bool take_measured(enum domain d, struct thread *t, size_t n)
{
    return zport_likely(take_for(d, t, n)) && (zport_likely(gauges_take_fast(t, n)) || take_in_gauges(d, t, n));
}

static ZPORT_NOINLINE bool take_measured_slowly(enum domain d, struct thread *t, size_t n)
{
    return take_measured(d, t, n);
}

ZPORT_INLINE bool take_slowly(enum domain d, struct thread *t, size_t n)
{
    return zport_unlikely(t->state & MEASURED) ? take_measured_slowly(d, t, n) : take_for(d, t, n);
}

static ZPORT_NOINLINE void give_back_measured(enum domain d, struct thread *t, size_t n)
{
    give_back_for(d, n);
    gauges_give_back(t, n);
}

ZPORT_INLINE void give_back_slowly(enum domain d, struct thread *t, size_t n)
{
    if (zport_unlikely(t->state & MEASURED))
        give_back_measured(d, t, n);
    else
        give_back_for(d, n);
}

ZPORT_INLINE void drop_for(enum domain d, size_t n)
{
    zaccount_drop_alone(&python_account, n);
    if (d == RAW || d == STACK)
        unhold(n);
}

/* What a thread frees that has scopes of its own. */
ZPORT_INLINE void drop_measured(struct thread *t, size_t n)
{
    if (zport_unlikely(!gauges_drop_fast(t, n)))
        gauges_drop(t, n);
}

/* OBJ's use is what the account holds and the other domains do not, so the domain that is called most
 * need not add it up. */
ZPORT_INLINE void count_used(struct thread *t, enum domain d, int64_t delta)
{
    if (d != OBJ)
        count_up(&t->count[d].used, delta);
}

/* ---- marks ------------------------------------------------------------------------------- */

/* A block was freed behind our back, while the hooks were out or by an allocator that CPython swaps in
 * for a moment, and its address is in use again. */
static void bury(struct thread *t, enum domain d, zmap_byte *at, unsigned code)
{
    const size_t size = zmap_size(at, code);
    zmap_clear(at, code);
    drop_for(d, size);
    count_used(t, d, -(int64_t)size);
    count_up(&t->count[d].frees, 1);
}

/* Marks a block where the fast path could not. False: there is no map for its address. */
static ZPORT_NOINLINE bool mark_slow(struct thread *t, enum domain d, const void *p, size_t n)
{
    zmap_byte *at = zmap_reach(&hooks_map, p);
    if (!at)
        return false;
    const unsigned code = zmap_code(at);
    if (code)
        bury(t, d, at, code);
    zmap_set(at, n);
    return true;
}

ZPORT_INLINE bool mark(struct thread *t, enum domain d, const void *p, size_t n)
{
    zmap_byte *at = zmap_find(&hooks_map, p);
    if (zport_unlikely(!at || zmap_code(at)))
        return mark_slow(t, d, p, n);
    zmap_set(at, n);
    return true;
}

/* ---- what a MEM or OBJ call takes from RAW -------------------------------------------------- */

/* What RAW holds for a MEM or OBJ block of n bytes. */
ZPORT_INLINE size_t size_behind(size_t n)
{
    return n < SMALLEST_RAW ? SMALLEST_RAW : n;
}

static bool is_behind(const void *p, const void *raw)
{
    return (uintptr_t)p - (uintptr_t)raw <= LARGEST_SHIFT;
}

/* What RAW gave on the way of a MEM or OBJ call is not what the call returns: it is pymalloc's own (its
 * list of arenas), or a tool's. Nobody will say its size when it is freed. */
static ZPORT_NOINLINE void disown_raw(struct thread *t)
{
    unhold(size_behind(t->size));
    t->raw = NULL;
}

/* Marks a block in the long form, whatever its size: RAW is behind it. */
static ZPORT_NOINLINE bool mark_behind(struct thread *t, enum domain d, const void *p, size_t n)
{
    if (!is_behind(p, t->raw)) {
        disown_raw(t);
        return mark(t, d, p, n);
    }
    t->raw = NULL;
    zmap_byte *at = zmap_reach(&hooks_map, p);
    if (!at) {
        unhold(size_behind(n));
        return false;
    }
    const unsigned code = zmap_code(at);
    if (code)
        bury(t, d, at, code);
    zmap_set_long(at, n, ZMAP_LONG);
    return true;
}

/* Marks what a call got. RAW calls have nothing behind them. */
ZPORT_INLINE bool mark_result(struct thread *t, enum domain d, const void *p, size_t n)
{
    if (d != RAW && zport_unlikely(t->raw != NULL))
        return mark_behind(t, d, p, n);
    return mark(t, d, p, n);
}

/* pymalloc asks RAW for a block that a MEM or OBJ call wants, and RAW has to say what is held. */
ZPORT_INLINE bool is_for_outer(const struct thread *t)
{
    return (t->state & WAITING) == OUTER && !hooks.held_is_used;
}

/* ---- malloc, calloc ------------------------------------------------------------------------ */

ZPORT_INLINE void *ask(enum domain d, size_t count, size_t size, bool zeroed)
{
    const PyMemAllocatorEx *a = &hooks_original[d];
    return zeroed ? a->calloc(a->ctx, count, size) : a->malloc(a->ctx, size);
}

/* See relief.h. The mark says that nothing is charged. */
static ZPORT_NOINLINE void *ask_uncounted(struct thread *t, enum domain d, size_t count, size_t size, bool zeroed)
{
    t->state += INNER;
    void *p = ask(d, count, size, zeroed);
    t->state -= INNER;
    zmap_byte *at = p ? zmap_reach(&hooks_map, p) : NULL;
    if (at)
        atomic_store_explicit(at, ZMAP_TAG, memory_order_release);
    else
        relief_note_free();
    return p;
}

/* The map had no room. Under a cap a block that nobody counts must not exist. */
static ZPORT_NOINLINE void *leave_unmarked(struct thread *t, enum domain d, void *p, size_t n)
{
    give_back_slowly(d, t, n);
    if (is_capped(&python_account) || is_capped(&held_account)) {
        hooks_original[d].free(hooks_original[d].ctx, p);
        return refuse(d, n);
    }
    atomic_fetch_add_explicit(&hooks.untracked, 1, memory_order_relaxed);
    return p;
}

/* What is known of a thread's state: it is 0, it is MEASURED, or it may be anything. */
enum known { PLAIN, ONLY_MEASURED, ANY_STATE };

ZPORT_INLINE bool take_knowing(enum known known, enum domain d, struct thread *t, size_t n)
{
    if (known == PLAIN)
        return take_for(d, t, n);
    return known == ONLY_MEASURED ? take_measured(d, t, n) : take_slowly(d, t, n);
}

ZPORT_INLINE void *allocate_counted(struct thread *t, enum domain d, size_t count, size_t size,
                                    bool zeroed, enum known known)
{
    const size_t n = zeroed ? count * size : size;
    if (zport_unlikely(!take_knowing(known, d, t, n)))
        return delivery_must_grant(t, d, n) ? ask_uncounted(t, d, count, size, zeroed) : refuse(d, n);

    if (d != RAW)
        t->size = n;
    t->state += d == RAW ? INNER : OUTER;
    void *p = ask(d, count, size, zeroed);
    t->state -= d == RAW ? INNER : OUTER;
    if (zport_unlikely(!p)) {
        if (d != RAW && t->raw)
            disown_raw(t);
        give_back_slowly(d, t, n);
        return NULL;
    }
    if (zport_unlikely(!mark_result(t, d, p, n)))
        return leave_unmarked(t, d, p, n);
    if (known == ONLY_MEASURED || (known == ANY_STATE && zport_unlikely(t->state & MEASURED)))
        gauges_count(t, 1, 0);
    count_used(t, d, (int64_t)n);
    count_up(&t->count[d].allocations, 1);
    return p;
}

/* RAW, asked by pymalloc in the middle of a MEM or OBJ call. */
static void *allocate_for_outer(struct thread *t, size_t count, size_t size, bool zeroed)
{
    if (!is_for_outer(t))
        return ask(RAW, count, size, zeroed);
    const size_t held = size_behind(t->size);
    if (!hold(t, held))
        return refuse(RAW, held);
    const size_t n = zeroed ? count * size : size;
    void *p = n < SMALLEST_RAW ? ask(RAW, 1, SMALLEST_RAW, zeroed) : ask(RAW, count, size, zeroed);
    if (!p || t->raw) /* the one before was not the block: see disown_raw() */
        unhold(held);
    if (p)
        t->raw = p;
    return p;
}

static bool is_probed(struct thread *t, enum domain d)
{
    t->seen |= 1u << d;
    return t->state & PROBING;
}

/* A new interpreter may get a GIL of its own from 3.12 on. It is made by one large calloc in RAW, with the
 * GIL held that there is till then. A false alarm costs a little time, nothing else. */
void hooks_have_many_gils(bool many)
{
    if (many != hooks.many_gils)
        atomic_fetch_add(&hooks.looks_at_thread, many ? 1 : -1);
    hooks.many_gils = many;
}

static void note_interpreter(enum domain d, size_t n)
{
    if (PY_VERSION_HEX >= 0x030c0000 && d == RAW && n >= 65536)
        hooks_have_many_gils(true);
}

static ZPORT_NOINLINE void *allocate_slow(enum domain d, size_t count, size_t size, bool zeroed)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    if (is_probed(t, d))
        return ask(d, count, size, zeroed);
    if (t->state & WAITING)
        return d == RAW ? allocate_for_outer(t, count, size, zeroed) : ask(d, count, size, zeroed);
    if (d != RAW && (t->state & (ASKED | CROSSED)))
        delivery_notice(t, zeroed ? count * size : size);
    if (has_fault(t, d, count * size))
        return refuse_on_purpose(d, count * size);
    void *p = allocate_counted(t, d, count, size, zeroed, ANY_STATE);
    if (t->state & GONE)
        thread_fold(t);
    return p;
}

/* For a thread that has scopes of its own, and about which nothing else is special. */
static ZPORT_NOINLINE void *allocate_obj_measured(struct thread *t, size_t n)
{
    return allocate_counted(t, OBJ, 1, n, false, ONLY_MEASURED);
}

static ZPORT_NOINLINE void *allocate_mem_measured(struct thread *t, size_t n)
{
    return allocate_counted(t, MEM, 1, n, false, ONLY_MEASURED);
}

ZPORT_INLINE void *allocate(enum domain d, size_t count, size_t size, bool zeroed)
{
    struct thread *t = thread_self();
    if (zport_likely(t->state == 0))
        return allocate_counted(t, d, count, size, zeroed, PLAIN);
    if (d == RAW && t->state == OUTER)
        return allocate_for_outer(t, count, size, zeroed);
    if (d != RAW && !zeroed && t->state == MEASURED)
        return d == OBJ ? allocate_obj_measured(t, size) : allocate_mem_measured(t, size);
    return allocate_slow(d, count, size, zeroed);
}

/* ---- free -------------------------------------------------------------------------------- */

ZPORT_INLINE void pass_free(enum domain d, void *p)
{
    hooks_original[d].free(hooks_original[d].ctx, p);
}

/* Not marked: from before the hooks, or the RAW block behind one that MEM or OBJ just unmarked. */
static ZPORT_NOINLINE void release_unmarked(struct thread *t, enum domain d, void *p)
{
    if (d == RAW && t->freeing && is_behind(t->freeing, p)) {
        t->freeing = NULL;
        unhold(size_behind(t->free_size));
    }
    pass_free(d, p);
}

ZPORT_INLINE void release_marked(struct thread *t, enum domain d, void *p, zmap_byte *at,
                                 unsigned code)
{
    const size_t n = zmap_size(at, code);
    zmap_clear(at, code);
    drop_for(d, n);
    if (zport_unlikely(t->state & MEASURED)) {
        drop_measured(t, n);
        gauges_count(t, 0, 1);
    }
    count_used(t, d, -(int64_t)n);
    count_up(&t->count[d].frees, 1);
    if (d == RAW || zport_likely(code != ZMAP_LONG)) {
        pass_free(d, p);
        return;
    }
    t->freeing = p;
    t->free_size = n;
    pass_free(d, p);
    t->freeing = NULL;
}

/* All blocks that are not small ones of MEM or OBJ, or whose thread is special. */
static ZPORT_OUTLINE void release_other(enum domain d, void *p, zmap_byte *at, unsigned code)
{
    struct thread *t = thread_self();
    if (zport_unlikely(code == 0)) {
        release_unmarked(t, d, p);
        return;
    }
    if (zport_unlikely(t->state & UNLISTED))
        thread_join(t);
    if (zport_unlikely(code == ZMAP_TAG)) {
        zmap_clear(at, code);
        relief_note_free();
        pass_free(d, p);
        return;
    }
    release_marked(t, d, p, at, code);
    if (zport_unlikely(t->state & GONE))
        thread_fold(t);
}

/* The way of most blocks, without a look at the thread's record. */
ZPORT_INLINE void release_small(enum domain d, void *p, zmap_byte *at, size_t n)
{
    atomic_store_explicit(at, 0, memory_order_release);
    zaccount_drop_alone(&python_account, n);
    if (d != OBJ)
        count_up(&gil_counts[d].used, -(int64_t)n);
    count_up(&gil_counts[d].frees, 1);
    pass_free(d, p);
}

/* The same where a thread has scopes of its own, this one or another. */
ZPORT_INLINE void release_small_looking(enum domain d, void *p, zmap_byte *at, size_t n)
{
    struct thread *t = thread_self();
    if (zport_unlikely(t->state & ~(unsigned)MEASURED)) {
        release_other(d, p, at, zmap_code(at));
        return;
    }
    atomic_store_explicit(at, 0, memory_order_release);
    zaccount_drop_alone(&python_account, n);
    if (t->state) {
        drop_measured(t, n);
        gauges_count(t, 0, 1);
    }
    count_used(t, d, -(int64_t)n);
    count_up(&t->count[d].frees, 1);
    pass_free(d, p);
}

static ZPORT_NOINLINE void release_small_obj(void *p, zmap_byte *at, size_t n)
{
    release_small_looking(OBJ, p, at, n);
}

static ZPORT_NOINLINE void release_small_mem(void *p, zmap_byte *at, size_t n)
{
    release_small_looking(MEM, p, at, n);
}

ZPORT_INLINE void release(enum domain d, void *p)
{
    zmap_byte *at = zmap_find(&hooks_map, p);
    const unsigned code = zmap_code(at);
    if (d != RAW && zport_likely(code - 1 <= ZMAP_SMALL_MAX && !ZACCOUNT_HINT(hooks.looks_at_thread)))
        release_small(d, p, at, code - 1);
    else if (d == OBJ && code - 1 <= ZMAP_SMALL_MAX)
        release_small_obj(p, at, code - 1);
    else if (d == MEM && code - 1 <= ZMAP_SMALL_MAX)
        release_small_mem(p, at, code - 1);
    else
        release_other(d, p, at, code);
}

/* ---- realloc ----------------------------------------------------------------------------- */

/* RAW, asked by pymalloc to resize the RAW block behind one of MEM or OBJ. */
static void *resize_for_outer(struct thread *t, void *p, size_t n)
{
    const PyMemAllocatorEx *a = &hooks_original[RAW];
    if (!is_for_outer(t) || !t->block || !is_behind(t->block, p))
        return a->realloc(a->ctx, p, n);
    const size_t held = size_behind(t->size);
    const size_t more = held > t->old_held ? held - t->old_held : 0;
    const size_t less = t->old_held > held ? t->old_held - held : 0;
    if (!hold(t, more))
        return refuse(RAW, held);
    void *q = a->realloc(a->ctx, p, n < SMALLEST_RAW ? SMALLEST_RAW : n);
    if (q) {
        unhold(less);
        t->raw = q;
    } else {
        unhold(more);
    }
    return q;
}

/* The inner call of a resize, with what a RAW call on its way needs to know. */
ZPORT_INLINE void *ask_resize(struct thread *t, enum domain d, void *p, size_t old_held, size_t n)
{
    if (d != RAW) {
        t->size = n;
        t->old_held = old_held;
        t->block = p;
    }
    t->state += d == RAW ? INNER : OUTER;
    void *q = hooks_original[d].realloc(hooks_original[d].ctx, p, n);
    t->state -= d == RAW ? INNER : OUTER;
    if (d != RAW) {
        t->block = NULL;
        if (zport_unlikely(!q && t->raw))
            disown_raw(t);
    }
    return q;
}

/* The block has moved to where there is no map: there is no way back. */
static ZPORT_NOINLINE void lose_track(struct thread *t, enum domain d, size_t old, size_t charged)
{
    give_back_for(d, charged);
    count_used(t, d, -(int64_t)old);
    count_up(&t->count[d].frees, 1);
    atomic_fetch_add_explicit(&hooks.untracked, 1, memory_order_relaxed);
}

/* See relief.h. What was charged for the block is given back; one that is uncounted, whose size is not known here, is
 * moved by the allocator. */
static ZPORT_NOINLINE void *resize_uncounted(struct thread *t, enum domain d, void *p, unsigned code, size_t old,
                                             size_t n)
{
    if (code == ZMAP_TAG) {
        relief_note_free(); /* it is the same one */
        zmap_clear(zmap_find(&hooks_map, p), code);
        t->state += INNER;
        void *q = hooks_original[d].realloc(hooks_original[d].ctx, p, n);
        t->state -= INNER;
        zmap_byte *at = zmap_reach(&hooks_map, q ? q : p);
        if (at)
            atomic_store_explicit(at, ZMAP_TAG, memory_order_release);
        else
            relief_note_free();
        return q;
    }
    void *q = ask_uncounted(t, d, 1, n, false);
    if (!q)
        return NULL;
    memcpy(q, p, old < n ? old : n);
    release(d, p);
    return q;
}

/* The first resize of a block from before the hooks charges it whole, also where it shrinks: list.pop() must
 * not fail for it as long as there is any room. */
ZPORT_INLINE bool take_more(enum domain d, struct thread *t, size_t more, bool adopts)
{
    if (zport_likely(!adopts))
        return take_slowly(d, t, more);
    t->state |= ADOPTING;
    const bool taken = take_slowly(d, t, more);
    t->state &= ~(unsigned)ADOPTING;
    return taken;
}

ZPORT_INLINE void *resize_counted(struct thread *t, enum domain d, void *p, zmap_byte *at,
                                  unsigned code, size_t n)
{
    const size_t old = zmap_size(at, code); /* 0 for a block from before the hooks: adopted whole */
    const size_t more = n > old ? n - old : 0;
    if (zport_unlikely(more && !take_more(d, t, more, code == 0 || code == ZMAP_TAG)))
        return code && delivery_must_grant(t, d, n) ? resize_uncounted(t, d, p, code, old, n) : refuse(d, n);
    if (code)
        zmap_clear(at, code);
    void *q = ask_resize(t, d, p, code && code != ZMAP_TAG ? size_behind(old) : 0, n);
    if (zport_unlikely(!q)) {
        if (code == ZMAP_LONG)
            zmap_set_long(at, old, code);
        else if (code == ZMAP_TAG)
            atomic_store_explicit(at, ZMAP_TAG, memory_order_release);
        else if (code)
            zmap_set(at, old);
        if (more)
            give_back_slowly(d, t, more);
        return NULL;
    }
    if (zport_unlikely(code == ZMAP_TAG))
        relief_note_free();
    count_up(&t->count[d].allocations, code == 0 || code == ZMAP_TAG);
    if (zport_unlikely(!mark_result(t, d, q, n))) {
        lose_track(t, d, old, old + more);
        return q;
    }
    if (n < old) {
        drop_for(d, old - n);
        if (zport_unlikely(t->state & MEASURED))
            drop_measured(t, old - n);
    }
    count_used(t, d, (int64_t)n - (int64_t)old);
    return q;
}

/* A block from before the hooks has no size that is known: that may be a shrink. */
static bool is_growing(const zmap_byte *at, unsigned code, size_t n)
{
    return code && code != ZMAP_TAG && n > zmap_size(at, code);
}

static ZPORT_NOINLINE void *resize_slow(enum domain d, void *p, size_t n)
{
    struct thread *t = thread_self();
    zmap_byte *at = zmap_find(&hooks_map, p);
    const unsigned code = zmap_code(at);
    if (t->state & UNLISTED)
        thread_join(t);
    if (is_probed(t, d) || ((t->state & WAITING) && code == 0))
        return d == RAW ? resize_for_outer(t, p, n)
                        : hooks_original[d].realloc(hooks_original[d].ctx, p, n);
    if (d != RAW && !(t->state & WAITING) && (t->state & (ASKED | CROSSED)))
        delivery_notice(t, n);
    if (!(t->state & WAITING) && is_growing(at, code, n) && has_fault(t, d, n))
        return refuse_on_purpose(d, n);
    /* A marked block, even below another call: its mark has to move with it. */
    const size_t size = t->size, old_held = t->old_held;
    void *const raw = t->raw;
    const void *const block = t->block;
    t->raw = NULL;
    void *q = resize_counted(t, d, p, at, code, n);
    t->size = size;
    t->old_held = old_held;
    t->raw = raw;
    t->block = block;
    if (t->state & GONE)
        thread_fold(t);
    return q;
}

ZPORT_INLINE void *resize(enum domain d, void *p, size_t n)
{
    if (zport_unlikely(!p))
        return allocate(d, 1, n, false);
    struct thread *t = thread_self();
    if (zport_unlikely(t->state))
        return resize_slow(d, p, n);
    zmap_byte *at = zmap_find(&hooks_map, p);
    return resize_counted(t, d, p, at, zmap_code(at), n);
}

/* ---- blocks of other allocators ------------------------------------------------------------- */

static struct thread *joined_thread(void)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    return t;
}

/* A thread's counts after a call: bytes, blocks taken and given back. */
static void outside_count(struct thread *t, int64_t used, int taken, int freed)
{
    if (t->state & MEASURED)
        gauges_count(t, taken, freed);
    count_used(t, RAW, used);
    count_up(&t->count[RAW].allocations, taken);
    count_up(&t->count[RAW].frees, freed);
    if (t->state & GONE)
        thread_fold(t);
}

static void outside_drop(struct thread *t, size_t n)
{
    drop_for(RAW, n);
    if (t->state & MEASURED)
        drop_measured(t, n);
}

static void *outside_ask(const struct outside *from, void *ctx, size_t count, size_t size, bool zeroed)
{
    return zeroed ? from->calloc(ctx, count, size) : from->malloc(ctx, size);
}

/* See leave_unmarked(). */
static void *outside_unmarked(struct thread *t, const struct outside *from, void *ctx, void *p, size_t n)
{
    give_back_slowly(RAW, t, n);
    if (is_capped(&python_account) || is_capped(&held_account)) {
        from->free(ctx, p, n);
        return refuse(RAW, n);
    }
    atomic_fetch_add_explicit(&hooks.untracked, 1, memory_order_relaxed);
    return p;
}

void *hooks_outside_allocate(const struct outside *from, void *ctx, size_t count, size_t size,
                             bool zeroed)
{
    size_t n;
    if (!zport_mul(count, size, &n))
        return NULL;
    struct thread *t = joined_thread();
    if (t->state & (WAITING | PROBING)) /* below a call that counts */
        return outside_ask(from, ctx, count, size, zeroed);
    if (has_fault(t, RAW, n))
        return refuse_on_purpose(RAW, n);
    if (!take_slowly(RAW, t, n))
        return refuse(RAW, n);
    t->state += INNER;
    void *p = outside_ask(from, ctx, count, size, zeroed);
    t->state -= INNER;
    if (!p) {
        give_back_slowly(RAW, t, n);
        return NULL;
    }
    if (!mark(t, RAW, p, n))
        return outside_unmarked(t, from, ctx, p, n);
    outside_count(t, (int64_t)n, 1, 0);
    return p;
}

void hooks_outside_release(const struct outside *from, void *ctx, void *p, size_t n)
{
    zmap_byte *at = zmap_find(&hooks_map, p);
    const unsigned code = zmap_code(at);
    if (code) {
        struct thread *t = joined_thread();
        const size_t size = zmap_size(at, code);
        zmap_clear(at, code);
        outside_drop(t, size);
        outside_count(t, -(int64_t)size, 0, 1);
    }
    from->free(ctx, p, n);
}

/* at, code: the block's mark, none if it is from before the hooks. It is adopted whole then. */
static void *outside_resize(struct thread *t, const struct outside *from, void *ctx, void *p,
                            zmap_byte *at, unsigned code, size_t n)
{
    const size_t old = zmap_size(at, code), more = n > old ? n - old : 0;
    if (more && !take_more(RAW, t, more, code == 0))
        return refuse(RAW, n);
    if (code)
        zmap_clear(at, code);
    t->state += INNER;
    void *q = from->realloc(ctx, p, n);
    t->state -= INNER;
    if (!q) {
        if (code)
            zmap_set(at, old);
        if (more)
            give_back_slowly(RAW, t, more);
        return NULL;
    }
    if (!mark(t, RAW, q, n)) {
        lose_track(t, RAW, old, old + more);
        return q;
    }
    if (n < old)
        outside_drop(t, old - n);
    outside_count(t, (int64_t)n - (int64_t)old, code == 0, 0);
    return q;
}

void *hooks_outside_resize(const struct outside *from, void *ctx, void *p, size_t n)
{
    if (!p)
        return hooks_outside_allocate(from, ctx, 1, n, false);
    struct thread *t = joined_thread();
    zmap_byte *at = zmap_find(&hooks_map, p);
    const unsigned code = zmap_code(at);
    if ((t->state & PROBING) || ((t->state & WAITING) && code == 0))
        return from->realloc(ctx, p, n);
    if (!(t->state & WAITING) && is_growing(at, code, n) && has_fault(t, RAW, n))
        return refuse_on_purpose(RAW, n);
    return outside_resize(t, from, ctx, p, at, code, n);
}

/* ---- the functions that CPython calls ------------------------------------------------------- */

/* What the two that matter most are made of, counted by callgrind for a small block of OBJ in a process of one thread
 * (gcc 12 -O2, x86-64). With several threads each charge is one locked instruction in place of a load and a store.
 *
 * obj_malloc, 70 instructions beside pymalloc's own:
 *    8  saving and restoring three registers: the thread's record, the size, the block live across the inner call
 *   10  the thread's record (TLSDESC: a call of three instructions where glibc has room for it), its state is 0
 *    3  is there one thread?
 *    6  use + n: no overflow, at or below the gate, stored. Peak, limit, watch are all behind the gate
 *    9  state, size for a RAW call on the way, the inner call, state back
 *    4  did it get a block, and was RAW asked for it?
 *   22  the map: address below 2^48, two levels, the byte's place; nothing is there yet
 *    4  size + 1 into the byte
 *    4  allocations + 1
 *
 * obj_free, 53:
 *    4  saving a register
 *   21  the map, as above
 *    6  is the code one of a small block, and does no thread want to be looked at?
 *    1  the byte is 0, before the block is anybody else's
 *   12  one thread? use - n; was it above the peak, is it below what closes a reserve?
 *    9  frees + 1 without a look at the thread's record, the inner call in its place
 *
 * For a thread with scopes of its own both go on in a function beside, which also looks at its ledger: 63 more a pair. */

#define HOOKS(name, domain)                                                                      \
    static void *name##_malloc(void *ctx, size_t n)                                              \
    {                                                                                            \
        (void)ctx;                                                                               \
        return allocate(domain, 1, n, false);                                                    \
    }                                                                                            \
    static void *name##_calloc(void *ctx, size_t count, size_t size)                             \
    {                                                                                            \
        (void)ctx;                                                                               \
        size_t n;                                                                                \
        if (!zport_mul(count, size, &n))                                                         \
            return NULL;                                                                         \
        note_interpreter(domain, n);                                                             \
        return allocate(domain, count, size, true);                                              \
    }                                                                                            \
    static void *name##_realloc(void *ctx, void *p, size_t n)                                    \
    {                                                                                            \
        (void)ctx;                                                                               \
        return resize(domain, p, n);                                                             \
    }                                                                                            \
    static void name##_free(void *ctx, void *p)                                                  \
    {                                                                                            \
        (void)ctx;                                                                               \
        release(domain, p);                                                                      \
    }

HOOKS(raw, RAW)
HOOKS(mem, MEM)
HOOKS(obj, OBJ)

const PyMemAllocatorEx hooks_ours[3] = {
    {NULL, raw_malloc, raw_calloc, raw_realloc, raw_free},
    {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free},
    {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free},
};

/* ---- arenas and frame chunks ---------------------------------------------------------------- */

/* An arena is asked for inside a MEM or OBJ call, a chunk never is. Where our OBJ hook is not, or has been thrown
 * out, arenas come without a call around them; then the caller tells them apart. */
static bool is_chunk(const struct thread *t, size_t n, void *caller)
{
    if (t->state & WAITING)
        return false;
    if (n != ARENA_SIZE) {
        hooks.chunk_caller = caller;
        return true;
    }
    PyMemAllocatorEx top;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &top);
    return top.malloc == obj_malloc || (hooks.chunk_caller && caller == hooks.chunk_caller);
}

/* No refusal, whatever comes of it: pymalloc then asks RAW for the one block that it wanted. */
static bool has_room_for_arena(size_t n)
{
    const size_t limit = atomic_load(&held_account.limit), used = zaccount_used(&held_account);
    return n <= limit && used <= limit - n;
}

/* Where arenas count there is none above the limit: what is asked for there is counted one by one, by RAW. */
static bool take_arena(struct thread *t, size_t n)
{
    if (!has_room_for_arena(n))
        return false;
    if (!hooks.counts_arenas)
        return hold(t, n);
    if (hooks.has_no_arenas || !delivery_has_room_for_arena(t, n) || !zaccount_take_below(&python_account, n))
        return false;
    if (hold(t, n))
        return true;
    zaccount_give_back(&python_account, n);
    return false;
}

static void give_back_arena(size_t n)
{
    if (hooks.counts_arenas)
        zaccount_give_back(&python_account, n);
    unhold(n);
}

static bool note_arena(void *p)
{
    zmap_byte *at = zmap_reach(&hooks_map, p);
    return at && (!hooks.counts_arenas || arenas_add(p));
}

static void *allocate_arena(struct thread *t, size_t n)
{
    if (!take_arena(t, n))
        return NULL;
    void *p = hooks_original_arena.alloc(hooks_original_arena.ctx, n);
    if (!p || !note_arena(p)) {
        give_back_arena(n);
        return p;
    }
    zmap_byte *at = zmap_find(&hooks_map, p);
    atomic_store_explicit(at, ZMAP_TAG, memory_order_release);
    atomic_fetch_add_explicit(&hooks.arenas, n, memory_order_relaxed);
    return p;
}

static ZPORT_NOINLINE void *get_uncounted_chunk(size_t n)
{
    void *p = hooks_original_arena.alloc(hooks_original_arena.ctx, n);
    zmap_byte *at = p ? zmap_reach(&hooks_map, p) : NULL;
    if (at)
        zmap_set_long(at, 0, ZMAP_SPAN);
    else
        relief_note_chunk_free();
    return p;
}

static void *allocate_chunk(struct thread *t, size_t n)
{
    if (!take_slowly(STACK, t, n))
        return delivery_must_grant(t, STACK, n) ? get_uncounted_chunk(n) : refuse(STACK, n);
    t->state += INNER;
    void *p = hooks_original_arena.alloc(hooks_original_arena.ctx, n);
    t->state -= INNER;
    zmap_byte *at = p ? zmap_reach(&hooks_map, p) : NULL;
    if (!at) {
        give_back_slowly(STACK, t, n);
        return p;
    }
    zmap_set_long(at, n, ZMAP_SPAN);
    delivery_note_chunk(t, (int64_t)n);
    count_used(t, STACK, (int64_t)n);
    count_up(&t->count[STACK].allocations, 1);
    return p;
}

static void *arena_alloc(void *ctx, size_t n)
{
    (void)ctx;
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    return is_chunk(t, n, __builtin_return_address(0)) ? allocate_chunk(t, n)
                                                       : allocate_arena(t, n);
}

static void arena_free(void *ctx, void *p, size_t n)
{
    (void)ctx;
    struct thread *t = thread_self();
    zmap_byte *at = zmap_find(&hooks_map, p);
    const unsigned code = zmap_code(at);
    if (code == ZMAP_TAG) {
        zmap_clear(at, code);
        atomic_fetch_sub_explicit(&hooks.arenas, n, memory_order_relaxed);
        if (hooks.counts_arenas && arenas_remove(p))
            zaccount_drop_alone(&python_account, n);
        unhold(n);
    } else if (code == ZMAP_SPAN) {
        const size_t size = zmap_size(at, code);
        zmap_clear(at, code);
        if (size == 0)
            relief_note_chunk_free();
        drop_for(STACK, size);
        if (t->state & MEASURED)
            gauges_drop(t, size);
        delivery_note_chunk(t, -(int64_t)size);
        count_used(t, STACK, -(int64_t)size);
        count_up(&t->count[STACK].frees, 1);
        if (t->state & GONE)
            thread_fold(t);
    }
    if (n == ARENA_SIZE)
        zmap_give_back(&hooks_map, p, n); /* while it is ours: afterwards others may be setting there */
    hooks_original_arena.free(hooks_original_arena.ctx, p, n);
}

const PyObjectArenaAllocator hooks_our_arena = {NULL, arena_alloc, arena_free};

/* ---- the exemption ------------------------------------------------------------------------- */

void hooks_exempt(bool on)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    if (on)
        t->state |= EXEMPT;
    else
        t->state &= ~(unsigned)EXEMPT;
}
