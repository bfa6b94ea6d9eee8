/* lzmalloc.c - require "zmalloc": the account of the state that asks, for its scripts.
 *
 * Each call finds the account by the state's allocator. Nothing keeps it where the debug library reaches:
 * no upvalue, no registry entry. What a script sets are the marks of the account's guest, so it lowers
 * what the host allows and raises nothing (zaccount.h).
 *
 * Invariants:
 *  - A budget's cap and a track's measure are lifted before anything else happens at their end, so
 *    nothing that is refused then can keep them.
 *  - What a cap's end has to return is on the stack before the cap is set.
 *  - A metatable is registered when it is whole, so a refusal in its making leaves no half of one.
 *  - Switching fault injection on is the last thing that fail_after does, and its end takes no memory. */
#include "zcompat.h"
#include "zcore.h"
#include "zmalloc.h"
#include "zmalloc_lua.h"
#include "zpace.h"
#include "zport.h"
#include "zsize.h"

#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/*** Exact memory accounting and clean memory caps for the state that runs this script.
 *
 *     local zmalloc = require "zmalloc"
 *     zmalloc.limit("64 MiB")
 *     local ok, err, why = zmalloc.budget("8 MiB", handle, request)
 *     if why == "limit" then reply(503) end
 *
 * Sizes are integers of bytes, or text: "64 MiB", "1.5g", "300 kB" (all 1024-based), or "80%" of the
 * memory that the machine or its container has. Anything else is an error that names the argument.
 *
 * What is counted is what Lua asks its allocator for, to the byte. A request that a limit refuses becomes
 * Lua's own error, "not enough memory", which pcall can catch.
 * @module zmalloc */

#define UNTIL_CLOSED "stays until the state is closed"

static zaccount *account_of(lua_State *L)
{
    zaccount *a = zmalloc_lua_account(L);
    if (!a)
        luaL_error(L, "zmalloc: this state does not count any more: its allocator has been replaced");
    return a;
}

/* ---- arguments ------------------------------------------------------------------------------------- */

/* Pushes the value as a message shows it, shortened. */
static const char *shown(lua_State *L, int index)
{
    enum { MOST = 60 };
    size_t length;
    const char *text;
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &length);
        if (length <= MOST)
            return lua_pushfstring(L, "\"%s\"", text);
        lua_pushlstring(L, text, MOST);
        return lua_pushfstring(L, "\"%s...\"", lua_tostring(L, -1));
    case LUA_TNUMBER:
        lua_pushvalue(L, index);
        return lua_tostring(L, -1);
    case LUA_TBOOLEAN:
        return lua_pushfstring(L, "%s", lua_toboolean(L, index) ? "true" : "false");
    case LUA_TNIL:
        return lua_pushfstring(L, "nil");
    default:
        return lua_pushfstring(L, "<%s>", luaL_typename(L, index));
    }
}

/* Never returns: a message about the value at `index`, for argument `arg`, whose name is `what`. */
static size_t complain(lua_State *L, int arg, int index, const char *what, enum zsize_error error)
{
    const char *value = shown(L, index), *message;
    char most[ZSIZE_TEXT];
    snprintf(most, sizeof most, "%zu", ZSIZE_MAX);
    if (error == ZSIZE_SYNTAX)
        message = lua_pushfstring(L, "%s=%s is not a size: expected %s", what, value, ZSIZE_EXPECTED);
    else if (error == ZSIZE_RANGE)
        message = lua_pushfstring(
            L, "%s=%s is out of range: expected at least 1 byte, and 0 < percent <= 100", what, value);
    else
        message = lua_pushfstring(L, "%s=%s is too large: at most %s bytes", what, value, most);
    return (size_t)luaL_argerror(L, arg, message);
}

static enum zsize_error from_number(lua_State *L, int index, size_t *size)
{
    int64_t whole;
    if (!zcompat_is_integer(L, index, &whole)) {
        const double n = (double)lua_tonumber(L, index);
        if (isnan(n) || (!isinf(n) && n != floor(n)))
            return ZSIZE_SYNTAX;
        if (n >= 9223372036854775808.0)
            return ZSIZE_OVERFLOW;
        whole = n < 1 ? 0 : (int64_t)n;
    }
    if (whole < 1)
        return ZSIZE_RANGE;
    if ((uint64_t)whole > ZSIZE_MAX)
        return ZSIZE_OVERFLOW;
    *size = (size_t)whole;
    return ZSIZE_OK;
}

