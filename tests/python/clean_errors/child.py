"""Runs one load under one cap, in this process, and prints what happened as a line of JSON.

    python tests/python/clean_errors child NAME ROOM RESERVE PIECE-OFF WORKER

It judges nothing: judge.py does, with what is on stderr and how the process ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import resource
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import zmalloc

from . import loads
from .loads import Load, Run

#: What a process may have of the machine, should the cap not hold.
ADDRESS_SPACE = 6 << 30

#: Modules that nothing has imported by then, one of them a package.
FRESH = ("colorsys", "wsgiref.headers")


def make_limit(room: int, reserve: str | None) -> zmalloc.Limit:
    """A limit `room` bytes from here; a core that has no reserve gets none."""
    n = zmalloc.used() + room
    if reserve is None or not hasattr(zmalloc, "LimitError"):
        return zmalloc.limit(n)
    return zmalloc.limit(n, reserve=int(reserve))  # type: ignore[call-overload, no-any-return]


def switch_off(piece: str | None) -> None:
    """Turns off one of the pieces that a cap is made of: repair, debt or close."""
    if piece is not None:
        zmalloc._core._pieces(**{piece: False})  # type: ignore[attr-defined]


def run_below(
    scope: Callable[[], AbstractContextManager[object]],
    load: Load,
    run: Run,
    hard: Callable[[], int],
    peak: Callable[[], int],
) -> None:
    """Runs the load in the scope. What is written down here takes no memory."""
    filling = max(0, run.room - loads.SLOW_ROOM) if load.slow else 0
    try:
        with scope():
            run.hard = hard()
            ballast = bytearray(filling)
            try:
                load.function(run)
                run.where = "returned"
            except BaseException as error:
                run.caller = type(error)
                run.where = "raised"
            run.peak = peak()
            del ballast
    except BaseException as error:
        run.outside = type(error)
    run.peak = run.peak or peak()


def under_cap(load: Load, run: Run, reserve: str | None) -> None:
    """Below the limit."""
    zmalloc.reset_peak()
    run_below(
        lambda: make_limit(run.room, reserve),
        load,
        run,
        lambda: zmalloc.stats().hard_limit or 0,
        zmalloc.peak,
    )


def under_budget(load: Load, run: Run, reserve: str | None) -> None:
    """Below a budget of this thread; in mode `held`, which has none, of the process."""
    beyond = int(reserve or 0)
    is_thread = zmalloc.mode() == "exact"
    budget = zmalloc.budget(run.room, thread=is_thread, reserve=beyond)
    run_below(lambda: budget, load, run, lambda: run.room + beyond, lambda: budget.peak)


def in_worker(load: Load, run: Run, reserve: str | None) -> str | None:
    """The same in a thread, which main waits for. Returns what main got, which is nothing."""
    wrong = None
    ended = threading.Lock()
    ended.acquire()

    def work() -> None:
        gate.acquire()
        try:
            under_cap(load, run, reserve)
        finally:
            ended.release()

    gate = threading.Lock()
    gate.acquire()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        gate.release()
        ended.acquire()
    except BaseException as error:
        wrong = f"main got the worker's {type(error).__name__}"
    worker.join()
    return wrong


def counted_right() -> bool:
    """A thread that has been joined may be freeing its last block still."""
    end = time.monotonic() + 5
    while True:
        seen = zmalloc.audit()
        if seen.used == seen.counted:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.001)


def grows() -> None:
    """No error may come any more, whatever is taken."""
    kept = []
    for n in range(30_000):
        kept.append([n] * 10)
    kept.append([b"x" * (12 << 20)])
    assert len(kept) == 30_001


def runs_a_thread() -> None:
    results: list[int] = []
    worker = threading.Thread(target=lambda: results.append(sum(range(100))))
    worker.start()
    worker.join(30)
    assert results == [4950], results


def round_trip() -> None:
    value = {"list": [1, 2.5, None, True], "text": "é" * 20, "nested": {"a": [[]]}}
    assert json.loads(json.dumps(value)) == value


def imports() -> None:
    for name in FRESH:
        assert importlib.import_module(name).__name__ == name


def health(load: Load, run: Run) -> str | None:
    """What is wrong with the process now, after the limit has ended; None if nothing is."""
    checks = (gc.collect, round_trip, imports, runs_a_thread, grows)
    for check in checks:
        try:
            check()
        except BaseException as error:
            return f"{check.__name__}: {type(error).__name__}: {error}"
    if load.after is not None and (wrong := load.after(run)):
        return wrong
    if zmalloc.limit() is not None:
        return "a limit is in force"
    return None if counted_right() else f"the counters are wrong: {zmalloc.audit()}"


def _name(kind: type[BaseException] | None) -> str | None:
    return None if kind is None else kind.__name__


def main(arguments: list[str]) -> int:
    name, room, reserve, piece, where = (None if word == "-" else word for word in arguments[1:])
    assert name is not None
    assert room is not None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    load = loads.find(name)
    run = Run(int(room))
    switch_off(piece)
    if load.before is not None:
        load.before(run)
    zmalloc.stats().hard_limit  # noqa: B018 # its first call makes what later ones use
    gc.collect()
    wrong = None
    if where == "worker":
        wrong = in_worker(load, run, reserve)
    elif where == "budget":
        under_budget(load, run, reserve)
    else:
        under_cap(load, run, reserve)
    result = {
        "kind": _name(run.kind),
        "reached": run.reached,
        "where": run.where,
        "caller": _name(run.caller),
        "outside": _name(run.outside),
        "wrong": wrong or run.wrong,
        "over": run.peak - run.hard,
        "health": health(load, run),
    }
    print(json.dumps(result), flush=True)
    return 0
