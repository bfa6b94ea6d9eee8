/* relief.c - telling what must be granted. */
#define PY_SSIZE_T_CLEAN
#if !defined(Py_BUILD_CORE_MODULE)
#define Py_BUILD_CORE_MODULE 1
#endif
#include <Python.h>

#define KNOWS_INTERNED (PY_VERSION_HEX >= 0x030c0000 && PY_VERSION_HEX < 0x030e0000)
#if KNOWS_INTERNED
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <internal/pycore_dict.h>
#include <internal/pycore_interp.h>
#pragma GCC diagnostic pop
#endif

#include "relief.h"

#include "callers.h"
#include "machinery.h"

#include <stdatomic.h>
#if !defined(_WIN32)
#include <semaphore.h>
#endif

/* From 3.12 on MAKE_FUNCTION gives its code object back twice where it gets no function: that is freed some functions
 * later, while in use. */
#define LOSES_CODE (PY_VERSION_HEX >= 0x030c0000)

/* ---- unwinding ------------------------------------------------------------------------------------ */

/* What is asked for so is small, and there are no more than so many such blocks at a time. */
enum { LARGEST = 2048, BLOCKS = 2048, BLOCKS_OF_LOOPS = 1024, BLOCKS_OF_VERDICTS = 256 };
enum { LARGEST_CHUNK = 16 << 10, CHUNKS = 64 };

/* Showing an exception takes up to 3 MB, once. */
enum { LARGEST_SHOWN = 512 << 10, BLOCKS_SHOWN = 50000 };

static _Atomic int blocks, chunks;

/* One for the frames that an exception passes through, the others for the frame that was refused something. */
enum { GUESSES = 4 };

/* The instruction at which the exception is on its way. A thread is unwinding while an exception is set, and, when
 * it has been taken out to be normalized, while that instruction has not been left. */
struct unwinding {
    bool is_refused;
    struct spot spot;
    struct guess {
        struct spot spot;
        unsigned times;
    } guesses[GUESSES]; /* where a block's size has told it last, and how often */
    unsigned oldest;     /* of the others */
    const void *refused; /* the frame */
};

static struct unwinding *unwinding_here(void)
{
    return thread_rare(RARE_UNWINDING, sizeof(struct unwinding));
}

void relief_note_refusal(PyThreadState *state)
{
    if (!state)
        return;
    struct unwinding *u = unwinding_here();
    u->is_refused = true;
    frames_top(state, &u->spot);
    u->refused = u->spot.frame;
    if (u->guesses[0].spot.frame != u->refused)
        u->guesses[0].times = 0; /* another exception may come that way */
}

static struct guess *guess_at(struct unwinding *u, const struct spot *top)
{
    struct guess *first = u->guesses;
    if (top->frame != u->refused) {
        if (!frames_is_same(top, &first->spot))
            *first = (struct guess){.spot = *top};
        return first;
    }
    for (struct guess *guess = first + 1; guess < first + GUESSES; guess++)
        if (frames_is_same(top, &guess->spot))
            return guess;
    struct guess *guess = first + 1 + u->oldest;
    u->oldest = (u->oldest + 1) % (GUESSES - 1);
    *guess = (struct guess){.spot = *top};
    return guess;
}

/* A traceback is made while no exception is set: its size tells. An exception leaves an instruction once, though: more
 * blocks of that size there are a loop's in C, which goes on as long as it is granted them; or of what a handler in
 * the frame that was refused something takes each time. */
static bool is_guessed(struct unwinding *u, PyThreadState *state, const struct spot *top, size_t n)
{
    enum { MOST = 4 };
    if (!frames_is_of_unwinding(state, n))
        return false;
    struct guess *guess = guess_at(u, top);
    return guess->times < MOST && ++guess->times;
}

static enum relief relief_of_unwinding(PyThreadState *state, const struct spot *top, size_t n)
{
    struct unwinding *u = unwinding_here();
    if (frames_has_error(state)) {
        u->spot = *top;
        return RELIEF_ANY;
    }
    if (u->is_refused && frames_is_same(top, &u->spot))
        return RELIEF_ANY;
    if (!is_guessed(u, state, top, n))
        return RELIEF_NONE;
    u->spot = *top;
    return RELIEF_GUESSED;
}

void relief_note_grant(PyThreadState *state, size_t n)
{
    struct spot top;
    struct unwinding *u = unwinding_here();
    if (!u->is_refused)
        return;
    frames_top(state, &top);
    u->is_refused = relief_of_unwinding(state, &top, n) != RELIEF_NONE;
}

/* ---- interned strings ------------------------------------------------------------------------------ */

#if KNOWS_INTERNED

static size_t table_size(int log2, size_t entry)
{
    const int log2_index = log2 < 8 ? log2 : log2 < 16 ? log2 + 1 : log2 + 2;
    const size_t usable = ((size_t)2 << log2) / 3;
    return sizeof(PyDictKeysObject) + ((size_t)1 << log2_index) + usable * entry;
}

static size_t keys_size(int log2)
{
    return table_size(log2, sizeof(PyDictUnicodeEntry));
}

