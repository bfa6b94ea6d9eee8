"""Says whether a run was clean, and if not, what happened."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .loads import Load

#: Errors that CPython could give to nobody.
UNRAISABLE = re.compile(r"^(Exception ignored .*|.*weakref callback.*)$", re.MULTILINE)
IN_THREAD = re.compile(r"^Exception in thread .*$", re.MULTILINE)
NEVER = re.compile(r"^.*\b(SystemError|Fatal Python error|Segmentation fault)\b.*$", re.MULTILINE)

#: The last line of a traceback: at the left edge, "Class: text" or "Class".
LAST_LINE = re.compile(r"^(?:[a-z_.]+\.)?([A-Z]\w*)(?::.*)?$", re.MULTILINE)

NAMELESS = "an error"
OF_MEMORY = {"MemoryError", "LimitError"}


def printed(err: str, found: re.Match[str]) -> str:
    """Which exception the traceback behind that line is of."""
    last = LAST_LINE.search(err, found.end())
    return last[1] if last else NAMELESS


def on_stderr(load: Load, err: str) -> Iterator[str]:
    """What must not be there."""
    for found in NEVER.finditer(err):
        yield f"stderr: {found[0].strip()}"
    # with no memory for its traceback CPython names no error
    allowed = OF_MEMORY | {NAMELESS} | ({"RecursionError"} if load.recurses else set())
    for pattern, may in ((UNRAISABLE, load.unraisable), (IN_THREAD, load.thread_may_die)):
        for found in pattern.finditer(err):
            kind = printed(err, found)
            if not may or kind not in allowed:
                yield f"stderr: {found[0].strip()} {kind}"


def counted(lines: Iterator[str]) -> list[str]:
    """Each line once, and how often it was there; where things lie in memory does not matter."""
    seen = Counter(re.sub(r"\b0x[0-9a-f]+", "0x...", line) for line in lines)
    return [line if n == 1 else f"{line} ({n} times)" for line, n in seen.items()]


def in_result(load: Load, seen: dict[str, Any]) -> Iterator[str]:
    """What went wrong inside the process."""
    if seen["wrong"]:
        yield seen["wrong"]
    yield from error_of(load, seen)
    if seen["over"] > 0:
        yield f"{seen['over']} bytes over the hard limit"
    if seen["health"]:
        yield f"health: {seen['health']}"


def error_of(load: Load, seen: dict[str, Any]) -> Iterator[str]:
    """Whether the one who should have got the error did, and nobody else."""
    kinds = {kind for kind in (seen["kind"], seen["caller"], seen["outside"]) if kind}
    for kind in sorted(kinds - OF_MEMORY - ({"RecursionError"} if load.recurses else set())):
        yield f"{kind} instead of a MemoryError"
    left = seen["caller"] or seen["outside"]
    if load.gets == "handler":
        if left:
            yield f"{left} passed over the handler"
        elif not seen["kind"] and not load.may_succeed:
            yield "its handler got nothing"
        return
    if seen["caller"] and seen["outside"] and not load.leaves:
        yield f"after the {seen['caller']} a late {seen['outside']}"
    if not left and not load.may_succeed:
        yield "it ended without an error"
    if load.gets == "finally" and left and not seen["reached"]:
        yield f"{left} passed over the finally block"


def verdict(load: Load, status: int | None, out: str, err: str) -> list[str]:
    """What was not clean; nothing, if all was. A status of None is a process that did not end."""
    if status is None:
        return ["hang"]
    reasons = counted(on_stderr(load, err))
    if status < 0:
        return [signal.Signals(-status).name, *reasons]
    if status != 0:
        reasons.insert(0, f"exit status {status}")
    lines = out.splitlines()
    if not lines:
        return [*reasons, "the process ended before its report"]
    reasons.extend(in_result(load, json.loads(lines[-1])))
    return reasons
