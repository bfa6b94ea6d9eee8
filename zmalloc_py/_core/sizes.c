/* sizes.c - sizes as Python values. */
#define PY_SSIZE_T_CLEAN
#include "sizes.h"

#include "zport.h"
#include "zsize.h"

#include <stdbool.h>

/* Ints of thousands of digits have no repr. */
PyObject *sizes_shown(PyObject *value)
{
    enum { MOST = 60 };
    PyObject *text = PyObject_Repr(value);
    if (!text) {
        PyErr_Clear();
        return PyUnicode_FromFormat("<%s>", Py_TYPE(value)->tp_name);
    }
    if (PyUnicode_GET_LENGTH(text) <= MOST)
        return text;
    PyObject *start = PyUnicode_Substring(text, 0, MOST);
    Py_DECREF(text);
    PyObject *cut = start ? PyUnicode_FromFormat("%U...", start) : NULL;
    Py_XDECREF(start);
    return cut;
}

static int complain(enum zsize_error error, PyObject *value, const char *what)
{
    if (error == ZSIZE_OK)
        return 0;
    PyObject *text = sizes_shown(value);
    if (!text)
        return -1;
    if (error == ZSIZE_SYNTAX)
        PyErr_Format(PyExc_ValueError, "%s=%U is not a size: expected %s", what, text,
                     ZSIZE_EXPECTED);
    else if (error == ZSIZE_RANGE)
        PyErr_Format(PyExc_ValueError,
                     "%s=%U is out of range: expected at least 1 byte, and 0 < percent <= 100",
                     what, text);
    else
        PyErr_Format(PyExc_OverflowError, "%s=%U is too large: at most %zu bytes", what, text,
                     ZSIZE_MAX);
    Py_DECREF(text);
    return -1;
}

static enum zsize_error from_int(PyObject *value, size_t *size)
{
    int overflow;
    const long long n = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow > 0)
        return ZSIZE_OVERFLOW;
    if (overflow < 0 || n < 1)
        return ZSIZE_RANGE;
    if ((unsigned long long)n > ZSIZE_MAX)
        return ZSIZE_OVERFLOW;
    *size = (size_t)n;
    return ZSIZE_OK;
}

int size_from_object(PyObject *value, const char *what, size_t *size)
{
    if (PyLong_Check(value) && !PyBool_Check(value))
        return complain(from_int(value, size), value, what);
    if (!PyUnicode_Check(value)) {
        PyObject *text = sizes_shown(value);
        if (text)
            PyErr_Format(PyExc_TypeError, "%s=%U has the wrong type, %s: expected %s", what, text,
                         Py_TYPE(value)->tp_name, ZSIZE_EXPECTED);
        Py_XDECREF(text);
        return -1;
    }
    if (!PyUnicode_IS_ASCII(value))
        return complain(ZSIZE_SYNTAX, value, what);
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (!text)
        return -1;
    const bool relative = length > 0 && text[length - 1] == '%';
    const size_t memory = relative ? zport_memory_size() : 0;
    if (relative && memory == 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s=%R: this system does not tell how much memory there is", what, value);
        return -1;
    }
    return complain(zsize_parse(text, (size_t)length, memory, size), value, what);
}
