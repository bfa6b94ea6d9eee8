"""Limits, budgets, tracks and exemptions of three threads, in any order, against a model.

What is taken are blocks of whole MiB, which the system never has to back with a page; marks lie in
the middle between two of them. So a few objects of the interpreter's own change no outcome: each
request is granted, granted and answered by a LimitError, or refused, as the model says, and each
figure is right but for those objects.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmalloc
from core.randomly import randomly
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
RESERVE = 4 * MIB

#: What the interpreter's own objects may take or give back in the course of an example.
NOISE = 200 * 1024

#: Of a bytes object, beside its content.
HEADER = sys.getsizeof(b"")

THREADS = 3  # of which the first is the one that runs the test
threads = st.integers(0, THREADS - 1)
size = st.integers(1, 12)
room = st.integers(0, 14)
OPERATIONS = st.one_of(
    st.tuples(st.just("take"), threads, size),
    st.tuples(st.just("take"), threads, size),
    st.tuples(st.just("peek"), threads, size),
    st.tuples(st.just("peek, exempt"), threads, size),
    st.tuples(st.just("free"), threads, st.integers(0, 20)),
    st.tuples(st.sampled_from(["limit", "budget", "thread budget"]), threads, room),
    st.tuples(st.sampled_from(["track", "thread track"]), threads, st.just(0)),
    st.tuples(st.just("leave"), threads, st.integers(0, 6)),
    st.tuples(st.just("reset peak"), threads, st.just(0)),
)


class Actor:
    """Does what it is given, in a thread of its own, and is idle otherwise."""

    def __init__(self) -> None:
        self.todo: queue.SimpleQueue[Callable[[], str] | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        while job := self.todo.get():
            self.done.put(job())

    def __call__(self, job: Callable[[], str]) -> str:
        self.todo.put(job)
        return self.done.get(timeout=60)

    def end(self) -> None:
        self.todo.put(None)
        self.thread.join()


def outcome(function: Callable[..., object], *arguments: Any) -> str:
    """What became of a call; nothing of it is left."""
    try:
        function(*arguments)
    except MemoryError as error:
        return type(error).__name__
    return "done"


def grow() -> None:
    """Up to 3.11 a worker's error comes after 16 KiB more if the main thread is busy."""
    _small = [bytes(1000) for _ in range(40)]


def take_for_a_moment(n: int) -> None:
    _block = bytes(n * MIB - HEADER)
    grow()


@dataclass
class Scope:
    kind: str
    thread: int | None  #: whose takes and frees it counts; None: everybody's
    real: Any
    start: int  #: what was in use
    room: int | None  #: MiB above that, to which half a one is added; None: it limits nothing
    net: int = 0  #: MiB taken since, less what has been freed
    peak: int = 0

    @property
    def is_clamped(self) -> bool:
        return self.kind == "thread budget"

    def counts(self, thread: int) -> bool:
        return self.thread in (None, thread)

    def passes(self, more: int) -> bool:
        return self.room is not None and self.net + more > self.room

    def refuses(self, more: int, quarters: int) -> bool:
        """`quarters` of the reserve are open to the request."""
        return self.room is not None and self.net + more > self.room + quarters

    def note_peak(self, more: int) -> None:
        self.peak = max(self.peak, self.net + more)

    def free(self, less: int) -> None:
        self.net = max(self.net - less, 0) if self.is_clamped else self.net - less


def mebibytes(block: bytes) -> int:
    return sys.getsizeof(block) // MIB


