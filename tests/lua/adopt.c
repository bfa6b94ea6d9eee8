/* adopt.c - live states that begin to count: with the stock allocator and with hosts' own, wherever they are at
 * that moment, and whatever goes wrong. */
#include "lua_check.h"

/* ---- memory that runs out ------------------------------------------------------------------------- */

/* malloc() of the library under test goes through here (-Wl,--wrap=malloc). */
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);

static int malloc_left = -1; /* how many calls succeed; -1: all */

void *__wrap_malloc(size_t n)
{
    if (malloc_left == 0)
        return NULL;
    if (malloc_left > 0)
        malloc_left--;
    return __real_malloc(n);
}

/* ---- hosts ------------------------------------------------------------------------------------------ */

/* A host whose blocks have a header, and which stops at a pointer or a size that is not right. */
struct header {
    uint64_t magic;
    size_t size;
};

enum { MAGIC = 0x5ca1ab1e };

static long held_blocks;
static int host_left = -1; /* how many requests succeed */

static struct header *open_block(void *ptr, size_t osize)
{
    struct header *h = (struct header *)ptr - 1;
    if (h->magic != MAGIC || h->size != osize) {
        fprintf(stderr, "a foreign block, or %zu bytes that are %zu\n", h->size, osize);
        abort();
    }
    return h;
}

static void *with_headers(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct header *old = ptr ? open_block(ptr, osize) : NULL, *h;
    if (ud != &held_blocks)
        abort();
    if (nsize == 0) {
        held_blocks -= old != NULL;
        if (old)
            old->magic = 0;
        free(old);
        return NULL;
    }
    if (nsize > (ptr ? osize : 0) && host_left >= 0 && host_left-- == 0) {
        host_left = 0;
        return NULL;
    }
    h = realloc(old, sizeof *h + nsize);
    held_blocks += !old;
    *h = (struct header){MAGIC, nsize};
    return h + 1;
}

/* A host that gives blocks out of one piece and takes none back before the end. */
static struct arena {
    _Alignas(16) char *bytes;
    size_t size, used;
} arena;

static void *in_arena(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct arena *r = ud;
    if (ptr && ((char *)ptr < r->bytes || (char *)ptr + osize > r->bytes + r->used))
        abort();
    if (nsize == 0)
        return NULL;
    if (ptr && nsize <= osize)
        return ptr;
    const size_t n = (nsize + 15) / 16 * 16;
    if (n > r->size - r->used)
        return NULL;
    void *p = r->bytes + r->used;
    r->used += n;
    if (ptr)
        memcpy(p, ptr, osize);
    return p;
}

static lua_State *stock_host(void)
{
    return luaL_newstate();
}

static lua_State *header_host(void)
{
    return zcompat_newstate(with_headers, &held_blocks);
}

static lua_State *arena_host(void)
{
    arena.size = (size_t)128 << 20;
    if (!arena.bytes)
        arena.bytes = malloc(arena.size);
    arena.used = 0;
    return zcompat_newstate(in_arena, &arena);
}

static const struct host {
    const char *name;
    lua_State *(*make)(void);
} hosts[] = {{"stock", stock_host}, {"headers", header_host}, {"arena", arena_host}};
enum { HOSTS = sizeof hosts / sizeof *hosts };

/* ---- adopting from where a script is ------------------------------------------------------------------ */

static struct {
    zaccount *wanted; /* NULL: an account of its own */
    int result;
    zaccount *account;
    size_t used, count; /* right after it */
} job;

static int adopt_here(lua_State *L)
{
    const int top = lua_gettop(L);
    job.result = zmalloc_lua_adopt(L, job.wanted);
    CHECK(lua_gettop(L) == top, "nothing is left on the stack");
    job.account = zmalloc_lua_account(L);
    if (job.account)
        job.used = zaccount_used(job.account);
    job.count = count(L);
    return 0;
}

static int prepare(lua_State *L)
{
    be_quiet(L);
    luaL_openlibs(L);
    lua_register(L, "adopt", adopt_here);
    return 0;
}

