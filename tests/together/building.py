"""Builds Lua modules that differ, and the host of the examples, into build/test/together/."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from functools import cache
from pathlib import Path

from core import toolchain

ROOT = toolchain.ROOT
OUT = toolchain.BUILD / "together"
LUA = ROOT / "lua"
PC_NAMES = ("lua5.4", "lua-5.4", "lua54")


@cache
def lua_flags(which: str) -> list[str]:
    """What pkg-config says of Lua 5.4: --cflags or --libs."""
    for name in PC_NAMES:
        done = toolchain.run(["pkg-config", which, name])
        if done.returncode == 0:
            return done.stdout.split()
    raise AssertionError("no Lua 5.4 to build against: apt-get install liblua5.4-dev")


def module_sources(csrc: Path, lua: Path) -> list[Path]:
    programs = set(lua.glob("zlua*.c"))
    return [*sorted(csrc.glob("*.c")), *sorted(set(lua.glob("*.c")) - programs)]


def compile_module(csrc: Path, lua: Path, product: Path, *flags: str) -> None:
    product.parent.mkdir(parents=True, exist_ok=True)
    toolchain.must(
        ["cc", "-std=c11", "-g", "-fPIC", "-shared", *flags, *lua_flags("--cflags"), f"-I{csrc}",
         f"-I{lua}", *module_sources(csrc, lua), "-o", f"{product}.tmp", "-pthread", "-ldl", "-lm"]
    )
    Path(f"{product}.tmp").replace(product)


def inputs() -> list[Path]:
    return [*toolchain.CSRC.glob("*.[ch]"), *LUA.glob("*.[ch]")]


def module() -> Path:
    """The Lua module as luarocks would build it: with no flag about symbols."""
    product = OUT / "plain" / "zmalloc.so"
    with toolchain.building():
        if toolchain.is_older(product, inputs()):
            compile_module(toolchain.CSRC, LUA, product, "-O2")
    return product


def other_module() -> Path:
    """Another version of it, built in another way, whose accounts look different inside."""
    product = OUT / "other" / "zmalloc.so"
    with toolchain.building():
        if toolchain.is_older(product, inputs()):
            shutil.rmtree(product.parent, ignore_errors=True)
            csrc = Path(shutil.copytree(toolchain.CSRC, product.parent / "csrc"))
            lua = Path(shutil.copytree(LUA, product.parent / "lua"))
            change(csrc / "zmalloc.h", r'(#define ZMALLOC_VERSION) ".*"', r'\1 "99.9.9"')
            change(csrc / "zcore.h", r"    zaccount \*next;\n", r"    char other[192];\n\g<0>")
            compile_module(csrc, lua, product, "-O1", "-DNO_MALLOC_USABLE_SIZE", "-Wl,-Bsymbolic")
    return product


def change(path: Path, pattern: str, to: str) -> None:
    text, count = re.subn(pattern, to, path.read_text(encoding="utf-8"))
    assert count == 1, f"{path.name}: {pattern} is there {count} times"
    path.write_text(text, encoding="utf-8")


def has_libpython() -> bool:
    version = sysconfig.get_config_var("LDVERSION")
    folders = [sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LIBPL")]
    return any(Path(folder, f"libpython{version}{end}").exists()
               for folder in folders for end in (".so", ".a"))


def host(*settings: str, name: str = "host") -> Path:
    """examples/host.c with this interpreter inside."""
    python = Path(os.path.realpath(sys.executable))
    folder = f"build/test/together/{name}-{python.as_posix().strip('/').replace('/', '_')}"
    command = ["make", "-s", f"PYTHON={python}", f"HOST_OUT={folder}", *settings, f"{folder}/host"]
    with toolchain.building():
        toolchain.must(command, env=toolchain.clean_environment())
    return ROOT / folder / "host"
