/* lua_check.h - what the C programs of this folder share: the chunks of chunks/, protected calls, and an
 * allocator that watches what the one under test does.
 *
 * check.h comes first, from tests/core. CHUNKS is the folder of the chunks. */
#ifndef LUA_CHECK_H
#define LUA_CHECK_H

#include "check.h"
#include "zaccount.h"
#include "zcompat.h"
#include "zmalloc_lua.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#if defined(LUA_JITLIBNAME)
#define IS_LUAJIT 1
#else
#define IS_LUAJIT 0
#endif

#if !defined(LUA_OK)
#define LUA_OK 0
#endif

/* Lua collects and asks again when a request is refused. */
#define ASKS_AGAIN (LUA_VERSION_NUM >= 502)
/* A coroutine or a chunk can tell the type of what is made; collectgarbage("count") is all that is held. */
#define HAS_KINDS (LUA_VERSION_NUM >= 502)

/* ---- chunks ------------------------------------------------------------------------------------ */

struct chunk {
    const char *name;
    int size; /* what it is called with, in a test that looks at each request */
    char *text;
    size_t length;
};

static struct chunk chunks[] = {
    {"containers", 400, NULL, 0}, {"strings", 300, NULL, 0},    {"closures", 300, NULL, 0},
    {"coroutines", 100, NULL, 0}, {"callbacks", 300, NULL, 0},  {"buffers", 300, NULL, 0},
    {"finalizers", 200, NULL, 0}, {"recursion", 1500, NULL, 0}, {"load", 300, NULL, 0},
    {"everything", 1, NULL, 0},   {"random", 0, NULL, 0},
};
enum { CHUNK_COUNT = sizeof chunks / sizeof *chunks, EVERYTHING = CHUNK_COUNT - 2, RANDOM };

static inline void read_chunk(struct chunk *c)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.lua", CHUNKS, c->name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    c->text = calloc(1, 1 << 16);
    c->length = fread(c->text, 1, 1 << 16, file);
    fclose(file);
}

static inline void begin(int argc, char **argv)
{
    check_arguments(argc, argv);
    printf("%s\n", IS_LUAJIT ? "LuaJIT" : LUA_VERSION);
    for (int i = 0; i < CHUNK_COUNT; i++)
        read_chunk(&chunks[i]);
}

static inline int finish_report(void)
{
    for (int i = 0; i < CHUNK_COUNT; i++)
        free(chunks[i].text);
    return check_report();
}

/* ---- protected calls --------------------------------------------------------------------------- */

/* The message of the last error of this thread. */
static _Thread_local char message[200];

/* What is on the top was raised, or is nothing's result. */
static inline int take_status(lua_State *L, int status)
{
    message[0] = 0;
    if (status) {
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "(no string)";
        snprintf(message, sizeof message, "%s", text);
    }
    lua_settop(L, 0);
    return status;
}

/* Runs f(L) with the light userdata ud. Raises nothing. */
static inline int call(lua_State *L, lua_CFunction f, void *ud)
{
#if LUA_VERSION_NUM >= 502
    lua_pushcfunction(L, f);
    lua_pushlightuserdata(L, ud);
    return take_status(L, lua_pcall(L, 1, 0, 0));
#else
    return take_status(L, lua_cpcall(L, f, ud));
#endif
}

static inline void be_quiet(lua_State *L)
{
    (void)L;
#if LUA_VERSION_NUM >= 504
    lua_warning(L, "@off", 0); /* 5.5 begins with warnings on */
#endif
}

static inline int open_libraries(lua_State *L)
{
    be_quiet(L);
    luaL_openlibs(L);
    return 0;
}

/* A Lua 5.1 whose memory ends while it opens io takes stdin, stdout or stderr for a file of its own, and its
 * collector closes that. */
static inline void open_without_io(lua_State *L)
{
    static const lua_CFunction libraries[] = {luaopen_base, luaopen_package, luaopen_table, luaopen_os,
                                              luaopen_string, luaopen_math, luaopen_debug};
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        lua_pushcfunction(L, libraries[i]);
        lua_call(L, 0, 0);
    }
}