static enum zsize_error from_text(lua_State *L, int arg, int index, const char *what, size_t *size)
{
    size_t length;
    const char *text = lua_tolstring(L, index, &length);
    const bool relative = length > 0 && text[length - 1] == '%';
    const size_t memory = relative ? zmalloc_get_memory_size() : 0;
    if (relative && memory == 0)
        luaL_argerror(L, arg,
                      lua_pushfstring(L, "%s=%s: this system does not tell how much memory there is",
                                      what, shown(L, index)));
    return zsize_parse(text, length, memory, size);
}

/* The size at `index`, which belongs to argument `arg` and is called `what`. */
static size_t check_size(lua_State *L, int arg, int index, const char *what)
{
    size_t size = 0;
    enum zsize_error error;
    if (lua_type(L, index) == LUA_TNUMBER)
        error = from_number(L, index, &size);
    else if (lua_type(L, index) == LUA_TSTRING)
        error = from_text(L, arg, index, what, &size);
    else
        return (size_t)luaL_argerror(L, arg,
                                     lua_pushfstring(L, "%s=%s has the wrong type, %s: expected %s", what,
                                                     shown(L, index), luaL_typename(L, index),
                                                     ZSIZE_EXPECTED));
    return error == ZSIZE_OK ? size : complain(L, arg, index, what, error);
}

static void check_callable(lua_State *L, int arg)
{
    if (lua_isfunction(L, arg))
        return;
    if (luaL_getmetafield(L, arg, "__call"))
        lua_pop(L, 1);
    else
        luaL_argerror(L, arg, lua_pushfstring(L, "f=%s cannot be called: expected a function",
                                              shown(L, arg)));
}

/* ---- figures --------------------------------------------------------------------------------------- */

static void push_limit(lua_State *L, size_t limit)
{
    if (limit == ZACCOUNT_UNLIMITED)
        lua_pushnil(L);
    else
        zcompat_push_size(L, limit);
}

/*** What the state holds now.
 * Equals `collectgarbage("count") * 1024` on Lua 5.1 to 5.4, outside a live string buffer.
 * @treturn integer bytes
 * @function used */
static int used(lua_State *L)
{
    zcompat_push_size(L, zaccount_used(account_of(L)));
    return 1;
}

/*** What everything in the process that counts holds: all states, Python, C.
 * @treturn integer bytes
 * @function total */
static int total(lua_State *L)
{
    account_of(L);
    zcompat_push_size(L, zmalloc_total());
    return 1;
}

/*** The most that was ever held, to the byte, since the state began to count or since `reset_peak`.
 * @treturn integer bytes
 * @function peak */
static int peak(lua_State *L)
{
    zcompat_push_size(L, zaccount_guest_peak(account_of(L)));
    return 1;
}

/*** Begins the peak anew, with what is held now. The host's own peak stays.
 * @function reset_peak */
static int reset_peak(lua_State *L)
{
    zaccount_guest_reset_peak(account_of(L));
    return 0;
}

/*** Resident memory of the process; 0 where the system does not tell.
 * @treturn integer bytes
 * @function rss */
static int rss(lua_State *L)
{
    zcompat_push_size(L, zmalloc_get_rss());
    return 1;
}

/*** Collects all garbage, in two cycles, so that what has a finalizer goes too.
 * As with `collectgarbage()`, that ends a `collectgarbage("stop")` on Lua 5.1 and LuaJIT. In a finalizer
 * Lua 5.4.4 and later collect nothing.
 * @treturn integer how many bytes came back; negative if finalizers kept more than was freed
 * @function collect */
static int collect(lua_State *L)
{
    zaccount *a = account_of(L);
    const size_t before = zaccount_used(a);
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);
    zcompat_push_difference(L, before, zaccount_used(a));
    return 1;
}

/* ---- stats ----------------------------------------------------------------------------------------- */

#define STATS_TYPE "zmalloc.stats"

/* Pushes the metatable of that name. */
static void push_metatable(lua_State *L, const char *name, const luaL_Reg *functions)
{
    luaL_getmetatable(L, name);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_createtable(L, 0, 4);
    zcompat_set_functions(L, functions);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name"); /* what messages call it, from 5.3 on */
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, name);
}

static void put_size(lua_State *L, const char *name, uint64_t n)
{
    zcompat_push_size(L, n);
    lua_setfield(L, -2, name);
}

