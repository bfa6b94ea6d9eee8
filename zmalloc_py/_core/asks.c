/* asks.c - the table, and what the interpreter offers for being called back. */
#define PY_SSIZE_T_CLEAN
#if !defined(Py_BUILD_CORE_MODULE)
#define Py_BUILD_CORE_MODULE 1
#endif
#include <Python.h>

#if PY_VERSION_HEX >= 0x030d0000 && PY_VERSION_HEX < 0x030e0000
#include <internal/pycore_runtime.h>
#endif

#define LEAVES_BREAKER (PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030c0000)
#if LEAVES_BREAKER
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#pragma GCC diagnostic pop
#endif

#include "asks.h"

#include "gauges.h"
#include "hooks.h"
#include "scopes.h"
#include "verdict.h"

PyObject *asks_error;

/* ---- the table ------------------------------------------------------------------------------- */

enum { ASKS = 28 }; /* fewer than the queue of pending calls takes */

static struct ask table[ASKS];

struct ask *asks_new(const struct ask *wanted)
{
    for (struct ask *ask = table; ask < table + ASKS; ask++) {
        if (ask->state != ASK_FREE)
            continue;
        *ask = *wanted;
        ask->state = ASK_LATER;
        return ask;
    }
    return NULL;
}

static void end_ask(struct ask *ask)
{
    ask->state = ask->is_queued ? ASK_ABANDONED : ASK_FREE;
}

void asks_close(struct thread *t)
{
    end_ask(t->ask);
    t->ask = NULL;
    t->state &= ~(unsigned)ASKED;
}

void asks_close_spared(struct thread *t)
{
    t->raised_number = t->ask->number;
    t->raised_at = t->ask->asked_at;
    asks_close(t);
}

void asks_thread_ended(struct thread *t)
{
    if (t->ask)
        asks_close(t);
}

/* Of the parent's threads one is left, and the queue is empty or was copied with its lock: whatever of it
 * comes is ignored. */
void asks_forked(void)
{
    struct thread *t = thread_self();
    for (struct ask *ask = table; ask < table + ASKS; ask++)
        if (ask->state != ASK_FREE && ask != t->ask)
            end_ask(ask);
}

void asks_figures(const struct ask *ask, struct limit_figures *f)
{
    const struct gauge *g = ask->of_thread ? gauges_find(thread_self(), ask->number) : NULL;
    f->number = ask->number;
    f->requested = ask->requested;
    f->place = ask->place;
    f->limit = ask->limit;
    f->hard = g ? g->hard : atomic_load(&python_account.hard);
    f->used = g ? (size_t)atomic_load(&g->net) : zaccount_used(&python_account);
    f->scope = ask->of_thread ? "thread budget" : scopes_name(ask->number);
}

void asks_note_raised(struct thread *t, const struct ask *ask)
{
    struct limit_figures f;
    asks_figures(ask, &f);
    t->raised_number = ask->number;
    t->raised_at = f.used;
    t->above = 0;
    struct gauge *g = ask->of_thread ? gauges_find(t, ask->number) : NULL;
    if (g)
        atomic_store(&g->hit, true);
    scopes_note_raised(ask->number);
}

/* ---- pending calls ----------------------------------------------------------------------------- */

/* 3.13 takes HEAD_LOCK to queue a call for any thread, and a hook can be called by a thread that holds it. */
static bool is_head_locked(void)
{
#if PY_VERSION_HEX >= 0x030d0000 && PY_VERSION_HEX < 0x030e0000
    return _PyRuntime.interpreters.mutex._bits & 1;
#else
    return false;
#endif
}

#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
/* Exported, declared in an internal header that does not compile everywhere. 3.12's last two are booleans of
 * the same size; 3.13 returns 0 as well when the call is queued. */
PyAPI_FUNC(int) _PyEval_AddPendingCall(PyInterpreterState *interp, int (*func)(void *), void *arg, int flags);
#endif

static bool queue(struct ask *ask, PyThreadState *state)
{
#if PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000
    return _PyEval_AddPendingCall(state->interp, verdict_give, ask, 0) == 0;
#else
    (void)state;
    return Py_AddPendingCall(verdict_give, ask) == 0;
#endif
}

