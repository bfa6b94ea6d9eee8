"""Measuring the call of one test.

A window opens immediately before the test's function is called and closes as it returns, so that
nothing of pytest's own is in it. What would make the figures of one run differ from those of
another is dealt with before: garbage, free lists, caches, and the place in CPython's frame chunks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Generator
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple, NoReturn

import pytest
import zmalloc
from zmalloc._plugin import sizes
from zmalloc._plugin.plan import Peak, Plan

#: Where the figures of a test are kept, and what its memory fixture shows.
FIGURES: pytest.StashKey[Figures] = pytest.StashKey()
WINDOW: pytest.StashKey[Window] = pytest.StashKey()

#: Where a figure is for people only, garbage of earlier tests is collected once they have left this
#: much, in bytes: of the young generations, for all of them take long in a suite of many tests.
SLACK = 64 << 10

#: How long the interpreter lock is left to others before an exact window, and how long one that
#: waits for it then goes on doing so while the test does not let go of it; in seconds.
PAUSE, PATIENCE = 0.0002, 0.1

GONE = (
    "zmalloc's hooks are not in CPython's allocators: {why}. What the test takes cannot be "
    "counted, so nothing about its memory is asserted"
)
AT_START = (
    "another tool (memray's Tracker, a tracemalloc.stop()) has taken them out before the test"
)
IN_TEST = "something in the test (memray's Tracker, a tracemalloc.stop()) has taken them out"
NEVER = "ZMALLOC_NO_INSTALL has kept them out"


class Figures(NamedTuple):
    """Of one call, in bytes beyond the start, and blocks: of the test's thread if it is measured
    exactly, else of the process.
    """

    used: int
    peak: int
    allocations: int


def clear_caches() -> None:
    """Collects all garbage, with what CPython keeps in its free lists and caches of types."""
    _clear_types()
    gc.collect()


_clear_types: Callable[[], object] = (
    getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
)


# ---- the call ------------------------------------------------------------------------------------


def _measure(window: Window, call: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Calls it below the limit. Entering and leaving that frees objects, so it is outside of the
    tracks.
    """
    __tracebackhide__ = True
    window.at_start()
    if window.budget is None:
        _track(window, call, args)
    else:
        with window.budget:
            _track(window, call, args)
            window.was_hit = window.budget.hit


