/* zmap.h - the out-of-band size map: which blocks are ours, and how large each was asked for.
 *
 * For an owner who has to wrap a foreign allocator and is not told a block's size when it is freed.
 * Nothing stands in front of the block: one byte of map stands for each 16 bytes of address space,
 * in a table of levels whose leaves are mapped when they are first needed. Only touched pages cost,
 * at most a sixteenth of the heap that is in use.
 *
 * What the byte of a block's first 16 bytes says:
 *
 *     0         not ours (free, or somebody else's)
 *     1..250    ours, size = byte - 1
 *     251,252   reserved
 *     253       a tag: ours, the size is known to whoever frees it (zmap_set_tag)
 *     254       a span: as 255, of the owner's second kind
 *     255       ours, the size stands in the next 8 bytes of map, which must be the block's own: such
 *               a block has 250 bytes or more, or its owner knows that it has room for 144
 *
 * Caveats:
 *  - Blocks must be aligned to 16 bytes and must not overlap. Any address may be asked about.
 *  - Addresses from 2^48 on have no leaf: nothing can be set there, and reading gives "not ours".
 *  - Lock-free. A byte belongs to the one live block that begins there, so: set it after the
 *    allocator has given the block, clear it BEFORE the block goes back.
 *  - zmap_sum() and zmap_forget() want the map at rest. While others set and clear, a sum may be wrong;
 *    zmap_forget() may then take out what it should not. */
#ifndef ZMAP_H
#define ZMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "zport.h"

enum {
    ZMAP_GRANULE_BITS = 4,
    ZMAP_LEAF_BITS = 24, /* address bits of a leaf: 16 MiB, 1 MiB of map */
    ZMAP_MID_BITS = 12,
    ZMAP_ROOT_BITS = 12,
    ZMAP_ADDRESS_BITS = ZMAP_LEAF_BITS + ZMAP_MID_BITS + ZMAP_ROOT_BITS, /* 48 */
    ZMAP_SMALL_MAX = 249, /* the largest size that fits into the byte */
    ZMAP_TAG = 253,
    ZMAP_SPAN = 254,
    ZMAP_LONG = 255
};

#if defined(__GNUC__)
#define ZMAP_LIKELY(x) __builtin_expect(!!(x), 1)
#else
#define ZMAP_LIKELY(x) (x)
#endif

#define ZMAP_LEAF_BYTES ((size_t)1 << (ZMAP_LEAF_BITS - ZMAP_GRANULE_BITS))

typedef _Atomic(unsigned char) zmap_byte;

/* The padding takes the size of a block that begins in the last granules. */
struct zmap_leaf {
    zmap_byte byte[ZMAP_LEAF_BYTES + sizeof(uint64_t)];
};

struct zmap_mid {
    struct zmap_leaf *_Atomic leaf[1 << ZMAP_MID_BITS];
};

/* All zero is an empty map, so static storage needs no initialiser. */
typedef struct zmap {
    struct zmap_mid *_Atomic mid[1 << ZMAP_ROOT_BITS];
} zmap;

struct zmap_figures {
    size_t bytes;  /* of the blocks, without spans and tags */
    size_t blocks;
    size_t spans;  /* bytes of the spans */
    size_t leaves; /* leaves mapped: what the map itself may cost is a megabyte each */
};

/* The byte of the block at p, or NULL where no leaf has been mapped: nothing there is ours. */
static inline zmap_byte *zmap_find(const zmap *m, const void *p)
{
    const uint64_t address = (uint64_t)(uintptr_t)p;
    const uint64_t root = address >> (ZMAP_LEAF_BITS + ZMAP_MID_BITS);
    if (root >> ZMAP_ROOT_BITS)
        return NULL;
    struct zmap_mid *mid = atomic_load_explicit(&m->mid[root], memory_order_acquire);
    if (!mid)
        return NULL;
    const size_t at = (size_t)(address >> ZMAP_LEAF_BITS) & ((1 << ZMAP_MID_BITS) - 1);
    struct zmap_leaf *leaf = atomic_load_explicit(&mid->leaf[at], memory_order_acquire);
    if (!leaf)
        return NULL;
    return &leaf->byte[(address >> ZMAP_GRANULE_BITS) & (ZMAP_LEAF_BYTES - 1)];
}

/* The same, mapping a leaf if there is none: NULL when the system gives no memory for it, and for
 * addresses that have no leaf. Never through malloc. */
ZPORT_HIDDEN zmap_byte *zmap_reach(zmap *m, const void *p);

/* The byte's code, 0 for NULL. */
static inline unsigned zmap_code(const zmap_byte *at)
{
    return at ? atomic_load_explicit(at, memory_order_acquire) : 0;
}

/* The size behind a code that zmap_code() gave for `at`; 0 for a tag. */
static inline size_t zmap_size(const zmap_byte *at, unsigned code)
{
    if (ZMAP_LIKELY(code <= ZMAP_SMALL_MAX + 1))
        return code - (code != 0);
    if (code < ZMAP_SPAN)
        return 0;
    uint64_t size; /* the block's own bytes: only its owner writes them */
    memcpy(&size, (const unsigned char *)at + 1, sizeof size);
    return (size_t)size;
}

static inline void zmap_set_long(zmap_byte *at, size_t size, unsigned code)
{
    const uint64_t wide = size;
    memcpy((unsigned char *)at + 1, &wide, sizeof wide);
    atomic_store_explicit(at, (unsigned char)code, memory_order_release);
}

/* Enters a block of `size` bytes. */
static inline void zmap_set(zmap_byte *at, size_t size)
{
    if (ZMAP_LIKELY(size <= ZMAP_SMALL_MAX))
        atomic_store_explicit(at, (unsigned char)(size + 1), memory_order_release);
    else
        zmap_set_long(at, size, ZMAP_LONG);
}

/* Takes out what zmap_code() gave `code` for. */
static inline void zmap_clear(zmap_byte *at, unsigned code)
{
    atomic_store_explicit(at, 0, memory_order_release);
    if (!ZMAP_LIKELY(code < ZMAP_SPAN))
        memset((unsigned char *)at + 1, 0, sizeof(uint64_t));
}

/* Walks the whole map: the ground truth. */
ZPORT_HIDDEN void zmap_sum(const zmap *m, struct zmap_figures *out);

/* Takes out every block; spans and tags stay. */
ZPORT_HIDDEN void zmap_forget(zmap *m);

/* Gives the memory of the map back to the system that speaks of nothing but the n bytes at p: whole pages of it,
 * and those alone in which nothing is set. To be called while these bytes are still the caller's, so that nobody
 * else sets anything there: before a region of blocks goes back to where it came from. Returns bytes. */
ZPORT_HIDDEN size_t zmap_give_back(zmap *m, const void *p, size_t n);

#endif
