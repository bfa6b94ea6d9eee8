"""budget(), track() and exempt(): for the length of a block."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import zmalloc

from .processes import snippet

KIB, MIB, GIB = 2**10, 2**20, 2**30

budget: Any = zmalloc.budget  # as a type checker would not let it be called


@pytest.fixture(autouse=True)
def ends_uncapped(steady: None) -> Iterator[None]:
    yield
    zmalloc.limit(None)


def run_away() -> None:
    kept = []
    while True:
        kept.append([0] * 10)


# ---- budgets of the process ----------------------------------------------------------------------


def test_a_budget_begins_with_what_is_in_use() -> None:
    before = zmalloc.used()
    b = zmalloc.budget(10 * MIB, reserve=5)
    assert zmalloc.limit() is None
    with b as entered:
        limit = zmalloc.limit()
        assert entered is b
        assert limit is not None
        assert before + 10 * MIB <= limit < before + 10 * MIB + 4 * KIB
        assert zmalloc.stats().hard_limit == limit + 5
    assert zmalloc.limit() is None
    assert (b.n, b.reserve, b.thread) == (10 * MIB, 5, False)


def test_its_figures_stay_after_its_end() -> None:
    with zmalloc.budget(10 * MIB) as b:
        start = b.used
        block = bytes(1_000_000)
        assert 1_000_000 < b.used - start < 1_001_000
        assert abs(b.remaining - (10 * MIB - b.used)) < 1000
        del block
        kept = bytes(300_000)
    assert 299_000 < b.used < 301_000
    assert 1_000_000 < b.peak < 1_001_000
    assert not b.hit
    del kept
    assert 299_000 < b.used < 301_000


def test_before_it_is_entered_there_are_no_figures() -> None:
    b = zmalloc.budget("1 MiB")
    assert (b.used, b.peak, b.hit, b.remaining) == (0, 0, False, MIB)
    assert repr(b) == "<zmalloc.budget 1.0 MiB, not entered>"
    with b:
        assert "entered" in repr(b)
    assert "ended" in repr(b)


def test_budgets_are_a_set_of_which_the_smallest_is_in_force() -> None:
    with zmalloc.budget(8 * MIB), zmalloc.budget(5 * MIB) as small:
        first = zmalloc.limit()
        assert first is not None
        with zmalloc.budget(20 * MIB):
            assert zmalloc.limit() == first
        with pytest.raises(MemoryError):
            bytearray(6 * MIB)
        assert small.hit
    assert zmalloc.limit() is None


def test_a_block_that_ends_above_its_budget_gets_the_error_from_the_with() -> None:
    block = None
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.budget("64 KiB") as b:
        block = b"a" * 700_000
    assert b.hit
    assert b.used > 64 * KIB
    assert caught.value.scope == "budget"
    caught.value.__traceback__ = None
    del block


def test_a_block_that_passed_its_budget_and_came_back_gets_none() -> None:
    for _ in range(3):
        with zmalloc.budget("64 KiB") as b:
            _block = b"a" * 700_000
            _block = b""
    assert b.peak > 690_000


def test_an_error_that_passes_is_not_replaced() -> None:
    with pytest.raises(KeyError), zmalloc.budget("64 KiB"):
        _block, _x = b"a" * 700_000, {}["missing"]
    _block = b""


def test_garbage_is_no_reason_for_an_error_at_the_end() -> None:
    before = zmalloc.stats().collections
    with zmalloc.budget("1 MiB") as b:
        for _ in range(500):
            loop: list[object] = [bytes(10_000)]
            loop.append(loop)
            del loop
    assert not b.hit
    assert zmalloc.stats().collections > before


def test_a_budget_is_entered_once() -> None:
    b = zmalloc.budget(MIB)
    with b:
        pass
    with pytest.raises(RuntimeError, match=r"zmalloc\.budget\(\) anew"), b:
        pass
    assert zmalloc.limit() is None


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: budget(), TypeError, "n"),
        (lambda: budget("12 parsecs"), ValueError, "12 parsecs"),
        (lambda: budget(-5), ValueError, "-5"),
        (lambda: budget(0), ValueError, "0"),
        (lambda: budget(MIB, reserve=-1), ValueError, "-1"),
        (lambda: budget(MIB, reserve="x"), ValueError, "reserve"),
        (lambda: budget(MIB, threads=True), TypeError, "threads"),
        (lambda: budget(MIB)(), TypeError, "function"),
        (lambda: budget(MIB)(5), TypeError, "function"),
        (lambda: zmalloc.Budget(), TypeError, "Budget"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(
    call: Callable[[], object], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        call()
    assert zmalloc.limit() is None


def test_a_reserve_may_be_nothing() -> None:
    for reserve in (0, "0", "0 B"):
        with zmalloc.budget(MIB, reserve=reserve) as b:
            assert b.reserve == 0
            assert zmalloc.stats().reserve == 0


# ---- decorators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("thread", [False, True])
def test_each_call_of_a_decorated_function_has_a_budget_of_its_own(thread: bool) -> None:
    @zmalloc.budget("1 MiB", thread=thread)
    def take(n: int, *, twice: bool = False) -> int:
        """Takes."""
        return len(bytes(n * (2 if twice else 1)))

    assert take.__name__ == "take"
    assert take.__doc__ == "Takes."
    for _ in range(5):
        assert take(600_000) == 600_000
        with pytest.raises(MemoryError):
            take(60_000_000, twice=True)
    assert zmalloc.limit() is None


async def _coroutine() -> None: ...


async def _async_generator() -> AsyncIterator[int]:
    yield 1


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("function", [_coroutine, _async_generator, _generator])
def test_a_function_whose_call_only_makes_an_object_is_not_decorated(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(TypeError, match=f"{function.__name__}.*inside of it"):
        zmalloc.budget("1 MiB")(function)


def test_a_with_statement_inside_a_coroutine_works() -> None:
    async def main() -> int:
        with zmalloc.budget(MIB) as b:
            await asyncio.sleep(0)
            kept = bytes(100_000)
            await asyncio.sleep(0)
            return b.used - len(kept)

    assert asyncio.run(main()) < 100_000

    async def wrong() -> None:
        async with budget(MIB):
            pass

    with pytest.raises(TypeError, match="plain with"):
        asyncio.run(wrong())


def test_a_budget_in_a_generator_that_is_dropped_ends() -> None:
    for thread in (False, True):

        def within(thread: bool = thread) -> Iterator[int]:
            with zmalloc.budget(MIB, thread=thread):
                yield 1

        g = within()
        next(g)
        del g
        gc.collect()
        assert zmalloc.limit() is None


# ---- of a thread ---------------------------------------------------------------------------------


def test_a_threads_budget_counts_what_it_takes_less_what_it_frees() -> None:
    with zmalloc.budget(MIB, thread=True) as b:
        assert zmalloc.limit() is None
        block = bytearray(500_000)
        taken = b.used
        assert 500_000 < taken < 501_000
        del block[100_000:]
        assert 100_000 < b.used < 101_000
        del block
        assert b.used < 1000
    assert 500_000 < b.peak < 501_000
    assert b.used < 1000


def test_freeing_what_was_there_before_gives_no_credit() -> None:
    old = bytes(5_000_000)
    with zmalloc.budget(MIB, thread=True) as b:
        del old
        with pytest.raises(MemoryError) as caught:
            bytes(4_000_000)
        assert b.hit
    caught.value.__traceback__ = None


def test_a_block_that_another_thread_frees_stays_charged() -> None:
    box: list[bytes] = []
    with zmalloc.budget(MIB, thread=True) as b:
        box.append(bytes(500_000))
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        assert b.used > 500_000


def test_only_the_thread_that_runs_away_gets_errors() -> None:
    def work(n: int) -> tuple[int, bool]:
        kept: list[object] = []
        with zmalloc.budget("400 KiB", thread=True) as b:
            try:
                for at in range(500 if n else 10**9):
                    kept.append([at] * 10)
            except MemoryError as error:
                error.__traceback__ = None
                kept.clear()
                return -1, b.hit
            return len(kept), b.hit

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [(-1, True)] + [(500, False)] * 7


def test_a_threads_budget_and_the_processs_hold_together() -> None:
    with zmalloc.budget(MIB) as all_of_it, zmalloc.budget(10 * MIB, thread=True) as mine:
        with pytest.raises(MemoryError):
            bytearray(5 * MIB)
        assert all_of_it.hit
        assert not mine.hit


def test_nested_budgets_of_a_thread_each_count() -> None:
    with zmalloc.budget(10 * MIB, thread=True) as outer:
        a = bytes(100_000)
        with zmalloc.budget(MIB, thread=True) as inner:
            b = bytes(200_000)
            assert 200_000 < inner.used < 201_000
            assert 300_000 < outer.used < 301_500
            with pytest.raises(MemoryError):
                bytes(3_000_000)
            assert inner.hit
            assert not outer.hit
        c = bytes(3_000_000)
        assert len(a) + len(b) + len(c) == 3_300_000


def test_a_threads_budget_may_be_left_by_another_thread() -> None:
    b = zmalloc.budget(MIB, thread=True)
    b.__enter__()
    thread = threading.Thread(target=b.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert len(bytes(5_000_000)) == 5_000_000
    assert "ended" in repr(b)


def test_a_thread_may_end_inside_its_budget() -> None:
    left = []

    def work() -> None:
        left.append(zmalloc.budget(MIB, thread=True).__enter__())

    for _ in range(20):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    left.clear()
    assert len(bytes(5_000_000)) == 5_000_000


def test_a_thread_gets_its_error_at_a_safe_point_and_from_the_with() -> None:
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.budget(300_000, thread=True):
        run_away()
    assert (caught.value.scope, caught.value.limit) == ("thread budget", 300_000)
    caught.value.__traceback__ = None
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.budget(300_000, thread=True) as b:
        _block = bytes(700_000)
    assert b.hit
    caught.value.__traceback__ = None


def test_a_threads_scopes_may_end_in_any_order() -> None:
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        scopes = [
            zmalloc.budget(MIB, thread=True),
            zmalloc.track(thread=True),
            zmalloc.budget(GIB, thread=True),
        ]
        for scope in scopes:
            scope.__enter__()
        _block = bytes(100_000)
        for at in order:
            scopes[at].__exit__(None, None, None)
        _block = b""
    assert len(bytes(2 * MIB)) == 2 * MIB


def test_a_threads_budget_without_a_reserve_refuses_at_its_limit() -> None:
    with zmalloc.budget(100_000, reserve=0, thread=True) as b, zmalloc.track(thread=True):
        with pytest.raises(MemoryError) as caught:
            run_away()
        caught.value.__traceback__ = None
        assert not isinstance(caught.value, zmalloc.LimitError)
    assert b.peak <= 100_000


NAMES = [{}, {"__name__": None}, {"__name__": 5}, {"__name__": "é"}, {"__name__": "asyncio" * 40}]


@pytest.mark.parametrize("scope", NAMES)
def test_code_of_any_module_or_none_gets_its_error(scope: dict[str, Any]) -> None:
    code = "kept = []\nwhile True: kept.append([0] * 10)"
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.budget(300_000):
        exec(code, scope)
    caught.value.__traceback__ = None
    scope.clear()


@pytest.mark.parametrize("thread", [False, True])
def test_a_handler_that_ends_above_its_budget_gets_the_error_from_the_with(thread: bool) -> None:
    """While a MemoryError is being handled there is no other moment for a little."""
    ended = False
    gc.collect()
    try:
        raise MemoryError
    except MemoryError:
        with (  # noqa: PT012 - what is in it has to come to its end
            pytest.raises(zmalloc.LimitError) as caught,
            zmalloc.budget(100_000, thread=thread) as b,
        ):
            _block = bytes(60_000), bytes(60_000)
            ended = True
        assert ended
        assert b.hit
        assert caught.value.used > caught.value.limit
        caught.value.__traceback__ = None
    b.__exit__(None, None, None)  # has ended


# ---- track() -------------------------------------------------------------------------------------


@pytest.mark.parametrize("thread", [False, True])
def test_track_measures_a_block(thread: bool) -> None:
    gc.collect()
    with zmalloc.track(thread=thread) as t:
        kept = [bytes(1000) for _ in range(100)]
        del kept[50:]
    assert 50 * 1033 < t.net < 50 * 1033 + 1500
    assert 100 * 1033 < t.peak < 100 * 1033 + 2500
    assert 100 <= t.allocations < 130
    assert 50 <= t.frees < 80
    assert zmalloc.limit() is None
    del kept
    assert t.net > 50 * 1033


@pytest.mark.parametrize("thread", [False, True])
def test_track_goes_below_zero_where_more_is_freed(thread: bool) -> None:
    old = bytes(1_000_000)
    with zmalloc.track(thread=thread) as t:
        del old
    assert -1_001_000 < t.net < -999_000


def test_track_of_a_thread_does_not_see_others() -> None:
    def work() -> None:
        box.append(bytes(1_000_000))

    box: list[bytes] = []
    with zmalloc.track(thread=True) as mine, zmalloc.track() as everyones:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert mine.net < 100_000
    assert everyones.net > 1_000_000


@pytest.mark.parametrize("thread", [False, True])
def test_what_the_system_refuses_was_never_taken(thread: bool) -> None:
    with zmalloc.track(thread=thread) as t:
        for make in (bytes, bytearray):
            with pytest.raises(MemoryError) as caught:
                make(1 << 61)
            caught.value.__traceback__ = None
        block = bytearray(1000)
        with pytest.raises(MemoryError) as caught:
            block *= 1 << 50
        caught.value.__traceback__ = None
        del block, caught
    assert t.net < 100_000
    assert 0 < t.peak < 100_000


def test_a_track_is_entered_once_and_shows_whose_it_is() -> None:
    for thread in (False, True):
        t = zmalloc.track(thread=thread)
        with t, pytest.raises(RuntimeError, match=r"track\(\)"):
            t.__enter__()
        assert (" of a thread" in repr(t)) == thread


def test_what_remains_is_between_nothing_and_the_largest_size() -> None:
    block = bytes(100_000)
    with zmalloc.budget((1 << 63) - 1) as b:
        del block
        assert b.used < 0
        assert b.remaining == (1 << 63) - 1
    with zmalloc.budget(1000) as b, zmalloc.exempt():
        block = bytes(100_000)
        assert b.remaining == 0
        del block


def test_the_figures_of_track_are_exact() -> None:
    """To the byte, what sys.getsizeof says of objects without a collector's head."""
    snippet("""
        import sys, zmalloc
        blocks = [None] * 100
        for thread in (False, True):
            with zmalloc.track(thread=thread) as none:
                pass
            empty = none.net
            at = None
            with zmalloc.track(thread=thread) as t:
                for at in range(100):
                    blocks[at] = bytes(1000 + at)
            assert t.net - empty == sum(map(sys.getsizeof, blocks)), (t.net, empty)
            blocks, t, none = [None] * 100, None, None
        """)


