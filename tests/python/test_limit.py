"""Limits: what is in force when, and that nothing whatever passes it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import zmalloc

from .processes import python, snippet

MIB, GIB = 2**20, 2**30
BIG = 100 * GIB  # limits of the tests in this process are far above what it uses


@pytest.fixture(autouse=True)
def ends_uncapped(steady: None) -> Iterator[None]:
    """Takes the bare limit out; what a scope left behind fails in conftest.py."""
    yield
    zmalloc.limit(None)


# ---- the bare call -----------------------------------------------------------------------------


def test_there_is_no_limit_to_begin_with() -> None:
    assert zmalloc.limit() is None
    assert zmalloc.stats().limit is None
    assert zmalloc.stats().hard_limit is None
    assert zmalloc.stats().reserve == 0


def test_a_call_is_in_force_at_once() -> None:
    made = zmalloc.limit(3 * GIB)
    assert zmalloc.limit() == 3 * GIB == made.limit
    figures = zmalloc.stats()
    assert (figures.limit, figures.hard_limit, figures.reserve) == (3 * GIB, 3 * GIB + MIB, MIB)
    assert made.hard_limit == 3 * GIB + MIB


@pytest.mark.parametrize("second", [1 * GIB, 2 * GIB, 9 * GIB])
def test_a_second_call_replaces_the_first_in_both_directions(second: int) -> None:
    first = zmalloc.limit(2 * GIB)
    zmalloc.limit(second)
    assert zmalloc.limit() == second
    del first
    gc.collect()
    assert zmalloc.limit() == second


def test_dropping_the_object_changes_nothing() -> None:
    zmalloc.limit(2 * GIB)
    gc.collect()
    assert zmalloc.limit() == 2 * GIB


def test_none_removes_the_bare_limit_and_may_be_said_twice() -> None:
    zmalloc.limit(2 * GIB)
    assert zmalloc.limit(None) is None
    assert zmalloc.limit() is None
    assert zmalloc.limit(None) is None


def test_the_next_request_after_the_call_is_refused() -> None:
    zmalloc.limit(zmalloc.used() + 300_000)
    try:
        with pytest.raises(MemoryError):
            bytearray(10_000_000)
    finally:
        zmalloc.limit(None)
    assert len(bytearray(10_000_000)) == 10_000_000


def test_the_size_may_be_given_by_keyword() -> None:
    assert zmalloc.limit(n="3 GiB").limit == 3 * GIB
    assert zmalloc.limit() == 3 * GIB


def test_held_none_is_no_limit_on_held() -> None:
    made = zmalloc.limit(3 * GIB, held=None)
    assert (made.limit, made.held) == (3 * GIB, None)
    assert zmalloc.stats().held_limit is None


def test_the_object_shows_its_limits_and_what_has_become_of_it() -> None:
    made = zmalloc.limit("2 GiB", held="5 GiB")
    assert (made.limit, made.held) == (2 * GIB, 5 * GIB)
    assert "2.0 GiB" in repr(made)
    assert "5.0 GiB" in repr(made)
    assert "in force" in repr(made)
    with made:
        assert "entered" in repr(made)
    assert "ended" in repr(made)
    with pytest.raises(AttributeError):
        made.limit = 5  # type: ignore[misc]


# As a type checker would not let them be called.
limit: Any = zmalloc.limit
Limit: Any = zmalloc.Limit


@pytest.mark.parametrize(
    "call",
    [
        lambda: limit(1, 2),
        lambda: limit(GIB, n=GIB),
        lambda: limit(GIB, reserved=5),
        lambda: limit(reserve=5),
        lambda: limit(None, reserve=5),
        lambda: limit(seal=True),
        lambda: limit(None, seal=True),
        lambda: Limit(),
        lambda: Limit(5),
        lambda: Limit.__new__(Limit),
        lambda: Limit.__enter__(),
        lambda: Limit.__enter__(5),
        lambda: Limit.__exit__(object(), None, None, None),
    ],
)
def test_a_wrong_call_is_a_type_error_and_changes_nothing(call: Callable[[], object]) -> None:
    zmalloc.limit(7 * GIB)
    with pytest.raises(TypeError):
        call()
    assert zmalloc.limit() == 7 * GIB


# ---- with --------------------------------------------------------------------------------------


def test_a_with_statement_ends_the_limit() -> None:
    with zmalloc.limit(2 * GIB) as scope:
        assert zmalloc.limit() == 2 * GIB == scope.limit
    assert zmalloc.limit() is None


def test_a_with_statement_ends_the_limit_when_an_error_passes() -> None:
    with pytest.raises(ZeroDivisionError), zmalloc.limit(2 * GIB):
        _ = 1 / 0
    assert zmalloc.limit() is None


def test_a_memory_error_of_the_limit_passes_the_with_statement() -> None:
    with pytest.raises(MemoryError), zmalloc.limit(zmalloc.used() + 300_000):
        bytearray(10_000_000)
    assert zmalloc.limit() is None


@pytest.mark.parametrize("inner", [1 * GIB, 5 * GIB])
def test_a_scope_puts_the_bare_limit_that_it_replaced_back_beside_it(inner: int) -> None:
    zmalloc.limit(2 * GIB)
    made = zmalloc.limit(inner)
    assert zmalloc.limit() == inner
    with made:
        assert zmalloc.limit() == min(inner, 2 * GIB)
    assert zmalloc.limit() == 2 * GIB


def test_a_bare_call_inside_a_scope_outlives_it() -> None:
    with zmalloc.limit(2 * GIB):
        zmalloc.limit(1 * GIB)
        assert zmalloc.limit() == 1 * GIB
    assert zmalloc.limit() == 1 * GIB


def test_none_never_removes_a_scope() -> None:
    zmalloc.limit(1 * GIB)
    with zmalloc.limit(2 * GIB):
        zmalloc.limit(None)
        assert zmalloc.limit() == 2 * GIB
    assert zmalloc.limit() is None


def test_a_replaced_limit_may_still_be_entered() -> None:
    first = zmalloc.limit(3 * GIB)
    zmalloc.limit(5 * GIB)
    with first:
        assert zmalloc.limit() == 3 * GIB
    assert zmalloc.limit() == 5 * GIB


def test_a_limit_that_ended_is_never_put_back() -> None:
    """`second` replaced `first`, but by the time it is entered `first` has come and gone."""
    first = zmalloc.limit(2 * GIB)
    second = zmalloc.limit(5 * GIB)
    with first:
        assert zmalloc.limit() == 2 * GIB
    with second:
        assert zmalloc.limit() == 5 * GIB
    assert zmalloc.limit() is None


def test_a_limit_removed_with_none_is_not_put_back_by_a_later_scope() -> None:
    zmalloc.limit(2 * GIB)
    zmalloc.limit(None)
    with zmalloc.limit(3 * GIB):
        pass
    assert zmalloc.limit() is None


def test_entering_twice_is_an_error_and_leaves_one_scope() -> None:
    made = zmalloc.limit(2 * GIB)
    with made:
        with pytest.raises(RuntimeError, match="already"), made:
            pass
        assert zmalloc.limit() == 2 * GIB
    assert zmalloc.limit() is None


def test_entering_again_after_leaving_leaves_no_limit_behind() -> None:
    made = zmalloc.limit(2 * GIB)
    for _ in range(3):
        with contextlib.suppress(RuntimeError), made:
            assert zmalloc.limit() == 2 * GIB
        assert zmalloc.limit() is None


def test_leaving_without_entering_changes_nothing() -> None:
    made = zmalloc.limit(2 * GIB)
    made.__exit__(None, None, None)
    assert zmalloc.limit() == 2 * GIB


def test_scopes_nest_and_the_smallest_is_in_force() -> None:
    with zmalloc.limit(3 * GIB):
        with zmalloc.limit(5 * GIB):
            assert zmalloc.limit() == 3 * GIB
            with zmalloc.limit(1 * GIB), zmalloc.limit(2 * GIB):
                assert zmalloc.limit() == 1 * GIB
            assert zmalloc.limit() == 3 * GIB
        assert zmalloc.limit() == 3 * GIB
    assert zmalloc.limit() is None


def test_an_exit_stack_may_hold_and_hand_on_scopes() -> None:
    with contextlib.ExitStack() as stack:
        for size in (5, 3, 4):
            stack.enter_context(zmalloc.limit(size * GIB))
        assert zmalloc.limit() == 3 * GIB
        kept = stack.pop_all()
        assert zmalloc.limit() == 3 * GIB
    assert zmalloc.limit() == 3 * GIB
    kept.close()
    assert zmalloc.limit() is None


def test_scopes_may_end_in_any_order() -> None:
    made = [zmalloc.limit(n * GIB) for n in (4, 2, 3)]
    for one in made:
        one.__enter__()
    zmalloc.limit(None)
    for leaving, left in ((1, 3 * GIB), (0, 3 * GIB), (2, None)):
        made[leaving].__exit__(None, None, None)
        assert zmalloc.limit() == left


def test_a_scope_in_a_generator_ends_with_it() -> None:
    def capped() -> Generator[int, None, None]:
        with zmalloc.limit(2 * GIB):
            yield 1
            yield 2

    first, second = capped(), capped()
    next(first)
    next(second)
    first.close()
    assert zmalloc.limit() == 2 * GIB
    assert list(second) == [2]
    assert zmalloc.limit() is None
    third = capped()
    next(third)
    assert zmalloc.limit() == 2 * GIB
    del third
    gc.collect()
    assert zmalloc.limit() is None


def test_an_entered_object_that_is_dropped_lifts_its_limit() -> None:
    zmalloc.limit(2 * GIB).__enter__()
    gc.collect()
    assert zmalloc.limit() is None


def test_scopes_of_several_threads_are_one_set() -> None:
    threads: list[threading.Thread] = []
    barrier = threading.Barrier(5, timeout=30)
    leave = [threading.Event() for _ in range(4)]

    def hold(n: int) -> None:
        with zmalloc.limit((n + 2) * GIB):
            barrier.wait()
            leave[n].wait(30)

    for n in range(4):
        threads.append(threading.Thread(target=hold, args=(n,)))
        threads[-1].start()
    barrier.wait()
    seen = [zmalloc.limit()]
    for n in (1, 0, 3, 2):
        leave[n].set()
        threads[n].join()
        seen.append(zmalloc.limit())
    assert seen == [2 * GIB, 2 * GIB, 4 * GIB, 4 * GIB, None]


def test_a_scope_may_be_left_by_another_thread() -> None:
    made = zmalloc.limit(2 * GIB)
    made.__enter__()
    thread = threading.Thread(target=made.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert zmalloc.limit() is None


def test_threads_that_set_and_leave_limits_at_once_leave_none() -> None:
    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(500):
            with zmalloc.limit(choose.randrange(GIB, 2 * GIB)):
                zmalloc.limit()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Two threads may each have replaced the other's bare limit between call and entry.
    zmalloc.limit(None)
    assert zmalloc.limit() is None


class Model:
    """What the design says about bare limits and scopes, said again in Python."""

    def __init__(self) -> None:
        self.bare: int | None = None
        self.scopes: dict[int, int] = {}

    def in_force(self) -> int | None:
        return min((n for n in (self.bare, *self.scopes.values()) if n is not None), default=None)


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_calls_and_scopes_is_as_the_model_says(seed: int) -> None:
    print("seed", seed)
    choose = random.Random(seed)
    model, entered = Model(), {}
    for at in range(400):
        what = choose.choice(["bare", "none", "enter", "enter", "leave", "leave"])
        size = choose.randrange(GIB, BIG)
        if what == "bare":
            zmalloc.limit(size)
            model.bare = size
        elif what == "none":
            zmalloc.limit(None)
            model.bare = None
        elif what == "enter":
            entered[at] = zmalloc.limit(size).__enter__()
            model.scopes[at] = size
        elif entered:
            gone = choose.choice(list(entered))
            entered.pop(gone).__exit__(None, None, None)
            del model.scopes[gone]
        assert zmalloc.limit() == model.in_force()
    for one in entered.values():
        one.__exit__(None, None, None)
    assert zmalloc.limit() == model.bare


# ---- a mistake: a decorator --------------------------------------------------------------------


def test_a_limit_is_no_decorator_and_removes_itself() -> None:
    zmalloc.limit(5 * GIB)
    with pytest.raises(TypeError, match="budget"):

        @zmalloc.limit(2 * GIB)
        def function() -> None:
            pass

    assert zmalloc.limit() == 5 * GIB


def test_calling_a_limit_without_arguments_removes_it_too() -> None:
    with pytest.raises(TypeError, match="removed"):
        zmalloc.limit(2 * GIB)()
    assert zmalloc.limit() is None


def test_a_limit_that_was_called_is_not_put_back_by_a_later_one() -> None:
    first = zmalloc.limit(2 * GIB)
    second = zmalloc.limit(5 * GIB)
    with pytest.raises(TypeError):
        first()
    with second:
        pass
    assert zmalloc.limit() is None


# ---- seals and the environment -----------------------------------------------------------------


def test_below_a_seal_without_a_reserve_the_usual_one_ends_at_it() -> None:
    snippet("""
        import zmalloc
        zmalloc.limit("8 GiB", reserve=0, seal=True)
        for n in (1, 1 << 19, 1 << 20, 1 << 21):
            lower = zmalloc.limit((8 << 30) - n)
            assert lower.hard_limit == min(8 << 30, (8 << 30) - n + (1 << 20)), (n, lower)
        """)


def test_a_sealed_limit_stays_and_only_smaller_ones_are_legal() -> None:
    snippet("""
        import zmalloc
        G = 2**30
        def fails(*a, **k):
            try:
                zmalloc.limit(*a, **k)
            except PermissionError as error:
                return str(error)
            raise AssertionError("no PermissionError")
        zmalloc.limit(9 * G)
        zmalloc.limit(8 * G, seal=True)
        assert zmalloc.limit() == 8 * G
        assert "8.0 GiB" in fails(8 * G + 1)
        assert fails("9 GiB") and fails(None) and fails(9 * G, seal=True)
        assert "hard limit" in fails(8 * G, reserve="2 MiB")
        assert zmalloc.limit() == 8 * G
        zmalloc.limit(5 * G)
        assert zmalloc.limit() == 5 * G
        zmalloc.limit(7 * G)                       # up again, below the seal
        assert zmalloc.limit() == 7 * G
        zmalloc.limit(8 * G)
        assert zmalloc.limit() == 8 * G
        with zmalloc.limit(4 * G):
            assert zmalloc.limit() == 4 * G
        assert zmalloc.limit() == 8 * G
        made = zmalloc.limit(6 * G, seal=True)
        with made:
            assert zmalloc.limit() == 6 * G
        assert zmalloc.limit() == 6 * G
        made.__exit__(None, None, None)
        del made
        assert zmalloc.limit() == 6 * G
        try:
            zmalloc.limit(5 * G, seal=True)()
        except TypeError:
            pass
        assert zmalloc.limit() == 5 * G, "a sealed one stays, called or not"
        assert fails(5 * G + 1)
        """)


def test_a_seal_on_held_is_one_of_its_own() -> None:
    snippet("""
        import zmalloc
        G = 2**30
        zmalloc.limit(held=8 * G, seal=True)
        assert zmalloc.limit() is None and zmalloc.stats().held_limit == 8 * G
        try:
            zmalloc.limit(held=9 * G)
        except PermissionError:
            pass
        else:
            raise AssertionError
        zmalloc.limit(50 * G)
        assert zmalloc.limit() == 50 * G
        zmalloc.limit(held=2 * G)
        assert zmalloc.stats().held_limit == 2 * G and zmalloc.limit() is None
        """)


def test_a_seal_cannot_be_lifted_from_python() -> None:
    """Nothing that a script can reach through the package raises a sealed limit."""
    snippet("""
        import gc, importlib, sys, zmalloc
        CAP = zmalloc.used() + 3_000_000
        made = zmalloc.limit(CAP, seal=True)
        def still():
            assert zmalloc.limit() == CAP
            try:
                bytearray(10_000_000)
            except MemoryError:
                return
            raise AssertionError("the cap is gone")
        still()
        for name in ("__exit__",):
            getattr(made, name)(None, None, None)
        zmalloc.install()
        still()
        for attribute in ("limit", "held", "__enter__", "__exit__", "_sealed"):
            for owner in (made, type(made)):
                try:
                    delattr(owner, attribute)
                except (AttributeError, TypeError):
                    pass
        del made
        gc.collect()
        still()
        for name in [n for n in sys.modules if n.partition(".")[0] == "zmalloc"]:
            del sys.modules[name]
        import zmalloc
        still()
        import tracemalloc
        tracemalloc.start(); tracemalloc.stop()
        still()
        """)


def test_the_environment_caps_a_process_for_good() -> None:
    snippet(
        """
        import zmalloc
        assert zmalloc.limit() == 30 * 2**20
        for call in (lambda: zmalloc.limit(None), lambda: zmalloc.limit(31 * 2**20)):
            try:
                call()
            except PermissionError:
                continue
            raise AssertionError
        try:
            bytearray(40 * 2**20)
        except MemoryError:
            pass
        else:
            raise AssertionError
        figures = zmalloc.stats()
        assert figures.limit_hit and zmalloc.peak() <= 31 * 2**20 == figures.hard_limit
        """,
        env={"ZMALLOC_LIMIT": "30 MiB"},
    )


@pytest.mark.parametrize("value", ["12 parsecs", "-1", "0", "1.5", "24 MBxyz", "é", "9" * 40, " "])
def test_a_wrong_size_in_the_environment_is_an_error_that_names_it(value: str) -> None:
    code = """
        try:
            import zmalloc
        except (ValueError, OverflowError) as error:
            print(repr(str(error)))
        """
    message = snippet(code, env={"ZMALLOC_LIMIT": value}).value
    assert "ZMALLOC_LIMIT" in message
    assert value in message


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_variable_is_no_cap(value: str | None) -> None:
    snippet("import zmalloc; assert zmalloc.limit() is None", env={"ZMALLOC_LIMIT": value})


def test_without_hooks_a_limit_is_a_runtime_error() -> None:
    snippet(
        """
        import zmalloc
        assert not zmalloc.is_installed() and zmalloc.used() == 0
        for call in (lambda: zmalloc.limit("64 MiB"), lambda: zmalloc.limit(held=10**9)):
            try:
                call()
            except RuntimeError as error:
                assert "install()" in str(error)
            else:
                raise AssertionError
        assert zmalloc.limit() is None and zmalloc.limit(None) is None
        assert zmalloc.install() is True and zmalloc.is_installed()
        assert zmalloc.install() is False
        zmalloc.limit("64 MiB")
        assert zmalloc.limit() == 2**26
        """,
        env={"ZMALLOC_NO_INSTALL": "1"},
    )


def test_a_limit_and_no_hooks_in_the_environment_contradict_each_other() -> None:
    code = """
        try:
            import zmalloc
        except RuntimeError as error:
            print(repr(str(error)))
        """
    env = {"ZMALLOC_NO_INSTALL": "1", "ZMALLOC_LIMIT": "64 MiB"}
    message = snippet(code, env=env).value
    assert "ZMALLOC_LIMIT" in message
    assert "ZMALLOC_NO_INSTALL" in message


# ---- at the cap --------------------------------------------------------------------------------


def test_a_limit_below_use_refuses_growth_and_nothing_else() -> None:
    """All of it inline and prepared: below use not even a slice or a frame can be made."""
    snippet("""
        import sys, zmalloc
        sys._getframe()
        block, items = bytearray(2_000_000), [bytes(1000) for _ in range(1000)]
        tail = slice(10, None)
        was_refused = fits = False
        before = after = None
        before = zmalloc.used()
        zmalloc.limit(1_000_000)
        try:
            bytearray(100_000)
        except MemoryError:
            was_refused = True
        del block[tail]                 # a shrink
        while items:
            items.pop()
        try:
            bytearray(100_000)
            fits = True
        except MemoryError:
            pass
        zmalloc.limit(None)
        after = zmalloc.used()
        assert before > 3_000_000 > 1_000_000 > after
        assert was_refused and fits
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        """)


# From 3.11 on CPython loses an exception when it cannot make the frame's object for the traceback,
# so the frames that run into the cap have theirs made in advance, by sys._getframe().
FILL = """
import sys, zmalloc
nothing = [None] * 20_000
hoard = list(nothing)         # made in advance, so that filling up needs no list to grow
def fill():
    # Leaves nothing: ever smaller blocks until not even the smallest is granted.
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
def empty():
    hoard.clear()             # frees before it takes
    hoard.extend(nothing)
