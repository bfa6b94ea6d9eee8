/* zmalloc.h - malloc that keeps the total.
 *
 * zmalloc(), zcalloc(), zrealloc() and zfree() are the C library's functions with a counter: how
 * many bytes the program holds through them is known at each instant, exactly, on every libc.
 *
 * Caveats first:
 *  - What zmalloc() gave must go back through zfree(), and nothing else may go there.
 *  - A block is counted at the size that can be proved again when it is freed. Where the allocator
 *    tells a block's usable size (HAVE_MALLOC_SIZE) that is the usable size; elsewhere, or with
 *    -DNO_MALLOC_USABLE_SIZE, it is the requested size plus a 16-byte prefix in front of the block.
 *    Either way zmalloc_size() says what was counted.
 *  - Writing beyond the requested size is undefined, whatever the *_usable functions report: the
 *    figure is for accounting. (Compilers and _FORTIFY_SOURCE=3 check the requested size.)
 *  - The family is counted, not capped: its counted size is known only after the fact. Caps are
 *    for accounts: see zaccount.h.
 *  - Blocks are aligned for any standard type, 16 bytes on 64-bit machines, in both modes.
 *
 * Thread-safety: every function may be called from any thread. A failed call changes nothing. */
#ifndef ZMALLOC_H
#define ZMALLOC_H

#include "zaccount.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ZMALLOC_VERSION "0.1.0"

/* The version of the library that is running; ZMALLOC_VERSION is the one compiled against. */
ZMALLOC_API const char *zmalloc_version(void);

/* "libc", "jemalloc" or "mimalloc": what lies underneath, chosen when the library was built. */
ZMALLOC_API const char *zmalloc_backend(void);

#if defined(__GNUC__)
#define ZMALLOC_ALLOC_SIZE(...) __attribute__((alloc_size(__VA_ARGS__), warn_unused_result))
#define ZMALLOC_NEW __attribute__((malloc))
#else
#define ZMALLOC_ALLOC_SIZE(...)
#define ZMALLOC_NEW
#endif

/* ---- allocating -------------------------------------------------------------------------- */

/* size bytes, not initialised. size 0 gives a real block, distinct from every other. When there is no
 * memory, the out-of-memory handler runs with the size (by default it prints one line to stderr and
 * aborts); if it returns, the result is NULL. A size near SIZE_MAX, which no arithmetic could carry,
 * is such a failure too. */
ZMALLOC_API void *zmalloc(size_t size) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);

/* The same, zeroed. */
ZMALLOC_API void *zcalloc(size_t size) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);

/* count * size bytes, zeroed. A product that overflows is a failure; (n, 0) and (0, n) give a real,
 * distinct block. */
ZMALLOC_API void *zcalloc_num(size_t count, size_t size) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1, 2);

/* Cases:
 *   (NULL, n)   zmalloc(n)
 *   (p, 0)      frees p and returns NULL, which is no failure
 *   (p, n)      p's first bytes in a block of n bytes, perhaps elsewhere. On failure p is alive,
 *               untouched and counted, the handler runs, and if it returns the result is NULL.
 * Use is changed by one signed difference: no dip, and no peak that never was. */
ZMALLOC_API void *zrealloc(void *p, size_t size) ZMALLOC_ALLOC_SIZE(2);

/* Gives p back. NULL is allowed. */
ZMALLOC_API void zfree(void *p);

/* A copy of the string, or NULL if the handler returned. */
ZMALLOC_API char *zstrdup(const char *s) ZMALLOC_NEW;

/* The same without the handler: NULL on failure, nothing changed. */
ZMALLOC_API void *ztrymalloc(size_t size) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);
ZMALLOC_API void *ztrycalloc(size_t size) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);
ZMALLOC_API void *ztrycalloc_num(size_t count, size_t size) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1, 2);
ZMALLOC_API void *ztryrealloc(void *p, size_t size) ZMALLOC_ALLOC_SIZE(2);

/* The same, and *usable (if usable is not NULL) is set on every way out: to what was counted for
 * the block that is returned, zmalloc_size() of it, or to 0 with NULL. */
ZMALLOC_API void *zmalloc_usable(size_t size, size_t *usable) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);
ZMALLOC_API void *zcalloc_usable(size_t size, size_t *usable) ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);
ZMALLOC_API void *zrealloc_usable(void *p, size_t size, size_t *usable) ZMALLOC_ALLOC_SIZE(2);
ZMALLOC_API void *ztrymalloc_usable(size_t size, size_t *usable)
    ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);
ZMALLOC_API void *ztrycalloc_usable(size_t size, size_t *usable)
    ZMALLOC_NEW ZMALLOC_ALLOC_SIZE(1);
ZMALLOC_API void *ztryrealloc_usable(void *p, size_t size, size_t *usable) ZMALLOC_ALLOC_SIZE(2);

/* zfree(), and *usable (if not NULL) is what stops being counted; 0 for NULL. */
ZMALLOC_API void zfree_usable(void *p, size_t *usable);

/* What a block is counted at: its usable size, or its size and prefix. 0 for NULL. */
ZMALLOC_API size_t zmalloc_size(const void *p);

/* What the allocator set aside for the caller: zmalloc_size() without the prefix. 0 for NULL. */
ZMALLOC_API size_t zmalloc_usable_size(const void *p);

/* f(size) runs when zmalloc(), zcalloc(), zrealloc() or zstrdup() find no memory. NULL brings the
 * default back. f may abort, jump away or return. */
ZMALLOC_API void zmalloc_set_oom_handler(void (*f)(size_t size));

/* ---- figures ----------------------------------------------------------------------------- */

/* What the family holds in this process, and the most it ever held, in bytes as counted. */
ZMALLOC_API size_t zmalloc_used_memory(void);
ZMALLOC_API size_t zmalloc_peak_memory(void);

/* The family's account: its counts of blocks, its name in a report. A cap set on it has no effect. */
ZMALLOC_API zaccount *zmalloc_account(void);

/* ---- the system's figures, in bytes; 0 where the system does not tell --------------------- */

/* Resident memory of this process. */
ZMALLOC_API size_t zmalloc_get_rss(void);

/* The memory there is to use: the machine's, or the smallest limit of the control groups (cgroup v1
 * and v2) that this process is in, whichever is less. */
ZMALLOC_API size_t zmalloc_get_memory_size(void);

/* The sum of one field of /proc/PID/smaps, given as it stands there with its colon, "Rss:"; pid -1
 * is this process. Can take a while in a process with many mappings. */
ZMALLOC_API size_t zmalloc_get_smap_bytes_by_field(const char *field, long pid);

/* What would have to be written out if the process were to go: "Private_Dirty:". pid -1: this one. */
ZMALLOC_API size_t zmalloc_get_private_dirty(long pid);

#ifdef __cplusplus
}
#endif
#endif
