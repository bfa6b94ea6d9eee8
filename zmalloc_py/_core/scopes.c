/* scopes.c - the set of limits.
 *
 * Invariants:
 *  - `set.lock` guards the set; nobody waits for anything while holding it, and nothing is allocated.
 *    It is free in a forked child.
 *  - The accounts' limits are the minima of the set, set again at each change.
 *  - Entering and leaving allocate nothing, so they work at the cap: `with` fetches __enter__ and
 *    __exit__ before its block is protected, and the bound methods are made when the object is. */
#define PY_SSIZE_T_CLEAN
#include "scopes.h"

#include "hooks.h"
#include "sizes.h"
#include "zsize.h"

#include <structmember.h>

/* Marks of one limit; SIZE_MAX where there is none. */
struct marks {
    size_t used, held;
};

static const struct marks no_marks = {SIZE_MAX, SIZE_MAX};

/* One limit() call. From malloc, not a part of the Python object: an object that its interpreter never
 * destroys must not leave a hole in the lists when the interpreter's memory goes. */
struct scope {
    struct marks marks;
    bool is_sealed, is_entered;
    uint64_t number;     /* of the bare limit that this call has set, 0: it is none any more */
    struct marks before; /* the bare limit that it replaced, and that one's number */
    uint64_t before_number;
    struct scope *next_entered, *next;
};

