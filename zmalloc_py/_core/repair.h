/* repair.h - an error raised at a loop's poll reaches the handler beside the loop.
 *
 * CPython 3.11 to 3.13 look up the handler of an exception that is raised when a backward jump polls the eval
 * breaker at the wrong offset (a KeyboardInterrupt suffers alike): 3.11 and 3.12 poll after the jump and look
 * one instruction before its target, 3.13 polls before it and looks at the jump's last cache entry. A try, finally
 * or with that begins or ends there is passed over, or an earlier one gets the error. So from the raising until
 * the lookup is done, which is before the frame goes on, the code has another exception table: a copy in which
 * that one offset leads to the handler of the jump's target.
 *
 * The main interpreter's only, with its GIL held; one repair at a time. */
#ifndef ZMALLOC_REPAIR_H
#define ZMALLOC_REPAIR_H

#include "frames.h"
#include "threads.h"

#define REPAIR_IS_NEEDED (PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030e0000)

/* An exception is being raised in the thread at the poll of its innermost frame. May allocate. */
void repair_begin(PyThreadState *state);

/* Is a repair in place? Then each hook calls repair_end(), which puts the table back once its frame has gone on.
 * Allocates nothing. */
extern bool repair_is_on;
void repair_end(void);

/* In a thread that ends, without the GIL. */
void repair_thread_ended(const struct thread *t);

/* Outside of hooks: lets go of code that a repair was made in. */
void repair_drop(void);

/* Off for comparison. */
extern bool repair_is_allowed;

#endif
