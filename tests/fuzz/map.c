/* map.c - fuzz target: the size map against a list of its entries, at the addresses where it could go
 * wrong: the borders of leaves and levels, nothing, the top of the address space.
 *
 * The map never looks behind an address, so they may be made up. What foreign code unmaps stays in the map
 * until its address comes again: then the owner takes out what stands there and enters the new block, as
 * the hooks do. */
#include <sys/mman.h>

#include "stream.h"
#include "zmap.h"

enum kind { BLOCK, TAG, SPAN };
enum { ENTRIES = 24, ROOM = 9, GRANULE = 1 << ZMAP_GRANULE_BITS };

struct entry {
    uint64_t address;
    size_t size;
    enum kind kind;
};

static zmap map;
static struct entry entry[ENTRIES];
static size_t entries;

static const void *pointer(uint64_t address)
{
    return (const void *)(uintptr_t)address;
}

/* A border, and some granules to its one side or the other. */
static uint64_t take_address(struct stream *s)
{
    static const uint64_t borders[] = {
        (uint64_t)1 << ZMAP_LEAF_BITS,         (uint64_t)5 << ZMAP_LEAF_BITS,
        (uint64_t)1 << (24 + ZMAP_MID_BITS),   ((uint64_t)1 << 47) - ((uint64_t)1 << ZMAP_LEAF_BITS),
        (uint64_t)1 << 47,                     (uint64_t)1 << ZMAP_ADDRESS_BITS,
        0x7fff00000000u,                       64 * GRANULE,
    };
    const uint64_t border = borders[take_below(s, sizeof borders / sizeof *borders)];
    return border + (uint64_t)GRANULE * take_below(s, 64) - 32 * GRANULE;
}

/* Bytes of map that an entry takes. */
static size_t length_of(const struct entry *e)
{
    return e->kind == SPAN || (e->kind == BLOCK && e->size > ZMAP_SMALL_MAX) ? ROOM : 1;
}

static struct entry *find(uint64_t address)
{
    for (size_t i = 0; i < entries; i++)
        if (entry[i].address == address)
            return &entry[i];
    return NULL;
}

/* Would an entry of this length overlap another one, but for one at the same address? */
static bool is_free(uint64_t address, size_t length)
{
    for (size_t i = 0; i < entries; i++) {
        const uint64_t end = entry[i].address + length_of(&entry[i]) * GRANULE;
        if (entry[i].address != address && address < end &&
            entry[i].address < address + length * GRANULE)
            return false;
    }
    return true;
}

static void forget(struct entry *e)
{
    *e = entry[--entries];
}

static void clear(struct entry *e)
{
    zmap_byte *at = zmap_find(&map, pointer(e->address));
    MUST(at);
    zmap_clear(at, zmap_code(at));
    for (size_t i = 0; i < length_of(e); i++)
        MUST(at[i] == 0);
    forget(e);
}

static void set(struct stream *s)
{
    struct entry fresh = {take_address(s), take(s), (enum kind)take_below(s, 3)};
    if (fresh.size == 255)
        fresh.size = (size_t)take_wide(s); /* huge ones, whose bytes look like codes */
    if (fresh.kind == TAG)
        fresh.size = 0;
    zmap_byte *at = zmap_reach(&map, pointer(fresh.address));
    MUST((at != NULL) == (fresh.address >> ZMAP_ADDRESS_BITS == 0));
    if (!at || !is_free(fresh.address, length_of(&fresh)))
        return;
    struct entry *stale = find(fresh.address);
    if (stale)
        clear(stale);
    if (entries == ENTRIES)
        return;
    if (fresh.kind == TAG)
        atomic_store(at, (unsigned char)ZMAP_TAG);
    else if (fresh.kind == SPAN)
        zmap_set_long(at, fresh.size, ZMAP_SPAN);
    else
        zmap_set(at, fresh.size);
    entry[entries++] = fresh;
}

/* A page that really is there, then is not, then is somebody else's: all the same to the map. */
static void unmap_under_it(struct stream *s)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(page != MAP_FAILED);
    zmap_byte *at = zmap_reach(&map, page);
    MUST(at && zmap_code(at) == 0);
    const size_t size = take(s) * 17u;
    zmap_set(at, size);
    munmap(page, 4096);
    MUST(zmap_size(zmap_find(&map, page), zmap_code(at)) == size);
    zmap_clear(at, zmap_code(at));
    MUST(zmap_code(zmap_find(&map, page)) == 0);
}

static void compare(bool sums)
{
    struct zmap_figures expected = {0, 0, 0, 0}, sum;
    for (size_t i = 0; i < entries; i++) {
        const zmap_byte *at = zmap_find(&map, pointer(entry[i].address));
        const unsigned code = zmap_code(at);
        MUST(at && code != 0 && (code == ZMAP_TAG) == (entry[i].kind == TAG));
        MUST((code == ZMAP_SPAN) == (entry[i].kind == SPAN));
        MUST(zmap_size(at, code) == entry[i].size);
        MUST(zmap_find(&map, pointer(entry[i].address + GRANULE - 1)) == at);
        expected.bytes += entry[i].kind == BLOCK ? entry[i].size : 0;
        expected.blocks += entry[i].kind == BLOCK;
        expected.spans += entry[i].kind == SPAN ? entry[i].size : 0;
    }
    if (!sums)
        return; /* it walks a megabyte for each leaf */
    zmap_sum(&map, &sum);
    MUST(sum.bytes == expected.bytes && sum.blocks == expected.blocks && sum.spans == expected.spans);
}

static void ask(struct stream *s)
{
    const uint64_t address = take_address(s);
    const zmap_byte *at = zmap_find(&map, pointer(address));
    if (address >> ZMAP_ADDRESS_BITS)
        MUST(!at && !zmap_reach(&map, pointer(address)));
    else if (!find(address) && is_free(address, 1))
        MUST(zmap_code(at) == 0 && zmap_size(at, 0) == 0);
    MUST(zmap_find(&map, pointer(~(uint64_t)take(s))) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stream s = {data, data + (size < 400 ? size : 400)};
    const bool sums = take_below(&s, 32) == 0;
    while (!is_over(&s)) {
        switch (take_below(&s, 16)) {
        case 0: case 1: case 2: case 3: case 4: case 5: case 6:
            set(&s);
            break;
        case 7: case 8: case 9: case 10:
            if (entries)
                clear(&entry[take_below(&s, entries)]);
            break;
        case 11:
            unmap_under_it(&s);
            break;
        case 12: case 13: case 14:
            ask(&s);
            break;
        default:
            if (!sums || take_below(&s, 8))
                break;
            zmap_forget(&map);
            for (size_t i = entries; i-- > 0;)
                if (entry[i].kind == BLOCK)
                    forget(&entry[i]);
            compare(sums);
        }
    }
    compare(sums);
    while (entries)
        clear(entry);
    return 0;
}
