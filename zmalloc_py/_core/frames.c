/* frames.c - reading the interpreter's frames. */
#define PY_SSIZE_T_CLEAN
#if !defined(Py_BUILD_CORE_MODULE)
#define Py_BUILD_CORE_MODULE 1
#endif
#include <Python.h>
#include <frameobject.h>

#include "frames.h"

#if FRAMES_ARE_KNOWN && PY_VERSION_HEX >= 0x030b0000
#include <internal/pycore_frame.h>
#endif
#if FRAMES_ARE_KNOWN
#include <opcode.h>
#endif

PyThreadState *frames_state(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return PyThreadState_GetUnchecked();
#elif PY_VERSION_HEX >= 0x030c0000
    return _PyThreadState_UncheckedGet();
#else
    /* Up to 3.11 this is the state of whoever holds the GIL. */
    PyThreadState *state = _PyThreadState_UncheckedGet();
    return state && state == PyGILState_GetThisThreadState() ? state : NULL;
#endif
}

#if !FRAMES_ARE_KNOWN

void frames_top(PyThreadState *state, struct spot *spot)
{
    (void)state;
    *spot = (struct spot){NULL, NULL, NULL, NULL};
}

bool frames_next(struct spot *spot)
{
    (void)spot;
    return false;
}

int frames_line(const struct spot *spot)
{
    (void)spot;
    return 0;
}

#elif PY_VERSION_HEX < 0x030b0000

static bool read_frame(struct spot *spot, PyFrameObject *frame)
{
    *spot = (struct spot){frame, NULL, NULL, NULL};
    if (!frame)
        return false;
    spot->at = (const void *)(intptr_t)frame->f_lasti;
    spot->code = frame->f_code;
    spot->globals = frame->f_globals;
    return true;
}

void frames_top(PyThreadState *state, struct spot *spot)
{
    read_frame(spot, state->frame);
}

bool frames_next(struct spot *spot)
{
    return spot->frame && read_frame(spot, ((PyFrameObject *)spot->frame)->f_back);
}

int frames_line(const struct spot *spot)
{
    return PyFrame_GetLineNumber((PyFrameObject *)spot->frame);
}

#else

/* The first whole frame from there on. */
static bool read_frame(struct spot *spot, _PyInterpreterFrame *frame)
{
    while (frame && _PyFrame_IsIncomplete(frame))
        frame = frame->previous;
    *spot = (struct spot){frame, NULL, NULL, NULL};
    if (!frame)
        return false;
#if PY_VERSION_HEX < 0x030d0000
    spot->at = frame->prev_instr;
    spot->code = frame->f_code;
#else
    spot->at = frame->instr_ptr;
    spot->code = _PyFrame_GetCode(frame);
#endif
    spot->globals = frame->f_globals;
    return true;
}

static _PyInterpreterFrame *innermost(PyThreadState *state)
{
#if PY_VERSION_HEX < 0x030d0000
    return state->cframe ? state->cframe->current_frame : NULL;
#else
    return state->current_frame;
#endif
}

void frames_top(PyThreadState *state, struct spot *spot)
{
    read_frame(spot, innermost(state));
}

bool frames_next(struct spot *spot)
{
    return spot->frame && read_frame(spot, ((_PyInterpreterFrame *)spot->frame)->previous);
}

int frames_line(const struct spot *spot)
{
    return PyCode_Addr2Line(spot->code, _PyInterpreterFrame_LASTI((_PyInterpreterFrame *)spot->frame) *
                                            (int)sizeof(_Py_CODEUNIT));
}

#endif

bool frames_is_at(PyThreadState *state, const struct spot *wanted)
{
    struct spot spot;
    frames_top(state, &spot);
    while (spot.frame && spot.frame != wanted->frame)
        frames_next(&spot);
    return spot.frame && spot.code == wanted->code && spot.at == wanted->at;
}

bool frames_has_error(PyThreadState *state)
{
#if PY_VERSION_HEX >= 0x030c0000
    return state->current_exception != NULL;
#else
    return state->curexc_type != NULL;
#endif
}

/* Groups within groups, and the exceptions of one, are looked at as far as this. */
enum { DEEPEST_GROUP = 8, LARGEST_GROUP = 64 };

static bool is_or_has(PyObject *exception, bool (*is)(PyObject *exception, const void *ud), const void *ud, int depth)
{
    if (is(exception, ud))
        return true;
#if PY_VERSION_HEX >= 0x030b0000
    if (depth < DEEPEST_GROUP && PyObject_TypeCheck(exception, (PyTypeObject *)PyExc_BaseExceptionGroup)) {
        PyObject *parts = ((PyBaseExceptionGroupObject *)exception)->excs;
        const Py_ssize_t n = parts && PyTuple_CheckExact(parts) ? PyTuple_GET_SIZE(parts) : 0;
        for (Py_ssize_t i = 0; i < n && i < LARGEST_GROUP; i++)
            if (is_or_has(PyTuple_GET_ITEM(parts, i), is, ud, depth + 1))
                return true;
    }
#else
    (void)depth;
#endif
    return false;
}

