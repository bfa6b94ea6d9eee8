"""Random requests straight at the allocator's address, as Lua makes them, against a model.

The model is written from zaccount.h. ZMALLOC_TEST_EXAMPLES=2000 looks harder.
"""

from __future__ import annotations

import zmalloc
from core.randomly import randomly
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from .lua54 import ALLOC

sizes = st.one_of(st.integers(1, 100), st.integers(1, 5000), st.sampled_from([1, 56, 4096, 65536]))
impossible = st.sampled_from([(1 << 64) - 1, (1 << 63) - 1, 1 << 62])
KINDS = ("strings", "tables", "functions", "userdata", "threads")


class LuaAllocator(RuleBasedStateMachine):
    """Blocks of random sizes and kinds under limits that come and go."""

    def __init__(self) -> None:
        super().__init__()
        alloc, self.ud, self.account = zmalloc.lua_allocator("model")
        self.call = ALLOC(alloc)
        self.blocks: list[tuple[int, int]] = []
        self.limit: int | None = None
        self.reserve = 0
        self.used = self.peak = self.allocations = self.frees = self.refusals = 0
        self.open = False
        self.again: tuple[int | None, int, int] | None = None  # the request that was refused last
        self.last: int | None = None
        self.collections = self.overhead = self.poor = 0
        self.created = dict.fromkeys(KINDS, 0)
        self.told = False  # a kind other than 0: only who tells any makes a request again

    # -- what the header promises ------------------------------------------------------------

    def close_mark(self) -> int:
        assert self.limit is not None
        return self.limit - min(self.reserve, self.limit // 2)

    def grows(self, p: int | None, old: int, n: int) -> bool:
        """Whether a growth by n is granted; changes the model accordingly."""
        request = (p, old, n)
        is_again, self.again = self.again == request, None
        if is_again and self.is_overhead(n):
            return False
        most = self.limit
        if most is not None and self.open and not is_again:
            most += self.reserve
        if most is not None and self.used + n > most:
            self.refuse(n)
            self.open = self.open or self.reserve > 0
            if not is_again and self.told:
                self.again = request
            return False
        if is_again:
            self.open = False
        self.used += n
        self.peak = max(self.peak, self.used)
        return True

    def is_overhead(self, n: int) -> bool:
        self.collections += 1
        room = max(0, self.limit - self.used - n) if self.limit is not None else 1 << 64
        if room >= self.used // 100 * 5:
            self.poor = 0
            return False
        if self.poor < 8:
            self.poor += 1
            return False
        self.overhead += 1
        self.refuse(n)
        return True

    def refuse(self, n: int) -> None:
        self.refusals += 1
        self.last = n

    def shrinks(self, n: int) -> None:
        self.used -= n
        if self.open and self.used <= self.close_mark():
            self.open = False

    # -- what Lua asks for -------------------------------------------------------------------------

    @rule(n=sizes, kind=st.integers(0, 20), retries=st.integers(0, 2))
    def allocate(self, n: int, kind: int, retries: int) -> None:
        for _ in range(retries + 1):
            granted = self.grows(None, kind, n)
            p = self.call(self.ud, None, kind, n)
            assert bool(p) == granted
            if p:
                self.blocks.append((p, n))
                self.allocations += 1
                self.told = self.told or kind % 16 != 0
                if 4 <= kind % 16 <= 8:
                    self.created[KINDS[kind % 16 - 4]] += 1
                return

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), n=sizes)
    def resize(self, data: st.DataObject, n: int) -> None:
        i = data.draw(st.integers(0, len(self.blocks) - 1))
        p, old = self.blocks[i]
        granted = n <= old or self.grows(p, old, n - old)
        q = self.call(self.ud, p, old, n)
        assert bool(q) == granted, "a shrink never fails, a growth by the rules"
        if q:
            self.blocks[i] = (q, n)
            if n < old:
                self.shrinks(old - n)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        p, n = self.blocks.pop(data.draw(st.integers(0, len(self.blocks) - 1)))
        assert self.call(self.ud, p, n, 0) is None
        self.frees += 1
        self.shrinks(n)

    @rule(kind=st.integers(0, 1 << 40))
    def free_nothing(self, kind: int) -> None:
        assert self.call(self.ud, None, kind, 0) is None

    @precondition(lambda self: self.limit is not None)
    @rule(n=impossible)
    def ask_for_the_impossible(self, n: int) -> None:
        assert not self.grows(None, 0, n)
        assert self.call(self.ud, None, 0, n) is None

    # -- what the host does ------------------------------------------------------------------------

    @rule(limit=st.integers(1, 60_000), reserve=st.one_of(st.just(0), st.integers(1, 20_000)))
    def set_limit(self, limit: int, reserve: int) -> None:
        self.account.limit(limit, reserve=reserve)
        self.limit, self.reserve, self.open = limit, reserve, False

    @rule()
    def lift(self) -> None:
        self.account.limit(None)
        self.limit, self.reserve, self.open = None, 0, False

    @rule()
    def reset_peak(self) -> None:
        self.account.reset_peak()
        self.peak = self.used

    @invariant()
    def figures_are_those_of_the_model(self) -> None:
        a = self.account
        assert (a.used, a.peak) == (self.used, self.peak)
        assert self.used == sum(n for _, n in self.blocks)
        assert (a.limit(), a.reserve) == (self.limit, self.reserve)
        assert (a.allocations, a.frees) == (self.allocations, self.frees)
        assert (a.refusals, a.last_refused) == (self.refusals, self.last)
        assert (a.collections, a.overhead_refusals) == (self.collections, self.overhead)
        assert a.created == self.created

    def teardown(self) -> None:
        for p, n in self.blocks:
            self.call(self.ud, p, n, 0)
        assert self.account.used == 0


def test_the_allocator_does_what_its_header_says() -> None:
    run_state_machine_as_test(LuaAllocator, settings=randomly())
