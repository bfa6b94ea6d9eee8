"""The allocators that can lie under ours: which of them this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NAMES = ("jemalloc", "mimalloc")
_SHARED = {
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
    "mimalloc": ("libmimalloc.so.2", "libmimalloc2.0"),
}


def preloadable() -> list[str]:
    """Those that can be preloaded; a line on stderr names each that is missing."""
    found = []
    for name in NAMES:
        done = subprocess.run(
            ["true"], env=preloading(name), capture_output=True, text=True, check=False
        )
        if done.returncode or done.stderr:
            library, package = _SHARED[name]
            remedy = f"On Debian and Ubuntu: apt-get install {package}"
            print(f"skipped: no {library} to preload. {remedy}", file=sys.stderr)
        else:
            found.append(name)
    return found


def preloading(name: str | None) -> dict[str, str]:
    """An environment in which a program gets its malloc from there."""
    env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    return {**env, "LD_PRELOAD": _SHARED[name][0]} if name else env


def flags(name: str) -> list[str] | None:
    """What builds the core over one of them; None, and a line on stderr, where it is missing."""
    found: list[str] = []
    for what in ("cflags", "libs"):
        command = [str(ROOT / "tools" / "backend.sh"), name, what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr.strip().replace("error:", "skipped:"), file=sys.stderr)
            return None
        found += done.stdout.split()
    return found