"""


def test_with_works_at_the_cap_with_nothing_left() -> None:
    """Entering fetches __enter__ and __exit__, which must need no memory there; nor must leaving.

    If either failed the limit would stay for ever.
    """
    snippet(
        FILL
        + """
results = [None] * 100
def attempt(at, scope):
    sys._getframe()
    state = 0
    try:
        with scope:
            state = 1
            fill()
            state = 2
    except MemoryError:
        pass
    results[at] = state
numbers = list(range(len(hoard)))
def inner_at_the_cap(at, scope, other):
    sys._getframe()
    state = 0
    free = reversed(numbers)
    with scope:
        fill()
        # what fill() itself has given back on its return, down to the smallest object there is
        try:
            for place in free:        # no loop around it: its iterator would be given back, too
                hoard[place] = object()
        except MemoryError:
            pass
        state = 1
        with other:
            state = 2
        state = 3
    results[at] = state
for at in range(50):
    attempt(at, zmalloc.limit(zmalloc.used() + 200_000 + at, reserve=0))
    if zmalloc.limit() is not None:
        raise AssertionError(at)
    empty()
for at in range(50, 100):
    other = zmalloc.limit(10**9)
    inner_at_the_cap(at, zmalloc.limit(zmalloc.used() + 200_000 + at, reserve=0), other)
    zmalloc.limit(None)
    if zmalloc.limit() is not None:
        raise AssertionError(at)
    empty()
