/* callers.h - which of CPython's C functions is at work, read from the C stack. For what is rare: it takes
 * microseconds. */
#ifndef ZMALLOC_CALLERS_H
#define ZMALLOC_CALLERS_H

#include <stdbool.h>

/* Finds the functions. 0, or -1 with an exception. */
int callers_init(void);

/* Has the instruction that this thread executes called a function that CPython gets wrong when what it asks for is
 * refused? False where the C stack cannot be read. These are
 *  - the compiler, behind compile(), and behind exec() and eval() of a text: a SystemError, and on 3.13 a crash;
 *  - iter() of a dict's items(): a crash. */
bool callers_are_fragile(void);

/* Has it called dict.setdefault(), or what that is made of? 3.13's goes on where the table could not grow: it returns
 * a value beside the exception, the dict counts an entry that it does not have, and a loop of such calls never ends. */
bool callers_set_a_default(void);

/* Is a tool that has wrapped our hooks in the middle of a resize? tracemalloc asks RAW for the trace of a block that has
 * been resized already, has no way back, and ends the process where it gets none. */
bool callers_trace_a_resize(void);

/* Is one in the middle of any request of OBJ? Where it gets no room for its trace the request fails. */
bool callers_trace_an_object(void);

#endif
