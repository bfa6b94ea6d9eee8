"""What the README and the examples show of Lua is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from core import toolchain as core

from . import toolchain
from .zlua import built, every_lua, interpreter, limit_line, run, zlua

README = (core.ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## Lua\n")[1].split("\n## ")[0]


def cpath(lua: str) -> dict[str, str]:
    return {"LUA_CPATH": str(built(lua, "zmalloc.so").with_name("?.so"))}


@every_lua
def test_the_lua_program_of_the_readme_prints_what_its_comments_say(
    lua: str, tmp_path: Path
) -> None:
    script = tmp_path / "readme.lua"
    script.write_text(SECTION.split("```lua\n")[1].split("```")[0])
    assert len(script.read_text().splitlines()) <= 15
    seen = run(interpreter(lua), script, env=cpath(lua))
    assert (seen.status, seen.err) == (0, "")
    table, refused, use, *figures = seen.out.splitlines()
    promised = re.search(r"-- (\d+) in Lua 5\.4", SECTION)
    assert promised
    assert lua != "lua5.4" or table == promised[1]
    assert re.fullmatch(r"false\tnot enough memory( for buffer allocation)?\tlimit", refused)
    peak, count, length = map(int, use.split("\t"))
    assert (peak >= 5000, count >= 1, length) == (True, True, 5000)
    assert figures[0].startswith("used ")
    assert figures[3].split() == ["limit", "hit", "yes"]


@every_lua
def test_the_loop_of_the_readme_refuses_each_request_once(lua: str, tmp_path: Path) -> None:
    script = tmp_path / "loop.lua"
    script.write_text(SECTION.split("```lua\n")[2].split("```")[0])
    seen = run(interpreter(lua), script, env=cpath(lua))
    assert (seen.status, seen.err) == (0, "")
    assert 3 <= int(seen.out) < 20, "three tables, and what calls need"


@pytest.mark.parametrize("lua", ["lua5.4", "lua5.1", "lua5.3"])
def test_the_host_of_the_readme_stops_the_script_and_holds_nothing(
    lua: str, tmp_path: Path
) -> None:
    archive = built(lua, f"libzmalloc-{lua}.a")
    source, program = tmp_path / "host.c", tmp_path / "host"
    source.write_text(SECTION.split("```c\n")[1].split("```")[0])
    have = toolchain.luas()[lua]
    core.must(
        [
            "gcc",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{core.CSRC}",
            f"-I{toolchain.LUA}",
            *have.cflags,
            source,
            archive,
            *have.libs,
            "-o",
            program,
            "-pthread",
            "-ldl",
        ]
    )
    seen = run(program)
    assert seen.status == 0
    first, last = seen.out.splitlines()
    peak = re.fullmatch(r"not enough memory, peak (\d+) bytes", first)
    assert peak
    assert 7 << 20 < int(peak[1]) <= (8 << 20) + (512 << 10)
    assert last == "0 bytes held"


def test_the_command_of_the_readme_ends_as_it_shows() -> None:
    seen = zlua("--limit", "8MiB", "examples/runaway.lua", cwd=core.ROOT)
    assert seen.status == 53
    shown = SECTION.split("examples/runaway.lua\n")[1].split("$ echo")[0].splitlines()

    def plain(line: str) -> str:
        return re.sub(r"\d+ requests?", "N requests", re.sub(r"[\d.]+ (MiB|KiB|B)\b", "SIZE", line))

    told = seen.err.replace(str(built("lua5.4")), "build/zlua").splitlines()
    assert told[:2] == shown[:2]
    assert told[-2:-1] == shown[-2:-1]
    assert plain(limit_line(seen)) == plain(shown[-1])


def test_every_function_of_the_module_is_in_the_table_of_the_readme() -> None:
    seen = zlua(
        "-e",
        "for k, v in pairs(require 'zmalloc') do if type(v) == 'function' then print(k) end end",
    )
    table = SECTION.split("| call |")[1].split("\n\n")[0]
    assert set(seen.out.split()) == set(re.findall(r"`([a-z_]+)\(", table)) - {"used() beside"}


SECOND_TRY = """
local zmalloc, text = require "zmalloc", ("y"):rep(2e6)
pcall(collectgarbage, "incremental")
collectgarbage()
collectgarbage("stop")
local garbage, n = {}, 0
while zmalloc.used() < 15e6 do n = n + 1 garbage[n] = {n} end
garbage = nil
if _VERSION == "Lua 5.2" then collectgarbage("restart") end -- later ones collect though stopped
print(pcall(function() %s end))
"""


@pytest.mark.parametrize(
    ("lua", "by_concat", "by_rep"),
    [
        ("lua5.1", False, False),
        ("lua5.2", True, True),
        ("lua5.3", True, False),
        ("lua5.4", True, False),
        ("lua5.5", True, False),
        ("luajit", False, False),
    ],
)
def test_what_the_readme_says_of_second_tries_is_so(
    lua: str, by_concat: bool, by_rep: bool
) -> None:
    """13 MB of garbage, and 8 MB more asked for under 20 MB: by the machine, by a library."""
    for code, works in (
        ("local s = text .. text .. text .. text return #s", by_concat),
        ("return #text:rep(4)", by_rep),
    ):
        seen = zlua("--limit", "20MiB", "--reserve", "0", "-e", SECOND_TRY % code, lua=lua)
        assert seen.status == 0, seen
        assert seen.out.startswith("true\t8000000" if works else "false\t"), (code, seen.out)


@every_lua
def test_the_host_of_the_examples_goes_on_after_the_script_was_stopped(lua: str) -> None:
    seen = run(interpreter(lua), "examples/host.lua", cwd=core.ROOT, env=cpath(lua))
    assert (seen.status, seen.err) == (0, "")
    lines = {line[:16].strip(): line[17:] for line in seen.out.splitlines()}
    assert lines["ended"].startswith("stopped by limit: not enough memory")
    used = {
        name: int(lines[name].split()[0])
        for name in ("used before it", "used at most", "used after it")
    }
    assert 7 << 20 < used["used at most"] < 10 << 20
    assert used["used after it"] < 200_000
    assert lines["the process"] == "goes on: 6 * 7 = 42"
