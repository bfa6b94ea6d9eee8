"""zlua runs a script as lua does, and says why it was stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from .zlua import LIMIT_STATUS, built, environment, every_lua, interpreter, limit_line, run, zlua

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
#: lua tells one less than it leaves out.
SKIPPED = re.compile(r"skipping \d+ levels")

# What a script can see of where it runs, and how it ends.
SCRIPTS: dict[str, str | bytes] = {
    "arguments": "print(#arg, select('#', ...), ...)\nfor i = -1, #arg do print(i, arg[i] "
    "~= nil) end\n",
    "own arguments": "print(arg[0], arg[1], arg[2])",
    "error": "local function f() error('oh') end\nlocal function g() f() end\ng()\n",
    "error at level 0": "error('oh', 0)",
    "error of a library": "local t = {}\nstring.rep()\n",
    "error in a method": "local t = {}\nfunction t:m() error('x') end\nt:m()\n",
    "error in a field": "local t = {}\nfunction t.f() return 1 + nil end\nlocal x = t.f()\n",
    "a global function": "function grow() local x = nil .. 'x' end\ngrow()\n",
    "an upvalue": "local function f() error('x') end\nlocal function g() f() return 1 end\ng()\n",
    "tail calls": "local function f() error('x') end\nlocal function g() return f() end\ng()\n",
    "a metamethod": "local m = {__add = function() error('x') end}\n"
    "local t = setmetatable({}, m)\nlocal y = t + 1\n",
    "an iterator": "for k in function() error('x') end do end\n",
    "a callback": "table.sort({3, 2, 1}, function() error('x') end)\n",
    "a callback of gsub": "string.gsub('abc', '.', function() error('x') end)\n",
    "a coroutine": "local f = coroutine.wrap(function() error('inside') end)\nf()\n",
    "a resumed coroutine": "print(coroutine.resume(coroutine.create(function(...) "
    "print(...) coroutine.yield(1) end), 5))\nprint(coroutine.wrap(function() "
    "coroutine.yield(1, 2) end)())\n",
    "loaded text": "local f = load or loadstring\n(loadstring or load)('error(\"x\")', "
    "'=chunk')()\n",
    "an object": "error(setmetatable({}, {__tostring = function() return 'an object' end}))\n",
    "an object that fails": "error(setmetatable({}, {__tostring = function() return 1 end}))\n",
    "a table": "error({})",
    "nil": "error()",
    "a number": "error(42)",
    "a fraction": "error(4.5)",
    "a whole fraction": "error(-42.0)",
    "a function": "error(print)",
    "false": "error(false)",
    "a long number": "error(2^53)",
    "syntax": "x = = 1\n",
    "syntax at the end": "local function f()\n",
    "a shebang": "#!/usr/bin/lua\nprint('ran')\nerror('line 3')\n",
    "no newline at the end": "print(1)",
    "empty": "",
    "os.exit": "os.exit(3)",
    "os.exit true": "os.exit()",
    "os.exit 300": "os.exit(300)",
    "os.exit wrong": "os.exit({})",
    "top-level results": "return 1, 2, 3",
    "yield": "print(pcall(coroutine.yield, 1))\ncoroutine.yield()\n",
    "yield in a callback": "print(pcall(string.gsub, 'x', '.', coroutine.yield))\n",
    "is the main coroutine": "print((coroutine.running()) == nil, select(2, coroutine.running()))\n"
    "print(coroutine.wrap(function() return select(2, coroutine.running()) end)())\n",
    "is yieldable": "local f = coroutine.isyieldable\nprint(f and f())\n"
    "print(f and coroutine.wrap(f)())\n",
    "status": "local co = coroutine.running()\nprint(co and coroutine.status(co))\n"
    "print(co and coroutine.wrap(function() return coroutine.status(co) end)())\n",
    "resume of the main coroutine": "local co = coroutine.running()\n"
    "print(co and coroutine.resume(co))\n",
    "traceback": "local function f() print(debug.traceback('here')) end\nf()\n",
    "traceback of a coroutine": "local co = coroutine.create(function() coroutine.yield() end)\n"
    "coroutine.resume(co)\nprint(debug.traceback(co))\n",
    "levels": "local n = 0\nwhile debug.getinfo(n, 'S') do n = n + 1 end\nprint(n)\n",
    "deep recursion": "local function f() f() end\nlocal ok, e = pcall(f)\nprint(ok, #e > 10)\n",
    "a deep stack": "local function f(n) if n == 0 then error('deep') end f(n - 1) end\nf(100)\n",
    "a middling stack": "local function f(n) if n == 0 then error('deep') end f(n - 1) "
    "end\nf(18)\n",
    "21 levels": "local function f(n) if n == 0 then error('x', 0) end f(n - 1) end\nf(17)\n",
    "stack overflow": "local function f() return 1 + f() end\nf()\n",
    "xpcall": "print(xpcall(function() error('x') end, function(e) return 'handled ' .. e end))\n",
    "finalizers": "local u = newproxy and newproxy(true) or setmetatable({}, {__gc = function() "
    "print('gc') end})\nif newproxy then getmetatable(u).__gc = function() print('gc') end end\n"
    "keep = u\nprint('end')\n",
    "finalizers after an error": "keep = setmetatable({}, {__gc = function() print('gc') end})\n"
    "error('x')\n",
    "stdin": "print(io.read('*l'))\nprint(io.read('*a'))\n",
    "stderr and stdout": "io.write('out')\nio.stderr:write('err\\n')\nerror('x')\n",
    "globals": "local n = {}\nfor k in pairs(_G) do n[#n + 1] = k end\ntable.sort(n)\n"
    "print(table.concat(n, ' '))\n",
    "libraries": "local n = {}\nfor k, t in pairs(package.loaded) do\nfor f in pairs(t) do "
    "n[#n + 1] = k .. '.' .. tostring(f) end end\ntable.sort(n)\nprint(#n, table.concat(n, ' '))\n",
    "the collector's mode": "print(pcall(collectgarbage, 'incremental'))\n",
    "the collector runs": "local n = collectgarbage('count')\nfor i = 1, 1e5 do local t = {i} end\n"
    "print(collectgarbage('count') < n + 3000)\n",
    "hooks": "local n = 0\ndebug.sethook(function() n = n + 1 end, 'l')\nlocal x = 1\nx = 2\n"
    "debug.sethook()\nprint(n)\n",
}
NEEDS_54: dict[str, str] = {
    "close": "local x <close> = setmetatable({}, {__close = function(_, e) print('closed', "
    "e) end})\n"
    "print('body')\n",
    "close after an error": "local x <close> = setmetatable({}, {__close = function(_, e) "
    "print('closed', e ~= nil) end})\nerror('x')\n",
    "close and os.exit": "local x <close> = setmetatable({}, {__close = function(_, e) "
    "print('closed', e) end})\nkeep = setmetatable({}, {__gc = function() print('gc') end})\n"
    "os.exit(4, true)\n",
    "os.exit inside a coroutine": "local x <close> = setmetatable({}, {__close = function() "
    "print('closed') end})\ncoroutine.wrap(function() os.exit(false, true) end)()\n",
    "close of the main coroutine": "print(pcall(coroutine.close, (coroutine.running())))\n"
    "local co = coroutine.running()\n"
    "print(coroutine.wrap(function() return pcall(coroutine.close, co) end)())\n",
    "warnings": "warn('@on')\nwarn('one')\nsetmetatable({}, {__gc = function() error('in "
    "gc') end})\n"
    "collectgarbage()\n",
}


def compare(
    lua: str,
    folder: Path,
    *arguments: str,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
) -> None:
    """lua and zlua do the same; an error is shown as Lua 5.4 shows it, on each version."""
    program, stock = built(lua), interpreter(lua)
    expected = run(stock, *arguments, cwd=folder, stdin=stdin, env=env)
    seen = run(program, *arguments, cwd=folder, stdin=stdin, env=env)
    out = [ADDRESS.sub("0x", text) for text in (expected.out, seen.out)]
    err = [
        SKIPPED.sub("skipping", ADDRESS.sub("0x", text)).replace(name, "lua")
        for text, name in ((expected.err, stock), (seen.err, str(program)))
    ]
    assert seen.status == expected.status, seen.err
    if lua == "lua5.4":
        assert err[1] == err[0]
        assert out[1] == out[0]
    else:
        assert [line.split(":")[:2] for line in err[1].splitlines()[:1]] == [
            line.split(":")[:2] for line in err[0].splitlines()[:1]
        ]
        assert "traceback" in out[0] or out[1] == out[0]


@pytest.mark.parametrize("name", {**SCRIPTS, **NEEDS_54})
def test_a_script_runs_as_lua_runs_it(name: str, tmp_path: Path) -> None:
    source = {**SCRIPTS, **NEEDS_54}[name]
    (tmp_path / "script.lua").write_bytes(source if isinstance(source, bytes) else source.encode())
    compare("lua5.4", tmp_path, "script.lua", "a", "-b", "--limit", "", stdin=b"line\nrest\0\xff")


# Lua 5.1 and 5.2 show such objects in words of their own.
OWN_WORDS = {
    "a table",
    "nil",
    "a function",
    "false",
    "an object",
    "an object that fails",
    "a number",
    "a fraction",
    "a long number",
}
# LuaJIT's level below the main chunk is not there in zlua.
JIT_DIFFERS = {"levels"}


@pytest.mark.parametrize("lua", ["lua5.1", "lua5.2", "lua5.3", "luajit"])
def test_a_script_runs_as_the_lua_of_its_version_runs_it(lua: str, tmp_path: Path) -> None:
    built(lua)
    for name, source in SCRIPTS.items():
        if name in OWN_WORDS or (lua == "luajit" and name in JIT_DIFFERS):
            continue
        (tmp_path / "script.lua").write_bytes(
            source if isinstance(source, bytes) else source.encode()
        )
        try:
            compare(lua, tmp_path, "script.lua", "a", "b", stdin=b"line\nrest")
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize(
    "name",
    [
        "script.lua",
        "./script.lua",
        "sub/a b.lua",
        "missing.lua",
        "sub",
        "{cwd}/script.lua",
        "noext",
        "",
    ],
)
def test_a_scripts_name_is_taken_as_lua_takes_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for file in ("script.lua", "sub/a b.lua", "noext"):
        (tmp_path / file).write_text("print(arg[0], debug.getinfo(1, 'S').source)\nerror('x')\n")
    compare("lua5.4", tmp_path, name.format(cwd=tmp_path), "x")


@pytest.mark.parametrize(
    "words",
    [
        ("-e", "print(1)"),
        ("-eprint(2)",),
        ("-e", "x = 1", "-e", "print(x)"),
        ("-e", "error('x')"),
        ("-e", "x = ="),
        ("-e", "error('x')", "-e", "print('not run')"),
        ("-e", "x = 5", "script.lua", "a"),
        ("-e", "arg = nil", "script.lua"),
        ("-e", "arg = {'new'}", "script.lua", "old"),
        ("-e", "local function f() error('x') end f()"),
        ("-e", "print(...)"),
        ("-e", "print(arg[0] ~= nil, arg[1], #arg)"),
        ("--", "script.lua", "-e"),
        ("--", "-"),
    ],
)
def test_code_runs_as_lua_runs_it(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "script.lua").write_text("print(x, arg and arg[0], ...)")
    compare("lua5.4", tmp_path, *words)


@pytest.mark.parametrize(
    "source",
    [
        b"print(...)\nprint(arg[0], arg[1])\n",
        b"error('x')",
        b"x = =",
        b"",
        b"print(io.read('n'))\n",
        b"#!shebang\nprint(1)\n",
    ],
)
def test_a_script_from_stdin_runs_as_lua_runs_it(source: bytes, tmp_path: Path) -> None:
    compare("lua5.4", tmp_path, "-", "a", "b", stdin=source)


@pytest.mark.parametrize(
    "init",
    [
        "print('init')",
        "x = =",
        "error('x')",
        "@init.lua",
        "@none.lua",
        "local function f() error('x') end f()",
    ],
)
@pytest.mark.parametrize("name", ["LUA_INIT", "LUA_INIT_5_4"])
def test_lua_init_is_obeyed_as_lua_obeys_it(name: str, init: str, tmp_path: Path) -> None:
    (tmp_path / "init.lua").write_text("print('from a file')\nerror('line 2')\n")
    (tmp_path / "script.lua").write_text("print('script')")
    compare("lua5.4", tmp_path, "script.lua", env={name: init})


def test_the_initialisation_of_the_version_goes_first(tmp_path: Path) -> None:
    (tmp_path / "script.lua").write_text("print('script')")
    env = {"LUA_INIT": "print('any')", "LUA_INIT_5_4": "print('5.4')"}
    compare("lua5.4", tmp_path, "script.lua", env=env)
    for lua in ("lua5.1", "lua5.3", "luajit"):
        compare(lua, tmp_path, "script.lua", env=env)


def test_options_have_negative_indices_in_arg(tmp_path: Path) -> None:
    (tmp_path / "script.lua").write_text("for i = -3, #arg do print(i, arg[i]) end print(arg[-4])")
    seen = zlua("--limit", "1MiB", "script.lua", "a", cwd=tmp_path)
    program = built("lua5.4")
    assert seen.out.splitlines() == [
        f"-3\t{program}",
        "-2\t--limit",
        "-1\t1MiB",
        "0\tscript.lua",
        "1\ta",
        "nil",
    ]


def test_an_error_while_closing_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """Its own stack is gone: the message alone is shown."""
    (tmp_path / "s.lua").write_text(
        "local x <close> = setmetatable({}, {__close = function() "
        "error('second', 0) end})\nerror('first')\n"
    )
    seen = zlua("s.lua", cwd=tmp_path)
    assert seen.status == 1
    assert seen.err == f"{built('lua5.4')}: second\n"


# ---- the command itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is nothing to run"),
        (("--limit",), "--limit needs a value"),
        (("--limit", "5MiB"), "there is nothing to run"),
        (("--nosuch", "x.lua"), "unknown option --nosuch"),
        (("-x", "x.lua"), "unknown option -x"),
        (("-e",), "-e needs code"),
        (("--stats=yes", "x.lua"), "unknown option --stats"),
        (
            ("--limit", "12 parsecs", "x.lua"),
            "--limit='12 parsecs' is not a size: expected an integer of"
            ' bytes, or text such as "64 MiB", "1.5g", "300 kB" (1024-based) or "80%"',
        ),
        (("--limit=-1", "x.lua"), "--limit='-1' is not a size: expected"),
        (("--limit", "0", "x.lua"), "--limit='0' is out of range: expected at least 1 byte, and"),
        (("--limit=", "x.lua"), "--limit='' is not a size"),
        (("--limit", "9" * 30, "x.lua"), f"--limit='{'9' * 30}' is too large: at most"),
        (("--limit", "9" * 5000, "x.lua"), f"--limit='{'9' * 60}...' is too large"),
        (("--limit", "101%", "x.lua"), "--limit='101%' is out of range"),
        (("--limit", "²", "x.lua"), "--limit='²' is not a size"),
        (
            ("--reserve", "1KiB", "x.lua"),
            "--reserve needs a limit: --limit, or ZMALLOC_LIMIT in the",
        ),
        (("--limit", "1MiB", "--reserve", "x", "x.lua"), "--reserve='x' is not a size"),
        (("--json",), "--json needs a value"),
        (("--json", "", "x.lua"), "--json needs the name of a file"),
        (("--json", "missing/folder/f.json", "x.lua"), "--json: there is no folder '"),
        (("--limit", "1", "x.lua"), "--limit is too small to run Lua in: at least "),
        (("--limit", "20000", "x.lua"), "--limit is too small to run Lua in: at least "),
    ],
)
def test_a_wrong_command_line_is_one_line_and_the_usage(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.lua").write_text("print('ran')")
    seen = zlua(*words, cwd=tmp_path)
    lines = seen.err.splitlines()
    assert seen.status == 2, seen
    assert seen.out == "", "nothing is run"
    assert len(lines) == 2, seen.err
    assert lines[0].startswith(f"{built('lua5.4')}: {message}")
    assert lines[1] == "usage: zlua [options] (script.lua | -e code | -) [args...]"


@pytest.mark.parametrize("value", ["12 parsecs", "0", "1000"])
def test_a_wrong_variable_is_an_error_before_anything_runs(value: str) -> None:
    seen = zlua("-e", "print('ran')", env={"ZMALLOC_LIMIT": value})
    assert (seen.status, seen.out) == (2, "")
    assert "ZMALLOC_LIMIT" in seen.err


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_names_every_option(word: str) -> None:
    seen = zlua(word)
    assert (seen.status, seen.err) == (0, "")
    for option in ("--limit", "--reserve", "--stats", "--json", "-e", "ZMALLOC_LIMIT", "53"):
        assert option in seen.out
    assert max(map(len, seen.out.splitlines())) <= 100


@every_lua
def test_the_version_is_the_librarys_and_luas(lua: str) -> None:
    seen = zlua("--version", lua=lua)
    assert re.fullmatch(r"zmalloc \d+\.\d+\.\d+ \(Lua(JIT)? \d\.\d\.\d\S*\)\n", seen.out)
    assert (seen.status, seen.err) == (0, "")


def test_the_least_limit_that_is_named_is_enough() -> None:
    """The words of the command line are a part of it, being in the table arg."""
    seen = zlua("--limit", "10000", "-e", "print('ran')")
    least = int(re.findall(r"at least (\d+)", seen.err)[0])
    assert zlua("--limit", str(least - 1), "-e", "print('ran')").status == 2
    seen = zlua("--limit", str(least), "-e", "print('ran')")
    assert (seen.status, seen.out) == (0, "ran\n")
    assert zlua("--limit", str(least), "-e", "error('ran')").status == 1


# ---- caps --------------------------------------------------------------------------------------

RUNAWAY = """
local kept = {}
local function grow()
  while true do
    kept[#kept + 1] = ("x"):rep(1000) .. #kept            -- line 5
  end
end
grow()
"""


@pytest.mark.parametrize("size", ["8MiB", "8388608", "8 mb", "8192k"])
def test_a_runaway_is_stopped_and_one_line_says_so(size: str, tmp_path: Path) -> None:
    script = tmp_path / "script.lua"
    script.write_text(RUNAWAY)
    seen = zlua("--limit", size, script)
    assert seen.status == LIMIT_STATUS
    assert re.fullmatch(
        r"zmalloc: stopped at the limit of 8\.0 MiB: peak 7\.9 MiB, \d+ requests? "
        rf"refused, the last one for [\d.]+ (KiB|B) at {re.escape(str(script))}:5",
        limit_line(seen),
    )
    lines = seen.err.splitlines()
    assert lines[0] == f"{built('lua5.4')}: not enough memory"
    assert lines[1] == "stack traceback:"
    assert lines[-2] == "\t[C]: in ?"
    assert any(":8: in main chunk" in line for line in lines)


@every_lua
def test_each_lua_stops_a_runaway(lua: str, tmp_path: Path) -> None:
    script = tmp_path / "s.lua"
    script.write_text(RUNAWAY)
    seen = zlua("--limit", "8MiB", "s.lua", lua=lua, cwd=tmp_path)
    assert seen.status == LIMIT_STATUS, seen
    line = limit_line(seen)
    assert line.startswith("zmalloc: stopped at the limit of 8.0 MiB: peak 7.")
    if lua != "luajit":  # which does not keep the line of compiled code
        assert line.endswith("at s.lua:5")
        assert "s.lua:8: in main chunk" in seen.err


@pytest.mark.parametrize("words", [("-e", RUNAWAY), ("-",)])
def test_code_and_stdin_are_stopped_too(words: tuple[str, ...]) -> None:
    seen = zlua("--limit", "8MiB", *words, stdin=RUNAWAY.encode())
    assert seen.status == LIMIT_STATUS
    name = "stdin" if words == ("-",) else "(command line)"
    assert limit_line(seen).endswith(f" at {name}:5")


def test_an_initialisation_is_stopped_too() -> None:
    seen = zlua("--limit", "8MiB", "-e", "print('ran')", env={"LUA_INIT": RUNAWAY})
    assert (seen.status, seen.out) == (LIMIT_STATUS, "")
    assert limit_line(seen).endswith(" at LUA_INIT:5")


WORST = {
    "a long string": "local s = ('x'):rep(1e9)",
    "a string that doubles": "local s = 'x' while true do s = s .. s end",
    "a buffer": "local t = {} for i = 1, 1e6 do t[i] = 'x' end table.concat(t, ('y'):rep(1e6))",
    "a pattern": "local s = ('x'):rep(1e6) s:gsub('.', ('y'):rep(1000))",
    "a table that grows": "local t = {} for i = 1, 1e9 do t[i] = i end",
    "a hash that grows": "local t = {} for i = 1, 1e9 do t['k' .. i] = i end",
    "recursion": "local function f(a) return {f({a})} end f()",
    "coroutines": "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    "inside a coroutine": "coroutine.wrap(function() local t = {} while true do t[#t+1] = "
    "{} end end)()",
    "closures": "local t = {} while true do t[#t + 1] = function() return t end end",
    "a callback": "local t = {} string.gsub(('x'):rep(1e6), '.', function() t[#t + 1] = {} end)",
    "a comparison": "local t, k = {}, {} for i = 1, 100 do t[i] = i end "
    "table.sort(t, function(a, b) for i = 1, 1e5 do k[#k + 1] = {} end return a < b end)",
    "a metamethod": "local k = {} local t = setmetatable({}, {__index = function(t, n) "
    "k[#k + 1] = ('x'):rep(1000) .. n end}) for i = 1, 1e9 do local x = t[i] end",
    "a chunk": "local t = {'return {'} for i = 1, 1e6 do t[#t + 1] = i .. ',' end t[#t + 1] = '}' "
    "assert(load(table.concat(t)))()",
    "an error object": "local t = {} local ok, e = pcall(function() while true do t[#t+1] = "
    "{} end end)"
    " error(e, 0)",
    "an error in words": "local t = {} local ok, e = pcall(function() while true do t[#t+1] "
    "= {} end "
    "end) error('worker: ' .. tostring(e))",
    "assert": "local t = {} assert(pcall(function() while true do t[#t+1] = {} end end))",
    "reading": "local t = {} for l in io.lines('/dev/zero', 1e6) do t[#t + 1] = l end",
    "a hook": "local t = {} debug.sethook(function() t[#t + 1] = {} end, '', 1) while true do end",
    "globals": "for i = 1, 1e9 do _G['v' .. i] = i end",
    "varargs": "local function f(...) return {...} end local k = {} "
    "while true do k[#k + 1] = f(1, 2, 3, 4, 5, 6, 7, 8) end",
    "__close": "local t = {} local x <close> = setmetatable({}, {__close = function() "
    "while true do t[#t + 1] = {} end end})",
    "nothing left": "local t, n = {}, {} for i = 1, 20000 do n[i] = false end local i = 0 "
    "for _, s in ipairs{1e5, 1e4, 1e3, 100, 10, 1} do while pcall(function() i = i + 1 "
    "n[i] = ('x'):rep(s) .. i end) do end end n[i] = ('x'):rep(1e6)",
}


@pytest.mark.parametrize("reserve", [(), ("--reserve", "0")])
@pytest.mark.parametrize("name", WORST)
def test_a_cap_ends_in_the_same_way_wherever_it_hits(
    name: str, reserve: tuple[str, ...], tmp_path: Path
) -> None:
    report = tmp_path / "r.json"
    seen = zlua("--limit", "4MiB", *reserve, "--stats", "--json", report, "-e", WORST[name])
    if name == "recursion" and "overflow" in seen.err:
        pytest.skip("the stack ended first")
    assert seen.status == LIMIT_STATUS, seen
    assert "not enough memory" in seen.err.splitlines()[0]
    assert seen.err.count("zmalloc: stopped at the limit of 4.0 MiB: peak ") == 1
    assert seen.err.count("fragmentation") == 1
    figures = json.loads(report.read_text())["stats"]
    assert figures["hard_limit"] == 4 * 2**20 + (0 if reserve else 256 * 2**10)
    assert figures["used"] <= figures["peak"] <= figures["hard_limit"]
    assert figures["limit_hit"] is True


def test_the_traceback_at_the_cap_is_the_one_lua_would_show(tmp_path: Path) -> None:
    """The same stack, once through luaL_traceback and once by zlua's own reading."""
    (tmp_path / "s.lua").write_text("""
local last
local function deep(n, f) if n == 0 then return (f()) end local x = deep(n - 1, f) return x end
function global_one(f) local r = deep(30, f) return r end
local t = {}
function t:method(f) local r = global_one(f) return r end
local function main(f)
  local r
  table.sort({1, 2}, function() r = t:method(f) error(r, 0) end)
end
print(select(2, pcall(main, function() return debug.traceback() end)))
main(function() return ("x"):rep(1e8) end)
""")
    seen = zlua("--limit", "1MiB", "s.lua", cwd=tmp_path)
    assert seen.status == LIMIT_STATUS

    def tail(text: str) -> list[str]:
        lines = text.splitlines()
        return [
            line
            for line in lines
            if "in method" in line
            or "global_one" in line
            or "skipping" in line
            or "in upvalue 'deep'" in line
            or "(...tail" in line
        ]

    shown = tail(SKIPPED.sub("skipping", seen.err))
    expected = tail(SKIPPED.sub("skipping", seen.out))
    assert len(shown) > 10
    assert shown[-8:] == expected[-8:] or set(shown) == set(expected)


TIGHT = """
local kept = {}
local close = setmetatable({}, {__close = function() kept[#kept + 1] = ("y"):rep(50) end})
local thing = setmetatable({}, {__tostring = function() return "thing " .. #kept end})
alive = setmetatable({}, {__gc = function() kept[#kept + 1] = {} error("in gc") end})
local step = tonumber((...))
local function use(n)
  for i = 1, n do kept[#kept + 1] = coroutine.wrap(function() return ("x"):rep(i) .. i end)() end
end
%s
if step %% 3 == 0 then error(thing) elseif step %% 3 == 1 then use(1e9) end
local ok, e = pcall(use, 100)
if not ok then error(e) end
os.exit(7, true)
"""


@pytest.mark.parametrize("lua", ["lua5.4", "lua5.1", "lua5.2", "lua5.3", "luajit"])
def test_no_cap_is_too_tight_to_say_how_it_ended(lua: str, tmp_path: Path) -> None:
    """From the least limit on, in small steps, so that each place has its turn."""
    (tmp_path / "s.lua").write_text(TIGHT % ("local c <close> = close" if lua == "lua5.4" else ""))
    least = int(re.findall(r"at least (\d+)", zlua("--limit", "1", "s.lua", "1", lua=lua).err)[0])
    for step in range(60):
        reserve = ("--reserve", "0") if step % 2 else ()
        seen = zlua(
            "--limit",
            str(least + 60 + step * 211),
            *reserve,
            "s.lua",
            str(step),
            lua=lua,
            cwd=tmp_path,
            env={"LUA_INIT": "local t = {} for i = 1, 50 do t[i] = {} end"},
        )
        assert seen.status in (1, 7, LIMIT_STATUS), (step, seen)
        assert (seen.status == LIMIT_STATUS) == ("zmalloc: stopped" in seen.err), (step, seen)
        assert seen.status == 7 or seen.err.startswith(f"{built(lua)}: "), (step, seen)


def test_a_script_that_lets_go_of_the_registry_does_no_harm() -> None:
    seen = zlua(
        "-e",
        "coroutine.wrap(function() local r = debug.getregistry() for k in pairs(r) do if "
        "type(k) ~= 'number' or k > 2 then r[k] = nil end end collectgarbage() end)() "
        "local t = {} for i = 1, 1e5 do t[i % 10] = {} end collectgarbage() print('alive')",
    )
    assert (seen.status, seen.out) == (0, "alive\n"), seen


def test_a_limit_of_the_scripts_own_is_named_too() -> None:
    code = "require('zmalloc').limit('3 MiB') local t = {} while true do t[#t + 1] = {} end"
    for words in ((), ("--limit", "64MiB")):
        seen = zlua(*words, "-e", code)
        assert seen.status == LIMIT_STATUS
        assert "stopped at the limit of 3.0 MiB: peak " in limit_line(seen)


def test_memory_errors_that_the_script_swallows_end_as_it_ends() -> None:
    body = "local ok, e = pcall(string.rep, 'x', 1e9) print(ok, e) "
    seen = zlua("--limit", "1MiB", "-e", body)
    assert (seen.status, seen.out, seen.err) == (0, "false\tnot enough memory\n", "")
    assert zlua("--limit", "1MiB", "-e", body + "os.exit(7)").status == 7
    seen = zlua("--limit", "1MiB", "-e", body + "error('else')")
    assert seen.status == 1
    assert "zmalloc:" not in seen.err


def test_a_memory_error_without_the_limit_hit_is_the_scripts_own() -> None:
    for words in ((), ("--limit", "1MiB")):
        seen = zlua(*words, "-e", "error('not enough memory', 0)")
        assert seen.status == 1
        assert "zmalloc:" not in seen.err


def test_a_real_want_of_memory_without_a_limit_has_no_line() -> None:
    seen = run(
        "sh", "-c", f"ulimit -v 200000; exec '{built('lua5.4')}' -e \"local s = ('x'):rep(1e9)\""
    )
    assert seen.status == 1
    assert "not enough memory" in seen.err
    assert "stack traceback" in seen.err
    assert "zmalloc:" not in seen.err


@every_lua
def test_no_script_lifts_or_raises_the_cap(lua: str) -> None:
    code = """
local zmalloc = require "zmalloc"
local function try(what, f, ...) pcall(f, ...) print(what, zmalloc.limit()) end
try("limit", zmalloc.limit, "64 MiB")
try("lift", zmalloc.limit, nil)
try("registry", function()
  for k in pairs(debug.getregistry()) do
    if type(k) == "userdata" then debug.getregistry()[k] = nil end
  end
end)
try("collect", collectgarbage)
try("seal", zmalloc.limit, "1 MiB", {seal = true})
print(pcall(string.rep, "x", 3e6))
"""
    seen = zlua("--limit", "2MiB", "-e", code, lua=lua)
    assert seen.status == 0, seen.err
    lines = seen.out.splitlines()
    assert lines[:4] == [
        f"{what}\t{2 * 2**20}" for what in ("limit", "lift", "registry", "collect")
    ]
    assert lines[4] == f"seal\t{2**20}"
    assert lines[5].startswith("false\tnot enough memory")


def test_the_module_is_the_one_of_the_runner(tmp_path: Path) -> None:
    (tmp_path / "zmalloc.lua").write_text("error('a file was taken')")
    seen = zlua(
        "-e",
        "local z = require 'zmalloc' print(z.used() == collectgarbage('count') * 1024, "
        "z.limit(), z.stats().core)",
        cwd=tmp_path,
    )
    assert seen.status == 0, seen.err
    assert re.match(r"true\tnil\tzmalloc \d", seen.out)


@pytest.mark.parametrize(
    ("variable", "option", "least"),
    [("3MiB", "2MiB", 2), ("2MiB", "3MiB", 2), ("2MiB", "", 2), ("", "2MiB", 2)],
)
def test_of_the_variable_and_the_option_the_smaller_holds(
    variable: str, option: str, least: int
) -> None:
    words = ("--limit", option) if option else ()
    code = "print(require('zmalloc').limit())" + RUNAWAY
    seen = zlua(*words, "-e", code, env={"ZMALLOC_LIMIT": variable})
    assert seen.out == f"{least * 2**20}\n"
    assert seen.status == LIMIT_STATUS


@pytest.mark.parametrize(
    ("words", "reserve"),
    [
        ((), 512 * 2**10),
        (("--reserve", "0"), 0),
        (("--reserve=64k",), 65536),
        (("--reserve", "20MiB"), 20 * 2**20),
    ],
)
def test_the_reserve_is_a_sixteenth_unless_told(words: tuple[str, ...], reserve: int) -> None:
    seen = zlua("--limit", "8MiB", *words, "-e", "print(require('zmalloc').stats().reserve)")
    assert seen.out == f"{reserve}\n"


def test_handlers_and_finalizers_work_at_the_cap(tmp_path: Path) -> None:
    (tmp_path / "s.lua").write_text("""
local kept = {}
gone = setmetatable({}, {__gc = function() print("finalized", #(("x"):rep(1000))) end})
local x <close> = setmetatable({}, {__close = function(_, e) print("closed", e, ("y"):rep(10)) end})
while true do kept[#kept + 1] = {} end
""")
    seen = zlua("--limit", "1MiB", "s.lua", cwd=tmp_path)
    assert seen.status == LIMIT_STATUS
    assert seen.out == "closed\tnot enough memory\tyyyyyyyyyy\nfinalized\t1000\n"


def test_a_cap_costs_a_script_that_stays_below_it_nothing_but_room() -> None:
    """Garbage is collected in time: ten times the limit goes through it."""
    for lua in ("lua5.4", "lua5.1", "luajit"):
        seen = zlua(
            "--limit",
            "4MiB",
            "-e",
            "for i = 1, 4e4 do local s = ('x'):rep(1000) .. i end print('done')",
            lua=lua,
        )
        assert (seen.status, seen.out) == (0, "done\n"), seen


# ---- reports -----------------------------------------------------------------------------------


def test_stats_are_a_table_on_stderr_after_all_else() -> None:
    seen = zlua(
        "--stats",
        "-e",
        "keep = setmetatable({}, {__gc = function() io.stderr:write('gc\\n') end}) print('out')",
    )
    assert (seen.status, seen.out) == (0, "out\n")
    lines = seen.err.splitlines()
    assert lines[0] == "gc"
    rows = {line[:20].rstrip(): line[20:] for line in lines[1:]}
    assert list(rows) == [
        "used",
        "peak",
        "limit",
        "limit hit",
        "hard limit",
        "sealed",
        "total",
        "rss",
        "fragmentation",
        "allocations",
        "frees",
        "refusals",
        "last refused",
        "collections",
        "overhead refusals",
        "core",
        "strings",
        "tables",
        "functions",
        "userdata",
        "threads",
    ]
    assert rows["limit"] == rows["hard limit"] == rows["last refused"] == "none"
    assert re.fullmatch(r"\d+,\d{3} B  \(\d+\.\d KiB\)", rows["used"])


def test_the_table_has_the_rows_of_the_modules_stats() -> None:
    code = "print(require('zmalloc').stats())"
    seen = zlua("--stats", "-e", code)

    def names(text: str) -> list[str]:
        return [line[:20].rstrip() for line in text.splitlines()]

    assert names(seen.out) == names(seen.err)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0),
        ("os.exit(3)", 3),
        ("os.exit(false)", 1),
        ("os.exit(300)", 44),
        ("error('x')", 1),
        ("os.exit(5, true)", 5),
        ("x = =", 1),
        ("local s = ('x'):rep(1e9)", LIMIT_STATUS),
        ("coroutine.wrap(function() os.exit(6, true) end)()", 6),
        ("keep = setmetatable({}, {__gc = function() os.exit(8) end})", 8),
        ("pcall(string.rep, 'x', 1e9)", 0),
    ],
)
def test_json_is_a_whole_file_with_the_status_inside(
    code: str, status: int, tmp_path: Path
) -> None:
    script, report = tmp_path / "script.lua", tmp_path / "report.json"
    script.write_text(code)
    seen = zlua("--limit", "2MiB", "--json", report, script, "arg")
    assert seen.status == status
    content = json.loads(report.read_text())
    assert content["status"] == status
    assert content["script"] == [str(script), "arg"]
    assert content["lua"].startswith("Lua 5.4.")
    assert set(content["stats"]) == {
        "used",
        "total",
        "peak",
        "limit",
        "hard_limit",
        "reserve",
        "limit_hit",
        "sealed",
        "allocations",
        "frees",
        "refusals",
        "last_refused",
        "collections",
        "overhead_refusals",
        "rss",
        "fragmentation",
        "core",
        "kinds",
    }
    assert content["stats"]["limit"] == 2 * 2**20
    assert content["stats"]["limit_hit"] is ("rep" in code)
    last = content["stats"]["last_refused"]
    if status == LIMIT_STATUS:
        assert (last["file"], last["line"]) == (str(script), 1)
        assert last["bytes"] >= 1e9 / 2
    elif "rep" not in code:
        assert last is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "script.lua"]


