"""The module in processes of their own: loaded anywhere, left anyhow, below a host's cap.

What it does in one process is in module/, which test.lua and busted run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .zlua import built, every_lua, interpreter, run

#: Where a state is when it loads the module, and how it goes on.
PLACES = {
    "at the start": 'z = require "zmalloc"',
    "and nothing else": 'require "zmalloc"',
    "twice": """
        z = require "zmalloc"
        package.loaded.zmalloc = nil
        assert(require("zmalloc").used() == z.used())""",
    "with live coroutines": """
        local kept = coroutine.create(function() local t = {} coroutine.yield() return t end)
        coroutine.resume(kept)
        z = require "zmalloc"
        KEPT = kept
        ANOTHER = coroutine.wrap(function() coroutine.yield(z.used()) end)
        ANOTHER()""",
    "in a coroutine": """
        coroutine.wrap(function() z = require "zmalloc" coroutine.yield() end)()""",
    "in a gsub callback": """
        local text = ("a"):rep(20000) .. "b" .. ("a"):rep(20000)
        local result = text:gsub(".", function(c)
            if c == "b" then z = require "zmalloc" end
            return c .. c
        end)
        assert(#result == 2 * #text)""",
    "in a sort": """
        local t = {5, 3, 4, 1, 2}
        table.sort(t, function(a, b) z = z or require "zmalloc" return a < b end)
        assert(t[1] == 1 and t[5] == 5)""",
    "with the collector stopped": """
        collectgarbage("stop")
        z = require "zmalloc"
        for i = 1, 100 do KEPT = {i} end""",
    "in a protected call that fails": """
        assert(not pcall(function() z = require "zmalloc" error("x") end))""",
    "and under a limit at the end": """
        z = require "zmalloc"
        z.limit(z.used() + 100000, {seal = true, reserve = 0})
        KEPT = {} for i = 1, 100 do KEPT[i] = {i} end""",
    "and at the limit at the end": """
        if jit then jit.off() end
        z = require "zmalloc"
        z.limit(z.used() + 100000, {seal = true})
        KEPT = {}
        assert(not pcall(function() for i = 1, 1e7 do KEPT[i] = {i} end end))
        for i = 1, #KEPT, 2 do KEPT[i] = nil end -- room to go on
        collectgarbage()""",
    "and a million bytes of work": """
        z = require "zmalloc"
        KEPT = {}
        for i = 1, 3000 do KEPT[i % 700] = {tostring(i), function() return i end} end
        z.budget("1 MiB", function() KEPT[1] = ("x"):rep(5000) end)""",
}
WAYS = {
    "by the end of the script": "",
    "by os.exit": "os.exit(0)",
    "by os.exit that closes the state": "os.exit(0, true)",
}
#: It agrees with the collector, but where a string buffer was alive: its bytes are ours alone.
LOOK = """
z = z or package.loaded.zmalloc
for i = 1, 50 do GARBAGE = {{i}} end
if _VERSION ~= "Lua 5.5" and not ({...})[1] then
    assert(z.used() == collectgarbage("count") * 1024)
end
"""


def cpath(lua: str) -> dict[str, str]:
    return {"LUA_CPATH": str(built(lua, "zmalloc.so").parent / "?.so")}


def script(folder: Path, place: str, way: str) -> Path:
    path = folder / "script.lua"
    path.write_text(PLACES[place] + LOOK + WAYS[way], encoding="utf-8")
    return path


@every_lua
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_a_state_loads_it_and_ends(place: str, way: str, lua: str, tmp_path: Path) -> None:
    seen = run(interpreter(lua), script(tmp_path, place, way), env=cpath(lua))
    assert (seen.status, seen.out, seen.err) == (0, "", "")


