/* faults.c - counting a thread's requests, and which of them CPython cannot do without.
 *
 * As at a limit (relief.h) these are: what is asked for while an exception is on its way; a frame chunk; what module
 * threading asks for, and a thread's first frames; the growth of the table of interned strings. A fault comes to each
 * place, so there are more: see frames_is_fragile(), callers_are_fragile(), relief_is_table_growing(). There is room for
 * them, so they are granted as any other. But here requests are numbered, so nothing else may pass for one of them, not
 * even where a loop comes to the same instruction again.
 *
 * An exception that is on its way is seen in the thread's state, but for the moments when CPython takes it out: to
 * make the frame's object and the traceback's entry, and up to 3.11 to make an instance of it. Each comes once for a
 * frame, first in the one that was refused something, at that instruction, then in its caller, at the call, and so on:
 * `way` knows where it may be next and what is still to come there. */
#define PY_SSIZE_T_CLEAN
#include "faults.h"

#include "callers.h"
#include "frames.h"
#include "machinery.h"
#include "relief.h"

#include <frameobject.h>
#include <stdlib.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

/* ---- the way of an exception --------------------------------------------------------------------- */

enum { ENTRY = 1, INSTANCE = 2, ALL = 3, FRAME = 4, GC_HEAD = 2 * sizeof(void *) };

struct way {
    struct spot at, above;
    unsigned to_come; /* at `at`; 0 and no frame: no exception is known of */
    bool was_vital;   /* the last request: so is its trace */
};

static struct way *way_here(void)
{
    return thread_rare(RARE_FAULTS, sizeof(struct way));
}

static void follow(struct way *way, const struct spot *top)
{
    if (!frames_is_same(top, &way->at))
        way->to_come = ALL;
    way->at = way->above = *top;
    frames_next(&way->above);
}

static unsigned part_of_size(PyThreadState *state, size_t n)
{
    if (n == sizeof(PyTracebackObject) + GC_HEAD)
        return ENTRY;
    if (frames_is_of_unwinding(state, n))
        return FRAME;
    return PY_VERSION_HEX < 0x030c0000 && n == sizeof(PyBaseExceptionObject) + GC_HEAD ? INSTANCE : 0;
}

/* A frame's object is made for an exception, mostly, which is lost where it cannot be made. */
static bool is_on_its_way(PyThreadState *state, const struct spot *top, size_t n)
{
    struct way *way = way_here();
    const unsigned part = part_of_size(state, n);
    if (frames_has_error(state) || part == FRAME) {
        follow(way, top);
        return true;
    }
    if (frames_is_same(top, &way->above)) {
        follow(way, top);
    } else if (!frames_is_same(top, &way->at)) {
        way->at.frame = way->above.frame = NULL;
        return false;
    }
    const bool is_to_come = part & way->to_come;
    way->to_come &= ~part;
    return is_to_come;
}

/* Tables of dicts are of MEM from 3.13 on: nothing of OBJ is to pass for one. */
static bool is_table(enum domain d, size_t n)
{
    return (PY_VERSION_HEX < 0x030d0000 || d == MEM) && relief_is_table_growing(n);
}

static bool is_vital_itself(PyThreadState *state, enum domain d, size_t n)
{
    struct spot top;
    if (!state)
        return false; /* without the GIL there is no exception */
    frames_top(state, &top);
    if (!top.frame || is_on_its_way(state, &top, n) || relief_is_lock(d, n) || frames_is_fragile(&top) ||
        frames_is_leaving_with(&top, n))
        return true;
    if (state->interp == PyInterpreterState_Main() &&
        (machinery_is_threading(&top) || machinery_is_asyncio(&top) || is_table(d, n)))
        return true;
    return callers_are_fragile() || (d == RAW && callers_trace_a_resize());
}

static bool is_vital(PyThreadState *state, enum domain d, size_t n)
{
    struct way *way = way_here();
    way->was_vital = is_vital_itself(state, d, n) || (d == RAW && way->was_vital && callers_trace_an_object());
    return way->was_vital;
}

static void note_refusal(PyThreadState *state)
{
    struct spot top;
    if (!state)
        return;
    frames_top(state, &top);
    struct way *way = way_here();
    way->at.frame = NULL;
    follow(way, &top);
}

/* ---- counting -------------------------------------------------------------------------------------- */

static bool fails(struct fault *f)
{
    if (atomic_load(&f->tied.ended))
        return false;
    const uint64_t passed = GET(f->passed), failed = GET(f->failed);
    const bool is_due = passed >= f->n && (f->repeat < 0 || failed < (uint64_t)f->repeat);
    if (is_due)
        SET(f->failed, failed + 1);
    else
        SET(f->passed, passed + 1);
    return is_due;
}

bool faults_refuse(struct thread *t, enum domain d, size_t n)
{
    PyThreadState *state = frames_state();
    if ((t->state & (LENIENT | EXEMPT)) || is_vital(state, d, n))
        return false;
    for (struct fault *f = (struct fault *)t->faults; f; f = (struct fault *)f->tied.next)
        if (fails(f)) {
            note_refusal(state);
            return true;
        }
    return false;
}

/* ---- a thread's list ------------------------------------------------------------------------------- */

static void note_gone(struct thread *t)
{
    if (!t->faults)
        t->state &= ~(unsigned)FAULTY;
}

static void drop(struct tied *one)
{
    free(one);
}

void faults_add(struct fault *f)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    tied_sweep(&t->faults, false);
    *way_here() = (struct way){.to_come = 0};
    tied_add(&t->faults, &f->tied, drop);
    t->state |= FAULTY;
}

bool faults_remove(struct fault *f)
{
    struct thread *t = f->tied.thread;
    if (!t)
        return true;
    if (!tied_remove(&t->faults, &f->tied))
        return false;
    tied_sweep(&t->faults, false);
    note_gone(t);
    return true;
}

void faults_thread_ended(struct thread *t)
{
    tied_sweep(&t->faults, true);
    note_gone(t);
}

bool faults_pause(struct thread *t)
{
    const bool was_on = t->state & FAULTY;
    t->state &= ~(unsigned)FAULTY;
    return was_on;
}

void faults_resume(struct thread *t, bool was_on)
{
    if (was_on && t->faults)
        t->state |= FAULTY;
}