def _track(window: Window, call: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Calls it between the beginning and the end of the measurement, which allocate nothing."""
    __tracebackhide__ = True
    window.enter_whole()
    window.enter_process()
    window.enter_own()
    try:
        try:
            call(*args)
        finally:
            window.leave_own(None, None, None)
            window.leave_process(None, None, None)
        window.at_end()
    finally:
        window.leave_whole(None, None, None)


def _in_room(window: Window, call: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Its frame is large, see below: so the one that measures is another."""
    __tracebackhide__ = True
    _measure(window, call, args)


if sys.version_info >= (3, 11):
    # Frames live in chunks of 16 KiB: one that fits in none gets a chunk of its own, with room
    # behind it, in which a test begins at the same place each time.
    _in_room.__code__ = _in_room.__code__.replace(co_stacksize=2300)


def _nothing(*_: object) -> None:
    pass


_VARIABLE = 0x04 | 0x08  # *args, **kwargs: CO_VARARGS, CO_VARKEYWORDS in inspect


def plain_call(
    function: Callable[..., object], kwargs: dict[str, Any]
) -> tuple[Callable[..., object], tuple[Any, ...]]:
    """The function with positional arguments where that will do: it allocates nothing."""
    if not kwargs and not isinstance(function, (FunctionType, MethodType)):
        return function, ()
    inner, own = function, ()
    if isinstance(function, MethodType):
        inner, own = function.__func__, (function.__self__,)  # type: ignore[assignment]
    if isinstance(inner, FunctionType):
        code = inner.__code__
        names = code.co_varnames[len(own) : code.co_argcount]
        if not code.co_flags & _VARIABLE and not code.co_kwonlyargcount:
            given = names[: len(kwargs)]
            if set(given) == set(kwargs):
                _make_frame(inner)
                return inner, (*own, *(kwargs[name] for name in given))
    return _with_keywords(function, kwargs), ()


def _with_keywords(function: Callable[..., object], kwargs: dict[str, Any]) -> Callable[[], object]:
    def call() -> object:
        __tracebackhide__ = True
        return function(**kwargs)

    return call


def _make_frame(function: FunctionType) -> None:
    """On 3.10 a function keeps the frame of its first call: that must not be the one that is
    measured. A call with an argument that it has not got makes the frame, and runs nothing.
    """
    code: CodeType = function.__code__
    if sys.version_info < (3, 11) and not code.co_flags & 0x2A0:  # no generator, no coroutine
        try:
            function(**{"no argument of this name": None})
        except TypeError:
            return


def _ways(track: zmalloc.Track | None) -> tuple[Callable[[], object], Callable[..., object]]:
    return (track.__enter__, track.__exit__) if track else (_nothing, _nothing)


# ---- the window ----------------------------------------------------------------------------------


class Window:
    """One measured call of one test."""

    def __init__(self, item: pytest.Item, plan: Plan, limit: int | None = None) -> None:
        self.item = item
        self.plan = plan
        self.limit = plan.limit if limit is None else limit
        self.was_hit = False  #: the limit, when the test's function returned
        self.budget: zmalloc.Budget | None = None
        # A track of one thread takes each of its requests off the fast path; one of the process is
        # free.
        self.own = zmalloc.track(thread=True) if plan.is_exact else zmalloc._core._track()
        self.process = zmalloc.track() if plan.wants_process else None
        #: With what is collected at the end: for what stays.
        self.whole = zmalloc.track(thread=True) if plan.is_exact else None
        # Fetched in advance, and kept: a fetch while a track counts would be counted.
        self.enter_own, self.leave_own = _ways(self.own)
        self.enter_process, self.leave_process = _ways(self.process)
        self.enter_whole, self.leave_whole = _ways(self.whole)
        self.further: list[tuple[zmalloc.Track, object]] = []  #: that the memory fixture has begun

    def at_start(self) -> None:
        if self.plan.is_exact:
            self._settle()

    def at_end(self) -> None:
        if self.plan.is_exact:
            clear_caches()

    def _settle(self) -> None:
        """Clears the caches, and what other threads leave that wait for the interpreter lock
        meanwhile (xdist's, which reads what the controller sends): in the window their garbage, or
        a place in a free list, would come to the test. All but the young objects is frozen for it,
        so that hardly any time passes in which another thread comes to wait; one that does, or that
        the machine was too busy to run in the pause, asks for the lock PATIENCE later.
        """
        self._interval = sys.getswitchinterval()  # kept: its end would be counted
        sys.setswitchinterval(PATIENCE)
        try:
            clear_caches()
            time.sleep(PAUSE)
            if gc.get_freeze_count():  # by the program: it would all be thawed
                clear_caches()
                return
            gc.collect(1)
            gc.freeze()
            clear_caches()
            gc.unfreeze()
        finally:
            sys.setswitchinterval(self._interval)

    def track(self, all_threads: bool) -> zmalloc.Track:
        return self.process if all_threads and self.process else self.own

    def figures(self) -> Figures:
        whole = self.whole or self.own
        return Figures(whole.net, self.own.peak, self.own.allocations)

    def _begin(self) -> None:
        if self.limit is not None:
            self.budget = zmalloc.budget(self.limit)
        self.item.stash[WINDOW] = self

    def run(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Calls it. Whatever it raises goes on; what the plan finds wrong fails the test."""
        __tracebackhide__ = True
        self._begin()
        try:
            if self.plan.around:
                self._run_around(call, args)
            elif self.plan.is_exact:
                _in_room(self, call, args)
            else:
                _measure(self, call, args)
        except BaseException as error:
            self._close()
            if getattr(self.item, "_excinfo", None):
                return  # unittest has recorded the first error, and holds what its frames hold
            self.note(error)
            raise
        self._close()

    def _run_around(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        __tracebackhide__ = True
        with contextlib.ExitStack() as stack:
            for context in self.plan.around:
                stack.enter_context(context)
            _in_room(self, call, args)

    def steps(self, coroutine: Any) -> Generator[Any, Any, None]:
        """The same for a coroutine that somebody else's loop drives. Raises what it raises."""
        __tracebackhide__ = True
        self._begin()
        try:
            steps = coroutine.__await__()
            self.at_start()
            with self.budget or contextlib.nullcontext():
                self.enter_whole()
                self.enter_process()
                self.enter_own()
                try:
                    try:
                        yield from steps
                    finally:
                        self.leave_own(None, None, None)
                        self.leave_process(None, None, None)
                    self.at_end()
                finally:
                    self.leave_whole(None, None, None)
                self.was_hit = self.budget is not None and self.budget.hit
        except BaseException as error:
            self._close()
            self.note(error)
            raise
        self._close()

    def _close(self) -> None:
        self.end_further()
        self.item.stash[FIGURES] = self.figures()

    # ---- the limit ----

    def end_further(self) -> None:
        for track, _ in self.further:
            track.__exit__(None, None, None)
        self.further.clear()

    def note(self, error: BaseException) -> None:
        """Tells what happened at the limit, beside the traceback or instead of it."""
        __tracebackhide__ = True
        if self.budget is None or self.limit is None or not self.budget.hit:
            return
        if not isinstance(error, MemoryError):
            if isinstance(error, pytest.skip.Exception):
                self._fail_swallowed()
            self.item.add_report_section("call", "memory", self._swallowed())
        elif _is_of_the_end(error):
            fail(self._swallowed() if self.was_hit else self._held_at_end(error))
        else:
            self.item.add_report_section("call", "memory", self._stopped(error))

    def _name(self) -> str:
        assert self.limit is not None
        name = f"memory_limit of {sizes.show(self.limit)}"
        if self.limit == self.plan.limit or self.plan.limit is None:
            return name
        return f"{name}, what the setup has left of {sizes.show(self.plan.limit)}"

    def _stopped(self, error: MemoryError) -> str:
        """For the error of this limit; a MemoryError of something else that came after one is told
        so.
        """
        assert self.budget is not None
        if isinstance(error, zmalloc.LimitError) and error.used is not None:
            assert error.limit is not None
            assert self.limit is not None
            held = error.used - (error.limit - self.limit)
            place, asked = _place(error.file, error.line), error.requested or 0
        else:
            held, (place, asked) = self.budget.used, _last_request()
        return (
            f"{self._name()}: the test was stopped{place}. It held {sizes.show_exactly(held)} and "
            f"had asked for {sizes.show(asked)} there"
        )

    def _held_at_end(self, error: MemoryError) -> str:
        file = getattr(error, "file", None)
        place = "" if file == __file__ else _place(file, getattr(error, "line", None))
        return (
            f"{self._name()}: the test went over it{place} and ended before it could be stopped; "
            f"the peak was {sizes.show_exactly(self._peak())}"
        )

    def _peak(self) -> int:
        assert self.budget is not None
        return self.budget.peak

    def _swallowed(self) -> str:
        place, asked = _last_request()
        return (
            f"{self._name()}: the test went over it{place}, which asked for {sizes.show(asked)}, "
            f"caught the MemoryError and went on; the peak was {sizes.show_exactly(self._peak())}"
        )

    def _fail_swallowed(self) -> None:
        __tracebackhide__ = True
        fail(self._swallowed())

    # ---- after the call ----

    def judge(self) -> None:
        """Fails the test, which has passed, if its memory is not what it was to be."""
        __tracebackhide__ = True
        if not zmalloc.is_installed():
            zmalloc.install()
            fail(GONE.format(why=IN_TEST))
        if self.budget is not None and self.limit is not None:
            if self.budget.hit:
                self._fail_swallowed()
            if self.budget.peak > self.limit:
                fail(
                    f"{self._name()}: the peak was {sizes.show_exactly(self.budget.peak)}: "
                    "it passed the limit for a moment, between two points at which a test can "
                    "be stopped"
                )
        for peak in self.plan.peaks:
            self._judge_peak(peak)
        for check in self.plan.checks:
            text = check(self)
            if text:
                fail(text)

    def _judge_peak(self, peak: Peak) -> None:
        __tracebackhide__ = True
        seen = self.track(peak.all_threads).peak
        whose = "the process" if peak.all_threads else "its thread"
        if peak.most is not None and seen > peak.most:
            fail(
                f"memory_peak of {sizes.show(peak.most)}: {whose} held {sizes.show_exactly(seen)} "
                f"at the peak, {sizes.show_exactly(seen - peak.most)} more"
            )
        if peak.least is not None and seen < peak.least:
            fail(
                f"memory_peak of at least {sizes.show(peak.least)}: {whose} held no more than "
                f"{sizes.show_exactly(seen)}"
            )


def _is_of_the_end(error: BaseException) -> bool:
    """The error was raised when the test's function had returned."""
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and entry.tb_frame.f_code.co_filename == __file__


def fail(text: str) -> NoReturn:
    """Fails the test with this text and no traceback."""
    raise pytest.fail.Exception(text, pytrace=False) from None


def _place(file: str | None, line: int | None) -> str:
    if not file:
        return ""
    try:
        short = os.path.relpath(file)
    except ValueError:  # on another drive
        short = file
    return f" at {file if short.startswith('..') else short}:{line}"


def _last_request() -> tuple[str, int]:
    """Where the last request was made that a limit did not like, and its bytes."""
    last = zmalloc.stats().last_refused
    return (_place(last.file, last.line), last.bytes) if last else ("", 0)


# ---- before a window -----------------------------------------------------------------------------


class Preparer:
    """Brings the process into the state that windows open in."""

    def __init__(self, late: str | None, *readers: Callable[[Window], object]) -> None:
        self._late = late  #: why counting began too late
        self._readers = readers
        self._used = 0  #: after the last collection, or less
        self._is_warm = False

    def prepare(self, is_exact: bool) -> None:
        """Fails the test if what follows would not be counted; else clears what earlier tests have
        left.
        """
        __tracebackhide__ = True
        if self._late is not None:
            fail(self._late)
        if not zmalloc.is_installed():
            was_there = _were_installed()
            if was_there:
                zmalloc.install()
            fail(GONE.format(why=AT_START if was_there else NEVER))
        if is_exact:
            return  # the window does all of it, at the last moment
        used = zmalloc.used()
        self._used = min(self._used, used)
        if used - self._used < SLACK:
            return
        gc.collect(1)
        self._used = zmalloc.used()

    def warm(self, item: pytest.Item) -> None:
        """Runs what measures exactly three times, so that its own first calls are in nobody's
        figures.
        """
        if self._is_warm:
            return
        self._is_warm = True
        for _ in range(3):
            window = Window(item, Plan(is_exact=True, all_threads=True))
            window.budget = zmalloc.budget("1 GiB")
            _in_room(window, _nothing, ())
            _in_room(Window(item, Plan()), _nothing, ())
            for read in self._readers:
                read(window)


def _were_installed() -> bool:
    return zmalloc.stats().allocations > 0
