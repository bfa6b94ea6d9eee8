/* zmalloc_lua.h - Lua states whose every byte is counted, under a cap.
 *
 *     zaccount *account = zaccount_new("plugin", NULL);
 *     zaccount_set_limit(account, 8 << 20, 512 << 10);
 *     lua_State *L = zmalloc_lua_newstate(account);     // or lua_newstate(zmalloc_lua_alloc, account)
 *
 * The account (zaccount.h) tells used, peak and refusals, has the cap, a reserve beyond it, and may have
 * a parent: a budget that many states share, from many threads. A script that `require`s "zmalloc" in
 * such a state sees and lowers the same account, and can neither raise nor lift what the host has set.
 *
 * Caveats first:
 *  - Set the cap when the state has its libraries, or allow for the 20 to 40 kB that they take.
 *  - Only growth is refused, with NULL. Lua 5.2 and later then collect their garbage and ask again; Lua
 *    5.1 and LuaJIT raise the error at once, so let zmalloc_lua_pace() have them collect in time.
 *  - The memory error does not run message handlers, and a script can catch it with pcall. Whether the
 *    limit was hit is in zaccount_stats(): limit_hit stays until zaccount_clear_hit().
 *  - The account must outlive the state.
 *  - Not every Lua survives want of memory everywhere, whatever allocator says no. LuaJIT 2.1's beta can crash
 *    when a memory error comes out of compiled code or of the growth of its stack, and its lua_newstate()
 *    does when it finds no memory (zmalloc_lua_newstate() does not let it come to that); it also loses some
 *    bytes of a closure in whose making the error came, so use need not be 0 at the end. Lua 5.2 writes
 *    beyond its stack when lua_close() runs more than a few failing finalizers at the cap: take the cap away
 *    first (zaccount_set_limit(account, ZACCOUNT_UNLIMITED, 0)). Lua 5.1 that meets the cap in the middle of
 *    luaopen_io() can close the process's stdin, stdout or stderr: open the libraries before the cap is set. In
 *    Lua 5.1 and 5.2 a table that was growing when the error came can be left such that pairs() over it never
 *    ends: better to close such a state.
 *  - What a state holds when it is adopted is charged in bytes at once, but its blocks are counted only when
 *    they are freed: allocations - frees is a number of live blocks only with lua_newstate().
 *  - An account that one state alone counts into is cheaper after zaccount_set_single().
 *  - zaccount_fail_after(account, n, repeat) has the states' requests fail on purpose, to test what a host makes
 *    of it; a script has the same in zmalloc.fail_after(), and switches off what the host has switched on.
 *
 * Lua 5.1 to 5.5 and LuaJIT 2.1. zmalloc_lua.c, with the allocator, needs no Lua header; compile
 * zmalloc_lua_state.c against the lua.h of the Lua that it is to serve. Neither needs liblua beyond what
 * the host has. */
#ifndef ZMALLOC_LUA_H
#define ZMALLOC_LUA_H

#include "zaccount.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lua_State lua_State;

/* A lua_Alloc. `ud` is a zaccount *, or NULL for zaccount_default(), the process's Lua account.
 *
 *   (ud, NULL, t, n)   a block of n bytes. t is the type of the object, as Lua 5.2 and later tell it
 *   (ud, p, o, n)      p, of o bytes, becomes n bytes; NULL: the cap refuses, and p is as before
 *   (ud, p, o, 0)      frees p and returns NULL
 *
 * Counts what Lua asks for: used is collectgarbage("count") * 1024 to the byte on Lua 5.1 to 5.4, outside a
 * live string buffer; that of 5.5 is blind to long strings, the account is not. No header, no look-up. A
 * shrink and a free never fail. Never aborts, never calls Lua. */
ZMALLOC_API void *zmalloc_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* How many objects of a type the account's states have created so far, by the types of lua.h (LUA_TSTRING,
 * LUA_TTABLE, LUA_TFUNCTION, LUA_TUSERDATA, LUA_TTHREAD); 0 on Lua 5.1 and LuaJIT, which do not tell. */
ZMALLOC_API uint64_t zmalloc_lua_created(const zaccount *account, int type);

/* The reserve beyond a limit that scripts' limits and zlua's have unless told: a sixteenth, between 4 KiB and
 * 1 MiB. For zaccount_set_limit(). */
ZMALLOC_API size_t zmalloc_lua_reserve(size_t limit);

/* A new state that counts into `account` (NULL: zaccount_default()), with the panic and warn functions of
 * luaL_newstate(), and on 5.5 its seed. NULL when there is no memory, or when the cap has no room for it. */
lua_State *zmalloc_lua_newstate(zaccount *account);

/* From now on a live state counts into `account` too, whatever allocator it has: its allocator is wrapped,
 * not replaced, and what it holds already is charged at once. NULL: into a new account of its own, which
 * ends with the state.
 * 0; or, with nothing changed: ZMALLOC_LUA_ADOPTED if the state counts already; ZMALLOC_LUA_REFUSED if the
 * cap has no room for what the state holds; ZMALLOC_LUA_NOMEM; ZMALLOC_LUA_FINALIZING inside a __gc
 * metamethod, where Lua 5.4.4 and later do not tell what they hold.
 * Lua 5.1 to 5.5: the wrapper stays until the state is closed. LuaJIT, whose own allocator has to be the one
 * in place when it closes: the wrapper goes when the state closes, and the account comes to what the others
 * on it hold; unless the guest could get rid of a cap in this way (a host's cap, a parent's, a seal): then it
 * stays, and the last segment of LuaJIT's heap is lost at the close. */
enum {
    ZMALLOC_LUA_ADOPTED = 1,
    ZMALLOC_LUA_REFUSED = 2,
    ZMALLOC_LUA_NOMEM = 3,
    ZMALLOC_LUA_FINALIZING = 4,
};
int zmalloc_lua_adopt(lua_State *L, zaccount *account);

/* The account that a state counts into, whichever copy of this library made it; NULL if it does not count.
 * The ud of an allocator that is none of ours is never looked into. */
zaccount *zmalloc_lua_account(lua_State *L);

/* Charges memory that a C module holds for the state outside of it (delta > 0), or gives it back (delta < 0;
 * never fails). 0, or -1: the cap refuses, or the state does not count; nothing has changed then. */
int zmalloc_lua_charge(lua_State *L, ptrdiff_t delta);

/* Has the state's collector look at the cap: at the end of each of its cycles, and now, the next one is set to
 * begin before the cap is reached. What a refusal then finds is live data, not garbage; userdata are
 * finalized in time, which no emergency collection does. Lua 5.1 and LuaJIT, which never collect on a
 * refusal, need it. It sets the collector's pause and step multiplier while a cap is near, and puts the
 * state's own back when none is. Call it outside of finalizers, with room for a small userdata, and again
 * when the host has changed the cap. 0, or -1 with no memory or for a state that does not count. */
int zmalloc_lua_pace(lua_State *L);

#ifdef __cplusplus
}
#endif
#endif
