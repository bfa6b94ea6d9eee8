"""Builds the C programs of this folder against each Lua that this machine can build against.

Everything goes to build/test/lua/, with the library's own objects from tests/core/toolchain.py.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core import toolchain as core
from core.test_threads import ENVIRONMENT, can_sanitize, without_randomisation

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LUA = ROOT / "lua"
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Werror")
#: Those that the library is for; what builds against them is told by tools/lua.sh.
PACKAGES = ("lua5.1", "lua5.2", "lua5.3", "lua5.4", "lua5.5", "luajit")
#: How a program is built: compiler, flags, and what it is run under.
SANITIZERS = {
    "plain": "",
    "address": "-fsanitize=address,undefined",
    "thread": "-fsanitize=thread",
}


class Lua(NamedTuple):
    name: str
    cflags: tuple[str, ...]
    libs: tuple[str, ...]


def environment() -> dict[str, str]:
    """Where pkg-config also looks: a Lua 5.5 that tools/lua55.sh has built."""
    paths = [os.environ.get("PKG_CONFIG_PATH", ""), str(ROOT / "build" / "lua5.5" / "lua")]
    return {**os.environ, "PKG_CONFIG_PATH": os.pathsep.join(path for path in paths if path)}


def _ask(name: str, what: str) -> tuple[str, ...]:
    return tuple(core.must([ROOT / "tools" / "lua.sh", name, what], env=environment()).split())


@functools.cache
def luas() -> dict[str, Lua]:
    """Those with headers on this machine."""
    found = core.must([ROOT / "tools" / "lua.sh", "list"], env=environment()).split()
    return {name: Lua(name, _ask(name, "cflags"), _ask(name, "libs")) for name in found}


def _flags(variant: str) -> list[str]:
    flags = SANITIZERS[variant].split()
    return ["-O2", "-g"] if not flags else [
        *flags, "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-O1", "-g"]


def why_not(name: str, variant: str = "plain", cc: str = "gcc") -> str:
    """Empty if a program can be built and run, else the reason for which it cannot."""
    if name not in luas():
        return f"no headers of {name} on this machine"
    return can_sanitize(cc, SANITIZERS[variant]) if SANITIZERS[variant] else ""


def _object(lua: Lua, folder: Path, source: Path, flags: Sequence[str], cc: str) -> Path:
    product = folder / f"{source.stem}.o"
    inputs = [source, *LUA.glob("*.h"), *core.CSRC.glob("*.h")]
    if core.is_older(product, inputs):
        core.must([cc, "-std=c11", *WARNINGS, *flags, *lua.cflags, f"-I{core.CSRC}", f"-I{LUA}",
                   "-c", source, "-o", product])
    return product


def program(source: str, name: str, *link: str, variant: str = "plain", cc: str = "gcc",
            sources: Sequence[str] = ("zmalloc_lua.c", "zmalloc_lua_state.c", "zpace.c"),
            folder: Path = HERE, libs: Sequence[str] | None = None) -> Path:
    """A C program of this folder (or another), with the allocator and the state functions in it."""
    lua, flags = luas()[name], _flags(variant)
    library = core.make(f"{cc}-{variant}-usable", "libzmalloc.a", f"CC={cc}",
                        f"CFLAGS={' '.join(flags)}")
    where = core.BUILD / "lua" / name / f"{cc}-{variant}"
    product = where / Path(source).stem
    with core.building():
        where.mkdir(parents=True, exist_ok=True)
        objects = [_object(lua, where, LUA / file, flags, cc) for file in sources]
        inputs = [folder / source, *HERE.glob("*.h"), core.HERE / "check.h", library, *objects]
        if core.is_older(product, inputs):
            core.must([cc, "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, *lua.cflags,
                       f'-DCHUNKS="{HERE / "chunks"}"', f"-I{core.CSRC}", f"-I{LUA}",
                       f"-I{core.HERE}", f"-I{HERE}", folder / source, *objects, library,
                       "-o", product, *link, *(lua.libs if libs is None else libs),
                       "-pthread", "-ldl", "-lm"])
    return product


def check(program: Path, *arguments: str, under: Sequence[str] = (), timeout: float = 300,
          env: Mapping[str, str] | None = None) -> str:
    """Runs a program of check.h: all it checked must have passed. Returns what it printed."""
    command = without_randomisation([*under, program, *arguments])
    done = core.run(command, timeout=timeout, env={**os.environ, **ENVIRONMENT, **(env or {})})
    report = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.M)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert report, done.stdout
    assert int(report[1]) > 0
    assert int(report[2]) == 0
    assert "runtime error" not in done.stderr
    return done.stdout


def valgrind() -> list[str]:
    """The command that a program is run by under memcheck; empty if there is none."""
    found = shutil.which("valgrind")
    return [found, "-q", "--error-exitcode=9", "--leak-check=full",
            "--errors-for-leak-kinds=definite,indirect",
            f"--suppressions={HERE / 'luajit.supp'}"] if found else []
