/* zmalloc_lua.c - the allocator of Lua states. Needs no Lua header.
 *
 * It is zaccount_alloc() under the name that Lua hosts look for; registered with the core, so that every
 * copy of the library in the process knows a state by it. */
#include "zmalloc_lua.h"
#include "zcore.h"

void *zmalloc_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    return zaccount_dispatch(ud, ptr, osize, nsize);
}

#if defined(ZPORT_CONSTRUCTOR)
ZPORT_CONSTRUCTOR(announce)
{
    atomic_store(&zcore_self.front, zmalloc_lua_alloc);
}
#endif

uint64_t zmalloc_lua_created(const zaccount *account, int type)
{
    uint64_t kinds[ZACCOUNT_KINDS];
    if (type <= 0 || type >= ZACCOUNT_KINDS)
        return 0;
    zaccount_kinds(account, kinds);
    return kinds[type];
}

size_t zmalloc_lua_reserve(size_t limit)
{
    const size_t least = 4 << 10, most = 1 << 20, share = limit / 16;
    return share < least ? least : share > most ? most : share;
}