static struct {
    zport_mutex lock;
    struct scope *entered; /* those whose with statement is running */
    struct marks bare;    /* of the last bare call */
    struct marks sealed;  /* the minima of those that stay */
    uint64_t bare_number; /* tells a bare limit from the ones before and after it */
    uint64_t last_number;
    struct scope *all; /* those that an object stands for */
    struct marks report;        /* what reports have left behind, on top of every limit */
    struct marks before_report; /* what was in use, and held, when one began */
    size_t peak_before_report;
    bool is_reporting;
} set = {
    .lock = ZPORT_MUTEX_INIT,
    .bare = {SIZE_MAX, SIZE_MAX},
    .sealed = {SIZE_MAX, SIZE_MAX},
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static struct marks both(struct marks a, struct marks b)
{
    return (struct marks){smaller(a.used, b.used), smaller(a.held, b.held)};
}

static size_t plus(size_t limit, size_t more)
{
    return limit > SIZE_MAX - more ? SIZE_MAX : limit + more;
}

/* set.lock is held. */
static struct marks minima(void)
{
    struct marks least = both(set.bare, set.sealed);
    for (const struct scope *s = set.entered; s; s = s->next_entered)
        least = both(least, s->marks);
    return least;
}

/* set.lock is held. */
static void apply(void)
{
    const struct marks least = minima();
    const size_t used = hooks_held_is_used() ? smaller(least.used, least.held) : least.used;
    const size_t held = hooks_held_is_used() ? SIZE_MAX : least.held;
    zaccount_set_limit(&python_account, plus(used, set.report.used), 0);
    zaccount_set_limit(&held_account, plus(held, set.report.held), 0);
}

static struct marks in_force(void)
{
    zport_lock(&set.lock);
    const struct marks least = minima();
    zport_unlock(&set.lock);
    return least;
}

size_t scopes_in_force(void)
{
    return in_force().used;
}

size_t scopes_held_in_force(void)
{
    return in_force().held;
}

static struct marks sealed(void)
{
    zport_lock(&set.lock);
    const struct marks marks = set.sealed;
    zport_unlock(&set.lock);
    return marks;
}

size_t scopes_sealed(void)
{
    const struct marks marks = sealed();
    return hooks_held_is_used() ? smaller(marks.used, marks.held) : marks.used;
}

size_t scopes_held_sealed(void)
{
    return sealed().held;
}

void scopes_seal(size_t n, size_t held)
{
    zport_lock(&set.lock);
    set.sealed = both(set.sealed, (struct marks){n, held});
    apply();
    zport_unlock(&set.lock);
}

/* ---- reports ------------------------------------------------------------------------------- */

static struct marks in_use(void)
{
    return (struct marks){zaccount_used(&python_account), zaccount_used(&held_account)};
}

static size_t growth(size_t before, size_t now)
{
    return now > before ? now - before : 0;
}

void scopes_report_begin(void)
{
    set.before_report = in_use();
    set.peak_before_report = zaccount_peak(&python_account);
    set.is_reporting = true;
    hooks_exempt(true);
}

size_t scopes_peak(void)
{
    const size_t peak = zaccount_peak(&python_account);
    return set.is_reporting && peak > set.peak_before_report ? set.peak_before_report : peak;
}

void scopes_report_end(void)
{
    hooks_exempt(false);
    set.is_reporting = false;
    const struct marks now = in_use();
    zport_lock(&set.lock);
    if (minima().used != SIZE_MAX || minima().held != SIZE_MAX) {
        set.report.used += growth(set.before_report.used, now.used);
        set.report.held += growth(set.before_report.held, now.held);
        atomic_store(&python_account.peak, set.peak_before_report);
        apply();
    }
    zport_unlock(&set.lock);
}

/* ---- the life of a limit ------------------------------------------------------------------- */

/* The cap is in force on return. */
static void put_in_force(struct scope *s)
{
    zport_lock(&set.lock);
    if (s->is_sealed) {
        set.sealed = both(set.sealed, s->marks);
    } else {
        s->number = ++set.last_number;
        s->before = set.bare;
        s->before_number = set.bare_number;
        set.bare = s->marks;
        set.bare_number = s->number;
    }
    s->next = set.all;
    set.all = s;
    apply();
    zport_unlock(&set.lock);
}

/* Takes the bare limit back that s has set: from its place, or, if another has replaced it, from what
 * would come back after that. set.lock is held. */
static void unset_bare(struct scope *s)
{
    if (s->number == 0)
        return;
    if (set.bare_number == s->number) {
        set.bare = s->before;
        set.bare_number = s->before_number;
    }
    for (struct scope *other = set.all; other; other = other->next) {
        if (other->before_number == s->number) {
            other->before = s->before;
            other->before_number = s->before_number;
        }
    }
    s->number = 0;
}

static void cancel_scope(struct scope *s)
{
    zport_lock(&set.lock);
    unset_bare(s); /* a sealed one has its marks in set.sealed, for good */
    apply();
    zport_unlock(&set.lock);
}

static void enter_scope(struct scope *s)
{
    zport_lock(&set.lock);
    s->is_entered = true;
    if (!s->is_sealed) {
        unset_bare(s);
        s->next_entered = set.entered;
        set.entered = s;
    }
    apply();
    zport_unlock(&set.lock);
}

static void leave_scope(struct scope *s)
{
    zport_lock(&set.lock);
    struct scope **at = &set.entered;
    while (*at && *at != s)
        at = &(*at)->next_entered;
    if (*at)
        *at = s->next_entered;
    s->is_entered = false;
    apply();
    zport_unlock(&set.lock);
}

/* Its object is gone. A bare limit stays in force. */
static void free_scope(struct scope *s)
{
    if (s->is_entered) /* a with statement that was never left, in a generator that was dropped */
        leave_scope(s);
    zport_lock(&set.lock);
    struct scope **at = &set.all;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    zport_unlock(&set.lock);
    free(s);
}

/* ---- the object ---------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    struct scope *scope;
    PyObject *enter, *exit; /* made in advance, for `with` to fetch; NULL once fetched */
} Limit;

/* ---- bound methods that are there before they are asked for ---------------------------------- */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Limit *self; /* borrowed as long as the limit owns this object, owned once it has been fetched */
    bool owns_self;
} Bound;

static PyObject *enter(Limit *self)
{
    if (self->scope->is_entered) {
        PyErr_SetString(PyExc_RuntimeError, "this limit has been entered already: call "
                                            "zmalloc.limit() anew for each with statement");
        return NULL;
    }
    enter_scope(self->scope);
    return Py_NewRef(self);
}

