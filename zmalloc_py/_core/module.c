/* module.c - the extension module zmalloc._core: thin functions around hooks.c, scopes.c and runner.c. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "accounts.h"
#include "arrays.h"
#include "budgets.h"
#include "delivery.h"
#include "fail_after.h"
#include "hooks.h"
#include "limit_error.h"
#include "caps.h"
#include "modes.h"
#include "repair.h"
#include "runner.h"
#include "scopes.h"
#include "sizes.h"
#include "verdict.h"
#include "where.h"
#include "zmalloc.h"
#include "zmalloc_capi.h"
#include "zmalloc_embed.h"
#include "zsize.h"

/* Each interpreter's module has types of its own. */
struct state {
    struct with_types with;
    struct budget_types budgets;
    PyTypeObject *limit, *limit_error, *account, *fail_after;
};

static struct state *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

const struct with_types *with_types_of(PyObject *module)
{
    return &state_of(module)->with;
}

const struct budget_types *budgets_types(PyObject *module)
{
    return &state_of(module)->budgets;
}

PyTypeObject *caps_type(PyObject *module)
{
    return state_of(module)->limit;
}

PyTypeObject *limit_error_type(PyObject *module)
{
    return state_of(module)->limit_error;
}

PyTypeObject *account_type(PyObject *module)
{
    return state_of(module)->account;
}

PyTypeObject *fail_after_type(PyObject *module)
{
    return state_of(module)->fail_after;
}

/* ---- figures ------------------------------------------------------------------------------- */

static PyObject *py_used(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromSize_t(zaccount_used(&python_account));
}

static PyObject *py_total(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromSize_t(zmalloc_total());
}

static PyObject *py_peak(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromSize_t(zaccount_peak(&python_account));
}

static PyObject *py_reset_peak(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    zaccount_reset_peak(&python_account);
    Py_RETURN_NONE;
}

static PyObject *py_rss(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromSize_t(zmalloc_get_rss());
}

static PyObject *py_audit(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct audit a;
    hooks_audit(&a);
    return Py_BuildValue("nnnn", (Py_ssize_t)a.used, (Py_ssize_t)a.counted, (Py_ssize_t)a.stack,
                         (Py_ssize_t)a.blocks);
}

/* Sets name to value, which it takes over; false if either fails. */
static bool put(PyObject *dict, const char *name, PyObject *value)
{
    const bool done = value && PyDict_SetItemString(dict, name, value) == 0;
    Py_XDECREF(value);
    return done;
}

/* Does an error reach the handler beside a loop? By the repair, or because this version needs none. */
static bool is_handler_found(void)
{
    return FRAMES_ARE_KNOWN && (!REPAIR_IS_NEEDED || repair_is_allowed);
}

static PyObject *domain_figures(const struct hook_figures *f, enum domain d)
{
    return Py_BuildValue("LLLK", (long long)f->domain[d].used, (long long)f->domain[d].allocations,
                         (long long)f->domain[d].frees, (unsigned long long)f->refusals[d]);
}

static PyObject *core_name(void)
{
    const struct zcore *owner = zcore_owner();
    if (owner == &zcore_self)
        return PyUnicode_FromFormat("zmalloc %s", ZMALLOC_VERSION);
    const char *object = zport_object_name(owner);
    return PyUnicode_FromFormat("zmalloc %s in %s", owner->version, object ? object : "?");
}

/* All figures, read before the first of them becomes an object. */
struct snapshot {
    struct zaccount_figures python, held;
    struct hook_figures hooks;
    size_t total, rss;
    struct scope_marks marks;
};

static void take_snapshot(struct snapshot *s)
{
    zaccount_stats(&python_account, &s->python);
    s->python.peak = scopes_peak();
    zaccount_stats(&held_account, &s->held);
    hooks_figures(&s->hooks);
    s->total = zmalloc_total();
    s->rss = zmalloc_get_rss();
    s->marks = scopes_in_force();
    if (hooks_held_is_used())
        s->held.used = s->python.used;
}