static lua_State *begin_host(const struct host *h, zaccount *wanted)
{
    lua_State *L = h->make();
    CHECK(L && call(L, prepare, NULL) == LUA_OK, message);
    memset(&job, 0, sizeof job);
    job.wanted = wanted;
    return L;
}

static void look(lua_State *L, const char *what)
{
    CHECK(zmalloc_lua_account(L) == job.account, "the state counts");
    CHECK(is_what_it_counts(zaccount_used(job.account), count(L)), what); /* to the byte */
}

/* Under valgrind all would take minutes. */
static bool is_hurried(void)
{
    return check_seconds < 0.05;
}

static void use(lua_State *L, const char *what)
{
    const int wanted = is_hurried() ? 2 : RANDOM;
    for (int i = 0; i < wanted; i++) {
        const int status = run_chunk(L, &chunks[i], chunks[i].size / 2 + 50, 0);
        CHECK(status == LUA_OK || is_finalizer_error(status), message);
        if (status)
            settle(L);
        look(L, what);
    }
}

/* Closes a state that counts into an account of the host's, or one of its own. */
static void end_host(lua_State *L, zaccount *wanted)
{
    lua_close(L);
    if (wanted)
        CHECK(zaccount_used(wanted) == 0, "nothing is charged when the state is closed");
    CHECK(held_blocks == 0, "the host has its blocks back");
}

/* ---- wherever a script is ---------------------------------------------------------------------------- */

static const struct place {
    const char *name, *script;
} places[] = {
    {"at the top", "adopt()"},
    {"with garbage, stopped", "for i = 1, 5000 do local t = { i, 'x' .. i } end collectgarbage('stop') adopt()"},
    {"with live coroutines",
     "waiting = {} for i = 1, 50 do waiting[i] = coroutine.wrap(function(a) local t = { a } while true do\n"
     "t[#t + 1] = coroutine.yield(#t) end end) waiting[i](i) end adopt()\n"
     "for i = 1, 50 do for k = 1, 20 do waiting[i]({}) end end"},
    {"in a coroutine", "local co = coroutine.wrap(function() local t = {} adopt() for i = 1, 500 do t[i] = { i } end\n"
                       "coroutine.yield() t = nil end) co() collectgarbage() co()"},
    {"in a coroutine of a coroutine",
     "coroutine.wrap(function() coroutine.wrap(function() adopt() for i = 1, 100 do local t = { i } end end)() end)()"},
    {"in a callback of gsub",
     "local n = 0 local out = ('word '):rep(20000):gsub('%w+', function(w) n = n + 1\n"
     "if n == 15000 then adopt() end return w .. w end) assert(#out == 180000)"},
    {"in the first callback of gsub",
     "local n = 0 local out = ('word '):rep(20000):gsub('%w+', function(w) n = n + 1\n"
     "if n == 1 then adopt() end return w .. w end) assert(#out == 180000)"},
    {"in a callback in a callback",
     "local n = 0 local out = ('word '):rep(9000):gsub('%w+', function(w) n = n + 1\n"
     "if n ~= 8000 then return end local m = 0\n"
     "return (('more '):rep(9000):gsub('%w', function(c) m = m + 1 if m == 30000 then adopt() end return c .. c end))\n"
     "end) assert(#out > 100000)"},
    {"in a coroutine in a callback",
     "local n = 0 local out = ('word '):rep(20000):gsub('%w+', function(w) n = n + 1\n"
     "if n == 15000 then coroutine.wrap(function() adopt() end)() end return w .. w end) assert(#out == 180000)"},
    {"in a callback in a coroutine",
     "coroutine.wrap(function() local n = 0 local out = ('word '):rep(20000):gsub('%w+', function(w) n = n + 1\n"
     "if n == 15000 then adopt() end return w .. w end) assert(#out == 180000) end)()"},
    {"in callbacks on both sides of a coroutine",
     "local n = 0 local out = ('word '):rep(9000):gsub('%w+', function(w) n = n + 1\n"
     "if n == 8000 then coroutine.wrap(function() local m = 0 local o = ('more '):rep(9000):gsub('%w', function(c)\n"
     "m = m + 1 if m == 30000 then adopt() end return c .. c end) assert(#o > 50000) end)() end\n"
     "return w .. w end) assert(#out == 81000)"},
    {"below a callback in a coroutine in the middle",
     "coroutine.wrap(function() local n = 0 local out = ('word '):rep(20000):gsub('%w+', function(w) n = n + 1\n"
     "if n == 15000 then coroutine.resume(coroutine.create(function() adopt() end)) end return w .. w end)\n"
     "assert(#out == 180000) end)()"},
    {"in __tostring, in format",
     "local object = setmetatable({}, { __tostring = function() adopt() return ('t'):rep(5000) end })\n"
     "if _VERSION == 'Lua 5.1' then tostring(object)\n"
     "else local out = ('%s %s %s'):format(('x'):rep(50000), object, ('y'):rep(50000)) assert(#out == 105002) end"},
    {"in an error handler", "xpcall(function() error('x') end, function() adopt() return { 1 } end)"},
    {"in a hook", "debug.sethook(function() debug.sethook() adopt() end, 'l')\nlocal a = 1\na = 2\n"},
    {"in a loader", "package.preload.some = function() adopt() return { ('x'):rep(100) } end require('some')"},
    {"in a reader of load", "local done = 0 local f = assert(load(function() done = done + 1\n"
                            "if done == 20 then adopt() end if done < 40 then return 'local a = { 1, \"b\" } ' end end)) f()"},
    {"in a comparison of sort",
     "local t, done = {} for i = 1, 300 do t[i] = (i * 7) % 31 end\n"
     "table.sort(t, function(a, b) if not done then done = true adopt() end return a < b end)"},
};
enum { PLACES = sizeof places / sizeof *places };

