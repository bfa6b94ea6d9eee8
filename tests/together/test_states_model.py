"""Random uses of the module "zmalloc" in Lua states under one parent, against a model.

What a state holds when its garbage has been collected is known: strings of known sizes, and what it
had at first, give or take its stack, which Lua makes larger and smaller. So it is known which
requests fit for certain, and which for certain do not; those in between depend on garbage, on the
reserve and on the order in which a string's blocks are asked for.

The model is written from the README and zaccount.h. ZMALLOC_TEST_EXAMPLES=2000 looks harder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
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

from .lua54 import LuaError, State

#: Strings of more than 40 bytes are objects of their own, of so much more than their text; those of
#: more than 1,024 are made in a buffer that is a second block of their size, beside a userdata.
HEAD = 25
BOX = 8192  # more than the userdata, a call, and a stack that Lua finds no memory to make smaller
LESS = 256  # how much less a state may hold than when it was new
SLOTS = 6

SETUP = """
local zmalloc = require "zmalloc"
local rep, collectgarbage, pcall = string.rep, collectgarbage, pcall
local kept = {}
for i = 1, 8 do kept[i] = false end
local function put(i, n) kept[i] = rep("x", n) end

function keep(i, n) local ok, err = pcall(put, i, n) return ok, ok or err end
function drop(i) kept[i] = false end
function whole() collectgarbage() collectgarbage() return zmalloc.used() end
function figures() return zmalloc.used(), collectgarbage "count" * 1024, zmalloc.limit() end
function within(room, i, n) whole() return zmalloc.budget(room, put, i, n) end
function nested(outer, inner, i, n)
    whole()
    return zmalloc.budget(outer, zmalloc.budget, inner, put, i, n)
end
function measured(i, n)
    whole()
    collectgarbage "stop"
    local use = zmalloc.track(put, i, n)
    collectgarbage "restart"
    return use.net, use.peak, use.count
end
function failing(first, count, i, n)
    collectgarbage "stop"
    pcall(put, i, n)                        -- the stack is deep enough after this
    local fault = zmalloc.fail_after(first, count)
    local ok = pcall(put, i, n)
    local passed, failed = fault()
    collectgarbage "restart"
    return ok, passed, failed
end
local options = { reserve = 0, seal = false }
function limit(n, reserve, seal)
    if n == nil then return pcall(zmalloc.limit, nil) end
    options.reserve, options.seal = reserve, seal ~= 0
    return pcall(zmalloc.limit, n, options)
