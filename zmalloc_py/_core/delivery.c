/* delivery.c - granting above the limit, and asking for the error.
 *
 * Invariants:
 *  - Everything about asks is read and written with the main interpreter's GIL held; threads of other
 *    interpreters are refused at the limit's 3/4 and get CPython's own MemoryError.
 *  - An ask belongs to one thread, and while it is open the thread has ASKED. One that is in the queue of
 *    pending calls is freed by its call only, whatever has become of its thread.
 *  - verdict.c decides; this file brings its question there, and an error that it could not raise itself to
 *    its thread. */
#define PY_SSIZE_T_CLEAN
#include "delivery.h"

#include "asks.h"
#include "callers.h"
#include "frames.h"
#include "gauges.h"
#include "hooks.h"
#include "hooks_inside.h"
#include "limit_error.h"
#include "machinery.h"
#include "relief.h"
#include "repair.h"
#include "scopes.h"
#include "where.h"
#include "zone.h"

bool delivery_counts_debt = true;
bool delivery_closes = true;

/* ---- what is owed to unwinding --------------------------------------------------------------- */

/* From 3.11 on a traceback entry and a frame object for each frame cost four times what the frame took; before, a
 * frame is a block like any other and the entry is what comes. */
enum { CHUNK_FACTOR = 4, FIRST_CHUNK = 16 << 10, BYTES_A_CALL = 512 };

static size_t own_debt(const struct thread *t, PyThreadState *state)
{
    if (!delivery_counts_debt)
        return 0;
    if (PY_VERSION_HEX < 0x030b0000)
        return state ? (size_t)frames_depth(state) * BYTES_A_CALL : 0;
    return t->stack > FIRST_CHUNK ? (t->stack - FIRST_CHUNK) * CHUNK_FACTOR : 0;
}

struct marks {
    size_t limit, hard;
};

static struct marks marks_in_force(void)
{
    return (struct marks){atomic_load(&python_account.limit), atomic_load(&python_account.hard)};
}

static bool is_reached(struct marks m, size_t used, size_t debt)
{
    return used > m.limit || (m.hard > m.limit && (debt > m.hard || used > m.hard - debt));
}

/* Where a debt can matter a charge below the limit has to be looked at now and then: each time that use has
 * grown by a part of the reserve. */
static _Atomic int deep_threads;

static void move_watch(struct marks m, size_t used)
{
    size_t watch = SIZE_MAX;
    if (repair_is_on)
        watch = 0;
    else if (m.limit != SIZE_MAX && m.hard > m.limit &&
             (PY_VERSION_HEX < 0x030b0000 || atomic_load(&deep_threads) > 0))
        watch = used + (m.hard - m.limit) / 8;
    if (watch != atomic_load(&python_account.watch))
        zaccount_watch(&python_account, watch);
}

void delivery_limits_changed(void)
{
    const size_t limit = atomic_load(&python_account.limit), hard = atomic_load(&python_account.hard);
    move_watch((struct marks){limit, hard}, 0);
}

/* ---- granting -------------------------------------------------------------------------------- */

static bool was_opened; /* the last quarter, ever */
static _Thread_local bool has_opened; /* by what this thread was refused last */

static unsigned quarters_for(const struct thread *t, enum domain d, PyThreadState *state, size_t n)
{
    const struct marks m = marks_in_force();
    if (d == STACK || (t->state & (LENIENT | ADOPTING)))
        return 4;
    if (atomic_load(&python_account.open) && gauges_is_small(n, m.hard - m.limit))
        return 4;
    if (was_opened && !delivery_closes)
        return 4;
    return state && frames_is_tracing(state) ? 4 : 3; /* a tracing function that fails is taken out for good */
}

/* On 3.10 a function that begins with a try polls nothing on its way down, so an error asked for in a recursion
 * through such functions would come at its bottom only: the next frame is refused. */