static void try_place(const struct host *h, const struct place *p, zaccount *wanted)
{
    const size_t total = zmalloc_total();
    char what[200];
    snprintf(what, sizeof what, "%s, %s", h->name, p->name);
    lua_State *L = begin_host(h, wanted);
    CHECK(run(L, p->script) == LUA_OK, message);
    CHECK(job.result == 0 && job.account && (!wanted || job.account == wanted), what);
    CHECK(job.used >= job.count, "what the collector counts is charged");
    CHECK(is_what_it_counts(zaccount_used(job.account), count(L)), what); /* buffers that were there are gone now */
    run(L, "collectgarbage('restart')");
    use(L, what);
    end_host(L, wanted);
    CHECK(zmalloc_total() == total, what); /* an account of its own has gone with the state */
}

static void everywhere(void)
{
    for (int i = 0; i < HOSTS; i++)
        for (int k = 0; k < PLACES; k++) {
            if (is_hurried() && (i + k) % 3)
                continue;
            zaccount *a = zaccount_new("adopting", NULL);
            try_place(&hosts[i], &places[k], a);
            try_place(&hosts[i], &places[k], NULL);
            finish(a);
        }
    printf("%d hosts, %d places\n", HOSTS, PLACES);
}

/* ---- what does not come to pass ----------------------------------------------------------------------- */

static void twice(void)
{
    for (int i = 0; i < HOSTS; i++) {
        zaccount *a = zaccount_new("first", NULL), *b = zaccount_new("second", NULL);
        lua_State *L = begin_host(&hosts[i], a);
        CHECK(zmalloc_lua_account(L) == NULL, "a foreign state does not count");
        CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
        const size_t used = zaccount_used(a);
        CHECK(zmalloc_lua_adopt(L, a) == ZMALLOC_LUA_ADOPTED && zmalloc_lua_adopt(L, b) == ZMALLOC_LUA_ADOPTED &&
                  zmalloc_lua_adopt(L, NULL) == ZMALLOC_LUA_ADOPTED,
              "a state that counts is not adopted again");
        CHECK(zaccount_used(a) == used && zaccount_used(b) == 0, "and nothing is charged for it");
        end_host(L, a);
        lua_State *N = zmalloc_lua_newstate(a);
        CHECK(zmalloc_lua_adopt(N, b) == ZMALLOC_LUA_ADOPTED, "nor is a state of ours");
        lua_close(N);
        finish(b);
        finish(a);
    }
}

