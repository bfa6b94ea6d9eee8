/* figures.c - the counters of the hooks added up, and held against the map. */
#define PY_SSIZE_T_CLEAN
#include "arenas.h"
#include "hooks.h"
#include "hooks_inside.h"

/* What the account holds beside the blocks that the hooks know. Children are accounts that other
 * modules have made below Python's. */
static size_t others(void)
{
    return hooks.lost + zaccount_below(&python_account);
}

void figures_sum(struct sums out[DOMAINS])
{
    threads_sum(out, zaccount_used(&python_account) - others());
}

/* The arenas that count themselves, mode `held`, by the list of them. */
static size_t arenas(void)
{
    return hooks.counts_arenas ? arenas_count() * ARENA_SIZE : 0;
}

void hooks_audit(struct audit *out)
{
    struct zmap_figures found;
    out->counted = zaccount_used(&python_account) - others();
    zmap_sum(&hooks_map, &found);
    out->used = found.bytes + found.spans + arenas();
    out->stack = found.spans;
    out->blocks = found.blocks + arenas() / ARENA_SIZE;
}

void hooks_figures(struct hook_figures *out)
{
    figures_sum(out->domain);
    for (int d = 0; d < DOMAINS; d++)
        out->refusals[d] = atomic_load_explicit(&hooks.refusals[d], memory_order_relaxed);
    out->untracked = atomic_load_explicit(&hooks.untracked, memory_order_relaxed);
    out->reinstalled = hooks.reinstalled;
    out->lost = hooks.lost;
}

/* Other threads of the parent may have been between a charge and a mark. RAW is what may be called
 * without the GIL, so that is whose it was. */
void figures_recount(void)
{
    struct zmap_figures found;
    struct sums sum[DOMAINS];
    zmap_sum(&hooks_map, &found);
    figures_sum(sum);
    const int64_t blocks = sum[RAW].used + sum[MEM].used + sum[OBJ].used;
    threads_adjust(RAW, (int64_t)(found.bytes + arenas()) - blocks);
    threads_adjust(STACK, (int64_t)found.spans - sum[STACK].used);
    atomic_store(&python_account.used, found.bytes + found.spans + arenas() + others());
}
