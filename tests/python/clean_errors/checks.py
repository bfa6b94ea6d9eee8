"""The judged lines that no single load shows: each a figure, and whether it is good enough.

The figures are taken by probes.py, each in a process of its own.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .runner import FOLDER, describe, last_line, shorter, start

TIMEOUT = 120.0

#: How much longer than without a cap a program may take whose live data are just below it.
SLOWEST = 3.0

#: How many more instructions a program may take under a limit that it never comes near.
COST = 0.01


class Failed(Exception):
    """A process that came to no figures."""


@dataclass
class Subject:
    """A Python that has zmalloc, and how thorough its checks are."""

    python: str
    version: str
    quick: bool = False
    mode: str = "exact"
    last: list[str] = field(default_factory=list)

    @property
    def limit(self) -> str:
        """In MiB, for what fills it."""
        return "8" if self.quick else "48"

    @property
    def release(self) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", self.version)[:2]))

    def probe(self, *words: str, under: Sequence[str] = (), may_fail: bool = False) -> Any:
        """The figures of a probe, and what it wrote to stderr."""
        plain = [self.python, "-X", "faulthandler", str(FOLDER), "probe", *words]
        self.last = [*under, *plain]
        status, out, err = start(self.last, 1, TIMEOUT, self.mode)
        seen = last_line(out)
        if not seen or status not in (0, 1 if may_fail else 0):
            how = "hang" if status is None else f"status {status}"
            raise Failed(f"{how}: {err[:700].strip()} ... {err[-700:].strip()}")
        return seen, err

    @property
    def again(self) -> str:
        return shlex.join([shorter(word) for word in self.last])


@dataclass(frozen=True)
class Figure:
    """One line of the report."""

    version: str
    name: str
    text: str
    good: bool
    again: str


Check = Callable[[Subject], Iterator[tuple[str, bool]]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


@check
def nothing_below_the_limit(subject: Subject) -> Iterator[tuple[str, bool]]:
    """Use plus debt at or below n raises nothing, a million times, beside 100 idle threads."""
    seen, _ = subject.probe("quiet", "30000" if subject.quick else "1000000")
    good = not seen["errors"] and seen["raised"] == 0
    yield f"{seen['raised']} errors in {seen['times']:,} blocks {seen['errors'] or ''}", good


@check
def one_of_eight_budgets(subject: Subject) -> Iterator[tuple[str, bool]]:
    """Of 8 threads with a budget each the one that runs away gets errors, and no other."""
    times = 5 if subject.quick else 20
    seen, _ = subject.probe("thread_budgets", str(times))
    hits = seen["hits"]
    text = f"{len(hits)} of {times} hits, {seen['rounds']} rounds of others {seen['wrong'] or ''}"
    yield text, hits == ["LimitError"] * times and not seen["wrong"]


@check
def garbage_first(subject: Subject) -> Iterator[tuple[str, bool]]:
    """A program that makes cyclic garbage only never sees an error."""
    with_worker = subject.release >= (3, 12) and not subject.quick
    places = ["main", "worker"] if with_worker else ["main"]
    for where in places:
        for collector in ("disabled",) if subject.quick else ("enabled", "disabled"):
            for percent in ("90",) if subject.quick else ("50", "80", "90", "95"):
                for size in ("2000",) if subject.quick else ("100", "20000"):
                    words = ("garbage", subject.limit, percent, where, collector, size)
                    seen, _ = subject.probe(*words)
                    text = (
                        f"{percent} % live, cycles of {size} B, {where}, gc {collector}: "
                        f"{seen['got'] or 'no error'}, {seen['collections']} collections, "
                        f"{seen['seconds']:.2f} s"
                    )
                    yield text, not seen["got"]


@check
def live_data_near_the_limit(subject: Subject) -> Iterator[tuple[str, bool]]:
    """Churn at 90, 99, 99.9 % ends within 3 times the uncapped time."""
    for kind in ("cyclic", "acyclic"):
        for percent in ("99",) if subject.quick else ("90", "99", "99.9"):
            times = 1 if subject.quick else 3
            words = ("churn", subject.limit, percent, kind)
            free = [subject.probe(*words, "free")[0] for _ in range(times)]
            capped = [subject.probe(*words, "capped")[0] for _ in range(times)]
            ratio = min(x["seconds"] for x in capped) / min(x["seconds"] for x in free)
            ends = sorted({x["end"] for x in capped})
            good = ratio <= SLOWEST and set(ends) <= {"success", "LimitError"}
            yield f"{percent} % live, {kind}: {'/'.join(ends)}, time x {ratio:.2f}", good


def instructions(subject: Subject, capped: str) -> int:
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    _, err = subject.probe("work", capped, under=tool)
    found = re.search(r"Collected : (\d+)", err)
    if found is None:
        raise Failed(f"callgrind says nothing: {err[-500:]}")
    return int(found[1])


@check
def cost_below_the_limit(subject: Subject) -> Iterator[tuple[str, bool]]:
    """Instructions with a far limit, over those without one."""
    if shutil.which("valgrind") is None:
        yield "skipped: no valgrind", True
        return
    ratio = instructions(subject, "capped") / instructions(subject, "free")
    yield f"instructions x {ratio:.4f}", ratio <= 1 + COST


@check
def daemon_threads_at_the_end(subject: Subject) -> Iterator[tuple[str, bool]]:
    """A process with 100 daemon threads at a sealed cap ends."""
    subject.probe("daemons", may_fail=True)
    yield "it ended", True


#: Too slow for the quick slice.
THOROUGH = {"cost below the limit"}

#: A budget of a thread needs each block counted.
EXACT = {"one of eight budgets"}


def run(subject: Subject, name: str) -> Iterator[Figure]:
    try:
        for text, good in CHECKS[name](subject):
            yield Figure(subject.version, name, text.strip(), good, subject.again)
    except Failed as error:
        yield Figure(subject.version, name, str(error), False, subject.again)


def run_all(
    pythons: Sequence[str], *, only: str, quick: bool, mode: str, done: Callable[[Figure], object]
) -> list[Figure]:
    figures = []
    for python in pythons:
        subject = Subject(python, describe(python)[0], quick, mode)
        for name in CHECKS:
            if not re.search(only, name) or (quick and name in THOROUGH):
                continue
            if mode != "exact" and name in EXACT:
                continue
            for figure in run(subject, name):
                done(figure)
                figures.append(figure)
    return figures


def report(figures: Sequence[Figure]) -> Iterator[str]:
    for one in figures:
        yield f"{one.version:<10}{'good' if one.good else 'BAD':<6}{one.name}: {one.text}"
        if not one.good:
            yield f"{'':<16}{one.again}"
