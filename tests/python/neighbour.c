/* neighbour.c - another tool in the same process, as the tests need it: one that saves and restores
 * CPython's allocators (as a memory tracker does), one that puts hooks of its own on top, blocks that
 * are taken and freed in C, threads that CPython does not know, and a user of zmalloc's C API. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>

#include "zmalloc_capi.h"

static const PyMemAllocatorDomain domains[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
static PyMemAllocatorEx saved[3], below[3];
static long calls;

static PyObject *save(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    for (int d = 0; d < 3; d++)
        PyMem_GetAllocator(domains[d], &saved[d]);
    Py_RETURN_NONE;
}

static PyObject *restore(PyObject *self, PyObject *args)
{
    (void)self;
    int only = -1;
    if (!PyArg_ParseTuple(args, "|i", &only))
        return NULL;
    for (int d = 0; d < 3; d++)
        if (only < 0 || only == d)
            PyMem_SetAllocator(domains[d], &saved[d]);
    Py_RETURN_NONE;
}

static void *on_malloc(void *ctx, size_t n)
{
    PyMemAllocatorEx *a = ctx;
    calls++;
    return a->malloc(a->ctx, n);
}

static void *on_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    calls++;
    return a->calloc(a->ctx, count, size);
}

static void *on_realloc(void *ctx, void *p, size_t n)
{
    PyMemAllocatorEx *a = ctx;
    calls++;
    return a->realloc(a->ctx, p, n);
}

static void on_free(void *ctx, void *p)
{
    PyMemAllocatorEx *a = ctx;
    a->free(a->ctx, p);
}

static PyObject *hook(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    for (int d = 0; d < 3; d++) {
        PyMem_GetAllocator(domains[d], &below[d]);
        PyMemAllocatorEx mine = {&below[d], on_malloc, on_calloc, on_realloc, on_free};
        PyMem_SetAllocator(domains[d], &mine);
    }
    Py_RETURN_NONE;
}

static PyObject *unhook(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    for (int d = 0; d < 3; d++)
        PyMem_SetAllocator(domains[d], &below[d]);
    Py_RETURN_NONE;
}

static PyObject *hook_calls(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromLong(calls);
}

/* ---- blocks ------------------------------------------------------------------------------------ */

enum { MOST = 3000000 };
static void *block[MOST];
static unsigned char domain_of[MOST];
static long blocks;

/* take(count, size): count blocks of 1 + i % size bytes, in the three domains in turn. */
static PyObject *take(PyObject *self, PyObject *args)
{
    (void)self;
    long count, size, done = 0;
    if (!PyArg_ParseTuple(args, "ll", &count, &size))
        return NULL;
    for (; done < count && blocks < MOST; done++) {
        const int d = (int)(done % 3);
        const size_t n = 1 + (size_t)(done % size);
        void *p = d == 0 ? PyMem_RawMalloc(n) : d == 1 ? PyMem_Malloc(n) : PyObject_Malloc(n);
        if (!p)
            break;
        memset(p, 1, n);
        domain_of[blocks] = (unsigned char)d;
        block[blocks++] = p;
    }
    return PyLong_FromLong(done);
}

static PyObject *resize_all(PyObject *self, PyObject *args)
{
    (void)self;
    long size, failed = 0;
    if (!PyArg_ParseTuple(args, "l", &size))
        return NULL;
    for (long i = 0; i < blocks; i++) {
        void *p = block[i];
        p = domain_of[i] == 0   ? PyMem_RawRealloc(p, (size_t)size)
            : domain_of[i] == 1 ? PyMem_Realloc(p, (size_t)size)
                                : PyObject_Realloc(p, (size_t)size);
        if (p)
            block[i] = p;
        else
            failed++;
    }
    return PyLong_FromLong(failed);
}

static PyObject *give(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    const long count = blocks;
    while (blocks > 0) {
        void *p = block[--blocks];
        if (domain_of[blocks] == 0)
            PyMem_RawFree(p);
        else if (domain_of[blocks] == 1)
            PyMem_Free(p);
        else
            PyObject_Free(p);
    }
    return PyLong_FromLong(count);
}

/* ---- threads that CPython does not know ---------------------------------------------------------- */

static void *handed; /* the block that they hand on */
static size_t handed_size;

