/* zpace.h - the parts of zmalloc_lua_pace(), for the module, which sets caps more often than a host. */
#ifndef ZPACE_H
#define ZPACE_H

#include <lua.h>

/* Sees to it that there is a pacer in the state: 0, or -1 with no memory. Raises nothing. Before a cap is
 * set, for the pacer takes some hundred bytes. */
int zpace_prepare(lua_State *L);

/* A cap has been set or taken away: has the pacer look at it. `lasting`: it is to stay for more than a
 * call. Nothing without a pacer. Takes no memory, raises nothing; needs four slots of the stack. */
void zpace_adjust(lua_State *L, int lasting);

#endif