assert results == [2] * 50 + [3] * 50, results
assert zmalloc.stats().refusals >= 500
seen = zmalloc.audit()
assert seen.used == seen.counted
"""
    )


def test_none_lifts_a_limit_with_nothing_left() -> None:
    snippet(
        FILL
        + """
for n in range(100):
    zmalloc.limit(zmalloc.used() + 150_000 + n, reserve=0)
    fill()
    zmalloc.limit(None)
    empty()
assert zmalloc.limit() is None
seen = zmalloc.audit()
assert seen.used == seen.counted
"""
    )


def test_figures_can_be_read_with_nothing_left() -> None:
    """used() makes one int, which may be refused; then it is a MemoryError and nothing worse."""
    snippet(
        FILL
        + """
functions = (zmalloc.used, zmalloc.peak, zmalloc.total, zmalloc.limit, zmalloc.stats, zmalloc.audit,
             zmalloc.rss, zmalloc.reset_peak, zmalloc.is_installed, zmalloc.install)
zmalloc.limit(zmalloc.used() + 200_000, reserve=0)
fill()
for f in functions:
    try:
        f()
    except MemoryError:
        pass
zmalloc.limit(None)
empty()
assert zmalloc.is_installed()
"""
    )


@pytest.mark.parametrize("mode", ["pymalloc", "malloc", "pymalloc_debug", "malloc_debug"])
def test_a_limit_on_held_bounds_what_the_system_gives(mode: str) -> None:
    """Large blocks and arenas full of small ones are refused; held never passes its limit."""
    snippet(
        FILL.replace("20_000", "300_000")
        + """
