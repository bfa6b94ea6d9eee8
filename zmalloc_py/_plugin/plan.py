"""What is asked for one test: read from its markers, its fixtures and the options.

Everything that can be wrong is found here, while the tests are collected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import zmalloc
from zmalloc._plugin import sizes

#: As ``pytest --markers`` shows them.
MARKERS = (
    "memory_limit(size, setup=False): stop the test when the process holds more than size beyond "
    "what it held at the test's start, whichever thread takes it; None lifts the default limit. "
    "setup=True: beyond the start of the test's setup.",
    'memory_peak(size, min=None, threads="this"): after the test, assert that what its thread '
    '(threads="all": the process) held beyond the start was never more than size, and once at '
    "least min.",
    'memory_leak(size="0 B", rounds=10, warmup=3): run the test\'s body again and again and assert '
    "that not more than size stays per round; with 0 B no block stays either.",
    'memory_threads(threads): the memory fixture measures "this" thread or "all".',
)

#: Batches of rounds that have to grow, one after the other, before growth is called a leak.
BATCHES = 5


#: What else there is to measure is counted in whole arenas in mode `held`.
NEEDS_EXACT = (
    "this needs mode 'exact', which counts each block; the process is in mode 'held' "
    "(ZMALLOC_MODE), where a limit and the report are possible"
)


class Wrong(Exception):
    """A marker that cannot be obeyed. The text names the test and the value."""


class Peak(NamedTuple):
    """Bounds of a peak, in bytes."""

    most: int | None
    least: int | None
    all_threads: bool


class Leak(NamedTuple):
    """What may stay per round, in bytes, and how many rounds there are."""

    size: int
    rounds: int
    warmup: int


Check = Callable[[Any], "str | None"]


class Plan:
    """What to do about one test.

    No dataclass: making one takes longer than everything else that a suite imports which asks for
    nothing.
    """

    def __init__(
        self,
        limit: int | None = None,
        is_exact: bool = False,
        is_reported: bool = False,
        all_threads: bool = False,
    ) -> None:
        self.limit = limit  #: bytes that the process may hold beyond the start
        self.has_setup = False  #: the limit counts from the start of the setup
        self.peaks: list[Peak] = []
        self.leak: Leak | None = None
        self.all_threads = all_threads  #: the memory fixture measures the process
        self.needs_process = False  #: figures of all threads are wanted
        self.is_exact = is_exact  #: figures are to be the same to the byte in each run
        self.is_reported = is_reported  #: an option wants the figures
        self.around: list[Any] = []  #: contexts of zmalloc.compat_memray
        self.checks: list[Check] = []  #: get the Window; text: the test fails

    def copy(self) -> Plan:
        """One of its own, of what options ask: they put nothing into the lists."""
        return Plan(limit=self.limit, is_exact=self.is_exact, is_reported=self.is_reported)

    @property
    def is_idle(self) -> bool:
        """Nothing is asked."""
        return not (
            self.limit
            or self.peaks
            or self.leak
            or self.is_exact
            or self.is_reported
            or self.checks
        )

    @property
    def needs_exact(self) -> bool:
        """It asks for more than a limit on the process, and its figures."""
        return bool(self.wants_process or self.peaks or self.leak or self.is_exact or self.checks)

    @property
    def wants_process(self) -> bool:
        """A track of all threads is needed."""
        return (
            self.all_threads or self.needs_process or any(peak.all_threads for peak in self.peaks)
        )


#: Where a test's plan is kept.
PLAN: pytest.StashKey[Plan] = pytest.StashKey()


def of_options(limit: int | None, is_reported: bool, is_exact: bool) -> Plan | None:
    """What the options ask of each test; None: tests without a marker are not measured."""
    plan = Plan(limit=limit, is_reported=is_reported, is_exact=is_exact)
    return None if plan.is_idle else plan


def make(item: pytest.Item, default: Plan | None) -> Plan | None:
    """The test's plan; None: nothing is asked. Wrong: names the test, the marker and the value."""
    marks = [mark for mark in item.iter_markers() if mark.name in _READERS]  # the closest first
    has_fixture = "memory" in getattr(item, "fixturenames", ())
    if not marks and not has_fixture:
        return default
    plan = default.copy() if default else Plan()
    seen: dict[str, set[object]] = {}
    needs_exact = ""
    for mark in marks:
        before = seen.setdefault(mark.name, set())
        try:
            before.add(_READERS[mark.name](plan, Values(item, mark), before))
        except Exception as error:
            raise Wrong(f"{item.nodeid}: {mark.name}: {error}") from error
        needs_exact = needs_exact or (mark.name if plan.needs_exact else "")
    plan.is_exact = plan.is_exact or has_fixture
    if plan.needs_exact and zmalloc.mode() != "exact":
        raise Wrong(f"{item.nodeid}: {needs_exact or 'the fixture memory'}: {NEEDS_EXACT}")
    return None if plan.is_idle else plan


