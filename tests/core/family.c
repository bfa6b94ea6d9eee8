/* family.c - zmalloc() and its family under threads: blocks change hands, contents are verified, and
 * in the end nothing is in use. */
#include "check.h"
#include "zmalloc.h"

enum { SLOTS = 256 };

struct block {
    size_t size;
    unsigned char bytes[];
};

static volatile size_t impossible = SIZE_MAX; /* the compiler must not see it coming */
static struct block *_Atomic slot[SLOTS];

static struct block *fill(struct block *b, size_t size)
{
    b->size = size;
    memset(b->bytes, (int)(size * 7 & 0xff), size - sizeof *b);
    return b;
}

static bool is_whole(const struct block *b, size_t size)
{
    for (size_t i = 0; i < size - sizeof *b; i++)
        if (b->bytes[i] != (unsigned char)(b->size * 7))
            return false;
    return true;
}

static struct block *make(uint64_t *seed)
{
    const size_t more = below(seed, 8) ? below(seed, 50) ? 600 : 200000 : 10;
    const size_t size = sizeof(struct block) + below(seed, more);
    size_t usable = 0;
    void *p = NULL;
    switch (below(seed, 4)) {
    case 0: p = zmalloc(size); break;
    case 1: p = zcalloc(size); break;
    case 2: p = ztrycalloc_num(1, size); break;
    default:
        p = ztrymalloc_usable(size, &usable);
        CHECK(usable == zmalloc_size(p), "the out-parameter is what is counted");
    }
    CHECK(p && zmalloc_size(p) >= size, "a block is counted at no less than was asked for");
    CHECK((uintptr_t)p % 16 == 0, "blocks are aligned");
    return fill(p, size);
}

static struct block *resize(struct block *b, uint64_t *seed)
{
    const size_t old = b->size, size = sizeof *b + below(seed, 3000);
    struct block *moved = below(seed, 2) ? zrealloc(b, size) : ztryrealloc(b, size);
    CHECK(moved->size == old && is_whole(moved, old < size ? old : size),
          "realloc keeps what was there");
    return fill(moved, size);
}

static void exchange(int number, uint64_t *seed)
{
    (void)number;
    const double end = check_now() + check_seconds;
    for (int i = 0; i % 64 || check_now() < end; i++) {
        struct block *mine = make(seed);
        if (below(seed, 3) == 0)
            mine = resize(mine, seed);
        if (below(seed, 50) == 0)
            CHECK(!ztryrealloc(mine, impossible - below(seed, 100)), "impossible sizes fail");
        CHECK(is_whole(mine, mine->size), "a block is whole");
        mine = atomic_exchange(&slot[below(seed, SLOTS)], mine);
        if (!mine)
            continue;
        CHECK(is_whole(mine, mine->size), "another thread's block is whole");
        if (below(seed, 4) == 0)
            CHECK(!zrealloc(mine, 0), "realloc to nothing frees");
        else
            zfree(mine);
    }
}

static void transfer(void)
{
    struct zaccount_figures before, after;
    zaccount_stats(zmalloc_account(), &before);
    const size_t total = zmalloc_total();
    together(THREADS, exchange);
    size_t held = 0;
    for (int i = 0; i < SLOTS; i++)
        held += zmalloc_size(slot[i]);
    CHECK(zmalloc_used_memory() == before.used + held, "use is what the blocks say");
    CHECK(zmalloc_peak_memory() >= zmalloc_used_memory(), "the peak is no less than use");
    for (int i = 0; i < SLOTS; i++)
        zfree(slot[i]);
    zaccount_stats(zmalloc_account(), &after);
    CHECK(after.used == before.used, "nothing is in use at the end");
    CHECK(zmalloc_total() == total, "nor in the total");
    CHECK(after.allocations - before.allocations == after.frees - before.frees,
          "as many blocks were freed as made");
}

/* Thread 0 resizes one block back and forth, the other one watches use. */
enum { SMALL = 1 << 20, LARGE = (1 << 20) + (1 << 18) };

static _Atomic bool stop;
static size_t dip_start;

static void dip_body(int number, uint64_t *seed)
{
    (void)seed;
    if (number == 0) {
        const double end = check_now() + check_seconds;
        void *p = zmalloc(SMALL);
        pthread_barrier_wait(&check_start);
        while (check_now() < end)
            p = zrealloc(zrealloc(p, LARGE), SMALL);
        stop = true;
        pthread_barrier_wait(&check_start);
        zfree(p);
        return;
    }
    pthread_barrier_wait(&check_start);
    while (!stop) {
        const size_t used = zmalloc_used_memory() - dip_start;
        CHECK(used >= SMALL, "use never dips while a block is resized");
        CHECK(used < 2 * SMALL, "a block is never counted twice");
    }
    pthread_barrier_wait(&check_start);
}

static void dip(void)
{
    dip_start = zmalloc_used_memory();
    zaccount_reset_peak(zmalloc_account());
    together(2, dip_body);
    CHECK(zmalloc_peak_memory() - dip_start < 2 * SMALL, "no peak that never was");
    CHECK(zmalloc_used_memory() == dip_start, "nothing is in use at the end");
}

int main(int argc, char **argv)
{
    check_arguments(argc, argv);
    if (check_wants(argc, argv, "transfer"))
        transfer();
    if (check_wants(argc, argv, "dip"))
        dip();
    return check_report();
}
