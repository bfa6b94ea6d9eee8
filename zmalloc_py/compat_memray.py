"""``-p zmalloc.compat_memray``: the markers of pytest-memray where that is not installed.

``limit_memory(limit, current_thread_only=False)`` and ``limit_leaks(location_limit,
filter_fn=None)`` with pytest-memray's sizes and meaning, for a suite that has them and a platform
or a Python that has no memray. Where pytest-memray is active they stay its own, and this module
does nothing. What is counted is what Python holds, exactly, not what native code takes from malloc.
"""

from __future__ import annotations

import ast
import bisect
import contextlib
import linecache
import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from zmalloc._plugin import plan
from zmalloc._plugin.window import Window

MARKERS = (
    "limit_memory(limit, current_thread_only=False): as pytest-memray's: the test fails when its "
    'peak reaches limit, such as "24 MB".',
    "limit_leaks(location_limit, filter_fn=None): as pytest-memray's: the test fails when what was "
    "allocated at one place and is still there at its end reaches location_limit.",
)

#: Frames of a place, and places that a failure shows.
FRAMES, SHOWN = 25, 10

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?B)", re.IGNORECASE)
_UNITS = {"B": 0, "KB": 1, "MB": 2, "GB": 3, "TB": 4, "PB": 5}


def parse_size(value: object, what: str) -> int:
    """Bytes of a size as pytest-memray takes it: a number and B, KB, ... PB, 1024-based."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise ValueError(
            f"{what}={value!r} is not a size of pytest-memray's: expected a number and a unit of "
            "B, "
            'KB, MB, GB, TB or PB, such as "24 MB"'
        )
    return int(float(found[1]) * 1024 ** _UNITS[found[2].upper()])


def show(size: float) -> str:
    """As pytest-memray prints sizes: ``117.2KiB``."""
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if abs(size) < 1024:
            return f"{size:3.1f}{unit}B"
        size /= 1024
    return f"{size:.1f}PiB"


# ---- limit_memory --------------------------------------------------------------------------------


def _read_limit_memory(made: plan.Plan, values: plan.Values, seen: set[object]) -> object:
    text, this_thread = values.read("limit", "current_thread_only", current_thread_only=False)
    limit = parse_size(text, "limit")
    if seen:
        return "limit_memory"

    def check(window: Window) -> str | None:
        peak = window.track(not this_thread).peak
        if peak < limit:
            return None
        return f"Test was limited to {show(limit)} but allocated {show(peak)}"

    made.checks.append(check)
    made.needs_process = made.needs_process or not this_thread
    made.is_exact = True
    return "limit_memory"


# ---- limit_leaks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class StackFrame:
    """One frame of a place: the function's name ("???" if it is not known), file and line."""

    function: str
    filename: str
    lineno: int


@dataclass(frozen=True)
class Stack:
    """What filter_fn gets: the frames of a place, the most recent first."""

    frames: tuple[StackFrame, ...]


@dataclass(frozen=True)
class Place:
    """What was allocated at one place and is still there, in bytes."""

    size: int
    stack: Stack


class Tracing:
    """A context that traces what is allocated inside; places has what stayed."""

    def __init__(self) -> None:
        self.places: list[Place] = []

    def __enter__(self) -> None:
        self._was_tracing = tracemalloc.is_tracing()
        if not self._was_tracing:
            tracemalloc.start(FRAMES)
        self._before = tracemalloc.take_snapshot()

    def __exit__(self, *exc: object) -> None:
        after = tracemalloc.take_snapshot()
        if not self._was_tracing:
            tracemalloc.stop()
        grown = after.compare_to(self._before, "traceback")
        del self._before
        self.places = [
            Place(line.size_diff, Stack(tuple(_frames(line.traceback))))
            for line in grown
            if line.size_diff > 0
        ]


def _frames(traceback: tracemalloc.Traceback) -> Iterator[StackFrame]:
    for frame in reversed(traceback):
        yield StackFrame(_function_at(frame.filename, frame.lineno), frame.filename, frame.lineno)


def _function_at(filename: str, lineno: int) -> str:
    starts = _functions(filename)
    i = bisect.bisect_right(starts, (lineno, "\U0010ffff", 0)) - 1
    while i >= 0:
        _, name, end = starts[i]
        if end >= lineno:
            return name
        i -= 1
    return "<module>" if starts else "???"


_known: dict[str, list[tuple[int, str, int]]] = {}


def _functions(filename: str) -> list[tuple[int, str, int]]:
    """First line, name and last line of each function of a file, in order."""
    if filename not in _known:
        found = []
        with contextlib.suppress(SyntaxError, ValueError):
            for node in ast.walk(ast.parse("".join(linecache.getlines(filename)))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found.append((node.lineno, node.name, node.end_lineno or node.lineno))
        _known[filename] = sorted(found)
    return _known[filename]


Filter = Callable[[Stack], bool]


def _read_limit_leaks(made: plan.Plan, values: plan.Values, seen: set[object]) -> object:
    text, this_thread = values.read(
        "location_limit", "current_thread_only", allow=("filter_fn",), current_thread_only=False
    )
    filter_fn = values.raw("filter_fn")
    limit = parse_size(text, "location_limit")
    if this_thread:
        raise ValueError(
            f"current_thread_only={this_thread!r} is not possible without memray: what is traced "
            "here is not told apart by thread"
        )
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(f"filter_fn={filter_fn!r} cannot be called")
    if seen:
        return "limit_leaks"
    tracing = Tracing()

    def check(window: Window) -> str | None:
        return _judge(tracing.places, limit, filter_fn)

    made.around.append(tracing)
    made.checks.append(check)
    made.is_exact = True
    return "limit_leaks"


def _judge(places: list[Place], limit: int, filter_fn: Filter | None) -> str | None:
    leaks = [
        place
        for place in places
        if place.size >= limit and (filter_fn is None or filter_fn(place.stack))
    ]
    if not leaks:
        return None
    text = [
        f"Test was allowed to leak {show(limit)} per location but at least one location leaked "
        "more",
        "List of leaked allocations:",
    ]
    for place in sorted(leaks, key=lambda place: -place.size)[:SHOWN]:
        text.append(f"    - {show(place.size)} allocated here:")
        text += [f"        {f.function}:{f.filename}:{f.lineno}" for f in place.stack.frames[:5]]
    if len(leaks) > SHOWN:
        text.append(f"    ...and {len(leaks) - SHOWN} more")
    return "\n".join(text)


# ---- hooks ---------------------------------------------------------------------------------------


def _has_memray(config: pytest.Config) -> bool:
    return config.pluginmanager.hasplugin("memray")


def pytest_configure(config: pytest.Config) -> None:
    if _has_memray(config):
        return
    if not config.pluginmanager.hasplugin("zmalloc") and not config.pluginmanager.hasplugin(
        "zmalloc.pytest_plugin"
    ):
        raise pytest.UsageError(
            "-p zmalloc.compat_memray needs zmalloc's own plugin, too: -p zmalloc"
        )
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    plan.add_reader("limit_memory", _read_limit_memory)
    plan.add_reader("limit_leaks", _read_limit_leaks)


def pytest_unconfigure(config: pytest.Config) -> None:
    plan.remove_reader("limit_memory")
    plan.remove_reader("limit_leaks")


def pytest_report_header(config: pytest.Config) -> str | None:
    if not _has_memray(config):
        return None
    return (
        "zmalloc.compat_memray: pytest-memray is active, limit_memory and limit_leaks are its own"
    )