static bool put_figures(PyObject *dict, const struct snapshot *s)
{
    static const char *const names[DOMAINS] = {"raw", "mem", "obj", "stack"};
    uint64_t refusals = 0;
    int64_t allocations = 0, frees = 0;
    for (int d = 0; d < DOMAINS; d++) {
        allocations += s->hooks.domain[d].allocations;
        frees += s->hooks.domain[d].frees;
        refusals += s->hooks.refusals[d];
        if (!put(dict, names[d], domain_figures(&s->hooks, (enum domain)d)))
            return false;
    }
    const size_t limit = s->marks.limit, hard = s->marks.hard;
    const size_t reserve = hard == SIZE_MAX ? 0 : hard - limit;
    return put(dict, "used", PyLong_FromSize_t(s->python.used)) &&
           put(dict, "total", PyLong_FromSize_t(s->total)) &&
           put(dict, "peak", PyLong_FromSize_t(s->python.peak)) &&
           put(dict, "limit", caps_size_or_none(limit)) &&
           put(dict, "hard_limit", caps_size_or_none(hard)) &&
           put(dict, "reserve", PyLong_FromSize_t(reserve)) &&
           put(dict, "limit_hit", PyBool_FromLong(s->python.limit_hit || s->held.limit_hit)) &&
           put(dict, "allocations", PyLong_FromLongLong(allocations)) &&
           put(dict, "frees", PyLong_FromLongLong(frees)) &&
           put(dict, "refusals", PyLong_FromUnsignedLongLong(refusals)) &&
           put(dict, "last_refused", where_last()) &&
           put(dict, "limit_errors", PyLong_FromUnsignedLongLong(verdict_figures.errors)) &&
           put(dict, "collections", PyLong_FromUnsignedLongLong(verdict_figures.collections)) &&
           put(dict, "overhead_errors", PyLong_FromUnsignedLongLong(verdict_figures.overhead)) &&
           put(dict, "handler_repair", PyBool_FromLong(is_handler_found())) &&
           put(dict, "untracked", PyLong_FromUnsignedLongLong(s->hooks.untracked)) &&
           put(dict, "reinstalled", PyLong_FromUnsignedLongLong(s->hooks.reinstalled)) &&
           put(dict, "held", PyLong_FromSize_t(s->held.used)) &&
           put(dict, "held_limit", caps_size_or_none(s->marks.held)) &&
           put(dict, "mode", PyUnicode_FromString(modes_name())) &&
           put(dict, "mode_note", modes_note() ? PyUnicode_FromString(modes_note()) : Py_NewRef(Py_None)) &&
           put(dict, "rss", PyLong_FromSize_t(s->rss)) && put(dict, "core", core_name());
}

static PyObject *py_figures(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct snapshot s;
    take_snapshot(&s);
    PyObject *dict = PyDict_New();
    if (dict && put_figures(dict, &s))
        return dict;
    Py_XDECREF(dict);
    return NULL;
}

/* ---- hooks --------------------------------------------------------------------------------- */

static PyObject *py_is_installed(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(hooks_are_installed());
}

static PyObject *py_arrays(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return arrays_state();
}

/* ---- sizes --------------------------------------------------------------------------------- */

static PyObject *py_parse_size(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    size_t size;
    if (nargs != 2 || !PyUnicode_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_parse_size() takes a value and what it is called");
        return NULL;
    }
    const char *what = PyUnicode_AsUTF8(args[1]);
    if (!what || size_from_object(args[0], what, &size) < 0)
        return NULL;
    return PyLong_FromSize_t(size);
}

static PyObject *py_format_size(PyObject *module, PyObject *value)
{
    (void)module;
    char text[ZSIZE_TEXT];
    const size_t size = PyLong_AsSize_t(value);
    if (PyErr_Occurred())
        return NULL;
    return PyUnicode_FromString(zsize_format(text, size));
}

/* ---- the capsule --------------------------------------------------------------------------- */

static struct zmalloc_capi capi = {
    .version = ZMALLOC_CAPI_VERSION,
    .size = sizeof capi,
    .python = &python_account,
    .total = zmalloc_total,
    .account_new = zaccount_new,
    .account_free = zaccount_free,
    .charge = zaccount_charge,
    .uncharge = zaccount_uncharge,
    .give_back = zaccount_give_back,
    .alloc = zaccount_alloc,
    .used = zaccount_used,
    .peak = zaccount_peak,
    .reset_peak = zaccount_reset_peak,
    .stats = zaccount_stats,
    .set_limit = zaccount_set_limit,
    .seal = zaccount_seal,
    .clear_hit = zaccount_clear_hit,
    .on_pressure = zaccount_on_pressure,
    .fail_after = zaccount_fail_after,
    .lua_alloc = zaccount_alloc,
    .default_account = zaccount_default,
    .name = zaccount_name,
    .parent = zaccount_parent,
    .kinds = zaccount_kinds,
    .set_single = zaccount_set_single,
    .set_overhead = zaccount_set_overhead,
    .enter = zaccount_enter,
    .leave = zaccount_leave,
    .scope_peak = zaccount_scope_peak,
    .guest_limit = zaccount_guest_limit,
    .guest_seal = zaccount_guest_seal,
    .guest_peak = zaccount_guest_peak,
    .guest_reset_peak = zaccount_guest_reset_peak,
    .faults = zaccount_faults,
};

