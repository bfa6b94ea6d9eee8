"""The Python API under atheris: any calls with any arguments, in any order.

Nothing but the errors that the README names may come out of it; at the end of each input no limit
is left, and the map of live blocks says what the counters say.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import zmalloc  # first: what the others allocate counts

import atheris  # isort: skip

EXPECTED = (MemoryError, ValueError, TypeError, OverflowError)
SCOPES: list[Any] = [
    lambda n: zmalloc.budget(n),
    lambda n: zmalloc.budget(n, thread=True),
    lambda n: zmalloc.budget(n, reserve=0),
    lambda n: zmalloc.limit(zmalloc.used() + n),
    lambda n: zmalloc.track(),
    lambda n: zmalloc.track(thread=True),
    lambda n: zmalloc.exempt(),
    lambda n: zmalloc.fail_after(n % 50),
]


def take_any(data: atheris.FuzzedDataProvider) -> Any:
    """An argument, most of them wrong."""
    kind = data.ConsumeIntInRange(0, 9)
    if kind < 4:
        return data.ConsumeUnicode(12)
    if kind == 4:
        return f"{data.ConsumeIntInRange(0, 200)}{data.ConsumeUnicode(4)}"
    if kind == 5:
        return data.ConsumeInt(9)
    if kind == 6:
        return data.ConsumeFloat()
    return [None, (), b"1", True, object(), "1 GiB", 1 << 40][data.ConsumeIntInRange(0, 6)]


CALLS: list[Any] = [
    zmalloc.limit, zmalloc.budget, zmalloc.fail_after, zmalloc.on_pressure,
    lambda x: zmalloc.on_pressure(x, remove=True),
    lambda x: zmalloc.budget(1 << 40, reserve=x),
    lambda x: zmalloc.limit(1 << 40, held=x),
    lambda x: zmalloc.limit(x, reserve=x),
]
MAKE: list[Any] = [bytes, lambda n: [None] * (n // 8), lambda n: [str(i) for i in range(n >> 8)]]


def plan(raw: bytes) -> list[tuple[int, int, int, Any]]:
    """What to do, read before any request can be refused: atheris does not survive that."""
    data = atheris.FuzzedDataProvider(raw)
    steps = []
    while data.remaining_bytes():
        what = data.ConsumeIntInRange(0, 9)
        steps.append((what, data.ConsumeIntInRange(0, 7), data.ConsumeIntInRange(1, 1 << 20),
                      take_any(data) if what == 7 else None))
    return steps


def step(what: int, which: int, size: int, argument: Any, kept: list[Any],
         entered: list[Any]) -> None:
    if what < 3:
        kept.append(MAKE[which % 3](size >> 2))
        del kept[:-16]
    elif what == 3:
        kept.clear()
    elif what < 6:
        scope = SCOPES[which](size)
        if len(entered) < 6:
            entered.append(scope)
            scope.__enter__()
    elif what == 6 and entered:
        entered.pop(which % len(entered)).__exit__(None, None, None)
    elif what == 7:
        CALLS[which](argument)
    elif what == 8:
        zmalloc.limit(None)
    else:
        figures = zmalloc.stats()
        assert figures.used <= figures.peak
        str(figures), zmalloc.reset_peak(), zmalloc.rss()


def leave(entered: list[Any]) -> None:
    """Whatever refuses requests, until nothing does."""
    while entered:
        try:
            entered[-1].__exit__(None, None, None)
        except RuntimeError:
            pass  # it has been left, or its beginning was refused
        except EXPECTED:
            continue  # the error of its end, or an injected failure
        entered.pop()
    zmalloc.limit(None)


def one_input(raw: bytes) -> None:
    steps = plan(raw)
    kept: list[Any] = []
    entered: list[Any] = []
    try:
        for each in steps:
            try:  # noqa: SIM105 (suppress() is one more thing that may be refused)
                step(*each, kept, entered)
            except EXPECTED:
                pass
    except MemoryError:
        pass  # between two steps
    while True:
        try:
            leave(entered)
            break
        except MemoryError:
            pass
    kept.clear()
    assert zmalloc.limit() is None
    assert zmalloc.is_installed()
    gc.collect()
    seen = zmalloc.audit()
    assert seen.used == seen.counted, (seen.used, seen.counted)


if __name__ == "__main__":
    for function in (take_any, plan, step):
        atheris.instrument_func(function)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
