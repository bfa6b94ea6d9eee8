/* with.h - objects for with statements that can be entered and left when not a byte is left.
 *
 * `with` fetches __enter__ and __exit__ before its block is protected, and a bound method is made when it is
 * fetched: at the cap that would fail, and the cap would stay for ever. So each object carries its two bound
 * methods, made when it is, and a descriptor of ours hands them out. */
#ifndef ZMALLOC_WITH_H
#define ZMALLOC_WITH_H

#include <Python.h>
#include <stdbool.h>

/* What an object of such a type begins with. */
typedef struct {
    PyObject_HEAD
    PyObject *enter, *exit; /* NULL once fetched */
} With;

/* The types' behaviour: enter returns the object (a new reference) or NULL with an exception set; leave returns
 * None or NULL; `error` is the type of the exception that passes, or None. Neither may need memory. */
struct with_way {
    const char *name;
    PyObject *(*enter)(PyObject *self);
    PyObject *(*leave)(PyObject *self, PyObject *error);
};

/* The two types beneath, one set for each interpreter. */
struct with_types {
    PyTypeObject *bound, *method;
};
int with_init(PyObject *module, struct with_types *types);

/* Those of a module that with_init() has seen (in module.c, which knows the module's state). */
const struct with_types *with_types_of(PyObject *module);

/* Gives a type its __enter__ and __exit__. */
int with_equip(const struct with_types *types, PyTypeObject *type, const struct with_way *way);

/* A new object of `size` bytes of that type, its bound methods made and the rest zero; NULL with an exception. */
PyObject *with_new(const struct with_types *types, PyTypeObject *type, size_t size, const struct with_way *way);

/* The end of an object, from its type's tp_dealloc. */
void with_dealloc(PyObject *self);

#endif
