/* cap.c - a hard cap, looked at from the allocator's place: at each request that a state makes, use is where
 * it may be, and what is granted or refused had to be. */
#include "lua_check.h"

static lua_State *new_watched(struct watch *w)
{
    return zcompat_newstate(watched, w);
}

/* A state with its libraries, watched, without a cap. */
static lua_State *begin_watch(struct watch *w, const char *name, bool is_single)
{
    *w = (struct watch){.account = zaccount_new(name, NULL), .is_alone = true, .is_judged = true,
                        .limit = SIZE_MAX};
    if (is_single)
        zaccount_set_single(w->account);
    zaccount_set_overhead(w->account, 0, 0);
    lua_State *L = new_watched(w);
    CHECK(L && call(L, open_for_errors, NULL) == LUA_OK, message);
    return L;
}

static void end_watch(struct watch *w, lua_State *L)
{
#if LUA_VERSION_NUM == 502 || LUA_VERSION_NUM == 503 || IS_LUAJIT
    /* The lua_close() of 5.2 and 5.3 writes beyond the stack where many finalizers have no memory. */
    watch_limit(w, SIZE_MAX, 0);
#endif
    lua_close(L);
#if IS_LUAJIT
    /* A closure in whose making the error came is freed with fewer bytes than it had. */
    zaccount_uncharge(w->account, w->used);
#endif
    finish(w->account);
}

static void sum_up(const char *what, const struct watch *w)
{
    printf("%s: %llu granted, %llu refused, %llu asked again, %llu above the limit\n", what,
           (unsigned long long)w->granted, (unsigned long long)w->refused, (unsigned long long)w->retried,
           (unsigned long long)w->above);
}

static void add_up(struct watch *all, const struct watch *w)
{
    all->granted += w->granted;
    all->refused += w->refused;
    all->retried += w->retried;
    all->above += w->above;
}

/* ---- each chunk under caps that are parts of what it needs ------------------------------------------ */

/* What a chunk takes at most beyond a state with libraries; 0 if it cannot be told. */
static size_t need_of(const struct chunk *c)
{
    struct watch w;
    lua_State *L = begin_watch(&w, c->name, false);
    const size_t used = w.used;
    zaccount_reset_peak(w.account);
    CHECK(is_expected(run_chunk(L, c, c->size, 0)), message);
    const size_t need = zaccount_peak(w.account) - used;
    end_watch(&w, L);
    return need;
}

/* The state is of use after the error, when the cap is gone. */
static void go_on(struct watch *w, lua_State *L)
{
    watch_limit(w, SIZE_MAX, 0);
    CHECK(is_expected(call(L, collect, NULL)), message);
    CHECK(is_expected(run(L, "local t = {} for i = 1, 100 do t[i] = { i } end assert(#t == 100)")), message);
}

static void try_chunk(const struct chunk *c, size_t room, size_t reserve, bool is_single, struct watch *all)
{
    struct watch w;
    lua_State *L = begin_watch(&w, c->name, is_single);
    watch_limit(&w, w.used + room, reserve);
    zaccount_reset_peak(w.account);
    const int status = run_chunk(L, c, c->size, 0);
    CHECK(is_expected(status), message);
    CHECK(w.refused > 0 || status == LUA_OK || is_finalizer_error(status), "no error without a refusal");
    CHECK(figures(w.account).limit_hit == (w.refused > 0), "the flag tells");
    CHECK(figures(w.account).refusals == w.refused, "all refusals are counted");
    CHECK(zaccount_peak(w.account) <= watch_hard(&w), "the peak was not above");
    if (room & 1)
        go_on(&w, L);
    add_up(all, &w);
    end_watch(&w, L); /* or closed at the cap */
}