end
pcall(limit, 1 << 40, 4096, 0) limit(nil)   -- what the first use of a limit makes is there
keep(1, 5000) within(1 << 20, 1, 5000) nested(1 << 20, 1 << 20, 1, 5000) measured(1, 5000)
failing(0, 1, 1, 5000) drop(1)
"""


@dataclass
class Marks:
    """A limit, and what it never lets use pass."""

    limit: int | None = None
    hard: int | None = None
    sealed: bool = False

    def set(self, n: int | None, reserve: int = 0) -> None:
        self.limit, self.hard = n, None if n is None else n + reserve

    def would_rise(self, n: int | None, reserve: int) -> bool:
        if not self.sealed:
            return False
        return n is None or n > (self.limit or 0) or n + reserve > (self.hard or 0)


def least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def reserve_of(n: int) -> int:
    """What a script's limit has beyond it unless told."""
    return min(max(n // 16, 4096), 1 << 20)


@dataclass
class Live:
    """A state and what the model knows of it."""

    state: State
    account: zmalloc.Account
    base: int
    kept: dict[int, int] = field(default_factory=dict)
    host: Marks = field(default_factory=Marks)
    script: Marks = field(default_factory=Marks)

    @property
    def live(self) -> int:
        return self.base + sum(n + HEAD for n in self.kept.values())

    def put(self, i: int, n: int) -> None:
        self.kept[i] = n


def counted(ok: bool, asked: int, first: int, count: int) -> list[object]:
    """What `failing` returns for so many requests."""
    end = asked if count < 0 else min(asked, first + count)
    failed = max(0, end - first)
    return [ok, asked - failed, failed]


class States(RuleBasedStateMachine):
    module: Path

    def __init__(self) -> None:
        super().__init__()
        self.parent_alloc = zmalloc.lua_allocator("tree")
        self.parent = self.parent_alloc[2]
        self.parent_marks = Marks()
        self.lives: list[Live] = []
        self.before: list[int] = []
        for _ in range(2):
            self.open()

    def open(self) -> None:
        alloc, ud, account = zmalloc.lua_allocator("model", parent=self.parent)
        state = State(alloc, ud)
        state.run("package.cpath = %s", self.module)
        state.run(SETUP)
        base = 0
        for _ in range(3):  # the first ones also shrink what has been larger
            [base] = state.call("whole")
        self.lives.append(Live(state, account, int(base)))

    # -- what is certain -----------------------------------------------------------------------

    def least_marks(self, one: Live) -> tuple[int | None, int | None]:
        """The least limit that a request has to keep to, and the least that is never passed."""
        others, above = self.parent.used - one.account.used, self.parent_marks
        limit = None if above.limit is None else above.limit - others
        hard = None if above.hard is None else above.hard - others
        return least(one.host.limit, one.script.limit, limit), least(
            one.host.hard, one.script.hard, hard
        )

    def fits(self, one: Live, n: int, *rooms: int) -> bool | None:
        """Whether a string of n bytes can be made: True, False, or None: that depends."""
        limit, hard = self.least_marks(one)
        limit = least(limit, *(one.live + room for room in rooms))
        hard = least(hard, *(one.live + room + reserve_of(room) for room in rooms))
        if limit is None or one.live + 2 * n + BOX <= limit:
            return True
        return False if hard is not None and one.live + n > hard else None

    def check(self, one: Live, granted: bool, expected: bool | None, overheads: int) -> None:
        if expected is None or granted == expected:
            return
        known = f"live {one.live}, {self.least_marks(one)}"
        assert not granted, known
        assert one.account.overhead_refusals > overheads, known

    # -- scripts -------------------------------------------------------------------------------

    chosen = st.integers(0, 1)
    slots = st.integers(1, SLOTS)
    sizes = st.one_of(st.integers(41, 60_000), st.sampled_from([1024, 1025, 100_000, 400_000]))

    @rule(which=chosen, i=slots, n=sizes)
    def keep(self, which: int, i: int, n: int) -> None:
        one = self.lives[which]
        expected, overheads = self.fits(one, n), one.account.overhead_refusals
        granted, why = one.state.call("keep", i, n)
        assert granted or why == "not enough memory"
        self.check(one, bool(granted), expected, overheads)
        if granted:
            one.put(i, n)

    @rule(which=chosen, i=slots)
    def drop(self, which: int, i: int) -> None:
        one = self.lives[which]
        one.state.call("drop", i)
        one.kept.pop(i, None)

    @rule(which=chosen)
    def collect(self, which: int) -> None:
        one = self.lives[which]
        one.state.call("whole")  # at a cap, Lua's own structures are not shrunk by the first
        [used] = one.state.call("whole")
        assert one.state.call("figures")[:2] == [used, used], "no buffer is left"
        assert one.live - LESS <= int(str(used)) <= one.live + BOX

    @rule(which=chosen, i=slots, n=sizes, room=st.integers(1, 300_000))
    def within_a_budget(self, which: int, i: int, n: int, room: int) -> None:
        one = self.lives[which]
        expected, overheads = self.fits(one, n, room), one.account.overhead_refusals
        granted, *why = one.state.call("within", room, i, n)
        assert why == [] if granted else why == ["not enough memory", "limit"]
        self.check(one, bool(granted), expected, overheads)
        if granted:
            one.put(i, n)

    @rule(which=chosen, i=slots, n=sizes, outer=st.integers(9_000, 300_000),
          inner=st.integers(1, 300_000))  # fmt: skip
    def within_two_budgets(self, which: int, i: int, n: int, outer: int, inner: int) -> None:
        one = self.lives[which]
        expected, overheads = self.fits(one, n, outer, inner), one.account.overhead_refusals
        granted, *results = one.state.call("nested", outer, inner, i, n)
        if granted and results[0]:
            assert results == [True]
        elif granted:
            assert results == [False, "not enough memory", "limit"]
        else:
            assert results == ["not enough memory", "limit"]
        got = bool(granted and results[0])
        self.check(one, got, expected, overheads)
        if got:
            one.put(i, n)

    @rule(which=chosen, i=slots, n=sizes.filter(lambda n: n > 1024))
    def track(self, which: int, i: int, n: int) -> None:
        one = self.lives[which]
        if self.fits(one, n) is not True:
            return
        overheads = one.account.overhead_refusals
        try:
            net, peak, count = one.state.call("measured", i, n)
        except LuaError:
            one.state.run("collectgarbage 'restart'")
            assert one.account.overhead_refusals > overheads
            return
        one.put(i, n)
        assert n + HEAD <= int(str(net)) <= n + HEAD + BOX
        assert 2 * n + HEAD <= int(str(peak)) <= 2 * n + HEAD + BOX
        assert count in range(3, 7), "the userdata, the buffer, the string; the stack and its calls"

    @rule(which=chosen, i=slots, n=sizes.filter(lambda n: n > 1024), first=st.integers(0, 7),
          count=st.one_of(st.integers(1, 8), st.just(-1)))  # fmt: skip
    def fail(self, which: int, i: int, n: int, first: int, count: int) -> None:
        one = self.lives[which]
        limit, _ = self.least_marks(one)
        if limit is not None and one.account.used + 4 * n + 4 * BOX > limit:
            return
        asked, ok = 0, True
        for tries in (2, 1, 2):  # a userdata, the buffer, the string; the buffer is asked for once
            for _ in range(tries):
                is_refused = first <= asked and (count < 0 or asked < first + count)
                asked += 1
                if not is_refused:
                    break
            ok = not is_refused
            if not ok:
                break
        expected = [counted(ok, asked, first, count)]
        if not ok:  # an error makes the stack smaller, which is a request; Lua goes on without
            expected += [counted(ok, asked + more, first, count) for more in (1, 2)]
        assert one.state.call("failing", first, count, i, n) in expected
        one.put(i, n)  # what was kept before the fault was as long

    @rule(which=chosen, n=st.one_of(st.none(), st.integers(1, 400_000)),
          reserve=st.integers(1, 100_000), seal=st.integers(0, 4))  # fmt: skip
    def limit(self, which: int, n: int | None, reserve: int, seal: int) -> None:
        """None: the limit that there is, with another reserve."""
        one = self.lives[which]
        n = one.script.limit or one.base + 10_000 if n is None else n + one.base + 10_000
        marks = one.script
        expected = not marks.would_rise(n, reserve)
        ok, result = one.state.call("limit", n, reserve, seal // 4)
        assert ok == expected, result
        if ok:
            self.before = []  # before the limit was in force, the call took what it needs
            marks.set(n, reserve)
            marks.sealed = marks.sealed or seal == 4
            assert result == least(n, one.host.limit)
        else:
            assert "the sealed" in str(result) or result == "not enough memory"

    @rule(which=chosen)
    def lift(self, which: int) -> None:
        one = self.lives[which]
        ok, result = one.state.call("limit", None)
        assert ok != one.script.sealed, result
        if ok:
            one.script.set(None)
            assert result == one.host.limit

    # -- the host ------------------------------------------------------------------------------

    @rule(which=chosen, n=st.one_of(st.none(), st.integers(1, 400_000)),
          reserve=st.one_of(st.just(0), st.integers(1, 100_000)))  # fmt: skip
    def cap(self, which: int, n: int | None, reserve: int) -> None:
        one = self.lives[which]
        if n is None:
            one.account.limit(None)
            one.host.set(None)
            return
        n += one.base + 10_000
        one.account.limit(n, reserve=reserve)
        one.host.set(n, reserve)

    @rule(n=st.one_of(st.none(), st.integers(1, 600_000)), reserve=st.integers(1, 100_000))
    def cap_all(self, n: int | None, reserve: int) -> None:
        if n is None:
            self.parent.limit(None)
            self.parent_marks.set(None)
            return
        n += sum(one.base + 10_000 for one in self.lives)
        self.parent.limit(n, reserve=reserve)
        self.parent_marks.set(n, reserve)

    @precondition(lambda self: self.parent_marks.limit is None)
    @rule(which=chosen)
    def reopen(self, which: int) -> None:
        one = self.lives.pop(which)
        one.state.close()
        assert one.account.used == 0
        self.before = []
        self.open()
        self.lives.insert(which, self.lives.pop())

    # -- at each moment ------------------------------------------------------------------------

    @invariant()
    def figures_agree(self) -> None:
        for one in self.lives:
            used, by_lua, limit = one.state.call("figures")
            assert used == one.account.used
            assert int(str(used)) >= float(str(by_lua)), "Lua does not see a buffer that is left"
            assert limit == least(one.host.limit, one.script.limit)
            assert int(str(used)) >= one.live - LESS
        assert self.parent.used == sum(one.account.used for one in self.lives)

    @invariant()
    def nothing_is_above_its_hard_limit_but_what_was(self) -> None:
        now = [one.account.used for one in self.lives]
        for i, one in enumerate(self.lives):
            hard = least(one.host.hard, one.script.hard)
            was = self.before[i] if self.before else now[i]
            assert hard is None or now[i] <= max(hard, was)
        self.before = now

    def teardown(self) -> None:
        for one in self.lives:
            one.account.limit(None)
        self.parent.limit(None)
        for one in self.lives:
            one.state.close()
            assert one.account.used == 0
        assert self.parent.used == 0


def test_scripts_are_granted_and_refused_what_the_model_says(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(States, "module", module, raising=False)
    run_state_machine_as_test(States, settings=randomly())
