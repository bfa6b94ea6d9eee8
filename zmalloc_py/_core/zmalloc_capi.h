/* zmalloc_capi.h - the core for other extension modules, without linking to it.
 *
 *     const struct zmalloc_capi *z = PyCapsule_Import("zmalloc._C_API", 0);
 *     if (!z || z->version != ZMALLOC_CAPI_VERSION) ...
 *     zaccount *a = z->account_new("my module", NULL);     // counts into zmalloc.total()
 *
 * The functions are those of zaccount.h, which says what each does; they may be called without the GIL.
 * zmalloc.get_include() is the folder of both headers. The struct grows at its end only: `size` tells
 * what is there; a change of meaning is a new version. */
#ifndef ZMALLOC_CAPI_H
#define ZMALLOC_CAPI_H

#include "zaccount.h"

#define ZMALLOC_CAPI_VERSION 1
#define ZMALLOC_CAPI_NAME "zmalloc._C_API"

struct zmalloc_capi {
    int version;
    size_t size;
    zaccount *python; /* the interpreter's account: for reading, and as a parent */
    size_t (*total)(void);
    zaccount *(*account_new)(const char *name, zaccount *parent);
    int (*account_free)(zaccount *a);
    bool (*charge)(zaccount *a, size_t n);
    void (*uncharge)(zaccount *a, size_t n);
    void (*give_back)(zaccount *a, size_t n);
    void *(*alloc)(void *ud, void *ptr, size_t osize, size_t nsize);
    size_t (*used)(const zaccount *a);
    size_t (*peak)(const zaccount *a);
    void (*reset_peak)(zaccount *a);
    void (*stats)(const zaccount *a, struct zaccount_figures *out);
    int (*set_limit)(zaccount *a, size_t limit, size_t reserve);
    void (*seal)(zaccount *a);
    void (*clear_hit)(zaccount *a);
    void (*on_pressure)(zaccount *a, size_t mark, void (*f)(zaccount *, size_t, void *), void *ud);
    void (*fail_after)(zaccount *a, int64_t n, int64_t repeat);

    void *(*lua_alloc)(void *ud, void *ptr, size_t osize, size_t nsize); /* a lua_Alloc; ud: a zaccount * */
    zaccount *(*default_account)(void);
    const char *(*name)(const zaccount *a);
    zaccount *(*parent)(const zaccount *a);
    void (*kinds)(const zaccount *a, uint64_t out[ZACCOUNT_KINDS]);
    void (*set_single)(zaccount *a);
    void (*set_overhead)(zaccount *a, unsigned percent, unsigned strikes);
    void (*enter)(zaccount *a, struct zaccount_scope *scope);
    void (*leave)(zaccount *a, struct zaccount_scope *scope);
    size_t (*scope_peak)(zaccount *a, struct zaccount_scope *scope);
    int (*guest_limit)(zaccount *a, size_t limit, size_t reserve);
    void (*guest_seal)(zaccount *a);
    size_t (*guest_peak)(zaccount *a);
    void (*guest_reset_peak)(zaccount *a);
    void (*faults)(const zaccount *a, uint64_t *passed, uint64_t *failed);
};

#endif