sys._getframe()
empty()                       # once in advance: 3.10 keeps its frame
end = len(hoard)              # an int of its own: there is no room for one at the limit
start = zmalloc.stats().held
most = start + 10 * 2**20
# Where all comes from the system, held is used and peak() is its judge.
from_arenas = sys.argv[1].startswith("pymalloc")
zmalloc.reset_peak()
made = zmalloc.limit(held=most)
assert made.held == most and made.limit is None
for size in (100_000, 2000, 400, 64):
    at = 0
    try:
        while True:
            hoard[at] = bytes(size)
            at += 1
            if from_arenas and at % 1000 == 0:
                held = zmalloc.stats().held
                assert held <= most, (size, held - most)
            if at == end:
                break
    except MemoryError:
        pass
    full = at == end
    empty()
    assert not full, "nothing was refused"
    assert at * (size + 33) <= 11 * 2**20, (at, size)
figures = zmalloc.stats()
assert figures.held_limit == most and figures.limit is None and figures.limit_hit
assert figures.refusals >= 4
zmalloc.limit(None)
assert from_arenas or zmalloc.peak() <= most
assert zmalloc.stats().held_limit is None
hoard[0] = bytes(20 * 2**20)
seen = zmalloc.audit()
assert seen.used == seen.counted
""",
        mode,
        env={"PYTHONMALLOC": mode},
    )


def test_held_is_what_is_used_where_blocks_come_from_the_system() -> None:
    snippet(
        """
        import zmalloc
        figures = zmalloc.stats()
        assert abs(figures.held - figures.used) < 2000, figures
        """,
        env={"PYTHONMALLOC": "malloc"},
    )


def test_held_is_arenas_large_blocks_and_frames() -> None:
    snippet(
        """
        import zmalloc
        held = lambda: zmalloc.stats().held
        before = held(); large = bytearray(5_000_000); after = held()
        assert 5_000_000 <= after - before < 5_002_000 + 2**20, after - before
        del large
        assert held() - before <= 2**20
        # half a million small objects, then all but a few gone: the arenas stay
        small = [bytes(40) for _ in range(200_000)]
        full, used = held(), zmalloc.used()
        del small[::2]
        thin = zmalloc.stats()
        assert used - thin.used > 5_000_000
        assert full - thin.held < 2**20, "arenas with a live block are still held"
        del small
        assert held() < full - 10 * 2**20
        """,
        env={"PYTHONMALLOC": "pymalloc"},
    )


# ---- nothing passes ----------------------------------------------------------------------------

ATTACKS = {
    "a huge bytearray": "bytearray(10**10)",
    "bytearrays of the largest size there is": "bytearray(2**63 - 1 - 100)",
    "a huge str": "'x' * 10**10",
    "a huge list": "[None] * 10**9",
    "a huge tuple": "(None,) * 10**9",
    "a huge int": "1 << 10**10",
    "a range made a list": "list(range(10**8))",
    "strings that double": "s = 'ab'\nwhile True: s += s",
    "a list that grows": "l = []\nwhile True: l.append(None)",
    "lists in lists": "l = []\nwhile True: l.append([0] * 10)",
    "a dict that grows": "d = {}\nn = 0\nwhile True:\n    d[n] = n\n    n += 1",
    "a set that grows": "s = set()\nn = 0\nwhile True:\n    s.add(n)\n    n += 1",
    "small bytes": "l = []\nwhile True: l.append(b'%d' % len(l))",
    "one large block after the other": "l = []\nwhile True: l.append(bytearray(50_000))",
    "a join": "''.join('x' * 1000 for _ in range(10**7))",
    "a format": "'%10000000000d' % 5",
    "a zfill": "'5'.zfill(10**10)",
    "a bytes replace": "(b'x' * 10**5).replace(b'x', b'y' * 10**5)",
    "a BytesIO": "import io\nf = io.BytesIO()\nwhile True: f.write(bytes(10_000))",
    "an array": "import array\na = array.array('q', [0])\nwhile True: a.extend(a)",
    "zlib": "import zlib\nzlib.decompress(zlib.compress(bytes(10**6)) , 15, 10**9)",
    "instances": "class C: pass\nl = []\nwhile True:\n    c = C(); c.x = len(l); l.append(c)",
    "a chain of tuples": "t = ()\nwhile True: t = (t, t)",
    "functions": "l = []\nwhile True: l.append(lambda x=len(l): x)",
    "a sort with keys": "sorted(range(10**7), key=str)",
    "powers": "n = 3\nwhile True: n = n * n",
}

ATTACK = """
import json, sys, zmalloc
code = compile({code!r}, "attack", "exec")
room = {room}
before = zmalloc.used()
cap = before + room
most = cap + {reserve}
def attack():
    exec(code, {{}})
