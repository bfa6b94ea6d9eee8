/* zsized.c - the sized reallocator: zaccount_alloc(), and what its callers' second tries mean.
 *
 * Invariants:
 *  - What is counted for a block is the size that the caller asked for, and will name when it is freed.
 *  - A block is charged before the heap is asked for it and given back if that fails; uncharged before it
 *    is freed.
 *  - A request that a cap has refused is never served from a reserve, also when it comes again. */
#include "zaccount.h"
#include "zcore.h"
#include "zport.h"

#define GET(field) atomic_load_explicit(&(field), memory_order_seq_cst)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_seq_cst)
#define HINT(field) ZACCOUNT_HINT(field)

const char zaccount_is_shared = 0, zaccount_is_single = 0;

/* ---- requests that come again ---------------------------------------------------------------- */

/* The request that was refused last in this thread: if the next growth is the same again, its owner has
 * collected for it. */
static _Thread_local struct request {
    const zaccount *account;
    const void *ptr;
    size_t osize, n;
} refused;

/* How many growths of other threads are looked at before it is given up to notice this one's next. */
enum { PATIENCE = 100 };

/* Callers that tell of no block what kind it is do not collect: Lua 5.1, LuaJIT. What they ask for next may
 * be the same, but it is another's. */
static bool tells_kinds(const zaccount *a)
{
    for (int i = 1; i < ZACCOUNT_KINDS; i++)
        if (HINT(a->kinds[i]))
            return true;
    return false;
}

static void note_refused(zaccount *a, const void *ptr, size_t osize, size_t n)
{
    if (!tells_kinds(a))
        return;
    refused = (struct request){a, ptr, osize, n};
    SET(a->waiting, PATIENCE);
    SET(a->gate, 0);
}

void zaccount_forget_refused(const zaccount *a)
{
    if (refused.account == a)
        refused.account = NULL;
}

/* The first growth after a refusal: is it the same request again? */
static bool is_again(zaccount *a, const void *ptr, size_t osize, size_t n)
{
    const bool is_mine = refused.account == a;
    const bool again = is_mine && refused.ptr == ptr && refused.osize == osize && refused.n == n;
    unsigned left = GET(a->waiting);
    zaccount_forget_refused(a);
    if (left && (is_mine || left == 1 || GET(a->single)))
        zaccount_stop_waiting(a);
    else if (left)
        atomic_compare_exchange_strong(&a->waiting, &left, left - 1);
    return again;
}

/* What may be charged beside n bytes before a cap refuses again; SIZE_MAX if there is none. */
static size_t room_beside(const zaccount *a, size_t n)
{
    size_t room = SIZE_MAX;
    for (struct zaccount_figures f; a; a = zaccount_parent(a)) {
        zaccount_stats(a, &f);
        const size_t left = f.used < f.limit ? f.limit - f.used : 0;
        room = left < n ? 0 : left - n < room ? left - n : room;
    }
    return room;
}

/* Collections have taken over: this one made too little room, and so did those before it. */
static bool is_overhead(zaccount *a, size_t n)
{
    const size_t enough = GET(a->used) / 100 * GET(a->percent); /* none is, where that is off */
    zaccount_count(a, &a->retries, 1);
    if (room_beside(a, n) >= enough) {
        SET(a->poor, 0);
        return false;
    }
    if (GET(a->poor) < GET(a->strikes)) {
        atomic_fetch_add(&a->poor, 1);
        return false;
    }
    zaccount_count(a, &a->overhead_refusals, 1);
    zaccount_note_refusal(a, n);
    SET(a->hit, true);
    return true;
}

bool zaccount_grow_slow(zaccount *a, const void *ptr, size_t osize, size_t n)
{
    size_t reserve;
    const bool again = is_again(a, ptr, osize, n);
    if (again && is_overhead(a, n))
        return false;
    if (zaccount_climb(a, n, !again && GET(a->open), &reserve)) {
        if (again)
            SET(a->open, false); /* it was opened for the request that is served now */
        return true;
    }
    zaccount_open_reserve(a, n, reserve);
    if (!again)
        note_refused(a, ptr, osize, n);
    return false;
}

bool zaccount_grow_parents(zaccount *a, const void *ptr, size_t osize, size_t n)
{
    if (zaccount_charge_parents(a, n))
        return true;
    note_refused(a, ptr, osize, n);
    return false;
}

/* ---- any account ----------------------------------------------------------------------------- */

/* Inline, so that no pointer is called. */
ZPORT_INLINE void *heap(void *ctx, void *ptr, size_t osize, size_t nsize)
{
    (void)ctx, (void)osize;
    if (nsize)
        return ptr ? zport_realloc(ptr, nsize) : zport_malloc(nsize);
    zport_free(ptr);
    return NULL;
}