/* 3.13's PyDict_SetDefaultRef(), which dict.setdefault() and type() use, goes on when the table could not grow. */
static bool is_any_table(size_t n)
{
    enum { SMALLEST = 3, LARGEST_TABLE = 30 };
    if (PY_VERSION_HEX < 0x030d0000)
        return false;
    for (int log2 = SMALLEST; log2 <= LARGEST_TABLE && keys_size(log2) <= n; log2++)
        if (n == keys_size(log2) || n == table_size(log2, sizeof(PyDictKeyEntry)))
            return true;
    return false;
}

static const PyDictObject *full_table(void)
{
    const PyDictObject *table = (PyDictObject *)PyInterpreterState_Main()->cached_objects.interned_strings;
    return table && table->ma_keys->dk_usable <= 0 ? table : NULL;
}

static bool is_for_more(const PyDictObject *table, size_t n)
{
    for (int log2 = table->ma_keys->dk_log2_size; log2 < table->ma_keys->dk_log2_size + 4; log2++)
        if (n == keys_size(log2))
            return true;
    return false;
}

/* Once for each number of strings that fills it, so that nothing else of that size is granted again and again. */
static bool is_table_growing(size_t n)
{
    static Py_ssize_t last;
    const PyDictObject *table = full_table();
    if (!table || table->ma_used == last || !is_for_more(table, n))
        return false;
    last = table->ma_used;
    return true;
}

bool relief_is_table_growing(size_t n)
{
    const PyDictObject *table = full_table();
    return (table && is_for_more(table, n)) || is_any_table(n);
}

#else

static bool is_table_growing(size_t n)
{
    (void)n;
    return false;
}

bool relief_is_table_growing(size_t n)
{
    (void)n;
    return false;
}

#endif

static bool take_one(_Atomic int *count, int most)
{
    if (atomic_fetch_add(count, 1) < most)
        return true;
    atomic_fetch_sub(count, 1);
    return false;
}

static bool take_block(void)
{
    return take_one(&blocks, BLOCKS);
}

void relief_note_free(void)
{
    atomic_fetch_sub(&blocks, 1);
}

void relief_note_chunk_free(void)
{
    atomic_fetch_sub(&chunks, 1);
}

bool relief_is_lock(enum domain d, size_t n)
{
#if defined(_WIN32)
    (void)d, (void)n;
    return false;
#else
    return d == RAW && n == sizeof(sem_t);
#endif
}

static bool is_main_interpreter(PyThreadState *state)
{
    return state && state->interp == PyInterpreterState_Main();
}

static bool is_function(const struct spot *top)
{
    return LOSES_CODE && frames_is_fragile(top);
}

/* A traceback of a tool's. */
static bool is_trace(enum domain d, size_t n)
{
    return d == RAW && n <= LARGEST && callers_trace_a_resize();
}

/* A tool's of what the unwinding of an exception takes: where there is no room for that it is as if there were none for
 * the block. */
static bool is_trace_of_unwinding(enum domain d)
{
    return d == RAW && unwinding_here()->is_refused && callers_trace_an_object();
}

/* Else CPython uses freed memory, aborts or hangs, under any cap. */
static bool is_due_to_flaw(const struct spot *top, enum domain d, size_t n)
{
    return (n <= LARGEST && is_function(top)) || frames_is_leaving_with(top, n) || is_trace(d, n);
}

/* A thread's own bookkeeping, and, in a worker, its pool's. */
static bool is_machinery_of_threads(const struct spot *top)
{
    return machinery_is_threading(top) || (machinery_is_pool(top) && !zport_is_main_thread());
}

/* Small ones. */
static enum relief relief_of(PyThreadState *state, const struct spot *top, enum domain d, size_t n)
{
    enum relief relief = relief_of_unwinding(state, top, n);
    if (!top->frame || is_machinery_of_threads(top) || relief_is_lock(d, n) || is_due_to_flaw(top, d, n) ||
        is_trace_of_unwinding(d))
        relief = RELIEF_ANY;
    if (relief != RELIEF_NONE)
        return take_block() ? relief : RELIEF_NONE;
    return machinery_is_asyncio(top) && take_one(&blocks, BLOCKS_OF_LOOPS) ? RELIEF_LOOP : RELIEF_NONE;
}

enum relief relief_is_due(PyThreadState *state, enum domain d, size_t n)
{
    struct spot top;
    if (!is_main_interpreter(state))
        return RELIEF_NONE;
    frames_top(state, &top);
    if (n <= LARGEST_SHOWN && machinery_is_display(top))
        return take_one(&blocks, BLOCKS_SHOWN) ? RELIEF_ANY : RELIEF_NONE;
    if (n > LARGEST)
        return is_table_growing(n) && take_block() ? RELIEF_ANY : RELIEF_NONE;
    return relief_of(state, &top, d, n);
}

bool relief_is_due_to_flaw(PyThreadState *state, enum domain d, size_t n)
{
    struct spot top;
    if (!is_main_interpreter(state))
        return false;
    frames_top(state, &top);
    return (is_due_to_flaw(&top, d, n) || is_table_growing(n)) && take_block();
}

bool relief_is_due_to_verdict(size_t n)
{
    return n <= LARGEST && take_one(&blocks, BLOCKS_OF_VERDICTS);
}

bool relief_is_due_to_chunk(PyThreadState *state, size_t n)
{
    return is_main_interpreter(state) && n <= LARGEST_CHUNK && take_one(&chunks, CHUNKS);
}