error = None
zmalloc.reset_peak()
zmalloc.limit(cap, reserve={reserve})
try:
    attack()
except BaseException as caught:
    error = type(caught)
zmalloc.limit(None)
peak = zmalloc.peak()
assert peak <= most, (peak, cap)
if error not in (MemoryError, zmalloc.LimitError, *{errors}) and not (error is None and {may_end}):
    raise AssertionError(error)
seen = zmalloc.audit()
assert seen.used == seen.counted, seen
assert json.loads(json.dumps({{"alive": [1, 2, 3]}})) == {{"alive": [1, 2, 3]}}
assert zmalloc.stats().limit_hit
"""


def attack(code: str, room: int, *, reserve: int, may_end: bool = False) -> str:
    """A plain hard cap leaves CPython with failures that it makes something else of."""
    errors = () if reserve else ("SystemError", "RecursionError")
    source = ATTACK.format(
        code=code, room=room, reserve=reserve, may_end=may_end, errors=f"({', '.join(errors)})"
    )
    return source


@pytest.mark.parametrize("reserve", [0, MIB])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_runaway_ends_at_the_cap_with_an_exception(name: str, reserve: int) -> None:
    snippet(attack(ATTACKS[name], 3_000_000, reserve=reserve, may_end=name == "zlib"))


# What CPython 3.10 itself makes of a NULL while it unwinds a deep stack: it gives up. A cap with a
# reserve is there to spare it that; a plain hard cap cannot.
GIVES_UP = "Cannot recover from MemoryErrors while normalizing exceptions"


@pytest.mark.parametrize("room", [100_000, 1_000_003, 8_000_000])
def test_deep_recursion_with_a_raised_limit_cannot_pass_the_cap(room: int) -> None:
    # 3.10 recurses on the C stack, whose 8 MB bear no more than this
    depth = "15_000 if sys.version_info < (3, 11) else 10**7"
    code = f"import builtins, sys\nsys.setrecursionlimit({depth})\n"
    code += "def f(n):\n    return f(n + 1) + 1\n"
    # 3.11 drops the function twice when it gets no frame for it: hence the further references
    code += "builtins.keep = [f] * 9\nf(0)"
    source = attack(code, room, reserve=0).replace("assert zmalloc.stats().limit_hit", "")
    outcome = python("-c", source, may_be_killed=True)
    if outcome.status == -signal.SIGABRT and sys.version_info < (3, 11):
        assert GIVES_UP in outcome.err
    else:
        assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("count", [70_000, 131_000])
def test_a_function_with_very_many_locals_cannot_pass_the_cap(count: int) -> None:
    """From 3.11 its frame is a chunk of exactly one arena's size, or more than one."""
    snippet(f"""
        import sys, zmalloc
        names = ["a%d" % n for n in range({count})]
        source = "def f(n):\\n    if not n: return 0\\n    " + "\\n    ".join(
            "%s = n" % name for name in names[:50]) + "\\n    if n < 0: " + "; ".join(
            "%s = 0" % name for name in names) + "\\n    return f(n - 1)"
        scope = {{}}
        exec(source, scope)
        del source, names
        f = scope["f"]
        keep = [f] * 9   # 3.11 drops the function twice when it gets no frame for it
        f(2)
        sys.setrecursionlimit(5000)
        rss = zmalloc.rss()
        cap = zmalloc.used() + 4 * 2**20
        zmalloc.reset_peak()
        zmalloc.limit(cap, reserve=0)
        error = None
        try:
            f(900)
        except BaseException as caught:
            error = type(caught)
        zmalloc.limit(None)
        assert error in (MemoryError, SystemError, RecursionError), error
        assert zmalloc.peak() <= cap, (zmalloc.peak(), cap)
        assert zmalloc.rss() - rss < 40 * 2**20
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        assert f(2) == 0
        """)