static void put_limit(lua_State *L, const char *name, size_t limit)
{
    push_limit(L, limit);
    lua_setfield(L, -2, name);
}

static void put_boolean(lua_State *L, const char *name, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

static void put_core(lua_State *L)
{
    const struct zcore *owner = zcore_owner();
    const char *object = owner == &zcore_self ? NULL : zport_object_name(owner);
    if (owner == &zcore_self)
        lua_pushliteral(L, "zmalloc " ZMALLOC_VERSION);
    else
        lua_pushfstring(L, "zmalloc %s in %s", owner->version, object ? object : "?");
    lua_setfield(L, -2, "core");
}

/* Lua 5.1 and LuaJIT do not tell their allocator what a block is for. */
static void put_kinds(lua_State *L, const zaccount *a)
{
#if LUA_VERSION_NUM >= 502
    lua_createtable(L, 0, 5);
    put_size(L, "strings", zmalloc_lua_created(a, LUA_TSTRING));
    put_size(L, "tables", zmalloc_lua_created(a, LUA_TTABLE));
    put_size(L, "functions", zmalloc_lua_created(a, LUA_TFUNCTION));
    put_size(L, "userdata", zmalloc_lua_created(a, LUA_TUSERDATA));
    put_size(L, "threads", zmalloc_lua_created(a, LUA_TTHREAD));
    lua_setfield(L, -2, "kinds");
#else
    (void)L, (void)a;
#endif
}

static void put_figures(lua_State *L, const struct zaccount_figures *f)
{
    put_size(L, "used", f->used);
    put_size(L, "peak", f->peak);
    put_limit(L, "limit", f->limit);
    put_limit(L, "hard_limit", f->hard_limit);
    put_size(L, "reserve", f->limit == ZACCOUNT_UNLIMITED ? 0 : f->hard_limit - f->limit);
    put_boolean(L, "limit_hit", f->limit_hit);
    put_boolean(L, "sealed", f->sealed || f->guest_sealed);
    put_size(L, "allocations", f->allocations);
    put_size(L, "frees", f->frees);
    put_size(L, "refusals", f->refusals);
    put_size(L, "collections", f->retries);
    put_size(L, "overhead_refusals", f->overhead_refusals);
    if (f->refusals)
        put_size(L, "last_refused", f->last_refused);
}

static int show_stats(lua_State *L);

/*** Every figure at this moment, as a table that prints readably.
 * @treturn table `used total peak limit hard_limit reserve` (bytes; no limit: nil), `limit_hit` (a cap of
 * this account has refused something, until the host clears it), `sealed`, `allocations frees` (blocks),
 * `refusals last_refused` (growths refused, the size of the last), `collections` (refused requests that
 * came again after an emergency collection), `overhead_refusals` (of those, refused because collections
 * kept bringing too little), `rss fragmentation` (resident memory; rss / total), `core` (the copy of the
 * library that keeps the process's register), and from Lua 5.2 on `kinds`, the objects created so far:
 * `strings tables functions userdata threads`.
 * @function stats */
static int stats(lua_State *L)
{
    static const luaL_Reg functions[] = {{"__tostring", show_stats}, {NULL, NULL}};
    zaccount *a = account_of(L);
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    f.peak = zaccount_guest_peak(a);
    const size_t all = zmalloc_total(), resident = zmalloc_get_rss();
    lua_createtable(L, 0, 20);
    put_figures(L, &f);
    put_size(L, "total", all);
    put_size(L, "rss", resident);
    if (all) {
        lua_pushnumber(L, (lua_Number)resident / (lua_Number)all);
        lua_setfield(L, -2, "fragmentation");
    }
    put_core(L);
    put_kinds(L, a);
    push_metatable(L, STATS_TYPE, functions);
    lua_setmetatable(L, -2);
    return 1;
}

enum { CELL = 80 };

/* 1234567 as "1,234,567". */
static void write_grouped(char out[CELL], double n)
{
    char digits[CELL];
    const int length = snprintf(digits, sizeof digits, "%.0f", n);
    char *o = out;
    for (int i = 0; i < length && o < out + CELL - 3; i++) {
        if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-')
            *o++ = ',';
        *o++ = digits[i];
    }
    *o = 0;
}

static void write_size(char out[CELL], double n)
{
    char size[ZSIZE_TEXT], bytes[CELL];
    write_grouped(bytes, n);
    if (n < 1024 || n >= 9223372036854775808.0)
        snprintf(out, CELL, "%.40s B", bytes);
    else
        snprintf(out, CELL, "%.40s B  (%s)", bytes, zsize_format(size, (size_t)n));
}

/* The field as text, by what it is: 's'ize, 'n'umber, 'r'atio, 'b'oolean or 't'ext. */
static void write_field(lua_State *L, const char *name, char kind, char out[CELL])
{
    lua_getfield(L, 1, name);
    if (lua_isnil(L, -1))
        snprintf(out, CELL, "none");
    else if (kind == 's')
        write_size(out, (double)lua_tonumber(L, -1));
    else if (kind == 'n')
        write_grouped(out, (double)lua_tonumber(L, -1));
    else if (kind == 'r')
        snprintf(out, CELL, "%.2f", (double)lua_tonumber(L, -1));
    else if (kind == 'b')
        snprintf(out, CELL, "%s", lua_toboolean(L, -1) ? "yes" : "no");
    else
        snprintf(out, CELL, "%s", lua_isstring(L, -1) ? lua_tostring(L, -1) : "?");
    lua_pop(L, 1);
}

static void add_kinds(lua_State *L, luaL_Buffer *text)
{
    static const char *const names[] = {"strings", "tables", "functions", "userdata", "threads"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char cell[CELL] = "none", line[2 * CELL];
        lua_getfield(L, 1, "kinds");
        if (lua_istable(L, -1)) {
            lua_getfield(L, -1, names[i]);
            write_grouped(cell, (double)lua_tonumber(L, -1));
            lua_pop(L, 1);
            snprintf(line, sizeof line, "\n%-20s%s", names[i], cell);
            lua_pop(L, 1);
            luaL_addstring(text, line);
        } else {
            lua_pop(L, 1);
        }
    }
}

static int show_stats(lua_State *L)
{
    static const struct {
        const char *field, *title, kind;
    } rows[] = {
        {"used", "used", 's'},
        {"peak", "peak", 's'},
        {"limit", "limit", 's'},
        {"limit_hit", "limit hit", 'b'},
        {"hard_limit", "hard limit", 's'},
        {"sealed", "sealed", 'b'},
        {"total", "total", 's'},
        {"rss", "rss", 's'},
        {"fragmentation", "fragmentation", 'r'},
        {"allocations", "allocations", 'n'},
        {"frees", "frees", 'n'},
        {"refusals", "refusals", 'n'},
        {"last_refused", "last refused", 's'},
        {"collections", "collections", 'n'},
        {"overhead_refusals", "overhead refusals", 'n'},
        {"core", "core", 't'},
    };
    luaL_Buffer text;
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_buffinit(L, &text);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char cell[CELL], line[2 * CELL];
        write_field(L, rows[i].field, rows[i].kind, cell);
        snprintf(line, sizeof line, "%s%-20s%s", i ? "\n" : "", rows[i].title, cell);
        luaL_addstring(&text, line);
    }
    add_kinds(L, &text);
    luaL_pushresult(&text);
    return 1;
}

