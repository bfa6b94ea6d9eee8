/* relief.h - requests that CPython does not survive the refusal of.
 *
 * They are granted uncounted: used() never passes the hard limit, and what is granted so is bounded. There are
 * eleven kinds:
 *  - What a thread asks for while it unwinds. If not even the traceback's entry or the next
 *    MemoryError can be made, CPython loses the exception (SystemError), gives up ("Cannot recover from
 *    MemoryErrors while normalizing exceptions") or, from 3.11 on, tries for ever.
 *  - What module threading asks for, and a thread's first frames: one that is refused something before it has said
 *    that it runs leaves start() waiting for ever.
 *  - The chunk for the next Python frame: CPython makes a SystemError of its refusal.
 *  - What it takes to show an exception that nobody has caught while its traceback keeps all data alive: 3.13 imports
 *    its Python part for that, and says "lost sys.stderr" when it cannot.
 *  - What a verdict takes to collect garbage, when nothing is left at all: a collection that fails says so on stderr.
 *  - What asyncio asks for while it runs a loop: a task whose step, or whose wake-up, could not be prepared is never run
 *    again, and who waits for it waits for ever; and 3.13 corrupts its dictionary of current tasks. The loop is then
 *    left with an error, see delivery.c.
 *  - A function object, from 3.12 on: where there is none its code object is given back once too often, and freed
 *    while in use.
 *  - The trace of a block that has been resized, which tracemalloc does without only by ending the process.
 *  - The arguments of an __exit__: a with statement that has none leaves a lock locked.
 *  - A lock: a RuntimeError comes of its refusal, also out of an import, which makes one.
 *  - The growth of the table of interned strings, which 3.13 leaves broken when it fails. */
#ifndef ZMALLOC_RELIEF_H
#define ZMALLOC_RELIEF_H

#include "frames.h"
#include "threads.h"

/* The thread has been refused something. */
void relief_note_refusal(PyThreadState *state);

/* A request of this thread for n bytes has been granted above the limit. */
void relief_note_grant(PyThreadState *state, size_t n);

/* n bytes that are refused: must they be there nevertheless, and what for? Then the block is to be marked ZMAP_TAG, and
 * relief_note_free() to be called when it is freed. A frame chunk is marked as a span of 0 bytes. */
enum relief { RELIEF_NONE, RELIEF_ANY, RELIEF_GUESSED, RELIEF_LOOP }; /* guessed: by its size alone */
enum relief relief_is_due(PyThreadState *state, enum domain d, size_t n);
/* Else CPython uses freed memory, aborts or hangs: under any cap. */
bool relief_is_due_to_flaw(PyThreadState *state, enum domain d, size_t n);
void relief_note_free(void);
bool relief_is_due_to_verdict(size_t n);
bool relief_is_due_to_chunk(PyThreadState *state, size_t n);
void relief_note_chunk_free(void);

/* Is it what a lock takes? With the GIL held, else it may be anything. */
bool relief_is_lock(enum domain d, size_t n);

/* Is n what the table of interned strings needs now, to grow? On 3.13: or the table of any dict? For
 * dict.setdefault() and the making of a type leave it broken there. In the main interpreter. */
bool relief_is_table_growing(size_t n);

#endif
