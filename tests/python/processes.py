"""Python in a process of its own: for what needs other variables, caps or exit statuses.

Every run has a time limit, and one that ends by a signal (a crash) fails the test that started it,
unless the test says that it expects a signal.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: How long a process may take, on a slow machine, too.
TIMEOUT = 120.0

#: The interpreter's own debug build prints more; nothing here depends on that.
MODES = ("pymalloc", "malloc", "debug", "pymalloc_debug", "malloc_debug")


@dataclass(frozen=True)
class Outcome:
    """What a process has left behind."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The last line of its output, which is a Python literal."""
        lines = self.out.splitlines()
        assert lines, f"nothing was printed; status {self.status}, stderr:\n{self.err}"
        return ast.literal_eval(lines[-1])


def clean_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment without what would change Python or zmalloc, and with `changes`."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "ZMALLOC_", "PYTEST_", "COV_"))
    }
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    for name, value in (changes or {}).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str | None] | None = None,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    timeout: float = TIMEOUT,
    may_be_killed: bool = False,
) -> Outcome:
    """Run a command to its end. Output that is no UTF-8 keeps its bytes as lone surrogates."""
    done = subprocess.run(
        [str(word) for word in command],
        env=clean_environment(env),
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        cwd=cwd,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    out = done.stdout.decode("utf-8", "surrogateescape")
    err = done.stderr.decode("utf-8", "surrogateescape")
    if not may_be_killed:
        assert done.returncode >= 0, f"ended by signal {-done.returncode}\n{out}{err}"
    return Outcome(done.returncode, out, err)


def python(
    *arguments: str | Path,
    options: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    timeout: float = TIMEOUT,
    may_be_killed: bool = False,
) -> Outcome:
    """Run this interpreter with `options` before and `arguments` after."""
    return run(
        [sys.executable, *options, *arguments],
        env=env,
        stdin=stdin,
        cwd=cwd,
        timeout=timeout,
        may_be_killed=may_be_killed,
    )


def snippet(
    code: str,
    *arguments: str,
    options: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    timeout: float = TIMEOUT,
) -> Outcome:
    """Run code in a process of its own, which has to end with status 0."""
    source = textwrap.dedent(code)
    outcome = python("-c", source, *arguments, options=options, env=env, timeout=timeout)
    assert outcome.status == 0, f"status {outcome.status}\n{outcome.out}{outcome.err}"
    return outcome