static void refused(void)
{
    for (int i = 0; i < HOSTS; i++) {
        zaccount *parent = zaccount_new("parent", NULL), *a = zaccount_new("refused", i ? parent : NULL);
        lua_State *L = begin_host(&hosts[i], a);
        const size_t blocks = (size_t)held_blocks;
        void *ud, *after;
        lua_Alloc f = lua_getallocf(L, &ud);
        for (size_t limit = 0; limit < 15000; limit += 1000) {
            zaccount_set_limit(i ? parent : a, limit, 500);
            CHECK(zmalloc_lua_adopt(L, a) == ZMALLOC_LUA_REFUSED, "a cap without room refuses the state");
            CHECK(lua_getallocf(L, &after) == f && after == ud, "which stays as it was");
            CHECK(zaccount_used(a) == 0 && zmalloc_lua_account(L) == NULL, "and does not count");
            CHECK(figures(i ? parent : a).limit_hit, "the cap was hit");
        }
        CHECK(IS_LUAJIT || (size_t)held_blocks <= blocks + 2, "nothing is left in it but the name of a type");
        CHECK(run_chunk(L, &chunks[0], 50, 0) == LUA_OK, message);
        zaccount_set_limit(i ? parent : a, ZACCOUNT_UNLIMITED, 0);
        CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, "with room it counts");
        use(L, hosts[i].name);
        end_host(L, a);
        finish(a);
        finish(parent);
    }
}

/* Lua 5.4.4 and later do not tell in a finalizer what is held. */
static void finalizing(void)
{
    static const char script[] =
        "local u = newproxy and newproxy(true)\n"
        "if u then getmetatable(u).__gc = function() adopt() end else setmetatable({}, { __gc = function() adopt() end }) end\n"
        "u = nil collectgarbage() collectgarbage()\n";
    for (int i = 0; i < HOSTS; i++) {
        zaccount *a = zaccount_new("finalizing", NULL);
        lua_State *L = begin_host(&hosts[i], a);
        job.result = -1;
        CHECK(run(L, script) == LUA_OK, message);
        if (LUA_VERSION_NUM >= 504) {
            CHECK(job.result == ZMALLOC_LUA_FINALIZING, "a finalizer is no place for it");
            CHECK(zaccount_used(a) == 0 && !zmalloc_lua_account(L), "nothing was charged");
            CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
        }
        CHECK(job.result == 0, "elsewhere, or earlier, it is");
        use(L, hosts[i].name);
        end_host(L, a);
        finish(a);
    }
}

/* At the close, too. */
static void finalizing_at_the_end(void)
{
    static const char script[] =
        "local u = newproxy and newproxy(true)\n"
        "if u then getmetatable(u).__gc = function() adopt() end\n"
        "else u = setmetatable({}, { __gc = function() adopt() end }) end kept = u\n";
    for (int i = 0; i < HOSTS; i++) {
        zaccount *a = zaccount_new("at the end", NULL);
        lua_State *L = begin_host(&hosts[i], a);
        CHECK(run(L, script) == LUA_OK, message);
        end_host(L, a);
        finish(a);
        const size_t total = zmalloc_total();
        L = begin_host(&hosts[i], NULL);
        CHECK(run(L, script) == LUA_OK, message);
        end_host(L, NULL);
        CHECK(zmalloc_total() == total, "an account of its own goes with the state");
    }
}

