/* zaccount.h - accounts: how many bytes an owner holds, and how many it may hold.
 *
 * An account counts the bytes that its owner says it took and gave back, exactly, and refuses a
 * growth that would pass its cap. It allocates nothing on its owner's behalf but in
 * zaccount_alloc(), and it never takes a lock while charging.
 *
 * Caveats first:
 *  - Charging is for the owner: an account believes what it is told. Uncharging more than was
 *    charged is the caller's bug.
 *  - An account must outlive everything that is charged to it; zaccount_free() says so.
 *  - Only growth is refused. A shrink and a release never fail.
 *  - A cap below what is in use is legal: nothing is freed, growth is refused until enough has
 *    been given back.
 *
 * Thread-safety: every function may be called from any thread at any time, but zaccount_free().
 * A charge and its cap are one atomic step: however many threads and child accounts there are, use
 * passes the ceiling by not one byte (unless it was above when the cap was set).
 *
 * Several copies of this library in one process (an extension module, a Lua module, a shared
 * library) work together: the first that was loaded keeps the register of all accounts, so there
 * is one zmalloc_total(). An account may be handed to another copy's functions. */
#ifndef ZACCOUNT_H
#define ZACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zapi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The cap of an account that has none. */
#define ZACCOUNT_UNLIMITED SIZE_MAX

typedef struct zaccount zaccount; /* opaque */

/* All figures of an account, in bytes or in events. Taken one after the other: while other threads
 * charge, they need not belong to the same instant. */
struct zaccount_figures {
    size_t used;         /* held now */
    size_t peak;         /* the most ever held since the last zaccount_reset_peak() */
    size_t limit;        /* growth that would end above is refused; ZACCOUNT_UNLIMITED: none */
    size_t hard_limit;   /* limit + reserve: what use never passes */
    uint64_t allocations; /* blocks taken */
    uint64_t frees;      /* blocks given back */
    uint64_t refusals;   /* growths refused, by this account's cap, a parent's, or on request */
    size_t last_refused; /* the size of the last of them, 0 if there was none */
    bool limit_hit;      /* this account's own cap refused something: stays until cleared */
    bool reserve_open;   /* the reserve serves requests at this moment */
    bool sealed;         /* no mark may rise any more */
};

/* ---- life -------------------------------------------------------------------------------- */

/* A new account without a cap, or NULL when there is no memory for it. `name` (may be NULL) is
 * copied, its first 31 bytes; it is for people. What is charged to the account is charged to
 * `parent` (may be NULL) too, and to its parents; each of them may refuse. An account without a
 * parent is a part of zmalloc_total(). */
ZMALLOC_API zaccount *zaccount_new(const char *name, zaccount *parent);

/* Ends an account: 0, or -1 when it still holds bytes or has children, or is one of the library's own;
 * then it lives on unchanged. NULL is allowed. No other thread may use the account any more. */
ZMALLOC_API int zaccount_free(zaccount *a);

ZMALLOC_API const char *zaccount_name(const zaccount *a);
ZMALLOC_API zaccount *zaccount_parent(const zaccount *a);

/* ---- charging ---------------------------------------------------------------------------- */

/* Takes n bytes: true, or false when a cap refuses and nothing has changed but the refusal's
 * figures. Charge before you allocate and give back if that fails. n == 0 is always granted. */
ZMALLOC_API bool zaccount_charge(zaccount *a, size_t n);

/* Gives back n bytes that were charged. Call it before the block itself is given back. */
ZMALLOC_API void zaccount_uncharge(zaccount *a, size_t n);

/* Undoes a charge whose allocation failed. As zaccount_uncharge(), but the peak forgets it. */
ZMALLOC_API void zaccount_give_back(zaccount *a, size_t n);

/* A reallocator for hosts that know their blocks' sizes, with the C library's heap (or the backend
 * chosen at build time) behind it. `ud` is a zaccount *.
 *
 *   (ud, NULL, x, n)   a block of n bytes; x is ignored (Lua passes a type there)
 *   (ud, p, o, n)      p, of o bytes, becomes n bytes, perhaps elsewhere; NULL: p is as before
 *   (ud, p, o, 0)      frees p and returns NULL;  (ud, NULL, x, 0) does nothing
 *
 * NULL only for growth. A shrink never fails: should the heap refuse it, p itself comes back. Counts
 * the requested sizes, not what the heap rounds them to. Alignment is malloc's. Never aborts. */
ZMALLOC_API void *zaccount_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* ---- reading ----------------------------------------------------------------------------- */

ZMALLOC_API size_t zaccount_used(const zaccount *a);

/* The true maximum of use, to the byte, since the account began or since zaccount_reset_peak(). Two
 * things about threads: a maximum that is just ending may be told an instant later, and a charge that
 * its owner gives back can stay in the peak if another thread uncharges between the two. */
ZMALLOC_API size_t zaccount_peak(const zaccount *a);

/* From now on the peak is counted anew, beginning with what is in use. */
ZMALLOC_API void zaccount_reset_peak(zaccount *a);

ZMALLOC_API void zaccount_stats(const zaccount *a, struct zaccount_figures *out);

/* What all accounts of the process hold: the sum over those without a parent. */
ZMALLOC_API size_t zmalloc_total(void);

/* ---- caps -------------------------------------------------------------------------------- */

/* Caps use at `limit` bytes, inclusive; ZACCOUNT_UNLIMITED takes the cap away. A growth that would
 * end above is refused, and from that moment on use may go up to limit + reserve, for whatever has
 * to be done about it; the reserve closes again when use has fallen to limit - min(reserve, limit/2).
 * The request that hit the limit is never served from the reserve.
 * 0, or -1 under a seal when limit or limit + reserve would rise; then nothing has changed. */
ZMALLOC_API int zaccount_set_limit(zaccount *a, size_t limit, size_t reserve);

/* From now on neither mark of this account may rise, whoever asks. There is no way back. */
ZMALLOC_API void zaccount_seal(zaccount *a);

/* Takes the limit_hit flag down. */
ZMALLOC_API void zaccount_clear_hit(zaccount *a);

/* f(account, used, ud) runs once each time use passes `mark` bytes on its way up, in the thread
 * whose charge passed it, after that charge was granted, in the middle of its allocation: f may set
 * a flag or write to a pipe; it must not charge this account, nor call the interpreter that it
 * serves. f == NULL takes the callback away. One callback an account. A thread
 * that is in the old callback while another takes it away may still be in it afterwards. */
ZMALLOC_API void zaccount_on_pressure(zaccount *a, size_t mark,
                                      void (*f)(zaccount *a, size_t used, void *ud), void *ud);

/* Fault injection: the next n growing requests succeed, the `repeat` after them are refused (-1:
 * all that follow), then all is as usual. n < 0 or repeat == 0: off, which costs nothing. Such a
 * refusal is counted, and does not set limit_hit. */
ZMALLOC_API void zaccount_fail_after(zaccount *a, int64_t n, int64_t repeat);

#ifdef __cplusplus
}
#endif
#endif