static int add_capsule(PyObject *module)
{
    PyObject *capsule = PyCapsule_New(&capi, ZMALLOC_CAPI_NAME, NULL);
    const int failed = capsule ? PyModule_AddObjectRef(module, "_C_API", capsule) : -1;
    Py_XDECREF(capsule);
    return failed;
}

/* ---- the module ------------------------------------------------------------------------------ */

PyDoc_STRVAR(used_doc,
             "used()\n--\n\n"
             "Bytes that Python holds now, as requested, counted from the import of zmalloc on.\n\n"
             "Exact, for all threads and sub-interpreters of the process together.");

PyDoc_STRVAR(total_doc, "total()\n--\n\n"
                        "Bytes that all accounts of the process hold: Python's, each Lua state's, and\n"
                        "what C code took through the zmalloc library.");

PyDoc_STRVAR(peak_doc, "peak()\n--\n\n"
                       "The most that used() has ever been since the import or since reset_peak().\n\n"
                       "The true maximum, at every allocation, not a sample.");

PyDoc_STRVAR(reset_peak_doc, "reset_peak()\n--\n\nBegin the peak anew, with what is in use.");

PyDoc_STRVAR(rss_doc, "rss()\n--\n\nResident memory of the process in bytes, as the system tells it.");

PyDoc_STRVAR(is_installed_doc,
             "is_installed()\n--\n\n"
             "Whether every allocation of Python goes through zmalloc, found out by making some.");

/* Parts of the delivery of errors, off for comparison. */
static PyObject *py_pieces(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"repair", "debt", "close", NULL};
    int repair = repair_is_allowed, debt = delivery_counts_debt, close = delivery_closes;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$ppp:_pieces", names, &repair, &debt, &close))
        return NULL;
    repair_is_allowed = repair;
    delivery_counts_debt = debt;
    delivery_closes = close;
    Py_RETURN_NONE;
}

static bool is_set(const char *value)
{
    return value && *value && strcmp(value, "0") != 0;
}

/* Below this not even an error can be shown. */
static const size_t LEAST_LIMIT = 65536;

/* ZMALLOC_LIMIT caps a process that imports zmalloc without its doing. */
static int obey_limit_variable(const char *text)
{
    size_t n = 0;
    PyObject *value = PyUnicode_DecodeFSDefault(text);
    const int failed = value ? size_from_object(value, "ZMALLOC_LIMIT", &n) : -1;
    Py_XDECREF(value);
    if (failed)
        return -1;
    if (n < LEAST_LIMIT) {
        PyErr_Format(PyExc_ValueError,
                     "ZMALLOC_LIMIT='%s' is too small to run Python in: at least %zu bytes", text,
                     LEAST_LIMIT);
        return -1;
    }
    caps_seal(n, SIZE_MAX);
    return 0;
}

/* The last thing that importing the package does: its own modules are not counted. */
static int begin_first(void)
{
    const bool installs = !is_set(getenv("ZMALLOC_NO_INSTALL"));
    const char *limit = getenv("ZMALLOC_LIMIT");
    const bool capped = limit && *limit;
    if (capped && !installs) {
        PyErr_SetString(PyExc_RuntimeError,
                        "ZMALLOC_LIMIT needs the hooks: it cannot be set together with "
                        "ZMALLOC_NO_INSTALL");
        return -1;
    }
    if (installs && modes_obey_variable() < 0)
        return -1;
    return capped ? obey_limit_variable(limit) : 0;
}

/* The environment speaks once a process, not at each import in a sub-interpreter. */
static int begin(void)
{
    static _Atomic bool done;
    if (atomic_load(&done))
        return hooks_were_installed() && modes_install() < 0 ? -1 : 0;
    if (begin_first() < 0)
        return -1;
    atomic_store(&done, true);
    return 0;
}

