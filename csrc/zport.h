/* zport.h - everything that differs between platforms: the allocator underneath, pages, locks,
 * fork, the figures that the system keeps, and the symbols of the loaded objects.
 *
 * Internal to the core. Linux is measured; the macOS, FreeBSD and Windows branches are written
 * from their documentation and UNTESTED. No other file of the core has a platform #ifdef. */
#ifndef ZPORT_H
#define ZPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Declarations between the two are no part of a shared object's interface, whatever flags it is built with:
 * the internals of two copies must not take each other's place. */
#if defined(__GNUC__) && !defined(_WIN32)
#define ZPORT_PRIVATE_BEGIN _Pragma("GCC visibility push(hidden)")
#define ZPORT_PRIVATE_END _Pragma("GCC visibility pop")
#else
#define ZPORT_PRIVATE_BEGIN
#define ZPORT_PRIVATE_END
#endif

/* ---- the allocator underneath, chosen at build time -------------------------------------- */

#if defined(ZMALLOC_USE_JEMALLOC)
#define JEMALLOC_NO_DEMANGLE /* keep its je_ names, which stand for whatever this build calls them */
#include <jemalloc/jemalloc.h>
#define ZPORT_BACKEND "jemalloc"
#define zport_malloc je_malloc
#define zport_calloc je_calloc
#define zport_realloc je_realloc
#define zport_free je_free
#define ZPORT_RAW_SIZE(p) je_malloc_usable_size(p)
#define ZPORT_LEAST_SIZE 16
#elif defined(ZMALLOC_USE_MIMALLOC)
#include <mimalloc.h>
#define ZPORT_BACKEND "mimalloc"
#define zport_malloc mi_malloc
#define zport_calloc mi_calloc
#define zport_realloc mi_realloc
#define zport_free mi_free
#define ZPORT_RAW_SIZE(p) mi_usable_size(p)
#define ZPORT_LEAST_SIZE 16
#else
#define ZPORT_BACKEND "libc"
#define zport_malloc malloc
#define zport_calloc calloc
#define zport_realloc realloc
#define zport_free free
#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#define ZPORT_RAW_SIZE(p) malloc_usable_size(p)
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#define ZPORT_RAW_SIZE(p) malloc_size(p)
#elif defined(__FreeBSD__)
#include <malloc_np.h>
#define ZPORT_RAW_SIZE(p) malloc_usable_size(p)
#elif defined(_WIN32)
#include <malloc.h>
#define ZPORT_RAW_SIZE(p) _msize(p)
#endif
#endif

/* What to ask for at least: a block of 1 is real and distinct, and where malloc aligns it to 8 only, as
 * jemalloc and mimalloc do, one of 16 is aligned to 16. */
#if !defined(ZPORT_LEAST_SIZE)
#define ZPORT_LEAST_SIZE 1
#endif

/* HAVE_MALLOC_SIZE: the allocator can tell a block's usable size. NO_MALLOC_USABLE_SIZE forces
 * the prefix, so that both modes can be tested wherever the first exists. */
#if defined(ZPORT_RAW_SIZE) && !defined(NO_MALLOC_USABLE_SIZE)
#define HAVE_MALLOC_SIZE 1
#define zport_usable_size(p) ZPORT_RAW_SIZE(p)
#endif

/* ---- pages ------------------------------------------------------------------------------- */

ZPORT_PRIVATE_BEGIN

/* n bytes of zeroed memory straight from the system, touched pages only are paid for; NULL on
 * failure. Never through malloc, so it may be called inside an allocator. */
void *zport_map(size_t n);
void zport_unmap(void *p, size_t n);
/* What a page of those is, in bytes; and gives the memory of whole ones back: they read as zero again. False where
 * the system has no such call. */
size_t zport_page_size(void);
bool zport_discard(void *p, size_t n);

ZPORT_PRIVATE_END

/* ---- threads ---------------------------------------------------------------------------- */