static void out_of_memory(void)
{
    const size_t total = zmalloc_total();
    for (int is_own = 0; is_own < 2; is_own++)
        for (int left = 0, result = -1; result; left++) {
            zaccount *a = zaccount_new("memory", NULL);
            lua_State *L = begin_host(&hosts[1], a);
            malloc_left = left;
            result = zmalloc_lua_adopt(L, is_own ? NULL : a);
            malloc_left = -1;
            CHECK(result == 0 || result == ZMALLOC_LUA_NOMEM, "without memory it says so");
            CHECK((zmalloc_lua_account(L) != NULL) == (result == 0), "the state counts, or does not");
            CHECK(result == 0 || zaccount_used(a) == 0, "and nothing is charged");
            CHECK(left < 10, "there is an end to it");
            lua_close(L);
            finish(a);
        }
    for (int left = 0, result = -1; result; left++) {
        zaccount *a = zaccount_new("the state's", NULL);
        lua_State *L = begin_host(&hosts[1], a);
        host_left = left;
        result = zmalloc_lua_adopt(L, a);
        host_left = -1;
        CHECK(result == 0 || result == ZMALLOC_LUA_NOMEM, "without the state's memory, too");
        CHECK((zmalloc_lua_account(L) != NULL) == (result == 0), "the state counts, or does not");
        CHECK(left < 40, "there is an end to it");
        CHECK(call(L, open_libraries, NULL) == LUA_OK, message);
        end_host(L, a);
        finish(a);
    }
    CHECK(zmalloc_total() == total, "no account is left over");
}

/* Nothing of an adoption that came to nothing, or that has ended, is left in the heap. */
static void refuse(void *ud)
{
    lua_State *L = ud;
    zaccount *a = zaccount_new("refused", NULL);
    zaccount_set_limit(a, 100, 0);
    CHECK(zmalloc_lua_adopt(L, a) == ZMALLOC_LUA_REFUSED, "a cap without room refuses the state");
    finish(a);
    lua_gc(L, LUA_GCCOLLECT, 0);
}

static void come_and_go(void *account)
{
    lua_State *L = stock_host();
    CHECK(L && zmalloc_lua_adopt(L, account) == 0, "a new state is adopted");
    lua_close(L);
}

static void nothing_left(void)
{
    lua_State *L = stock_host();
    check_heap(refuse, L, "refused ones leave nothing");
    CHECK(zmalloc_lua_account(L) == NULL, "the state was never adopted");
    CHECK(call(L, open_libraries, NULL) == LUA_OK, message);
    lua_close(L); /* LuaJIT's guards of the refused ones must not act now */
    zaccount *a = zaccount_new("guest house", NULL);
    check_heap(come_and_go, a, "nor do those that have ended");
    check_heap(come_and_go, NULL, "nor do accounts of their own");
    finish(a);
}

/* The host has no more memory, while the account would have room: the charge is taken back. */
static void host_without_memory(void)
{
#if !IS_LUAJIT /* which does not survive each memory error, and names wrong sizes after some */
    for (int i = 0; i < 2; i++)
        for (int left = 0; left < 400; left += 7) {
            zaccount *a = i ? zaccount_new("host", NULL) : NULL;
            lua_State *L = begin_host(&hosts[1], a);
            CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
            host_left = left;
            const int status = run_chunk(L, &chunks[i ? 0 : EVERYTHING], 200, 0);
            host_left = -1;
            CHECK(is_expected(status), message);
            settle(L);
            look(L, "what a host has refused is not charged");
            CHECK(figures(job.account).refusals == 0 && !figures(job.account).limit_hit, "it is no refusal of the cap's");
            end_host(L, a);
            zaccount_free(a);
        }
#endif
}

/* A block that something took from the state's allocator, as string buffers do, and that nobody can know of: when it
 * is given back use does not fall below nothing. */
