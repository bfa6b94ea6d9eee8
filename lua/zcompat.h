/* zcompat.h - what differs between Lua 5.1 to 5.5 and LuaJIT, for the files that are compiled against a
 * lua.h. The other files of this directory have no #if on a version.
 *
 * Everything is in terms of the API that the five have in common; nothing here needs liblua beyond what
 * the host has. */
#ifndef ZCOMPAT_H
#define ZCOMPAT_H

#include <lauxlib.h>
#include <lua.h>

#if !defined(LUAMOD_API)
#define LUAMOD_API LUALIB_API
#endif

#include <stddef.h>
#include <stdint.h>

#if !defined(LUA_OK)
#define LUA_OK 0
#endif

/* LuaJIT tells whether its collector runs, Lua 5.1 does not. */
#if LUA_VERSION_NUM == 501 && defined(LUA_GCISRUNNING)
#define ZCOMPAT_LUAJIT 1
#else
#define ZCOMPAT_LUAJIT 0
#endif

/* ---- values ------------------------------------------------------------------------------------ */

/* A count or a size. Before 5.3 a number is a double: exact up to 2^53. */
static inline void zcompat_push_size(lua_State *L, uint64_t n)
{
#if LUA_VERSION_NUM >= 503
    lua_pushinteger(L, n > INT64_MAX ? LUA_MAXINTEGER : (lua_Integer)n);
#else
    lua_pushnumber(L, (lua_Number)n);
#endif
}

/* The difference a - b, of whatever sign. */
static inline void zcompat_push_difference(lua_State *L, size_t a, size_t b)
{
#if LUA_VERSION_NUM >= 503
    lua_pushinteger(L, (lua_Integer)(a - b));
#else
    lua_pushnumber(L, a >= b ? (lua_Number)(a - b) : -(lua_Number)(b - a));
#endif
}

/* Whether the number there is an integer by its type, which it then writes. Before 5.3 none is. */
static inline int zcompat_is_integer(lua_State *L, int index, int64_t *value)
{
#if LUA_VERSION_NUM >= 503
    if (!lua_isinteger(L, index))
        return 0;
    *value = (int64_t)lua_tointeger(L, index);
    return 1;
#else
    (void)L, (void)index, (void)value;
    return 0;
#endif
}

/* ---- tables and userdata -------------------------------------------------------------------------- */

/* Both without an allocation when the key is there; the second takes the value from the stack. */
static inline void zcompat_get(lua_State *L, const void *key)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_rawget(L, LUA_REGISTRYINDEX);
}

static inline void zcompat_set(lua_State *L, const void *key)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_insert(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

static inline void *zcompat_new_userdata(lua_State *L, size_t n)
{
#if LUA_VERSION_NUM >= 504
    return lua_newuserdatauv(L, n, 0);
#else
    return lua_newuserdata(L, n);
#endif
}

static inline size_t zcompat_length(lua_State *L, int index)
{
#if LUA_VERSION_NUM >= 502
    return lua_rawlen(L, index);
#else
    return lua_objlen(L, index);
#endif
}

/* Sets the functions of a list that {NULL, NULL} ends into the table on the top. */
static inline void zcompat_set_functions(lua_State *L, const luaL_Reg *list)
{
    for (; list->name; list++) {
        lua_pushcfunction(L, list->func);
        lua_setfield(L, -2, list->name);
    }
}

/* ---- calls ----------------------------------------------------------------------------------------- */

/* Runs f(L) with ud as its only argument, a light userdata, and no result. Raises nothing. */
static inline int zcompat_call_c(lua_State *L, lua_CFunction f, void *ud)
{
    int status;
#if LUA_VERSION_NUM >= 502 /* a C function without upvalues takes no memory */
    if (!lua_checkstack(L, 2))
        return LUA_ERRMEM;
    lua_pushcfunction(L, f);
    lua_pushlightuserdata(L, ud);
    status = lua_pcall(L, 1, 0, 0);
#else
    status = lua_cpcall(L, f, ud);
#endif
    if (status != LUA_OK)
        lua_pop(L, 1);
    return status;
}

/* lua_newstate(), whose third argument, 5.5's seed of its hashes, is 0: runs repeat. NULL for want of memory. */
static inline lua_State *zcompat_newstate(lua_Alloc alloc, void *ud)
{
#if LUA_VERSION_NUM >= 505
    return lua_newstate(alloc, ud, 0);
#else
    return lua_newstate(alloc, ud);
#endif
}

/* ---- the collector ------------------------------------------------------------------------------- */

/* What the collector believes it holds, in bytes, or -1 where it does not tell: in a finalizer of 5.4.4
 * and later. */
static inline double zcompat_count(lua_State *L)
{
    const int whole = lua_gc(L, LUA_GCCOUNT, 0), rest = lua_gc(L, LUA_GCCOUNTB, 0);
    return whole < 0 || rest < 0 ? -1 : (double)whole * 1024 + rest;
}

/* Sets a parameter (pass a negative value to leave it) and returns what it was. */
static inline int zcompat_pause(lua_State *L, int value)
{
#if LUA_VERSION_NUM >= 505
    return lua_gc(L, LUA_GCPARAM, LUA_GCPPAUSE, value);
#else
    const int old = lua_gc(L, LUA_GCSETPAUSE, value < 0 ? 200 : value);
    if (value < 0)
        lua_gc(L, LUA_GCSETPAUSE, old);
    return old;
#endif
}

static inline int zcompat_step_multiplier(lua_State *L, int value)
{
#if LUA_VERSION_NUM >= 505
    return lua_gc(L, LUA_GCPARAM, LUA_GCPSTEPMUL, value);
#else
    const int old = lua_gc(L, LUA_GCSETSTEPMUL, value < 0 ? 200 : value);
    if (value < 0)
        lua_gc(L, LUA_GCSETSTEPMUL, old);
    return old;
#endif
}

/* Whether the collector runs by itself; 1 on Lua 5.1, which does not tell. */
static inline int zcompat_is_collecting(lua_State *L)
{
#if defined(LUA_GCISRUNNING)
    return lua_gc(L, LUA_GCISRUNNING, 0) > 0;
#else
    (void)L;
    return 1;
#endif
}

/* The collector's next step is due at once: in the cycle that it is in, or to begin one. */
static inline void zcompat_start_cycle(lua_State *L)
{
    lua_gc(L, LUA_GCRESTART, 0);
}

#endif