static bool is_dive(const struct thread *t, enum domain d, PyThreadState *state, size_t n)
{
    enum { DEEPER = 32, LEAST_FRAME = 400 };
    return PY_VERSION_HEX < 0x030b0000 && d == OBJ && n >= LEAST_FRAME && state && (t->state & ASKED) &&
           !(t->state & LENIENT) && !asks_main_is_far() && frames_depth(state) > t->ask->depth + DEEPER &&
           !frames_has_error(state);
}

static size_t measured(struct thread *t, const struct ask *ask)
{
    const struct gauge *g = ask->of_thread ? gauges_find(t, ask->number) : NULL;
    return g ? (size_t)atomic_load(&g->net) : zaccount_used(&python_account);
}

/* An error on its way may free all that has been taken: not before the thread has grown again. */
static void postpone(struct thread *t, PyThreadState *state, struct ask *ask)
{
    if (ask->state == ASK_PLACED) {
        asks_withdraw(state);
        ask->state = ASK_LATER;
    }
    ask->asked_at = measured(t, ask);
}

/* CPython's own MemoryError comes of it, so that an ask is answered; an error that waits in the thread's state would
 * be raised in that one's handler. What is refused for its own size says nothing of how the thread goes on. */
static void note_refusal(struct thread *t, size_t n, size_t reserve)
{
    PyThreadState *state = frames_state();
    if (n > reserve / 4) {
        if (state && t->ask && !t->ask->leaves_loop)
            postpone(t, state, t->ask);
        return;
    }
    t->above = 0;
    if (!state || !t->ask || t->ask->leaves_loop || t->ask->state == ASK_JUDGED)
        return;
    if (t->ask->state == ASK_PLACED)
        asks_withdraw(state);
    asks_close(t);
}

static bool refused(struct thread *t, size_t n)
{
    const struct marks m = marks_in_force();
    has_opened = zaccount_open_last_quarter(&python_account);
    was_opened = true;
    scopes_note_refusal(n);
    note_refusal(t, n, m.hard - m.limit);
    return false;
}

bool delivery_cannot_refuse(enum domain d, size_t n)
{
    const bool is_flawed = PY_VERSION_HEX >= 0x030d0000 && PY_VERSION_HEX < 0x030e0000;
    return is_flawed && (d == MEM || hooks.counts_arenas) && relief_is_table_growing(n) && callers_set_a_default();
}

void delivery_note_gauge_refusal(struct thread *t, size_t n)
{
    const struct gauge *g = gauges_over(t, 0);
    if (g)
        note_refusal(t, n, g->hard - g->limit);
}

static void cross(struct thread *t, enum domain d, PyThreadState *state, size_t n);

static void end_repair(PyThreadState *state)
{
    if (!repair_is_on || state->interp != PyInterpreterState_Main())
        return;
    repair_end();
    if (!repair_is_on)
        move_watch(marks_in_force(), zaccount_used(&python_account));
}

void delivery_end_repair(void)
{
    PyThreadState *state = repair_is_on ? frames_state() : NULL;
    if (state)
        end_repair(state);
}

bool delivery_has_room_for_arena(const struct thread *t, size_t n)
{
    const struct marks m = marks_in_force();
    const size_t used = zaccount_used(&python_account);
    if (m.limit == SIZE_MAX)
        return true;
    const size_t taken = used + own_debt(t, frames_state());
    return n <= m.limit && taken <= m.limit - n;
}

/* The state of a thread whose request may ask for an error. RAW is called without the GIL, too, and where locks are held;
 * but where MEM and OBJ are not seen what they ask RAW for speaks for them. */
static PyThreadState *asking_state(enum domain d)
{
    return d != RAW || hooks.counts_arenas ? frames_state() : NULL;
}

bool delivery_take(struct thread *t, enum domain d, size_t n)
{
    PyThreadState *state = asking_state(d);
    if (state)
        end_repair(state);
    if (d == RAW && state)
        d = OBJ;
    if (is_dive(t, d, state, n))
        return refused(t, n);
    if (!zaccount_take_quarters(&python_account, n, quarters_for(t, d, state, n)) &&
        !(delivery_cannot_refuse(d, n) && zaccount_take_beyond(&python_account, n, SIZE_MAX)))
        return refused(t, n);
    cross(t, d, state, n);
    if (state)
        relief_note_grant(state, n);
    if (state && hooks.counts_arenas && (t->state & (ASKED | CROSSED)))
        zone_open();
    return true;
}