/* LuaJIT 2.1 does not survive each memory error in what it has compiled, whatever the allocator. */
static inline int open_for_errors(lua_State *L)
{
    be_quiet(L);
    if (LUA_VERSION_NUM == 501 && !IS_LUAJIT)
        open_without_io(L);
    else
        luaL_openlibs(L);
#if IS_LUAJIT
    if (luaL_dostring(L, "require('jit').off()"))
        lua_error(L);
#endif
    return 0;
}

static inline int collect(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

/* Compiles and runs a text with two numbers as arguments. */
static inline int run_text(lua_State *L, const char *text, size_t length, const char *name, int a, int b)
{
    int status = luaL_loadbuffer(L, text, length, name);
    if (status == LUA_OK) {
        lua_pushinteger(L, a);
        lua_pushinteger(L, b);
        status = lua_pcall(L, 2, 0, 0);
    }
    return take_status(L, status);
}

static inline int run(lua_State *L, const char *text)
{
    return run_text(L, text, strlen(text), "=text", 0, 0);
}

static inline int run_chunk(lua_State *L, const struct chunk *c, int a, int b)
{
    char name[64];
    snprintf(name, sizeof name, "=%s.lua", c->name);
    return run_text(L, c->text, c->length, name, a, b);
}

/* The libraries have other words for it, too. */
static inline bool is_memory_error(int status)
{
    return status == LUA_ERRMEM ||
           (status && (strstr(message, "not enough memory") || strstr(message, "stack overflow (") ||
                       strstr(message, "too many results to unpack") || strstr(message, "unable to dump")));
}

/* Lua 5.1 to 5.3 raise what a finalizer raises wherever the collector happens to run. */
static inline bool is_finalizer_error(int status)
{
    return status && (strstr(message, "in a finalizer") || strstr(message, "in __gc") ||
                      strstr(message, "__gc metamethod"));
}

static inline bool is_expected(int status)
{
    return status == LUA_OK || is_memory_error(status) || is_finalizer_error(status);
}

/* ---- figures ----------------------------------------------------------------------------------- */

static inline size_t count(lua_State *L)
{
    return ((size_t)lua_gc(L, LUA_GCCOUNT, 0) << 10) + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
}

/* What is used is what the collector counts, to the byte; that of 5.5 is blind to long strings. */
static inline bool is_what_it_counts(size_t used, size_t counted)
{
    return LUA_VERSION_NUM >= 505 ? used >= counted : used == counted;
}

static inline struct zaccount_figures figures(const zaccount *a)
{
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    return f;
}

/* After an error: from Lua 5.3 on a string buffer that it left is not in the collector's count, and is memory
 * until it is collected. */
static inline void settle(lua_State *L)
{
    for (int i = 0; i < 100 && is_finalizer_error(call(L, collect, NULL)); i++)
        ;
}

/* Ends an account that must be at nothing. */
static inline void finish(zaccount *a)
{
    CHECK(zaccount_used(a) == 0, "nothing is charged when the states are closed");
    CHECK(zaccount_free(a) == 0, "an account at nothing can be ended");
}

/* What the C library's heap has given, where it tells: to see that something done again and again leaves nothing. */
static inline size_t heap_in_use(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    return mallinfo2().uordblks;
#else
    return 0;
#endif
}

/* Runs body(ud) often and looks at the heap. What is kept for the next time is there after the first ten. */
static inline void check_heap(void (*body)(void *ud), void *ud, const char *what)
{
    enum { OFTEN = 200 };
    size_t before = 0;
    for (int i = 0; i < OFTEN + 10; i++) {
        if (i == 10)
            before = heap_in_use();
        body(ud);
    }
    CHECK(heap_in_use() <= before + 8 * OFTEN, what);
}

/* ---- an allocator that watches ----------------------------------------------------------------- */

/* What a state's requests look like from the allocator's place, and what has to be true of each answer. It
 * knows what the account holds by adding up, and when a reserve has to be open, from what was refused. */
struct watch {
    zaccount *account;
    bool is_alone;       /* nobody else counts into the account, and it has no parent */
    bool is_judged;      /* every refusal must have been necessary: no overhead limit, no injection */
    size_t used;         /* by our own count */
    size_t limit, reserve;
    bool is_open;        /* a reserve may serve */
    bool was_refused;    /* the last growth was, */
    const void *ptr;     /* and this was it */
    size_t osize, nsize;
    uint64_t granted, refused, retried, shrunk, above; /* above: granted beyond the limit */
};

static inline void watch_limit(struct watch *w, size_t limit, size_t reserve)
{
    w->limit = limit;
    w->reserve = reserve;
    w->is_open = false;
    zaccount_set_limit(w->account, limit, reserve);
}

static inline size_t watch_hard(const struct watch *w)
{
    return w->reserve > SIZE_MAX - w->limit ? SIZE_MAX : w->limit + w->reserve;
}

static inline void watch_fall(struct watch *w)
{
    const size_t half = w->limit / 2, fall = w->reserve < half ? w->reserve : half;
    if (w->used <= w->limit - fall)
        w->is_open = false;
}

static inline bool fits(const struct watch *w, size_t n, size_t most)
{
    return n <= most && w->used <= most - n;
}

/* n more bytes were granted or refused to a state that has the account to itself. */
static inline void watch_growth(struct watch *w, bool is_again, size_t n, bool is_granted)
{
    const size_t most = w->is_open && !is_again ? watch_hard(w) : w->limit;
    if (is_granted) {
        CHECK(fits(w, n, most), is_again ? "a second try is served below the limit alone"
                                : w->is_open ? "the reserve has an end"
                                             : "above the limit only while a reserve is open");
        w->used += n;
        w->above += w->used > w->limit;
        if (is_again)
            w->is_open = false;
    } else {
        if (w->is_judged)
            CHECK(!fits(w, n, most), "nothing is refused that the cap has room for");
        w->is_open = w->is_open || w->reserve > 0;
    }
    CHECK(zaccount_used(w->account) == w->used, "a granted request counts to the byte, a refused one not");
}

static inline void *watched_growth(struct watch *w, void *ptr, size_t osize, size_t nsize)
{
    const size_t before = ptr ? osize : 0;
    const bool is_again = ASKS_AGAIN && w->was_refused && w->ptr == ptr && nsize - before == w->nsize - w->osize;
    void *p = zmalloc_lua_alloc(w->account, ptr, osize, nsize);
    if (w->is_alone)
        watch_growth(w, is_again, nsize - before, p != NULL);
    w->granted += p != NULL;
    w->refused += p == NULL;
    w->retried += is_again;
    w->was_refused = p == NULL && !is_again;
    w->ptr = ptr;
    w->osize = before;
    w->nsize = nsize;
    return p;
}

static inline void *watched(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct watch *w = ud;
    if (nsize > (ptr ? osize : 0)) {
        void *p = watched_growth(w, ptr, osize, nsize);
        const struct zaccount_figures f = figures(w->account);
        if (p)
            CHECK(f.used <= f.hard_limit, "use is within limit and reserve");
        if (p && f.hard_limit == f.limit)
            CHECK(f.used <= f.limit, "use is within the limit");
        return p;
    }
    void *p = zmalloc_lua_alloc(w->account, ptr, osize, nsize);
    CHECK(p || nsize == 0, "a shrink does not fail");
    CHECK(!p || nsize, "a free returns nothing");
    w->shrunk += ptr != NULL;
    if (ptr && w->is_alone) {
        w->used -= osize - nsize;
        CHECK(zaccount_used(w->account) == w->used, "what is given back counts to the byte");
        watch_fall(w);
    }
    return p;
}

#endif