static PyObject *leave(Limit *self)
{
    leave_scope(self->scope);
    Py_RETURN_NONE;
}

static PyObject *call_enter(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names)
{
    (void)args;
    if (PyVectorcall_NARGS(flags) != 0 || names) {
        PyErr_SetString(PyExc_TypeError, "__enter__() takes no arguments");
        return NULL;
    }
    return enter(((Bound *)callable)->self);
}

static PyObject *call_exit(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names)
{
    (void)args, (void)flags, (void)names;
    return leave(((Bound *)callable)->self);
}

static PyObject *new_bound(const struct scope_types *types, Limit *self, vectorcallfunc call)
{
    Bound *bound = PyObject_New(Bound, types->bound);
    if (!bound)
        return NULL;
    bound->call = call;
    bound->self = self;
    bound->owns_self = false;
    return (PyObject *)bound;
}

static void bound_dealloc(PyObject *op)
{
    Bound *bound = (Bound *)op;
    PyTypeObject *type = Py_TYPE(op);
    Limit *self = bound->owns_self ? bound->self : NULL;
    PyObject_Free(op);
    Py_DECREF(type);
    Py_XDECREF(self);
}

static PyMemberDef bound_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Bound, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot bound_slots[] = {
    {Py_tp_dealloc, bound_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, bound_members},
    {0, NULL},
};

static PyType_Spec bound_spec = {
    .name = "zmalloc._core.bound_method",
    .basicsize = sizeof(Bound),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bound_slots,
};

/* The types belong to the module, one set for each interpreter. */
static const struct scope_types *types_of(PyObject *op)
{
    PyObject *module = PyType_GetModule(Py_TYPE(op));
    return module ? scope_types(module) : NULL;
}

/* The descriptor in Limit's dictionary: hands out the bound method that is there. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    bool is_enter;
} Method;

static bool is_limit(PyObject *op, PyObject *instance)
{
    const struct scope_types *types = types_of(op);
    if (types && Py_TYPE(instance) == types->limit)
        return true;
    PyErr_SetString(PyExc_TypeError, "not a zmalloc.Limit");
    return false;
}

static PyObject *method_get(PyObject *op, PyObject *instance, PyObject *type)
{
    (void)type;
    if (!instance || instance == Py_None)
        return Py_NewRef(op);
    if (!is_limit(op, instance))
        return NULL;
    Limit *self = (Limit *)instance;
    const bool is_enter = ((Method *)op)->is_enter;
    PyObject **ready = is_enter ? &self->enter : &self->exit;
    PyObject *bound = *ready ? *ready : new_bound(types_of(op), self, is_enter ? call_enter : call_exit);
    if (!bound)
        return NULL;
    *ready = NULL;
    ((Bound *)bound)->owns_self = true;
    Py_INCREF(self);
    return bound;
}

/* type(obj).__enter__(obj) and __exit__(obj, ...), as contextlib.ExitStack does it: nothing is allocated. */
static PyObject *call_method(PyObject *op, PyObject *const *args, size_t flags, PyObject *names)
{
    (void)names;
    if (PyVectorcall_NARGS(flags) < 1) {
        PyErr_SetString(PyExc_TypeError, "needs a zmalloc.Limit");
        return NULL;
    }
    if (!is_limit(op, args[0]))
        return NULL;
    return ((Method *)op)->is_enter ? enter((Limit *)args[0]) : leave((Limit *)args[0]);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_descr_get, method_get},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, method_members},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "zmalloc._core.method",
    .basicsize = sizeof(Method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = method_slots,
};

/* ---- Limit ----------------------------------------------------------------------------------- */

static void limit_dealloc(PyObject *op)
{
    Limit *self = (Limit *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->scope)
        free_scope(self->scope);
    Py_XDECREF(self->enter);
    Py_XDECREF(self->exit);
    PyObject_Free(op);
    Py_DECREF(type);
}

