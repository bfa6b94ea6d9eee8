/* caps.c - limit(): bare, in a with statement, sealed. */
#define PY_SSIZE_T_CLEAN
#include "caps.h"

#include "arrays.h"
#include "asks.h"
#include "hooks.h"
#include "limit_error.h"
#include "sizes.h"
#include "verdict.h"
#include "zsize.h"

#include <structmember.h>

typedef struct {
    With with;
    struct scope *scope;
} Limit;

PyObject *caps_size_or_none(size_t n)
{
    return n == SIZE_MAX ? Py_NewRef(Py_None) : PyLong_FromSize_t(n);
}

int caps_reserve_from_object(PyObject *value, size_t *reserve)
{
    int overflow = 0;
    if (PyLong_CheckExact(value) && PyLong_AsLongAndOverflow(value, &overflow) == 0 && !overflow) {
        *reserve = 0;
        return 0;
    }
    if (PyUnicode_CheckExact(value)) {
        const char *text = PyUnicode_AsUTF8(value);
        static const char *const zeros[] = {"0", "0 B", "0B"};
        for (size_t i = 0; text && i < sizeof zeros / sizeof *zeros; i++) {
            if (strcmp(text, zeros[i]) == 0) {
                *reserve = 0;
                return 0;
            }
        }
    }
    return size_from_object(value, "reserve", reserve);
}

/* ---- the end of a with statement -------------------------------------------------------------------- */

static PyObject *raise_late(PyObject *module, const struct scope *s, size_t used)
{
    struct limit_figures f = {.number = s->number, .scope = s->name, .used = used, .limit = s->marks.limit,
                              .hard = s->marks.hard};
    where_read(&f.place);
    PyObject *error = limit_error_new(limit_error_type(module), &f);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    verdict_figures.errors++;
    return NULL;
}

PyObject *caps_leave(PyObject *module, struct scope *s, PyObject *error)
{
    scope_leave(s);
    asks_forget(s->number);
    if (!s->is_unsettled || error != Py_None)
        Py_RETURN_NONE;
    s->is_unsettled = false;
    verdict_collect(s->name, s->marks.limit);
    const size_t used = zaccount_used(&python_account);
    if (used <= s->marks.limit || !module)
        Py_RETURN_NONE;
    s->is_hit = true;
    return raise_late(module, s, used);
}

/* ---- Limit --------------------------------------------------------------------------------------------- */

static PyObject *limit_enter(PyObject *op)
{
    Limit *self = (Limit *)op;
    if (self->scope->is_entered) {
        PyErr_SetString(PyExc_RuntimeError, "this limit has been entered already: call "
                                            "zmalloc.limit() anew for each with statement");
        return NULL;
    }
    scope_enter(self->scope, SIZE_MAX, 0);
    return Py_NewRef(op);
}

static PyObject *limit_leave(PyObject *op, PyObject *error)
{
    struct scope *s = ((Limit *)op)->scope;
    if (!s->is_entered)
        Py_RETURN_NONE;
    return caps_leave(PyType_GetModule(Py_TYPE(op)), s, error);
}

static const struct with_way way = {"Limit", limit_enter, limit_leave};

static void limit_dealloc(PyObject *op)
{
    struct scope *s = ((Limit *)op)->scope;
    if (s) {
        const uint64_t number = s->is_entered ? s->number : 0;
        scope_free(s);
        if (number)
            asks_forget(number);
    }
    with_dealloc(op);
}

/* @limit(...): a mistake that must not leave the process capped. */
static PyObject *limit_call(PyObject *op, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    scope_cancel(((Limit *)op)->scope);
    PyErr_SetString(PyExc_TypeError,
                    "a limit is no decorator, a budget is: zmalloc.limit() caps the process at "
                    "once, so use it by itself or in a with statement. This one has been removed "
                    "again");
    return NULL;
}

static PyObject *limit_repr(PyObject *op)
{
    const struct scope *scope = ((Limit *)op)->scope;
    char used[ZSIZE_TEXT] = "none", held[ZSIZE_TEXT + 8] = "";
    if (scope->marks.limit != SIZE_MAX)
        zsize_format(used, scope->marks.limit);
    if (scope->marks.held != SIZE_MAX) {
        memcpy(held, ", held ", 8);
        zsize_format(held + 7, scope->marks.held);
    }
    return PyUnicode_FromFormat("<zmalloc.limit %s%s, %s>", used, held, scope_state(scope));
}

static PyObject *get_limit(PyObject *op, void *unused)
{
    (void)unused;
    return caps_size_or_none(((Limit *)op)->scope->marks.limit);
}