/* ---- limit ----------------------------------------------------------------------------------------- */

struct options {
    bool seal;
    size_t reserve;
};

static void read_option(lua_State *L, const char *name, struct options *out)
{
    const int value = lua_gettop(L);
    if (strcmp(name, "seal") == 0) {
        if (!lua_isboolean(L, value))
            luaL_argerror(L, 2, lua_pushfstring(L, "seal=%s has the wrong type, %s: expected true or false",
                                                shown(L, value), luaL_typename(L, value)));
        out->seal = lua_toboolean(L, value);
    } else if (strcmp(name, "reserve") == 0) {
        const bool none = lua_type(L, value) == LUA_TNUMBER && lua_tonumber(L, value) == 0;
        out->reserve = none ? 0 : check_size(L, 2, value, "reserve");
    } else {
        luaL_argerror(L, 2, lua_pushfstring(L, "there is no option '%s': expected seal or reserve", name));
    }
}

static void read_options(lua_State *L, struct options *out)
{
    if (lua_isnoneornil(L, 2))
        return;
    if (!lua_istable(L, 2))
        luaL_argerror(L, 2, lua_pushfstring(L, "options=%s has the wrong type, %s: expected a table such as"
                                               " {seal=true, reserve=\"64 KiB\"}",
                                            shown(L, 2), luaL_typename(L, 2)));
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_argerror(L, 2, lua_pushfstring(L, "there is no option %s: expected seal or reserve",
                                                shown(L, -2)));
        read_option(L, lua_tostring(L, -2), out);
    }
}