# ---- exempt() ------------------------------------------------------------------------------------


def test_an_exempt_thread_is_refused_nothing_up_to_the_hard_limit() -> None:
    with zmalloc.budget(100_000), zmalloc.exempt():
        block = bytes(1_000_000)
        for n in range(1000):
            _other = [n]
        with pytest.raises(MemoryError):
            bytes(5_000_000)
        del block


def test_exemptions_nest_and_are_entered_once() -> None:
    e = zmalloc.exempt()
    with e, zmalloc.exempt(), pytest.raises(RuntimeError, match="already"):
        e.__enter__()
    with pytest.raises(MemoryError), zmalloc.budget(100_000):
        run_away()


def test_an_exemption_is_left_by_its_own_thread_or_dropped() -> None:
    e = zmalloc.exempt()
    e.__exit__(None, None, None)  # was not entered
    with e, ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="by the thread"):
        pool.submit(e.__exit__, None, None, None).result()
    zmalloc.exempt().__enter__()
    with pytest.raises(MemoryError), zmalloc.budget(100_000):
        run_away()


def test_under_a_seal_nobody_is_exempt() -> None:
    snippet("""
        import zmalloc
        zmalloc.limit("1 GiB", seal=True)
        try:
            with zmalloc.exempt():
                raise AssertionError
        except PermissionError as error:
            assert "sealed" in str(error)
        with zmalloc.budget("10 GiB"):              # legal, and of no effect
            assert zmalloc.limit() == 2**30
        for call in (lambda: zmalloc.limit("900 MiB", reserve="500 MiB"),):
            try:
                call()
            except PermissionError as error:
                assert "hard limit" in str(error), error
            else:
                raise AssertionError
        zmalloc.limit("1 GiB", reserve=0)
        assert zmalloc.stats().hard_limit == 2**30
        zmalloc.limit("1 GiB")
        assert zmalloc.stats().hard_limit == 2**30 + 2**20
        """)


