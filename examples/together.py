"""Python and Lua in one process, counted by one library.

    make lua && python examples/together.py [folder of Lua's zmalloc.so]

Loads Lua 5.4 by ctypes, as any binding would, and makes a state on the allocator that
zmalloc.lua_allocator() returns. Lua's `require "zmalloc"` then counts into the same total.
"""

import ctypes
import sys
from ctypes import c_char_p, c_longlong, c_void_p
from pathlib import Path

import zmalloc

BUILT = Path(__file__).resolve().parent.parent / "build" / "lua5.4"


def load_lua():
    for name in ("liblua5.4.so.0", "liblua5.4.so", "liblua.so.5.4"):
        try:  # global, because Lua's C modules look for Lua's functions there
            return ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    sys.exit("error: no liblua5.4 here. On Debian and Ubuntu: apt-get install liblua5.4-0")


lua = load_lua()
lua.lua_newstate.restype = c_void_p
lua.lua_newstate.argtypes = [c_void_p, c_void_p]
lua.lua_tointegerx.restype = c_longlong
lua.lua_tolstring.restype = c_char_p


class Lua:
    """A state that counts into an account of its own."""

    def __init__(self, name):
        alloc, ud, self.account = zmalloc.lua_allocator(name)
        # The argument of all calls, made once: then a call allocates nothing in Python.
        self.state = c_void_p.from_param(lua.lua_newstate(alloc, ud))
        lua.luaL_openlibs(self.state)

    def load(self, code):
        """Compile Lua code; call() then runs it."""
        lua.lua_settop(self.state, 0)
        self.check(lua.luaL_loadstring(self.state, code.encode()))

    def call(self, results=0):
        self.check(lua.lua_pcallk(self.state, 0, results, 0, None, None))

    def check(self, status):
        if status != 0:
            raise RuntimeError(lua.lua_tolstring(self.state, -1, None).decode())

    def run(self, code):
        self.load(code)
        self.call()

    def result(self):
        """The integer that call(1) has left."""
        return lua.lua_tointegerx(self.state, -1, None)

    def close(self):
        lua.lua_close(self.state)


def show(what, account):
    figures = zmalloc.stats()
    print(f"{what:<40}{figures.total:>12,}{figures.used:>12,}{account.used:>12,}")


def compare(state, folder):
    """total() in both languages, side by side."""
    path = f"{folder}/?.so;"
    try:
        state.run(f"package.cpath = [[{path}]] .. package.cpath; zmalloc = require 'zmalloc'")
    except RuntimeError as error:
        print(f"no module zmalloc for Lua, which `make lua` builds: {str(error).splitlines()[0]}")
        return
    state.load("return zmalloc.total()")
    state.call(1)
    in_python, in_lua = zmalloc.total(), state.result()
    print(f"total() in Lua {in_lua:,}, in Python {in_python:,}")


def run_away(state):
    """A script that takes all it can get, under a cap."""
    state.account.limit("4 MiB")
    try:
        state.run("local list = {} for i = 1, 1e9 do list[i] = {i} end")
    except RuntimeError as error:
        print(f"a Lua runaway under 4 MiB: {error}")
    refused = state.account.last_refused
    print(f"its peak: {state.account.peak:,} bytes; the last request refused: {refused:,} bytes")
    state.run("collectgarbage()")
    print(f"Python goes on: sum(range(1000)) = {sum(range(1000))}")


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else BUILT
    state = Lua("plugin")
    print(f"{'':<40}{'total()':>12}{'Python':>12}{'Lua':>12}")
    show("a Lua state with all libraries", state.account)
    state.run("numbers = {} for i = 1, 100000 do numbers[i] = i end")
    show("100,000 numbers in a Lua table", state.account)
    numbers = [float(i) for i in range(100_000)]
    show("100,000 numbers in a Python list, too", state.account)
    del numbers
    state.run("numbers = nil collectgarbage()")
    show("both gone", state.account)
    compare(state, folder)
    run_away(state)
    show("after the runaway", state.account)
    state.close()
    show("the state closed", state.account)


if __name__ == "__main__":
    main()