def test_a_list_from_before_the_import_cannot_grow_past_the_cap() -> None:
    snippet("""
        import sys
        old = [None] * 1000
        table, text, array = {n: n for n in range(1000)}, bytearray(1000), set(range(1000))
        import zmalloc
        for grow, size in (
            (lambda: old.append(None), lambda: sys.getsizeof(old)),
            (lambda: table.__setitem__(len(table), None), lambda: sys.getsizeof(table)),
            (lambda: text.extend(b"0123456789"), lambda: len(text)),
            (lambda: array.add(len(array)), lambda: sys.getsizeof(array)),
        ):
            zmalloc.reset_peak()
            cap = zmalloc.used() + 2_000_000
            zmalloc.limit(cap, reserve=0)
            grown = False
            try:
                for _ in range(10_000_000):
                    grow()
                grown = True
            except MemoryError:
                pass
            zmalloc.limit(None)
            assert not grown, "never refused"
            assert zmalloc.peak() <= cap
            assert size() <= 2_100_000, size()
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        """)


RANDOM_THREADS = """
import random, sys, threading, time, zmalloc
seed = int(sys.argv[1])
choose = random.Random(seed)
cap_room = choose.choice([60_000, 300_000, 1_000_000, 5_000_000])
start, stop = threading.Barrier(9), threading.Event()
failures = []

def bytes_of(choose, kept): kept.append(bytes(choose.randrange(1, 30_000)))
def lists(choose, kept): kept.append([None] * choose.randrange(1, 3000))
def grow(choose, kept):
    block = bytearray()
    for _ in range(choose.randrange(50)):
        block += bytes(999)
    kept.append(block)
def strings(choose, kept): kept.append(str(choose.random()) * choose.randrange(1, 500))
def numbers(choose, kept): kept.append(1 << choose.randrange(1, 100_000))
def shrink(choose, kept):
    if kept and isinstance(kept[-1], bytearray):
        del kept[-1][len(kept[-1]) // 2:]
    kept[len(kept) // 2:] = []
WORK = (bytes_of, lists, grow, strings, numbers, shrink)

def churn(n):
    sys._getframe()
    choose, kept = random.Random(seed * 1000 + n), []
    work = [one for one in WORK]
    start.wait()
    for _ in range(250):
        if stop.is_set():
            break
        try:
            choose.choice(work)(choose, kept)
        except MemoryError:
            kept.clear()
        except SystemError:
            kept.clear()
    kept.clear()

threads = [threading.Thread(target=churn, args=(n,), daemon=True) for n in range(8)]
for thread in threads: thread.start()
start.wait()
zmalloc.reset_peak()
cap = max(zmalloc.used() + cap_room, zmalloc.peak())
# A thread may have taken more between the two lines above; a cap below use is legal but no test.
while True:
    zmalloc.limit(cap, reserve=0)
    zmalloc.reset_peak()
    if zmalloc.used() <= cap and zmalloc.peak() <= cap:
        break
    cap += cap_room
end = time.monotonic() + 20
while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
    try:
        time.sleep(0.005)
        if zmalloc.used() > cap: failures.append("used")
    except (MemoryError, SystemError):
        pass
zmalloc.limit(None)
peak = zmalloc.peak()
stop.set()
assert peak <= cap, (peak, cap, seed)
assert not failures
for thread in threads: thread.join(20)
end = time.monotonic() + 10
while True:
    seen = zmalloc.audit()
    if seen.used == seen.counted or time.monotonic() > end: break
assert seen.used == seen.counted, (seen, seed)
print([zmalloc.stats().refusals, sum(thread.is_alive() for thread in threads)])
"""


