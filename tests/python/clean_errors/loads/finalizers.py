"""Code that runs when something dies: an error in it is swallowed, and the next has to come."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from . import Run, load


class Closing:
    """Has a __del__ that allocates, also when the error came in its __init__."""

    log: list[Any] | None = None

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.buffer = bytearray(100)

    def __del__(self) -> None:
        if self.log is not None:
            self.log.append(f"closed {len(self.log)}")


@load("finalizers.del_methods", unraisable=True)
def del_methods(run: Run) -> None:
    log: list[Any] = []
    while True:
        Closing(log)
        log.append([0] * 10)


@load("finalizers.del_methods_while_unwinding", unraisable=True)
def del_methods_while_unwinding(run: Run) -> None:
    kept = []
    log: list[Any] = []
    while True:
        kept.append(Closing(log))


@load("finalizers.del_methods_in_cycles", unraisable=True)
def del_methods_in_cycles(run: Run) -> None:
    log: list[Any] = []
    while True:
        one: Any = Closing(log)
        one.itself = one
        log.append([0] * 5)


class Returning:
    """Comes back to life in its __del__."""

    home: list[Any] | None = None

    def __init__(self, home: list[Any]) -> None:
        self.home = home

    def __del__(self) -> None:
        if self.home is not None:
            self.home.append(self)


@load("finalizers.resurrection", unraisable=True)
def resurrection(run: Run) -> None:
    home: list[Any] = []
    while True:
        Returning(home)
        home.append([0] * 5)


@load("finalizers.weak_callbacks", unraisable=True)
def weak_callbacks(run: Run) -> None:
    log: list[Any] = []

    def gone(reference: Any) -> None:
        log.append([reference] * 5)

    while True:
        one = Closing(log)
        reference = weakref.ref(one, gone)
        del one
        log.append((reference, [0] * 5))


@load("finalizers.weakref_finalize", unraisable=True, leaves=True)
def weakref_finalize(run: Run) -> None:
    """A finalizer that an error kept from its first line stays in the module's table."""
    kept: list[Any] = []
    log: list[Any] = []
    while True:
        one = Closing(log)
        weakref.finalize(one, log.append, len(kept))
        kept.append(one)
        if len(kept) % 10 == 0:
            del kept[-5:]
        log.append([0] * 10)


@load("finalizers.generators_with_finally", unraisable=True)
def generators_with_finally(run: Run) -> None:
    log: list[Any] = []

    def guarded() -> Iterator[int]:
        try:
            yield 1
        finally:
            log.append([0] * 10)

    while True:
        next(guarded())
        log.append([0] * 10)


@load("finalizers.files", slow=True, unraisable=True)
def files(run: Run) -> None:
    """Files that are closed when they die, without a warning."""
    kept = []
    while True:
        with open("/dev/null", "w+b") as one:
            one.write(b"x" * 50)
            kept.append(one)