@every_lua
@pytest.mark.parametrize("place", PLACES)
def test_valgrind_finds_nothing_of_ours(place: str, lua: str, tmp_path: Path) -> None:
    if not shutil.which("valgrind"):
        pytest.skip("no valgrind on this machine")
    if lua == "luajit":
        pytest.skip("valgrind does not know the heap of LuaJIT's own allocator")
    seen = run(
        "valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        interpreter(lua), script(tmp_path, place, "by the end of the script"), env=cpath(lua),
    )  # fmt: skip
    assert (seen.status, seen.err) == (0, "")


@every_lua
def test_a_finalizer_that_loads_it_is_told_why_it_cannot(lua: str, tmp_path: Path) -> None:
    path = tmp_path / "script.lua"
    path.write_text("""
        local said
        local function load() said = {pcall(require, "zmalloc")} end
        if _VERSION == "Lua 5.1" then getmetatable(newproxy(true)).__gc = load
        else setmetatable({}, {__gc = load}) end
        collectgarbage() collectgarbage()
        if said[1] then
            assert(said[2].used() == collectgarbage("count") * 1024)
        else
            assert(said[2]:find("outside of finalizers", 1, true), said[2])
        end
        assert(require("zmalloc").used() > 0)""", encoding="utf-8")  # fmt: skip
    seen = run(interpreter(lua), path, env=cpath(lua))
    assert (seen.status, seen.out, seen.err) == (0, "", "")


@every_lua
def test_a_hosts_limit_is_an_upper_bound(lua: str, tmp_path: Path) -> None:
    path = tmp_path / "script.lua"
    path.write_text("""
        if jit then jit.off() end
        local zmalloc = require "zmalloc"
        local LIMIT = 8 * 1024 * 1024
        assert(zmalloc.limit() == LIMIT, zmalloc.limit())
        assert(zmalloc.limit("64 MiB") == LIMIT)
        assert(zmalloc.limit(nil) == LIMIT)
        assert(zmalloc.limit("4 MiB") == LIMIT / 2)
        assert(zmalloc.limit(nil) == LIMIT)
        assert(select(2, zmalloc.budget("64 MiB", zmalloc.limit)) == LIMIT)
        local s = zmalloc.stats()
        local hard = s.hard_limit
        zmalloc.limit("8 MiB", {reserve = "8 MiB"})
        assert(zmalloc.stats().hard_limit == hard)
        local before = zmalloc.peak()
        local text = ("x"):rep(1000000)
        zmalloc.reset_peak()
        local ok, err = pcall(function()
            local live = {}
            for i = 1, 1e7 do live[i] = {i} end
        end)
        collectgarbage()
        assert(not ok and err == "not enough memory", err)
        assert(zmalloc.peak() <= hard)
        zmalloc.limit("2 MiB", {seal = true})
        assert(not pcall(zmalloc.limit, nil))
        io.write("bounded\\n")""", encoding="utf-8")  # fmt: skip
    seen = run(built(lua), "--limit", "8MiB", path, env=cpath(lua))
    assert (seen.out, seen.err) == ("bounded\n", "")


@every_lua
def test_two_builds_in_one_state_see_one_account(lua: str, tmp_path: Path) -> None:
    shutil.copy(built(lua, "zmalloc.so"), tmp_path / "second.so")
    path = tmp_path / "script.lua"
    path.write_text(f"""
        local first = require "zmalloc"
        local second = assert(package.loadlib("{tmp_path}/second.so", "luaopen_zmalloc"))()
        assert(first.used ~= second.used)
        local a, b = first.used(), second.used()
        assert(a == b and first.total() == second.total())
        assert(second.stats().core ~= first.stats().core)
        second.limit("32 MiB")
        assert(first.limit() == 32 * 1024 * 1024)
        assert(select(2, first.budget("1 MiB", second.limit)) < 2 * 1024 * 1024)
        for i = 1, 100000 do KEPT = {{i}} end
        first.limit(nil)
        assert(second.limit() == nil)
        collectgarbage()""", encoding="utf-8")  # fmt: skip
    seen = run(interpreter(lua), path, env=cpath(lua))
    assert (seen.status, seen.out, seen.err) == (0, "", "")
