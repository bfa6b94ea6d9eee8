/* verdict.c - collect, look again, raise.
 *
 * Invariants:
 *  - A verdict runs as a pending call of the main interpreter, GIL held, between two instructions of whichever
 *    thread polled. It raises there only if that is the thread it is about, and the frame is none of the
 *    interpreter's machinery; else it is put off to the next poll.
 *  - Python code runs in the middle of it (callbacks, finalizers): other threads too, and scopes may end. So
 *    everything is looked at again afterwards. One collects at a time. */
#define PY_SSIZE_T_CLEAN
#include "verdict.h"

#include "arenas.h"
#include "asks.h"
#include "delivery.h"
#include "faults.h"
#include "frames.h"
#include "gauges.h"
#include "hooks.h"
#include "hooks_inside.h"
#include "machinery.h"
#include "repair.h"
#include "scopes.h"
#include "zone.h"

#include <structmember.h>
#include <structseq.h>
#include <time.h>

struct verdict_figures verdict_figures;

static PyObject *collect;     /* gc.collect */
static PyObject *callbacks;   /* a list */
static PyTypeObject *pressure; /* what they are called with */
static bool is_collecting;
static long found; /* by the last collection: objects that nothing refers to; -1: it did not come to that */

static void be_strict(struct thread *t)
{
    if (!t->exempt)
        t->state &= ~(unsigned)LENIENT;
}

/* ---- collecting -------------------------------------------------------------------------------- */

static void call_back(PyObject *callback, const char *scope, size_t limit)
{
    PyObject *info = PyStructSequence_New(pressure);
    PyObject *result = NULL;
    if (info) {
        PyStructSequence_SET_ITEM(info, 0, PyLong_FromSize_t(zaccount_used(&python_account)));
        PyStructSequence_SET_ITEM(info, 1, PyLong_FromSize_t(limit));
        PyStructSequence_SET_ITEM(info, 2, PyUnicode_FromString(scope));
        if (!PyErr_Occurred())
            result = PyObject_CallOneArg(callback, info);
    }
    if (!result)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(result);
    Py_XDECREF(info);
}

static void call_all_back(const char *scope, size_t limit)
{
    if (!callbacks || PyList_GET_SIZE(callbacks) == 0)
        return;
    PyObject *now = PyList_AsTuple(callbacks); /* one may add or remove others */
    for (Py_ssize_t i = 0; now && i < PyTuple_GET_SIZE(now); i++)
        call_back(PyTuple_GET_ITEM(now, i), scope, limit);
    PyErr_Clear();
    Py_XDECREF(now);
}

static void collect_garbage(void)
{
    PyObject *result = PyObject_CallNoArgs(collect);
    found = result ? PyLong_AsLong(result) : -1;
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(collect);
    Py_XDECREF(result);
    verdict_figures.collections++;
}

void verdict_collect(const char *scope, size_t limit)
{
    struct thread *t = thread_self();
    PyObject *type, *value, *traceback;
    if (is_collecting || !collect)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    is_collecting = true;
    found = -1;
    t->state |= LENIENT; /* a collection that is refused something has been for nothing */
    hooks.has_no_arenas = true; /* at the end of a scope there is no limit any more, and one would pass for use */
    call_all_back(scope, limit);
    if (zaccount_used(&python_account) > limit)
        collect_garbage();
    be_strict(t);
    hooks.has_no_arenas = false;
    is_collecting = false;
    PyErr_Restore(type, value, traceback);
}

/* ---- collections that become the program ----------------------------------------------------------- */

/* A collection is poor if it made less room than a 25th of the limit and came so soon after the last one that
 * they take more than a third of the time. After eight in a row an error is raised although there is room again.
 *
 * A program that catches each error and goes on would do nothing but collect. So after eight collections of one scope
 * that found nothing none is made while they would take more than a third of the time. Nothing means no object: if
 * there are any they may be what keeps the data of the last error alive. */
enum { LEAST_PART = 25, SHARE = 2, STRIKES = 8 };

