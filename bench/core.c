/* core.c - takes and gives back blocks in one way. Prints the nanoseconds of CPU time that a pair of the two
 * takes, and the process's peak of resident memory in bytes.
 *
 *     core KIND SIZE LIVE THREADS ACCOUNTS DEPTH SCOPES PAIRS CHAINED
 *
 * KIND: loop      nothing is allocated: what this program itself takes
 *       malloc    the allocator underneath, called as it is
 *       zmalloc   the family
 *       account   zaccount_alloc(), with ACCOUNTS accounts for all threads
 *       single    the same with ACCOUNTS accounts of each thread's own, told so
 * LIVE blocks of SIZE bytes are there, an equal share for each thread. A pair: one of them, by chance, is
 * given back and another taken in its place. Each account has DEPTH - 1 others above it, the topmost in
 * common, and SCOPES open scopes. CHAINED 1: which block is next depends on what is in the one before, so
 * that a processor cannot work on two pairs at a time. */
#include "figures.h"
#include "zmalloc.h"
#include "zport.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum kind { LOOP, MALLOC, ZMALLOC, ACCOUNT, SINGLE };
static const char *const kinds[] = {"loop", "malloc", "zmalloc", "account", "single"};

static enum kind kind;
static size_t size, live, threads, accounts, depth, scopes, pairs;
static bool is_chained;
static char nothing;
static zaccount *top;
static pthread_barrier_t barrier;

struct worker {
    pthread_t thread;
    void **blocks;
    zaccount **accounts;
    size_t live, pairs;
    uint32_t random;
    double seconds;
};

static void fail(const char *what)
{
    fprintf(stderr, "core: %s\n", what);
    exit(1);
}

static void *must(void *p)
{
    if (!p)
        fail("no memory");
    return p;
}

static zaccount *account(void)
{
    zaccount *a = top;
    for (size_t i = top ? 1 : 0; i < depth; i++)
        a = must(zaccount_new("one", a));
    for (size_t i = 0; i < scopes; i++) {
        struct zaccount_scope *scope = must(calloc(1, sizeof *scope));
        scope->limit = (size_t)1 << 40;
        zaccount_enter(a, scope);
    }
    return a;
}

static zaccount **some_accounts(void)
{
    zaccount **all = must(calloc(accounts, sizeof *all));
    for (size_t i = 0; i < accounts; i++) {
        all[i] = account();
        if (kind == SINGLE)
            zaccount_set_single(all[i]);
    }
    return all;
}

ZPORT_INLINE void *take(enum kind k, zaccount *a)
{
    switch (k) {
    case LOOP: return &nothing;
    case MALLOC: return zport_malloc(size);
    case ZMALLOC: return zmalloc(size);
    default: return zaccount_alloc(a, NULL, 0, size);
    }
}

ZPORT_INLINE void give(enum kind k, zaccount *a, void *p)
{
    switch (k) {
    case LOOP: break;
    case MALLOC: zport_free(p); break;
    case ZMALLOC: zfree(p); break;
    default: zaccount_alloc(a, p, size, 0); break;
    }
}

/* Xorshift, Marsaglia's: the upper half of a product with it is a number below the other factor. */
ZPORT_INLINE size_t below(uint32_t *random, size_t n)
{
    uint32_t x = *random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    *random = x;
    return (size_t)(((uint64_t)x * n) >> 32);
}

ZPORT_INLINE void work(struct worker *w, enum kind k)
{
    /* the account of a block is told by its place */
    const uint64_t share = ((uint64_t)accounts << 32) / w->live;
    for (size_t i = 0; i < w->live; i++) {
        w->blocks[i] = must(take(k, w->accounts[(i * share) >> 32]));
        *(volatile char *)w->blocks[i] = 1;
    }
    pthread_barrier_wait(&barrier);
    const double start = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    uint32_t random = w->random;
    for (size_t i = 0; i < w->pairs; i++) {
        const size_t at = below(&random, w->live);
        zaccount *a = w->accounts[(at * share) >> 32];
        if (is_chained) /* the byte is 1, but only who has read it knows that */
            random += *(volatile unsigned char *)w->blocks[at] - 1u;
        give(k, a, w->blocks[at]);
        void *p = take(k, a);
        if (zport_unlikely(!p))
            fail("no memory");
        *(volatile char *)p = 1;
        w->blocks[at] = p;
    }
    w->seconds = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < w->live; i++)
        give(k, w->accounts[(i * share) >> 32], w->blocks[i]);
}

/* A loop for each kind, so that none chooses at each turn. */
static void *run(void *ud)
{
    struct worker *w = ud;
    switch (kind) {
    case LOOP: work(w, LOOP); break;
    case MALLOC: work(w, MALLOC); break;
    case ZMALLOC: work(w, ZMALLOC); break;
    case ACCOUNT: work(w, ACCOUNT); break;
    case SINGLE: work(w, SINGLE); break;
    }
    return NULL;
}

static size_t number(const char *word)
{
    return (size_t)strtoull(word, NULL, 10);
}

int main(int argc, char **argv)
{
    if (argc != 10) {
        fputs("usage: core KIND SIZE LIVE THREADS ACCOUNTS DEPTH SCOPES PAIRS CHAINED\n", stderr);
        return 2;
    }
    while (strcmp(kinds[kind], argv[1]) != 0)
        if (++kind == sizeof kinds / sizeof *kinds)
            fail("no such kind");
    size = number(argv[2]), live = number(argv[3]), threads = number(argv[4]);
    accounts = number(argv[5]), depth = number(argv[6]), scopes = number(argv[7]), pairs = number(argv[8]);
    is_chained = number(argv[9]) != 0;
    if (!size || !threads || !accounts || !depth || live / threads < accounts || live / threads > UINT32_MAX)
        fail("at least a byte, a thread, an account, and a block in each account and thread");
    top = depth > 1 ? must(zaccount_new("top", NULL)) : NULL;
    zaccount **shared = kind == SINGLE ? NULL : some_accounts();
    struct worker *all = must(calloc(threads, sizeof *all));
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (size_t i = 0; i < threads; i++) {
        struct worker *w = &all[i];
        *w = (struct worker){.live = live / threads, .pairs = pairs / threads,
                             .random = 2463534242u + (uint32_t)i};
        w->blocks = must(malloc(w->live * sizeof *w->blocks));
        w->accounts = shared ? shared : some_accounts();
        if (i && pthread_create(&w->thread, NULL, run, w))
            fail("no thread");
    }
    run(&all[0]);
    double seconds = all[0].seconds;
    for (size_t i = 1; i < threads; i++) {
        pthread_join(all[i].thread, NULL);
        seconds += all[i].seconds;
    }
    if (zmalloc_total() != 0)
        fail("something is left");
    printf("%.3f %llu\n", seconds * 1e9 / (double)(pairs / threads * threads), peak_resident());
    return 0;
}
