/* accounts.c - accounts for Lua states in a Python process: lua_allocator() and the object it returns.
 *
 * Invariants:
 *  - The memory of an account is never freed. When its object is gone and it holds nothing it serves the
 *    next lua_allocator() with the same parent. So a state that outlives the object, and a thread in the
 *    middle of a state's last free, always find an account.
 *  - `orphans.lock` guards the list of those without an object. It is held for a few instructions and is
 *    free in a forked child.
 *  - What is made under a seal is below Python's account, so the sealed limit holds for it, too. */
#define PY_SSIZE_T_CLEAN
#include "accounts.h"

#include "hooks.h"
#include "scopes.h"
#include "sizes.h"
#include "zsize.h"

/* Everything in one block of the RAW domain: an account costs what used() says. */
struct home {
    zaccount *account; /* inside the block, on a cache line of its own */
    struct home *next; /* the orphans */
};

static struct {
    zport_mutex lock;
    struct home *first;
} orphans = {.lock = ZPORT_MUTEX_INIT};

typedef struct {
    PyObject_HEAD
    struct home *home;
    PyObject *name;   /* in full */
    PyObject *parent; /* another Account or NULL: it must not be given to others before this one */
} Account;

static zaccount *account_of(PyObject *op)
{
    return ((Account *)op)->home->account;
}

/* ---- the life of an account ------------------------------------------------------------------ */

static struct home *new_home(void)
{
    const size_t line = _Alignof(zaccount);
    char *block = PyMem_RawMalloc(sizeof(struct home) + line + sizeof(zaccount));
    if (!block) {
        PyErr_NoMemory();
        return NULL;
    }
    const uintptr_t at = (uintptr_t)block + sizeof(struct home) + line - 1;
    struct home *home = (struct home *)block;
    home->account = (zaccount *)(at - at % line);
    return home;
}

/* An orphan that holds nothing, or NULL. */
static struct home *adopt_orphan(const zaccount *parent)
{
    zport_lock(&orphans.lock);
    struct home **at = &orphans.first, *home;
    while ((home = *at) && (zaccount_used(home->account) || home->account->parent != parent))
        at = &home->next;
    if (home)
        *at = home->next;
    zport_unlock(&orphans.lock);
    if (home)
        zcore_owner()->delist(home->account);
    return home;
}

static void leave_orphan(struct home *home)
{
    zport_lock(&orphans.lock);
    home->next = orphans.first;
    orphans.first = home;
    zport_unlock(&orphans.lock);
}

/* The account keeps as much of the name as it has room for, in whole characters. */
static void copy_name(char *to, size_t size, const char *name)
{
    size_t n = strlen(name);
    if (n >= size)
        for (n = size - 1; ((unsigned char)name[n] & 0xc0) == 0x80;)
            n--;
    memcpy(to, name, n);
    to[n] = '\0';
}

static void begin(zaccount *a, const char *name, zaccount *parent)
{
    zaccount_forget_refused(a); /* as whoever had its memory before */
    zaccount_begin(a, NULL, parent);
    copy_name(a->name, sizeof a->name, name);
    zaccount_enlist(a);
}