/* "8388608 bytes (8.0 MiB)", pushed. */
static const char *push_bytes(lua_State *L, size_t n)
{
    char bytes[ZSIZE_TEXT], size[ZSIZE_TEXT];
    snprintf(bytes, sizeof bytes, "%zu", n);
    return lua_pushfstring(L, "%s bytes (%s)", bytes, zsize_format(size, n));
}

static size_t hard_mark(size_t limit, size_t reserve)
{
    size_t hard;
    return zport_add(limit, reserve, &hard) ? hard : SIZE_MAX;
}

/* The script's own limit is sealed, and this one is above. */
static int refuse_rise(lua_State *L, zaccount *a, size_t limit, size_t reserve)
{
    const struct zaccount_scope *sealed = a->core->guest(a);
    if (limit > sealed->limit)
        return luaL_argerror(
            L, 1, lua_pushfstring(L, "n of %s is above the sealed limit of %s, which " UNTIL_CLOSED,
                                  push_bytes(L, limit), push_bytes(L, sealed->limit)));
    return luaL_argerror(
        L, 2,
        lua_pushfstring(L, "n + reserve of %s is above the sealed hard limit of %s, which " UNTIL_CLOSED,
                        push_bytes(L, hard_mark(limit, reserve)),
                        push_bytes(L, hard_mark(sealed->limit, sealed->reserve))));
}

static int return_limit(lua_State *L, const zaccount *a)
{
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    push_limit(L, f.limit);
    return 1;
}

static int lift(lua_State *L, zaccount *a)
{
    if (!lua_isnoneornil(L, 2))
        return luaL_argerror(L, 2, "there are no options for lifting the limit");
    if (zaccount_guest_limit(a, ZACCOUNT_UNLIMITED, 0) != 0)
        return luaL_argerror(
            L, 1, lua_pushfstring(L, "nil would lift the sealed limit of %s, which " UNTIL_CLOSED,
                                  push_bytes(L, a->core->guest(a)->limit)));
    zpace_adjust(L, 1);
    return return_limit(L, a);
}

/*** Reads, sets or lifts the limit of what the state holds.
 *
 * `limit()` tells the limit in force, or nil. `limit(n)` sets the script's own, at once and absolutely;
 * below what is held it frees nothing, and refuses growth. `limit(nil)` lifts it.
 *
 * The smallest limit there is, is in force: the host's, the script's, a budget's. So a larger one than the
 * host's is legal and changes nothing, and what is returned tells. Under a seal a limit above the sealed one,
 * or nil, is an error.
 *
 * After a refusal the reserve serves, above the limit, for handlers, `<close>` and `__gc`, until use is well
 * below the limit again; use never passes limit + reserve.
 * @param[opt] n a size, or nil
 * @tparam[opt] table options `seal` (boolean): no script can raise or lift this limit any more, until the
 * state is closed; `reserve` (a size, or 0): a sixteenth of n unless told, between 4 KiB and 1 MiB
 * @treturn integer|nil the limit in force from now on, in bytes
 * @function limit */
static int limit(lua_State *L)
{
    zaccount *a = account_of(L);
    if (lua_gettop(L) == 0)
        return return_limit(L, a);
    if (lua_isnil(L, 1))
        return lift(L, a);
    const size_t n = check_size(L, 1, 1, "n");
    struct options options = {false, zmalloc_lua_reserve(n)};
    read_options(L, &options);
    zpace_prepare(L); /* while there is room; without it there is no pacing, and the cap is as hard */
    if (zaccount_guest_limit(a, n, options.reserve) != 0)
        return refuse_rise(L, a, n, options.reserve);
    if (options.seal)
        zaccount_guest_seal(a);
    zpace_adjust(L, 1);
    return return_limit(L, a);
}

/* From 5.2 on luaL_checkstack() says of a stack that is refused its memory that it is too deep. The text is one that
 * Lua has, so it takes no memory; luaL_error() of 5.5 loses its text where there is none. */
static void need_stack(lua_State *L, int slots)
{
    if (lua_checkstack(L, slots))
        return;
    lua_pushliteral(L, "not enough memory");
    lua_error(L);
}

/* ---- fault injection ------------------------------------------------------------------------------- */

#define FAULT_TYPE "zmalloc.fault"