def test_random_caps_hold_under_eight_threads() -> None:
    """Each seed is a process of its own; the counters the allocator keeps are the judge."""
    base = random.randrange(10**6)
    print("seeds from", base)
    refused = 0
    for seed in range(base, base + 40):
        outcome = snippet_with_seed(seed)
        refused += outcome[0] > 0
        assert outcome[1] == 0, f"seed {seed}: a thread did not end"
    assert refused >= 10, "the caps were too wide for this to say anything"


def snippet_with_seed(seed: int) -> list[int]:
    value: list[int] = snippet(RANDOM_THREADS, str(seed), timeout=60).value
    return value


def test_a_lowered_limit_is_obeyed_by_threads_that_are_running() -> None:
    snippet("""
        import sys, threading, time, zmalloc
        stop, sleep = threading.Event(), time.sleep
        def churn():
            sys._getframe()
            kept = []
            while not stop.is_set():
                try:
                    kept.append(bytearray(10_000))
                except MemoryError:
                    kept.clear()
                if len(kept) > 300:
                    kept.clear()
        threads = [threading.Thread(target=churn, daemon=True) for _ in range(6)]
        for thread in threads: thread.start()
        for n in range(60):
            cap = zmalloc.used() + (n % 7) * 30_000 + 400_000
            nap = 0.001
            zmalloc.limit(cap, reserve=0)
            # use may have been above when the cap was set; from there on it falls or stays below
            before = now = 0
            try:
                sleep(nap)
                before = zmalloc.used()
                now = zmalloc.used()
            except MemoryError:
                pass
            zmalloc.limit(None)
            assert now <= max(cap, before), (now, cap, before)
        stop.set()
        for thread in threads: thread.join(20)
        assert zmalloc.limit() is None
        """)


