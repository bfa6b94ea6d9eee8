"""What make installs, what luarocks builds, what is said when a Lua is missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from core import toolchain as core

from . import toolchain
from .zlua import built, every_lua, interpreter, run

ROOT = core.ROOT
LIBRARY = {f"include/{name}" for name in ("zmalloc.h", "zaccount.h", "zsize.h", "zapi.h")} | {
    "lib/libzmalloc.a",
    "lib/libzmalloc.so",
    "lib/libzmalloc.so.0",
    "lib/pkgconfig/zmalloc.pc",
}

HOST = """
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <zmalloc_lua.h>

int main(void)
{
    zaccount *account = zaccount_new("host", NULL);
    lua_State *L = zmalloc_lua_newstate(account);
    zaccount_set_limit(account, zaccount_used(account) + 100000, 0);
    int fine = L && zmalloc_lua_pace(L) == 0 && zmalloc_lua_account(L) == account;
    fine = fine && luaL_loadstring(L, "local s = '' while true do s = s .. 'xxxxxxxx' end") == 0 &&
           lua_pcall(L, 0, 0, 0) == LUA_ERRMEM;
    lua_close(L);
    printf("%s %zu\\n", fine ? "stopped" : "failed", zaccount_used(account));
    return !fine || zaccount_free(account) != 0;
}
"""


def version(lua: str) -> str:
    return "5.1" if lua == "luajit" else lua[3:]


def make(*words: str, env: dict[str, str] | None = None) -> None:
    with core.building():
        core.must(["make", "-s", *words], env=env or core.clean_environment())


def installed(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("lua", ["lua5.4", "lua5.1", "luajit"])
def test_what_is_installed_serves_scripts_and_hosts_and_can_be_uninstalled(
    lua: str, tmp_path: Path
) -> None:
    built(lua)
    root = tmp_path / "root"
    words = [f"DESTDIR={root}", "PREFIX=/opt/z", f"LUA={lua}"]
    make("install-lua", *words)
    base, name = root / "opt/z", {"lua5.4": "zlua", "lua5.1": "zlua5.1", "luajit": "zluajit"}[lua]
    module = f"lib/lua/{version(lua)}/zmalloc.so"
    own = {
        module,
        f"bin/{name}",
        "include/zmalloc_lua.h",
        f"lib/libzmalloc-{lua}.a",
        f"lib/pkgconfig/zmalloc-{lua}.pc",
    }
    assert installed(base) == own | LIBRARY
    seen = run(
        interpreter(lua),
        "-e",
        "print(require('zmalloc').limit('1 MiB'))",
        env={"LUA_CPATH": str(base / module).replace("zmalloc.so", "?.so")},
    )
    assert (seen.out, seen.err) == ("1048576\n", "")
    assert run(base / "bin" / name, "-e", "print(1)").out == "1\n"
    build_host(base, lua, tmp_path)
    make("uninstall-lua", *words)
    assert installed(base) == LIBRARY
    make("uninstall", *words)
    assert installed(base) == set()


def build_host(base: Path, lua: str, folder: Path) -> None:
    """By pkg-config, as the header's users do."""
    env = {**os.environ, "PKG_CONFIG_PATH": str(base / "lib/pkgconfig")}
    flags = core.must(
        [
            "pkg-config",
            "--define-variable",
            f"prefix={base}",
            "--cflags",
            "--libs",
            f"zmalloc-{lua}",
        ],
        env=env,
    ).split()
    source, program = folder / "host.c", folder / "host"
    source.write_text(HOST)
    have = toolchain.luas()[lua]
    core.must(
        [
            "gcc",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            source,
            *have.cflags,
            *flags,
            *have.libs,
            "-o",
            program,
        ]
    )
    assert run(program).out == "stopped 0\n"


def test_the_systems_own_prefix_has_the_systems_folder_of_modules(tmp_path: Path) -> None:
    built("lua5.4")
    prefix = core.must(["pkg-config", "--variable=prefix", "lua5.4"]).strip()
    own = core.must(["pkg-config", "--variable=INSTALL_CMOD", "lua5.4"]).strip()
    assert core.must([ROOT / "tools/lua.sh", "lua5.4", "cmod", prefix]).strip() == own
    assert core.must([ROOT / "tools/lua.sh", "lua5.4", "cmod", "/x"]).strip() == "/x/lib/lua/5.4"


