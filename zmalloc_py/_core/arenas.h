/* arenas.h - mode `held`: the arenas of pymalloc that are counted, and the room in their pools.
 *
 * In that mode no hook of ours is called for a small object: RAW blocks, frame chunks and whole arenas count, which is
 * what the system gives. How much of an arena is free is read from the headers of its pools. Their layout is the
 * interpreter's own (Objects/obmalloc.c, 3.10 to 3.13); arenas_are_readable() finds out whether it is as expected. */
#ifndef ZMALLOC_ARENAS_H
#define ZMALLOC_ARENAS_H

#include <stdbool.h>
#include <stddef.h>

#define ARENA_SIZE ((size_t)1 << 20)

/* An arena has come, or is about to go. False: there is no room to note it; it cannot be counted then. */
bool arenas_add(void *arena);
bool arenas_remove(void *arena);

size_t arenas_count(void);

/* Bytes in their pools that no block holds. Takes some 30 ns a pool. With the GIL held; pools of interpreters with a
 * GIL of their own may change meanwhile, so theirs may be told a little wrong. */
size_t arenas_room(void);

/* Do objects come from pools that look as they should? With the GIL held. Allocates and frees a few objects. */
bool arenas_are_readable(void);

/* A forked child begins with a lock of its own. */
void arenas_forked(void);

#endif
