/* delivery.h - what happens when a request passes the limit: it is granted, and an error is raised in the thread
 * that made it at the next moment when the interpreter can take one.
 *
 * A request is granted up to limit + 3/4 of the reserve, a frame chunk and what cleans up after a refusal up to
 * the hard limit; past that it is refused. The hook that grants one above the limit asks for a verdict: a call of
 * ours at a safe point, which collects the garbage, looks again and raises LimitError if use is still above.
 *
 * Who runs the verdict: the main thread by a pending call; from 3.12 any thread. If that is not the thread it is
 * for, it gets the error as an asynchronous exception. In a worker of 3.10 and 3.11, for which only the main
 * thread can run something, the hook itself leaves that exception after 16 KiB more.
 *
 * No hook calls Python or waits for a lock (but that of the queue of pending calls). */
#ifndef ZMALLOC_DELIVERY_H
#define ZMALLOC_DELIVERY_H

#include <Python.h>

#include "threads.h"

/* Growth above the limit after which an error is raised again. */
#define DELIVERY_STEP ((size_t)16 << 10)

/* Takes n bytes for the Python account where the fast path has not: false if they are refused. */
bool delivery_take(struct thread *t, enum domain d, size_t n);

/* Is an error of this scope being handled, or one of CPython's own of which it is likely? t: the thread's record if
 * it is this thread, else NULL. */
bool delivery_is_handling(const struct thread *t, PyThreadState *state, uint64_t number);

/* A request is refused, finally. */
void delivery_note_refused(enum domain d);

/* They are refused: must they be granted uncounted? See relief.h. */
bool delivery_must_grant(struct thread *t, enum domain d, size_t n);

/* In a MEM or OBJ hook of a thread with ASKED or CROSSED, which asks for n bytes, before anything else. */
void delivery_notice(struct thread *t, size_t n);

/* Does CPython come to harm where n bytes of d are refused now? Then they are taken, above the hard limit if need be, and
 * the error follows at the next safe point. 3.13: the table of a dict that dict.setdefault() adds to. */
bool delivery_cannot_refuse(enum domain d, size_t n);

/* One of its gauges has refused a thread n bytes. */
void delivery_note_gauge_refusal(struct thread *t, size_t n);

/* n bytes have been granted to a thread with MEASURED. */
void delivery_note_gauges(struct thread *t, enum domain d, size_t n);

/* A frame chunk of n bytes has come, or gone (n < 0), in this thread. */
void delivery_note_chunk(struct thread *t, int64_t n);

/* Mode `held`: may an arena of n bytes be taken? Only as long as neither use nor the unwinding debt passes the limit. */
bool delivery_has_room_for_arena(const struct thread *t, size_t n);

/* In a hook that holds the GIL, before anything else: puts a repair's table back once it has done its work. */
void delivery_end_repair(void);

/* Limits have changed, with or without the GIL. */
void delivery_limits_changed(void);

/* For comparison: the unwinding debt, and the closing of the reserve's last quarter. */
extern bool delivery_counts_debt, delivery_closes;

#endif