static PyObject *py_begin(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (begin() < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"used", py_used, METH_NOARGS, used_doc},
    {"total", py_total, METH_NOARGS, total_doc},
    {"peak", py_peak, METH_NOARGS, peak_doc},
    {"reset_peak", py_reset_peak, METH_NOARGS, reset_peak_doc},
    {"rss", py_rss, METH_NOARGS, rss_doc},
    {"limit", (PyCFunction)(void (*)(void))caps_limit, METH_FASTCALL | METH_KEYWORDS,
     caps_limit_doc},
    {"budget", (PyCFunction)(void (*)(void))budgets_budget, METH_VARARGS | METH_KEYWORDS, budgets_budget_doc},
    {"track", (PyCFunction)(void (*)(void))budgets_track, METH_VARARGS | METH_KEYWORDS, budgets_track_doc},
    {"fail_after", (PyCFunction)(void (*)(void))fail_after_make, METH_VARARGS | METH_KEYWORDS, fail_after_doc},
    {"exempt", budgets_exempt, METH_NOARGS, budgets_exempt_doc},
    {"on_pressure", (PyCFunction)(void (*)(void))verdict_on_pressure, METH_VARARGS | METH_KEYWORDS,
     verdict_on_pressure_doc},
    {"lua_allocator", (PyCFunction)(void (*)(void))accounts_lua_allocator,
     METH_VARARGS | METH_KEYWORDS, accounts_lua_allocator_doc},
    {"is_installed", py_is_installed, METH_NOARGS, is_installed_doc},
    {"install", (PyCFunction)(void (*)(void))modes_py_install, METH_VARARGS | METH_KEYWORDS, modes_install_doc},
    {"mode", modes_py_mode, METH_NOARGS, modes_mode_doc},
    {"_track", budgets_track_process, METH_NOARGS, NULL},
    {"_begin_held", modes_py_begin_held, METH_NOARGS, NULL},
    {"_pieces", (PyCFunction)(void (*)(void))py_pieces, METH_VARARGS | METH_KEYWORDS, NULL},
    {"_arrays", py_arrays, METH_NOARGS, NULL},
    {"_begin", py_begin, METH_NOARGS, NULL},
    {"_audit", py_audit, METH_NOARGS, NULL},
    {"_figures", py_figures, METH_NOARGS, NULL},
    {"_parse_size", (PyCFunction)(void (*)(void))py_parse_size, METH_FASTCALL, NULL},
    {"_format_size", py_format_size, METH_O, NULL},
    {"_execute", (PyCFunction)(void (*)(void))runner_execute, METH_FASTCALL, NULL},
    {"_run_file", (PyCFunction)(void (*)(void))runner_run_file, METH_FASTCALL, NULL},
    {"_run_text", (PyCFunction)(void (*)(void))runner_run_text, METH_FASTCALL, NULL},
    {"_reporter", runner_reporter, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
#if defined(Py_GIL_DISABLED)
    PyErr_SetString(PyExc_ImportError,
                    "zmalloc does not support free-threaded CPython builds yet: use a build with "
                    "the GIL");
    return -1;
#endif
    struct state *state = PyModule_GetState(module);
    hooks_init();
    scopes_init();
    if (with_init(module, &state->with) < 0 || limit_error_init(module, &state->limit_error) < 0 ||
        caps_init(module, &state->limit) < 0 || budgets_init(module, &state->budgets) < 0 ||
        verdict_init(module, state->limit_error) < 0 || accounts_init(module, &state->account) < 0 ||
        !(state->fail_after = fail_after_init(module)) || add_capsule(module) < 0 ||
        PyModule_AddStringConstant(module, "__version__", ZMALLOC_VERSION) < 0) {
        if (!PyErr_Occurred()) /* PyType_FromModuleAndSpec() does not say so of each request that is refused */
            PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *s = state_of(module);
    PyTypeObject *const types[] = {s->with.bound,     s->with.method, s->budgets.budget, s->budgets.track,
                                   s->budgets.exempt, s->limit,       s->limit_error,    s->account,
                                   s->fail_after};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        Py_VISIT(types[i]);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct state *s = state_of(module);
    PyTypeObject **const types[] = {&s->with.bound,     &s->with.method, &s->budgets.budget, &s->budgets.track,
                                    &s->budgets.exempt, &s->limit,       &s->limit_error,    &s->account,
                                    &s->fail_after};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        Py_CLEAR(*types[i]);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "zmalloc._core",
    .m_doc = "The C part of zmalloc.",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
