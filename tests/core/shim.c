/* shim.c - functions of the core that the library does not export, for the tests to call.
 *
 * The map's functions take addresses as numbers: the map never looks behind one, so they may be made
 * up. */
#include "zmap.h"
#include "zport.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT zmap *shim_map_new(void);
EXPORT void shim_map_free(zmap *m);
EXPORT bool shim_set(zmap *m, uint64_t address, size_t size);
EXPORT bool shim_set_tag(zmap *m, uint64_t address);
EXPORT bool shim_set_span(zmap *m, uint64_t address, size_t size);
EXPORT bool shim_reach(zmap *m, uint64_t address);
EXPORT bool shim_has_leaf(const zmap *m, uint64_t address);
EXPORT unsigned shim_code(const zmap *m, uint64_t address);
EXPORT size_t shim_size(const zmap *m, uint64_t address);
EXPORT void shim_clear(zmap *m, uint64_t address);
EXPORT void shim_sum(const zmap *m, struct zmap_figures *out);
EXPORT void shim_forget(zmap *m);
EXPORT size_t shim_give_back(zmap *m, uint64_t address, size_t n);
EXPORT size_t shim_memory_size_at(const char *root);

static const void *pointer(uint64_t address)
{
    return (const void *)(uintptr_t)address;
}

zmap *shim_map_new(void)
{
    return calloc(1, sizeof(zmap));
}

void shim_map_free(zmap *m)
{
    for (size_t i = 0; i < (size_t)1 << ZMAP_ROOT_BITS; i++) {
        struct zmap_mid *mid = m->mid[i];
        for (size_t j = 0; mid && j < (size_t)1 << ZMAP_MID_BITS; j++)
            if (mid->leaf[j])
                zport_unmap(mid->leaf[j], sizeof(struct zmap_leaf));
        if (mid)
            zport_unmap(mid, sizeof *mid);
    }
    free(m);
}

bool shim_set(zmap *m, uint64_t address, size_t size)
{
    zmap_byte *at = zmap_reach(m, pointer(address));
    if (at)
        zmap_set(at, size);
    return at != NULL;
}

bool shim_set_tag(zmap *m, uint64_t address)
{
    zmap_byte *at = zmap_reach(m, pointer(address));
    if (at)
        atomic_store(at, (unsigned char)ZMAP_TAG);
    return at != NULL;
}

bool shim_set_span(zmap *m, uint64_t address, size_t size)
{
    zmap_byte *at = zmap_reach(m, pointer(address));
    if (at)
        zmap_set_long(at, size, ZMAP_SPAN);
    return at != NULL;
}

bool shim_reach(zmap *m, uint64_t address)
{
    return zmap_reach(m, pointer(address)) != NULL;
}

bool shim_has_leaf(const zmap *m, uint64_t address)
{
    return zmap_find(m, pointer(address)) != NULL;
}

unsigned shim_code(const zmap *m, uint64_t address)
{
    return zmap_code(zmap_find(m, pointer(address)));
}

size_t shim_size(const zmap *m, uint64_t address)
{
    const zmap_byte *at = zmap_find(m, pointer(address));
    return zmap_size(at, zmap_code(at));
}

void shim_clear(zmap *m, uint64_t address)
{
    zmap_byte *at = zmap_find(m, pointer(address));
    zmap_clear(at, zmap_code(at));
}

void shim_sum(const zmap *m, struct zmap_figures *out)
{
    zmap_sum(m, out);
}

void shim_forget(zmap *m)
{
    zmap_forget(m);
}

size_t shim_give_back(zmap *m, uint64_t address, size_t n)
{
    return zmap_give_back(m, pointer(address), n);
}

size_t shim_memory_size_at(const char *root)
{
    return zport_memory_size_at(root);
}
