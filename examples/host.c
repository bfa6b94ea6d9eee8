/* host.c - a C program with Python and Lua inside, one core, and one tree of accounts.
 *
 *     make example-host && build/example-host/host [PYTHON]
 *
 * PYTHON is the interpreter, a virtual environment's for example, on whose sys.path the package zmalloc
 * is. Its C part is built into this program and counts from before Py_Initialize() on. */
#include <zmalloc_embed.h> /* includes Python.h, which wants to be first */

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <zmalloc.h>
#include <zmalloc_lua.h>

int luaopen_zmalloc(lua_State *L);

static void line(int depth, const char *name, size_t used, size_t peak, size_t limit)
{
    printf("%*s%-*s %11zu %11zu ", depth * 2, "", 24 - depth * 2, name, used, peak);
    if (limit == ZACCOUNT_UNLIMITED)
        printf("%11s\n", "none");
    else
        printf("%11zu\n", limit);
}

static void account_line(int depth, const zaccount *a)
{
    struct zaccount_figures f;
    zaccount_stats(a, &f);
    line(depth, zaccount_name(a), f.used, f.peak, f.limit);
}

static void print_tree(const char *title, zaccount *group, zaccount *const *plugins, int n)
{
    printf("\n%-24s %11s %11s %11s\n", title, "used", "peak", "limit");
    account_line(1, zmalloc_py_account());
    account_line(1, group);
    for (int i = 0; i < n; i++)
        account_line(2, plugins[i]);
    account_line(1, zmalloc_account());
    printf("%-24s %11zu\n", "total", zmalloc_total());
}

/* ---- Python ------------------------------------------------------------------------------------ */

static int start_python(const char *program)
{
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyStatus status = program ? PyConfig_SetBytesString(&config, &config.program_name, program)
                              : PyStatus_Ok();
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        fprintf(stderr, "Python does not start: %s\n", status.err_msg);
    return PyStatus_Exception(status) ? -1 : 0;
}

/* zmalloc.NAME() as Python sees it; 0 after an error, which is printed. */
static size_t ask_python(const char *name)
{
    PyObject *module = PyImport_ImportModule("zmalloc");
    PyObject *function = module ? PyObject_GetAttrString(module, name) : NULL;
    PyObject *result = function ? PyObject_CallNoArgs(function) : NULL;
    const size_t n = result ? PyLong_AsSize_t(result) : 0;
    if (PyErr_Occurred())
        PyErr_Print();
    Py_XDECREF(result);
    Py_XDECREF(function);
    Py_XDECREF(module);
    return n;
}

/* ---- Lua --------------------------------------------------------------------------------------- */

static lua_State *open_lua(zaccount *account)
{
    lua_State *L = zmalloc_lua_newstate(account);
    if (!L)
        return NULL;
    luaL_openlibs(L);
    luaL_requiref(L, "zmalloc", luaopen_zmalloc, 0);
    lua_settop(L, 0);
    return L;
}

static void run_lua(lua_State *L, const char *name, const char *code)
{
    if (luaL_dostring(L, code) == LUA_OK)
        printf("%-24s ended by itself\n", name);
    else
        printf("%-24s stopped: %s\n", name, lua_tostring(L, -1));
    lua_settop(L, 0);
}

/* What a stopped script leaves is garbage, and fills the budget of all until it is collected. */
static void tidy_lua(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
}

/* zmalloc.total() as Lua sees it. */
static size_t ask_lua(lua_State *L)
{
    size_t n = 0;
    if (luaL_dostring(L, "return require('zmalloc').total()") == LUA_OK)
        n = (size_t)lua_tointeger(L, -1);
    else
        printf("Lua: %s\n", lua_tostring(L, -1));
    lua_settop(L, 0);
    return n;
}

static const char tame[] = "kept = {} for i = 1, 1000 do kept[i] = {i} end";
static const char wild[] = "local list = {} for i = 1, 1e9 do list[i] = {i} end";

static void compare(lua_State *L)
{
    const size_t python = ask_python("total"), by_python = zmalloc_total();
    const size_t lua = ask_lua(L), by_lua = zmalloc_total();
    printf("the total, as Python and C see it: %zu, %zu\n", python, by_python);
    printf("the total, as Lua and C see it:    %zu, %zu\n", lua, by_lua);
}

static int run(zaccount *group, zaccount **plugins)
{
    lua_State *a = open_lua(plugins[0]), *b = open_lua(plugins[1]);
    void *own = zmalloc(100000);
    if (!a || !b || PyRun_SimpleString("import zmalloc; table = list(range(100_000))") < 0)
        return -1;
    run_lua(a, "plugin 1", tame);
    run_lua(b, "plugin 2", wild);
    print_tree("while all run", group, plugins, 2);
    tidy_lua(b);
    compare(a);
    const int failed = PyRun_SimpleString("seen = zmalloc.audit()\n"
                                          "assert seen.used == seen.counted, seen\n");
    printf("Python's blocks, one by one:       %s\n", failed ? "differ from the counter" : "equal");
    zfree(own);
    lua_close(a);
    lua_close(b);
    return failed;
}

int main(int argc, char **argv)
{
    const int late = zmalloc_py_install(); /* where it cannot be: Python counts from its import on */
    if (start_python(argc > 1 ? argv[1] : NULL) < 0)
        return 1;
    printf("Python %d.%d, counted from %s on: %zu bytes for its start\n", PY_MAJOR_VERSION,
           PY_MINOR_VERSION, late ? "the import" : "before Py_Initialize", ask_python("used"));

    zaccount *group = zaccount_new("plugins", NULL); /* a budget that all Lua states share */
    zaccount *plugins[] = {zaccount_new("plugin 1", group), zaccount_new("plugin 2", group)};
    if (!group || !plugins[0] || !plugins[1])
        return 1;
    zaccount_set_limit(group, 4 << 20, 128 << 10);

    const int failed = run(group, plugins);
    const int dirty = Py_FinalizeEx();
    print_tree("when all have ended", group, plugins, 2);
    return failed || dirty || zaccount_free(plugins[0]) || zaccount_free(plugins[1]) || zaccount_free(group);
}