static PyObject *new_account(PyTypeObject *type, PyObject *name, PyObject *parent)
{
    const char *text = PyUnicode_AsUTF8(name);
    Account *self = text ? PyObject_New(Account, type) : NULL;
    if (!self)
        return NULL;
    zaccount *above = parent ? account_of(parent) : NULL;
    if (!above && scopes_sealed().limit != SIZE_MAX)
        above = &python_account;
    self->name = Py_NewRef(name);
    self->parent = Py_XNewRef(parent);
    self->home = adopt_orphan(above);
    if (!self->home)
        self->home = new_home();
    if (self->home)
        begin(self->home->account, text, above);
    else
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void account_dealloc(PyObject *op)
{
    Account *self = (Account *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->home)
        leave_orphan(self->home);
    Py_XDECREF(self->name);
    Py_XDECREF(self->parent);
    PyObject_Free(op);
    Py_DECREF(type);
}

/* ---- figures ------------------------------------------------------------------------------- */

static struct zaccount_figures figures_of(PyObject *op)
{
    struct zaccount_figures f;
    zaccount_stats(account_of(op), &f);
    return f;
}

static PyObject *size_or_none(size_t n)
{
    return n == ZACCOUNT_UNLIMITED ? Py_NewRef(Py_None) : PyLong_FromSize_t(n);
}

static size_t reserve_of(const struct zaccount_figures *f)
{
    return f->hard_limit == ZACCOUNT_UNLIMITED ? 0 : f->hard_limit - f->limit;
}

static PyObject *get_name(PyObject *op, void *unused)
{
    (void)unused;
    return Py_NewRef(((Account *)op)->name);
}

static PyObject *get_parent(PyObject *op, void *unused)
{
    (void)unused;
    PyObject *parent = ((Account *)op)->parent;
    return Py_NewRef(parent ? parent : Py_None);
}

static PyObject *get_used(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(zaccount_used(account_of(op)));
}

static PyObject *get_peak(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(zaccount_peak(account_of(op)));
}

static PyObject *get_reserve(PyObject *op, void *unused)
{
    (void)unused;
    const struct zaccount_figures f = figures_of(op);
    return PyLong_FromSize_t(reserve_of(&f));
}

static PyObject *get_hard_limit(PyObject *op, void *unused)
{
    (void)unused;
    return size_or_none(figures_of(op).hard_limit);
}

static PyObject *get_limit_hit(PyObject *op, void *unused)
{
    (void)unused;
    return PyBool_FromLong(figures_of(op).limit_hit);
}

static PyObject *get_allocations(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(figures_of(op).allocations);
}

static PyObject *get_frees(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(figures_of(op).frees);
}

static PyObject *get_refusals(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(figures_of(op).refusals);
}

static PyObject *get_last_refused(PyObject *op, void *unused)
{
    (void)unused;
    const struct zaccount_figures f = figures_of(op);
    return f.refusals ? PyLong_FromSize_t(f.last_refused) : Py_NewRef(Py_None);
}

static PyObject *get_collections(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(figures_of(op).retries);
}

static PyObject *get_overhead_refusals(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(figures_of(op).overhead_refusals);
}

/* By the types of lua.h, the same from Lua 5.2 to 5.5. */
static PyObject *get_created(PyObject *op, void *unused)
{
    (void)unused;
    uint64_t kinds[ZACCOUNT_KINDS];
    zaccount_kinds(account_of(op), kinds);
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K}", "strings", (unsigned long long)kinds[4],
                         "tables", (unsigned long long)kinds[5], "functions",
                         (unsigned long long)kinds[6], "userdata", (unsigned long long)kinds[7],
                         "threads", (unsigned long long)kinds[8]);
}

static PyObject *account_repr(PyObject *op)
{
    const struct zaccount_figures f = figures_of(op);
    char used[ZSIZE_TEXT], limit[ZSIZE_TEXT] = "none";
    zsize_format(used, f.used);
    if (f.limit != ZACCOUNT_UNLIMITED)
        zsize_format(limit, f.limit);
    return PyUnicode_FromFormat("<zmalloc.Account %R, used %s, limit %s%s>", ((Account *)op)->name,
                                used, limit, f.limit_hit ? ", hit" : "");
}

/* ---- caps ----------------------------------------------------------------------------------- */

/* What handlers, <close> and __gc may use beyond the limit, unless it is told. */
static size_t usual_reserve(size_t limit)
{
    const size_t least = 4096, most = (size_t)1 << 20, part = limit / 16;
    return part < least ? least : part > most ? most : part;
}

/* Unlike other sizes a reserve may be 0. */
static int reserve_from_object(PyObject *value, size_t *reserve)
{
    int overflow = 0;
    if (!PyLong_CheckExact(value) || PyLong_AsLongAndOverflow(value, &overflow) > 0 || overflow > 0)
        return size_from_object(value, "reserve", reserve);
    if (PyLong_AsLongAndOverflow(value, &overflow) == 0) {
        *reserve = 0;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "reserve=%R is out of range: expected 0 or a size", value);
    return -1;
}

static PyObject *set_limit(PyObject *op, size_t limit, size_t reserve)
{
    if (zaccount_set_limit(account_of(op), limit, reserve) == 0)
        Py_RETURN_NONE;
    PyErr_Format(PyExc_PermissionError, "the limit of %R is sealed: it cannot rise", op);
    return NULL;
}

