"""Runs zlua, and the lua that it has to behave like."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from core import toolchain as core

from . import toolchain

LIMIT_STATUS = 53
every_lua = pytest.mark.parametrize("lua", toolchain.PACKAGES)


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@functools.cache
def built(lua: str, what: str = "zlua") -> Path:
    """A product of `make lua`: zlua, zmalloc.so, libzmalloc-lua5.4.a."""
    reason = toolchain.why_not(lua)
    if reason:
        pytest.skip(reason)
    with core.building():
        core.must(["make", "-s", "lua", f"LUA={lua}"], env=core.clean_environment())
    folder = core.ROOT / "build"
    return folder / what if (lua, what) == ("lua5.4", "zlua") else folder / lua / what


def interpreter(lua: str) -> str:
    """The lua of that version; skips where there is none."""
    reason = toolchain.why_not(lua)
    if reason:
        pytest.skip(reason)
    found = core.must([core.ROOT / "tools" / "lua.sh", lua, "command"]).strip()
    if not found:
        pytest.skip(f"no {lua} on this machine")
    return found


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LUA_", "ZMALLOC_"))
    }
    return {**inherited, **(env or {})}


def run(
    *command: str | Path,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Outcome:
    """Any signal that ends the process is a failure."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        input=stdin or b"",
        env=environment(env),
        timeout=timeout,
        capture_output=True,
        check=False,
    )
    out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    assert done.returncode >= 0, f"ended by signal {-done.returncode}\n{out}{err}"
    return Outcome(done.returncode, out, err)


def zlua(
    *arguments: str | Path,
    lua: str = "lua5.4",
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    return run(built(lua), *arguments, cwd=cwd, stdin=stdin, env=env)


def limit_line(seen: Outcome) -> str:
    """The one line about the cap, which is the last."""
    lines = [line for line in seen.err.splitlines() if line.startswith("zmalloc:")]
    assert len(lines) == 1, seen.err
    assert seen.err.splitlines()[-1] == lines[0], "after the script's traceback"
    return lines[0]