bool asks_queue(struct ask *ask, PyThreadState *state)
{
    if (!asks_error || is_head_locked() || !queue(ask, state))
        return false;
    ask->is_queued = true;
    return true;
}

bool asks_main_is_far(void)
{
    return PY_VERSION_HEX < 0x030c0000 && !zport_is_main_thread();
}

bool asks_are_open(void)
{
    for (const struct ask *ask = table; ask < table + ASKS; ask++)
        if (ask->state != ASK_FREE && ask->state != ASK_ABANDONED)
            return true;
    return false;
}

bool asks_are_over(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* ---- the exception in a thread's state -------------------------------------------------------- */

#if FRAMES_ARE_KNOWN

#if PY_VERSION_HEX < 0x030d0000
PyAPI_FUNC(void) _PyEval_SignalAsyncExc(PyInterpreterState *interp);
#endif

/* Does what PyThreadState_SetAsyncExc() does for another thread, without its lock. */
bool asks_place(PyThreadState *state)
{
    PyObject *none = NULL;
    if (!asks_error)
        return false;
    Py_INCREF(asks_error);
    if (!__atomic_compare_exchange_n(&state->async_exc, &none, asks_error, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        Py_DECREF(asks_error); /* not the last one */
        return false;
    }
#if PY_VERSION_HEX < 0x030d0000
    _PyEval_SignalAsyncExc(state->interp);
#else
    __atomic_fetch_or(&state->eval_breaker, (uintptr_t)1 << 3, __ATOMIC_SEQ_CST); /* _PY_ASYNC_EXCEPTION_BIT */
#endif
    return true;
}

bool asks_is_placed(PyThreadState *state)
{
    return __atomic_load_n(&state->async_exc, __ATOMIC_ACQUIRE) == asks_error;
}

/* That an exception waits is noted for the interpreter, too, and stays so when it is taken back: each poll then looks
 * for it, and 3.11 never comes past one in a generator that is traced. */
#if LEAVES_BREAKER

/* Is there anything else that this thread can do at a poll? */
static bool has_cause(const struct _ceval_state *c)
{
    return c->gil_drop_request._value || (zport_is_main_thread() && (c->pending.calls_to_do._value ||
                                                                     _PyRuntime.ceval.signals_pending._value));
}

static void forget_note(PyThreadState *self)
{
    struct _ceval_state *c = &self->interp->ceval;
    for (PyThreadState *state = PyInterpreterState_ThreadHead(self->interp); state; state = PyThreadState_Next(state))
        if (state->async_exc)
            return;
    c->pending.async_exc = 0;
    if (has_cause(c))
        return;
    atomic_store(&c->eval_breaker._value, 0);
    if (has_cause(c)) /* a signal has come meanwhile */
        atomic_store(&c->eval_breaker._value, 1);
}

#else

static void forget_note(PyThreadState *self)
{
    (void)self;
}

#endif

void asks_withdraw(PyThreadState *state)
{
    PyObject *ours = asks_error;
    if (!__atomic_compare_exchange_n(&state->async_exc, &ours, NULL, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return;
    Py_DECREF(asks_error); /* not the last one */
    forget_note(state);
}

#else

bool asks_place(PyThreadState *state)
{
    (void)state;
    return false;
}

bool asks_is_placed(PyThreadState *state)
{
    (void)state;
    return false;
}

void asks_withdraw(PyThreadState *state)
{
    (void)state;
}

#endif

void asks_forget(uint64_t number)
{
    struct thread *t = thread_self();
    if (t->ask && t->ask->number == number) {
        if (t->ask->state == ASK_PLACED)
            asks_withdraw(PyThreadState_Get());
        asks_close(t);
    }
    for (struct ask *ask = table; ask < table + ASKS; ask++) {
        if (ask->state == ASK_FREE || ask->number != number)
            continue;
        if (ask->state == ASK_PLACED)
            PyThreadState_SetAsyncExc(ask->ident, NULL);
        ask->number = 0; /* its thread closes it when it sees that */
    }
}
