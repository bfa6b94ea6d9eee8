"""Lua 5.4 by ctypes: as much of its C API as the tests need.

The library is loaded as any binding would load it; calls into it run without the GIL.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_double, c_int, c_longlong, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import zmalloc

TESTS = Path(__file__).resolve().parent.parent

NAMES = ("liblua5.4.so.0", "liblua5.4.so", "liblua.so.5.4")
REGISTRY = -1_000_000 - 1000
OK, ERRRUN, ERRMEM = 0, 2, 4

#: name: (result, arguments)
FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "lua_newstate": (c_void_p, [c_void_p, c_void_p]),
    "luaL_newstate": (c_void_p, []),
    "luaL_openlibs": (None, [c_void_p]),
    "lua_close": (None, [c_void_p]),
    "lua_getallocf": (c_void_p, [c_void_p, POINTER(c_void_p)]),
    "luaL_loadstring": (c_int, [c_void_p, c_char_p]),
    "lua_pcallk": (c_int, [c_void_p, c_int, c_int, c_int, c_longlong, c_void_p]),
    "lua_getglobal": (c_int, [c_void_p, c_char_p]),
    "lua_pushinteger": (None, [c_void_p, c_longlong]),
    "lua_pushnil": (None, [c_void_p]),
    "lua_gettop": (c_int, [c_void_p]),
    "lua_settop": (None, [c_void_p, c_int]),
    "lua_type": (c_int, [c_void_p, c_int]),
    "lua_isinteger": (c_int, [c_void_p, c_int]),
    "lua_tointegerx": (c_longlong, [c_void_p, c_int, c_void_p]),
    "lua_tonumberx": (c_double, [c_void_p, c_int, c_void_p]),
    "lua_toboolean": (c_int, [c_void_p, c_int]),
    "lua_tolstring": (c_void_p, [c_void_p, c_int, POINTER(c_size_t)]),
}

#: What a lua_Alloc is to ctypes.
ALLOC = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_size_t, c_size_t)


class LuaError(Exception):
    """What lua_pcall has returned: the status, and the error as text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@cache
def library() -> ctypes.CDLL:
    for name in NAMES:
        try:
            lua = ctypes.CDLL(name, ctypes.RTLD_GLOBAL)  # Lua's C modules look for its symbols
        except OSError:
            continue
        for function, (result, arguments) in FUNCTIONS.items():
            f = getattr(lua, function)
            f.restype, f.argtypes = result, arguments
        return lua
    raise OSError("no liblua5.4 on this machine: apt-get install liblua5.4-0")


class State:
    """A Lua state on an allocator, the stock one unless told."""

    def __init__(self, alloc: int | None = None, ud: int | None = None, libs: bool = True) -> None:
        self.lua = library()
        self.L = self.lua.lua_newstate(alloc, ud) if alloc else self.lua.luaL_newstate()
        if not self.L:
            raise MemoryError("lua_newstate")
        if libs:
            self.lua.luaL_openlibs(self.L)

    def close(self) -> None:
        state, self.L = self.L, None
        if state:
            self.lua.lua_close(state)

    def run(self, code: str, *parts: object) -> list[object]:
        """Run Lua code; its results as Python values. `parts` replace %s, quoted as Lua strings."""
        if parts:
            code = code % tuple(f"[==[{part}]==]" for part in parts)
        lua, state = self.lua, self.L
        lua.lua_settop(state, 0)
        status = lua.luaL_loadstring(state, code.encode())
        return self._results(status if status != OK else self._pcall(0))

    def call(self, name: str, *arguments: int | None) -> list[object]:
        """Call a global function, which takes no more of the state's memory than it does itself."""
        lua, state = self.lua, self.L
        lua.lua_settop(state, 0)
        lua.lua_getglobal(state, name.encode())
        for value in arguments:
            if value is None:
                lua.lua_pushnil(state)
            else:
                lua.lua_pushinteger(state, value)
        return self._results(self._pcall(len(arguments)))

    def _pcall(self, arguments: int) -> int:
        status: int = self.lua.lua_pcallk(self.L, arguments, -1, 0, 0, None)
        return status

    def _results(self, status: int) -> list[object]:
        lua, state = self.lua, self.L
        values = [self._value(i) for i in range(1, lua.lua_gettop(state) + 1)]
        lua.lua_settop(state, 0)
        if status != OK:
            raise LuaError(status, str(values[-1]))
        return values

    def value(self, code: str, *parts: object) -> object:
        """The only result of Lua code."""
        [result] = self.run(code, *parts)
        return result

    def number(self, code: str, *parts: object) -> int:
        result = self.value(code, *parts)
        assert isinstance(result, int | float), result
        return int(result)

    def _value(self, i: int) -> object:
        lua, state = self.lua, self.L
        kind = lua.lua_type(state, i)
        if kind == 0:
            return None
        if kind == 1:
            return bool(lua.lua_toboolean(state, i))
        if kind == 3:
            whole = lua.lua_isinteger(state, i)
            return (lua.lua_tointegerx if whole else lua.lua_tonumberx)(state, i, None)
        if kind == 4:
            length = c_size_t()
            text = lua.lua_tolstring(state, i, ctypes.byref(length))
            return ctypes.string_at(text, length.value).decode("utf-8", "surrogateescape")
        return f"<type {kind}>"


@contextmanager
def state(alloc: int | None = None, ud: int | None = None, libs: bool = True) -> Iterator[State]:
    opened = State(alloc, ud, libs)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def counted(
    name: str = "Lua", parent: zmalloc.Account | None = None
) -> Iterator[tuple[State, zmalloc.Account]]:
    """A state on an account of its own, which is at nothing when the state is closed."""
    alloc, ud, account = zmalloc.lua_allocator(name, parent=parent)
    with state(alloc, ud) as opened:
        yield opened, account
    assert account.used == 0
