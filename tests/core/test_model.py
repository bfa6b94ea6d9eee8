"""State machines: random sequences of calls, compared with a model after each of them.

The models are written from the headers, not from the code.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from ctypes import byref, c_size_t, c_void_p, string_at
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from . import toolchain
from .conftest import Sums
from .core import KINDS, SIZE_MAX, UNLIMITED, Core, OutOfMemory, Pressure, Scope
from .randomly import randomly

libc = ctypes.CDLL(None)
libc.malloc_usable_size.restype = c_size_t
libc.malloc_usable_size.argtypes = [c_void_p]


def pattern(seed: int, size: int) -> bytes:
    """Bytes that no other block has in the same place."""
    return bytes((seed * 31 + i * 7 + 1) & 0xFF for i in range(min(size, 251))) * (size // 251 + 1)


def explore(machine: Callable[[], RuleBasedStateMachine]) -> None:
    """Runs a state machine. It wants a class, and is content with what makes an instance."""
    kind = cast("type[RuleBasedStateMachine]", machine)
    run_state_machine_as_test(kind, settings=randomly())


# ---- the family --------------------------------------------------------------------------------

# The borders: nothing, a granule, small bins, the size map's long code, pages, mmap's threshold.
sizes = st.one_of(
    st.sampled_from([0, 1, 15, 16, 17, 24, 25, 249, 250, 255, 256, 4095, 4096, 4097,
                     128 * 1024 - 24, 128 * 1024, 1 << 20]),
    st.integers(0, 600),
    st.integers(0, 200_000),
)
impossible_sizes = st.one_of(
    st.integers(SIZE_MAX - 64, SIZE_MAX),
    st.integers(SIZE_MAX // 2 - 64, SIZE_MAX // 2 + 64),
    st.sampled_from([1 << 62, 1 << 60, (1 << 63) - 16]),
)
# Pairs whose product does not fit, or fits only after it has wrapped around to something small.
impossible_pairs = st.one_of(
    st.tuples(st.integers(2, SIZE_MAX), impossible_sizes),
    st.tuples(st.integers(1, 64), st.integers(1, 64)).map(
        lambda k: ((1 << 32) * k[0], (1 << 32) * k[1])),
    st.sampled_from([((1 << 63), 2), ((1 << 62), 4), (SIZE_MAX, SIZE_MAX), (1, SIZE_MAX)]),
)


@dataclass(eq=False)
class Block:
    address: int
    size: int  # as asked for
    counted: int
    seed: int


class Family(RuleBasedStateMachine):
    """The zmalloc family against a list of blocks."""

    blocks = Bundle("blocks")

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core
        self.live: list[Block] = []
        self.account = core.zmalloc_account()
        core.zaccount_reset_peak(self.account)
        start = core.figures(self.account)
        self.base: int = start.used
        self.peak: int = start.used
        self.allocations, self.frees = start.allocations, start.frees
        self.seed = 0
        self.complaints: list[int] = []
        self.handler = OutOfMemory(self.complaints.append)
        core.zmalloc_set_oom_handler(self.handler)

    def used(self) -> int:
        return self.base + sum(block.counted for block in self.live)

    def counted(self, address: int, size: int) -> int:
        """What the header says a block is counted at, from sources of our own."""
        counted: int
        if self.core.mode == "prefix":
            return size + self.core.prefix
        counted = libc.malloc_usable_size(address)
        return counted

    def enter(self, address: int | None, size: int, *, zeroed: bool,
              usable: c_size_t | None = None) -> Block:
        """A new block: checks what is promised of it and fills it."""
        assert address, "no block"
        assert address % 16 == 0
        assert all(address != other.address for other in self.live)
        if zeroed:
            assert string_at(address, size) == bytes(size)
        self.seed += 1
        block = Block(address, size, self.counted(address, size), self.seed)
        if usable is not None:
            assert usable.value == block.counted
        ctypes.memmove(address, pattern(self.seed, size), size)
        self.live.append(block)
        return block

    @rule(target=blocks, size=sizes, name=st.sampled_from(["zmalloc", "ztrymalloc"]))
    def malloc(self, size: int, name: str) -> Block:
        block = self.enter(getattr(self.core, name)(size), size, zeroed=False)
        self.allocations += 1
        return block

    @rule(target=blocks, size=sizes, name=st.sampled_from(["zcalloc", "ztrycalloc"]))
    def calloc(self, size: int, name: str) -> Block:
        block = self.enter(getattr(self.core, name)(size), size, zeroed=True)
        self.allocations += 1
        return block

    @rule(target=blocks, count=st.integers(0, 40), size=st.integers(0, 600),
          name=st.sampled_from(["zcalloc_num", "ztrycalloc_num"]))
    def calloc_num(self, count: int, size: int, name: str) -> Block:
        block = self.enter(getattr(self.core, name)(count, size), count * size, zeroed=True)
        self.allocations += 1
        return block

    @rule(target=blocks, size=sizes, name=st.sampled_from(["m", "c", "trym", "tryc"]))
    def allocate_usable(self, size: int, name: str) -> Block:
        function = getattr(self.core, f"z{name}alloc_usable")
        usable = c_size_t(12345)
        block = self.enter(function(size, byref(usable)), size, zeroed=name.endswith("c"),
                           usable=usable)
        self.allocations += 1
        return block

    @rule(target=blocks, text=st.binary(max_size=300).filter(lambda text: 0 not in text))
    def strdup(self, text: bytes) -> Block:
        address = self.core.zstrdup(text)
        assert string_at(address) == text
        self.allocations += 1
        return self.enter(address, len(text) + 1, zeroed=False)

    @rule(target=blocks, block=consumes(blocks), size=sizes.filter(bool),
          name=st.sampled_from(["zrealloc", "ztryrealloc", "zrealloc_usable",
                                "ztryrealloc_usable"]))
    def resize(self, block: Block, size: int, name: str) -> Block:
        usable = c_size_t(12345) if name.endswith("usable") else None
        arguments = [block.address, size] + ([byref(usable)] if usable is not None else [])
        self.live.remove(block)
        address = getattr(self.core, name)(*arguments)
        kept = min(size, block.size)
        assert string_at(address, kept) == pattern(block.seed, block.size)[:kept]
        return self.enter(address, size, zeroed=False, usable=usable)

    @rule(target=blocks, size=sizes, name=st.sampled_from(["zrealloc", "ztryrealloc"]))
    def realloc_of_null(self, size: int, name: str) -> Block:
        self.allocations += 1
        return self.enter(getattr(self.core, name)(None, size), size, zeroed=False)

    @rule(block=consumes(blocks), name=st.sampled_from(["zrealloc", "ztryrealloc",
                                                        "zrealloc_usable", "ztryrealloc_usable"]))
    def realloc_to_nothing(self, block: Block, name: str) -> None:
        usable = c_size_t(12345)
        arguments = [block.address, 0] + ([byref(usable)] if name.endswith("usable") else [])
        assert getattr(self.core, name)(*arguments) is None
        if name.endswith("usable"):
            assert usable.value == 0
        self.live.remove(block)
        self.frees += 1

    @rule(block=consumes(blocks), usable=st.booleans())
    def free(self, block: Block, usable: bool) -> None:
        assert string_at(block.address, block.size) == \
            pattern(block.seed, block.size)[:block.size]
        if usable:
            size = c_size_t(12345)
            self.core.zfree_usable(block.address, byref(size))
            assert size.value == block.counted
        else:
            self.core.zfree(block.address)
        self.live.remove(block)
        self.frees += 1

    @rule()
    def free_of_null(self) -> None:
        size = c_size_t(12345)
        self.core.zfree(None)
        self.core.zfree_usable(None, byref(size))
        assert size.value == 0

    @rule(size=impossible_sizes, name=st.sampled_from(["m", "c", "trym", "tryc"]),
          usable=st.booleans())
    def too_large(self, size: int, name: str, usable: bool) -> None:
        out = c_size_t(12345)
        self.complaints.clear()
        function = getattr(self.core, f"z{name}alloc" + ("_usable" if usable else ""))
        assert function(size, *([byref(out)] if usable else [])) is None
        assert self.complaints == ([] if name.startswith("try") else [size])
        assert not usable or out.value == 0

    @rule(pair=impossible_pairs, swap=st.booleans(), panics=st.booleans())
    def product_too_large(self, pair: tuple[int, int], swap: bool, panics: bool) -> None:
        count, size = pair[::-1] if swap else pair
        product = count * size
        self.complaints.clear()
        function = self.core.zcalloc_num if panics else self.core.ztrycalloc_num
        assert function(count, size) is None
        assert self.complaints == ([min(product, SIZE_MAX)] if panics else [])

    @rule(block=blocks, size=impossible_sizes,
          name=st.sampled_from(["zrealloc", "ztryrealloc", "zrealloc_usable",
                                "ztryrealloc_usable"]))
    def resize_too_large(self, block: Block, size: int, name: str) -> None:
        out = c_size_t(12345)
        usable = name.endswith("usable")
        self.complaints.clear()
        function = getattr(self.core, name)
        assert function(block.address, size, *([byref(out)] if usable else [])) is None
        assert self.complaints == ([] if "try" in name else [size])
        assert not usable or out.value == 0
        # The old block is alive, whole and counted: the invariants look at it too.
        assert string_at(block.address, block.size) == \
            pattern(block.seed, block.size)[:block.size]

    @rule()
    def count_the_peak_anew(self) -> None:
        self.core.zaccount_reset_peak(self.account)
        self.peak = self.used()

    @invariant()
    def figures_agree(self) -> None:
        self.peak = max(self.peak, self.used())
        figures = self.core.figures(self.account)
        assert self.core.zmalloc_used_memory() == figures.used == self.used()
        assert self.core.zmalloc_peak_memory() == figures.peak == self.peak
        assert (figures.allocations, figures.frees) == (self.allocations, self.frees)
        assert figures.limit == figures.hard_limit == UNLIMITED
        assert (figures.refusals, figures.limit_hit, figures.reserve_open) == (0, False, False)

    @invariant()
    def blocks_agree(self) -> None:
        for block in self.live:
            assert self.core.zmalloc_size(block.address) == block.counted
            assert block.counted >= block.size
            assert self.core.zmalloc_usable_size(block.address) == \
                block.counted - self.core.prefix

    def teardown(self) -> None:
        for block in self.live:
            whole = string_at(block.address, block.size)
            assert whole == pattern(block.seed, block.size)[:block.size]
            self.core.zfree(block.address)
        self.core.zmalloc_set_oom_handler(None)
        assert self.core.zmalloc_used_memory() == self.base


def test_the_family_counts_what_a_list_of_its_blocks_says(core: Core) -> None:
    explore(lambda: Family(core))


# ---- accounts ----------------------------------------------------------------------------------


@dataclass(eq=False)
class Entered:
    """A scope, and the most that was used since it began."""

    scope: Scope
    limit: int
    hard: int
    peak: int


@dataclass(eq=False)
class Account:
    """What zaccount.h says an account is."""

    address: int
    name: bytes
    parent: Account | None
    used: int = 0
    peak: int = 0
    limit: int = UNLIMITED
    hard: int = UNLIMITED
    allocations: int = 0
    frees: int = 0
    refusals: int = 0
    last_refused: int = 0
    hit: bool = False
    open: bool = False
    close: int = 0  # where an open reserve closes
    sealed: bool = False
    guest_sealed: bool = False
    own: tuple[int, int] = (UNLIMITED, UNLIMITED)  # the owner's marks,
    guest: tuple[int, int] = (UNLIMITED, UNLIMITED)  # the guest's,
    scopes: list[Entered] = field(default_factory=list)  # and the scopes'
    guest_peak: int = 0
    percent: int = 5
    strikes: int = 8
    poor: int = 0
    retries: int = 0
    overhead_refusals: int = 0
    kinds: list[int] = field(default_factory=lambda: [0] * KINDS)
    copy: int = 0  # which copy of the library made it
    mark: int | None = None
    felt: bool = False  # the callback has run and use has not fallen to the mark since
    calls: int = 0
    pass_first: int = 0
    then_refuse: int = 0
    injects: bool = False
    passed: int = 0
    failed: int = 0
    children: int = 0
    held: list[int] = field(default_factory=list)  # charges without a block
    blocks: list[Block] = field(default_factory=list)

    def chain(self) -> list[Account]:
        above = self.parent.chain() if self.parent else []
        return [self, *above]

    def note_refusal(self, n: int) -> bool:
        self.refusals += 1
        self.last_refused = n
        return False

    def climb(self, n: int, opened: bool, calls: list[tuple[int, int]]) -> int | None:
        """None if the whole chain takes n bytes, else the reserve of the cap that refused."""
        fails = not self.pass_first and self.then_refuse != 0
        if self.injects:
            self.passed, self.failed = self.passed + (not fails), self.failed + fails
        self.pass_first -= self.pass_first > 0
        if fails:
            self.then_refuse -= self.then_refuse > 0
            self.note_refusal(n)
            return 0
        if self.used + n > (self.hard if opened else self.limit):
            self.hit = True
            self.note_refusal(n)
            return self.hard - self.limit
        if self.parent:
            reserve = self.parent.climb(n, opened, calls)
            if reserve is not None:
                self.note_refusal(n)
                return reserve
        self.used += n
        if self.mark is not None and self.used > self.mark and not self.felt:
            self.felt = True
            calls.append((self.address, self.used))
        return None

    def charge(self, n: int, calls: list[tuple[int, int]], again: bool = False) -> bool:
        """True if the whole chain takes n bytes. `calls`: the callbacks that run."""
        if n == 0:
            return True
        reserve = self.climb(n, self.open and not again, calls)
        if reserve is None:
            if again:
                self.open = False
            return True
        if reserve > 0 and not self.open:
            self.open = True
            own = self.used + n > self.limit
            self.close = (self.limit - min(self.hard - self.limit, self.limit // 2) if own
                          else self.used - min(reserve, self.used // 2))
        return False

    def is_overhead(self, n: int) -> bool:
        """A refused request comes again: has it collected in vain once too often?"""
        self.retries += 1
        rooms = [max(0, each.limit - each.used - n) for each in self.chain()]
        if min(rooms) >= self.used // 100 * self.percent:
            self.poor = 0
            return False
        if self.poor < self.strikes:
            self.poor += 1
            return False
        self.overhead_refusals += 1
        self.hit = True
        self.note_refusal(n)
        return True

    def apply(self) -> None:
        every = [self.own, self.guest, *((each.limit, each.hard) for each in self.scopes)]
        limit, hard = min(each[0] for each in every), min(each[1] for each in every)
        if (limit, hard) != (self.limit, self.hard):
            self.limit, self.hard, self.open = limit, hard, False

    def settle_peak(self) -> None:
        for account in self.chain():
            account.peak = max(account.peak, account.used)
            account.guest_peak = max(account.guest_peak, account.used)
            for each in account.scopes:
                each.peak = max(each.peak, account.used)

    def drop(self, n: int) -> None:
        for account in self.chain():
            account.used -= n
            if account.open and account.used <= account.close:
                account.open = False
            if account.mark is not None and account.used <= account.mark:
                account.felt = False

    def figures(self) -> dict[str, int | bool]:
        return {"used": self.used, "peak": self.peak, "limit": self.limit,
                "hard_limit": self.hard, "allocations": self.allocations, "frees": self.frees,
                "refusals": self.refusals, "last_refused": self.last_refused,
                "retries": self.retries, "overhead_refusals": self.overhead_refusals,
                "limit_hit": self.hit, "reserve_open": self.open, "sealed": self.sealed,
                "guest_sealed": self.guest_sealed}


amounts = st.one_of(st.integers(1, 40), st.integers(1, 400), st.just(0))
marks = st.one_of(st.integers(0, 400), st.just(0))
huge = st.sampled_from([1 << 48, 1 << 62, SIZE_MAX // 2, SIZE_MAX - 1, SIZE_MAX])


class Accounts(RuleBasedStateMachine):
    """Trees of accounts. With several copies of the library each call goes to any of them."""

    accounts = Bundle("accounts")

    def __init__(self, copies: list[Core]) -> None:
        super().__init__()
        self.copies = copies
        self.live: list[Account] = []
        self.base = copies[0].zmalloc_total()
        self.turn = 0
        self.seed = 0
        self.calls: list[tuple[int, int]] = []
        self.callback = Pressure(self.pressed)
        self.ud = 4711
        self.refused: dict[int, tuple[object, ...]] = {}  # by each copy, the last request

    def pressed(self, account: int, used: int, ud: int) -> None:
        self.calls.append((account, used) if ud == self.ud else (account, -1))

    @property
    def core(self) -> Core:
        """The next copy in turn."""
        self.turn += 1
        return self.copies[self.turn % len(self.copies)]

    def add(self, name: bytes, parent: Account | None) -> Account:
        address = self.core.zaccount_new(name, parent.address if parent else None)
        assert address
        account = Account(address, name[:31], parent, copy=self.turn % len(self.copies))
        if parent:
            parent.children += 1
        self.live.append(account)
        return account

    @initialize(target=accounts, caps=st.lists(st.integers(0, 200), min_size=4, max_size=4))
    def two_levels(self, caps: list[int]) -> object:
        top = self.add(b"top", None)
        below = self.add(b"below", top)
        if caps[0]:  # 0: without caps to begin with
            self.set_limit(top, caps[0], False, 0, caps[1])
            self.set_limit(below, caps[2], False, 0, caps[3])
        return multiple(top, below)

    @rule(target=accounts, parent=st.none() | accounts,
          name=st.binary(max_size=40).filter(lambda name: 0 not in name))
    def new(self, parent: Account | None, name: bytes) -> Account:
        assume(len(self.live) < 8 and (parent is None or parent in self.live))
        return self.add(name, parent)

    @rule(account=accounts)
    def free(self, account: Account) -> None:
        assume(account in self.live)
        kept = account.used > 0 or account.children > 0
        assert self.core.zaccount_free(account.address) == (-1 if kept else 0)
        if kept:
            return
        self.live.remove(account)
        if account.parent:
            account.parent.children -= 1
        if self.refused.get(account.copy, (None, 0))[0] is account:
            del self.refused[account.copy]

    def grow(self, account: Account, block: int | None, size: int, n: int,
             expected: list[tuple[int, int]]) -> bool:
        """A growth by zaccount_alloc(): refused, and then the same again, it is a second try."""
        last = self.refused.get(account.copy, (None, 0))
        again = last == (account, block, size, n)
        if last[0] is account:
            del self.refused[account.copy]
        if again and account.is_overhead(n):
            return False
        granted = account.charge(n, expected, again)
        if not granted and not again and any(account.kinds[1:]):
            self.refused[account.copy] = (account, block, size, n)
        return granted

    @rule(account=accounts, n=amounts)
    def charge(self, account: Account, n: int) -> None:
        assume(account in self.live)
        expected: list[tuple[int, int]] = []
        self.calls.clear()
        granted = account.charge(n, expected)
        assert self.core.zaccount_charge(account.address, n) == granted
        assert self.calls == expected
        if granted:
            account.held.append(n)
            account.settle_peak()

    @rule(account=accounts, n=huge)
    def charge_what_cannot_be(self, account: Account, n: int) -> None:
        assume(account in self.live)
        assume(any(each.limit != UNLIMITED and each.hard < n for each in account.chain()))
        self.charge(account, n)

    @rule(account=accounts, level=st.integers(0, 2), off=st.integers(-1, 1))
    def charge_up_to_the_ceiling(self, account: Account, level: int, off: int) -> None:
        """To the byte: one of the caps above is met, missed or passed by one."""
        assume(account in self.live)
        chain = account.chain()
        capped = chain[min(level, len(chain) - 1)]
        n = (capped.hard if capped.open else capped.limit) - capped.used + off
        assume(0 < n < 2000)
        self.charge(account, n)

    @rule(account=accounts, off=st.integers(-1, 1))
    def uncharge_down_to_a_mark(self, account: Account, off: int) -> None:
        """To the byte: where the reserve closes, or the callback is ready again."""
        assume(account in self.live and account.held)
        low = account.close if account.open else \
            account.limit - min(account.hard - account.limit, account.limit // 2)
        for level in (account.mark or 0, low):
            back = account.used - level - off
            if 0 < back <= account.held[-1]:
                self.core.zaccount_uncharge(account.address, back)
                account.drop(back)
                account.held.append(account.held.pop() - back)
                return

    @rule(account=accounts, part=st.floats(0, 1))
    def uncharge(self, account: Account, part: float) -> None:
        assume(account in self.live and account.held)
        n = account.held.pop()
        back = int(n * part)
        self.core.zaccount_uncharge(account.address, back)
        account.drop(back)
        if n > back:
            account.held.append(n - back)

    @rule(account=accounts, n=amounts)
    def charge_and_give_back(self, account: Account, n: int) -> None:
        """What a failed allocation does: the peak must not remember it."""
        assume(account in self.live)
        expected: list[tuple[int, int]] = []
        self.calls.clear()
        granted = account.charge(n, expected)
        assert self.core.zaccount_charge(account.address, n) == granted
        if granted:
            self.core.zaccount_give_back(account.address, n)
            account.drop(n)
        assert self.calls == expected

    @rule(account=accounts, n=amounts, kind=st.integers(0, 20))
    def allocate(self, account: Account, n: int, kind: int) -> None:
        assume(account in self.live)
        expected: list[tuple[int, int]] = []
        self.calls.clear()
        granted = n > 0 and self.grow(account, None, kind, n, expected)
        address = self.core.zaccount_alloc(account.address, None, kind, n)
        assert bool(address) == granted
        assert self.calls == expected
        if not granted:
            return
        account.settle_peak()
        account.allocations += 1
        account.kinds[kind % KINDS] += 1
        self.seed += 1
        ctypes.memmove(address, pattern(self.seed, n), n)
        account.blocks.append(Block(address, n, n, self.seed))

    @rule(account=accounts, n=st.integers(1, 400))
    def resize(self, account: Account, n: int) -> None:
        assume(account in self.live and account.blocks)
        block = account.blocks.pop(0)
        expected: list[tuple[int, int]] = []
        self.calls.clear()
        grows = n > block.size
        granted = not grows or self.grow(
            account, block.address, block.size, n - block.size, expected)
        address = self.core.zaccount_alloc(account.address, block.address, block.size, n)
        assert self.calls == expected
        assert bool(address) == granted
        if granted:
            if not grows:
                account.drop(block.size - n)
            account.settle_peak()
            kept = min(n, block.size)
            assert string_at(address, kept) == pattern(block.seed, kept)[:kept]
            self.seed += 1
            block = Block(address, n, n, self.seed)
            ctypes.memmove(address, pattern(self.seed, n), n)
        account.blocks.append(block)

    @rule(account=accounts, n=st.sampled_from([1 << 60, SIZE_MAX // 2, SIZE_MAX // 2 + 1]),
          block=st.booleans())
    def the_heap_refuses(self, account: Account, n: int, block: bool) -> None:
        """A charge that is granted and then fails below: as if it had not been."""
        assume(account in self.live)
        old = account.blocks[0] if block and account.blocks else None
        osize = old.size if old else 0
        expected: list[tuple[int, int]] = []
        self.calls.clear()
        address = old.address if old else None
        if self.grow(account, address, osize, n - osize, expected):
            account.drop(n - osize)
        assert self.core.zaccount_alloc(account.address, address, osize, n) is None
        assert self.calls == expected
        if old:
            assert string_at(old.address, osize) == pattern(old.seed, osize)[:osize]

    @rule(account=accounts)
    def release(self, account: Account) -> None:
        assume(account in self.live and account.blocks)
        block = account.blocks.pop(0)
        assert string_at(block.address, block.size) == \
            pattern(block.seed, block.size)[:block.size]
        assert self.core.zaccount_alloc(account.address, block.address, block.size, 0) is None
        account.frees += 1
        account.drop(block.size)

    @rule(account=accounts)
    def release_nothing(self, account: Account) -> None:
        assume(account in self.live)
        assert self.core.zaccount_alloc(account.address, None, 5, 0) is None

    @rule(account=accounts, limit=marks | huge, near=st.booleans(), off=st.integers(-3, 50),
          reserve=st.just(0) | st.integers(0, 100) | huge)
    def set_limit(self, account: Account, limit: int, near: bool, off: int, reserve: int) -> None:
        assume(account in self.live)
        if near:
            limit = max(0, account.used + off)
        hard = min(limit + reserve, SIZE_MAX)
        rises = limit > account.own[0] or hard > account.own[1]
        refused = account.sealed and rises
        result = self.core.zaccount_set_limit(account.address, limit, reserve)
        assert result == (-1 if refused else 0)
        if not refused:
            account.own, account.open = (limit, hard), False
            account.apply()

    @rule(account=accounts, limit=marks | huge | st.just(UNLIMITED), near=st.booleans(),
          off=st.integers(-3, 50), reserve=st.just(0) | st.integers(0, 100) | huge)
    def guest_limit(self, account: Account, limit: int, near: bool, off: int, reserve: int) -> None:
        assume(account in self.live)
        if near:
            limit = max(0, account.used + off)
        hard = min(limit + reserve, SIZE_MAX)
        rises = limit > account.guest[0] or hard > account.guest[1]
        refused = account.guest_sealed and rises
        result = self.core.zaccount_guest_limit(account.address, limit, reserve)
        assert result == (-1 if refused else 0)
        if not refused:
            account.guest, account.open = (limit, hard), False
            account.apply()

    @rule(account=accounts, really=st.integers(0, 2))
    def guest_seal(self, account: Account, really: int) -> None:
        assume(account in self.live and really == 0)
        self.core.zaccount_guest_seal(account.address)
        account.guest_sealed = True

    @rule(account=accounts)
    def guest_peak(self, account: Account) -> None:
        assume(account in self.live)
        assert self.core.zaccount_guest_peak(account.address) == account.guest_peak

    @rule(account=accounts)
    def guest_reset_peak(self, account: Account) -> None:
        assume(account in self.live)
        self.core.zaccount_guest_reset_peak(account.address)
        account.guest_peak = account.used

    @rule(account=accounts, limit=marks | st.just(UNLIMITED), more=st.integers(-5, 100),
          near=st.booleans(), reserve=st.just(0) | st.integers(0, 100))
    def enter(self, account: Account, limit: int, more: int, near: bool, reserve: int) -> None:
        assume(account in self.live and len(account.scopes) < 4)
        if near:
            limit = max(0, account.used + more)
        scope = Scope(limit=limit, reserve=reserve)
        self.core.zaccount_enter(account.address, byref(scope))
        account.scopes.append(Entered(scope, limit, min(limit + reserve, SIZE_MAX), account.used))
        account.apply()

    @rule(account=accounts, data=st.data())
    def leave(self, account: Account, data: st.DataObject) -> None:
        """In any order."""
        assume(account in self.live and account.scopes)
        entered = account.scopes.pop(data.draw(st.integers(0, len(account.scopes) - 1)))
        self.core.zaccount_leave(account.address, byref(entered.scope))
        assert entered.scope.peak == entered.peak
        account.apply()

    @rule(account=accounts)
    def scope_peaks(self, account: Account) -> None:
        assume(account in self.live)
        for each in account.scopes:
            assert self.core.zaccount_scope_peak(account.address, byref(each.scope)) == each.peak

    @rule(account=accounts, percent=st.integers(0, 100), strikes=st.integers(0, 3))
    def set_overhead(self, account: Account, percent: int, strikes: int) -> None:
        assume(account in self.live)
        self.core.zaccount_set_overhead(account.address, percent, strikes)
        account.percent, account.strikes, account.poor = percent, strikes, 0

    @rule(account=accounts, really=st.integers(0, 3))
    def set_single(self, account: Account, really: int) -> None:
        """Nothing can be seen of it."""
        assume(account in self.live and really == 0)
        self.core.zaccount_set_single(account.address)

    @rule(account=accounts, n=amounts, kind=st.integers(0, 9))
    def allocate_try_again(self, account: Account, n: int, kind: int) -> None:
        """As an interpreter does: refused, collect, the same once more."""
        self.allocate(account, n, kind)
        refused = self.refused.get(account.copy)
        if refused == (account, None, kind, n):
            if account.blocks:
                self.release(account)
            self.allocate(account, n, kind)

    @rule(account=accounts, limit=st.integers(-1, 1), hard=st.integers(-1, 1))
    def move_the_marks_by_a_byte(self, account: Account, limit: int, hard: int) -> None:
        assume(account in self.live and account.own[0] > 0 and account.own[1] < SIZE_MAX)
        limit, hard = account.own[0] + limit, account.own[1] + hard
        assume(hard >= limit)
        self.set_limit(account, limit, False, 0, hard - limit)

    @rule(account=accounts)
    def lift_the_limit(self, account: Account) -> None:
        self.set_limit(account, UNLIMITED, False, 0, 0)

    @rule(account=accounts, really=st.integers(0, 1))
    def seal(self, account: Account, really: int) -> None:
        assume(account in self.live and really == 0)
        self.core.zaccount_seal(account.address)
        account.sealed = True

    @rule(account=accounts)
    def clear_hit(self, account: Account) -> None:
        assume(account in self.live)
        self.core.zaccount_clear_hit(account.address)
        account.hit = False

    @rule(account=accounts)
    def reset_peak(self, account: Account) -> None:
        assume(account in self.live)
        self.core.zaccount_reset_peak(account.address)
        account.peak = account.used

    @rule(account=accounts, mark=marks | st.just(SIZE_MAX))
    def on_pressure(self, account: Account, mark: int) -> None:
        assume(account in self.live)
        self.core.zaccount_on_pressure(account.address, mark, self.callback, self.ud)
        account.mark, account.felt = mark, account.used > mark

    @rule(account=accounts)
    def no_pressure(self, account: Account) -> None:
        assume(account in self.live)
        self.core.zaccount_on_pressure(account.address, 0, None, None)
        account.mark, account.felt = None, False

    @rule(account=accounts, n=st.integers(-1, 4), repeat=st.integers(-1, 3))
    def fail_after(self, account: Account, n: int, repeat: int) -> None:
        assume(account in self.live)
        self.core.zaccount_fail_after(account.address, n, repeat)
        on = n >= 0 and repeat != 0
        account.pass_first, account.then_refuse = (n, repeat) if on else (0, 0)
        account.injects = on
        if on:
            account.passed = account.failed = 0

    @invariant()
    def every_figure_agrees(self) -> None:
        for account in self.live:
            core = self.core
            assert core.figures(account.address).as_dict() == account.figures(), account.name
            assert core.zaccount_used(account.address) == account.used
            assert core.zaccount_peak(account.address) == account.peak
            assert core.faults(account.address) == (account.passed, account.failed)
            assert core.zaccount_name(account.address) == account.name
            parent = core.zaccount_parent(account.address)
            assert parent == (account.parent.address if account.parent else None)
            kinds = (ctypes.c_uint64 * KINDS)()
            core.zaccount_kinds(account.address, kinds)
            assert list(kinds) == account.kinds

    @invariant()
    def the_total_is_the_sum_of_the_roots(self) -> None:
        roots = sum(account.used for account in self.live if not account.parent)
        for core in self.copies:
            assert core.zmalloc_total() == self.base + roots

    def teardown(self) -> None:
        core = self.copies[0]
        for account in self.live:
            for entered in account.scopes:
                core.zaccount_leave(account.address, byref(entered.scope))
            for n in account.held:
                core.zaccount_uncharge(account.address, n)
            for block in account.blocks:
                core.zaccount_alloc(account.address, block.address, block.size, 0)
        while self.live:
            leaf = next(account for account in self.live
                        if not any(other.parent is account for other in self.live))
            assert core.zaccount_used(leaf.address) == 0
            assert core.zaccount_free(leaf.address) == 0
            self.live.remove(leaf)
        assert core.zmalloc_total() == self.base


def test_accounts_do_what_their_header_says(core: Core) -> None:
    explore(lambda: Accounts([core]))


def test_accounts_do_the_same_when_each_call_goes_to_another_copy(copies: list[Core]) -> None:
    explore(lambda: Accounts(copies))


# ---- the map -----------------------------------------------------------------------------------

LEAF = 1 << 24
TOP = 1 << 48
GRANULE = 16
PAGE = mmap.PAGESIZE

# Where things go wrong: both sides of leaf borders, of a middle table's border (2^36), of the top.
borders = st.sampled_from([0, LEAF, 2 * LEAF, 1 << 36, 5 << 36, TOP - LEAF, TOP,
                           0x5500_0000_0000, 0x7FFF_F700_0000])
addresses = st.builds(lambda border, step: border + step * GRANULE, borders,
                      st.integers(-24, 24) | st.integers(-600, 600)).filter(
                          lambda address: 0 <= address < TOP)
block_sizes = st.one_of(st.integers(0, 249), st.sampled_from([248, 249, 250, 251, 255, 256]),
                        st.integers(250, 9000), st.integers(2 * LEAF, 3 * LEAF))


@dataclass
class Entry:
    kind: str  # "block", "span" or "tag"
    size: int

    def granules(self) -> int:
        return max(1, -(-self.size // GRANULE))


class Map(RuleBasedStateMachine):
    """The size map against a dict."""

    def __init__(self, shim: ctypes.CDLL) -> None:
        super().__init__()
        self.shim = shim
        self.map = shim.shim_map_new()
        self.entries: dict[int, Entry] = {}
        self.leaves: set[int] = set()

    def is_free(self, address: int, granules: int) -> bool:
        end = address + granules * GRANULE
        return all(end <= at or at + entry.granules() * GRANULE <= address
                   for at, entry in self.entries.items())

    def put(self, address: int, entry: Entry) -> bool:
        if not self.is_free(address, entry.granules()):
            return False
        self.entries[address] = entry
        self.leaves.add(address // LEAF)
        return True

    @rule(address=addresses, size=block_sizes)
    def set(self, address: int, size: int) -> None:
        assume(self.put(address, Entry("block", size)))
        assert self.shim.shim_set(self.map, address, size)

    @rule(size=block_sizes, gap=st.integers(0, 2), data=st.data())
    @precondition(lambda self: self.entries)
    def set_close_behind(self, size: int, gap: int, data: st.DataObject) -> None:
        before = data.draw(st.sampled_from(sorted(self.entries)))
        address = before + (self.entries[before].granules() + gap) * GRANULE
        assume(address < TOP and self.put(address, Entry("block", size)))
        assert self.shim.shim_set(self.map, address, size)

    @rule(address=addresses, size=st.integers(250, 1 << 40))
    def set_span(self, address: int, size: int) -> None:
        assume(self.put(address, Entry("span", size)))
        assert self.shim.shim_set_span(self.map, address, size)

    @rule(address=addresses)
    def set_tag(self, address: int) -> None:
        assume(self.put(address, Entry("tag", 0)))
        assert self.shim.shim_set_tag(self.map, address)

    @rule(data=st.data())
    @precondition(lambda self: self.entries)
    def clear(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.entries)))
        self.shim.shim_clear(self.map, address)
        del self.entries[address]

    @rule(data=st.data(), size=block_sizes)
    @precondition(lambda self: self.entries)
    def clear_and_set_smaller_ones_in_its_place(self, data: st.DataObject, size: int) -> None:
        """What a long code leaves behind would be read as a small block's."""
        address = data.draw(st.sampled_from(sorted(self.entries)))
        granules = min(self.entries.pop(address).granules(), 12)
        self.shim.shim_clear(self.map, address)
        for step in range(1, granules, 2):
            at = address + step * GRANULE
            if at < TOP:
                self.put(at, Entry("block", size % 17))
                assert self.shim.shim_set(self.map, at, size % 17)

    @rule()
    def forget(self) -> None:
        self.shim.shim_forget(self.map)
        self.entries = {at: entry for at, entry in self.entries.items() if entry.kind != "block"}

    @rule(address=addresses, size=st.integers(0, 3 * LEAF))
    def give_back(self, address: int, size: int) -> None:
        """Whatever is set stays, also where the caller was wrong about who owns the place."""
        given = self.shim.shim_give_back(self.map, address, size)
        assert given % PAGE == 0
        assert given <= size // GRANULE

    @rule(address=st.integers(TOP, (1 << 64) - 1) | st.sampled_from([TOP, TOP + 16, 1 << 60]))
    def beyond_the_top(self, address: int) -> None:
        assert not self.shim.shim_set(self.map, address, 100)
        assert not self.shim.shim_has_leaf(self.map, address)
        assert self.shim.shim_code(self.map, address) == 0

    @rule(address=st.integers(0, TOP - 1) | addresses)
    def ask_about_any_address(self, address: int) -> None:
        assert self.shim.shim_has_leaf(self.map, address) == (address // LEAF in self.leaves)
        inside = any(at <= address < at + entry.granules() * GRANULE
                     for at, entry in self.entries.items())
        assert inside or self.shim.shim_code(self.map, address) == 0

    @invariant()
    def entries_agree(self) -> None:
        for address, entry in self.entries.items():
            code = self.shim.shim_code(self.map, address)
            if entry.kind == "block":
                assert code == (entry.size + 1 if entry.size <= 249 else 255)
            else:
                assert code == {"span": 254, "tag": 253}[entry.kind]
            assert self.shim.shim_size(self.map, address) == entry.size
            for around in (address - GRANULE, address + entry.granules() * GRANULE):
                if 0 <= around < TOP and self.is_free(around, 1):
                    assert self.shim.shim_code(self.map, around) == 0

    @invariant()
    def the_sum_agrees(self) -> None:
        blocks = [entry.size for entry in self.entries.values() if entry.kind == "block"]
        spans = [entry.size for entry in self.entries.values() if entry.kind == "span"]
        out = Sums()
        self.shim.shim_sum(self.map, byref(out))
        assert (out.bytes, out.blocks) == (sum(blocks), len(blocks))
        assert (out.spans, out.leaves) == (sum(spans), len(self.leaves))

    def teardown(self) -> None:
        for address in self.entries:
            self.shim.shim_clear(self.map, address)
        out = Sums()
        self.shim.shim_sum(self.map, byref(out))
        self.shim.shim_map_free(self.map)
        assert (out.bytes, out.blocks, out.spans) == (0, 0, 0)


def test_the_map_holds_what_a_dict_says(shim: ctypes.CDLL) -> None:
    explore(lambda: Map(shim))


WITHOUT_MEMORY = """
import ctypes, resource
shim = ctypes.CDLL({path!r})
shim.shim_map_new.restype = ctypes.c_void_p
arguments = [ctypes.c_void_p, ctypes.c_uint64]
shim.shim_reach.restype, shim.shim_reach.argtypes = ctypes.c_bool, arguments
shim.shim_has_leaf.restype, shim.shim_has_leaf.argtypes = ctypes.c_bool, arguments
m = shim.shim_map_new()
limits = resource.getrlimit(resource.RLIMIT_AS)
for step in (1 << 24, 1 << 36):                # another leaf, another table of leaves
    page = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (page + (16 << 20), limits[1]))
    reached = 0
    while reached < 1000 and shim.shim_reach(m, reached * step):
        reached += 1
    refused = reached * step
    assert 4 < reached < 1000, reached
    assert not shim.shim_reach(m, refused) and not shim.shim_has_leaf(m, refused)
    assert shim.shim_has_leaf(m, refused - step)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert shim.shim_reach(m, refused) and shim.shim_has_leaf(m, refused)
"""


def test_a_map_that_the_system_gives_nothing_is_as_it_was() -> None:
    code = WITHOUT_MEMORY.format(path=str(toolchain.shim_library()))
    done = toolchain.run([sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("border", [LEAF, 1 << 36, TOP])
def test_a_long_code_in_a_leafs_last_granules_stays_in_its_leaf(shim: ctypes.CDLL,
                                                                border: int) -> None:
    """The size behind the code goes to the leaf's padding, not to the next leaf's bytes."""
    for granules_before in range(1, 12):
        m = shim.shim_map_new()
        address = border - granules_before * GRANULE
        if border < TOP:
            shim.shim_set(m, border + 16 * GRANULE, 7)
        assert shim.shim_set(m, address, 0x0101_0101_0101)
        assert shim.shim_size(m, address) == 0x0101_0101_0101
        out = Sums()
        shim.shim_sum(m, byref(out))
        assert out.bytes == 0x0101_0101_0101 + (7 if border < TOP else 0)
        shim.shim_forget(m)
        shim.shim_sum(m, byref(out))
        assert (out.bytes, out.blocks) == (0, 0)
        shim.shim_map_free(m)


def test_the_map_gives_back_the_pages_of_a_region_that_is_empty(shim: ctypes.CDLL) -> None:
    """All of them, but those at its ends that speak of others, too, and those where a block is."""
    whole = PAGE * GRANULE  # the addresses that a page of map is for
    begin, blocks = LEAF - 3 * whole + 5 * GRANULE, range(0, 8 * whole, 256)
    m = shim.shim_map_new()
    for at in blocks:
        assert shim.shim_set(m, begin + at, 100)
    assert shim.shim_give_back(m, begin, 8 * whole) == 0
    for at in blocks:
        assert shim.shim_size(m, begin + at) == 100
        if at != 4 * whole:
            shim.shim_clear(m, begin + at)
    neighbours = (begin - GRANULE, begin + 8 * whole)
    for at in neighbours:
        assert shim.shim_set(m, at, 7)
    assert shim.shim_give_back(m, begin, 8 * whole) == 6 * PAGE
    assert [shim.shim_size(m, at) for at in (*neighbours, begin + 4 * whole)] == [7, 7, 100]
    assert all(shim.shim_code(m, begin + at) == 0 for at in blocks if at != 4 * whole)
    shim.shim_map_free(m)
