"""Programs that raise, catch and keep exceptions of their own while memory runs out."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from typing import Any

from . import Run, load


@load("errors.kept_exceptions")
def kept_exceptions(run: Run) -> None:
    kept = []
    while True:
        try:
            raise ValueError(len(kept))
        except ValueError as error:
            kept.append(error)


@load("errors.chained_exceptions")
def chained_exceptions(run: Run) -> None:
    kept = []
    while True:
        try:
            try:
                try:
                    [][1]
                except IndexError as error:
                    raise KeyError(len(kept)) from error
            except KeyError:
                raise ValueError("no")  # noqa: B904 # the implicit chain is meant
        except ValueError as error:
            kept.append(error)


def fail_below(depth: int) -> None:
    if depth:
        fail_below(depth - 1)
    else:
        raise OSError(2, "nothing there")


@load("errors.deep_tracebacks")
def deep_tracebacks(run: Run) -> None:
    kept = []
    while True:
        try:
            fail_below(50)
        except OSError as error:
            kept.append(error)


def show_once(run: Run) -> None:
    """linecache keeps the source, which would be left above a small limit at the end."""
    try:
        fail_below(5)
    except OSError:
        traceback.format_exc()


@load("errors.formatted", slow=True, before=show_once)
def formatted(run: Run) -> None:
    kept = []
    while True:
        try:
            fail_below(5)
        except OSError:
            kept.append(traceback.format_exc())


@load("errors.traceback_objects", slow=True)
def traceback_objects(run: Run) -> None:
    def describe() -> Any:
        try:
            fail_below(10)
        except OSError as error:
            return traceback.TracebackException.from_exception(error, capture_locals=True)

    kept = []
    while True:
        kept.append(describe())


@load("errors.growing_in_except")
def growing_in_except(run: Run) -> None:
    try:
        fail_below(3)
    except OSError:
        kept = []
        while True:
            kept.append([0] * 10)


@load("errors.growing_in_finally")
def growing_in_finally(run: Run) -> None:
    kept = []
    try:
        fail_below(3)
    finally:
        while True:
            kept.append([0] * 10)


@load("errors.growing_after_a_caught_error")
def growing_after_a_caught_error(run: Run) -> None:
    kept = []
    with contextlib.suppress(OSError):
        fail_below(3)
    while True:
        kept.append({1: 2})


@load("errors.passed_on")
def passed_on(run: Run) -> None:
    def inner(kept: list[object]) -> None:
        try:
            while True:
                kept.append([0] * 10)
        except KeyError:
            run.wrong = "a KeyError came"
        finally:
            kept.append("finally")

    def outer() -> None:
        try:
            inner([])
        except (OSError, ValueError):
            run.wrong = "another error came"
        except MemoryError:
            raise

    outer()


@load("errors.from_memory_error")
def from_memory_error(run: Run) -> None:
    """The handler raises a MemoryError of its own, from the first."""
    kept = []
    try:
        while True:
            kept.append([0] * 10)
    except MemoryError as error:
        raise MemoryError("no room for the table") from error


@load("errors.own_class")
def own_class(run: Run) -> None:
    class Lost(Exception):
        def __init__(self, number: int) -> None:
            super().__init__(number)
            self.table = {n: number for n in range(20)}

    kept = []
    while True:
        try:
            raise Lost(len(kept))
        except Lost as error:
            kept.append(error.table)


@load("errors.warned")
def warned(run: Run) -> None:
    with warnings.catch_warnings(record=True) as kept:
        warnings.simplefilter("always")
        while True:
            warnings.warn(f"warning {len(kept)}", stacklevel=1)


@load("errors.groups", since=(3, 11))
def groups(run: Run) -> None:
    kept = []
    group: Any = ExceptionGroup  # type: ignore[name-defined] # noqa: F821
    while True:
        try:
            raise group("some", [ValueError(1), KeyError(2)])
        except group as error:  # type: ignore[misc]
            kept.append(error.split(ValueError))


@load("errors.stop_iteration")
def stop_iteration(run: Run) -> None:
    kept = []
    while True:
        one = iter((len(kept),))
        with contextlib.suppress(StopIteration):
            while True:
                kept.append(str(next(one)))
