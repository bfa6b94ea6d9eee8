/* lua_host.c - runs a Lua script in a state of one kind, and prints the CPU seconds that it took and the
 * process's peak of resident memory in bytes.
 *
 *     lua_host stock|plain|single|capped|shared|group script.lua [argument]
 *     lua_host version */
#include "figures.h"
#include "zcompat.h"
#include "zmalloc_lua.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(LUA_JITLIBNAME)
#include <luajit.h>
#define VERSION LUAJIT_VERSION
#else
#define VERSION LUA_RELEASE
#endif

static const char usage[] = "usage: lua_host stock|plain|single|capped|shared|group script.lua [argument]\n"
                            "       lua_host version\n";

/* What the stock allocator of a Lua other than LuaJIT is. */
static void *plain(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud, (void)osize;
    if (nsize)
        return realloc(ptr, nsize);
    free(ptr);
    return NULL;
}

static void notice(zaccount *a, size_t used, void *ud)
{
    (void)a, (void)used, (void)ud;
}

static zaccount *account_for(const char *contender)
{
    zaccount *parent = strcmp(contender, "group") == 0 ? zaccount_new("group", NULL) : NULL;
    zaccount *account = zaccount_new("state", parent);
    if (strcmp(contender, "shared") != 0)
        zaccount_set_single(account);
    if (parent)
        zaccount_set_limit(parent, (size_t)4 << 30, (size_t)1 << 20);
    if (strcmp(contender, "single") != 0) {
        zaccount_set_limit(account, (size_t)2 << 30, (size_t)1 << 20);
        zaccount_on_pressure(account, (size_t)1 << 30, notice, NULL);
    }
    return account;
}

static int run(lua_State *L, const char *script, const char *argument)
{
    luaL_openlibs(L);
    if (luaL_loadfile(L, script))
        return -1;
    if (argument)
        lua_pushstring(L, argument);
    return lua_pcall(L, argument ? 1 : 0, 0, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "version") == 0)
        return puts(VERSION) < 0;
    if (argc < 3) {
        fputs(usage, stderr);
        return 2;
    }
    const bool is_stock = strcmp(argv[1], "stock") == 0, is_plain = strcmp(argv[1], "plain") == 0;
    zaccount *account = is_stock || is_plain ? NULL : account_for(argv[1]);
    const double start = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    lua_State *L = is_stock ? luaL_newstate() : zcompat_newstate(is_plain ? plain : zmalloc_lua_alloc, account);
    if (!L || run(L, argv[2], argc > 3 ? argv[3] : NULL)) {
        fprintf(stderr, "lua_host: %s\n", L ? lua_tostring(L, -1) : "no state");
        return 1;
    }
    lua_close(L);
    printf("%.6f %llu\n", cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - start, peak_resident());
    return account && zaccount_used(account) != 0;
}