static void cap_chunk(const struct chunk *c, struct watch *sum)
{
    static const size_t reserves[] = {0, 512, 16 << 10, SIZE_MAX};
    struct watch all = {0};
    const size_t need = need_of(c);
    const unsigned step = check_seconds < 0.15 ? 3 : 1;
    for (unsigned part = 0; part <= 20; part += step)
        for (int i = 0; i < 4; i++)
            try_chunk(c, need / 20 * part + (part + (unsigned)i) % 2, reserves[i], part % 3 == 0, &all);
    CHECK(all.refused > 20 / step, "the caps were felt");
    sum_up(c->name, &all);
    add_up(sum, &all);
}

static void parts(void)
{
    struct watch sum = {0};
    for (int i = 0; i < RANDOM; i++)
        cap_chunk(&chunks[i], &sum);
    CHECK(sum.above > 0 || IS_LUAJIT, "the reserves were used"); /* there an error needs little */
    CHECK((sum.retried > 0) == ASKS_AGAIN, "Lua 5.2 and later ask again");
}

/* At the peak of a run without a cap and half of it, for it differs with the seed of the hash, no cap is felt. */
static void at_the_peak(void)
{
    for (int i = 0; i < RANDOM; i++) {
        struct watch all = {0};
        if (strcmp(chunks[i].name, "finalizers") == 0)
            continue; /* its end depends on where errors come */
        const size_t need = need_of(&chunks[i]);
        try_chunk(&chunks[i], need + need / 2, 0, i % 2, &all);
        CHECK(all.refused == 0, chunks[i].name); /* a cap at the peak refuses nothing */
    }
}

/* ---- a cap that comes and goes ---------------------------------------------------------------------- */

/* Random operations while the cap is now below what is used, now above, with reserves and without. */
static void moving(void)
{
#if IS_LUAJIT
    return; /* it does not survive a memory error while it grows its stack, whatever the allocator */
#endif
    struct watch w;
    lua_State *L = begin_watch(&w, "moving", true);
    uint64_t seed = check_seed;
    const double end = check_now() + check_seconds;
    do {
        const size_t room = below(&seed, 60000), used = w.used;
        static const size_t reserves[] = {0, 0, 2000, 30000};
        watch_limit(&w, below(&seed, 3) ? used + room : used > room ? used - room : 0, reserves[below(&seed, 4)]);
        const int status = run_chunk(L, &chunks[RANDOM], (int)below(&seed, 1000000) + 1, 200);
        CHECK(is_expected(status), message);
    } while (check_now() < end);
    CHECK(w.refused > 0 && w.shrunk > 0, "there were refusals, and memory was given back below them");
    sum_up("moving", &w);
    end_watch(&w, L);
}

