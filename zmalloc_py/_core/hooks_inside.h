/* hooks_inside.h - what hooks.c shares with install.c and figures.c: the map, the accounts' second halves, and
 * the allocators beneath. */
#ifndef ZMALLOC_HOOKS_INSIDE_H
#define ZMALLOC_HOOKS_INSIDE_H

#include "hooks.h"

/* The size of every block that is ours. */
extern zmap hooks_map;

/* What was found when the hooks went in, and what they call. Written before the hooks that read them
 * are put in. */
extern PyMemAllocatorEx hooks_original[3];
extern PyObjectArenaAllocator hooks_original_arena;

/* What is put in, with the ctx of what was found. */
extern const PyMemAllocatorEx hooks_ours[3];
extern const PyObjectArenaAllocator hooks_our_arena;

struct hook_state {
    bool installed;
    bool counts_arenas; /* mode `held`: in place of the blocks in them, see arenas.h */
    bool has_no_arenas;  /* for a moment: what is taken is taken one by one */
    bool held_is_used;
    bool many_gils; /* an interpreter has, or may have, a GIL of its own: see note_interpreter() */
    _Atomic int looks_at_thread; /* reasons why free cannot go by the map alone */
    void *chunk_caller; /* where frame chunks are asked for from */
    _Atomic uint64_t refusals[DOMAINS];
    _Atomic uint64_t untracked;
    _Atomic size_t arenas; /* bytes, of those that are charged to held_account */
    uint64_t reinstalled;
    size_t lost; /* bytes that stay charged since the hooks were put back under a cap */
};
extern struct hook_state hooks;

ZPORT_INLINE bool is_capped(const zaccount *a)
{
    return atomic_load_explicit(&a->limit, memory_order_relaxed) != ZACCOUNT_UNLIMITED;
}

void hooks_have_many_gils(bool many);

/* An allocator beside CPython's whose blocks count like those of RAW. Its free is told a size, and the map goes
 * by its own. The ctx is the caller's, handed on. With the GIL or without it. */
struct outside {
    void *(*malloc)(void *ctx, size_t n);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *p, size_t n);
    void (*free)(void *ctx, void *p, size_t n);
};
void *hooks_outside_allocate(const struct outside *from, void *ctx, size_t count, size_t size,
                             bool zeroed);
void *hooks_outside_resize(const struct outside *from, void *ctx, void *p, size_t n);
void hooks_outside_release(const struct outside *from, void *ctx, void *p, size_t n);

/* Which domains' hooks this thread reaches between the two, as bits. They count nothing then. */
void hooks_probe_begin(void);
unsigned hooks_probe_end(void);

/* The sums of all threads by domain; OBJ is what the account holds beyond the others. */
void figures_sum(struct sums out[DOMAINS]);

/* In a forked child: the counters from the map. */
void figures_recount(void);

#endif
