/* lua_crawl.c - churn beside live data that fills most of a cap: the CPU seconds that it takes, and its end.
 *
 *     lua_crawl CHURN SHARE PACE GENERATIONAL LIVE ROUNDS
 *
 * SHARE is what of the cap is live, in percent; 0: no cap. PACE 1: after zmalloc_lua_pace(). Prints
 * "seconds end refusals retries overhead-refusals", where end is done or limit. */
#include "figures.h"
#include "zmalloc_lua.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char live[] = "local n = ... kept = {} for i = 1, n do kept[i] = { i, {} } end";

static const struct churn {
    const char *name, *text;
} churns[] = {
    /* garbage; kept for a moment, or a compiler finds out that it is none */
    {"tables", "local n = ... for i = 1, n do kept[1] = { i } end"},
    {"strings", "local n = ... for i = 1, n do kept[1] = 'some string ' .. i end"},
    {"closures", "local n = ... for i = 1, n do kept[1] = function() return i end end"},
    /* what is live dies, and something else comes in its place */
    {"turnover", "local n, k = ..., #kept for i = 1, n do kept[i * 7919 % k + 1] = { i, {} } end"},
    {"coroutines", "local n = ... local wrap, yield = coroutine.wrap, coroutine.yield\n"
                   "for i = 1, n / 10 do wrap(function() yield(i) end)() end"},
    {"buffers", "local n = ... for i = 1, n / 200 do local s = ('x'):rep(2000 + i % 100):gsub('x', 'yy') end"},
};

static int run(lua_State *L, const char *text, int argument)
{
    int status = luaL_loadstring(L, text);
    lua_pushinteger(L, argument);
    status = status ? status : lua_pcall(L, 1, 0, 0);
    return status;
}

static void fail(const char *what)
{
    fprintf(stderr, "lua_crawl: %s\n", what);
    exit(1);
}

/* As the module does it. */
static size_t reserve_for(size_t limit)
{
    const size_t part = limit / 16;
    return part < 4096 ? 4096 : part > 1 << 20 ? 1 << 20 : part;
}

static void set_cap(lua_State *L, zaccount *account, double share, int is_paced)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);
    if (share > 0) {
        const size_t limit = (size_t)((double)zaccount_used(account) * 100 / share);
        zaccount_set_limit(account, limit, reserve_for(limit));
    }
    if (is_paced && zmalloc_lua_pace(L))
        fail("no pace");
}

int main(int argc, char **argv)
{
    const struct churn *churn = churns;
    if (argc < 7) {
        fprintf(stderr, "usage: lua_crawl CHURN SHARE PACE GENERATIONAL LIVE ROUNDS\n");
        return 2;
    }
    while (churn < churns + sizeof churns / sizeof *churns && strcmp(churn->name, argv[1]) != 0)
        churn++;
    if (churn == churns + sizeof churns / sizeof *churns)
        fail("no such churn");
    zaccount *account = zaccount_new("crawl", NULL);
    zaccount_set_single(account);
    lua_State *L = zmalloc_lua_newstate(account);
    if (!L)
        fail("no state");
    luaL_openlibs(L);
    if (atoi(argv[4]) && run(L, "collectgarbage('generational')", 0))
        fail(lua_tostring(L, -1));
    if (run(L, live, atoi(argv[5])))
        fail(lua_tostring(L, -1));
    if (luaL_loadstring(L, churn->text))
        fail(lua_tostring(L, -1));
    set_cap(L, account, atof(argv[2]), atoi(argv[3]));
    lua_pushinteger(L, atoi(argv[6]));
    const double start = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    const int status = lua_pcall(L, 1, 0, 0);
    const double seconds = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
    if (status && !strstr(lua_tostring(L, -1), "not enough memory"))
        fail(lua_tostring(L, -1));
    struct zaccount_figures f;
    zaccount_stats(account, &f);
    printf("%.6f %s %llu %llu %llu\n", seconds, status ? "limit" : "done", (unsigned long long)f.refusals,
           (unsigned long long)f.retries, (unsigned long long)f.overhead_refusals);
    zaccount_set_limit(account, ZACCOUNT_UNLIMITED, 0);
    lua_close(L);
#if !defined(LUA_JITLIBNAME) /* LuaJIT names wrong sizes after some memory errors */
    if (zaccount_used(account))
        fail("something is left");
#endif
    return 0;
}