def test_leaving_works_with_nothing_left() -> None:
    """Entering and leaving every kind at a full hard cap, in any state."""
    snippet("""
        import sys, zmalloc
        nothing = [None] * 20_000
        hoard = list(nothing)
        def fill():
            sys._getframe()
            at = 0
            while hoard[at] is not None:
                at += 1
            for size in (100_000, 10_000, 1000, 200, 60, 20, 1):
                try:
                    while True:
                        hoard[at] = bytes(size)
                        at += 1
                except MemoryError:
                    pass
        states = [0] * 60
        def attempt(at, scope):
            sys._getframe()
            with scope:
                fill()
                states[at] = 1
        for at in range(60):
            kind = at % 3
            scope = (
                zmalloc.track(thread=True),
                zmalloc.budget(10**9),
                zmalloc.budget(10**9, thread=True),
            )[kind]
            with zmalloc.limit(zmalloc.used() + 200_000 + at, reserve=0):
                try:
                    attempt(at, scope)
                except MemoryError:
                    pass
            assert zmalloc.limit() is None
            hoard.clear()
            hoard.extend(nothing)
        assert sum(states) == 60, states
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        """)


def test_many_threads_with_budgets_leave_nothing() -> None:
    def work(n: int) -> None:
        for at in range(100):
            with zmalloc.budget(GIB + at, thread=bool(n % 2)), zmalloc.track(thread=bool(at % 2)):
                _block = bytes(100 * at)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert zmalloc.limit() is None
    with contextlib.suppress(MemoryError):
        bytes(1)