void *zaccount_alloc_any(zaccount *a, void *ptr, size_t osize, size_t nsize)
{
    if (a->core != &zcore_self)
        return a->core->alloc(a, ptr, osize, nsize);
    return zaccount_realloc(a, heap, NULL, false, ptr, osize, nsize);
}

void *zaccount_alloc_over(zaccount *a, zcore_alloc *beneath, void *ctx, void *ptr, size_t osize,
                          size_t nsize)
{
    const size_t used = HINT(a->used);
    if (ptr && zport_unlikely(osize > used)) /* from before, and not known: so it is known now */
        atomic_fetch_add(&a->used, osize - used);
    return zaccount_realloc(a, beneath, ctx, true, ptr, osize, nsize);
}

/* ---- accounts of this copy without a parent, one function for each of the four cases -------------- */

/* An interpreter spends a good part of its time here. In this shape hardly a register is saved; what a
 * failure would need to know is left in the account, if one thread alone charges it. */

static ZPORT_NOINLINE void *undo(zaccount *a, size_t n)
{
    zaccount_give_back(a, n);
    return NULL;
}

static ZPORT_NOINLINE void *undo_create(zaccount *a)
{
    atomic_fetch_sub_explicit(&a->kinds[a->request_kind], 1, memory_order_relaxed);
    return undo(a, a->request);
}

void *zaccount_create_single(zaccount *a, void *ptr, size_t kind, size_t n)
{
    if (zport_unlikely(!zaccount_take_single(a, n)))
        return zaccount_alloc_any(a, ptr, kind, n);
    kind %= ZACCOUNT_KINDS;
    zport_bump(&a->kinds[kind]);
    a->request = n;
    a->request_kind = kind;
    void *p = zport_malloc(n);
    return zport_likely(p != NULL) ? p : undo_create(a);
}

void *zaccount_release_single(zaccount *a, void *ptr, size_t n, size_t nothing)
{
    (void)nothing;
    const size_t before = HINT(a->used);
    zport_bump(&a->frees);
    atomic_store_explicit(&a->used, before - n, memory_order_relaxed);
    zaccount_note_drop(a, before, before - n);
    zport_free(ptr);
    return NULL;
}

void *zaccount_enlarge_single(zaccount *a, void *ptr, size_t osize, size_t nsize)
{
    if (zport_unlikely(!zaccount_take_single(a, nsize - osize)))
        return zaccount_alloc_any(a, ptr, osize, nsize);
    a->request = nsize - osize;
    void *p = zport_realloc(ptr, nsize);
    return zport_likely(p != NULL) ? p : undo(a, a->request);
}

void *zaccount_shrink(zaccount *a, void *ptr, size_t osize, size_t nsize)
{
    void *p = zport_realloc(ptr, nsize);
    zaccount_drop(a, osize - nsize);
    return p ? p : ptr; /* the block there is is large enough */
}

/* The same where threads meet. */

void *zaccount_create_shared(zaccount *a, void *ptr, size_t kind, size_t n)
{
    if (zport_unlikely(!zaccount_take_fast(a, n)))
        return zaccount_alloc_any(a, ptr, kind, n);
    void *p = zport_malloc(n);
    if (zport_unlikely(!p))
        return undo(a, n);
    atomic_fetch_add_explicit(&a->kinds[kind % ZACCOUNT_KINDS], 1, memory_order_relaxed);
    return p;
}

void *zaccount_release_shared(zaccount *a, void *ptr, size_t n, size_t nothing)
{
    (void)nothing;
    atomic_fetch_add_explicit(&a->frees, 1, memory_order_relaxed);
    zaccount_drop_alone(a, n);
    zport_free(ptr);
    return NULL;
}

void *zaccount_enlarge_shared(zaccount *a, void *ptr, size_t osize, size_t nsize)
{
    if (zport_unlikely(!zaccount_take_fast(a, nsize - osize)))
        return zaccount_alloc_any(a, ptr, osize, nsize);
    void *p = zport_realloc(ptr, nsize);
    return zport_likely(p != NULL) ? p : undo(a, nsize - osize);
}

void *zaccount_alloc_default(zaccount *none, void *ptr, size_t osize, size_t nsize)
{
    static zaccount *_Atomic known;
    (void)none;
    zaccount *a = atomic_load_explicit(&known, memory_order_acquire);
    if (zport_unlikely(!a)) {
        a = zaccount_default();
        atomic_store_explicit(&known, a, memory_order_release);
    }
    return zaccount_dispatch(a, ptr, osize, nsize);
}

void *zaccount_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    return zaccount_dispatch(ud, ptr, osize, nsize);
}