/* @limit(...): a mistake that must not leave the process capped. */
static PyObject *limit_call(PyObject *op, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    cancel_scope(((Limit *)op)->scope);
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
    if (scope->marks.used != SIZE_MAX)
        zsize_format(used, scope->marks.used);
    if (scope->marks.held != SIZE_MAX) {
        memcpy(held, ", held ", 8);
        zsize_format(held + 7, scope->marks.held);
    }
    zport_lock(&set.lock);
    const bool is_bare = scope->number && set.bare_number == scope->number;
    const char *state = scope->is_sealed    ? "sealed"
                        : scope->is_entered ? "entered"
                        : is_bare           ? "in force"
                        : scope->number     ? "replaced"
                                            : "ended";
    zport_unlock(&set.lock);
    return PyUnicode_FromFormat("<zmalloc.limit %s%s, %s>", used, held, state);
}

static PyObject *size_or_none(size_t n)
{
    return n == SIZE_MAX ? Py_NewRef(Py_None) : PyLong_FromSize_t(n);
}

static PyObject *limit_get_limit(PyObject *op, void *unused)
{
    (void)unused;
    return size_or_none(((Limit *)op)->scope->marks.used);
}

static PyObject *limit_get_held(PyObject *op, void *unused)
{
    (void)unused;
    return size_or_none(((Limit *)op)->scope->marks.held);
}

/* What `async with` looks for: the call has capped the process, and must not leave it so. */
static PyObject *limit_get_async(PyObject *op, void *unused)
{
    (void)unused;
    cancel_scope(((Limit *)op)->scope);
    PyErr_SetString(PyExc_TypeError, "a limit works in a plain with statement, also inside async "
                                     "functions. This one has been removed again");
    return NULL;
}

static PyGetSetDef limit_getset[] = {
    {"__aenter__", limit_get_async, NULL, NULL, NULL},
    {"limit", limit_get_limit, NULL, "Bytes that used() may reach, or None.", NULL},
    {"held", limit_get_held, NULL, "Bytes that stats().held may reach, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot limit_slots[] = {
    {Py_tp_doc, "A limit that zmalloc.limit() has set. In a with statement it ends with the block."},
    {Py_tp_dealloc, limit_dealloc},
    {Py_tp_call, limit_call},
    {Py_tp_repr, limit_repr},
    {Py_tp_getset, limit_getset},
    {0, NULL},
};

static PyType_Spec limit_spec = {
    .name = "zmalloc.Limit",
    .basicsize = sizeof(Limit),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = limit_slots,
};

static Limit *new_limit(const struct scope_types *types, struct marks marks, bool is_sealed)
{
    Limit *self = PyObject_New(Limit, types->limit);
    if (!self)
        return NULL;
    self->enter = self->exit = NULL;
    self->scope = malloc(sizeof *self->scope);
    if (!self->scope) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    *self->scope = (struct scope){.marks = marks, .is_sealed = is_sealed, .before = no_marks};
    self->enter = new_bound(types, self, call_enter);
    self->exit = new_bound(types, self, call_exit);
    if (self->enter && self->exit)
        return self;
    Py_DECREF(self);
    return NULL;
}

/* ---- limit() ------------------------------------------------------------------------------- */

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
    zport_lock(&set.lock);
    const bool is_sealed = set.sealed.used != SIZE_MAX || set.sealed.held != SIZE_MAX;
    if (!is_sealed) {
        set.bare = no_marks;
        set.bare_number = 0;
        apply();
    }
    zport_unlock(&set.lock);
    if (!is_sealed)
        Py_RETURN_NONE;
    PyErr_SetString(PyExc_PermissionError,
                    "the limit is sealed: it stays for the life of the process");
    return NULL;
}

/* limit() and this thread agree that the hooks count: -1 with an exception if they cannot. */
static int need_hooks(void)
{
    if (!hooks_were_installed()) {
        PyErr_SetString(PyExc_RuntimeError, "nothing is counted, so nothing can be capped: the hooks "
                                            "are not installed. Call zmalloc.install() first");
        return -1;
    }
    const int again = hooks_install();
    if (again <= 0)
        return again;
    return PyErr_WarnEx(PyExc_RuntimeWarning,
                        "another tool had taken zmalloc's hooks out; they are back, and counting "
                        "begins anew",
                        1);
}