static PyObject *account_limit(PyObject *op, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"n", "reserve", NULL};
    PyObject *n = NULL, *told = NULL;
    size_t limit, reserve;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O$O:limit", names, &n, &told))
        return NULL;
    if (told && (!n || n == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "limit(reserve=...) needs a limit to add it to");
        return NULL;
    }
    if (!n)
        return size_or_none(figures_of(op).limit);
    if (n == Py_None)
        return set_limit(op, ZACCOUNT_UNLIMITED, 0);
    if (size_from_object(n, "limit", &limit) < 0)
        return NULL;
    reserve = usual_reserve(limit);
    if (told && reserve_from_object(told, &reserve) < 0)
        return NULL;
    return set_limit(op, limit, reserve);
}

static PyObject *account_reset_peak(PyObject *op, PyObject *unused)
{
    (void)unused;
    zaccount_reset_peak(account_of(op));
    Py_RETURN_NONE;
}

static PyObject *account_clear_hit(PyObject *op, PyObject *unused)
{
    (void)unused;
    zaccount_clear_hit(account_of(op));
    Py_RETURN_NONE;
}

/* ---- the type ------------------------------------------------------------------------------- */

PyDoc_STRVAR(account_doc,
             "What Lua states hold, counted to the byte, and their cap. lua_allocator() makes them.\n\n"
             "Keep it as long as you make states with its allocator. States may outlive it: they go\n"
             "on counting, under the cap that they have.");

PyDoc_STRVAR(account_limit_doc,
             "limit(n=..., *, reserve=...)\n--\n\n"
             "Cap what the account's states may use together at n bytes, at once.\n\n"
             "limit() tells the limit in force, or None. limit(None) lifts it; the account's parent,\n"
             "or a sealed limit of the process, goes on to hold. n is an int of bytes or text such as\n"
             "\"8 MiB\" or \"80%\".\n\n"
             "Lua collects its garbage and asks again when growth is refused; then \"not enough\n"
             "memory\" is raised in the script. From that moment on it may go up to limit + reserve,\n"
             "so that handlers and finalizers can run, until it is well below the limit again. reserve\n"
             "is a size or 0; unless told a sixteenth of the limit, from 4 KiB to 1 MiB.\n\n"
             "A limit below what is in use is legal: growth is refused until enough has been freed.\n"
             "Raises ValueError, TypeError or OverflowError for what is no size. A script in the state\n"
             "can lower the limit, never raise it. May be called from any thread.");

