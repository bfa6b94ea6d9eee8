"""The matrix: loops x handlers x function, generator, coroutine x main, worker.

Each kind of function of each Python runs in a process of its own (cells.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from . import shapes
from .runner import FOLDER, describe, last_line, shorter, start

#: A process runs some hundreds of cells, each a few milliseconds; a tracer makes that ten times.
TIMEOUT = 600.0
SHOWN = 20


@dataclass(frozen=True)
class Part:
    """What one process runs."""

    python: str
    wrapper: str
    times: int = 1
    tracer: str = "none"
    off: str | None = None
    only: str = ""
    mode: str = "exact"

    @property
    def command(self) -> list[str]:
        words = [self.wrapper, str(self.times), self.tracer, self.off or "-", self.only]
        return [self.python, "-X", "faulthandler", str(FOLDER), "cells", *words]


@dataclass(frozen=True)
class Result:
    part: Part
    version: str
    seen: dict[str, Any]
    problem: str  #: what kept the process from a report

    @property
    def right(self) -> bool:
        return not self.problem and self.seen["right"] == self.seen["cells"]

    @property
    def problems(self) -> list[str]:
        """What was not right, and how to see it again."""
        again = shlex.join([shorter(word) for word in self.part.command])
        shown = [self.problem] if self.problem else self.seen["wrong"][:SHOWN]
        more = len(self.seen.get("wrong", ())) - SHOWN
        return [*shown, *([f"and {more} more"] if more > 0 else []), again]


def run(part: Part, version: str) -> Result:
    status, out, err = start(part.command, 0, TIMEOUT, part.mode)
    seen = last_line(out)
    problem = ""
    if status != 0 or not seen:
        problem = f"status {status}\n{err[-1500:]}"
    elif not seen["traced"]:
        problem = f"{part.tracer} did not trace it"
    return Result(part, version, seen, problem)


def run_all(
    pythons: Sequence[str],
    *,
    processes: int,
    times: int,
    tracer: str,
    off: str | None,
    mode: str,
    only: str,
    done: Callable[[Result], object],
) -> list[Result]:
    parts = [
        (Part(python, wrapper, times, tracer, off, only, mode), describe(python)[0])
        for python in pythons
        for wrapper in shapes.WRAPPERS
    ]
    with ThreadPoolExecutor(processes) as pool:
        results = []
        for result in pool.map(lambda one: run(*one), parts):
            done(result)
            results.append(result)
    return results


def report(results: Sequence[Result]) -> Iterator[str]:
    """By version of Python and kind of function: how many cells are right."""
    yield f"{'Python':<10}{'kind':<12}{'tracer':<8}{'off':<8}{'cells':>8}{'right':>8}"
    for one in results:
        part, seen = one.part, one.seen
        yield (
            f"{one.version:<10}{part.wrapper:<12}{part.tracer:<8}{part.off or '-':<8}"
            f"{seen.get('cells', 0):>8}{seen.get('right', 0):>8}"
        )
    for one in results:
        if not one.right:
            yield f"\n{one.version} {one.part.wrapper}:"
            yield from (f"    {line}" for line in one.problems)