static PyObject *get_hard_limit(PyObject *op, void *unused)
{
    (void)unused;
    return caps_size_or_none(((Limit *)op)->scope->marks.hard);
}

static PyObject *get_held(PyObject *op, void *unused)
{
    (void)unused;
    return caps_size_or_none(((Limit *)op)->scope->marks.held);
}

/* What `async with` looks for: the call has capped the process, and must not leave it so. */
static PyObject *get_async(PyObject *op, void *unused)
{
    (void)unused;
    scope_cancel(((Limit *)op)->scope);
    PyErr_SetString(PyExc_TypeError, "a limit works in a plain with statement, also inside async "
                                     "functions. This one has been removed again");
    return NULL;
}

static PyGetSetDef getset[] = {
    {"__aenter__", get_async, NULL, NULL, NULL},
    {"limit", get_limit, NULL, "Bytes that used() may reach without an error, or None.", NULL},
    {"hard_limit", get_hard_limit, NULL, "Bytes that used() never passes: limit + reserve, or None.", NULL},
    {"held", get_held, NULL, "Bytes that stats().held may reach, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A limit that zmalloc.limit() has set. In a with statement it ends with the block."},
    {Py_tp_dealloc, limit_dealloc},
    {Py_tp_call, limit_call},
    {Py_tp_repr, limit_repr},
    {Py_tp_getset, getset},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "zmalloc.Limit",
    .basicsize = sizeof(Limit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

static PyObject *new_limit(PyObject *module, struct scope_marks marks, bool is_sealed)
{
    Limit *self = (Limit *)with_new(with_types_of(module), caps_type(module), sizeof *self, &way);
    if (!self)
        return NULL;
    self->scope = scope_new(marks, is_sealed ? "sealed limit" : "limit");
    if (!self->scope) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->scope->is_sealed = is_sealed;
    return (PyObject *)self;
}

/* ---- limit() ------------------------------------------------------------------------------------------- */

static PyObject *refuse_rise(const char *what, size_t wanted, size_t sealed)
{
    char a[ZSIZE_TEXT], b[ZSIZE_TEXT];
    PyErr_Format(PyExc_PermissionError,
                 "%s %s (%zu bytes) is above the sealed one of %s (%zu bytes), which stays for the "
                 "life of the process",
                 what, zsize_format(a, wanted), wanted, zsize_format(b, sealed), sealed);
    return NULL;
}

static PyObject *remove_bare(void)
{
    if (scopes_remove_bare())
        Py_RETURN_NONE;
    PyErr_SetString(PyExc_PermissionError,
                    "the limit is sealed: it stays for the life of the process");
    return NULL;
}

int caps_need_hooks(void)
{
    if (!hooks_were_installed()) {
        PyErr_SetString(PyExc_RuntimeError, "nothing is counted, so nothing can be capped: the hooks "
                                            "are not installed. Call zmalloc.install() first");
        return -1;
    }
    const int again = hooks_install();
    if (again >= 0)
        arrays_look();
    if (again <= 0)
        return again;
    return PyErr_WarnEx(PyExc_RuntimeWarning,
                        "another tool had taken zmalloc's hooks out; they are back, and counting "
                        "begins anew",
                        1);
}

int caps_need_exact(const char *what)
{
    if (!hooks_count_arenas())
        return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "%s needs mode 'exact', which counts each block; this process is in mode 'held': "
                 "call zmalloc.install(mode='exact') first, or start it without ZMALLOC_MODE",
                 what);
    return -1;
}

struct arguments {
    PyObject *n, *reserve, *held, *seal;
};

static PyObject *set_limit(PyObject *module, const struct arguments *a, bool is_sealed)
{
    struct scope_marks marks = scope_no_marks;
    size_t reserve = CAPS_USUAL_RESERVE;
    if (a->n && size_from_object(a->n, "limit", &marks.limit) < 0)
        return NULL;
    if (a->held && size_from_object(a->held, "held", &marks.held) < 0)
        return NULL;
    if (a->reserve && caps_reserve_from_object(a->reserve, &reserve) < 0)
        return NULL;
    if (caps_need_hooks() < 0)
        return NULL;
    const struct scope_marks sealed = scopes_sealed();
    if (a->n)
        marks.hard = reserve > SIZE_MAX - marks.limit ? SIZE_MAX : marks.limit + reserve;
    if (a->n && marks.limit > sealed.limit)
        return refuse_rise("limit", marks.limit, sealed.limit);
    if (a->n && a->reserve && marks.hard > sealed.hard)
        return refuse_rise("hard limit", marks.hard, sealed.hard);
    if (a->held && marks.held > sealed.held)
        return refuse_rise("held", marks.held, sealed.held);
    if (a->n && marks.hard > sealed.hard)
        marks.hard = sealed.hard;
    PyObject *self = new_limit(module, marks, is_sealed);
    if (self)
        scope_put_in_force(((Limit *)self)->scope);
    return self;
}

/* Sorts the keywords out; false with a TypeError for one that there is not. */
static bool read_keywords(PyObject *const *values, PyObject *names, struct arguments *a)
{
    const struct {
        const char *name;
        PyObject **value;
    } known[] = {{"n", &a->n}, {"reserve", &a->reserve}, {"held", &a->held}, {"seal", &a->seal}};
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), **value = NULL;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            if (PyUnicode_CompareWithASCIIString(name, known[k].name) == 0)
                value = known[k].value;
        if (!value) {
            PyErr_Format(PyExc_TypeError,
                         "limit() got an unexpected keyword argument %R: it takes n, reserve, held and seal", name);
            return false;
        }
        if (*value) { /* only n can be given twice */
            PyErr_SetString(PyExc_TypeError, "limit() got two values for n");
            return false;
        }
        *value = values[i];
    }
    return true;
}

