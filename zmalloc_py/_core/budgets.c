/* budgets.c - scopes that begin with what is in use: budget() caps it, track() measures.
 *
 * A process's scope is one of the set (scopes.h), a thread's is a gauge of that thread (gauges.h). The figures of
 * one that has ended are kept in its object. */
#define PY_SSIZE_T_CLEAN
#include "budgets.h"

#include "asks.h"
#include "gauges.h"
#include "hooks.h"
#include "limit_error.h"
#include "caps.h"
#include "scopes.h"
#include "sizes.h"
#include "verdict.h"
#include "with.h"
#include "zsize.h"

#include <structmember.h>

/* Both kinds of object. */
typedef struct {
    With with;
    bool is_thread, was_entered, is_entered;
    size_t n, reserve;    /* of a budget; SIZE_MAX: it only measures */
    struct scope *scope;  /* of the process, */
    struct gauge *gauge;  /* or of a thread, while it is entered */
    uint64_t number;      /* of the gauge's scope */
    int64_t net, peak, allocations, frees; /* at the end; before: counts at the beginning */
    bool hit;
} Budget;

static const char budget_name[] = "budget", thread_name[] = "thread budget", track_name[] = "track";

/* ---- figures ------------------------------------------------------------------------------------------- */

static void count_all(int64_t *allocations, int64_t *frees)
{
    struct hook_figures f;
    hooks_figures(&f);
    *allocations = *frees = 0;
    for (int d = 0; d < DOMAINS; d++) {
        *allocations += f.domain[d].allocations;
        *frees += f.domain[d].frees;
    }
}

struct measured {
    int64_t net, peak, allocations, frees;
    bool hit;
};

static struct measured measure(const Budget *b)
{
    struct measured m = {b->net, b->peak, b->allocations, b->frees, b->hit};
    if (!b->is_entered)
        return b->was_entered ? m : (struct measured){0, 0, 0, 0, false};
    if (b->gauge) {
        const struct gauge_figures f = gauges_read(b->gauge);
        return (struct measured){f.net, f.peak, f.allocations, f.frees, b->gauge->hit};
    }
    const int64_t start = (int64_t)b->scope->start;
    m.net = (int64_t)zaccount_used(&python_account) - start;
    m.peak = (int64_t)scope_peak(b->scope) - start;
    m.hit = b->scope->is_hit;
    count_all(&m.allocations, &m.frees);
    m.allocations -= b->allocations;
    m.frees -= b->frees;
    return m;
}

static void keep(Budget *b)
{
    const struct measured m = measure(b);
    b->net = m.net;
    b->peak = m.peak;
    b->allocations = m.allocations;
    b->frees = m.frees;
    b->hit = m.hit;
}

/* ---- entering -------------------------------------------------------------------------------------------- */

static struct gauge *new_gauge(const Budget *b)
{
    struct gauge *g = gauges_new();
    if (!g)
        return NULL;
    g->number = b->number;
    g->limit = b->n;
    g->hard = b->n == SIZE_MAX || b->reserve > SIZE_MAX - b->n ? SIZE_MAX : b->n + b->reserve;
    g->is_clamped = b->n != SIZE_MAX;
    return g;
}

static PyObject *budget_enter(PyObject *op)
{
    Budget *b = (Budget *)op;
    if (b->was_entered) {
        PyErr_Format(PyExc_RuntimeError,
                     "this %s has been entered already: call zmalloc.%s() anew for each with statement",
                     b->n == SIZE_MAX ? "track" : "budget", b->n == SIZE_MAX ? "track" : "budget");
        return NULL;
    }
    b->was_entered = b->is_entered = true;
    if (b->gauge) {
        gauges_add(b->gauge);
        return Py_NewRef(op);
    }
    count_all(&b->allocations, &b->frees);
    scope_enter(b->scope, b->n, b->reserve);
    return Py_NewRef(op);
}

/* ---- leaving --------------------------------------------------------------------------------------------- */

static PyObject *raise_of_thread(PyObject *module, const Budget *b, size_t net)
{
    struct limit_figures f = {.number = b->number, .scope = thread_name, .used = net, .limit = b->n,
                              .hard = b->n + b->reserve};
    where_read(&f.place);
    PyObject *error = module ? limit_error_new(limit_error_type(module), &f) : NULL;
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
        verdict_figures.errors++;
    }
    return NULL;
}

