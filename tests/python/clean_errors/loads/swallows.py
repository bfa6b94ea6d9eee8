"""Programs that swallow a MemoryError and go on, and are stopped all the same."""

from __future__ import annotations

import collections
import itertools
from typing import Any

from . import Run, load


def run_away() -> None:
    kept = []
    while True:
        kept.append([0] * 10)


@load("swallows.one_impossible_request")
def one_impossible_request(run: Run) -> None:
    try:
        bytearray(10**10)
    except MemoryError:
        run_away()
        return
    run.wrong = "10 GB were granted"


@load("swallows.one_impossible_request_near_the_limit")
def one_near_the_limit(run: Run) -> None:
    """What is refused far above must not open what is kept for the unwinding."""
    held = bytearray(run.room - 30_000)
    try:
        held += bytearray(10**10)
    except MemoryError:
        pass
    else:
        run.wrong = "10 GB were granted"
    kept: list[Any] = [held]
    while True:
        kept.append([0] * 10)


@load("swallows.many_impossible_requests")
def many_impossible_requests(run: Run) -> None:
    kept = []
    while True:
        try:
            kept.append(bytearray(10**10))
        except MemoryError:
            kept.append(bytearray(100))


@load("swallows.impossible_requests_only", may_succeed=True, gets="handler")
def impossible_requests_only(run: Run) -> None:
    """Use never passes the limit: each request is refused on its own line, and nothing else is."""
    for n in range(200):
        try:
            bytearray(10**10 + n)
        except MemoryError as error:
            run.kind = type(error)
        else:
            run.wrong = "10 GB were granted"


@load("swallows.every_tenth_error", slow=True, gets="handler")
def every_tenth_error(run: Run) -> None:
    """Nine times out of ten the handler frees what it can; the tenth it forgets to."""
    kept: list[Any] = []
    errors = 0
    while errors < 20:
        try:
            while True:
                kept.append([0] * 10)
        except MemoryError as error:
            run.kind = type(error)
            errors += 1
            if errors % 10:
                kept.clear()


@load("swallows.all_of_the_first_fifty", slow=True)
def all_of_the_first_fifty(run: Run) -> None:
    kept = []
    errors = 0
    while True:
        try:
            kept.append([0] * 10)
        except MemoryError:
            errors += 1
            if errors > 50:
                raise


@load("swallows.and_asks_for_less", gets="handler")
def and_asks_for_less(run: Run) -> None:
    """Halves its request until it is granted, as a cache does that looks for its size."""
    size = run.room * 64
    granted: list[bytearray] = []
    while not granted and size > 1000:
        try:
            granted.append(bytearray(size))
        except MemoryError as error:
            run.kind = type(error)
            size //= 2
    if not granted:
        run.wrong = "nothing was granted"


@load("swallows.c_loops_deep_down", gets="handler", least=200_000)
def c_loops_deep_down(run: Run) -> None:
    """Is refused below 100 calls, ten times: each time there has to be memory to unwind them."""

    def descend(n: int, kept: collections.deque[str]) -> None:
        if n:
            descend(n - 1, kept)
        kept.extend(map(str, itertools.count()))

    for _ in range(10):
        try:
            descend(100, collections.deque())
        except MemoryError as error:
            run.kind = type(error)


@load("swallows.in_a_callback")
def in_a_callback(run: Run) -> None:
    """Called from C, which goes on after the callback has swallowed the error."""
    kept: list[Any] = []

    def key(n: int) -> int:
        try:
            kept.append([n] * 10)
        except MemoryError:
            kept.append(None)
        return -n

    while True:
        sorted(range(200), key=key)


@load("swallows.and_raises_another")
def and_raises_another(run: Run) -> None:
    """A library that wraps each error in one of its own; the caller unwraps it."""

    class LibraryError(Exception):
        pass

    try:
        try:
            run_away()
        except Exception as error:
            raise LibraryError("it did not work") from error
    except LibraryError as error:
        cause = error.__cause__
        assert cause is not None
        raise cause from None
