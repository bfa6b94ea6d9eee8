"""One part of the matrix, in this process: all loops x handlers in functions, or generators, ...

    python tests/python/clean_errors cells WRAPPER TIMES TRACER PIECE-OFF ONLY

prints a line of JSON. A cell is right if the handler beside the loop got the LimitError, once, and
nobody else but those to whom it is passed on; and if nothing came near the hard limit.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import itertools
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmalloc

from . import shapes
from .child import switch_off

LimitError: type[MemoryError] = getattr(zmalloc, "LimitError", MemoryError)

#: Bytes that a loop may take, and how much later each further round of a cell meets its limit.
ROOM = 1 << 17
SHIFT = 48

#: Seconds that a cell may take; then the process ends with the traces of its threads.
DEADLINE = 60

Shape = Callable[..., Any]


@dataclass(frozen=True)
class Cell:
    wrapper: str
    handler: str
    loop: str
    where: str  #: main or worker

    @property
    def expected(self) -> tuple[list[object], object]:
        """What is noted, and what becomes of the call."""
        passed_on = self.handler in shapes.PASSES_ON
        notes = shapes.NOTES.get(self.handler, [LimitError])
        return notes, LimitError if passed_on else "returned"


def limit(room: int) -> zmalloc.Limit:
    n = zmalloc.used() + room
    if not hasattr(zmalloc, "LimitError"):
        return zmalloc.limit(n)
    return zmalloc.limit(n, reserve="16 MiB")  # type: ignore[call-overload, no-any-return]


def run(cell: Cell, shape: Shape, room: int) -> tuple[list[object], object]:
    """What was noted, and what became of the call."""
    items: list[object] = []
    got: list[object] = []
    manager, flag, quiet = shapes.Manager(got), shapes.Flag(), shapes.Quiet()
    arguments = (items, flag, itertools.repeat(0), (1, 2, 3), quiet, manager, got)
    end: object = "nothing"
    try:
        with limit(room):
            shapes.FINISH[cell.wrapper](shape(*arguments))
            end = "returned"
            items.clear()
    except BaseException as error:
        end = type(error)
    return got, end


def run_where(cell: Cell, shape: Shape, room: int) -> tuple[list[object], object]:
    """In main, or in a thread while main joins it."""
    if cell.where == "main":
        return run(cell, shape, room)
    results: list[tuple[list[object], object]] = []
    worker = threading.Thread(target=lambda: results.append(run(cell, shape, room)))
    worker.start()
    worker.join()
    return results[0] if results else ([], "the thread died")


def make(name: str, loop: str, handler: str, wrapper: str, folder: Path) -> Shape:
    """The function, from a file: a tracer would not look at anything else."""
    text = shapes.source(name, shapes.LOOPS[loop], shapes.HANDLERS[handler], wrapper)
    path = folder / f"{name}.py"
    path.write_text(text)
    scope: dict[str, Any] = {"asyncio": asyncio, "itertools": itertools}
    exec(compile(text, str(path), "exec"), scope)
    shape: Shape = scope[name]
    return shape


def trace(tracer: str, folder: Path) -> Callable[[], bool]:
    """Starts coverage's C tracer, or sys.monitoring; returns what ends it and says if it traced."""
    if tracer == "none":
        return lambda: True
    os.environ["COVERAGE_CORE"] = tracer
    import coverage

    measuring = coverage.Coverage(data_file=None, source=[str(folder)])
    measuring.start()

    def end() -> bool:
        measuring.stop()
        core = dict(measuring.sys_info()).get("core", "")
        names = {"ctrace": "CTracer", "sysmon": "SysMonitor"}
        return names[tracer] in str(core) and bool(measuring.get_data().measured_files())

    return end


def plain(value: object) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


def run_cells(wrapper: str, times: int, only: str, folder: Path) -> dict[str, Any]:
    """Runs each cell `times` times, each time at another place of its loop.

    A trace function looks for its line in the table of all lines, which takes seconds where there
    are thousands of them: `only` leaves such a loop out.
    """
    wrong, count, right = [], 0, 0
    asyncio.run(asyncio.sleep(0))  # what its first use makes stays
    gc.freeze()  # each verdict collects
    for number, (handler, loop) in enumerate(itertools.product(shapes.HANDLERS, shapes.LOOPS)):
        if not re.search(only, f"{wrapper} {handler} {loop}"):
            continue
        shape = make(f"shape_{number}", loop, handler, wrapper, folder)
        table = getattr(shape.__code__, "co_exceptiontable", None)
        for where, turn in itertools.product(("main", "worker"), range(times)):
            cell = Cell(wrapper, handler, loop, where)
            faulthandler.dump_traceback_later(DEADLINE, exit=True)
            print(wrapper, handler, loop, where, turn, file=sys.stderr, flush=True)
            before = zmalloc.stats().refusals
            got, end = run_where(cell, shape, ROOM + turn * SHIFT)
            refused = zmalloc.stats().refusals - before if LimitError is not MemoryError else 0
            same = getattr(shape.__code__, "co_exceptiontable", None) is table
            count += 1
            if (got, end) == cell.expected and not refused and same:
                right += 1
                continue
            notes = ", ".join(map(plain, got)) or "nothing"
            extra = f", {refused} refused" if refused else "" if same else ", the table is patched"
            wrong.append(
                f"{wrapper} {handler} {loop} {where} {turn}: noted {notes}, "
                f"then {plain(end)}{extra}"
            )
    return {"cells": count, "right": right, "wrong": wrong}


def main(arguments: list[str]) -> int:
    wrapper, times, tracer, piece, only = arguments[1:]
    switch_off(None if piece == "-" else piece)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        end = trace(tracer, folder)
        if tracer != "none":
            only = f"(?!.* huge_)(?=.*(?:{only}))^"
        result = run_cells(wrapper, int(times), only, folder)
        result["traced"] = end()
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(result), flush=True)
    return 0
