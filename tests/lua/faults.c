/* faults.c - each request of a state that opens and uses all libraries is refused once, in turn, then twice (so
 * that asking again does not help), then for ever: an error or a success, and nothing is left.
 *
 * STEP=1 in the environment tries each request; else as many as fit into the seconds, spread evenly.
 *
 * LuaJIT 2.1 does not survive each memory error, and can name wrong sizes after one, whatever the allocator. So
 * there each run is a process of its own, and one that crashes, or is left with bytes, has to do the same with
 * an allocator of ten lines. */
#include "lua_check.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

/* Lua 5.1 closes the standard streams if its io library is refused memory in the middle of their making. */
int fclose(FILE *file)
{
    if (file == stdin || file == stdout || file == stderr)
        return 0;
    return ((int (*)(FILE *))dlsym(RTLD_NEXT, "fclose"))(file);
}

/* ---- what is run ---------------------------------------------------------------------------------- */

struct fault {
    int64_t n, repeat;
};

static _Atomic long errors, successes, unmade;
static size_t left_over; /* bytes that are charged when the state is closed */

static void use(lua_State *L)
{
    int status = call(L, open_for_errors, NULL);
    if (status == LUA_OK)
        status = run_chunk(L, &chunks[EVERYTHING], 1, 0);
    CHECK(is_expected(status), message);
    errors += status != LUA_OK;
    successes += status == LUA_OK;
}

static lua_State *new_direct(zaccount *a)
{
    return zcompat_newstate(zmalloc_lua_alloc, a);
}

/* A stock state that is adopted. It lives on when that is refused, and is used uncounted. */
static lua_State *new_adopted(zaccount *a)
{
    lua_State *L = luaL_newstate();
    if (L && zmalloc_lua_adopt(L, a)) {
        CHECK(zaccount_used(a) == 0, "nothing is charged for a state that is not adopted");
        lua_close(L);
        return NULL;
    }
    return L;
}

static const struct maker {
    const char *name;
    lua_State *(*make)(zaccount *);
} makers[] = {{"lua_newstate", new_direct}, {"zmalloc_lua_newstate", zmalloc_lua_newstate}, {"adopted", new_adopted}};

/* Runs it all with a fault. True when the fault came. */
static bool run_with(const struct maker *m, struct fault fault, bool is_single)
{
    zaccount *a = zaccount_new("faults", NULL);
    if (is_single)
        zaccount_set_single(a);
    zaccount_fail_after(a, fault.n, fault.repeat);
    lua_State *L = m->make(a);
    if (L) {
        use(L);
        lua_close(L); /* for ever means here, too */
    } else {
        unmade++;
    }
    const struct zaccount_figures f = figures(a);
    CHECK(L || f.refusals > 0, "without a refusal there is a state");
    CHECK(!f.limit_hit, "a refusal on request is no limit that was hit");
    CHECK(fault.repeat < 0 || f.refusals <= (uint64_t)fault.repeat, "no more is refused than was asked for");
    uint64_t passed, failed;
    zaccount_faults(a, &passed, &failed);
    CHECK(failed == f.refusals, "each refusal is one that was asked for");
    CHECK(failed == 0 || passed >= (uint64_t)fault.n, "and comes after those that were to succeed");
    left_over = f.used;
    if (!IS_LUAJIT || left_over == 0)
        finish(a);
    return f.refusals > 0;
}

/* ---- LuaJIT: a process each ------------------------------------------------------------------------- */

#if IS_LUAJIT

static int64_t plain_left, plain_repeat;
static size_t plain_used;

static void *plain(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud;
    if (nsize > (ptr ? osize : 0)) {
        if (plain_left > 0)
            plain_left--;
        else if (plain_repeat < 0 || plain_repeat-- > 0)
            return NULL;
    }
    plain_used += nsize - (ptr ? osize : 0);
    if (nsize)
        return realloc(ptr, nsize);
    free(ptr);
    return NULL;
}

/* The same with LuaJIT's own allocator below. */
static lua_Alloc stock;
static void *stock_ud;

static void *plain_over_stock(void *ud, void *ptr, size_t osize, size_t nsize)
{
    void *p = NULL;
    if (nsize > (ptr ? osize : 0)) {
        p = plain(ud, NULL, 0, nsize);
        if (!p)
            return NULL;
        free(p);
    }
    return stock(stock_ud, ptr, osize, nsize);
}

static void run_plain_adopted(struct fault fault)
{
    lua_State *L = luaL_newstate();
    plain_left = fault.n - 1;
    plain_repeat = fault.repeat;
    stock = lua_getallocf(L, &stock_ud);
    lua_setallocf(L, plain_over_stock, NULL);
    use(L);
    lua_setallocf(L, stock, stock_ud);
    lua_close(L);
    left_over = 0;
}

/* The same requests, refused in the same places. zmalloc_lua_newstate() and adopting make the state first, and
 * charge for it at once. */
