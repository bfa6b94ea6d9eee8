/* verdict.h - what is done at the safe point: collect, look again, and only then raise. */
#ifndef ZMALLOC_VERDICT_H
#define ZMALLOC_VERDICT_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* Adds the type Pressure to the module. With the first import in the main interpreter: what a verdict calls and
 * raises. 0, or -1 with an exception set. */
int verdict_init(PyObject *module, PyTypeObject *limit_error);

/* The pending call, of a struct ask. */
int verdict_give(void *ask);

/* Runs the callbacks and the garbage collector, as long as use is above the limit. Whatever exception is set
 * stays set. Holds the main interpreter's GIL; nothing else does it at the same time. */
void verdict_collect(const char *scope, size_t limit);

/* on_pressure(callback, *, remove=False) */
PyObject *verdict_on_pressure(PyObject *module, PyObject *args, PyObject *keywords);
extern const char verdict_on_pressure_doc[];

/* Events since the import. */
struct verdict_figures {
    uint64_t errors;      /* LimitErrors raised */
    uint64_t collections; /* run for a verdict */
    uint64_t spared;      /* verdicts that found use at or below the limit again */
    uint64_t overhead;    /* errors raised although there was room again: collections had become the program */
};
extern struct verdict_figures verdict_figures;

#endif
