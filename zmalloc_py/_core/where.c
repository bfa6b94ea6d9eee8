/* where.c - the line that asked last, copied into a buffer.
 *
 * A hook cannot make objects, so the end of the file's name is copied, and made a str when it is asked for. */
#define PY_SSIZE_T_CLEAN
#include "where.h"

#include <stdatomic.h>
#include <stdio.h>

/* Written by one thread at a time: one that finds the flag taken leaves its note out. */
static struct {
    atomic_flag busy;
    bool any;
    size_t bytes, limit;
    struct place place;
} last = {.busy = ATOMIC_FLAG_INIT};

/* The last characters: a path's end says more than its beginning. */
static void copy_name(struct place *place, PyObject *name)
{
    if (!name || !PyUnicode_Check(name))
        return;
    const Py_ssize_t length = PyUnicode_GET_LENGTH(name);
    const Py_ssize_t from = length > PLACE_ROOM ? length - PLACE_ROOM : 0;
    for (Py_ssize_t i = from; i < length; i++)
        place->file[i - from] = PyUnicode_READ_CHAR(name, i);
    place->length = (int)(length - from);
}

void where_read(struct place *place)
{
    PyThreadState *state = frames_state();
    struct spot spot;
    place->length = 0;
    if (!state)
        return;
    frames_top(state, &spot);
    if (!spot.frame)
        return;
    place->line = frames_line(&spot);
    copy_name(place, spot.code->co_filename);
}

PyObject *where_file(const struct place *place)
{
    if (place->length == 0)
        return Py_NewRef(Py_None);
    return PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, place->file, place->length);
}

void where_note(size_t n, size_t limit)
{
    if (atomic_flag_test_and_set(&last.busy))
        return;
    last.any = true;
    last.bytes = n;
    last.limit = limit;
    where_read(&last.place);
    atomic_flag_clear(&last.busy);
}

void where_note_place(size_t n, size_t limit, const struct place *place)
{
    if (atomic_flag_test_and_set(&last.busy))
        return;
    last.any = true;
    last.bytes = n;
    last.limit = limit;
    last.place = *place;
    atomic_flag_clear(&last.busy);
}

PyObject *where_last(void)
{
    if (!last.any)
        Py_RETURN_NONE;
    if (last.place.length == 0)
        return Py_BuildValue("nOO", (Py_ssize_t)last.bytes, Py_None, Py_None);
    return Py_BuildValue("nNi", (Py_ssize_t)last.bytes, where_file(&last.place), last.place.line);
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

void where_format_place(const struct place *place, char *buffer, size_t room)
{
    char name[4 * PLACE_ROOM + 1];
    size_t length = 0;
    buffer[0] = '\0';
    if (place->length == 0)
        return;
    for (int i = 0; i < place->length; i++)
        length += put_utf8(name + length, place->file[i]);
    name[length] = '\0';
    snprintf(buffer, room, " at %s:%d", name, place->line);
}

void where_format(char *buffer, size_t room)
{
    buffer[0] = '\0';
    if (last.any)
        where_format_place(&last.place, buffer, room);
}