/* The gauge goes on counting while the garbage is collected, without refusing. */
static PyObject *leave_gauge(PyObject *module, Budget *b, PyObject *error)
{
    struct gauge *g = b->gauge;
    const bool is_own = g->tied.thread == thread_self();
    const bool looks = b->n != SIZE_MAX && error == Py_None && is_own && atomic_load(&g->unsettled);
    g->limit = g->hard = SIZE_MAX;
    asks_forget(b->number);
    keep(b);
    if (looks && b->net > 0 && (size_t)b->net > b->n)
        verdict_collect(thread_name, 0);
    const int64_t net = gauges_read(g).net;
    b->is_entered = false;
    b->gauge = NULL;
    if (gauges_remove(g))
        gauges_free(g);
    if (!looks || net <= 0 || (size_t)net <= b->n)
        Py_RETURN_NONE;
    b->hit = true;
    return raise_of_thread(module, b, (size_t)net);
}

static PyObject *budget_leave(PyObject *op, PyObject *error)
{
    Budget *b = (Budget *)op;
    PyObject *module = PyType_GetModule(Py_TYPE(op));
    if (!b->is_entered)
        Py_RETURN_NONE;
    if (b->gauge)
        return leave_gauge(module, b, error);
    scope_leave(b->scope); /* before the figures are read: lifting the cap comes first */
    b->net = (int64_t)zaccount_used(&python_account) - (int64_t)b->scope->start;
    b->peak = (int64_t)scope_peak(b->scope) - (int64_t)b->scope->start;
    int64_t allocations, frees;
    count_all(&allocations, &frees);
    b->allocations = allocations - b->allocations;
    b->frees = frees - b->frees;
    b->is_entered = false;
    PyObject *result = caps_leave(module, b->scope, error);
    b->hit = b->scope->is_hit;
    return result;
}

static void budget_dealloc(PyObject *op)
{
    Budget *b = (Budget *)op;
    PyObject *type, *value, *traceback;
    if (b->is_entered) { /* a with statement that was never left, in a generator that was dropped */
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *result = budget_leave(op, Py_True);
        Py_XDECREF(result);
        PyErr_Restore(type, value, traceback);
    }
    if (b->scope)
        scope_free(b->scope);
    gauges_free(b->gauge);
    with_dealloc(op);
}

/* ---- the decorator ------------------------------------------------------------------------------------------ */

static PyObject *budget_call(PyObject *op, PyObject *args, PyObject *keywords)
{
    const Budget *b = (Budget *)op;
    if (PyTuple_GET_SIZE(args) != 1 || keywords || !PyCallable_Check(PyTuple_GET_ITEM(args, 0))) {
        PyErr_SetString(PyExc_TypeError, "a budget is called with the function that it decorates");
        return NULL;
    }
    PyObject *helper = PyImport_ImportModule("zmalloc._decorate");
    PyObject *result = helper ? PyObject_CallMethod(helper, "decorate", "OnnO", PyTuple_GET_ITEM(args, 0),
                                                    (Py_ssize_t)b->n, (Py_ssize_t)b->reserve,
                                                    b->is_thread ? Py_True : Py_False)
                              : NULL;
    Py_XDECREF(helper);
    return result;
}

/* ---- the attributes ------------------------------------------------------------------------------------------ */

static PyObject *get_net(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(measure((Budget *)op).net);
}

static PyObject *get_peak(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(measure((Budget *)op).peak);
}

static PyObject *get_allocations(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(measure((Budget *)op).allocations);
}

static PyObject *get_frees(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(measure((Budget *)op).frees);
}

static PyObject *get_remaining(PyObject *op, void *unused)
{
    (void)unused;
    const Budget *b = (Budget *)op;
    const int64_t net = measure(b).net, most = b->n > INT64_MAX ? INT64_MAX : (int64_t)b->n;
    return PyLong_FromLongLong(net > most ? 0 : net < 0 && most > INT64_MAX + net ? INT64_MAX : most - net);
}

static PyObject *get_hit(PyObject *op, void *unused)
{
    (void)unused;
    return PyBool_FromLong(measure((Budget *)op).hit);
}

static PyObject *get_n(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((Budget *)op)->n);
}

static PyObject *get_reserve(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((Budget *)op)->reserve);
}

static PyObject *get_thread(PyObject *op, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Budget *)op)->is_thread);
}

static PyObject *get_async(PyObject *op, void *unused)
{
    (void)unused;
    PyErr_Format(PyExc_TypeError, "%s works in a plain with statement, also inside async functions",
                 Py_TYPE(op)->tp_name);
    return NULL;
}

static const char *state_of(const Budget *b)
{
    return b->is_entered ? "entered" : b->was_entered ? "ended" : "not entered";
}

static PyObject *budget_repr(PyObject *op)
{
    const Budget *b = (Budget *)op;
    char n[ZSIZE_TEXT];
    return PyUnicode_FromFormat("<zmalloc.budget %s%s, %s>", zsize_format(n, b->n), b->is_thread ? " of a thread" : "",
                                state_of(b));
}

