/* where.c - reading the innermost Python frame.
 *
 * From 3.11 on PyThreadState_GetFrame() may have to make a frame object, which allocates, and a hook
 * cannot. So the interpreter's own frame is read; its layout is known for the versions that were
 * tested. On others the line is unknown, and nothing else is lost. */
#define PY_SSIZE_T_CLEAN
#if !defined(Py_BUILD_CORE_MODULE)
#define Py_BUILD_CORE_MODULE 1
#endif
#include <Python.h>
#include <frameobject.h>

#define KNOWS_FRAMES (PY_VERSION_HEX < 0x030e0000)
#if KNOWS_FRAMES && PY_VERSION_HEX >= 0x030b0000
#include <internal/pycore_frame.h>
#endif

#include "where.h"

#include <stdatomic.h>
#include <stdio.h>

enum { FILE_ROOM = 256 };

/* Written by one thread at a time: one that finds the flag taken leaves its note out. */
static struct {
    atomic_flag busy;
    bool any;
    size_t bytes, limit;
    int line, length; /* of the file's name; 0: unknown */
    Py_UCS4 file[FILE_ROOM];
} last = {.busy = ATOMIC_FLAG_INIT};

PyThreadState *where_thread_state(void)
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

/* The code that is running and its line; false if there is none. Borrowed. */
static bool running_code(PyThreadState *state, PyCodeObject **code, int *line)
{
#if !KNOWS_FRAMES
    (void)state, (void)code, (void)line;
    return false;
#elif PY_VERSION_HEX < 0x030b0000
    PyFrameObject *frame = state->frame;
    if (!frame)
        return false;
    *code = frame->f_code;
    *line = PyFrame_GetLineNumber(frame);
    return true;
#else
#if PY_VERSION_HEX < 0x030d0000
    _PyInterpreterFrame *frame = state->cframe ? state->cframe->current_frame : NULL;
#else
    _PyInterpreterFrame *frame = state->current_frame;
#endif
    while (frame && _PyFrame_IsIncomplete(frame))
        frame = frame->previous;
    if (!frame)
        return false;
#if PY_VERSION_HEX < 0x030d0000
    *code = frame->f_code;
#else
    *code = _PyFrame_GetCode(frame);
#endif
    *line = PyCode_Addr2Line(*code, _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT));
    return true;
#endif
}

/* The last FILE_ROOM characters: a path's end says more than its beginning. */
static void copy_name(PyObject *name)
{
    last.length = 0;
    if (!name || !PyUnicode_Check(name))
        return;
    const Py_ssize_t length = PyUnicode_GET_LENGTH(name);
    const Py_ssize_t from = length > FILE_ROOM ? length - FILE_ROOM : 0;
    for (Py_ssize_t i = from; i < length; i++)
        last.file[i - from] = PyUnicode_READ_CHAR(name, i);
    last.length = (int)(length - from);
}

void where_note(size_t n, size_t limit)
{
    PyThreadState *state = where_thread_state();
    PyCodeObject *code;
    if (atomic_flag_test_and_set(&last.busy))
        return;
    last.any = true;
    last.bytes = n;
    last.limit = limit;
    if (state && running_code(state, &code, &last.line))
        copy_name(code->co_filename);
    else
        last.length = 0;
    atomic_flag_clear(&last.busy);
}

PyObject *where_last(void)
{
    if (!last.any)
        Py_RETURN_NONE;
    if (last.length == 0)
        return Py_BuildValue("nOO", (Py_ssize_t)last.bytes, Py_None, Py_None);
    return Py_BuildValue("nNi", (Py_ssize_t)last.bytes,
                         PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, last.file, last.length),
                         last.line);
}

size_t where_bytes(void)
{
    return last.bytes;
}

size_t where_limit(void)
{
    return last.limit;
}

/* Writes one character as UTF-8; lone surrogates, which stand for undecodable bytes, as "?". */
static size_t put_utf8(char *at, Py_UCS4 c)
{
    if (c < 0x80) {
        at[0] = (char)c;
        return 1;
    }
    if (c >= 0xd800 && c < 0xe000)
        c = '?';
    size_t more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    at[0] = (char)(lead[more] | c >> 6 * more);
    for (size_t i = 1; i <= more; i++)
        at[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3f));
    return more + 1;
}

void where_format(char *buffer, size_t room)
{
    char name[4 * FILE_ROOM + 1];
    size_t length = 0;
    buffer[0] = '\0';
    if (!last.any || last.length == 0)
        return;
    for (int i = 0; i < last.length; i++)
        length += put_utf8(name + length, last.file[i]);
    name[length] = '\0';
    snprintf(buffer, room, " at %s:%d", name, last.line);
}
