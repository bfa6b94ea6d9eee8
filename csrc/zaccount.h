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
    uint64_t retries;    /* refused requests of zaccount_alloc() that came again: a collection each */
    uint64_t overhead_refusals; /* those among them that were refused for bringing too little */
    bool limit_hit;      /* this account's own cap refused something: stays until cleared */
    bool reserve_open;   /* reserves serve what is charged to this account at this moment */
    bool sealed;         /* no mark of its owner's may rise any more */
    bool guest_sealed;   /* nor any of its guest's, see zaccount_guest_limit() */
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

/* A promise that from now on one thread at a time charges this account, as an interpreter's state does
 * that counts into an account of its own. Counting is cheaper then. Other threads may still read it and
 * set its caps; a cap that another thread sets counts from the next charge on. Parents are shared as ever. */
ZMALLOC_API void zaccount_set_single(zaccount *a);

/* The account of zaccount_alloc() calls that name none: one a process, in whichever copy. */
ZMALLOC_API zaccount *zaccount_default(void);

/* ---- charging ---------------------------------------------------------------------------- */

/* Takes n bytes: true, or false when a cap refuses and nothing has changed but the refusal's
 * figures. Charge before you allocate and give back if that fails. n == 0 is always granted. */
ZMALLOC_API bool zaccount_charge(zaccount *a, size_t n);

/* Gives back n bytes that were charged. Call it before the block itself is given back. */
ZMALLOC_API void zaccount_uncharge(zaccount *a, size_t n);

/* Undoes a charge whose allocation failed. As zaccount_uncharge(), but the peak forgets it. */
ZMALLOC_API void zaccount_give_back(zaccount *a, size_t n);

/* A reallocator for hosts that know their blocks' sizes, with the C library's heap (or the backend
 * chosen at build time) behind it. `ud` is a zaccount *; NULL stands for zaccount_default().
 *
 *   (ud, NULL, k, n)   a block of n bytes, counted as one of kind k: see zaccount_kinds()
 *   (ud, p, o, n)      p, of o bytes, becomes n bytes, perhaps elsewhere; NULL: p is as before
 *   (ud, p, o, 0)      frees p and returns NULL;  (ud, NULL, x, 0) does nothing
 *
 * NULL only for growth. A shrink never fails: should the heap refuse it, p itself comes back. Counts
 * the requested sizes, not what the heap rounds them to. Alignment is malloc's. Never aborts.
 *
 * A caller may answer NULL by collecting its garbage and making the same request again, the next thing
 * that it asks for: that is judged by the limit alone, never by the reserve; see also
 * zaccount_set_overhead(). (Lua does so from 5.2 on, the version that also tells kinds other than 0: the same
 * request from a caller that never told any is taken for another one.) */
ZMALLOC_API void *zaccount_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* How many blocks zaccount_alloc() made of each kind, cumulative. Kinds count modulo ZACCOUNT_KINDS. */
#define ZACCOUNT_KINDS 16
ZMALLOC_API void zaccount_kinds(const zaccount *a, uint64_t out[ZACCOUNT_KINDS]);

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
 * end above is refused, and from that moment on what is charged to the same account may go up to
 * limit + reserve, for whatever has to be done about it. That ends when its use has fallen well below: to
 * limit - min(reserve, limit/2), or, where a parent's cap refused, by min(the parent's reserve, half of
 * what it was). The request that hit the limit is never served from the reserve.
 * 0, or -1 under a seal when limit or limit + reserve would rise; then nothing has changed. */
ZMALLOC_API int zaccount_set_limit(zaccount *a, size_t limit, size_t reserve);

/* From now on neither mark that zaccount_set_limit() sets may rise, whoever asks. There is no way back. */
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

/* Where requests are refused, collected for and made again at every turn, the collections become the
 * program. So after `strikes` of them in a row that made less room than `percent` of what the account
 * holds, the next one is refused although it would fit (overhead_refusals), until one makes more.
 * percent 0 switches that off. An account begins with 5 and 8. */
ZMALLOC_API void zaccount_set_overhead(zaccount *a, unsigned percent, unsigned strikes);

/* Fault injection: the next n growing requests are let through, the `repeat` after them are refused (any
 * number below 0: all that follow), then all are let through again. A growing request is one that charges bytes
 * to this account or to a child of it, from whatever thread: each is counted once, also where a cap refuses it
 * then, and so is each second try of a caller that collects its garbage and asks again. A refusal on request
 * changes nothing but refusals and last_refused, of this account and, for a child's request, of the child: it sets
 * no limit_hit and opens no reserve.
 * A later call replaces an earlier one. n < 0 or repeat == 0: off, which costs nothing; until then each growth
 * takes a longer way. There is no error to tell. */
ZMALLOC_API void zaccount_fail_after(zaccount *a, int64_t n, int64_t repeat);

/* How many growing requests fault injection has let through, and how many it has refused, since it was switched
 * on last; also once it is off. Exact when no other thread is charging. */
ZMALLOC_API void zaccount_faults(const zaccount *a, uint64_t *passed, uint64_t *failed);

/* ---- scopes and guests --------------------------------------------------------------------- */

/* A cap and a peak of their own beside the account's, for a while: a block of a program, a request. The
 * memory is the caller's, from enter to leave, and so are limit and reserve (ZACCOUNT_UNLIMITED and 0 for
 * a scope that only measures). Of all caps the smallest limit is in force, and the smallest limit +
 * reserve. Scopes need not end in the order in which they began. */
struct zaccount_scope {
    size_t limit, reserve; /* set by the caller before zaccount_enter() */
    size_t peak;           /* the most that was used since then: as of zaccount_scope_peak() or _leave();
                            * where other threads charge, but for a maximum that is just ending */
    struct zaccount_scope *next; /* the account's */
};
ZMALLOC_API void zaccount_enter(zaccount *a, struct zaccount_scope *scope);
ZMALLOC_API void zaccount_leave(zaccount *a, struct zaccount_scope *scope);
ZMALLOC_API size_t zaccount_scope_peak(zaccount *a, struct zaccount_scope *scope);

/* The guest of an account is the code that runs on it: the script, where the owner is the host. It has
 * a limit, a seal and a peak of its own, by which it can lower the marks in force but never raise the
 * owner's, and begin its peak anew but not the owner's.
 * guest_limit: 0, or -1 under the guest's seal when a mark would rise. */
ZMALLOC_API int zaccount_guest_limit(zaccount *a, size_t limit, size_t reserve);
ZMALLOC_API void zaccount_guest_seal(zaccount *a);
ZMALLOC_API size_t zaccount_guest_peak(zaccount *a);
ZMALLOC_API void zaccount_guest_reset_peak(zaccount *a);

#ifdef __cplusplus
}
#endif
#endif
