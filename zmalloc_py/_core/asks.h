/* asks.h - errors that have been asked for: a small table, and the ways to the interpreter's safe points.
 *
 * All of it with the main interpreter's GIL held, but asks_thread_ended(). */
#ifndef ZMALLOC_ASKS_H
#define ZMALLOC_ASKS_H

#include "limit_error.h"
#include "threads.h"

#include <Python.h>

enum ask_state {
    ASK_FREE,
    ASK_QUEUED,    /* the verdict is in the queue of pending calls */
    ASK_LATER,     /* it could not be queued, or the moment was wrong: a later hook tries again */
    ASK_PLACED,    /* the error waits in the thread's state for the interpreter to raise it */
    ASK_JUDGED,    /* the verdict is being given: the garbage is being collected */
    ASK_ABANDONED, /* nobody wants it any more, but the queue has it */
};

struct gauge;

struct ask {
    _Atomic int state;
    bool is_queued;      /* whatever the state is */
    bool is_collected;   /* the garbage has been, and use is still above */
    bool of_thread;      /* the scope is one of the thread's own */
    bool is_spared;      /* use was above still, but there is room again: see verdict.c */
    bool leaves_loop;    /* it is to come between two callbacks of asyncio's loop, whatever is being handled */
    unsigned long ident; /* of the thread */
    uint64_t number;     /* of the scope; 0: that has been left */
    const struct gauge *gauge; /* of_thread: there as long as the scope is */
    size_t limit, asked_at, requested, debt;
    int depth;
    struct place place;
};

/* A copy of this in the table, NULL if that is full. */
struct ask *asks_new(const struct ask *wanted);

/* Ends the thread's ask. */
void asks_close(struct thread *t);

/* The same, and the thread asks no more before use has passed what the ask says. */
void asks_close_spared(struct thread *t);

/* Queues the verdict; false if that cannot be now. */
bool asks_queue(struct ask *ask, PyThreadState *state);

/* Leaves the error in this thread's state for its next poll; false if another exception is there. */
bool asks_place(PyThreadState *state);
bool asks_is_placed(PyThreadState *state);
void asks_withdraw(PyThreadState *state);

/* Is this a worker, of a version in which only the main thread runs what is queued? */
bool asks_main_is_far(void);

/* Is there any? */
bool asks_are_open(void);

/* Is the interpreter being finalized? */
bool asks_are_over(void);

/* The figures of the error, as they are now. */
void asks_figures(const struct ask *ask, struct limit_figures *figures);

/* The thread has been given its error: what is in use now is where growth counts from. */
void asks_note_raised(struct thread *t, const struct ask *ask);

/* Each ask of this scope is ended, and its error taken back where it is on its way. */
void asks_forget(uint64_t number);

void asks_thread_ended(struct thread *t);
void asks_forked(void);

/* The exception; NULL before verdict_init(). */
extern PyObject *asks_error;

#endif