static void run_plain(const struct maker *m, struct fault fault)
{
    if (m->make == new_adopted) {
        run_plain_adopted(fault);
        return;
    }
    const bool is_whole = m->make == new_direct;
    plain_left = is_whole ? fault.n : INT64_MAX;
    plain_repeat = fault.repeat;
    lua_State *L = lua_newstate(plain, NULL);
    if (L && !is_whole)
        plain_left = fault.n - 1;
    if (L) {
        use(L);
        lua_close(L);
    }
    left_over = plain_used;
}

static long crashes, rests; /* none of them ours */

static void forget_processes(void)
{
    crashes = rests = 0;
}

enum { CAME = 0, CAME_NOT = 1, FAILED = 2, RESTS = 3 };

static int in_a_process(const struct maker *m, struct fault fault, bool is_single, bool is_plain)
{
    int status = -1;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        const long failed = check_failed;
        bool came = true;
        if (is_plain)
            run_plain(m, fault);
        else
            came = run_with(m, fault, is_single);
        _exit(check_failed > failed ? FAILED : left_over ? RESTS : came ? CAME : CAME_NOT);
    }
    waitpid(child, &status, 0);
    return status;
}

static bool is_crash(int status)
{
    return WIFSIGNALED(status) || WEXITSTATUS(status) > RESTS;
}

/* Strings hash differently in each process of LuaJIT, so that a request comes earlier or later there; one that
 * is as bad is looked for further and further away. */
static bool is_alike(const struct maker *m, struct fault fault, int status)
{
    enum { FURTHEST = 150 };
    for (int64_t i = 0; i <= 2 * FURTHEST; i++) {
        const int64_t n = fault.n + (i % 2 ? (i + 1) / 2 : -(i / 2));
        if (n < 0)
            continue;
        const int plain = in_a_process(m, (struct fault){n, fault.repeat}, false, true);
        if (is_crash(status) ? is_crash(plain) : plain == status)
            return true;
    }
    return false;
}

static bool try_fault(const struct maker *m, struct fault fault, bool is_single)
{
    const int status = in_a_process(m, fault, is_single, false);
    if (is_crash(status)) {
        crashes++;
        CHECK(is_alike(m, fault, status), "LuaJIT crashes, and with any allocator");
        return true;
    }
    CHECK(WEXITSTATUS(status) != FAILED, m->name);
    if (WEXITSTATUS(status) == RESTS) {
        rests++;
        CHECK(is_alike(m, fault, status), "LuaJIT leaves bytes, and with any allocator");
    }
    return WEXITSTATUS(status) != CAME_NOT;
}

#else

enum { crashes = 0, rests = 0 };

static void forget_processes(void)
{
}

static bool try_fault(const struct maker *m, struct fault fault, bool is_single)
{
    return run_with(m, fault, is_single);
}

#endif

/* ---- in turn ---------------------------------------------------------------------------------------- */

/* How many requests there are; a few more or less from run to run, as strings hash. */
static int64_t count_requests(const struct maker *m)
{
    int64_t low = 0, high = 1;
    while (try_fault(m, (struct fault){high, 1}, false))
        high *= 2;
    for (low = high / 2; low < high;) {
        const int64_t middle = (low + high) / 2;
        if (try_fault(m, (struct fault){middle, 1}, false))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static double time_of(const struct maker *m)
{
    const double began = check_now();
    for (int i = 0; i < 5; i++)
        try_fault(m, (struct fault){INT64_MAX, 1}, false);
    return (check_now() - began) / 5;
}

static void in_turn(const struct maker *m)
{
    static const int64_t repeats[] = {1, 2, -1};
    const int64_t requests = count_requests(m);
    const char *wanted = getenv("STEP");
    int64_t step = wanted ? strtoll(wanted, NULL, 10) : 0, tried = 0, missed = 0;
    if (step <= 0)
        step = 1 + (int64_t)(3.0 * (double)requests * time_of(m) / check_seconds);
    errors = successes = unmade = 0;
    forget_processes();
    uint64_t seed = check_seed;
    for (int i = 0; i < 3; i++)
        for (int64_t n = (int64_t)below(&seed, (size_t)step); n < requests; n += step, tried++)
            missed += !try_fault(m, (struct fault){n, repeats[i]}, n / step % 2);
    CHECK(missed <= tried / 20, "the faults came");
    printf("%s: %lld requests, %lld faults tried, %ld without a state, %ld errors, %ld successes, %ld crashes and %ld wrong sizes of LuaJIT\n",
           m->name, (long long)requests, (long long)tried, unmade, errors, successes, (long)crashes, (long)rests);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    const size_t total = zmalloc_total();
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (check_wants(argc, argv, makers[i].name))
            in_turn(&makers[i]);
    CHECK(zmalloc_total() == total, "the process is where it was");
    return finish_report();
}