@every_lua
def test_the_module_exports_its_entry_and_the_table_and_needs_no_liblua(lua: str) -> None:
    module = built(lua, "zmalloc.so")
    table = core.must(["nm", "-D", "--defined-only", module])
    assert {line.split()[-1] for line in table.splitlines()} == {
        "luaopen_zmalloc",
        "zmalloc_core_v1",
    }
    assert "liblua" not in core.must(["readelf", "-d", module])


@every_lua
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_all_files_compile_without_a_warning(cc: str, lua: str, tmp_path: Path) -> None:
    if toolchain.why_not(lua):
        pytest.skip(toolchain.why_not(lua))
    if not core.compiler(cc):
        pytest.skip(f"no {cc} on this machine")
    core.must(
        [
            cc,
            "-std=c11",
            *toolchain.WARNINGS,
            "-Wmissing-prototypes",
            "-O2",
            *toolchain.luas()[lua].cflags,
            f"-I{core.CSRC}",
            f"-I{toolchain.LUA}",
            "-c",
            *sorted(toolchain.LUA.glob("*.c")),
        ],
        cwd=tmp_path,
    )


@pytest.mark.parametrize("lua", ["5.4", "5.1"])
def test_luarocks_builds_the_checkout(lua: str, tmp_path: Path) -> None:
    if not shutil.which("luarocks") or toolchain.why_not(f"lua{lua}"):
        pytest.skip("no luarocks, or no headers")
    source, tree = tmp_path / "source", tmp_path / "tree"
    for name in ("csrc", "lua"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.o", "*.so"))
    for name in ("zmalloc-scm-1.rockspec", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    core.must(
        ["luarocks", "--lua-version", lua, "--tree", tree, "make", "zmalloc-scm-1.rockspec"],
        cwd=source,
    )
    code = "local z = require 'zmalloc' print(z.limit('2 MiB'), pcall(string.rep, 'x', 4e6))"
    seen = run(
        interpreter(f"lua{lua}"), "-e", code, env={"LUA_CPATH": f"{tree}/lib/lua/{lua}/?.so"}
    )
    assert (seen.out, seen.err) == ("2097152\tfalse\tnot enough memory\n", "")


def test_the_rockspec_names_every_source() -> None:
    text = (ROOT / "zmalloc-scm-1.rockspec").read_text()
    named = set(re.findall(r'"((?:csrc|lua)/\w+\.c)"', text))
    there = {f"csrc/{name}" for name in core.SOURCES} | {
        f"lua/{path.name}" for path in toolchain.LUA.glob("*.c") if not path.name.startswith("zlua")
    }
    assert named == there


def test_an_unknown_or_missing_lua_is_one_line(tmp_path: Path) -> None:
    for words, expected in (
        (["lua9"], "error: LUA=lua9 is not known: lua5.4 lua5.1"),
        (
            ["lua5.3"],
            "error: no headers of lua5.3. On Debian and Ubuntu: "
            "apt-get install liblua5.3-dev pkg-config",
        ),
    ):
        (tmp_path / "pkg-config").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "pkg-config").chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = core.run([ROOT / "tools/lua.sh", *words, "cflags"], env=env)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(expected)
    done = core.run([ROOT / "tools/lua.sh", "list"], env=env)
    assert (done.returncode, done.stdout) == (0, "")
    assert len(re.findall(r"^skipped: no headers of lua", done.stderr, re.M)) == 6


def test_the_comments_make_a_documentation(tmp_path: Path) -> None:
    if not shutil.which("ldoc"):
        pytest.skip("no ldoc on this machine")
    core.must(["ldoc", "--dir", tmp_path / "doc", "."], cwd=toolchain.LUA)
    page = (tmp_path / "doc/index.html").read_text()
    for name in (
        "used",
        "total",
        "peak",
        "reset_peak",
        "stats",
        "rss",
        "limit",
        "budget",
        "track",
        "collect",
    ):
        assert f'name = "{name}"' in page


def test_lua_sources_are_clean_under_luacheck() -> None:
    if not shutil.which("luacheck"):
        pytest.skip("no luacheck on this machine")
    core.must(["luacheck", "-q", "."])
