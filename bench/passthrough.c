/* passthrough.c - hooks in RAW, MEM and OBJ that only call on: what any hook costs.
 *
 * The yardstick for zmalloc's own hooks, and what `make bench` puts beside them. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyMemAllocatorEx original[3];

#define HOOKS(d)                                                                                 \
    static void *malloc_##d(void *ctx, size_t n)                                                 \
    {                                                                                            \
        (void)ctx;                                                                               \
        return original[d].malloc(original[d].ctx, n);                                           \
    }                                                                                            \
    static void *calloc_##d(void *ctx, size_t count, size_t size)                                \
    {                                                                                            \
        (void)ctx;                                                                               \
        return original[d].calloc(original[d].ctx, count, size);                                 \
    }                                                                                            \
    static void *realloc_##d(void *ctx, void *p, size_t n)                                       \
    {                                                                                            \
        (void)ctx;                                                                               \
        return original[d].realloc(original[d].ctx, p, n);                                       \
    }                                                                                            \
    static void free_##d(void *ctx, void *p)                                                     \
    {                                                                                            \
        (void)ctx;                                                                               \
        original[d].free(original[d].ctx, p);                                                    \
    }

HOOKS(0)
HOOKS(1)
HOOKS(2)

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "zmalloc_passthrough", .m_size = -1};

PyMODINIT_FUNC PyInit_zmalloc_passthrough(void);
PyMODINIT_FUNC PyInit_zmalloc_passthrough(void)
{
    static PyMemAllocatorEx ours[3] = {
        {NULL, malloc_0, calloc_0, realloc_0, free_0},
        {NULL, malloc_1, calloc_1, realloc_1, free_1},
        {NULL, malloc_2, calloc_2, realloc_2, free_2},
    };
    static const PyMemAllocatorDomain domain[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM,
                                                   PYMEM_DOMAIN_OBJ};
    for (int d = 0; d < 3; d++) {
        PyMem_GetAllocator(domain[d], &original[d]);
        ours[d].ctx = original[d].ctx;
        PyMem_SetAllocator(domain[d], &ours[d]);
    }
    return PyModule_Create(&definition);
}