static struct {
    double ended, took;
    uint64_t number; /* the scope's */
    unsigned poor, idle;
    size_t gain; /* bytes that the last one freed */
} overhead;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void count_strikes(bool is_small, double pause)
{
    overhead.poor = is_small && pause < SHARE * overhead.took ? overhead.poor + 1 : 0;
    if (!is_small || found > 0)
        overhead.idle = 0;
    else if (overhead.idle < STRIKES)
        overhead.idle++;
}

/* What is taken without the room in pools: in mode `held` a collection makes that, and use seldom falls. */
static size_t live(void)
{
    const size_t used = zaccount_used(&python_account), room = hooks.counts_arenas ? arenas_room() : 0;
    return used > room ? used - room : 0;
}

/* Collects; true if that has been poor too often. */
static bool collect_in_turn(uint64_t number, size_t limit)
{
    const size_t before = live();
    const double began = now(), pause = began - overhead.ended;
    if (overhead.number != number)
        overhead.poor = overhead.idle = 0;
    overhead.number = number;
    if (overhead.idle == STRIKES && pause < SHARE * overhead.took)
        return false;
    verdict_collect(scopes_name(number), limit);
    const size_t after = live(), gain = before > after ? before - after : 0;
    overhead.gain = gain;
    overhead.ended = now();
    overhead.took = overhead.ended - began;
    count_strikes(gain < limit / LEAST_PART, pause);
    if (overhead.poor < STRIKES)
        return false;
    overhead.poor = 0;
    return true;
}

/* ---- the verdict ----------------------------------------------------------------------------------- */

static bool is_above(const struct ask *ask)
{
    if (ask->of_thread)
        return gauges_is_over(ask->gauge, delivery_counts_debt ? ask->debt : 0);
    const size_t hard = atomic_load(&python_account.hard), used = zaccount_used(&python_account);
    if (ask->number != scopes_number())
        return false;
    return used > ask->limit || (delivery_counts_debt && (ask->debt > hard || used > hard - ask->debt));
}

static void end_ask(struct ask *ask, struct thread *t)
{
    if (t->ask == ask) {
        asks_close(t);
        return;
    }
    ask->number = 0; /* its thread closes it */
    ask->state = ASK_LATER;
}

/* Mode `held`: use is above still, for what was asked for when there was no pool left came one by one from the system.
 * There is room for what comes next if the collection has made some or if some is there, each time for a while: room of
 * one size is none for another, so it is at an end with half of the reserve, or a small part of the limit. */
enum { ROOM_PART = 64, LEAST_ROOM = 32 << 10, MOST_THIN = 16, BEYOND_PART = 32 };

static size_t most_beyond(const struct ask *ask)
{
    const size_t half = (atomic_load(&python_account.hard) - ask->limit) / 2, part = ask->limit / BEYOND_PART;
    return half < part ? half : part;
}

static bool has_room(const struct ask *ask)
{
    static unsigned thin; /* verdicts in a row that made little room */
    const size_t enough = ask->limit / ROOM_PART > LEAST_ROOM ? ask->limit / ROOM_PART : LEAST_ROOM;
    const size_t hard = atomic_load(&python_account.hard), used = zaccount_used(&python_account);
    if (!hooks.counts_arenas || hard < ask->limit || ask->debt > hard || used > hard - ask->debt)
        return false;
    thin = overhead.gain >= enough ? 0 : thin + 1;
    if (used > ask->limit + most_beyond(ask))
        return false;
    return thin == 0 || (thin <= MOST_THIN && arenas_room() >= 2 * enough);
}

static int spare_for_room(struct ask *ask, struct thread *t)
{
    const size_t used = zaccount_used(&python_account), more = most_beyond(ask) / 4;
    ask->asked_at = used + (more > DELIVERY_STEP ? more - DELIVERY_STEP : 0);
    verdict_figures.spared++;
    if (t->ask == ask) {
        asks_close_spared(t);
    } else {
        ask->is_spared = true; /* its thread closes it */
        ask->state = ASK_LATER;
    }
    return 0;
}

