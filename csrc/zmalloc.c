/* zmalloc.c - the counted allocator of C programs.
 *
 * Invariants:
 *  - What is added to the count for a block is what zmalloc_size() says when it is freed.
 *  - One worker does each thing, `try_*`; the public functions are thin around it.
 *  - A block is uncharged before it is given back, so that a count is never short. */
#include "zmalloc.h"
#include "zcore.h"
#include "zport.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(HAVE_MALLOC_SIZE)
#define PREFIX_SIZE 0
#else
/* The size stands in front of the block. 16 bytes, so that the block keeps malloc's alignment. */
#define PREFIX_SIZE 16
_Static_assert(PREFIX_SIZE >= sizeof(size_t), "the prefix holds a size_t");
_Static_assert(PREFIX_SIZE % _Alignof(max_align_t) == 0, "the prefix keeps the alignment");
#endif

/* No object may be larger than half the address space; refusing there keeps every sum below in
 * range. */
#define MAX_SIZE (SIZE_MAX / 2 - PREFIX_SIZE)

/* ---- the block and what it is counted at ---------------------------------------------------- */

/* What is asked for: a block of 0 bytes has to be real, distinct and aligned. */
static size_t real_size(size_t size)
{
    return (size > ZPORT_LEAST_SIZE ? size : ZPORT_LEAST_SIZE) + PREFIX_SIZE;
}

#if defined(HAVE_MALLOC_SIZE)

static void *to_user(void *block, size_t size)
{
    (void)size;
    return block;
}

static void *to_block(void *p)
{
    return p;
}

static size_t counted_size(void *p)
{
    return zport_usable_size(p);
}

#else

static void *to_user(void *block, size_t size)
{
    memcpy(block, &size, sizeof size);
    return (char *)block + PREFIX_SIZE;
}

static void *to_block(void *p)
{
    return (char *)p - PREFIX_SIZE;
}

static size_t counted_size(void *p)
{
    size_t size;
    memcpy(&size, (char *)p - PREFIX_SIZE, sizeof size);
    return size + PREFIX_SIZE;
}

#endif

size_t zmalloc_size(const void *p)
{
    return p ? counted_size((void *)p) : 0;
}

size_t zmalloc_usable_size(const void *p)
{
    return p ? zmalloc_size(p) - PREFIX_SIZE : 0;
}

/* ---- counting ---------------------------------------------------------------------------- */

zaccount *zmalloc_account(void)
{
    return zcore_owner()->c_account();
}

/* One signed difference a call: a realloc makes no dip and no false peak. */
static void count(int64_t delta, int allocations, int frees)
{
    zaccount *a = zmalloc_account();
    a->core->count(a, delta, allocations, frees);
}

static void set_usable(size_t *usable, void *p)
{
    if (usable)
        *usable = p ? counted_size(p) : 0;
}

/* ---- the workers: NULL on failure, nothing changed ----------------------------------------- */

static void *finish(void *block, size_t size, size_t *usable)
{
    void *p = block ? to_user(block, size) : NULL;
    if (p)
        count((int64_t)counted_size(p), 1, 0);
    set_usable(usable, p);
    return p;
}

static void *try_malloc(size_t size, size_t *usable)
{
    return finish(size <= MAX_SIZE ? zport_malloc(real_size(size)) : NULL, size, usable);
}

static void *try_calloc(size_t count_of, size_t size, size_t *usable)
{
    size_t bytes;
    const bool fits = zport_mul(count_of, size, &bytes) && bytes <= MAX_SIZE;
    return finish(fits ? zport_calloc(1, real_size(bytes)) : NULL, fits ? bytes : 0, usable);
}

static void *try_realloc(void *p, size_t size, size_t *usable)
{
    if (!p)
        return try_malloc(size, usable);
    if (size == 0) {
        zfree(p);
        set_usable(usable, NULL);
        return NULL;
    }
    const int64_t before = (int64_t)counted_size(p);
    void *block = size <= MAX_SIZE ? zport_realloc(to_block(p), real_size(size)) : NULL;
    void *q = block ? to_user(block, size) : NULL;
    if (q)
        count((int64_t)counted_size(q) - before, 0, 0);
    set_usable(usable, q);
    return q;
}

