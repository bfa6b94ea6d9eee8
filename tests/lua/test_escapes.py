"""No way out of the cap of zlua: what a script can try is stopped.

Each tries to hold GOAL bytes and prints "got out" if it could. ZMALLOC_TEST_ESCAPES=all, as make
test-escapes sets it, tries them with each Lua, and without a cap: there each has to get out, or its
test could not fail.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import pytest
from python.confined import Ended, confined

from . import toolchain
from .zlua import built

EVERYTHING = os.environ.get("ZMALLOC_TEST_ESCAPES") == "all"
LUAS = toolchain.PACKAGES if EVERYTHING else ("lua5.4",)
MIB = 1 << 20
LIMIT, RESERVE, GOAL = 8 * MIB, MIB // 2, 48 * MIB
HARD = LIMIT + RESERVE
#: Resident memory beyond the cap: the allocator's own, and the report's.
ROOM = 8 * MIB
STOPPED, ENDED, FAILED = 53, 0, 1

PRELUDE = f"""
local GOAL, MIB = {GOAL}, {MIB}
local unpack = table.unpack or unpack
local load = loadstring or load
local zmalloc = require "zmalloc"
local function out() print("got out") end
local n = 0                                -- equal strings would be one
local function fill(goal)
  local kept, taken = {{}}, 0
  while taken < (goal or GOAL) do
    n = n + 1
    kept[#kept + 1] = string.rep("x", 1000) .. n
    taken = taken + 1000
  end
  return kept
end
local function each_gc(f)                  -- a finalizer, on any Lua
  if newproxy then
    local u = newproxy(true)
    getmetatable(u).__gc = f
    return u
  end
  return setmetatable({{}}, {{__gc = f}})
end
"""


class Attempt(NamedTuple):
    code: str
    ends: tuple[int, ...] = (STOPPED,)
    not_on: tuple[str, ...] = ()


CLOSE = "local x <close> = setmetatable({}, {__close = function() kept = fill() out() end})"
ATTEMPTS = {
    "raise or lift the limit": Attempt("""
        pcall(zmalloc.limit, "1 GiB") pcall(zmalloc.limit, nil)
        pcall(zmalloc.limit, "1 MiB", {reserve = "1 GiB"})
        pcall(zmalloc.limit, "1 GiB", {seal = true, reserve = "1 GiB"})
        pcall(zmalloc.limit, nil)
        local kept = fill() out()
    """),
    "a budget": Attempt("""
        local ok, err = zmalloc.budget("1 GiB", function() local kept = fill() out() end)
        if not ok then error(err, 0) end
    """),
    "another copy of the module": Attempt("""
        package.loaded.zmalloc = nil
        local ok, again = pcall(require, "zmalloc")
        if ok and type(again) == "table" then
          pcall(again.limit, nil) pcall(again.limit, "1 GiB")
        end
        local kept = fill() out()
    """),
    "the registry": Attempt("""
        local r = debug.getregistry()
        for k, v in pairs(r) do
          if type(v) == "userdata" then
            local m = debug.getmetatable(v)
            if m and m.__gc then pcall(m.__gc, v) m.__gc = nil end
            r[k] = nil
          end
        end
        collectgarbage()
        local kept = fill() out()
    """),
    "upvalues of the module": Attempt("""
        for _, f in pairs(zmalloc) do
          if type(f) == "function" then
            for i = 1, 10 do
              if not debug.getupvalue(f, i) then break end
              pcall(debug.setupvalue, f, i, nil)
            end
          end
        end
        pcall(zmalloc.limit, nil)
        local kept = fill() out()
    """),
    "the collector stopped": Attempt("""
        collectgarbage("stop") collectgarbage("setpause", 1000)
        local kept = fill() out()
    """),
    "swallow every error": Attempt("""
        local kept, errors = {}, 0
        while errors < 300 and #kept < GOAL / 10000 do
          if not pcall(function() kept[#kept + 1] = string.rep("x", 10000) .. #kept end) then
            errors = errors + 1
          end
        end
        if errors == 0 then out() end
    """, (ENDED, STOPPED)),
    "a message handler that takes": Attempt("""
        xpcall(error, function() kept = fill() out() end)
        kept = fill() out()
    """),
    "coroutines": Attempt("""
        local all = {}
        for i = 1, GOAL / 100000 do
          local co = coroutine.create(function()
            local mine = fill(100000)
            coroutine.yield()
            return #mine
          end)
          assert(coroutine.resume(co))
          all[i] = co
        end
        out()
    """, (STOPPED, FAILED)),
    "stacks of coroutines": Attempt("""
        local all = {}
        local function deep(n) if n == 0 then coroutine.yield() else deep(n - 1) end return n end
        for i = 1, GOAL / 16000 do
          local co = coroutine.create(deep)
          assert(coroutine.resume(co, 150))
          all[i] = co
        end
        out()
    """, (STOPPED, FAILED)),
    "deep recursion": Attempt("""
        local all = {}
        local function deep(n)
          local mine = string.rep("x", 1000) .. n
          if n > 0 then return #mine + deep(n - 1) end
          return 0
        end
        local co = {}
        for i = 1, GOAL / MIB * 4 do
          co[i] = coroutine.wrap(function()
            local function down(n) local s = string.rep("x", 5000) .. n .. i
              if n > 0 then return #s + down(n - 1) end coroutine.yield() return 0 end
            down(60)
          end)
          co[i]()
        end
        out()
    """),
    "a string buffer": Attempt("""
        local t = {}
        for i = 1, 1000 do t[i] = string.rep("x", 1000) end
        local s = string.rep(table.concat(t), 50) out()
    """),
    "string.rep": Attempt('local s = string.rep("x", GOAL) out()'),
    "string.format and gsub": Attempt("""
        local s = string.rep("x", MIB)
        s = s:gsub("x", string.rep("y", 48)) out()
    """),
    "string buffers at once": Attempt("""
        local all = {}
        for i = 1, 50 do
          all[i] = coroutine.wrap(function()
            return string.gsub(string.rep("x", MIB) .. i, "x$", function() coroutine.yield() end)
          end)
          pcall(all[i])
        end
        kept = fill() out()
    """),
    "a table": Attempt("local t = {} for i = 1, GOAL / 8 do t[i] = i end out()"),
    "upvalues": Attempt("""
        local all = {}
        for i = 1, GOAL / 40 do local x = i all[i] = function() return x end end
        out()
    """),
    "code": Attempt("""
        local all, part = {}, {}
        for i = 1, 200 do part[i] = "local v" .. i .. " = '" .. string.rep("x", 100) .. "'" end
        local text = table.concat(part, "\\n", 1, 190)
        for i = 1, GOAL / 20000 do all[i] = assert(load(text .. "--" .. i)) end
        out()
    """, (STOPPED, FAILED)),
    "what io reads": Attempt("""
        local f = io.open("/dev/zero", "rb")
        local s = f:read(GOAL) out()
    """),
    "__gc that takes": Attempt("""
        local all = {}
        for i = 1, GOAL / 20000 do
          each_gc(function() all[#all + 1] = string.rep("x", 20000) .. i end)
          if i % 50 == 0 then collectgarbage() end
        end
        collectgarbage() collectgarbage()
        kept = fill(GOAL / 2) out()
    """),
    "__gc at close": Attempt("""
        keep = each_gc(function() kept = fill() out() end)
        keep2 = each_gc(function() pcall(zmalloc.limit, nil) kept2 = fill() out() end)
    """, (ENDED, STOPPED)),
    "__gc at close, after an error": Attempt("""
        keep = each_gc(function() kept = fill() out() end)
        error("x")
    """, (FAILED, STOPPED)),
    "__close": Attempt(f"do {CLOSE} end", not_on=("lua5.1", "lua5.2", "lua5.3", "luajit")),
    "os.exit that closes": Attempt("""
        keep = each_gc(function() kept = fill() out() end)
        os.exit(0, true)
    """, (ENDED, STOPPED), not_on=("lua5.1",)),
    "an error with last words": Attempt("""
        error(setmetatable({}, {__tostring = function() kept = fill() out() return "x" end}))
    """, (FAILED, STOPPED)),
    "hooks": Attempt("""
        if jit then jit.off() end
        local all = {}
        debug.sethook(function() all[#all + 1] = string.rep("x", 10000) .. #all end, "", 100)
        local n = 0
        for i = 1, 4e6 do n = n + i % 7 if #all > GOAL / 10000 then break end end
        debug.sethook()
        if #all >= GOAL / 10000 then out() end
    """, (STOPPED, FAILED)),
    "weak tables": Attempt("""
        local t = setmetatable({}, {__mode = "k"})
        local last
        for i = 1, GOAL / 1000 do
          local k = {last}
          t[k] = {k, string.rep("x", 1000) .. i}
          last = k
        end
        out()
    """),
    "the module's functions exchanged": Attempt("""
        for k in pairs(zmalloc) do zmalloc[k] = function() return nil end end
        _G.pcall, _G.collectgarbage = print, function() return 0 end
        local kept = fill() out()
    """),
}


def zrun(lua: str, *options: str | Path, code: str, folder: Path) -> Ended:
    script = folder / "script.lua"
    script.write_text(PRELUDE + code)
    return confined([built(lua), *options, script])


def possible(name: str, lua: str) -> Attempt:
    attempt = ATTEMPTS[name]
    if lua in attempt.not_on:
        pytest.skip("not on this version")
    return attempt


@pytest.mark.parametrize("lua", LUAS)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_script_does_not_get_past_its_cap(name: str, lua: str, tmp_path: Path) -> None:
    attempt, report = possible(name, lua), tmp_path / "report.json"
    seen = zrun(lua, "--limit", str(LIMIT), "--json", report, code=attempt.code, folder=tmp_path)
    assert "got out" not in seen.out, seen
    assert seen.status in attempt.ends, seen
    assert seen.resident <= HARD + ROOM, (seen.resident / MIB, seen)
    stats = json.loads(report.read_text())["stats"]
    assert stats["peak"] <= stats["hard_limit"] <= HARD, stats
    if seen.status == STOPPED:  # the report is of before the state is closed
        assert stats["limit_hit"], stats


@pytest.mark.skipif(not EVERYTHING, reason="ZMALLOC_TEST_ESCAPES=all")
@pytest.mark.parametrize("lua", LUAS)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_without_a_cap_it_would(name: str, lua: str, tmp_path: Path) -> None:
    seen = zrun(lua, code=possible(name, lua).code, folder=tmp_path)
    assert "got out" in seen.out, seen
    assert seen.resident > HARD + ROOM, seen
