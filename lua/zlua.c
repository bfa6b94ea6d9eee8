/* zlua.c - zlua: a stand-alone Lua that counts every byte, with a cap.
 *
 * Behaves as the lua of the version that it is built with, to a script. But a memory error runs no message
 * handler, and lua_pcall() leaves no stack to show. So the program runs in a coroutine, whose stack is
 * still there when it has died; what tells a script that this is not the main thread is made to say that it
 * is (see "the main coroutine").
 *
 * Invariants:
 *  - The cap is the account's, set and sealed by the host before the first line of any script: it only
 *    ever gets lower.
 *  - From the program's error on, nothing that has to be said needs memory of the state. Script code that
 *    still runs then (__tostring, __close, __gc) has the cap and its reserve, as before. */
#define _XOPEN_SOURCE 700
#include "zcompat.h"
#include "zlua_options.h"
#include "zlua_report.h"
#include "zlua_trace.h"
#include "zmalloc_lua.h"

#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An error unwinds LuaJIT's stack up to the last call by a C function. So there the chunk itself is the body
 * of the coroutine, which could be yielded from. */
#if defined(LUA_JITLIBNAME)
#define IS_LUAJIT 1
#define NO_YIELD "attempt to yield across C-call boundary"
#else
#define IS_LUAJIT 0
#define NO_YIELD "attempt to yield from outside a coroutine"
#endif

enum {
    STATUS_LIMIT = 53,
    ROOM = 8192 /* what a script needs to be loaded and to end with an error */
};

int luaopen_zmalloc(lua_State *L);

/* One process runs one program, and signals and exit() come without a word of what they belong to. */
static struct {
    struct zlua_options options;
    zaccount *account;
    lua_State *L;  /* the state's main thread */
    lua_State *co; /* where the program runs: its main thread, as far as it can see */
    int step;        /* what load_next() is to load */
    bool is_loading; /* an error is about the program's text, not of its run */
    bool is_closing;
    pid_t pid; /* of the process that writes the report, which a forked child is not */
    int status; /* what the process ends with; -1: not known */
    bool has_figures;
    struct zlua_figures figures; /* as they were when the program ended, or died */
} run;

/* ---- differences between versions -------------------------------------------------------------------- */

static int resume(lua_State *co, lua_State *from, int arguments)
{
#if LUA_VERSION_NUM >= 504
    int results;
    return lua_resume(co, from, arguments, &results);
#elif LUA_VERSION_NUM >= 502
    return lua_resume(co, from, arguments);
#else
    (void)from;
    return lua_resume(co, arguments);
#endif
}

/* Calls the pending __close metamethods of a thread. Their error, if there is one, is on its top. */
static int close_thread(lua_State *co, lua_State *from)
{
#if LUA_VERSION_NUM >= 505 || (LUA_VERSION_NUM == 504 && LUA_VERSION_RELEASE_NUM >= 50406)
    return lua_closethread(co, from);
#elif LUA_VERSION_NUM == 504
    (void)from;
    return lua_resetthread(co);
#else
    (void)co, (void)from;
    return LUA_OK;
#endif
}

/* As lua.c does from 5.4 on. */
static void set_generational(lua_State *L)
{
#if LUA_VERSION_NUM >= 505
    lua_gc(L, LUA_GCGEN);
#elif LUA_VERSION_NUM == 504
    lua_gc(L, LUA_GCGEN, 0, 0);
#else
    (void)L;
#endif
}

static int count_arguments(lua_State *L)
{
#if LUA_VERSION_NUM >= 502
    return (int)luaL_len(L, -1);
#else
    return (int)lua_objlen(L, -1);
#endif
}

/* ---- the end --------------------------------------------------------------------------------------- */

static void note_figures(void)
{
    if (run.has_figures)
        return;
    zlua_take_figures(&run.figures, run.account);
    run.has_figures = true;
}

/* The last thing that the process does, however it ends. */
static void report(void)
{
    if (getpid() != run.pid)
        return;
    note_figures();
    fflush(stdout);
    if (run.options.json)
        zlua_write_json(&run.options, &run.figures, run.status);
    if (run.options.stats)
        zlua_show_figures(&run.figures);
    zaccount_free(run.account); /* unless the state is still there */
}

static void close_state(void)
{
    if (run.is_closing)
        return;
    run.is_closing = true;
    lua_close(run.L);
}