@dataclass
class Machine:
    actors: list[Callable[[Callable[[], str]], str]]
    blocks: list[bytes] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    start: int = 0  #: of what is in use when nothing of ours is
    peak: int = 0  #: MiB above the start

    @property
    def taken(self) -> int:
        return sum(map(mebibytes, self.blocks))

    # -- what the model says ------------------------------------------------------------------

    def concerned(self, thread: int) -> list[Scope]:
        return [one for one in self.scopes if one.counts(thread)]

    def expected(self, thread: int, more: int, is_exempt: bool) -> str:
        """Of a request; a mark of the process that has been passed is the smallest."""
        scopes = self.concerned(thread)
        if any(one.refuses(more, 4 if is_exempt else 3) for one in scopes):
            return "MemoryError"
        for one in scopes:
            one.note_peak(more)
        self.peak = max(self.peak, self.taken + more)
        passed = [one for one in scopes if one.passes(more)]
        return "LimitError" if passed and not is_exempt else "done"

    # -- what is done -------------------------------------------------------------------------

    def keep(self, n: int) -> None:
        before = len(self.blocks)
        try:
            self.blocks.append(bytes(n * MIB - HEADER))
            grow()
        except MemoryError:
            del self.blocks[before:]  # else the next scope that has been passed has its error, too
            raise

    def take(self, thread: int, n: int) -> None:
        expected = self.expected(thread, n, is_exempt=False)
        assert self.actors[thread](lambda: outcome(self.keep, n)) == expected
        if expected == "done":
            for one in self.concerned(thread):
                one.net += n

    def peek(self, thread: int, n: int, is_exempt: bool) -> None:
        expected = self.expected(thread, n, is_exempt)

        def job() -> str:
            with zmalloc.exempt() if is_exempt else contextlib.nullcontext():
                return outcome(take_for_a_moment, n)

        assert self.actors[thread](job) == expected

    def free(self, thread: int, at: int) -> None:
        if at >= len(self.blocks):
            return
        n = mebibytes(self.blocks[at])
        self.actors[thread](lambda: outcome(self.blocks.pop, at))
        for one in self.concerned(thread):
            one.free(n)

    def enter(self, kind: str, thread: int, room: int) -> None:
        used = zmalloc.used()
        n = room * MIB + MIB // 2
        makes: dict[str, Callable[[], Any]] = {
            "limit": lambda: zmalloc.limit(used + n, reserve=RESERVE),
            "budget": lambda: zmalloc.budget(n, reserve=RESERVE),
            "thread budget": lambda: zmalloc.budget(n, reserve=RESERVE, thread=True),
            "track": zmalloc.track,
            "thread track": lambda: zmalloc.track(thread=True),
        }
        real = makes[kind]()
        limits = not kind.endswith("track")
        whose = thread if kind.startswith("thread") else None
        assert self.actors[thread](lambda: outcome(real.__enter__)) == "done"
        self.scopes.append(Scope(kind, whose, real, used, room if limits else None))

    def leave(self, thread: int, at: int) -> None:
        if at < len(self.scopes):
            real = self.scopes[at].real
            assert self.actors[thread](lambda: outcome(real.__exit__, None, None, None)) == "done"
            self.check(self.scopes.pop(at))  # its figures stay

    def do(self, name: str, thread: int, n: int) -> None:
        if name == "take":
            self.take(thread, n)
        elif name.startswith("peek"):
            self.peek(thread, n, name != "peek")
        elif name == "free":
            self.free(thread, n)
        elif name == "leave":
            self.leave(thread, n)
        elif name == "reset peak":
            zmalloc.reset_peak()
            self.peak = self.taken
        elif len(self.scopes) < 7:
            self.enter(name, thread, n)

    # -- the figures --------------------------------------------------------------------------

    def check(self, one: Scope) -> None:
        if one.kind.endswith("track"):
            near(one.real.net, one.net)
            near(one.real.peak, one.peak)
        elif one.kind != "limit":
            room = one.real.n - MIB // 2
            near(one.real.used, one.net)
            near(one.real.peak, one.peak)
            near(one.real.remaining, room / MIB + 0.5 - one.net)

    def check_all(self) -> None:
        near(zmalloc.used() - self.start, self.taken)
        near(zmalloc.peak() - self.start, self.peak)
        marks = [one.start / MIB + one.room + 0.5 for one in self.scopes
                 if one.room is not None and one.thread is None]  # fmt: skip
        limit = zmalloc.limit()
        assert (limit is None) == (not marks)
        if limit is not None:
            near(limit, min(marks))
        for one in self.scopes:
            self.check(one)


def near(seen: int, mebibytes: float) -> None:
    assert abs(seen - mebibytes * MIB) < NOISE, (seen / MIB, mebibytes)


def run(operations: list[tuple[str, int, int]]) -> None:
    workers = [Actor() for _ in range(THREADS - 1)]
    machine = Machine([lambda job: job(), *workers])
    gc.collect()
    gc.disable()
    zmalloc.reset_peak()
    machine.start = zmalloc.used()
    try:
        for name, thread, n in operations:
            machine.do(name, thread, n)
            machine.check_all()
    finally:
        gc.enable()
        for one in machine.scopes:
            one.real.__exit__(KeyError, None, None)
        for worker in workers:
            worker.end()


@randomly(1)
@given(st.lists(OPERATIONS, min_size=5, max_size=50))
def test_scopes_of_three_threads_are_as_the_model_says(
    operations: list[tuple[str, int, int]],
) -> None:
    run(operations)