/* The object of a fail_after(). The account has one fault at a time; the registry has the state's last. */
struct fault {
    bool is_on;
    uint64_t passed, failed; /* when it is not on any more */
    uint64_t earlier;        /* what those before it had failed */
};

static const char last_fault; /* its key in the registry */

enum { ROOM = 100 }; /* a few calls, of C functions too */

static int64_t check_count(lua_State *L, int arg, const char *name, int64_t least, const char *expected)
{
    int64_t whole = 0;
    const char *problem = NULL;
    if (lua_type(L, arg) != LUA_TNUMBER) {
        problem = lua_pushfstring(L, "has the wrong type, %s", luaL_typename(L, arg));
    } else if (!zcompat_is_integer(L, arg, &whole)) {
        const double n = (double)lua_tonumber(L, arg);
        if (isnan(n) || (!isinf(n) && n != floor(n)))
            problem = "is not an integer";
        else if (n >= 9223372036854775808.0 || n < (double)least)
            problem = "is out of range";
        else
            whole = (int64_t)n;
    }
    if (!problem && whole < least)
        problem = "is out of range";
    if (problem)
        luaL_argerror(L, arg, lua_pushfstring(L, "%s=%s %s: expected %s", name, shown(L, arg), problem, expected));
    return whole;
}

static void end(const zaccount *a, struct fault *f)
{
    f->is_on = false;
    zaccount_faults(a, &f->passed, &f->failed);
}

/* The state's last fault. NULL: none, or what the debug library has put there. */
static struct fault *last_of(lua_State *L)
{
    zcompat_get(L, &last_fault);
    struct fault *f = lua_type(L, -1) == LUA_TUSERDATA ? lua_touserdata(L, -1) : NULL;
    if (f && zcompat_length(L, -1) != sizeof *f)
        f = NULL;
    lua_pop(L, 1);
    return f; /* the registry keeps it */
}

static void end_last(lua_State *L, const zaccount *a)
{
    struct fault *f = last_of(L);
    if (f && f->is_on)
        end(a, f);
}

/* How many requests have failed on purpose so far. */
static uint64_t injected(lua_State *L, const zaccount *a)
{
    uint64_t passed, failed;
    const struct fault *f = last_of(L);
    zaccount_faults(a, &passed, &failed);
    return !f ? failed : f->earlier + (f->is_on ? failed : f->failed);
}

static void read_fault(lua_State *L, struct fault *out)
{
    *out = *(struct fault *)luaL_checkudata(L, 1, FAULT_TYPE);
    if (out->is_on)
        zaccount_faults(account_of(L), &out->passed, &out->failed);
}

static int return_counts(lua_State *L, uint64_t passed, uint64_t failed)
{
    zcompat_push_size(L, passed);
    zcompat_push_size(L, failed);
    return 2;
}

/* Takes no memory. One that another has replaced leaves that one on. */
static int end_fault(lua_State *L)
{
    struct fault *f = luaL_checkudata(L, 1, FAULT_TYPE);
    zaccount *a = account_of(L);
    if (f->is_on) {
        zaccount_fail_after(a, -1, 0);
        end(a, f);
    }
    return return_counts(L, f->passed, f->failed);
}

static int index_fault(lua_State *L)
{
    struct fault f;
    read_fault(L, &f);
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(name, "passed") == 0)
        zcompat_push_size(L, f.passed);
    else if (strcmp(name, "failed") == 0)
        zcompat_push_size(L, f.failed);
    else
        lua_pushnil(L);
    return 1;
}

static int switch_off(lua_State *L, zaccount *a)
{
    uint64_t passed, failed;
    if (!lua_isnoneornil(L, 2))
        return luaL_argerror(L, 2, "there is nothing to repeat when it is switched off");
    zaccount_fail_after(a, -1, 0);
    end_last(L, a);
    zaccount_faults(a, &passed, &failed);
    return return_counts(L, passed, failed);
}