/* A letter for each call: m(alloc), a h(uge) one, c(alloc), r(ealloc), f(ree). */
static void call(const char *letters)
{
    for (; *letters; letters++) {
        if (*letters == 'm')
            handed = PyMem_RawMalloc(handed_size = 1000);
        else if (*letters == 'h')
            handed = PyMem_RawMalloc(handed_size = 10000000);
        else if (*letters == 'c')
            handed = PyMem_RawCalloc(10, (handed_size = 1500) / 10);
        else if (*letters == 'r')
            handed = PyMem_RawRealloc(handed, handed_size += 1000);
        else
            PyMem_RawFree(handed), handed_size = 0;
    }
}

static pthread_key_t key;
static const char *letters_of[2]; /* for a thread, and for its end */
static int rounds;

/* Destructors run in rounds: after the first one those of others are through. */
static void at_end(void *value)
{
    if (++rounds < 3)
        pthread_setspecific(key, value);
    else
        call(letters_of[1]);
}

static void *run_thread(void *value)
{
    pthread_setspecific(key, value);
    call(letters_of[0]);
    return NULL;
}

/* in_thread(before, inside, at its end): letters for this thread and for one that is made. The block's size. */
static PyObject *in_thread(PyObject *self, PyObject *args)
{
    (void)self;
    static int is_ready;
    const char *before;
    pthread_t thread;
    if (!PyArg_ParseTuple(args, "sss", &before, &letters_of[0], &letters_of[1]))
        return NULL;
    if (!is_ready)
        is_ready = pthread_key_create(&key, at_end) == 0;
    call(before);
    rounds = 0;
    Py_BEGIN_ALLOW_THREADS
    if (pthread_create(&thread, NULL, run_thread, &rounds) == 0)
        pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(handed_size);
}

/* ---- the C API --------------------------------------------------------------------------------- */

static const struct zmalloc_capi *api;
static zaccount *account;

static PyObject *api_open(PyObject *self, PyObject *args)
{
    (void)self;
    int in_python = 0;
    if (!PyArg_ParseTuple(args, "|p", &in_python))
        return NULL;
    api = PyCapsule_Import(ZMALLOC_CAPI_NAME, 0);
    if (!api)
        return NULL;
    account = api->account_new("neighbour", in_python ? api->python : NULL);
    return Py_BuildValue("inO", api->version, (Py_ssize_t)api->size, account ? Py_True : Py_False);
}

static PyObject *api_charge(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "n", &n))
        return NULL;
    if (n >= 0)
        return PyBool_FromLong(api->charge(account, (size_t)n));
    api->uncharge(account, (size_t)-n);
    Py_RETURN_TRUE;
}

static PyObject *api_limit(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t n, reserve;
    if (!PyArg_ParseTuple(args, "nn", &n, &reserve))
        return NULL;
    return PyLong_FromLong(api->set_limit(account, n < 0 ? ZACCOUNT_UNLIMITED : (size_t)n,
                                          (size_t)reserve));
}

static PyObject *api_figures(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    struct zaccount_figures f;
    api->stats(account, &f);
    return Py_BuildValue("nnnnn", (Py_ssize_t)f.used, (Py_ssize_t)f.peak, (Py_ssize_t)f.refusals,
                         (Py_ssize_t)api->total(), (Py_ssize_t)api->used(api->python));
}

static PyObject *api_alloc(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    void *p = api->alloc(account, NULL, 0, 1000);
    void *q = api->alloc(account, p, 1000, 5000);
    const Py_ssize_t grown = (Py_ssize_t)api->used(account);
    api->alloc(account, q, 5000, 0);
    return Py_BuildValue("nn", grown, (Py_ssize_t)api->used(account));
}

static PyObject *api_close(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromLong(api->account_free(account));
}

static PyMethodDef methods[] = {
    {"save", save, METH_NOARGS, NULL},
    {"restore", restore, METH_VARARGS, NULL},
    {"hook", hook, METH_NOARGS, NULL},
    {"unhook", unhook, METH_NOARGS, NULL},
    {"hook_calls", hook_calls, METH_NOARGS, NULL},
    {"take", take, METH_VARARGS, NULL},
    {"resize_all", resize_all, METH_VARARGS, NULL},
    {"give", give, METH_NOARGS, NULL},
    {"in_thread", in_thread, METH_VARARGS, NULL},
    {"api_open", api_open, METH_VARARGS, NULL},
    {"api_charge", api_charge, METH_VARARGS, NULL},
    {"api_limit", api_limit, METH_VARARGS, NULL},
    {"api_figures", api_figures, METH_NOARGS, NULL},
    {"api_alloc", api_alloc, METH_NOARGS, NULL},
    {"api_close", api_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "neighbour", .m_size = -1,
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit_neighbour(void);
PyMODINIT_FUNC PyInit_neighbour(void)
{
    return PyModule_Create(&definition);
}