def test_json_of_a_script_with_any_bytes_is_json(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    words = [b"-e", "print('é😀\"\\\\\x01')".encode(), b"-", b"\xff\xc3(", b"\xed\xa0\x80"]
    subprocess.run(
        [os.fsencode(built("lua5.4")), b"--json", os.fsencode(report), *words],
        input=b"",
        check=True,
        capture_output=True,
        env=environment(),
    )
    content = json.loads(report.read_bytes().decode("ascii"))
    assert content["script"] == [word.decode("utf-8", "surrogateescape") for word in words]


def test_json_goes_where_it_was_said_through_links_with_the_mode_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("real.json")
    assert zlua("--json", "link.json", "-e", "", cwd=tmp_path).status == 0
    assert link.is_symlink()
    assert json.loads(real.read_text())["status"] == 0
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_report_that_cannot_be_written_is_said_and_the_status_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in ("/proc/nosuch.json", str(tmp_path / "folder")):
        seen = zlua("--json", path, "-e", "os.exit(3)")
        assert seen.status == 3
        assert seen.err.startswith(f"{built('lua5.4')}: cannot write '{path}': ")
        assert len(seen.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_leaves_the_old_report(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    seen = zlua("--json", "/dev/full", "-e", "")
    assert seen.status == 0
    assert "cannot write '/dev/full': No space left on device" in seen.err
    report = tmp_path / "r.json"
    report.write_text("old")
    shell = 'trap "" XFSZ; ulimit -f 0; exec "$0" --json "$1" -e ""'
    seen = run("sh", "-c", shell, built("lua5.4"), report)
    assert seen.status == 0
    assert f"cannot write '{report}': File too large" in seen.err
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert report.read_text() == "old"


def test_json_can_go_to_a_pipe() -> None:
    seen = zlua("--json", "/dev/stdout", "-e", "print('text')")
    text, brace, rest = seen.out.partition("{")
    assert text == "text\n"
    assert json.loads(brace + rest)["status"] == 0


def test_the_runner_itself_holds_little() -> None:
    """Beside what the stock lua holds: the module's place, a coroutine, the pacer."""
    count = "collectgarbage() collectgarbage() io.write(collectgarbage('count') * 1024)"
    stock = float(run(interpreter("lua5.4"), "-e", count).out)
    ours = float(zlua("--limit", "8MiB", "-e", count).out)
    assert ours - stock < 3000


# ---- interrupts --------------------------------------------------------------------------------


def interrupted(*words: str, lua: str = "lua5.4") -> tuple[int, str]:
    with subprocess.Popen(
        [built(lua), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    return process.returncode, err


@every_lua
def test_an_interrupt_is_an_error_of_the_script_as_in_lua(lua: str) -> None:
    code = "if jit then jit.off() end print('ready') io.stdout:flush() while true do end"
    status, err = interrupted("--limit", "8MiB", "-e", code, lua=lua)
    assert status == 1
    assert "interrupted!" in err.splitlines()[0]
    assert "zmalloc:" not in err


def test_a_script_can_catch_an_interrupt() -> None:
    code = (
        "print(pcall(function() print('ready') io.stdout:flush() while true do end end)) os.exit(9)"
    )
    assert interrupted("-e", code)[0] == 9


# ---- leaks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "",
        "error('x')",
        "local t = {} while true do t[#t+1] = {} end",
        "os.exit(0, true)",
        "x = =",
        "local x <close> = setmetatable({}, {__close = error}) error('y')",
    ],
)
def test_memory_is_clean_under_valgrind(code: str, tmp_path: Path) -> None:
    from .toolchain import valgrind

    if not valgrind():
        pytest.skip("no valgrind on this machine")
    command = [
        *valgrind(),
        built("lua5.4"),
        "--limit",
        "200k",
        "--stats",
        "--json",
        tmp_path / "r.json",
        "-e",
        code,
    ]
    seen = run(*command, timeout=300)
    assert seen.status != 9, seen.err
    assert "==" not in seen.err, seen.err