/*** Has requests for memory fail on purpose, to test what a script makes of it.
 *
 *     local n, failed = 0
 *     repeat                                    -- each request that f makes fails once
 *       local fault = zmalloc.fail_after(n, 2)
 *       pcall(f)
 *       n, failed = n + 1, select(2, fault())   -- off again
 *     until failed == 0
 *
 * The next n requests that grow what the state holds succeed, the `repeat` after them fail with Lua's own
 * "not enough memory", then all is as ever. From 5.2 on Lua collects its garbage when a request fails and makes it
 * again, which counts as another: 1 is a collection at that place, 2 an error. No limit is hit, and none of
 * the reserve is used; `stats().refusals` and `last_refused` tell it.
 *
 * What is returned switches it off when it is called, or when it goes out of scope as a `<close>` variable of
 * 5.4, and tells how many requests have passed and failed; so do its fields `passed` and `failed`, at any
 * time. `fail_after()` or `fail_after(nil)` switches off whatever is on, and tells as much. Have the requests made
 * by a function that pcall calls, made before: a closure, a text, a deeper stack is a request as well.
 *
 * There is one at a time, for the account: a later one replaces it, also the host's, and other states that
 * count into the same account have their requests counted and refused.
 * @tparam[opt] integer n from 0 on, or nil: off
 * @tparam[opt=1] integer repeat from 1 on, or -1: all that follow
 * @treturn userdata|integer a function as described, with fields `passed` and `failed`; without n, passed
 * @treturn[opt] integer without n: failed
 * @function fail_after */
static int fail_after(lua_State *L)
{
    static const char repeats[] = "an integer from 1 on, or -1 for all that follow";
    static const luaL_Reg functions[] = {
        {"__call", end_fault}, {"__close", end_fault}, {"__index", index_fault}, {NULL, NULL},
    };
    zaccount *a = account_of(L);
    if (lua_isnoneornil(L, 1))
        return switch_off(L, a);
    const int64_t n = check_count(L, 1, "n", 0, "an integer from 0 on, or nil to switch it off");
    const int64_t repeat = lua_isnoneornil(L, 2) ? 1 : check_count(L, 2, "repeat", -1, repeats);
    if (repeat == 0)
        return luaL_argerror(L, 2, lua_pushfstring(L, "repeat=0 is out of range: expected %s", repeats));
    need_stack(L, ROOM); /* what ends it should not have to grow the stack */
    struct fault *f = zcompat_new_userdata(L, sizeof *f);
    *f = (struct fault){0};
    push_metatable(L, FAULT_TYPE, functions);
    lua_setmetatable(L, -2);
    if (!last_of(L)) { /* the entry is made, with what cannot be one that is on */
        lua_pushboolean(L, 0);
        zcompat_set(L, &last_fault);
    }
    f->earlier = injected(L, a);
    end_last(L, a);
    lua_pushvalue(L, -1);
    zcompat_set(L, &last_fault);
    f->is_on = true;
    zaccount_fail_after(a, n, repeat);
    return 1;
}

/* ---- budget and track ------------------------------------------------------------------------------ */

/* Lua's error for want of memory, as itself or in the words of whoever passed it on. */
static bool is_memory_error(lua_State *L, int status)
{
    if (status == LUA_ERRMEM)
        return true;
    return lua_type(L, -1) == LUA_TSTRING && strstr(lua_tostring(L, -1), "not enough memory") != NULL;
}

/* Calls the function and the arguments from `first` on, with the scope around it; the results or the
 * error take their place. */
static int call_within(lua_State *L, zaccount *a, struct zaccount_scope *scope, int first)
{
    zaccount_enter(a, scope);
    if (scope->limit != ZACCOUNT_UNLIMITED)
        zpace_adjust(L, 0);
    const int status = lua_pcall(L, lua_gettop(L) - first, LUA_MULTRET, 0);
    zaccount_leave(a, scope);
    if (lua_checkstack(L, LUA_MINSTACK) && scope->limit != ZACCOUNT_UNLIMITED)
        zpace_adjust(L, 0);
    return status;
}

/*** Calls `f(...)` as pcall does, and lets the state grow by n bytes at most while it runs.
 *
 * Budgets nest, and the tightest cap is in force: one that allows more than another that is in force has
 * no effect. `f` cannot yield out of the budget: Lua raises its error, "attempt to yield across a C-call
 * boundary". The reserve beyond n is a sixteenth of it, between 4 KiB and 1 MiB.
 * @param n a size
 * @tparam function f
 * @param ... its arguments
 * @treturn[1] boolean true
 * @return[1] the results of f
 * @treturn[2] boolean false
 * @return[2] the error
 * @treturn[2] string|nil "limit" if the error is that of a request which a cap has refused
 * @function budget */