static int spare(struct ask *ask, struct thread *t)
{
    if (ask->is_collected) {
        verdict_figures.spared++;
        scopes_note_settled(zaccount_used(&python_account));
    }
    end_ask(ask, t);
    return 0;
}

/* The handler that finds the error is asked for by its own thread. */
static int raise_here(struct ask *ask, struct thread *t, PyThreadState *state)
{
    struct limit_figures figures;
    asks_figures(ask, &figures);
    t->state |= LENIENT;
    PyObject *error = limit_error_new((PyTypeObject *)asks_error, &figures);
    repair_drop();
    repair_begin(state);
    be_strict(t);
    delivery_limits_changed(); /* a repair wants to be looked at by each hook */
    asks_note_raised(t, ask);
    asks_close(t);
    verdict_figures.errors++;
    if (error) {
        PyErr_SetObject(asks_error, error);
        Py_DECREF(error);
    } else if (!PyErr_Occurred()) {
        PyErr_NoMemory();
    }
    return -1;
}

static bool is_bad_moment(PyThreadState *state, struct spot *spot)
{
    frames_top(state, spot);
    return !spot->frame || frames_is_tracing(state) || machinery_is(*spot); /* no frame: a thread is being started */
}

/* Called again at the next poll. */
static int put_off(struct ask *ask, PyThreadState *state)
{
    ask->state = asks_queue(ask, state) ? ASK_QUEUED : ASK_LATER;
    return 0;
}

static PyThreadState *state_of(PyThreadState *self, unsigned long ident)
{
    PyThreadState *state = PyInterpreterState_ThreadHead(self->interp);
    while (state && state->thread_id != ident)
        state = PyThreadState_Next(state);
    return state;
}

/* Another thread's: the error waits for it, or, where that would hit machinery, for its next hook. */
static int hand_on(struct ask *ask, struct thread *t, PyThreadState *self)
{
    struct spot spot;
    PyThreadState *state = state_of(self, ask->ident);
    if (!state) {
        end_ask(ask, t);
        return 0;
    }
    if (is_bad_moment(state, &spot) || frames_has_error(state) ||
        delivery_is_handling(NULL, state, ask->number) || !asks_place(state)) {
        ask->state = ASK_LATER;
        return 0;
    }
    ask->state = ASK_PLACED;
    verdict_figures.errors++;
    return 0;
}

static int judge(struct ask *ask, struct thread *t, PyThreadState *state, bool is_own)
{
    bool too_often = false;
    if (!is_above(ask))
        return spare(ask, t);
    if (!is_own && ask->of_thread)
        return hand_on(ask, t, state);
    if (!ask->is_collected) {
        if (is_collecting)
            return put_off(ask, state);
        const uint64_t number = ask->number;
        ask->state = ASK_JUDGED;
        too_often = collect_in_turn(number, ask->limit);
        ask->is_collected = true;
        if (ask->state != ASK_JUDGED)
            return 0; /* its thread has closed it, or left the scope */
        if (ask->number != number)
            return spare(ask, t);
        if (!too_often && is_above(ask) && has_room(ask))
            return spare_for_room(ask, t);
    }
    if (!is_above(ask)) {
        if (!too_often)
            return spare(ask, t);
        verdict_figures.overhead++;
    }
    return is_own ? raise_here(ask, t, state) : hand_on(ask, t, state);
}

static bool is_in_loop(struct spot spot)
{
    for (bool more = spot.frame != NULL; more; more = frames_next(&spot))
        if (machinery_is_turn(&spot))
            return true;
    return false;
}

/* Between two callbacks. A loop that has ended by itself needs nothing. */
static int leave_loop(struct ask *ask, struct thread *t, PyThreadState *state)
{
    struct spot top;
    frames_top(state, &top);
    if (!is_in_loop(top)) {
        asks_close(t);
        return 0;
    }
    return machinery_is_turn(&top) && !frames_is_tracing(state) ? judge(ask, t, state, true) : put_off(ask, state);
}

