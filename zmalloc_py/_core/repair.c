/* repair.c - reading and rewriting an exception table.
 *
 * The table is a row of entries (start, length, handler, depth * 2 + lasti), each a number in base 64, most
 * significant digit first; bit 6 says that more digits follow, bit 7 marks an entry's first byte
 * (Objects/exception_handling_notes.txt). Offsets are in instructions of 2 bytes. */
#define PY_SSIZE_T_CLEAN
#include "repair.h"

#include <opcode.h>
#include <stdint.h>
#include <stdlib.h>

bool repair_is_on;
bool repair_is_allowed = true;

#if !REPAIR_IS_NEEDED

void repair_begin(PyThreadState *state)
{
    (void)state;
}

void repair_end(void)
{
}

void repair_thread_ended(const struct thread *t)
{
    (void)t;
}

void repair_drop(void)
{
}

#else

/* ---- the table ------------------------------------------------------------------------------- */

struct entry {
    int start, length, handler, depth;
};

static const uint8_t *read_number(const uint8_t *p, int *value)
{
    int n = *p & 63;
    while (*p & 64)
        n = n << 6 | (*++p & 63);
    *value = n;
    return p + 1;
}

static const uint8_t *read_entry(const uint8_t *p, struct entry *e)
{
    p = read_number(read_number(p, &e->start), &e->length);
    return read_number(read_number(p, &e->handler), &e->depth);
}

static uint8_t *write_number(uint8_t *p, int value, int first)
{
    int shift = 24;
    while (shift && !(value >> shift))
        shift -= 6;
    for (; shift >= 0; shift -= 6, first = 0)
        *p++ = (uint8_t)((value >> shift & 63) | (shift ? 64 : 0) | first);
    return p;
}

static uint8_t *write_entry(uint8_t *p, struct entry e)
{
    if (e.length <= 0 || e.handler < 0)
        return p;
    p = write_number(write_number(p, e.start, 128), e.length, 0);
    return write_number(write_number(p, e.handler, 0), e.depth, 0);
}

static struct entry find(PyObject *table, int offset)
{
    const uint8_t *p = (const uint8_t *)PyBytes_AS_STRING(table), *end = p + PyBytes_GET_SIZE(table);
    struct entry e;
    while (p < end) {
        p = read_entry(p, &e);
        if (e.start <= offset && offset < e.start + e.length)
            return e;
    }
    return (struct entry){offset, 1, -1, -1};
}

/* Our table: a bytes object that is never freed nor handed out, with room for `room` bytes. */
static PyBytesObject *own;
static size_t own_room;

static bool make_room(size_t wanted)
{
    if (wanted <= own_room)
        return true;
    PyBytesObject *bigger = calloc(1, sizeof *bigger + 2 * wanted);
    if (!bigger)
        return false;
    Py_SET_TYPE((PyObject *)bigger, &PyBytes_Type);
    Py_SET_REFCNT((PyObject *)bigger, 1 << 29);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    bigger->ob_shash = -1;
#pragma GCC diagnostic pop
    free(own); /* not in place now: one repair at a time */
    own = bigger;
    own_room = 2 * wanted;
    return true;
}

/* The table, but for one offset, which leads to `to`. Entries are in order of their start. */
static bool copy_table(PyObject *table, int offset, struct entry to)
{
    if (!make_room((size_t)PyBytes_GET_SIZE(table) + 128))
        return false;
    const uint8_t *p = (const uint8_t *)PyBytes_AS_STRING(table), *end = p + PyBytes_GET_SIZE(table);
    uint8_t *const first = (uint8_t *)own->ob_sval, *q = first;
    const struct entry one = {offset, 1, to.handler, to.depth};
    bool done = false;
    while (p < end) {
        struct entry e;
        p = read_entry(p, &e);
        const int stop = e.start + e.length;
        if (e.start < offset)
            q = write_entry(q, (struct entry){e.start, (stop < offset ? stop : offset) - e.start, e.handler, e.depth});
        if (stop <= offset)
            continue;
        if (!done)
            q = write_entry(q, one);
        done = true;
        const int from = e.start > offset ? e.start : offset + 1;
        q = write_entry(q, (struct entry){from, stop - from, e.handler, e.depth});
    }
    if (!done)
        q = write_entry(q, one);
    *q = 0;
    Py_SET_SIZE((PyVarObject *)own, q - first);
    return true;
}

/* ---- the jump -------------------------------------------------------------------------------- */

#if PY_VERSION_HEX < 0x030c0000
static bool is_polled_jump(int op)
{
    return op == JUMP_BACKWARD || (op >= POP_JUMP_BACKWARD_IF_NOT_NONE && op <= POP_JUMP_BACKWARD_IF_TRUE);
}
#else
static bool is_polled_jump(int op)
{
    return op == JUMP_BACKWARD;
}
#endif