void delivery_note_refused(enum domain d)
{
    if (d != STACK)
        relief_note_refusal(frames_state());
}

void delivery_note_chunk(struct thread *t, int64_t n)
{
    const bool was_deep = t->stack > FIRST_CHUNK;
    t->stack = n < 0 && (size_t)-n > t->stack ? 0 : t->stack + (size_t)n;
    const bool is_deep = t->stack > FIRST_CHUNK;
    if (is_deep != was_deep)
        atomic_fetch_add(&deep_threads, is_deep ? 1 : -1);
    if (n < 0 || !is_deep)
        return;
    if (t->state & MEASURED)
        t->state |= CROSSED; /* the next hook sees what that means for the thread's scopes */
    if (marks_in_force().limit != SIZE_MAX)
        cross(t, STACK, frames_state(), 0);
}

/* A handler of CPython's own MemoryError that takes this much above the limit is no clean-up any more. */
#define GOES_ON (4 * DELIVERY_STEP)

/* ---- asking ---------------------------------------------------------------------------------- */

bool delivery_is_handling(const struct thread *t, PyThreadState *state, uint64_t number)
{
    if (frames_is_handling(state, limit_error_is_of, &number))
        return true;
    const bool goes_on = t && t->above >= GOES_ON;
    return !goes_on && frames_is_handling(state, limit_error_is_plain, NULL);
}

/* A verdict finds the handler of an exception that cannot be seen; what is left in a thread's state would be raised in
 * that handler. */
static bool is_unwinding_unseen(PyThreadState *state, size_t n)
{
    return asks_main_is_far() && frames_is_of_unwinding(state, n);
}

/* Is this a moment to ask, for this thread? */
static bool may_ask(const struct thread *t, PyThreadState *state, uint64_t number)
{
    struct spot spot;
    if ((t->state & (LENIENT | EXEMPT)) || asks_are_over() || frames_is_tracing(state) || frames_has_error(state) ||
        delivery_is_handling(t, state, number))
        return false;
    frames_top(state, &spot);
    return spot.frame && !machinery_is(spot); /* no frame: a thread is being started */
}

static void begin_ask(struct thread *t, PyThreadState *state, const struct ask *wanted)
{
    struct ask *ask = asks_new(wanted);
    if (!ask)
        return; /* many threads ask at once: at the next hook, then */
    ask->ident = PyThread_get_thread_ident();
    ask->depth = frames_depth(state);
    where_read(&ask->place);
    where_note_place(ask->requested, ask->limit, &ask->place);
    t->ask = ask;
    t->state |= ASKED;
    ask->state = asks_queue(ask, state) ? ASK_QUEUED : ASK_LATER;
}

/* The loop could do no more than get by without what it was refused: it is left at the end of its turn, also where
 * an error is being handled, as while asyncio.run() cancels what is left. */
static void leave_loop(struct thread *t, PyThreadState *state, size_t n)
{
    if (t->ask) {
        t->ask->leaves_loop = true;
        return;
    }
    struct ask ask = {.leaves_loop = true, .requested = n};
    const struct gauge *g = gauges_over(t, 0);
    ask.of_thread = g != NULL;
    ask.gauge = g;
    ask.number = g ? g->number : scopes_number();
    ask.limit = g ? g->limit : marks_in_force().limit;
    if (!(t->state & (LENIENT | EXEMPT)) && !asks_are_over())
        begin_ask(t, state, &ask);
}

/* Not under a plain hard cap. */
static bool has_reserve(const struct thread *t)
{
    const struct marks m = marks_in_force();
    return m.hard > m.limit || (m.limit == SIZE_MAX && gauges_have_reserve(t));
}