PyObject *caps_limit(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct arguments a = {.n = nargs > 0 ? args[0] : NULL};
    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError, "limit() takes one positional argument, a size (%zd given)",
                     nargs);
        return NULL;
    }
    if (!read_keywords(args + nargs, names, &a))
        return NULL;
    const int is_sealed = a.seal ? PyObject_IsTrue(a.seal) : 0;
    if (is_sealed < 0)
        return NULL;
    if (a.held == Py_None)
        a.held = NULL;
    if (!a.n && !a.held && !a.seal && !a.reserve)
        return caps_size_or_none(scopes_in_force().limit);
    if (a.n == Py_None && !a.held && !is_sealed && !a.reserve)
        return remove_bare();
    if (a.n == Py_None)
        a.n = NULL;
    if (!a.n && a.reserve) {
        PyErr_SetString(PyExc_TypeError, "limit(reserve=...) needs a limit to add it to");
        return NULL;
    }
    if (!a.n && !a.held) {
        PyErr_SetString(PyExc_TypeError, "limit(seal=...) needs a size to seal");
        return NULL;
    }
    return set_limit(module, &a, is_sealed);
}

void caps_seal(size_t n, size_t held)
{
    const size_t hard = n > SIZE_MAX - CAPS_USUAL_RESERVE ? SIZE_MAX : n + CAPS_USUAL_RESERVE;
    scopes_seal((struct scope_marks){n, hard, held});
}

const char caps_limit_doc[] =
    "limit(n=..., *, reserve=\"1 MiB\", held=None, seal=False)\n--\n\n"
    "Cap what used() may reach at n bytes, at once, for the whole process.\n\n"
    "n is an int of bytes or text such as \"64 MiB\" or \"80%\". A request that ends above is granted, up\n"
    "to three quarters of the reserve beyond, and LimitError, a MemoryError, is raised at the next safe\n"
    "point if use is still above n after the garbage has been collected: in the thread that asked, to\n"
    "the nearest handler. What would go further is refused on its own line, as MemoryError. used() never\n"
    "passes n + reserve, by a byte; reserve=0 refuses at n itself. Nothing is ever killed. A limit below\n"
    "what is in use is legal: growth is refused until enough has been freed.\n\n"
    "A call replaces the limit of the last call. Used in a with statement the limit ends with the block,\n"
    "and the one that it replaced is back; limits of several with statements, in threads and tasks, are\n"
    "a set of which the smallest is in force. A block that ends above its limit before any safe point\n"
    "gets its LimitError from the end of the with statement.\n\n"
    "limit() tells the limit in force, or None. limit(None) removes what the last call set, never one\n"
    "of a with statement. held=m refuses what would bring stats().held above m: whole arenas and large\n"
    "blocks, what the system really gives. seal=True makes the limit stay for the life of the process;\n"
    "from then on a larger one and limit(None) are a PermissionError.\n\n"
    "Raises ValueError, TypeError or OverflowError for what is no size, RuntimeError if the hooks are\n"
    "not installed. May be called from any thread.";

int caps_init(PyObject *module, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!*type || with_equip(with_types_of(module), *type, &way) < 0)
        return -1;
    return PyModule_AddType(module, *type);
}
