/* install.c - putting the hooks on CPython's chains, and finding out whether they are there.
 *
 * Invariants:
 *  - Hooks are put in, never taken out: whoever saved them may put them back at any time.
 *  - Whether they are in is found out by a probe allocation. Other tools put old allocators back blindly. */
#define PY_SSIZE_T_CLEAN
#include "hooks.h"
#include "hooks_inside.h"
#include "arenas.h"
#include "asks.h"
#include "delivery.h"
#include "faults.h"
#include "gauges.h"
#include "repair.h"
#include "scopes.h"
#include "zone.h"

#include <string.h>

static const PyMemAllocatorDomain py_domain[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                                  PYMEM_DOMAIN_OBJ};

/* ---- probing and installing ----------------------------------------------------------------- */

void hooks_probe_begin(void)
{
    struct thread *t = thread_self();
    if (t->state & UNLISTED)
        thread_join(t);
    t->state |= PROBING;
    t->seen = 0;
}

unsigned hooks_probe_end(void)
{
    struct thread *t = thread_self();
    t->state &= ~(unsigned)PROBING;
    return t->seen;
}

/* Which domains' hooks a small (or large) request in domain d reaches. */
static unsigned probe(enum domain d, size_t n)
{
    hooks_probe_begin();
    void *p = d == RAW ? PyMem_RawMalloc(n) : d == MEM ? PyMem_Malloc(n) : PyObject_Malloc(n);
    const unsigned seen = hooks_probe_end();
    if (d == RAW)
        PyMem_RawFree(p);
    else if (d == MEM)
        PyMem_Free(p);
    else
        PyObject_Free(p);
    return seen;
}

static bool is_reached(enum domain d)
{
    return probe(d, 1) & 1u << d;
}

static bool is_ours(const PyObjectArenaAllocator *found)
{
    return found->alloc == hooks_our_arena.alloc;
}

static bool are_arenas_ours(void)
{
    PyObjectArenaAllocator found;
    PyObject_GetArenaAllocator(&found);
    return is_ours(&found);
}

/* The last domain that has hooks. */
static enum domain last_hooked(void)
{
    return hooks.counts_arenas ? RAW : OBJ;
}

bool hooks_are_installed(void)
{
    for (enum domain d = RAW; d <= last_hooked(); d++)
        if (!hooks.installed || !is_reached(d))
            return false;
    return !hooks.counts_arenas || are_arenas_ours();
}

bool hooks_count_arenas(void)
{
    return hooks.counts_arenas;
}

bool hooks_were_installed(void)
{
    return hooks.installed;
}

bool hooks_held_is_used(void)
{
    return hooks.held_is_used;
}

static void wrap(enum domain d)
{
    PyMemAllocatorEx found, ours = hooks_ours[d];
    PyMem_GetAllocator(py_domain[d], &found);
    if (memcmp(&hooks_original[d], &found, sizeof found) != 0)
        hooks_original[d] = found;
    ours.ctx = found.ctx;
    PyMem_SetAllocator(py_domain[d], &ours);
}

static void wrap_arenas(void)
{
    PyObjectArenaAllocator found;
    PyObject_GetArenaAllocator(&found);
    if (is_ours(&found))
        return;
    hooks_original_arena = found;
    PyObjectArenaAllocator ours = hooks_our_arena;
    ours.ctx = found.ctx;
    PyObject_SetArenaAllocator(&ours);
}

/* The hooks were out for a while: what the map says can no longer be trusted. Frame chunks were seen all
 * the time, their hook is not one that others restore. Under a cap what was charged stays charged. */
