/* zmap.c - the leaves of the size map, and the walks over all of them.
 *
 * Invariant: a level, once in place, stays for the life of the process, so a pointer to a byte is
 * good for ever. */
#include "zmap.h"
#include "zport.h"

_Static_assert(sizeof(zmap_byte) == 1, "a map byte is a byte");

/* What *slot points to; if that is nothing, `size` zeroed bytes from the system. Two threads may
 * race: the loser gives its pages back. */
static void *reach_level(void *_Atomic *slot, size_t size)
{
    void *level = atomic_load_explicit(slot, memory_order_acquire);
    if (level)
        return level;
    void *fresh = zport_map(size);
    if (!fresh)
        return NULL;
    if (atomic_compare_exchange_strong_explicit(slot, &level, fresh, memory_order_acq_rel,
                                                memory_order_acquire))
        return fresh;
    zport_unmap(fresh, size);
    return level;
}

zmap_byte *zmap_reach(zmap *m, const void *p)
{
    const uint64_t address = (uint64_t)(uintptr_t)p;
    const uint64_t root = address >> (ZMAP_LEAF_BITS + ZMAP_MID_BITS);
    if (root >> ZMAP_ROOT_BITS)
        return NULL;
    struct zmap_mid *mid = reach_level((void *_Atomic *)&m->mid[root], sizeof(struct zmap_mid));
    if (!mid)
        return NULL;
    const size_t at = (size_t)(address >> ZMAP_LEAF_BITS) & ((1 << ZMAP_MID_BITS) - 1);
    if (!reach_level((void *_Atomic *)&mid->leaf[at], sizeof(struct zmap_leaf)))
        return NULL;
    return zmap_find(m, p);
}

/* ---- walking ----------------------------------------------------------------------------- */

/* The place of the next byte that is not 0 from `at` on, or `end`. A word at a time: most of a map is
 * empty. */
static size_t next_set(const struct zmap_leaf *leaf, size_t at, size_t end)
{
    const unsigned char *byte = (const unsigned char *)leaf->byte;
    while (at < end) {
        uint64_t word;
        memcpy(&word, byte + at, sizeof word); /* the padding keeps the last read inside */
        if (word == 0) {
            at += sizeof word;
            continue;
        }
        while (byte[at] == 0)
            at++;
        break;
    }
    return at < end ? at : end;
}

static void each_leaf(const zmap *m, void (*f)(struct zmap_leaf *leaf, void *ud), void *ud)
{
    for (size_t i = 0; i < (size_t)1 << ZMAP_ROOT_BITS; i++) {
        struct zmap_mid *mid = atomic_load_explicit(&m->mid[i], memory_order_acquire);
        for (size_t j = 0; mid && j < (size_t)1 << ZMAP_MID_BITS; j++) {
            struct zmap_leaf *leaf = atomic_load_explicit(&mid->leaf[j], memory_order_acquire);
            if (leaf)
                f(leaf, ud);
        }
    }
}

/* How many map bytes the entry with this code takes. */
static size_t entry_length(unsigned code)
{
    return code >= ZMAP_SPAN ? 1 + sizeof(uint64_t) : 1;
}

static void sum_leaf(struct zmap_leaf *leaf, void *ud)
{
    struct zmap_figures *sum = ud;
    sum->leaves++;
    for (size_t at = 0; (at = next_set(leaf, at, ZMAP_LEAF_BYTES)) < ZMAP_LEAF_BYTES;) {
        const unsigned code = zmap_code(&leaf->byte[at]);
        const size_t size = zmap_size(&leaf->byte[at], code);
        if (code == ZMAP_SPAN)
            sum->spans += size;
        else if (code != ZMAP_TAG) {
            sum->bytes += size;
            sum->blocks++;
        }
        at += entry_length(code);
    }
}

void zmap_sum(const zmap *m, struct zmap_figures *out)
{
    *out = (struct zmap_figures){0, 0, 0, 0};
    each_leaf(m, sum_leaf, out);
}

static void forget_leaf(struct zmap_leaf *leaf, void *ud)
{
    (void)ud;
    for (size_t at = 0; (at = next_set(leaf, at, ZMAP_LEAF_BYTES)) < ZMAP_LEAF_BYTES;) {
        const unsigned code = zmap_code(&leaf->byte[at]);
        if (code != ZMAP_TAG && code != ZMAP_SPAN)
            zmap_clear(&leaf->byte[at], code);
        at += entry_length(code);
    }
}

void zmap_forget(zmap *m)
{
    each_leaf(m, forget_leaf, NULL);
}

/* ---- giving back ------------------------------------------------------------------------- */

/* The whole pages between the two places of a leaf. */
static size_t give_back_of(struct zmap_leaf *leaf, size_t from, size_t to)
{
    const size_t page = zport_page_size(), end = to / page * page;
    size_t given = 0;
    for (size_t at = (from + page - 1) / page * page; at < end;) {
        const size_t set = next_set(leaf, at, end);
        const size_t clear = set / page * page; /* the page of what is set stays */
        if (clear > at && zport_discard((unsigned char *)leaf->byte + at, clear - at))
            given += clear - at;
        at = clear + page;
    }
    return given;
}

size_t zmap_give_back(zmap *m, const void *p, size_t n)
{
    const uint64_t end = (uint64_t)(uintptr_t)p + n, leaf_size = (uint64_t)1 << ZMAP_LEAF_BITS;
    size_t given = 0;
    for (uint64_t at = (uint64_t)(uintptr_t)p; at < end;) {
        const uint64_t base = at / leaf_size * leaf_size, next = base + leaf_size;
        const uint64_t to = end < next ? end : next;
        struct zmap_leaf *leaf = (struct zmap_leaf *)zmap_find(m, (const void *)(uintptr_t)base);
        if (leaf)
            given += give_back_of(leaf, (size_t)(at - base + 15) >> ZMAP_GRANULE_BITS,
                                  (size_t)(to - base) >> ZMAP_GRANULE_BITS);
        at = next;
    }
    return given;
}
