/* zlua_trace.c - the stack of a thread that has ended in an error.
 *
 * luaL_traceback() builds a string in the state, which may be at its cap. This one reads, and writes to a
 * FILE. Invariant: nothing here takes memory of the state. */
#include "zlua_trace.h"
#include "zcompat.h"

#include <string.h>

/* ---- the names of functions ------------------------------------------------------------------------ */

struct search {
    FILE *out;
    lua_State *thread;
    lua_Debug *level;
    int found;
};

/* Writes the key at the top, behind the module's name where it is not "_G". */
static void write_name(struct search *s, lua_State *L, const char *module)
{
    const char *name = lua_tostring(L, -2);
    const int is_global = !module || strcmp(module, "_G") == 0;
    fprintf(s->out, "function '%s%s%s'", is_global ? "" : module, is_global ? "" : ".", name);
    s->found = 1;
}

/* Looks for the function at index 1 in the table at the top. */
static void search_table(struct search *s, lua_State *L, const char *module)
{
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            continue;
        if (lua_rawequal(L, -1, 1))
            write_name(s, L, module);
        else if (!module && lua_istable(L, -1))
            search_table(s, L, lua_tostring(L, -2));
        if (s->found) {
            lua_pop(L, 2);
            return;
        }
    }
}

/* The name by which a loaded module has the function, as users know it. Lua 5.1 and LuaJIT do not look for
 * one either. */
static int search_modules(lua_State *L)
{
    struct search *s = lua_touserdata(L, 1);
#if LUA_VERSION_NUM >= 502
    lua_settop(L, 0);
    lua_getinfo(L, "f", s->level);
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    if (lua_istable(L, 2))
        search_table(s, L, NULL);
#else
    (void)s, (void)search_table;
#endif
    return 0;
}

static void write_function(struct search *s, lua_State *L)
{
    const lua_Debug *level = s->level;
    s->found = 0;
    zcompat_call_c(L, search_modules, s);
    if (s->found)
        return;
    if (*level->namewhat)
        fprintf(s->out, "%s '%s'", level->namewhat, level->name);
    else if (*level->what == 'm')
        fputs("main chunk", s->out);
    else if (*level->what != 'C')
        fprintf(s->out, "function <%s:%d>", level->short_src, level->linedefined);
    else
        fputc('?', s->out);
}

/* ---- the levels ---------------------------------------------------------------------------------- */

static int has_level(lua_State *thread, int level)
{
    lua_Debug at;
    return lua_getstack(thread, level, &at);
}

/* How many there are: going to one takes time in proportion to its depth. */
static int count_levels(lua_State *thread)
{
    int some = 0, none = 1; /* the levels below `some` are there, `none` is not */
    while (has_level(thread, none)) {
        some = none;
        none *= 2;
    }
    while (some < none) {
        const int middle = some + (none - some) / 2;
        if (has_level(thread, middle))
            some = middle + 1;
        else
            none = middle;
    }
    return none;
}

static void write_level(struct search *s, lua_State *L)
{
    lua_Debug *level = s->level;
#if LUA_VERSION_NUM >= 502
    lua_getinfo(s->thread, "Slnt", level);
    const int is_tail = level->istailcall != 0;
#else
    lua_getinfo(s->thread, "Sln", level);
    const int is_tail = 0;
#endif
    fprintf(s->out, "\n\t%s:", level->short_src);
    if (level->currentline > 0)
        fprintf(s->out, "%d:", level->currentline);
    fputs(" in ", s->out);
    write_function(s, L);
    if (is_tail)
        fputs("\n\t(...tail calls...)", s->out);
}

void zlua_trace(FILE *out, lua_State *L, lua_State *thread)
{
    enum { FIRST = 10, LAST = 11 };
    lua_Debug level;
    struct search s = {out, thread, &level, 0};
    const int count = count_levels(thread);
    const int skipped = count > FIRST + LAST + 1 ? count - FIRST - LAST : 0;
    fputs("stack traceback:", out);
    for (int i = 0; lua_getstack(thread, i, &level); i++) {
        if (skipped && i == FIRST) {
            fprintf(out, "\n\t...\t(skipping %d levels)", skipped);
            i += skipped - 1;
            continue;
        }
        write_level(&s, L);
    }
}

/* ---- the place ----------------------------------------------------------------------------------- */

static void copy_end(char *to, size_t room, const char *text)
{
    const size_t length = strlen(text), skip = length < room ? 0 : length - room + 1;
    memcpy(to, text + skip, length - skip + 1);
}

void zlua_find_place(struct zlua_place *out, lua_State *thread)
{
    lua_Debug level;
    out->line = 0;
    for (int i = 0; lua_getstack(thread, i, &level); i++) {
        lua_getinfo(thread, "Sl", &level);
        if (level.currentline <= 0)
            continue;
        const int is_named = *level.source == '@' || *level.source == '=';
        copy_end(out->file, sizeof out->file, is_named ? level.source + 1 : level.short_src);
        out->line = level.currentline;
        return;
    }
}
