/* machinery.h - code in which an error must not surface out of the blue.
 *
 * An exception that a cap raises inside call_soon() loses a wake-up, one in a thread's bootstrap leaves start()
 * waiting for ever, one in a lock's Python part leaves it locked. While such code runs the error waits. */
#ifndef ZMALLOC_MACHINERY_H
#define ZMALLOC_MACHINERY_H

#include "frames.h"

/* Once a process, with the GIL. 0, or -1 with an exception set. */
int machinery_init(void);

/* Is the frame of one of those modules, or of a helper that one of them has called, or machinery_is_display()?
 * Allocates nothing, calls nothing. Holds the GIL. */
bool machinery_is(struct spot spot);

/* Is the interpreter itself, with nobody's code below, showing an exception, or importing what that takes? */
bool machinery_is_display(struct spot spot);

/* Is it of module threading? */
bool machinery_is_threading(const struct spot *spot);

/* Is it of one that hands jobs to worker threads and their results back? A worker that ends in the middle of that leaves
 * whoever waits for the result waiting. */
bool machinery_is_pool(const struct spot *spot);

/* Is it of package asyncio? What its C parts ask for while they step a task is asked for in such a frame. */
bool machinery_is_asyncio(const struct spot *spot);

/* Is this the function of asyncio's loop that runs one callback after the other: between two of them the loop can be
 * left. */
bool machinery_is_turn(const struct spot *spot);

#endif
