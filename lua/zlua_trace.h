/* zlua_trace.h - the stack of a thread that has ended in an error, without a byte of its state's memory. */
#ifndef ZLUA_TRACE_H
#define ZLUA_TRACE_H

#include <lua.h>
#include <stdio.h>

/* Where a Lua function is in its source. line 0: not known. */
struct zlua_place {
    char file[1024]; /* of a longer name the end */
    int line;
};

/* Writes the stack of `thread` as luaL_traceback() of Lua 5.4 does. L is another thread of the state. */
void zlua_trace(FILE *out, lua_State *L, lua_State *thread);

/* The innermost line of Lua that is running in the thread. */
void zlua_find_place(struct zlua_place *out, lua_State *thread);

#endif
