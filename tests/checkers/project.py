"""A copy of the project, for what changes or rebuilds all of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from core import toolchain

FOLDERS = ("bench", "csrc", "docs", "examples", "lua", "tests", "tools", "zmalloc_py")
JUNK = shutil.ignore_patterns("__pycache__", "*.so", "*.o", ".*_cache", ".hypothesis")


def copy(to: Path) -> None:
    """With the times of the files, so that make makes nothing there again that it has made."""
    to.mkdir(parents=True, exist_ok=True)
    for path in toolchain.ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, to)
    for name in FOLDERS:
        shutil.rmtree(to / name, ignore_errors=True)
        shutil.copytree(toolchain.ROOT / name, to / name, ignore=JUNK)
