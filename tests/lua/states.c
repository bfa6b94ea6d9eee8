/* states.c - new states: under caps from nothing upward, counted to the byte, gone without a trace. */
#include "lua_check.h"

#include <unistd.h>

/* ---- caps from nothing upward ------------------------------------------------------------------ */

static lua_State *new_direct(zaccount *a)
{
    return zcompat_newstate(zmalloc_lua_alloc, a);
}

/* What a state is made by. The second needs a cap's whole room at once, the first piece by piece. */
static lua_State *(*const makers[])(zaccount *) = {new_direct, zmalloc_lua_newstate};

/* What it takes: the most that is used while a state is made. */
static size_t need_of(lua_State *(*make)(zaccount *))
{
    zaccount *a = zaccount_new("need", NULL);
    lua_State *L = make(a);
    CHECK(L != NULL, "without a cap there is a state");
    const size_t need = zaccount_peak(a);
    if (L)
        lua_close(L);
    finish(a);
    return need;
}

/* LuaJIT crashes where lua_newstate() gets its first block and not the next ones. */
static size_t least_cap(lua_State *(*make)(zaccount *), size_t need)
{
    return IS_LUAJIT && make == new_direct ? need : 0;
}

static void try_cap(zaccount *a, lua_State *(*make)(zaccount *), size_t cap, size_t need)
{
    zaccount_set_limit(a, cap, 0);
    zaccount_clear_hit(a);
    zaccount_reset_peak(a);
    lua_State *L = make(a);
    CHECK((L != NULL) == (cap >= need), "there is a state exactly if the cap has room for it");
    CHECK(figures(a).limit_hit == (L == NULL), "and it is told if not");
    if (L)
        lua_close(L);
    CHECK(zaccount_used(a) == 0, "nothing is left of it");
    CHECK(zaccount_peak(a) <= cap, "no byte was above the cap");
}

/* A cap with no room at all, for the second: it has made the whole state when it asks. */
static void refuse(void *ud)
{
    CHECK(zmalloc_lua_newstate(ud) == NULL, "there is no room");
}

static void caps(void)
{
    for (int i = 0; i < 2; i++) {
        const size_t need = need_of(makers[i]);
        zaccount *a = zaccount_new("caps", NULL);
        for (size_t cap = least_cap(makers[i], need); cap < need + 200; cap += cap + 80 < need ? check_seconds < 0.05 ? 370 : 37 : 1)
            try_cap(a, makers[i], cap, need);
        zaccount_set_limit(a, 1000, 0);
        check_heap(refuse, a, "a state that is refused leaves nothing in the heap");
        finish(a);
    }
}

/* ---- counted to the byte ----------------------------------------------------------------------- */

/* LuaJIT counts what its compiler holds elsewhere. */
static void look(lua_State *L, const zaccount *a)
{
    CHECK(is_what_it_counts(zaccount_used(a), count(L)), "used is collectgarbage('count') to the byte");
}

static void run_all(lua_State *L, const zaccount *a)
{
    for (int i = 0; i < RANDOM; i++) {
        const int status = run_chunk(L, &chunks[i], 2 * chunks[i].size, 0);
        CHECK(status == LUA_OK || is_finalizer_error(status), message);
        if (status)
            settle(L);
        look(L, a);
    }
    CHECK(is_expected(call(L, collect, NULL)), message);
    look(L, a);
    CHECK(zaccount_peak(a) > zaccount_used(a), "there was more");
}

static void exact(void)
{
    for (int i = 0; i < 4; i += check_seconds < 0.05 ? 3 : 1) { /* under valgrind not all */
        zaccount *parent = i & 2 ? zaccount_new("parent", NULL) : NULL, *a = zaccount_new("exact", parent);
        if (i & 1)
            zaccount_set_single(a);
        lua_State *L = makers[i / 2](a);
        look(L, a);
        CHECK(zmalloc_lua_account(L) == a, "a state's account is told");
        CHECK(call(L, open_libraries, NULL) == LUA_OK, message);
        look(L, a);
        run_all(L, a);
        CHECK(!parent || zaccount_used(parent) == zaccount_used(a), "the parent holds the same");
        lua_close(L);
        finish(a);
        zaccount_free(parent);
    }
}

/* A million operations for each second that the program is given. */
static void random_operations(void)
{
    const long rounds = (long)(check_seconds * 1000) + 1;
    zaccount *a = zaccount_new("random", NULL);
    zaccount_set_single(a);
    lua_State *L = zmalloc_lua_newstate(a);
    uint64_t seed = check_seed;
    CHECK(call(L, open_libraries, NULL) == LUA_OK, message);
    for (long i = 0; i < rounds; i++) {
        const int status = run_chunk(L, &chunks[RANDOM], (int)below(&seed, 1000000) + 1, 1000);
        CHECK(status == LUA_OK || is_finalizer_error(status), message);
        if (status)
            settle(L);
        look(L, a);
    }
    printf("%ld operations\n", rounds * 1000);
    lua_close(L);
    finish(a);
}

/* ---- what else a state is ---------------------------------------------------------------------- */

static void panic(void)
{
    zaccount *a = zaccount_new("panic", NULL);
    lua_State *stock = luaL_newstate(), *L = zmalloc_lua_newstate(a);
    CHECK(lua_atpanic(L, NULL) == lua_atpanic(stock, NULL), "the panic function is the stock one");
#if LUA_VERSION_NUM >= 504
    /* The warnings of luaL_newstate are off until they are switched on; a state without the function is mute. */
    fflush(stderr);
    FILE *file = tmpfile();
    const int kept = dup(2);
    dup2(fileno(file), 2);
    lua_warning(L, "@on", 0);
    lua_warning(L, "heard", 0);
    fflush(stderr);
    dup2(kept, 2);
    char text[100] = "";
    rewind(file);
    CHECK(fread(text, 1, sizeof text - 1, file) > 0 && strstr(text, "heard"), "the warn function is the stock one");
    fclose(file);
    close(kept);
#endif
    lua_close(stock);
    lua_close(L);
    finish(a);
}