static PyObject *track_repr(PyObject *op)
{
    const Budget *b = (Budget *)op;
    const struct measured m = measure(b);
    return PyUnicode_FromFormat("<zmalloc.track%s, %s, net %lld B, peak %lld B, %lld allocations, %lld frees>",
                                b->is_thread ? " of a thread" : "", state_of(b), (long long)m.net, (long long)m.peak,
                                (long long)m.allocations, (long long)m.frees);
}

static PyGetSetDef budget_getset[] = {
    {"__aenter__", get_async, NULL, NULL, NULL},
    {"n", get_n, NULL, "Bytes that it allows beyond what was in use when it was entered.", NULL},
    {"reserve", get_reserve, NULL, "Bytes beyond that for the error and its handlers.", NULL},
    {"thread", get_thread, NULL, "Whether it is of one thread.", NULL},
    {"used", get_net, NULL,
     "Bytes in use now beyond what was in use when it was entered; once it has ended, at its end.", NULL},
    {"peak", get_peak, NULL, "The most that used has been.", NULL},
    {"remaining", get_remaining, NULL, "Bytes that are left of it, 0 if it has been passed.", NULL},
    {"hit", get_hit, NULL, "Whether it has raised an error or refused something.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef track_getset[] = {
    {"__aenter__", get_async, NULL, NULL, NULL},
    {"thread", get_thread, NULL, "Whether it measures one thread.", NULL},
    {"net", get_net, NULL,
     "Bytes taken less bytes freed since it was entered, until its end. Below 0 where more was freed.", NULL},
    {"peak", get_peak, NULL, "The most that net has been.", NULL},
    {"allocations", get_allocations, NULL, "Blocks taken; a realloc is neither that nor a free.", NULL},
    {"frees", get_frees, NULL, "Blocks given back.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const struct with_way budget_way = {"Budget", budget_enter, budget_leave};
static const struct with_way track_way = {"Track", budget_enter, budget_leave};

static PyType_Slot budget_slots[] = {
    {Py_tp_doc, "A budget: see zmalloc.budget()."},
    {Py_tp_dealloc, budget_dealloc},
    {Py_tp_call, budget_call},
    {Py_tp_repr, budget_repr},
    {Py_tp_getset, budget_getset},
    {0, NULL},
};

static PyType_Slot track_slots[] = {
    {Py_tp_doc, "What a block takes and gives back: see zmalloc.track()."},
    {Py_tp_dealloc, budget_dealloc},
    {Py_tp_repr, track_repr},
    {Py_tp_getset, track_getset},
    {0, NULL},
};

static PyType_Spec budget_spec = {
    .name = "zmalloc.Budget",
    .basicsize = sizeof(Budget),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = budget_slots,
};

static PyType_Spec track_spec = {
    .name = "zmalloc.Track",
    .basicsize = sizeof(Budget),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = track_slots,
};

/* ---- budget(), track() ------------------------------------------------------------------------------------------ */

static PyObject *make(PyObject *module, PyTypeObject *type, const struct with_way *way, size_t n, size_t reserve,
                      bool is_thread)
{
    if (caps_need_hooks() < 0)
        return NULL;
    Budget *b = (Budget *)with_new(with_types_of(module), type, sizeof *b, way);
    if (!b)
        return NULL;
    b->n = n;
    b->reserve = reserve;
    b->is_thread = is_thread;
    if (is_thread) {
        b->number = scopes_new_number();
        b->gauge = new_gauge(b);
    } else {
        b->scope = scope_new(scope_no_marks, n == SIZE_MAX ? track_name : budget_name);
    }
    if (b->gauge || b->scope)
        return (PyObject *)b;
    Py_DECREF(b);
    return PyErr_NoMemory();
}

PyObject *budgets_budget(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"n", "reserve", "thread", NULL};
    PyObject *size, *told = NULL;
    int is_thread = 0;
    size_t n, reserve = CAPS_USUAL_RESERVE;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$Op:budget", names, &size, &told, &is_thread))
        return NULL;
    if (size_from_object(size, "budget", &n) < 0 || (told && caps_reserve_from_object(told, &reserve) < 0))
        return NULL;
    if (is_thread && caps_need_exact("budget(thread=True)") < 0)
        return NULL;
    return make(module, budgets_types(module)->budget, &budget_way, n, reserve, is_thread);
}

PyObject *budgets_track(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"thread", NULL};
    int is_thread = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$p:track", names, &is_thread) || caps_need_exact("track()") < 0)
        return NULL;
    return make(module, budgets_types(module)->track, &track_way, SIZE_MAX, 0, is_thread);
}

PyObject *budgets_track_process(PyObject *module, PyObject *unused)
{
    (void)unused;
    return make(module, budgets_types(module)->track, &track_way, SIZE_MAX, 0, false);
}

const char budgets_budget_doc[] =
    "budget(n, *, reserve=\"1 MiB\", thread=False)\n--\n\n"
    "At most n bytes more than are in use when it is entered: for a with statement or as a decorator.\n\n"
    "What passes it gets a LimitError as from limit(), and used() never passes the start + n + reserve.\n"
    "Budgets of several threads and tasks, and limits, are a set: the smallest is in force, leaving one\n"
    "removes that one. The object has used, peak, remaining and hit, also after its end.\n\n"
    "thread=True counts what this thread takes less what it frees itself, from zero, so that each worker\n"
    "of a pool has its own: other threads are not refused for it. A block that another thread frees stays\n"
    "charged, and freeing what was there before gives no credit.\n\n"
    "Raises ValueError, TypeError or OverflowError for what is no size; TypeError as the decorator of a\n"
    "generator or an async function, whose call only makes an object: use a with statement inside.";

const char budgets_track_doc[] =
    "track(*, thread=False)\n--\n\n"
    "Measure a with statement: net, peak, allocations and frees, of the process or of this thread.\n\n"
    "The figures are exact, and can be read while it runs and after its end.";

/* ---- exempt() --------------------------------------------------------------------------------------------------- */

typedef struct {
    With with;
    const struct thread *thread; /* while it is entered */
} Exempt;

static PyObject *exempt_enter(PyObject *op)
{
    Exempt *self = (Exempt *)op;
    struct thread *t = thread_self();
    if (scopes_sealed().limit != SIZE_MAX) {
        PyErr_SetString(PyExc_PermissionError, "the limit is sealed: no thread is exempt from it");
        return NULL;
    }
    if (self->thread) {
        PyErr_SetString(PyExc_RuntimeError, "this exemption has been entered already: call zmalloc.exempt() anew");
        return NULL;
    }
    if (t->state & UNLISTED)
        thread_join(t);
    self->thread = t;
    t->exempt++;
    t->state |= LENIENT;
    return Py_NewRef(op);
}

static PyObject *exempt_leave(PyObject *op, PyObject *error)
{
    Exempt *self = (Exempt *)op;
    struct thread *t = thread_self();
    (void)error;
    if (!self->thread)
        Py_RETURN_NONE;
    if (self->thread != t) {
        PyErr_SetString(PyExc_RuntimeError, "an exemption is left by the thread that has entered it");
        return NULL;
    }
    self->thread = NULL;
    if (--t->exempt == 0)
        t->state &= ~(unsigned)LENIENT;
    Py_RETURN_NONE;
}

static void exempt_dealloc(PyObject *op)
{
    Exempt *self = (Exempt *)op;
    if (self->thread == thread_self())
        Py_XDECREF(exempt_leave(op, Py_None));
    with_dealloc(op);
}

static const struct with_way exempt_way = {"Exempt", exempt_enter, exempt_leave};

static PyType_Slot exempt_slots[] = {
    {Py_tp_doc, "An exemption: see zmalloc.exempt()."},
    {Py_tp_dealloc, exempt_dealloc},
    {0, NULL},
};

static PyType_Spec exempt_spec = {
    .name = "zmalloc.Exempt",
    .basicsize = sizeof(Exempt),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = exempt_slots,
};

const char budgets_exempt_doc[] =
    "exempt()\n--\n\n"
    "In a with statement: this thread is refused nothing up to the hard limit, and gets no LimitError.\n\n"
    "For watchdogs and logging, which have to work while others run away. Other threads may get an error\n"
    "for what it takes. PermissionError under a sealed limit.";

PyObject *budgets_exempt(PyObject *module, PyObject *unused)
{
    (void)unused;
    return with_new(with_types_of(module), budgets_types(module)->exempt, sizeof(Exempt), &exempt_way);
}

/* ---- once ------------------------------------------------------------------------------------------------------- */

static PyTypeObject *make_type(PyObject *module, PyType_Spec *spec, const struct with_way *way)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type || with_equip(with_types_of(module), type, way) < 0 || PyModule_AddType(module, type) < 0) {
        Py_XDECREF(type);
        return NULL;
    }
    return type;
}

int budgets_init(PyObject *module, struct budget_types *types)
{
    types->budget = make_type(module, &budget_spec, &budget_way);
    types->track = types->budget ? make_type(module, &track_spec, &track_way) : NULL;
    types->exempt = types->track ? make_type(module, &exempt_spec, &exempt_way) : NULL;
    return types->exempt ? 0 : -1;
}