static void begin_anew(void)
{
    struct sums sum[DOMAINS];
    figures_sum(sum);
    zmap_forget(&hooks_map);
    const int64_t kept = hooks.counts_arenas ? (int64_t)(arenas_count() * ARENA_SIZE) : 0;
    const int64_t blocks = sum[RAW].used + sum[MEM].used + sum[OBJ].used - kept;
    const size_t bytes = blocks > 0 ? (size_t)blocks : 0;
    threads_adjust(RAW, -sum[RAW].used);
    threads_adjust(MEM, -sum[MEM].used);
    if (is_capped(&python_account))
        hooks.lost += bytes;
    else
        zaccount_drop_alone(&python_account, bytes);
    if (!is_capped(&held_account))
        atomic_store(&held_account.used, atomic_load(&hooks.arenas) + (size_t)sum[STACK].used);
}

/* The size of what MEM and OBJ take from the system is known to RAW only if they ask RAW for it. */
static void find_out_about_held(void)
{
    hooks.held_is_used = hooks.counts_arenas || !(probe(OBJ, 4096) & 1u << RAW);
}

static bool are_many_interpreters(void)
{
    return PyInterpreterState_Next(PyInterpreterState_Head()) != NULL;
}

/* Without an import: an interpreter with a GIL of its own is refused that of _tracemalloc. No block is at NULL. */
static bool is_tracing(void)
{
    return PyTraceMalloc_Untrack(0, 0) != -2;
}

/* tracemalloc's stop() puts back what it found at its start, so it has to start after us. */
static PyObject *stop_tracemalloc(void)
{
    if (!is_tracing())
        Py_RETURN_NONE;
    PyObject *module = PyImport_ImportModule("_tracemalloc");
    PyObject *limit = module ? PyObject_CallMethod(module, "get_traceback_limit", NULL) : NULL;
    PyObject *done = limit ? PyObject_CallMethod(module, "stop", NULL) : NULL;
    if (!done)
        Py_CLEAR(limit);
    Py_XDECREF(done);
    Py_XDECREF(module);
    return limit; /* None: it was not running; NULL: an exception is set */
}

static int restart_tracemalloc(PyObject *limit)
{
    PyObject *module = PyImport_ImportModule("_tracemalloc");
    PyObject *done = module ? PyObject_CallMethod(module, "start", "O", limit) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(module);
    return done ? 0 : -1;
}

static int install(void)
{
    if (hooks_are_installed())
        return 0;
    PyObject *traced = stop_tracemalloc();
    if (!traced)
        return -1;
    const bool again = hooks.installed;
    for (enum domain d = RAW; d <= last_hooked(); d++) {
        if (!hooks.installed || !is_reached(d)) /* tracemalloc's stop may have brought some back */
            wrap(d);
    }
    wrap_arenas();
    if (again) {
        begin_anew();
        hooks.reinstalled++;
    }
    hooks.installed = true;
    hooks_have_many_gils(hooks.many_gils || (PY_VERSION_HEX >= 0x030c0000 && are_many_interpreters()));
    find_out_about_held();
    const int failed = traced == Py_None ? 0 : restart_tracemalloc(traced);
    Py_DECREF(traced);
    return failed ? -1 : 1;
}

/* No probe before there is an interpreter: pymalloc has its state there from 3.12 on. */
static bool is_early;

void hooks_install_early(void)
{
    for (enum domain d = RAW; d <= OBJ; d++)
        wrap(d);
    wrap_arenas();
    hooks.installed = true;
    is_early = true;
}

/* What could not be told before there was an interpreter. The making of the first one has looked like that of
 * another to the hooks. */
static void settle_early(void)
{
    is_early = false;
    hooks_have_many_gils(PY_VERSION_HEX >= 0x030c0000 && are_many_interpreters());
    find_out_about_held();
}

/* ---- modes ------------------------------------------------------------------------------------ */

static bool is_on_top(enum domain d)
{
    PyMemAllocatorEx found;
    PyMem_GetAllocator(py_domain[d], &found);
    return found.malloc == hooks_ours[d].malloc;
}

static void unwrap(enum domain d)
{
    if (hooks.installed && is_on_top(d))
        PyMem_SetAllocator(py_domain[d], &hooks_original[d]);
}