static int give(void *arg)
{
    struct ask *ask = arg;
    struct thread *t = thread_self();
    struct spot spot;
    ask->is_queued = false;
    if (ask->state == ASK_ABANDONED) {
        ask->state = ASK_FREE;
        return 0;
    }
    if (asks_are_over()) {
        ask->state = ASK_LATER;
        return 0;
    }
    if (ask->state == ASK_PLACED)
        return 0;
    if (ask->number == 0) {
        end_ask(ask, t);
        return 0;
    }
    PyThreadState *state = PyThreadState_Get();
    const bool is_own = t->ask == ask;
    if (is_own && ask->leaves_loop)
        return leave_loop(ask, t, state);
    if (is_own && delivery_is_handling(t, state, ask->number)) {
        asks_close(t); /* once the handler is done, a hook asks anew */
        return 0;
    }
    if (is_own && is_bad_moment(state, &spot))
        return is_above(ask) ? put_off(ask, state) : spare(ask, t);
    return judge(ask, t, state, is_own);
}

/* What a verdict takes is not the program's: no fault counts it. */
int verdict_give(void *ask)
{
    struct thread *t = thread_self();
    const bool was_on = faults_pause(t);
    if (hooks.counts_arenas)
        zone_look();
    const int result = give(ask);
    faults_resume(t, was_on);
    return result;
}

/* ---- on_pressure() ----------------------------------------------------------------------------------- */

const char verdict_on_pressure_doc[] =
    "on_pressure(callback, *, remove=False)\n--\n\n"
    "Have callback(info) called when a limit has been passed, before anything is raised.\n\n"
    "It is to drop what can be made again: caches. info has used and limit, in bytes, and scope, the\n"
    "kind of limit. If use is then at or below the limit nothing is raised. It runs at a safe point, in\n"
    "whichever thread gets there; what it raises is reported as unraisable and ignored. Returns the\n"
    "callback, so it can be used as a decorator; remove=True takes it out again, ValueError if it is\n"
    "not there.";

PyObject *verdict_on_pressure(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"callback", "remove", NULL};
    PyObject *callback;
    int remove = 0;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$p:on_pressure", names, &callback, &remove))
        return NULL;
    if (!PyCallable_Check(callback)) {
        PyErr_Format(PyExc_TypeError, "callback=%R has the wrong type, %s: expected a callable", callback,
                     Py_TYPE(callback)->tp_name);
        return NULL;
    }
    if (!callbacks || PyThreadState_Get()->interp != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_RuntimeError, "on_pressure() works in the main interpreter only");
        return NULL;
    }
    if (!remove)
        return PyList_Append(callbacks, callback) < 0 ? NULL : Py_NewRef(callback);
    const Py_ssize_t at = PySequence_Index(callbacks, callback);
    if (at < 0) {
        PyErr_Format(PyExc_ValueError, "callback=%R is not registered", callback);
        return NULL;
    }
    return PySequence_DelItem(callbacks, at) < 0 ? NULL : Py_NewRef(callback);
}

static PyStructSequence_Field pressure_fields[] = {
    {"used", "bytes in use"},
    {"limit", "bytes that it should not pass"},
    {"scope", "the kind of limit"},
    {NULL, NULL},
};

static PyStructSequence_Desc pressure_desc = {
    .name = "zmalloc.Pressure",
    .doc = "What an on_pressure() callback is told.",
    .fields = pressure_fields,
    .n_in_sequence = 3,
};

int verdict_init(PyObject *module, PyTypeObject *limit_error)
{
    PyTypeObject *type = PyStructSequence_NewType(&pressure_desc);
    const int failed = type ? PyModule_AddType(module, type) : -1;
    Py_XDECREF(type); /* the module has it */
    if (failed)
        return -1;
    if (PyThreadState_Get()->interp != PyInterpreterState_Main() || collect)
        return 0;
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *function = gc ? PyObject_GetAttrString(gc, "collect") : NULL;
    Py_XDECREF(gc);
    pressure = (PyTypeObject *)Py_NewRef((PyObject *)type);
    callbacks = PyList_New(0);
    if (!function || !pressure || !callbacks || machinery_init() < 0)
        return -1;
    asks_error = Py_NewRef((PyObject *)limit_error);
    collect = function;
    return 0;
}
