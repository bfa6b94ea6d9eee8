/* machinery.c - the modules, by name. */
#define PY_SSIZE_T_CLEAN
#include "machinery.h"

#include <string.h>

/* Threads, queues and event loops; imports; what shows and logs errors and warnings (also of a coroutine
 * that ends unawaited: nobody would get an error there); what runs as the callback of a weak reference;
 * the parts of test runners, debuggers and kernels that talk to another process. A name stands for its submodules,
 * too. */
static const char *const names[] = {
    "_pydevd_bundle", "_pydev_bundle", "anyio",     "asyncio",    "concurrent",      "curio",
    "debugpy",        "execnet",       "importlib", "ipykernel",  "jupyter_client",  "linecache",
    "logging",        "multiprocessing", "pydevd",  "queue",      "selectors",       "socketserver",
    "subprocess",     "threading",     "tornado",   "traceback",  "trio",            "twisted",
    "uvloop",         "warnings",      "weakref",   "xdist",      "zipimport",       "zmq",
    "_frozen_importlib", "_frozen_importlib_external", "_weakrefset",
};

/* What those call in the middle of their work: it depends on the caller. */
static const char *const helpers[] = {
    "_collections_abc", "collections", "contextlib", "enum",  "functools", "heapq", "inspect", "reprlib", "signal",
    "types",
};

static PyObject *name_key; /* "__name__" */

int machinery_init(void)
{
    if (!name_key)
        name_key = PyUnicode_InternFromString("__name__");
    return name_key ? 0 : -1;
}

/* The module's name, NULL if it is not plain text. */
static const char *module_of(const struct spot *spot, size_t *length)
{
    PyObject *name = spot->globals && PyDict_Check(spot->globals)
                         ? PyDict_GetItemWithError(spot->globals, name_key)
                         : NULL;
    if (!name || !PyUnicode_CheckExact(name) || !PyUnicode_IS_COMPACT_ASCII(name))
        return NULL;
    *length = (size_t)PyUnicode_GET_LENGTH(name);
    return (const char *)PyUnicode_1BYTE_DATA(name);
}

static bool is_among(const char *module, size_t length, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const size_t n = strlen(list[i]);
        if (length >= n && memcmp(module, list[i], n) == 0 && (length == n || module[n] == '.'))
            return true;
    }
    return false;
}

#define AMONG(module, length, list) is_among(module, length, list, sizeof list / sizeof *list)

static bool is_named(struct spot spot)
{
    size_t length;
    for (bool more = spot.frame != NULL; more; more = frames_next(&spot)) {
        const char *module = module_of(&spot, &length);
        if (!module)
            return false;
        if (AMONG(module, length, names))
            return true;
        if (!AMONG(module, length, helpers))
            return false;
    }
    return false;
}

static bool is_of(const struct spot *spot, const char *const *list, size_t count)
{
    size_t length;
    const char *module = spot->frame ? module_of(spot, &length) : NULL;
    return module && is_among(module, length, list, count);
}

bool machinery_is_threading(const struct spot *spot)
{
    static const char *const threading = "threading";
    return is_of(spot, &threading, 1);
}

bool machinery_is_pool(const struct spot *spot)
{
    static const char *const pools[] = {"concurrent", "multiprocessing", "queue"};
    return is_of(spot, pools, sizeof pools / sizeof *pools);
}

bool machinery_is_asyncio(const struct spot *spot)
{
    static const char *const asyncio = "asyncio";
    return is_of(spot, &asyncio, 1);
}

bool machinery_is_turn(const struct spot *spot)
{
    return machinery_is_asyncio(spot) && PyUnicode_CompareWithASCIIString(spot->code->co_name, "_run_once") == 0;
}

bool machinery_is_display(struct spot spot)
{
    static const char *const displays[] = {"_frozen_importlib", "importlib", "traceback"};
    enum { DEEPEST = 100 }; /* such imports are not deeper, and nobody's recursion is to be walked at each request */
    struct spot below = spot;
    size_t length;
    for (int depth = 0; frames_next(&below); depth++) {
        if (depth == DEEPEST)
            return false;
        if (!machinery_is_threading(&below)) /* a thread's first frames, whose excepthook it may be */
            spot = below;
    }
    const char *module = spot.frame ? module_of(&spot, &length) : NULL;
    return module && AMONG(module, length, displays);
}

bool machinery_is(struct spot spot)
{
    return is_named(spot) || machinery_is_display(spot);
}