static const char *why_no_arenas(void)
{
    if (!(probe(OBJ, 4096) & 1u << RAW))
        return "objects do not come from pymalloc's arenas here (PYTHONMALLOC)";
    if (is_reached(MEM) || is_reached(OBJ))
        return "another tool has been put on top of the hooks that count each object";
    return arenas_are_readable() ? NULL : "the pools of this interpreter are not as expected";
}

/* Tries; what is found to be wrong is undone by installing all hooks. */
static const char *install_held(void)
{
    const bool again = hooks.installed;
    unwrap(MEM);
    unwrap(OBJ);
    if (!again || !is_reached(RAW))
        wrap(RAW);
    wrap_arenas();
    hooks.installed = true;
    const char *why = why_no_arenas();
    if (again)
        begin_anew();
    if (why)
        return why;
    hooks.counts_arenas = true;
    find_out_about_held();
    hooks_have_many_gils(hooks.many_gils || (PY_VERSION_HEX >= 0x030c0000 && are_many_interpreters()));
    return NULL;
}

static int install_exact(void)
{
    if (!hooks.counts_arenas)
        return install();
    PyObject *traced = stop_tracemalloc();
    if (!traced)
        return -1;
    zone_close();
    for (enum domain d = RAW; d <= OBJ; d++)
        if (d != RAW || !is_reached(RAW))
            wrap(d);
    hooks.counts_arenas = false;
    begin_anew();
    find_out_about_held();
    scopes_mode_changed();
    const int failed = traced == Py_None ? 0 : restart_tracemalloc(traced);
    Py_DECREF(traced);
    return failed ? -1 : 1;
}

/* Interpreters with a GIL each may come at once. The lock is waited for without the GIL; a fork may then
 * come between, so a child begins with a lock of its own. */
static zport_mutex install_lock = ZPORT_MUTEX_INIT;
static _Atomic(struct thread *) installer; /* whoever has it: installing runs code that may come here */

static bool begin_installing(void)
{
    if (atomic_load(&installer) == thread_self())
        return false;
    Py_BEGIN_ALLOW_THREADS
    zport_lock(&install_lock);
    Py_END_ALLOW_THREADS
    atomic_store(&installer, thread_self());
    return true;
}

static void end_installing(void)
{
    atomic_store(&installer, NULL);
    zport_unlock(&install_lock);
}

int hooks_install(void)
{
    if (hooks_are_installed()) {
        if (is_early)
            settle_early();
        return 0;
    }
    if (!begin_installing())
        return 0;
    const int result = install();
    end_installing();
    return result;
}

int hooks_install_exact(void)
{
    if (!hooks.counts_arenas)
        return hooks_install();
    if (!begin_installing())
        return 0;
    const int result = install_exact();
    end_installing();
    return result;
}

int hooks_install_held(const char **why)
{
    *why = NULL;
    if (hooks.counts_arenas)
        return hooks_install() < 0 ? -1 : 1;
    if (!begin_installing())
        return 0;
    PyObject *traced = stop_tracemalloc();
    int result = -1;
    if (traced) {
        is_early = false;
        *why = install_held();
        result = !*why;
        if (*why && install() < 0)
            result = -1;
        scopes_mode_changed();
        if (traced != Py_None && restart_tracemalloc(traced) < 0)
            result = -1;
        Py_DECREF(traced);
    }
    end_installing();
    return result;
}

static void nothing(void)
{
}

static void in_child(void)
{
    asks_forked();
    arenas_forked();
    install_lock = (zport_mutex)ZPORT_MUTEX_INIT;
    atomic_store(&installer, NULL);
}

/* ---- once --------------------------------------------------------------------------------- */

static void thread_ended(struct thread *t)
{
    asks_thread_ended(t);
    gauges_thread_ended(t);
    faults_thread_ended(t);
    repair_thread_ended(t);
    delivery_note_chunk(t, -(int64_t)t->stack);
}

void hooks_init(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&done))
        return;
    zaccount_enlist(&python_account);
    threads_init(figures_recount, thread_ended);
    zport_atfork(nothing, nothing, in_child);
}