/* Has the process one thread? Then nothing that it does can be seen half done, and a plain addition is as good as
 * a locked one, which costs some 20 cycles. glibc clears the flag before a second thread exists, and documents it
 * for this use. False where the system does not tell. */
#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#define zport_is_alone() (__libc_single_threaded != 0)
#endif
#endif
#if !defined(zport_is_alone)
#define zport_is_alone() false
#endif

/* ---- locks, fork ------------------------------------------------------------------------- */

#if defined(_WIN32)
typedef struct { void *srw; } zport_mutex; /* an SRWLOCK, which is one pointer */
#define ZPORT_MUTEX_INIT {0}
#else
#include <pthread.h>
typedef pthread_mutex_t zport_mutex;
#define ZPORT_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#endif

ZPORT_PRIVATE_BEGIN

void zport_lock(zport_mutex *m);
void zport_unlock(zport_mutex *m);
bool zport_try_lock(zport_mutex *m); /* false: another has it, and nothing was waited for */

/* Does the thread that called main(), or fork(), run this? True where the system does not tell. */
bool zport_is_main_thread(void);

/* The three handlers run around each fork() of this process, as pthread_atfork's do. */
void zport_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

/* ---- what the system says, in bytes; 0 where it does not tell ------------------------------ */

size_t zport_rss(void);
size_t zport_memory_size(void);
/* The same, with `root` put before "/proc" and "/sys": for tests with a made-up tree. */
size_t zport_memory_size_at(const char *root);
size_t zport_smaps_field(const char *field, long pid);

/* ---- loaded objects ---------------------------------------------------------------------- */

/* Calls visit(address, ud) for each loaded object that exports the data symbol `name`, in load
 * order, until one call returns true. Takes no lock of ours while it calls. */
void zport_each_symbol(const char *name, bool (*visit)(void *address, void *ud), void *ud);
/* Keeps the object that holds this address mapped until the process ends. */
void zport_pin(const void *address);
/* The file of the object that holds this address, or NULL. */
const char *zport_object_name(const void *address);

ZPORT_PRIVATE_END

/* Runs before main() and before the library's dlopen() returns. */
#if defined(__GNUC__)
#define ZPORT_CONSTRUCTOR(f) static void __attribute__((constructor(101))) f(void)
#define ZPORT_HIDDEN __attribute__((visibility("hidden")))
/* Not cold: gcc then takes a path from which such calls branch off for cold as well, and compiles it for size. */
#define ZPORT_NOINLINE __attribute__((noinline))
#define ZPORT_OUTLINE __attribute__((noinline))
#define ZPORT_INLINE static inline __attribute__((always_inline))
#define zport_likely(x) __builtin_expect(!!(x), 1)
#define zport_unlikely(x) __builtin_expect(!!(x), 0)
#else
#define ZPORT_HIDDEN
#define ZPORT_NOINLINE
#define ZPORT_OUTLINE
#define ZPORT_INLINE static inline
#define zport_likely(x) (x)
#define zport_unlikely(x) (x)
#endif

/* A counter of which one thread at a time is the writer, and any thread a reader. */
#if defined(__GNUC__) && defined(__x86_64__)
#define zport_bump(counter) __asm__("addq $1, %0" : "+m"(*(counter)) : : "cc")
#else
#define zport_bump(counter)                                                                       \
    atomic_store_explicit((counter), atomic_load_explicit((counter), memory_order_relaxed) + 1,   \
                          memory_order_relaxed)
#endif

/* ---- sizes ------------------------------------------------------------------------------- */

/* *sum = a + b, or false and nothing written when it does not fit. */
static inline bool zport_add(size_t a, size_t b, size_t *sum)
{
    if (a > SIZE_MAX - b)
        return false;
    *sum = a + b;
    return true;
}

/* *product = a * b, or false and nothing written when it does not fit. */
static inline bool zport_mul(size_t a, size_t b, size_t *product)
{
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *product = a * b;
    return true;
}

#endif