class Values:
    """The arguments of a marker by name; a callable is asked for its value."""

    def __init__(self, item: pytest.Item, mark: pytest.Mark) -> None:
        self._mark = mark
        self._callspec = getattr(item, "callspec", None)

    def raw(self, name: str) -> Any:
        """A value that is a callable itself, or None."""
        return self._mark.kwargs.get(name)

    def read(
        self, *names: str, first: int = 1, allow: tuple[str, ...] = (), **defaults: object
    ) -> list[Any]:
        """The values of `names`, the first may be positional; `allow`: what raw() reads."""
        mark = self._mark
        if len(mark.args) > first:
            raise TypeError(
                f"takes {first} positional argument{'s' * (first != 1)}, "
                f"{len(mark.args)} were given: {', '.join(map(repr, mark.args))}"
            )
        given = dict(zip(names, mark.args, strict=False))
        for name, value in mark.kwargs.items():
            if name in allow:
                continue
            if name not in names:
                raise TypeError(
                    f"there is no argument {name}={value!r}: it takes {', '.join(names)}"
                )
            if name in given:
                raise TypeError(f"{name} is given twice: {given[name]!r} and {value!r}")
            given[name] = value
        return [self._compute(name, given.get(name, defaults.get(name))) for name in names]

    def _compute(self, name: str, value: object) -> object:
        if not callable(value):
            return value
        params: Mapping[str, object] = dict(self._callspec.params) if self._callspec else {}
        try:
            return value(params)
        except Exception as error:
            shown = getattr(value, "__qualname__", repr(value))
            raise TypeError(
                f"{name}={shown} failed for {params!r}: {type(error).__name__}: {error}"
            ) from error


def _read_limit(plan: Plan, values: Values, seen: set[object]) -> object:
    size, setup = values.read("size", "setup", size=..., setup=False)
    if size is ...:
        raise TypeError('needs a size, such as "24 MiB", or None for no limit')
    if not isinstance(setup, bool):
        raise TypeError(f"setup={setup!r} is neither True nor False")
    limit = None if size is None else sizes.parse(size, "size")
    if not seen:
        plan.limit, plan.has_setup = limit, setup
        plan.is_exact = plan.is_exact or (limit is not None and zmalloc.mode() == "exact")
    return "limit"


def _read_threads(name: object) -> bool:
    if name not in ("this", "all"):
        raise ValueError(f'threads={name!r} is not known: "this" or "all"')
    return name == "all"


def _read_peak(plan: Plan, values: Values, seen: set[object]) -> object:
    most, least, threads = values.read("size", "min", "threads", threads="this")
    if most is None and least is None:
        raise TypeError('needs a size, such as "24 MiB", or min=')
    peak = Peak(
        None if most is None else sizes.parse(most, "size", zero=True),
        None if least is None else sizes.parse(least, "min", zero=True),
        _read_threads(threads),
    )
    if peak.most is not None and peak.least is not None and peak.least > peak.most:
        raise ValueError(f"min={least!r} is more than size={most!r}")
    if peak.all_threads not in seen:
        plan.peaks.append(peak)
        plan.is_exact = True
    return peak.all_threads


def _read_leak(plan: Plan, values: Values, seen: set[object]) -> object:
    size, rounds, warmup = values.read("size", "rounds", "warmup", size="0 B", rounds=10, warmup=3)
    leak = Leak(
        sizes.parse(size, "size", zero=True),
        _count("rounds", rounds, 1),
        _count("warmup", warmup, 0),
    )
    if not seen:
        plan.leak = leak
        plan.is_exact = True
    return "leak"


def _count(name: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is no whole number")
    if value < least:
        raise ValueError(f"{name}={value!r} is too small: at least {least}")
    return value


def _read_memory_threads(plan: Plan, values: Values, seen: set[object]) -> object:
    (threads,) = values.read("threads")
    all_threads = _read_threads(threads)
    if not seen:
        plan.all_threads = all_threads
    return "threads"


_Reader = Callable[[Plan, Values, "set[object]"], object]

_READERS: dict[str, _Reader] = {
    "memory_limit": _read_limit,
    "memory_peak": _read_peak,
    "memory_leak": _read_leak,
    "memory_threads": _read_memory_threads,
}


def add_reader(name: str, read: _Reader) -> None:
    """Has a further marker read: what zmalloc.compat_memray does."""
    _READERS[name] = read


def remove_reader(name: str) -> None:
    _READERS.pop(name, None)