static void unknown_block(void)
{
    for (int i = 0; i < 2; i++) {
        zaccount *a = i ? zaccount_new("unknown", NULL) : NULL;
        lua_State *L = begin_host(&hosts[1], a);
        void *ud;
        lua_Alloc f = lua_getallocf(L, &ud);
        void *block = f(ud, NULL, 0, 1 << 20), *small = f(ud, NULL, 0, 50);
        CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
        f = lua_getallocf(L, &ud);
        const size_t used = zaccount_used(job.account);
        small = f(ud, small, 50, 150);
        CHECK(zaccount_used(job.account) == used + 100, "its growth counts");
        f(ud, small, 150, 0);
        f(ud, block, 1 << 20, 0);
        CHECK(zaccount_used(job.account) <= used, "what is given back does not count");
        CHECK(zaccount_peak(job.account) <= used + (2 << 20), "and there is no wrap");
        CHECK(run_chunk(L, &chunks[0], 50, 0) == LUA_OK, message);
        CHECK(zaccount_used(job.account) < (64 << 20), "nor later");
        end_host(L, a);
        zaccount_free(a);
    }
}

/* ---- what goes on ------------------------------------------------------------------------------------- */

/* The cap holds for an adopted state, and its reserve serves; scripts cannot get rid of it. */
static void caps(void)
{
    static const char escape[] =
        "local registry = debug.getregistry()\n"
        "for key, value in pairs(registry) do\n"
        "    local meta = type(value) == 'userdata' and debug.getmetatable(value)\n"
        "    if meta and meta.__gc and type(key) == 'userdata' then pcall(meta.__gc, value) registry[key] = nil end\n"
        "end value = nil collectgarbage() collectgarbage()\n";
    for (int i = 0; i < HOSTS; i++)
        for (int by_parent = 0; by_parent < 2; by_parent++) {
            zaccount *parent = zaccount_new("parent", NULL), *a = zaccount_new("capped", by_parent ? parent : NULL);
            lua_State *L = begin_host(&hosts[i], a);
            CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
            const size_t limit = zaccount_used(a) + 300000;
            zaccount_set_limit(by_parent ? parent : a, limit, 10000);
            CHECK(run(L, escape) == LUA_OK, message);
            CHECK(zmalloc_lua_account(L) == a, "a script does not get rid of its host's cap");
            if (!IS_LUAJIT) /* which does not survive each memory error */
                CHECK(is_memory_error(run(L, "local t = {} while true do t = { t } end")), "the cap is felt");
            else
                CHECK(is_memory_error(run(L, "local t = ('x'):rep(1000000)")), "the cap is felt");
            CHECK(zaccount_peak(a) <= limit + 10000, "and not passed");
            CHECK(figures(by_parent ? parent : a).limit_hit, "it is told");
            lua_close(L);
            CHECK(held_blocks == 0, "the host has its blocks back");
            finish(a);
            finish(parent);
        }
}

/* On LuaJIT the host's allocator is back when the state closes; elsewhere ours stays. */
static void uncapped_escape(void)
{
#if IS_LUAJIT
    zaccount *a = zaccount_new("free", NULL);
    lua_State *L = begin_host(&hosts[1], a);
    CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
    zaccount_guest_limit(a, 50 << 20, 0);
    zaccount_guest_seal(a);
    CHECK(run(L, "local registry = debug.getregistry() for key, value in pairs(registry) do\n"
                 "if type(value) == 'userdata' and type(key) == 'userdata' then\n"
                 "pcall(debug.getmetatable(value).__gc, value) end end") == LUA_OK, message);
    CHECK(zmalloc_lua_account(L) == a, "a seal of the script's own stays as well");
    end_host(L, a);
    finish(a);
    L = begin_host(&hosts[1], a = zaccount_new("free", NULL));
    CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
    CHECK(run(L, "local registry = debug.getregistry() for key, value in pairs(registry) do\n"
                 "if type(value) == 'userdata' and type(key) == 'userdata' then\n"
                 "pcall(debug.getmetatable(value).__gc, value) end end") == LUA_OK, message);
    CHECK(zmalloc_lua_account(L) == NULL && zaccount_used(a) == 0, "where there is no cap nothing is lost by it");
    end_host(L, a);
    finish(a);
#endif
}