static int budget(lua_State *L)
{
    struct zaccount_scope scope = {0};
    struct zaccount_figures before, after;
    const size_t n = check_size(L, 1, 1, "n");
    check_callable(L, 2);
    zaccount *a = account_of(L);
    need_stack(L, LUA_MINSTACK);
    lua_pushliteral(L, "limit");
    lua_replace(L, 1);
    lua_pushboolean(L, 1);
    lua_insert(L, 2);
    zpace_prepare(L);
    zaccount_stats(a, &before);
    const uint64_t faults = injected(L, a);
    scope.limit = hard_mark(before.used, n);
    scope.reserve = zmalloc_lua_reserve(n);
    const int status = call_within(L, a, &scope, 3);
    if (status == LUA_OK)
        return lua_gettop(L) - 1;
    zaccount_stats(a, &after);
    const bool by_cap = after.refusals - before.refusals > injected(L, a) - faults && is_memory_error(L, status);
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    if (by_cap)
        lua_pushvalue(L, 1);
    else
        lua_pushnil(L);
    return 3;
}

static uint64_t allocations_of(const zaccount *a)
{
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    return f.allocations;
}

/*** Calls `f(...)` and measures what the state takes meanwhile. Errors pass on.
 *
 *     local use, result = zmalloc.track(parse, text)
 *     print(use.net, use.peak, use.count)
 *
 * @tparam function f
 * @param ... its arguments
 * @treturn table `net`: bytes held more at the end than at the start, negative if it is less; `peak`: how far
 * use rose above the start, at most; `count`: blocks taken
 * @return the results of f
 * @function track */
static int track(lua_State *L)
{
    struct zaccount_scope scope = {.limit = ZACCOUNT_UNLIMITED};
    check_callable(L, 1);
    zaccount *a = account_of(L);
    need_stack(L, LUA_MINSTACK);
    lua_createtable(L, 0, 3);
    lua_insert(L, 1);
    const uint64_t count = allocations_of(a);
    const size_t start = zaccount_used(a);
    const int status = call_within(L, a, &scope, 2);
    if (status != LUA_OK)
        return lua_error(L);
    const size_t end = zaccount_used(a);
    const uint64_t blocks = allocations_of(a) - count;
    zcompat_push_difference(L, end, start);
    lua_setfield(L, 1, "net");
    zcompat_push_size(L, scope.peak > start ? scope.peak - start : 0);
    lua_setfield(L, 1, "peak");
    zcompat_push_size(L, blocks);
    lua_setfield(L, 1, "count");
    return lua_gettop(L);
}

/* ---- the module ------------------------------------------------------------------------------------ */

/* A state that does not count yet gets an account of its own. */
static void adopt(lua_State *L)
{
    switch (zmalloc_lua_adopt(L, NULL)) {
    case 0:
    case ZMALLOC_LUA_ADOPTED:
        return;
    case ZMALLOC_LUA_FINALIZING:
        luaL_error(L, "zmalloc cannot be loaded inside a __gc metamethod, where Lua does not tell how much "
                      "it holds: require it outside of finalizers first");
        return;
    case ZMALLOC_LUA_REFUSED:
        luaL_error(L, "zmalloc cannot be loaded: the cap has no room for what this state holds");
        return;
    default:
        luaL_error(L, "zmalloc cannot be loaded: not enough memory for the state's account");
    }
}

/*** The version of the library, as "0.1.0".
 * @field version */

/*** The same with its name, as "zmalloc 0.1.0".
 * @field _VERSION */

LUAMOD_API int luaopen_zmalloc(lua_State *L);
LUAMOD_API int luaopen_zmalloc(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"used", used},       {"total", total},   {"peak", peak}, {"reset_peak", reset_peak},
        {"stats", stats},     {"rss", rss},       {"limit", limit}, {"budget", budget},
        {"track", track},     {"collect", collect}, {"fail_after", fail_after},
        {NULL, NULL},
    };
    zport_pin(&zcore_self); /* the state's allocator is in this object, to the end */
    if (!zmalloc_lua_account(L))
        adopt(L);
    struct zaccount_figures f;
    zaccount_stats(account_of(L), &f);
    if (f.limit != ZACCOUNT_UNLIMITED)
        zmalloc_lua_pace(L);
    lua_createtable(L, 0, 13);
    zcompat_set_functions(L, functions);
    lua_pushliteral(L, ZMALLOC_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushliteral(L, "zmalloc " ZMALLOC_VERSION);
    lua_setfield(L, -2, "_VERSION");
    return 1;
}