static PyObject *set_limit(const struct scope_types *types, PyObject *n, PyObject *held,
                           bool is_sealed)
{
    struct marks marks = no_marks;
    if (n && size_from_object(n, "limit", &marks.used) < 0)
        return NULL;
    if (held && size_from_object(held, "held", &marks.held) < 0)
        return NULL;
    if (need_hooks() < 0)
        return NULL;
    zport_lock(&set.lock);
    const struct marks sealed = set.sealed;
    zport_unlock(&set.lock);
    if (marks.used != SIZE_MAX && marks.used > sealed.used)
        return refuse_rise("limit", marks.used, sealed.used);
    if (marks.held != SIZE_MAX && marks.held > sealed.held)
        return refuse_rise("held", marks.held, sealed.held);
    Limit *self = new_limit(types, marks, is_sealed);
    if (self)
        put_in_force(self->scope);
    return (PyObject *)self;
}

/* Sorts the keywords out; false with a TypeError for one that there is not. */
static bool read_keywords(PyObject *const *values, PyObject *names, PyObject **n, PyObject **held,
                          PyObject **seal)
{
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (PyUnicode_CompareWithASCIIString(name, "held") == 0) {
            *held = values[i];
        } else if (PyUnicode_CompareWithASCIIString(name, "seal") == 0) {
            *seal = values[i];
        } else if (PyUnicode_CompareWithASCIIString(name, "n") == 0) {
            if (*n) {
                PyErr_SetString(PyExc_TypeError, "limit() got two values for n");
                return false;
            }
            *n = values[i];
        } else {
            PyErr_Format(PyExc_TypeError,
                         "limit() got an unexpected keyword argument %R: it takes n, held and seal",
                         name);
            return false;
        }
    }
    return true;
}

PyObject *scopes_limit(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *n = nargs > 0 ? args[0] : NULL, *held = NULL, *seal = NULL;
    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError, "limit() takes one positional argument, a size (%zd given)",
                     nargs);
        return NULL;
    }
    if (!read_keywords(args + nargs, names, &n, &held, &seal))
        return NULL;
    const int is_sealed = seal ? PyObject_IsTrue(seal) : 0;
    if (is_sealed < 0)
        return NULL;
    if (held == Py_None)
        held = NULL;
    if (!n && !held && !seal)
        return size_or_none(scopes_in_force());
    if (n == Py_None && !held && !is_sealed)
        return remove_bare();
    if (n == Py_None)
        n = NULL;
    if (!n && !held) {
        PyErr_SetString(PyExc_TypeError, "limit(seal=...) needs a size to seal");
        return NULL;
    }
    return set_limit(scope_types(module), n, held, is_sealed);
}

/* ---- once --------------------------------------------------------------------------------- */

static void before_fork(void)
{
    zport_lock(&set.lock);
}

static void after_fork(void)
{
    zport_unlock(&set.lock);
}

static int add_method(const struct scope_types *types, const char *name, bool is_enter)
{
    Method *method = PyObject_New(Method, types->method);
    if (!method)
        return -1;
    method->call = call_method;
    method->is_enter = is_enter;
    const int failed = PyObject_SetAttrString((PyObject *)types->limit, name, (PyObject *)method);
    Py_DECREF(method);
    return failed;
}

static PyTypeObject *make_type(PyObject *module, PyType_Spec *spec)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
}

int scopes_init(PyObject *module, struct scope_types *types)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&done))
        zport_atfork(before_fork, after_fork, after_fork);
    types->bound = make_type(module, &bound_spec);
    types->method = make_type(module, &method_spec);
    types->limit = make_type(module, &limit_spec);
    if (!types->bound || !types->method || !types->limit)
        return -1;
    if (add_method(types, "__enter__", true) < 0 || add_method(types, "__exit__", false) < 0)
        return -1;
    return PyModule_AddType(module, types->limit);
}