/* States that share an account come and go in any order, adopted and new. */
static void company(void)
{
    enum { STATES = 9 };
    zaccount *a = zaccount_new("company", NULL);
    lua_State *L[STATES];
    size_t sum = 0;
    for (int i = 0; i < STATES; i++) {
        L[i] = i % 3 == 2 ? zmalloc_lua_newstate(a) : hosts[i % 3].make();
        CHECK(L[i] && call(L[i], prepare, NULL) == LUA_OK, message);
        CHECK(zmalloc_lua_adopt(L[i], a) == (i % 3 == 2 ? ZMALLOC_LUA_ADOPTED : 0), "one account for all");
        CHECK(run_chunk(L[i], &chunks[i % 6], 60, 0) == LUA_OK, message);
    }
    for (int i = 0; i < STATES; i++)
        sum += count(L[i]);
    CHECK(is_what_it_counts(zaccount_used(a), sum), "it holds their sum");
    for (int i = 0; i < STATES; i++) {
        const int k = i * 4 % STATES;
        sum -= count(L[k]);
        lua_close(L[k]);
        CHECK(IS_LUAJIT ? zaccount_used(a) <= sum + 4096 : is_what_it_counts(zaccount_used(a), sum), "and what is left of it");
    }
    finish(a);
}

/* ---- charging ------------------------------------------------------------------------------------------- */

static void charging(void)
{
    zaccount *a = zaccount_new("charging", NULL);
    lua_State *L = begin_host(&hosts[0], a);
    CHECK(zmalloc_lua_charge(L, 100) == -1 && zmalloc_lua_charge(L, -100) == -1, "a state that does not count is not charged");
    CHECK(run(L, "adopt()") == LUA_OK && job.result == 0, message);
    const size_t used = zaccount_used(a);
    zaccount_set_limit(a, used + 1000, 0);
    CHECK(zmalloc_lua_charge(L, 0) == 0 && zaccount_used(a) == used, "nothing is nothing");
    CHECK(zmalloc_lua_charge(L, 1000) == 0 && zaccount_used(a) == used + 1000, "up to the cap it is granted");
    CHECK(zmalloc_lua_charge(L, 1) == -1 && zaccount_used(a) == used + 1000, "and not beyond");
    CHECK(zmalloc_lua_charge(L, PTRDIFF_MAX) == -1, "never");
    CHECK(figures(a).limit_hit && figures(a).refusals == 2, "refusals are told");
    CHECK(is_memory_error(run(L, "local t = {} for i = 1, 1000 do t[i] = i end")), "the script has the less");
    CHECK(zmalloc_lua_charge(L, -1000) == 0, "giving back does not fail");
    CHECK(is_what_it_counts(zaccount_used(a), count(L)), "and is exact");
    zaccount_set_limit(a, 0, 0);
    CHECK(zmalloc_lua_charge(L, 1) == -1, "below a lowered cap, too");
    zaccount_set_limit(a, ZACCOUNT_UNLIMITED, 0);
    CHECK(zmalloc_lua_charge(L, 12345) == 0 && zmalloc_lua_charge(L, -12345) == 0, "there and back");
    end_host(L, a);
    finish(a);
    lua_State *N = zmalloc_lua_newstate(NULL);
    const size_t before = zaccount_used(zaccount_default());
    CHECK(zmalloc_lua_charge(N, 77) == 0 && zaccount_used(zaccount_default()) == before + 77, "into the default account");
    CHECK(zmalloc_lua_charge(N, -77) == 0, "and out of it");
    lua_close(N);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    const size_t total = zmalloc_total();
    static const struct { const char *name; void (*test)(void); } tests[] = {
        {"everywhere", everywhere}, {"twice", twice}, {"refused", refused}, {"finalizing", finalizing},
        {"end", finalizing_at_the_end}, {"memory", out_of_memory}, {"nothing", nothing_left}, {"host", host_without_memory},
        {"unknown", unknown_block}, {"caps", caps}, {"escape", uncapped_escape},
        {"company", company}, {"charging", charging}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (check_wants(argc, argv, tests[i].name))
            tests[i].test();
    free(arena.bytes);
    CHECK(zmalloc_total() == total, "the process is where it was");
    return finish_report();
}
