"""Who is compared: what each puts in place in a process before the benchmark begins.

Each runs in a process of its own, and start() is called there before anything else is imported. A
cap or a budget is far away, so that nothing is ever refused.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

FAR = "16 GiB"

STOCK = "stock"
AGAIN = "stock again"  # the same once more: what the machine's noise alone gives
HOOK = "pass-through"
COUNTING = "zmalloc"
CAPPED = "zmalloc, capped"
BUDGET = "zmalloc, thread budget"
UNCAPPED = "held"
HELD = "held, capped"
TRACEMALLOC = "tracemalloc"
MEMRAY = "memray"
MEMRAY_PYTHON = "memray, python allocators"
SCALENE = "scalene"


def _zmalloc(mode: str = "exact") -> Any:
    os.environ["ZMALLOC_MODE"] = mode
    return importlib.import_module("zmalloc")


def _enter(stack: contextlib.ExitStack, name: str) -> None:
    if name in (COUNTING, CAPPED, BUDGET):
        zmalloc = _zmalloc()
        if name == CAPPED:
            stack.enter_context(zmalloc.limit(FAR))
        if name == BUDGET:
            stack.enter_context(zmalloc.budget(FAR, thread=True))
    elif name in (UNCAPPED, HELD):
        zmalloc = _zmalloc("held")
        if name == HELD:
            stack.enter_context(zmalloc.limit(FAR))
    elif name == HOOK:
        importlib.import_module("zmalloc_passthrough")
    elif name == TRACEMALLOC:
        importlib.import_module("tracemalloc").start()
    elif name in (MEMRAY, MEMRAY_PYTHON):
        memray = importlib.import_module("memray")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(
            memray.Tracker(folder / "capture", trace_python_allocators=name == MEMRAY_PYTHON)
        )
    elif name not in (STOCK, AGAIN, SCALENE):  # scalene starts the program itself
        raise SystemExit(f"{name!r} is no contender")


def start(name: str) -> contextlib.ExitStack:
    """Leave what is returned when the benchmark has ended."""
    stack = contextlib.ExitStack()
    if RESIDENT in os.environ:
        stack.callback(_tell_resident, Path(os.environ[RESIDENT]))
    _enter(stack, name)
    return stack


#: Names the file that gets the peak of resident memory. What the kernel tells a parent when a child
#: has ended is no less than the parent's own.
RESIDENT = "ZMALLOC_BENCH_RESIDENT"


def peak_resident() -> int:
    """Of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


def _tell_resident(target: Path) -> None:
    target.write_text(str(peak_resident()))


#: What a contender needs from PyPI; the others need nothing.
PACKAGES: dict[str, str] = {MEMRAY: "memray", MEMRAY_PYTHON: "memray", SCALENE: "scalene"}


def command(python: str, name: str, program: list[str]) -> list[str]:
    """How a contender runs a Python program, given as its file and arguments."""
    if name != SCALENE:
        return [python, *program]
    return [python, "-m", "scalene", "run", "-o", os.devnull, program[0], "---", *program[1:]]