bool delivery_must_grant(struct thread *t, enum domain d, size_t n)
{
    PyThreadState *state = frames_state(); /* a lock is a RAW block: NULL if that is asked for without the GIL */
    if (!has_reserve(t))
        return relief_is_due_to_flaw(state, d, n);
    if (d == STACK)
        return relief_is_due_to_chunk(state, n);
    if ((t->state & LENIENT) && relief_is_due_to_verdict(n))
        return true;
    const enum relief relief = relief_is_due(state, d, n);
    if (relief == RELIEF_LOOP)
        leave_loop(t, state, n);
    if (relief == RELIEF_GUESSED && has_opened)
        zaccount_close_last_quarter(&python_account); /* a loop in C would fill it without ever being refused */
    return relief != RELIEF_NONE;
}

static bool has_grown(const struct thread *t, uint64_t number, size_t used)
{
    return t->raised_number != number || used >= t->raised_at + DELIVERY_STEP;
}

/* Has it been by the n bytes that came last? */
static bool is_passed(size_t limit, size_t used, size_t n)
{
    return used > limit && used - n <= limit;
}

/* How often the limit has been passed, by any thread. */
static _Atomic unsigned crossings;

/* A bystander, who takes a little while another runs away, is left alone: whoever has passed the limit is
 * asked, or has taken a step above it since. */
static void count_above(struct thread *t, bool crosses, size_t n)
{
    const unsigned now = atomic_load(&crossings);
    if (t->crossing != now)
        t->above = 0;
    t->crossing = now;
    t->above = crosses ? DELIVERY_STEP : t->above + n;
}

static void ask_for_process(struct thread *t, PyThreadState *state, struct marks m, size_t used, size_t n, size_t debt)
{
    const uint64_t number = scopes_number();
    const bool crosses = is_passed(m.limit, used, n);
    count_above(t, crosses || used <= m.limit, n);
    if (crosses && t->raised_number == number)
        t->raised_number = 0;
    if (t->raised_number == number && used < t->raised_at)
        t->raised_at = used;
    if (t->above < DELIVERY_STEP || is_unwinding_unseen(state, n))
        return;
    if (!has_grown(t, number, used) || !may_ask(t, state, number))
        return;
    scopes_note_crossing(used);
    begin_ask(t, state,
              &(struct ask){.number = number, .limit = m.limit, .asked_at = used, .requested = n, .debt = debt});
}

static void ask_for_thread(struct thread *t, PyThreadState *state, const struct gauge *g, size_t n, size_t debt)
{
    const int64_t now = atomic_load(&g->net);
    const size_t net = now > 0 ? (size_t)now : 0;
    if (is_unwinding_unseen(state, n))
        return;
    if (is_passed(g->limit, net, n) && t->raised_number == g->number)
        t->raised_number = 0;
    if (t->raised_number == g->number && net < t->raised_at)
        t->raised_at = net;
    if (g->hard == g->limit || !has_grown(t, g->number, net) || !may_ask(t, state, g->number))
        return;
    begin_ask(t, state,
              &(struct ask){.number = g->number, .of_thread = true, .gauge = g, .limit = g->limit, .asked_at = net,
                            .requested = n, .debt = debt});
}

/* n bytes have been granted (0: a chunk has come): is an error due? */
static void cross(struct thread *t, enum domain d, PyThreadState *state, size_t n)
{
    const struct marks m = marks_in_force();
    const size_t used = zaccount_used(&python_account), debt = own_debt(t, state);
    const bool crosses = is_passed(m.limit, used, n);
    if (crosses) {
        atomic_fetch_add(&crossings, 1);
        scopes_note_crossing(used);
    }
    if (m.hard == m.limit)
        return; /* a plain hard cap */
    if (!is_reached(m, used, debt)) {
        t->raised_number = 0;
        move_watch(m, used);
        return;
    }
    if (d == RAW) {
        t->state |= CROSSED;
        count_above(t, crosses, n);
        return;
    }
    if (state && !t->ask && state->interp == PyInterpreterState_Main())
        ask_for_process(t, state, m, used, n, debt);
}