/* os.exit(), which here leaves a note of the status, and closes what the program has pending. */
static int exit_process(lua_State *L)
{
    int status;
    if (lua_isboolean(L, 1))
        status = lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE;
    else
        status = (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    const int close = lua_toboolean(L, 2);
    run.status = status & 0xff; /* what the system lets through */
    note_figures();
    if (close && !run.is_closing)
        close_thread(run.co, NULL); /* this function's own stack may be gone now */
    if (close)
        close_state();
    exit(status);
}

/* ---- the main coroutine ---------------------------------------------------------------------------- */

static int running(lua_State *L)
{
    const int is_main = L == run.co || L == run.L;
#if LUA_VERSION_NUM >= 502
    lua_pushthread(L);
    lua_pushboolean(L, is_main);
    return 2;
#else
    if (is_main)
        lua_pushnil(L);
    else
        lua_pushthread(L);
    return 1;
#endif
}

#if LUA_VERSION_NUM >= 502 || IS_LUAJIT
static int yield(lua_State *L)
{
    if (L != run.co)
        return lua_yield(L, lua_gettop(L));
#if IS_LUAJIT
    return luaL_error(L, NO_YIELD); /* which says where */
#else
    lua_pushliteral(L, NO_YIELD);
    return lua_error(L);
#endif
}
#endif

#if IS_LUAJIT
static int is_yieldable(lua_State *L)
{
    lua_pushboolean(L, L != run.co && lua_isyieldable(L));
    return 1;
}
#endif

#if LUA_VERSION_NUM >= 505
static lua_CFunction close_coroutine;

/* A coroutine may close itself, the main thread may not. */
static int close_other(lua_State *L)
{
    lua_State *co = lua_isnone(L, 1) ? L : lua_tothread(L, 1);
    if (co == run.co && L == run.co)
        return luaL_error(L, "cannot close main thread");
    return close_coroutine(L);
}
#endif

/* The table of functions is at the top. */
static void disguise(lua_State *L)
{
    lua_pushcfunction(L, running);
    lua_setfield(L, -2, "running");
#if LUA_VERSION_NUM >= 502 || IS_LUAJIT
    lua_pushcfunction(L, yield);
    lua_setfield(L, -2, "yield");
#endif
#if IS_LUAJIT
    lua_pushcfunction(L, is_yieldable);
    lua_setfield(L, -2, "isyieldable");
#endif
#if LUA_VERSION_NUM >= 505
    lua_getfield(L, -1, "close");
    close_coroutine = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    lua_pushcfunction(L, close_other);
    lua_setfield(L, -2, "close");
#endif
}

/* ---- the program ------------------------------------------------------------------------------------- */

/* LUA_INIT_5_4 goes before LUA_INIT. Returns whether there is one, loaded. */
static bool load_init(lua_State *co, int *failed)
{
    char name[] = "=LUA_INIT_5_0";
    name[sizeof name - 2] = (char)('0' + LUA_VERSION_NUM % 100);
    const char *init = LUA_VERSION_NUM >= 502 ? getenv(name + 1) : NULL;
    if (!init) {
        name[sizeof "=LUA_INIT" - 1] = '\0';
        init = getenv(name + 1);
    }
    if (!init)
        return false;
    *failed = *init == '@' ? luaL_loadfile(co, init + 1) : luaL_loadbuffer(co, init, strlen(init), name);
    return true;
}

static int load_script(lua_State *co)
{
    char **word = run.options.argv + run.options.script;
    const bool is_stdin = strcmp(*word, "-") == 0 && strcmp(word[-1], "--") != 0;
    return luaL_loadfile(co, is_stdin ? NULL : *word);
}

/* From the table `arg`, which the program may have changed by now. */
static void push_arguments(lua_State *co)
{
    lua_getglobal(co, "arg");
    if (!lua_istable(co, -1))
        luaL_error(co, "'arg' is not a table");
    const int table = lua_gettop(co), count = count_arguments(co);
    luaL_checkstack(co, count + 3, "too many arguments to script");
    for (int i = 1; i <= count; i++)
        lua_rawgeti(co, table, i);
    lua_remove(co, table);
}

/* The level below a chunk that lua.c has, too. It cannot be yielded from, being in a C function's call. */
static int call_chunk(lua_State *co)
{
    lua_call(co, lua_gettop(co) - 1, 0);
    return 0;
}

/* Pushes what is to be called next, with its arguments: LUA_INIT, each -e, the script. Nothing: that was all. */
static int load_next(lua_State *co)
{
    int failed = LUA_OK;
    const int step = run.step++, codes = run.options.code_count;
    if (!IS_LUAJIT)
        lua_pushcfunction(co, call_chunk);
    if (step == 0 && !load_init(co, &failed)) {
        lua_settop(co, 0);
        return load_next(co);
    }
    if (step > 0 && step <= codes) {
        const char *code = run.options.code[step - 1];
        failed = luaL_loadbuffer(co, code, strlen(code), "=(command line)");
    } else if (step > 0) {
        if (step > codes + 1 || !run.options.script)
            return 0;
        failed = load_script(co);
    }
    if (failed)
        return lua_error(co);
    if (step > codes)
        push_arguments(co);
    return lua_gettop(co);
}

/* Runs it all, up to an error. load_next is at the bottom of the thread's stack. */
static int run_program(lua_State *L, lua_State *co)
{
    for (;;) {
        lua_settop(co, 1);
        lua_pushvalue(co, 1);
        run.is_loading = true;
        int status = resume(co, L, 0);
        run.is_loading = false;
        if (status == LUA_OK && lua_gettop(co) == 1)
            return LUA_OK;
        if (status == LUA_OK)
            status = resume(co, L, lua_gettop(co) - 2);
        else
            run.is_loading = true;
        if (status != LUA_OK)
            return status;
    }
}

/* ---- an error ---------------------------------------------------------------------------------------- */

/* What is shown of an error object. */
struct message {
    char *text;    /* malloc-ed; NULL: there was no memory for it */
    bool is_whole; /* as the program wants it, without a traceback */
};

/* The error object is at the top of the program's thread. Asks its __tostring. */
static int ask_object(lua_State *L)
{
    struct message *m = lua_touserdata(L, 1);
    lua_pushvalue(run.co, -1);
    lua_xmove(run.co, L, 1);
    if (luaL_callmeta(L, 2, "__tostring") && lua_type(L, -1) == LUA_TSTRING) {
        m->text = strdup(lua_tostring(L, -1));
        m->is_whole = true;
    }
    return 0;
}

static void describe_number(char *out, size_t room, lua_State *co)
{
#if LUA_VERSION_NUM >= 503
    if (lua_isinteger(co, -1)) {
        snprintf(out, room, LUA_INTEGER_FMT, (LUAI_UACINT)lua_tointeger(co, -1));
        return;
    }
#endif
    snprintf(out, room, LUA_NUMBER_FMT, lua_tonumber(co, -1));
    if (LUA_VERSION_NUM >= 503 && out[strspn(out, "-0123456789")] == '\0')
        strncat(out, ".0", room - strlen(out) - 1);
}

static void describe_error(struct message *m, int status)
{
    lua_State *co = run.co;
    char text[80];
    *m = (struct message){NULL, run.is_loading};
    if (status == LUA_YIELD) { /* by a C function, on LuaJIT */
        m->text = strdup(NO_YIELD);
        return;
    }
    if (lua_type(co, -1) == LUA_TSTRING) {
        m->text = strdup(lua_tostring(co, -1));
        return;
    }
    if (lua_type(co, -1) == LUA_TNUMBER) {
        describe_number(text, sizeof text, co);
    } else {
        zcompat_call_c(run.L, ask_object, m);
        if (m->text)
            return;
        snprintf(text, sizeof text, "(error object is a %s value)", luaL_typename(co, -1));
    }
    m->text = strdup(text);
}

static void add_traceback(struct message *m)
{
    char *text = NULL;
    size_t length;
    FILE *out = m->is_whole || !m->text ? NULL : open_memstream(&text, &length);
    if (!out)
        return;
    fprintf(out, "%s\n", m->text);
    zlua_trace(out, run.L, run.co);
    if (fclose(out) != 0)
        return;
    free(m->text);
    m->text = text;
}

/* Lua's error for want of memory, as itself or in the words of whoever passed it on. */
static bool is_memory_error(int status)
{
    const char *text = lua_type(run.co, -1) == LUA_TSTRING ? lua_tostring(run.co, -1) : "";
    return status == LUA_ERRMEM || strstr(text, "not enough memory");
}

static bool is_limit_hit(void)
{
    return run.figures.of.limit_hit && run.figures.of.limit != ZACCOUNT_UNLIMITED;
}

/* Pending __close metamethods get the error; one that fails puts its own in the place, of which there is no
 * stack any more. */
static void close_program(struct message *m)
{
    lua_State *co = run.co, *L = run.L;
    lua_pushvalue(co, -1);
    lua_xmove(co, L, 1);
    if (close_thread(co, L) != LUA_OK) {
        lua_pushvalue(co, -1);
        lua_xmove(co, L, 1);
        if (!lua_rawequal(L, -1, -2)) {
            free(m->text);
            describe_error(m, LUA_OK);
        }
    }
    lua_settop(L, 1);
}

/* The program has ended in an error, which is at the top of its thread. */
static void tell_error(int status)
{
    struct message m;
    note_figures();
    const bool by_limit = is_memory_error(status) && is_limit_hit();
    zlua_find_place(&run.figures.place, run.co);
    if (!by_limit)
        run.figures.place.line = 0;
    run.status = by_limit ? STATUS_LIMIT : EXIT_FAILURE;
    describe_error(&m, status);
    add_traceback(&m);
    close_program(&m);
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", run.options.name, m.text ? m.text : "not enough memory");
    if (by_limit)
        zlua_tell_death(&run.figures);
    free(m.text);
}

/* ---- interrupts ------------------------------------------------------------------------------------ */

static void set_handler(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

static void stop(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "interrupted!");
}

/* Has the program stop at its next instruction; a second one kills the process. */
static void on_interrupt(int signal)
{
    (void)signal;
    set_handler(SIG_DFL);
    lua_sethook(run.co, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* ---- the state --------------------------------------------------------------------------------------- */

/* arg[0] is the script, what comes before it has negative indices. */
static void set_arg(lua_State *L)
{
    const struct zlua_options *o = &run.options;
    lua_createtable(L, o->argc - o->script - 1, o->script + 1);
    for (int i = 0; i < o->argc; i++) {
        lua_pushstring(L, o->argv[i]);
        lua_rawseti(L, -2, i - o->script);
    }
    lua_setglobal(L, "arg");
}

static void set_field(lua_State *L, const char *table, const char *name, lua_CFunction f)
{
    lua_getglobal(L, table);
    lua_pushcfunction(L, f);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

static int prepare(lua_State *L)
{
    lua_gc(L, LUA_GCSTOP, 0); /* while what is made is needed anyway */
    luaL_openlibs(L);
    set_field(L, "os", "exit", exit_process);
    lua_getglobal(L, "coroutine");
    disguise(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_zmalloc);
    lua_setfield(L, -2, "zmalloc");
    set_arg(L);
    lua_gc(L, LUA_GCRESTART, 0);
    set_generational(L);
    run.co = lua_newthread(L);
    lua_pushcfunction(run.co, load_next);
    zcompat_set(L, &run);
    return 0;
}

/* Caps the account, for good. */
static int set_cap(lua_State *L)
{
    const struct zlua_options *o = &run.options;
    if (o->limit == ZACCOUNT_UNLIMITED)
        return 0;
    zmalloc_lua_pace(L);
    lua_gc(L, LUA_GCCOLLECT, 0);
    const size_t least = zaccount_used(run.account) + ROOM;
    if (o->limit < least)
        return zlua_complain(o, "%s is too small to run Lua in: at least %zu bytes", o->limit_name, least);
    zaccount_reset_peak(run.account);
    zaccount_set_limit(run.account, o->limit, o->reserve);
    zaccount_seal(run.account);
    zmalloc_lua_pace(L);
    return 0;
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", run.options.name, what);
    return EXIT_FAILURE;
}

static bool make_state(void)
{
    run.account = zaccount_new("zlua", NULL);
    if (!run.account)
        return false;
    zaccount_set_single(run.account);
    run.L = zmalloc_lua_newstate(run.account);
    if (!run.L || zcompat_call_c(run.L, prepare, NULL) != LUA_OK)
        return false;
    zcompat_get(run.L, &run); /* the main thread's stack keeps the coroutine, where no script gets at it */
    lua_pushnil(run.L);
    zcompat_set(run.L, &run);
    return true;
}

static int run_in_state(void)
{
    run.pid = getpid();
    run.status = -1;
    atexit(report);
    set_handler(on_interrupt);
    const int failed = run_program(run.L, run.co);
    set_handler(SIG_DFL);
    if (failed)
        tell_error(failed);
    else
        run.status = EXIT_SUCCESS;
    note_figures();
    close_state();
    return run.status;
}

int main(int argc, char **argv)
{
    int status;
    if (!zlua_read_options(&run.options, argc, argv, &status))
        return status;
    if (!make_state())
        return fail("cannot create a state: not enough memory");
    status = set_cap(run.L);
    return status ? status : run_in_state();
}