static int free_all(lua_State *L)
{
    struct watch *w = lua_touserdata(L, 1);
    watch_limit(w, 0, 0); /* not before: a call needs memory in some versions */
    lua_pushnil(L);
    lua_setglobal(L, "kept");
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

/* Far below what is used: nothing more is given, all can be given back, and a close is no matter. */
static void lowered(void)
{
    for (int i = 0; i < 4; i++) {
        struct watch w;
        lua_State *L = begin_watch(&w, "lowered", i & 1);
        CHECK(run(L, "kept = {} for i = 1, 3000 do kept[i] = { tostring(i) } end") == LUA_OK, message);
        const size_t full = w.used;
        watch_limit(&w, i & 2 ? 0 : 1000, 0);
        CHECK(is_memory_error(run(L, "more = ('x'):rep(10000)")), "there is no room at all");
        CHECK(w.used <= full, "nothing was taken");
        lua_gc(L, LUA_GCCOLLECT, 0);
        watch_limit(&w, full + 10000, 0);
        /* Lua 5.1 and LuaJIT need a new table of strings for the strings that are left. */
        const int status = call(L, free_all, &w);
        CHECK(status == LUA_OK || (!ASKS_AGAIN && is_memory_error(status)), message);
        CHECK(w.used < full / 2, "what was given back is free");
        end_watch(&w, L);
    }
}

/* ---- the reserve ------------------------------------------------------------------------------------- */

/* A script that has run into the cap, with all that it has still held. */
static const char runaway[] =
    "local ok, what = pcall(function() while true do kept = { kept } end end)\n"
    "assert(not ok and what == 'not enough memory')\n";

enum { ROOM = 100000, RESERVE = 40000 };

static lua_State *run_away(struct watch *w, size_t reserve, const char *then)
{
    char text[2000];
    lua_State *L = begin_watch(w, "reserve", true);
    snprintf(text, sizeof text, "%s%s", runaway, then);
    watch_limit(w, w->used + ROOM, reserve);
    const int status = run(L, text);
    CHECK((status == LUA_OK) == (reserve > 0), then); /* with a reserve there is room for it, else not */
    CHECK(status == LUA_OK || is_memory_error(status), message);
    return L;
}

/* What handlers need, told without loading more text. */
static void handlers(void)
{
    static const char *const thens[] = {
        "local lines = {} for i = 1, 300 do lines[i] = 'line ' .. i .. ' of the report' end",
        "local report = debug.traceback(what .. ' after that') .. ('-'):rep(5000)",
        "local co = coroutine.wrap(function(...) local t = { ... } for i = 1, 400 do t[i] = {} end end) co(1)",
#if !IS_LUAJIT /* whose buffer is still there from before */
        "local done = (('x'):rep(5000):gsub('x', function(c) return c .. c end))",
#endif
#if LUA_VERSION_NUM >= 504
        "kept = nil collectgarbage() closed = '' pcall(function()\n"
        "    local a <close> = setmetatable({}, { __close = function(_, e)\n"
        "        assert(e == what) for i = 1, 300 do closed = closed .. i end end })\n"
        "    while true do kept = { kept } end end)\n"
        "assert(#closed > 300, 'not enough memory')",
#endif
    };
    for (size_t i = 0; i < sizeof thens / sizeof *thens; i++)
        for (size_t reserve = 0; reserve <= RESERVE; reserve += RESERVE) {
            struct watch w;
            lua_State *L = run_away(&w, reserve, thens[i]);
            CHECK((w.above > 0) == (reserve > 0), "the reserve was used");
            end_watch(&w, L);
        }
}

/* Finalizers of the close take memory while all that the script held is still there. */
static const char last_words[] =
    "local object = setmetatable({}, {})\n"
    "local function at_end() said = {} for i = 1, 300 do said[i] = 'word ' .. i end tell() end\n"
    "if newproxy then object = newproxy(true) getmetatable(object).__gc = at_end\n"
    "else setmetatable(object, { __gc = at_end }) end last = object\n";

static int told;

static int tell(lua_State *L)
{
    (void)L;
    told++;
    return 0;
}

static int set_tell(lua_State *L)
{
    lua_pushcfunction(L, tell);
    lua_setglobal(L, "tell");
    return 0;
}

static void closing(void)
{
    for (size_t reserve = 0; reserve <= RESERVE; reserve += RESERVE) {
        struct watch w;
        lua_State *L = begin_watch(&w, "closing", false);
        CHECK(call(L, set_tell, NULL) == LUA_OK, message);
        CHECK(run(L, last_words) == LUA_OK, message);
        watch_limit(&w, w.used + ROOM, reserve);
        CHECK(run(L, runaway) == LUA_OK || reserve == 0, message);
        told = 0;
        lua_close(L);
        CHECK(told == (reserve > 0), "a finalizer that needs memory gets it from the reserve at the close");
        finish(w.account);
    }
}

/* It closes when use is well below again, and opens the next time. */
static void closes_again(void)
{
    struct watch w;
    lua_State *L = begin_watch(&w, "again", true);
    watch_limit(&w, w.used + ROOM, 10000);
    for (int i = 0; i < 20; i++) {
        const uint64_t above = w.above;
        CHECK(run(L, runaway) == LUA_OK, message);
        CHECK(figures(w.account).reserve_open, "it is open while all is held");
        CHECK(is_memory_error(run(L, "more = ('y'):rep(20000)")), "it has an end");
        lua_gc(L, LUA_GCCOLLECT, 0); /* what that has left: not all versions do so by themselves */
        CHECK(run(L, "small = ('z'):rep(3000)") == LUA_OK && w.above > above, "and a use");
        CHECK(run(L, "kept, small = nil collectgarbage() collectgarbage()") == LUA_OK, message);
        CHECK(!figures(w.account).reserve_open && !w.is_open, "it is closed when memory was given back");
    }
    CHECK(run(L, runaway) == LUA_OK && figures(w.account).reserve_open, message);
    watch_limit(&w, w.limit, w.reserve);
    CHECK(!figures(w.account).reserve_open, "a host that sets the cap closes it, though the cap is the same");
    end_watch(&w, L);
}

/* ---- overhead ------------------------------------------------------------------------------------------- */

/* Collections that make too little room end in a refusal, which is told apart; others do not. */
static void overhead(void)
{
#if ASKS_AGAIN
    for (int is_on = 0; is_on < 2; is_on++) {
        struct watch w;
        lua_State *L = begin_watch(&w, "overhead", true);
        w.is_judged = false;
        if (is_on)
            zaccount_set_overhead(w.account, 5, 8);
        CHECK(run(L, "kept = {} for i = 1, 4000 do kept[i] = { i } end collectgarbage() collectgarbage()") == LUA_OK,
              message);
        watch_limit(&w, w.used + w.used / 50, 0); /* 2 % of room, all of it garbage each time */
        const int status = run(L, "for i = 1, 20000 do local garbage = { i } end");
        const struct zaccount_figures f = figures(w.account);
        CHECK(is_on ? is_memory_error(status) : status == LUA_OK, "an overhead limit ends what collects at every turn");
        CHECK((f.overhead_refusals > 0) == is_on, "by refusals that are counted");
        CHECK(f.limit_hit && f.retries >= (is_on ? 8 : 20), "after as many collections as it allows");
        CHECK(f.retries == w.retried, "collections are counted");
        watch_limit(&w, w.used * 2, 0);
        CHECK(run(L, "for i = 1, 20000 do local garbage = { i } end") == LUA_OK, "with room again it goes on");
        end_watch(&w, L);
    }
#endif
}

/* A collection that makes room begins the count of poor ones anew. */
static void spared(void)
{
#if ASKS_AGAIN
    struct watch w;
    lua_State *L = begin_watch(&w, "spared", true);
    w.is_judged = false;
    zaccount_set_overhead(w.account, 5, 8);
    CHECK(run(L, "kept = {} for i = 1, 4000 do kept[i] = { i } end\n"
                 "function churn() for i = 1, 700 do local garbage = { i } end end collectgarbage() collectgarbage()") ==
              LUA_OK, message);
    for (int i = 0; i < 10; i++) {
        const uint64_t before = w.retried;
        watch_limit(&w, w.used + w.used / 33, 0); /* 3 % of room: some five poor ones */
        CHECK(run(L, "churn()") == LUA_OK, message);
        CHECK(w.retried > before + 2 && w.retried < before + 8, "some collections made little room");
        watch_limit(&w, w.used + w.used / 5, 0); /* and then one that made much */
        CHECK(run(L, "for i = 1, 5 do churn() end collectgarbage() collectgarbage()") == LUA_OK, message);
    }
    CHECK(figures(w.account).overhead_refusals == 0, "collections that make room forgive the poor ones");
    end_watch(&w, L);
#endif
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    const size_t total = zmalloc_total();
    static const struct { const char *name; void (*test)(void); } tests[] = {
        {"parts", parts}, {"peak", at_the_peak}, {"moving", moving}, {"lowered", lowered}, {"handlers", handlers},
        {"closing", closing}, {"again", closes_again}, {"overhead", overhead}, {"spared", spared}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (check_wants(argc, argv, tests[i].name))
            tests[i].test();
    CHECK(zmalloc_total() == total, "the process is where it was");
    return finish_report();
}