def test_async_with_is_refused_and_leaves_no_cap() -> None:
    async def misuse() -> None:
        async with zmalloc.limit("1 GiB"):  # type: ignore[attr-defined]
            pass

    with pytest.raises(TypeError, match="plain with statement"):
        asyncio.run(misuse())
    assert zmalloc.limit() is None


class NoBool:
    def __bool__(self) -> bool:
        raise ZeroDivisionError


def test_wrong_calls_name_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="two values for n"):
        zmalloc.limit(5, n=6)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="needs a size to seal"):
        zmalloc.limit(seal=False)  # type: ignore[call-overload]
    with pytest.raises(OverflowError, match="too large: at most"):
        zmalloc.limit(10**5000)
    for reserve in ("1 XB", -1, 10**100, 0.5):
        with pytest.raises((TypeError, ValueError, OverflowError), match="reserve="):
            zmalloc.limit("1 GiB", reserve=reserve)  # type: ignore[call-overload]
    with pytest.raises(ZeroDivisionError):
        zmalloc.limit("1 GiB", seal=NoBool())  # type: ignore[call-overload]
    with pytest.raises(OverflowError) as error:
        zmalloc.limit("1" * 100_000)
    assert len(str(error.value)) < 200
    assert zmalloc.limit() is None


def test_a_cap_on_what_is_held_counts_large_blocks_that_have_shrunk() -> None:
    seen = snippet(
        """
        import zmalloc
        keep = [None] * 400_000
        before = zmalloc.rss()
        with zmalloc.limit(held=zmalloc.stats().held + (32 << 20)):
            try:
                for i in range(len(keep)):
                    block = bytearray(600)
                    del block[1:]
                    keep[i] = block
            except MemoryError:
                pass
        grown = zmalloc.rss() - before
        keep.clear()
        print((i, grown))
        """
    )
    made, grown = seen.value
    assert made < 200_000
    assert grown < 48 << 20


def test_what_is_held_comes_back_after_churn_across_the_border_of_small_blocks() -> None:
    code = """
        import gc, zmalloc
        def churn():
            for n in range(0, 1200, 7):
                block = bytearray(n)
                block.extend(bytes(600))
                del block[n // 3:]
                block.extend(bytes(300))
                items = list(range(n))
                del items[n // 4:]
        churn()
        gc.collect()
        before = zmalloc.stats().held
        for _ in range(50):
            churn()
        gc.collect()
        print(zmalloc.stats().held - before)
        """
    for mode in ("pymalloc", "malloc", "debug", "pymalloc_debug", "malloc_debug"):
        drift = snippet(code, env={"PYTHONMALLOC": mode}).value
        assert drift % (1 << 20) in range(4096), f"{mode}: {drift} bytes of held stayed"