static void nobody(void)
{
    zaccount *a = zaccount_default();
    const size_t before = zaccount_used(a), total = zmalloc_total();
    for (int i = 0; i < 2; i++) {
        lua_State *L = makers[i](NULL);
        CHECK(L && zmalloc_lua_account(L) == a, "without an account it is the process's");
        CHECK(call(L, open_libraries, NULL) == LUA_OK, message);
        CHECK(is_what_it_counts(zaccount_used(a) - before, count(L)), "which counts it");
        CHECK(is_what_it_counts(zmalloc_total() - total, count(L)), "as the total does");
        lua_close(L);
        CHECK(zaccount_used(a) == before && zmalloc_total() == total, "and then no more");
    }
}

/* Several states, one account: what it holds is the sum. */
static void together_on_one(void)
{
    enum { STATES = 5 };
    zaccount *a = zaccount_new("shared", NULL);
    lua_State *L[STATES];
    size_t sum = 0;
    for (int i = 0; i < STATES; i++) {
        L[i] = makers[i % 2](a);
        CHECK(call(L[i], open_libraries, NULL) == LUA_OK, message);
        CHECK(run_chunk(L[i], &chunks[i], 50 * (i + 1), 0) == LUA_OK, message);
    }
    for (int i = 0; i < STATES; i++)
        sum += count(L[i]);
    CHECK(is_what_it_counts(zaccount_used(a), sum), "an account of several states holds their sum");
    CHECK(zaccount_free(a) == -1, "it cannot be ended below them");
    for (int i = 0; i < STATES; i++)
        lua_close(L[i]);
    finish(a);
}

static int make_kinds(lua_State *L)
{
    lua_createtable(L, 0, 0);
    lua_createtable(L, 0, 0);
    lua_pushstring(L, "a string that was not there before");
    lua_newthread(L);
#if LUA_VERSION_NUM >= 504
    lua_newuserdatauv(L, 10, 0);
#else
    lua_newuserdata(L, 10);
#endif
    lua_pushinteger(L, 1);
    lua_pushcclosure(L, make_kinds, 1);
    return 0;
}

static void kinds(void)
{
    static const struct { int type; uint64_t made; } made[] = {
        {LUA_TTABLE, 2}, {LUA_TSTRING, 1}, {LUA_TTHREAD, 1}, {LUA_TUSERDATA, 1}, {LUA_TFUNCTION, 1}};
    for (int i = 0; i < 4; i++) {
        zaccount *a = zaccount_new("kinds", NULL);
        if (i & 1)
            zaccount_set_single(a);
        lua_State *L = makers[i / 2](a);
        uint64_t before[16];
        for (int type = 0; type < 16; type++)
            before[type] = zmalloc_lua_created(a, type);
        CHECK(call(L, make_kinds, NULL) == LUA_OK, message);
        for (size_t k = 0; k < sizeof made / sizeof *made; k++)
            CHECK(zmalloc_lua_created(a, made[k].type) - before[made[k].type] == (HAS_KINDS ? made[k].made : 0),
                  "an object that is made is counted by its type");
        CHECK(zmalloc_lua_created(a, 0) == 0 && zmalloc_lua_created(a, -1) == 0 &&
                  zmalloc_lua_created(a, 16) == 0 && zmalloc_lua_created(a, LUA_TNUMBER) == 0,
              "what is no object is none");
        const struct zaccount_figures f = figures(a);
        lua_close(L);
        CHECK(figures(a).allocations == f.allocations, "a close makes nothing");
        if (makers[i / 2] == new_direct)
            CHECK(figures(a).frees == f.allocations, "as many blocks were freed as were made");
        finish(a);
    }
}

/* The account's other marks, seen from the state that counts into it. */
static _Atomic int pressed;

static void press(zaccount *a, size_t used, void *ud)
{
    CHECK(used > *(size_t *)ud && used == zaccount_used(a), "the callback is told what is used");
    pressed++;
}

static void pressure(void)
{
    zaccount *a = zaccount_new("pressure", NULL);
    lua_State *L = zmalloc_lua_newstate(a);
    CHECK(call(L, open_libraries, NULL) == LUA_OK, message);
    size_t mark = zaccount_used(a) + 100000;
    zaccount_on_pressure(a, mark, press, &mark);
    CHECK(run(L, "kept = ('x'):rep(1000)") == LUA_OK && pressed == 0, "below the mark there is no warning");
    CHECK(run(L, "kept = ('x'):rep(200000)") == LUA_OK && pressed == 1, "one where it is passed");
    CHECK(run(L, "more = ('y'):rep(200000)") == LUA_OK && pressed == 1, "and not another above");
    CHECK(run(L, "kept, more = nil collectgarbage() collectgarbage() again = ('z'):rep(200000)") == LUA_OK &&
              pressed == 2, "but the next time");
    lua_close(L);
    finish(a);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    const size_t total = zmalloc_total();
    static const struct { const char *name; void (*test)(void); } tests[] = {
        {"caps", caps}, {"exact", exact}, {"panic", panic}, {"nobody", nobody}, {"shared", together_on_one},
        {"kinds", kinds}, {"pressure", pressure}, {"random", random_operations}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (check_wants(argc, argv, tests[i].name))
            tests[i].test();
    CHECK(zmalloc_total() == total, "the process is where it was");
    return finish_report();
}
