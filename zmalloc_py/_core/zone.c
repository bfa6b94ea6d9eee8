/* zone.c - putting the passing hooks in and taking them out.
 *
 * Invariants:
 *  - They are taken out only while they are on top. Who has saved them (tracemalloc) calls them still: then they
 *    stay where they are, and are not put in a second time, for they would call themselves.
 *  - The ctx that was found stays: a reader who sees half of a change calls a valid function with the right ctx. */
#define PY_SSIZE_T_CLEAN
#include "zone.h"

#include "asks.h"
#include "delivery.h"
#include "hooks.h"
#include "hooks_inside.h"
#include "repair.h"

enum { PASSED = 2 };

static const PyMemAllocatorDomain py_domain[PASSED] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};

static PyMemAllocatorEx beneath[PASSED];
static bool is_in[PASSED]; /* on top, or below another tool's */

static bool is_wanted(void)
{
    const size_t limit = atomic_load_explicit(&python_account.limit, memory_order_relaxed);
    return repair_is_on || asks_are_open() || zaccount_used(&python_account) > limit;
}

/* Below a call that counts nothing is noticed. */
static void look(enum domain d, size_t n)
{
    struct thread *t = thread_self();
    t->seen |= 1u << d;
    if (t->state & (WAITING | PROBING))
        return;
    delivery_end_repair();
    if (t->state & (ASKED | CROSSED))
        delivery_notice(t, n);
    if (!is_wanted())
        zone_close();
}

#define PASSING(name, domain)                                                                    \
    static void *name##_malloc(void *ctx, size_t n)                                              \
    {                                                                                            \
        look(domain, n);                                                                         \
        return beneath[domain - MEM].malloc(ctx, n);                                             \
    }                                                                                            \
    static void *name##_calloc(void *ctx, size_t count, size_t size)                             \
    {                                                                                            \
        look(domain, count *size);                                                               \
        return beneath[domain - MEM].calloc(ctx, count, size);                                   \
    }                                                                                            \
    static void *name##_realloc(void *ctx, void *p, size_t n)                                    \
    {                                                                                            \
        look(domain, n);                                                                         \
        return beneath[domain - MEM].realloc(ctx, p, n);                                         \
    }                                                                                            \
    static void name##_free(void *ctx, void *p)                                                  \
    {                                                                                            \
        beneath[domain - MEM].free(ctx, p);                                                      \
    }

PASSING(mem, MEM)
PASSING(obj, OBJ)

static const PyMemAllocatorEx ours[PASSED] = {
    {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free},
    {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free},
};

static bool is_on_top(int i, PyMemAllocatorEx *found)
{
    PyMem_GetAllocator(py_domain[i], found);
    return found->malloc == ours[i].malloc;
}

void zone_open(void)
{
    PyMemAllocatorEx found;
    for (int i = 0; i < PASSED; i++) {
        if (is_in[i] || is_on_top(i, &found))
            continue;
        PyMemAllocatorEx wrapped = ours[i];
        wrapped.ctx = found.ctx;
        beneath[i] = found;
        PyMem_SetAllocator(py_domain[i], &wrapped);
        is_in[i] = true;
    }
}

void zone_close(void)
{
    PyMemAllocatorEx found;
    for (int i = 0; i < PASSED; i++) {
        if (!is_in[i] || !is_on_top(i, &found))
            continue;
        PyMem_SetAllocator(py_domain[i], &beneath[i]);
        is_in[i] = false;
    }
}

static bool is_reached(int i)
{
    hooks_probe_begin();
    void *p = i == 0 ? PyMem_Malloc(1) : PyObject_Malloc(1);
    const bool is_seen = hooks_probe_end() & 1u << (MEM + i);
    if (i == 0)
        PyMem_Free(p);
    else
        PyObject_Free(p);
    return is_seen;
}

void zone_look(void)
{
    for (int i = 0; i < PASSED; i++)
        is_in[i] = is_reached(i);
}
