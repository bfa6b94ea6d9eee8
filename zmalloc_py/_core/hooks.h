/* hooks.h - the allocator hooks: every block that CPython takes through PyMem goes by here.
 *
 * The hooks wrap the allocators they find and never replace them (after Py_Initialize CPython demands
 * that), so being thrown out by another tool only stops the counting. Nothing stands in front of a
 * block: its size is in the map (zmap.h), and free goes by what the map says and nothing else. */
#ifndef ZMALLOC_HOOKS_H
#define ZMALLOC_HOOKS_H

#include <Python.h>

#include "threads.h"
#include "zcore.h"
#include "zmap.h"

/* The account of the interpreter: one for all sub-interpreters of the process. */
extern zaccount python_account;

/* What the system has given: arenas, RAW blocks and frame chunks. Capped, but no part of a total. Not in
 * use where MEM and OBJ blocks come from the system directly (PYTHONMALLOC=malloc): see
 * hooks_held_is_used(). */
extern zaccount held_account;
bool hooks_held_is_used(void);

/* Once a process: the map, the threads, the fork handlers. Installs nothing. */
void hooks_init(void);

/* Puts the hooks on the chains they are not on. 1 if they had to be put there, 0 if they were there,
 * -1 with an exception set. Holds the GIL. After a loss the map is cleared and counting begins anew. */
int hooks_install(void);

/* Before Py_Initialize, after Py_PreInitialize: puts the hooks in, once. What they must ask a running
 * interpreter is asked by the first hooks_install(). */
void hooks_install_early(void);

/* By a probe allocation in each domain, not by a flag. Holds the GIL. */
bool hooks_are_installed(void);

/* Mode `held`: RAW, frame chunks and whole arenas are counted, no hook is in MEM and OBJ. What was counted before is
 * forgotten, so this is for the first thing that a process does. 1: done; 0: this interpreter has no arenas that can
 * be read, and the mode is exact (*why says it); -1 with an exception set. Holds the GIL. */
int hooks_install_held(const char **why);
bool hooks_count_arenas(void);

/* From `held` to exact, the way back to everything being counted: what lives is forgotten. As hooks_install(). */
int hooks_install_exact(void);

/* Have they ever been? */
bool hooks_were_installed(void);

/* The truth and the counters, read one right after the other. */
struct audit {
    size_t used;    /* live blocks and chunks, from the map */
    size_t counted; /* what the counters say */
    size_t stack;   /* the chunks among them */
    size_t blocks;
};
void hooks_audit(struct audit *out);

struct hook_figures {
    struct sums domain[DOMAINS];
    uint64_t refusals[DOMAINS];
    uint64_t untracked;   /* blocks that the map had no room for */
    uint64_t reinstalled; /* times the hooks had been thrown out and were put back */
    size_t lost;          /* bytes that stay charged since then */
};
void hooks_figures(struct hook_figures *out);

/* While it is on, this thread may go beyond every limit by a few megabytes: for a report about a script
 * that has left nothing. */
void hooks_exempt(bool on);

#endif