/* ---- out of memory ----------------------------------------------------------------------- */

static void default_oom(size_t size)
{
    char line[96]; /* no allocation here: there is no memory */
    snprintf(line, sizeof line, "zmalloc: out of memory allocating %zu bytes\n", size);
    fputs(line, stderr);
    fflush(stderr);
    abort();
}

static void (*_Atomic oom_handler)(size_t size) = default_oom;

void zmalloc_set_oom_handler(void (*f)(size_t size))
{
    atomic_store(&oom_handler, f ? f : default_oom);
}

static void *checked(void *p, size_t size)
{
    if (!p)
        atomic_load(&oom_handler)(size);
    return p;
}

/* ---- the family -------------------------------------------------------------------------- */

void *ztrymalloc(size_t size)
{
    return try_malloc(size, NULL);
}

void *ztrymalloc_usable(size_t size, size_t *usable)
{
    return try_malloc(size, usable);
}

void *ztrycalloc(size_t size)
{
    return try_calloc(1, size, NULL);
}

void *ztrycalloc_usable(size_t size, size_t *usable)
{
    return try_calloc(1, size, usable);
}

void *ztrycalloc_num(size_t count_of, size_t size)
{
    return try_calloc(count_of, size, NULL);
}

void *ztryrealloc(void *p, size_t size)
{
    return try_realloc(p, size, NULL);
}

void *ztryrealloc_usable(void *p, size_t size, size_t *usable)
{
    return try_realloc(p, size, usable);
}

void *zmalloc(size_t size)
{
    return checked(try_malloc(size, NULL), size);
}

void *zmalloc_usable(size_t size, size_t *usable)
{
    return checked(try_malloc(size, usable), size);
}

void *zcalloc(size_t size)
{
    return checked(try_calloc(1, size, NULL), size);
}

void *zcalloc_usable(size_t size, size_t *usable)
{
    return checked(try_calloc(1, size, usable), size);
}

void *zcalloc_num(size_t count_of, size_t size)
{
    size_t bytes; /* what the handler is told: SIZE_MAX stands for a product that has no size */
    if (!zport_mul(count_of, size, &bytes))
        bytes = SIZE_MAX;
    return checked(try_calloc(count_of, size, NULL), bytes);
}

void *zrealloc_usable(void *p, size_t size, size_t *usable)
{
    void *q = try_realloc(p, size, usable);
    return p && size == 0 ? q : checked(q, size);
}

void *zrealloc(void *p, size_t size)
{
    return zrealloc_usable(p, size, NULL);
}

void zfree_usable(void *p, size_t *usable)
{
    const size_t size = zmalloc_size(p);
    if (usable)
        *usable = size;
    if (!p)
        return;
    count(-(int64_t)size, 0, 1);
    zport_free(to_block(p));
}

void zfree(void *p)
{
    zfree_usable(p, NULL);
}

char *zstrdup(const char *s)
{
    const size_t size = strlen(s) + 1;
    char *copy = zmalloc(size);
    return copy ? memcpy(copy, s, size) : NULL;
}

/* ---- figures ----------------------------------------------------------------------------- */

size_t zmalloc_used_memory(void)
{
    return zaccount_used(zmalloc_account());
}

size_t zmalloc_peak_memory(void)
{
    return zaccount_peak(zmalloc_account());
}

size_t zmalloc_get_rss(void)
{
    return zport_rss();
}

size_t zmalloc_get_memory_size(void)
{
    return zport_memory_size();
}

size_t zmalloc_get_smap_bytes_by_field(const char *field, long pid)
{
    return zport_smaps_field(field, pid);
}

size_t zmalloc_get_private_dirty(long pid)
{
    return zport_smaps_field("Private_Dirty:", pid);
}

const char *zmalloc_version(void)
{
    return ZMALLOC_VERSION;
}

const char *zmalloc_backend(void)
{
    return ZPORT_BACKEND;
}