static PyMethodDef account_methods[] = {
    {"limit", (PyCFunction)(void (*)(void))account_limit, METH_VARARGS | METH_KEYWORDS,
     account_limit_doc},
    {"reset_peak", account_reset_peak, METH_NOARGS,
     "reset_peak()\n--\n\nBegin the peak anew, with what is in use."},
    {"clear_hit", account_clear_hit, METH_NOARGS, "clear_hit()\n--\n\nMake limit_hit False again."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef account_getset[] = {
    {"name", get_name, NULL, "What it was called when it was made.", NULL},
    {"parent", get_parent, NULL, "The account that it is charged to as well, or None.", NULL},
    {"used", get_used, NULL, "Bytes that its states hold now, as Lua asked for them.", NULL},
    {"peak", get_peak, NULL, "The most that used has ever been, or since reset_peak().", NULL},
    {"hard_limit", get_hard_limit, NULL, "limit() + reserve, which used never passes, or None.", NULL},
    {"reserve", get_reserve, NULL, "Bytes beyond limit() for handlers and finalizers.", NULL},
    {"limit_hit", get_limit_hit, NULL,
     "Whether its own limit has refused anything. Stays True, also when the script caught the "
     "error, until clear_hit().",
     NULL},
    {"allocations", get_allocations, NULL, "Blocks taken; a realloc is neither that nor a free.", NULL},
    {"frees", get_frees, NULL, "Blocks given back.", NULL},
    {"refusals", get_refusals, NULL, "Requests refused, each one that Lua made again, too.", NULL},
    {"last_refused", get_last_refused, NULL, "Bytes of the last of them, or None.", NULL},
    {"collections", get_collections, NULL,
     "Refused requests that came again: Lua has collected its garbage for each of them.", NULL},
    {"overhead_refusals", get_overhead_refusals, NULL,
     "Those among them that collecting brought too little for, so that the script does not crawl.",
     NULL},
    {"created", get_created, NULL,
     "Objects created so far, by kind; Lua 5.1 and LuaJIT do not tell them.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot account_slots[] = {
    {Py_tp_doc, (char *)account_doc},
    {Py_tp_dealloc, account_dealloc},
    {Py_tp_repr, account_repr},
    {Py_tp_methods, account_methods},
    {Py_tp_getset, account_getset},
    {0, NULL},
};

static PyType_Spec account_spec = {
    .name = "zmalloc.Account",
    .basicsize = sizeof(Account),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = account_slots,
};

/* ---- lua_allocator() -------------------------------------------------------------------------- */

const char accounts_lua_allocator_doc[] =
    "lua_allocator(name=\"Lua\", *, parent=None)\n--\n\n"
    "An allocator for Lua states, counted and capped: (alloc, ud, account).\n\n"
    "alloc and ud are addresses, ints, for lua_newstate(alloc, ud) through ctypes, cffi or any other\n"
    "binding, of any Lua from 5.1 to 5.5 and LuaJIT 2.1 on a 64-bit machine that takes one. account is\n"
    "an Account: used, peak, limit() and more. Any number of states, in any threads, may share it.\n"
    "total() contains what they hold; used() does not.\n\n"
    "While a limit of the process is sealed the account is a part of Python's: what the states hold\n"
    "is in used() as well, and the sealed limit holds for both together. What was made before the\n"
    "seal stays outside. parent is another Account, whose limit holds for all below it together.\n\n"
    "Keep the account as long as you make states on it; those that there are may outlive it. Raises\n"
    "TypeError or ValueError for a name or parent that is none, PermissionError where only held is\n"
    "sealed, which no Lua state counts into.";

/* A seal on what Python holds says nothing about Lua: a state would be a way around it. */
static int check_seal(void)
{
    if (scopes_sealed().limit != SIZE_MAX || scopes_sealed().held == SIZE_MAX)
        return 0;
    PyErr_SetString(PyExc_PermissionError,
                    "a limit on held alone is sealed, and what Lua holds does not count into held: "
                    "seal a limit on used() as well, with limit(n, seal=True) or run --limit");
    return -1;
}

static int check_name(PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name=%R has the wrong type, %s: expected a str", name,
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(name, &length);
    if (text && strlen(text) == (size_t)length)
        return 0;
    if (text || PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        PyErr_Format(PyExc_ValueError,
                     "name=%R is no name: expected text without null characters and surrogates", name);
    return -1;
}

static bool is_below_python(const zaccount *a)
{
    while (a && a != &python_account)
        a = zaccount_parent(a);
    return a != NULL;
}

static int check_parent(PyObject *parent, PyTypeObject *type)
{
    if (Py_TYPE(parent) != type) {
        PyErr_Format(PyExc_TypeError,
                     "parent=%R has the wrong type, %s: expected a zmalloc.Account, or None", parent,
                     Py_TYPE(parent)->tp_name);
        return -1;
    }
    if (scopes_sealed().limit == SIZE_MAX || is_below_python(account_of(parent)))
        return 0;
    PyErr_Format(PyExc_PermissionError,
                 "parent=%R was made before the limit was sealed, which does not hold for it", parent);
    return -1;
}

PyObject *accounts_lua_allocator(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"name", "parent", NULL};
    PyTypeObject *type = account_type(module);
    PyObject *name = NULL, *parent = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O$O:lua_allocator", names, &name, &parent))
        return NULL;
    if (!type) {
        PyErr_SetString(PyExc_RuntimeError, "zmalloc is being taken down with its interpreter");
        return NULL;
    }
    if (parent == Py_None)
        parent = NULL;
    if ((parent && check_parent(parent, type) < 0) || (name && check_name(name) < 0) ||
        check_seal() < 0)
        return NULL;
    name = name ? Py_NewRef(name) : PyUnicode_FromString("Lua");
    PyObject *account = name ? new_account(type, name, parent) : NULL;
    Py_XDECREF(name);
    if (!account)
        return NULL;
    return Py_BuildValue("NNN", PyLong_FromVoidPtr((void *)(uintptr_t)zaccount_alloc),
                         PyLong_FromVoidPtr(account_of(account)), account);
}

/* ---- once ---------------------------------------------------------------------------------- */

static void before_fork(void)
{
    zport_lock(&orphans.lock);
}

static void after_fork(void)
{
    zport_unlock(&orphans.lock);
}

int accounts_init(PyObject *module, PyTypeObject **type)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&done))
        zport_atfork(before_fork, after_fork, after_fork);
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &account_spec, NULL);
    return *type ? PyModule_AddType(module, *type) : -1;
}
