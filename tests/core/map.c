/* map.c - the size map under threads: leaves that several threads reach for at once, neighbours in one
 * leaf, and blocks that change hands. */
#include "check.h"
#include "zmap.h"

static zmap map;

enum { REGIONS = 64, GRANULES = 4096, GRANULE = 16 };

/* Made-up addresses: the map never looks behind one. Each region begins in the last granules of a
 * leaf, and a new leaf comes with each. */
static const void *at(size_t region, size_t granule)
{
    const uint64_t leaf = (region + 1) << ZMAP_LEAF_BITS;
    return (const void *)(uintptr_t)(0x7000000000u + leaf - 128 * GRANULE + granule * GRANULE);
}

/* All threads reach for the same new leaves at the same time and must get the same bytes. */
static zmap_byte *_Atomic first[REGIONS];

static void reach(int number, uint64_t *seed)
{
    (void)seed, (void)number;
    for (size_t r = 0; r < REGIONS; r++) {
        zmap_byte *byte = zmap_reach(&map, at(r, 0)), *other = NULL;
        if (!atomic_compare_exchange_strong(&first[r], &other, byte))
            CHECK(other == byte, "a leaf is mapped once");
        CHECK(byte && zmap_find(&map, at(r, 0)) == byte, "what was reached is found");
    }
}

/* Thread i owns the granules of every REGION whose hundreds are i modulo THREADS. */
static size_t size_for(uint64_t *seed, size_t room)
{
    return below(seed, 3) ? below(seed, 250) : 250 + below(seed, room - 250);
}

static void own(int number, uint64_t *seed)
{
    enum { ROOM = 40, SLOTS = GRANULES / ROOM / THREADS };
    size_t size[REGIONS][SLOTS];
    memset(size, 0xff, sizeof size);
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 64 || check_now() < end; i++) {
        const size_t r = below(seed, REGIONS), s = below(seed, SLOTS);
        const void *p = at(r, (s * THREADS + (size_t)number) * ROOM);
        zmap_byte *byte = zmap_reach(&map, p);
        const unsigned code = zmap_code(byte);
        if (size[r][s] == SIZE_MAX) {
            CHECK(code == 0, "what was cleared is nobody's");
            zmap_set(byte, size[r][s] = size_for(seed, ROOM * GRANULE));
        } else {
            CHECK(zmap_size(byte, code) == size[r][s], "what was set is there");
            zmap_clear(byte, code);
            size[r][s] = SIZE_MAX;
        }
    }
    for (size_t r = 0; r < REGIONS; r++)
        for (size_t s = 0; s < SLOTS; s++) {
            zmap_byte *byte = zmap_find(&map, at(r, (s * THREADS + (size_t)number) * ROOM));
            if (size[r][s] != SIZE_MAX)
                zmap_clear(byte, zmap_code(byte));
        }
}

/* Blocks as an allocator hands them on: set by one thread, read and cleared by another. */
enum { HANDS = 128 };

static const void *_Atomic hand[HANDS];

static void pass_on(int number, uint64_t *seed)
{
    const void *mine[4];
    for (size_t i = 0; i < 4; i++)
        mine[i] = at((size_t)number, 200 + i * 40);
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 64 || check_now() < end; i++) {
        const size_t which = below(seed, 4);
        const void *p = mine[which];
        if (p) {
            zmap_byte *byte = zmap_reach(&map, p);
            CHECK(zmap_code(byte) == 0, "a free block is nobody's");
            zmap_set(byte, size_for(seed, 640) ^ 1);
        }
        p = atomic_exchange(&hand[below(seed, HANDS)], p);
        if (p) {
            zmap_byte *byte = zmap_find(&map, p);
            const unsigned code = zmap_code(byte);
            CHECK(code != 0 && zmap_size(byte, code) < 641, "a block is somebody's");
            zmap_clear(byte, code);
        }
        mine[which] = p;
    }
}

int main(int argc, char **argv)
{
    check_arguments(argc, argv);
    struct zmap_figures f;
    together(THREADS, reach);
    zmap_sum(&map, &f);
    CHECK(f.leaves == REGIONS && f.blocks == 0, "as many leaves as were reached for");
    together(THREADS, own);
    zmap_sum(&map, &f);
    CHECK(f.bytes == 0 && f.blocks == 0 && f.spans == 0, "nothing is left in the map");
    together(THREADS, pass_on);
    size_t blocks = 0;
    for (size_t i = 0; i < HANDS; i++)
        blocks += hand[i] != NULL;
    zmap_sum(&map, &f);
    CHECK(f.blocks == blocks && blocks > 0, "the map holds what the threads left");
    zmap_forget(&map);
    zmap_sum(&map, &f);
    CHECK(f.bytes == 0 && f.blocks == 0, "forgotten");
    return check_report();
}