static int skip_caches(const uint8_t *code, int n, int i)
{
    for (i++; i < n && code[2 * i] == CACHE; i++)
        ;
    return i;
}

/* The polled backward jump at instruction i of n: false if it is none. *looked is the offset at which the
 * handler will be looked up. `code` is plain, as the compiler made it. */
static bool read_jump(const uint8_t *code, int n, int i, int *target, int *looked)
{
#if PY_VERSION_HEX < 0x030c0000
    if (code[2 * i] == COMPARE_OP) /* its quickened forms do the jump that follows, too */
        i = skip_caches(code, n, i);
    if (i >= n)
        return false;
#endif
    if (!is_polled_jump(code[2 * i]))
        return false;
    int distance = code[2 * i + 1];
    for (int k = i - 1, shift = 8; k >= 0 && shift < 32 && code[2 * k] == EXTENDED_ARG; k--, shift += 8)
        distance |= code[2 * k + 1] << shift;
    const int next = skip_caches(code, n, i);
    *target = next - distance;
    *looked = PY_VERSION_HEX >= 0x030d0000 ? next - 1 : *target - 1;
    return *target >= 1;
}

/* ---- in place ---------------------------------------------------------------------------------- */

static struct {
    PyThreadState *state;
    const struct thread *thread;
    struct spot spot;
    PyObject *table; /* the code's own */
} repair;

/* A code object whose last reference is the repair's, which a hook cannot drop. A second one is leaked. */
static PyCodeObject *done_with;

/* The handler that the jump's target belongs to. A NOP there, the line of a `try:`, has none of its own, as it cannot
 * fail; what stands around the jump tells then. The outer one, as the stack need not be deep enough for another. */
static struct entry handler_of(PyObject *table, const uint8_t *code, int n, int jump, int target)
{
    const struct entry there = find(table, target);
    if (there.handler >= 0 || code[2 * target] != NOP)
        return there;
    while (target < n - 1 && code[2 * target] == NOP)
        target++;
    for (jump--; jump > 0 && code[2 * jump] == CACHE; jump--)
        ;
    const struct entry before = find(table, jump), after = find(table, target);
    return before.handler < 0 || (after.handler >= 0 && after.depth >> 1 < before.depth >> 1) ? after : before;
}

static void put_in_place(PyThreadState *state, const struct spot *spot, struct entry right, int looked)
{
    PyCodeObject *code = spot->code;
    const struct entry wrong = find(code->co_exceptiontable, looked);
    if (right.handler == wrong.handler && right.depth == wrong.depth)
        return;
    if (!copy_table(code->co_exceptiontable, looked, right))
        return;
    repair.state = state;
    repair.thread = thread_self();
    repair.spot = *spot;
    repair.table = code->co_exceptiontable;
    code->co_exceptiontable = (PyObject *)own;
    Py_INCREF(code);
    repair_is_on = true;
}

void repair_begin(PyThreadState *state)
{
    struct spot spot;
    int target, looked;
    frames_top(state, &spot);
    if (repair_is_on || !repair_is_allowed || !spot.frame)
        return;
    const int n = (int)Py_SIZE(spot.code);
    const ptrdiff_t i = ((const char *)spot.at - (const char *)spot.code->co_code_adaptive) / 2;
    if (i < 0 || i >= n)
        return;
    struct thread *t = thread_self();
    t->state += INNER; /* it stays with the code, which is not to pay for it */
    PyObject *plain = PyCode_GetCode(spot.code); /* what runs is quickened and instrumented */
    t->state -= INNER;
    if (!plain) {
        PyErr_Clear();
        return;
    }
    const uint8_t *instructions = (const uint8_t *)PyBytes_AS_STRING(plain);
    if (read_jump(instructions, n, (int)i, &target, &looked))
        put_in_place(state, &spot, handler_of(spot.code->co_exceptiontable, instructions, n, (int)i, target), looked);
    Py_DECREF(plain);
}

static void put_back(void)
{
    repair_is_on = false;
    if (repair.spot.code->co_exceptiontable == (PyObject *)own)
        repair.spot.code->co_exceptiontable = repair.table;
}

void repair_end(void)
{
    PyCodeObject *code = repair.spot.code;
    if (frames_is_at(repair.state, &repair.spot))
        return;
    put_back();
    if (Py_REFCNT(code) > 1)
        Py_DECREF(code);
    else if (!done_with)
        done_with = code;
}

void repair_thread_ended(const struct thread *t)
{
    if (!repair_is_on || repair.thread != t)
        return;
    put_back();
    if (!done_with)
        done_with = repair.spot.code;
}

void repair_drop(void)
{
    Py_CLEAR(done_with);
}

#endif
