/* groups.c - many states in many threads: each has a cap, and all have one together. */
#include "lua_check.h"

enum { MANY = 8, GROUP = 3 << 19, GROUP_RESERVE = 128 << 10, STATE = 600 << 10, STATE_RESERVE = 32 << 10 };

static zaccount *group;
static _Atomic long states, errors, runs, unmade;

/* At each request: the state's account and its parent are where they may be. Only watched() of the state's own
 * account can be exact; the parent moves meanwhile, but is never above. */
static void *watched_group(void *ud, void *ptr, size_t osize, size_t nsize)
{
    zaccount *a = ud;
    void *p = zmalloc_lua_alloc(a, ptr, osize, nsize);
    CHECK(p || nsize == 0 || nsize > (ptr ? osize : 0), "only growth is refused");
    CHECK(zaccount_used(group) <= GROUP + GROUP_RESERVE, "the group is under its cap to the byte");
    CHECK(a == group || zaccount_used(a) <= STATE + STATE_RESERVE, "so is the state");
    return p;
}

/* Long enough, and longer if the cap has not been felt: another program may have had the machine. */
static bool goes_on(double began)
{
    const double so_far = check_now() - began;
    return so_far < check_seconds || (!IS_LUAJIT && errors < 3 && so_far < 20);
}

static lua_State *new_state(zaccount *a, bool is_watched)
{
    if (!is_watched)
        return zmalloc_lua_newstate(a);
    return zcompat_newstate(watched_group, a);
}

/* Not "everything": the C library's time functions, as Lua calls them, are not for threads. LuaJIT does not
 * survive each memory error, so its states have room and the group's cap is not felt. Lua 5.2 and 5.3 write
 * beyond their stack where many finalizers fail for want of memory while the state is closed, and 5.3 loses a large
 * string buffer by it. */
static const struct chunk *pick(uint64_t *seed)
{
    const struct chunk *c = &chunks[below(seed, IS_LUAJIT ? 2 : EVERYTHING)];
    if (LUA_VERSION_NUM == 502 && strcmp(c->name, "finalizers") == 0)
        return &chunks[0];
    if (LUA_VERSION_NUM == 503 && strchr("fbl", c->name[0]))
        return &chunks[0];
    return LUA_VERSION_NUM == 503 && strcmp(c->name, "callbacks") == 0 ? &chunks[1] : c;
}

static void use(lua_State *L, uint64_t *seed)
{
    if (call(L, open_for_errors, NULL)) {
        CHECK(strstr(message, "not enough memory") != NULL, message);
        return;
    }
    for (size_t i = 0; i < 3; i++) {
        const struct chunk *c = pick(seed);
        int status = run_chunk(L, c, IS_LUAJIT ? 20 : c->size + (int)below(seed, (size_t)c->size), 0);
        CHECK(is_expected(status), message);
        errors += is_memory_error(status);
        runs++;
    }
}

static void live_on(zaccount *a, uint64_t *seed)
{
    const bool is_watched = below(seed, 2);
    lua_State *L = new_state(a, is_watched);
    if (!L) {
        unmade++;
        CHECK(!IS_LUAJIT, "there is room for a state");
        return;
    }
    states++;
    use(L, seed);
    lua_close(L);
}

/* Each state has an account of its own below the group's. */
static void own_accounts(int number, uint64_t *seed)
{
    char name[32];
    snprintf(name, sizeof name, "state %d", number);
    const double began = check_now();
    do {
        zaccount *a = zaccount_new(name, group);
        if (below(seed, 2))
            zaccount_set_single(a);
        if (IS_LUAJIT)
            zaccount_set_limit(a, ZACCOUNT_UNLIMITED, 0);
        else
            zaccount_set_limit(a, STATE, below(seed, 2) ? STATE_RESERVE : 0);
        live_on(a, seed);
        CHECK(zaccount_peak(a) <= STATE + STATE_RESERVE, "the state's peak is within its cap");
        finish(a);
    } while (goes_on(began));
}

/* All states have the group's. */
static void one_account(int number, uint64_t *seed)
{
    (void)number;
    const double began = check_now();
    do
        live_on(group, seed);
    while (goes_on(began));
}

static void run_group(const char *what, void (*body)(int, uint64_t *), size_t reserve)
{
    states = errors = runs = unmade = 0;
    group = zaccount_new("group", NULL);
    zaccount_set_limit(group, GROUP, reserve);
    together(MANY, body);
    CHECK(zaccount_used(group) == 0, "all is given back");
    CHECK(zaccount_peak(group) <= GROUP + reserve, "the group's peak is within its cap");
    CHECK(IS_LUAJIT || figures(group).refusals > 0, "the cap was felt");
    CHECK(IS_LUAJIT || errors > 0, "there were memory errors");
    printf("%s: %ld states, %ld not made, %ld runs, %ld memory errors, %llu refusals, peak %zu of %zu\n", what,
           states, unmade, runs, errors, (unsigned long long)figures(group).refusals, zaccount_peak(group),
           (size_t)GROUP + reserve);
    finish(group);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    const size_t total = zmalloc_total();
    for (size_t reserve = 0; reserve <= GROUP_RESERVE; reserve += GROUP_RESERVE) {
        if (check_wants(argc, argv, "own"))
            run_group("accounts of their own", own_accounts, reserve);
        if (check_wants(argc, argv, "one"))
            run_group("one account", one_account, reserve);
    }
    CHECK(zmalloc_total() == total, "the process is where it was");
    return finish_report();
}
