"""Scopes of one thread, opened and left in any order, against each other.

What a thread takes goes into one ledger, and into each of its scopes when one of them is concerned.
So two scopes that are open count the same: what one is ahead of the other when the later of them
is entered it is ahead for good, whatever happens, in whatever order.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import zmalloc
from hypothesis import given, settings
from hypothesis import strategies as st

KIB, MIB = 2**10, 2**20

#: A budget's limit lies this far above what its first block takes: what is taken passes it often.
ROOM = 64 * KIB

#: The first of two reads that are compared makes a number, which the second finds in use; of
#: counts, one that CPython does not keep ready.
NUMBER = 32

#: What is done: a scope is entered or left, a block is taken or given back, a peak is made.
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["track", "budget"]), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 7)),
    st.tuples(st.just("take"), st.integers(0, 3 * ROOM)),
    st.tuples(st.just("take"), st.integers(0, 512)),
    st.tuples(st.just("give back"), st.integers(0, 31)),
    st.tuples(st.just("peak"), st.just(0)),
)


@dataclass
class Open:
    """A scope, and what the whole was ahead of it when it was entered."""

    scope: Any
    is_budget: bool
    use: attrgetter[int]  # in C: nothing watches its lines
    net: int = 0
    allocations: int = 0
    frees: int = 0
    least_peak: int = 0


@dataclass
class Machine:
    """`whole` is entered first and left last."""

    whole: Any
    scopes: list[Open] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=lambda: [None] * 32)
    kept: list[bytes] = field(default_factory=list)
    top: int = 8 * MIB

    # Each reads in one line: what watches lines takes memory at each new one.

    def ahead(self, one: Open) -> Any:
        return self.whole.net - one.use(one.scope)

    def allocations_ahead(self, one: Open) -> Any:
        return 0 if one.is_budget else self.whole.allocations - one.scope.allocations

    def frees_ahead(self, one: Open) -> Any:
        return 0 if one.is_budget else self.whole.frees - one.scope.frees

    def peak_ahead(self, one: Open) -> Any:
        return self.whole.peak - one.scope.peak

    def above_use(self, one: Open) -> Any:
        return one.scope.peak - one.use(one.scope)

    def enter(self, kind: str) -> None:
        if len(self.scopes) == 8:
            return
        if kind == "track":
            scope = zmalloc.track(thread=True)
            self.scopes.append(Open(scope, False, attrgetter("net")))
            scope.__enter__()
        else:
            budget = zmalloc.budget(MIB + ROOM, reserve="1 GiB", thread=True)
            self.scopes.append(Open(budget, True, attrgetter("used")))
            budget.__enter__()
            self.kept.append(bytes(MIB))  # never at nothing, below which a budget does not go
        one = self.scopes[-1]
        for _ in range(2):  # the first read makes what the second finds
            one.net = self.ahead(one)
            one.allocations = self.allocations_ahead(one)
            one.frees = self.frees_ahead(one)

    def do(self, name: str, n: int) -> None:
        if name in ("track", "budget"):
            self.enter(name)
        elif name == "leave" and n < len(self.scopes):
            self.scopes.pop(n).scope.__exit__(KeyError, None, None)
        elif name == "take":
            self.blocks[n % 32] = bytes(n)
        elif name == "give back":
            self.blocks[n] = None
        elif name == "peak":
            self.top += 8 * MIB  # above all that can be held, and never touched
            for one in self.scopes:
                one.least_peak = self.top + one.use(one.scope) - KIB
            bytes(self.top)

    def check(self, made_peak: bool) -> None:
        for one in self.scopes:
            assert abs(self.ahead(one) - one.net) <= NUMBER
            assert abs(self.allocations_ahead(one) - one.allocations) <= 1
            assert abs(self.frees_ahead(one) - one.frees) <= 1
            if made_peak:
                assert abs(self.peak_ahead(one) - one.net) <= NUMBER
            assert self.above_use(one) >= -NUMBER
            assert one.scope.peak >= one.least_peak


def run(operations: list[tuple[str, int]]) -> None:
    with zmalloc.exempt(), zmalloc.track(thread=True) as whole:
        machine = Machine(whole)
        try:
            for name, n in operations:
                machine.do(name, n)
                machine.check(made_peak=name == "peak")
        finally:
            for one in machine.scopes:
                one.scope.__exit__(KeyError, None, None)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, min_size=4, max_size=40))
def test_scopes_of_a_thread_count_the_same(operations: list[tuple[str, int]]) -> None:
    run(operations)


def test_another_thread_reads_what_the_thread_itself_does() -> None:
    def work() -> None:
        with zmalloc.track(thread=True) as outer:
            scopes.append(outer)
            kept.append(bytes(10_000))
            with zmalloc.budget("1 GiB", thread=True) as inner:
                scopes.append(inner)
                for n in range(200):
                    kept.append(bytes(n * 100))
                    del kept[n // 2 :: 3]
                reached.set()
                go_on.wait()

    scopes: list[Any] = []
    kept: list[bytes] = []
    reached, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    reached.wait()
    held = sum(map(len, kept))
    first = [(scopes[0].net, scopes[0].peak), (scopes[1].used, scopes[1].peak)]
    again = [(scopes[0].net, scopes[0].peak), (scopes[1].used, scopes[1].peak)]
    go_on.set()
    thread.join()
    assert first == again
    assert scopes[0].peak > scopes[0].net
    for net, peak in first:
        assert held - 10_000 <= net <= held + 40 * len(kept) + 20_000
        assert peak >= net