bool frames_is_handling(PyThreadState *state, bool (*is)(PyObject *exception, const void *ud), const void *ud)
{
    for (const _PyErr_StackItem *item = state->exc_info; item; item = item->previous_item)
        if (item->exc_value && item->exc_value != Py_None && is_or_has(item->exc_value, is, ud, 0))
            return true;
    return false;
}

bool frames_is_tracing(PyThreadState *state)
{
    return state->tracing != 0;
}

bool frames_is_same(const struct spot *a, const struct spot *b)
{
    return a->frame && a->frame == b->frame && a->at == b->at;
}

enum { GC_HEAD = 2 * sizeof(void *) };

bool frames_is_of_unwinding(PyThreadState *state, size_t n)
{
#if FRAMES_ARE_KNOWN && PY_VERSION_HEX >= 0x030b0000
    struct spot spot;
    frames_top(state, &spot);
    if (spot.frame) {
        const int slots = spot.code->co_nlocalsplus + spot.code->co_stacksize;
        if (n == GC_HEAD + (size_t)_PyObject_VAR_SIZE(&PyFrame_Type, slots))
            return true;
    }
#else
    (void)state;
#endif
    return n == sizeof(PyTracebackObject) + GC_HEAD;
}

/* Where no exception is on its way the compiler writes a call with three times None, which nothing else begins so. */
#if !FRAMES_ARE_KNOWN

static bool is_end_of_with(const struct spot *spot)
{
    (void)spot;
    return false;
}

#elif PY_VERSION_HEX < 0x030b0000

static bool is_end_of_with(const struct spot *spot)
{
    const unsigned char *code = (const unsigned char *)PyBytes_AS_STRING(spot->code->co_code);
    const intptr_t at = (intptr_t)spot->at;
    if (at < 0)
        return false;
    const unsigned char *op = code + 2 * at;
    return op[0] == WITH_EXCEPT_START ||
           (at >= 2 && op[0] == CALL_FUNCTION && op[1] == 3 && op[-2] == DUP_TOP && op[-4] == DUP_TOP);
}

#else

/* 3.11 has an instruction with a cache of one unit before its call, and two forms of EXTENDED_ARG. */
#if PY_VERSION_HEX < 0x030c0000
enum { TO_LAST_ARGUMENT = 3, EXTENDED_AGAIN = EXTENDED_ARG_QUICK };
#else
enum { TO_LAST_ARGUMENT = 1, EXTENDED_AGAIN = EXTENDED_ARG };
#endif

/* The first of the three may be marked as the beginning of a line. */
static bool is_end_of_with(const struct spot *spot)
{
    const _Py_CODEUNIT *at = spot->at, *first = (const _Py_CODEUNIT *)_PyCode_CODE(spot->code);
#if PY_VERSION_HEX < 0x030c0000
#define OPERATION(unit) _Py_OPCODE(unit)
#define ARGUMENT(unit) _Py_OPARG(unit)
#else
#define OPERATION(unit) (unit).op.code
#define ARGUMENT(unit) (unit).op.arg
#endif
    if (OPERATION(*at) == WITH_EXCEPT_START)
        return true;
    if (ARGUMENT(*at) != 2)
        return false;
    const _Py_CODEUNIT *unit = at - TO_LAST_ARGUMENT;
    const unsigned none = unit >= first ? ARGUMENT(*unit) : 0;
    for (int left = 3; left > 0; left--, unit--) {
        if (unit < first || ARGUMENT(*unit) != none || (left > 1 && OPERATION(*unit) != LOAD_CONST))
            return false;
        if (unit > first && (OPERATION(unit[-1]) == EXTENDED_ARG || OPERATION(unit[-1]) == EXTENDED_AGAIN))
            unit--;
    }
    return true;
#undef OPERATION
#undef ARGUMENT
}

#endif

bool frames_is_leaving_with(const struct spot *spot, size_t n)
{
    enum { LARGEST_FRAME = 2048 };
    const bool is_arguments = n == GC_HEAD + sizeof(PyVarObject) + 3 * sizeof(void *);
    const bool is_frame = PY_VERSION_HEX < 0x030b0000 && n >= sizeof(PyFrameObject) && n <= LARGEST_FRAME;
    return (is_arguments || is_frame) && spot->frame && is_end_of_with(spot);
}

bool frames_is_fragile(const struct spot *spot)
{
#if FRAMES_ARE_KNOWN && PY_VERSION_HEX >= 0x030c0000
    return spot->frame && ((const _Py_CODEUNIT *)spot->at)->op.code == MAKE_FUNCTION;
#elif FRAMES_ARE_KNOWN && PY_VERSION_HEX < 0x030b0000
    return spot->frame && (intptr_t)spot->at < 0;
#else
    (void)spot;
    return false;
#endif
}

int frames_depth(PyThreadState *state)
{
#if PY_VERSION_HEX < 0x030b0000
    return state->recursion_depth;
#else
    (void)state;
    return 0;
#endif
}