void delivery_note_gauges(struct thread *t, enum domain d, size_t n)
{
    PyThreadState *state = d == RAW ? NULL : frames_state();
    const size_t debt = own_debt(t, state);
    const struct gauge *g = gauges_over(t, debt);
    if (!g) {
        gauges_arm(t, PY_VERSION_HEX < 0x030b0000 || debt > 0);
        return;
    }
    if (marks_in_force().limit == SIZE_MAX)
        t->above = (size_t)atomic_load(&g->net) - n <= g->limit ? n : t->above + n;
    if (state)
        relief_note_grant(state, n);
    if (t->ask)
        return;
    if (!state)
        t->state |= CROSSED;
    else if (state->interp == PyInterpreterState_Main())
        ask_for_thread(t, state, g, n, debt);
}

/* ---- an open ask ------------------------------------------------------------------------------- */

/* CPython has taken the error from where it was left, and is raising it: this hook's caller is in its way. */
static void note_raised(struct thread *t, PyThreadState *state, struct ask *ask)
{
    repair_begin(state);
    move_watch(marks_in_force(), zaccount_used(&python_account));
    struct limit_figures figures;
    asks_figures(ask, &figures);
    limit_error_leave(&figures);
    asks_note_raised(t, ask);
    asks_close(t);
}

/* May an ask that is open already be brought forward now? */
static bool may_bring(const struct thread *t, PyThreadState *state)
{
    return t->ask->leaves_loop ? !asks_are_over() : may_ask(t, state, t->ask->number);
}

static void notice_placed(struct thread *t, PyThreadState *state, struct ask *ask, size_t n)
{
    if (!asks_is_placed(state)) {
        note_raised(t, state, ask);
    } else if (is_unwinding_unseen(state, n) || !may_ask(t, state, ask->number)) {
        asks_withdraw(state);
        ask->state = ASK_LATER;
    }
}

static void notice_ask(struct thread *t, PyThreadState *state, size_t n)
{
    struct ask *ask = t->ask;
    if (ask->number == 0) {
        asks_close(t);
        return;
    }
    if (ask->is_spared) {
        asks_close_spared(t);
        return;
    }
    switch (atomic_load(&ask->state)) {
    case ASK_PLACED:
        notice_placed(t, state, ask, n);
        break;
    case ASK_LATER:
        if (!may_bring(t, state))
            break;
        if (ask->is_queued || asks_queue(ask, state))
            ask->state = ASK_QUEUED;
        break;
    case ASK_QUEUED:
        if (PY_VERSION_HEX < 0x030c0000 && measured(t, ask) >= ask->asked_at + DELIVERY_STEP && asks_main_is_far() &&
            !is_unwinding_unseen(state, n) && may_ask(t, state, ask->number) && asks_place(state))
            ask->state = ASK_PLACED;
        break;
    default:
        break;
    }
}

/* A RAW call has passed the limit, or a gauge of the thread has been. */
static void notice_crossing(struct thread *t, PyThreadState *state)
{
    const struct marks m = marks_in_force();
    const size_t used = zaccount_used(&python_account);
    t->state &= ~(unsigned)CROSSED;
    const size_t debt = own_debt(t, state);
    const struct gauge *g = gauges_over(t, debt);
    if (g && g->hard > g->limit) {
        ask_for_thread(t, state, g, 0, debt);
        if (!t->ask)
            t->state |= CROSSED; /* not now: at the next hook */
        return;
    }
    if (m.hard > m.limit && is_reached(m, used, debt))
        ask_for_process(t, state, m, used, 0, debt);
}

void delivery_notice(struct thread *t, size_t n)
{
    PyThreadState *state = frames_state();
    if (!state || state->interp != PyInterpreterState_Main())
        return;
    if (t->state & ASKED)
        notice_ask(t, state, n);
    else if (t->state & CROSSED)
        notice_crossing(t, state);
}
