"""zmalloc.lua_allocator(): Lua states of a Python process, counted and capped."""

from __future__ import annotations

import gc
import re
import threading

import pytest
import zmalloc
from python.processes import snippet

from . import lua54
from .lua54 import ALLOC, ERRMEM, LuaError, counted

RUNAWAY = "local list = {} for i = 1, 1e9 do list[i] = {i} end"
GARBAGE = "for i = 1, 200000 do local t = {i} end"


def others() -> int:
    """What is held beside Python, in one reading."""
    figures = zmalloc.stats()
    return figures.total - figures.used


# ---- counting ----------------------------------------------------------------------------------


def test_a_state_is_counted_to_the_byte_of_what_lua_says() -> None:
    with counted() as (state, account):
        state.run("numbers = {} for i = 1, 10000 do numbers[i] = i end")
        said = state.number("collectgarbage() return collectgarbage('count') * 1024")
        state.run("collectgarbage()")
        again = state.number("return collectgarbage('count') * 1024")
        assert said > 160_000
        # What one reading compiles is garbage at the next, so the two differ by a chunk.
        assert abs(account.used - again) < 2000
        assert others() == account.used


def test_lua_counts_into_the_total_and_not_into_pythons_use() -> None:
    with counted() as (state, account):
        before, python = account.used, zmalloc.used()
        state.run("text = string.rep('x', 5000000)")
        assert account.used - before >= 5_000_000
        assert abs(zmalloc.used() - python) < 5000
        assert others() == account.used


def test_the_count_is_exact_where_lua_itself_reads_it() -> None:
    """Lua reads its count on the way into a call of ours, so that nothing lies between the two."""
    alloc, ud, account = zmalloc.lua_allocator()
    with lua54.state(alloc, ud) as state:
        state.run("function count() return collectgarbage('count') * 1024 end collectgarbage()")
        for size in (10, 1000, 100_000):
            state.run(f"kept = string.rep('x', {size}) collectgarbage('collect')")
            assert state.number("collectgarbage('stop') return count()") == account.used
            state.run("collectgarbage('restart')")
    assert account.used == 0


def test_peak_allocations_and_kinds_tell_what_has_been() -> None:
    with counted() as (state, account):
        state.run("collectgarbage()")
        account.reset_peak()
        assert account.peak == account.used
        created, blocks = account.created, account.allocations
        state.run("for i = 1, 100 do local a, b = {}, coroutine.create(print) end")
        now = account.created
        assert now["tables"] - created["tables"] >= 100
        assert now["threads"] - created["threads"] == 100
        assert account.allocations - blocks >= 300
        assert account.peak > account.used or account.peak >= 100 * 200
        state.run("text = string.rep('x', 1000000) text = nil collectgarbage()")
        assert account.peak >= 1_000_000 > account.used
        account.reset_peak()
        assert account.peak == account.used
    assert account.frees == account.allocations
    assert set(now) == {"strings", "tables", "functions", "userdata", "threads"}


# ---- caps --------------------------------------------------------------------------------------


def test_a_runaway_gets_an_error_that_lua_can_catch_and_python_goes_on() -> None:
    with counted("plugin") as (state, account):
        account.limit("1 MiB", reserve=0)
        assert account.limit() == account.hard_limit == 1 << 20
        with pytest.raises(LuaError, match="not enough memory") as caught:
            state.run(RUNAWAY)
        assert caught.value.status == ERRMEM
        assert account.peak <= 1 << 20
        assert account.limit_hit
        assert account.refusals >= 1
        assert account.collections >= 1
        assert account.last_refused is not None
        ok, message = state.run(f"return pcall(function() {RUNAWAY} end)")
        assert (ok, message) == (False, "not enough memory")
        account.clear_hit()
        assert not account.limit_hit
        state.run("collectgarbage()")
        account.limit(None)
        assert account.limit() is None
        state.run("big = string.rep('x', 3000000)")


def test_the_reserve_serves_what_has_to_be_done_about_the_error() -> None:
    with counted() as (state, account):
        account.limit("1 MiB", reserve="64 KiB")
        assert account.reserve == 64 << 10
        with pytest.raises(LuaError):
            state.run(RUNAWAY)
        assert account.peak <= account.hard_limit == (1 << 20) + (64 << 10)


@pytest.mark.parametrize(
    ("limit", "reserve"),
    [("1 KiB", 4096), (65536, 4096), ("1 MiB", 65536), ("64 MiB", 1 << 20), ("4 GiB", 1 << 20)],
)
def test_the_usual_reserve_is_a_sixteenth_within_bounds(limit: int | str, reserve: int) -> None:
    account = zmalloc.lua_allocator()[2]
    account.limit(limit)
    assert account.reserve == reserve


def test_a_limit_below_use_frees_nothing_and_refuses_growth() -> None:
    with counted() as (state, account):
        used = account.used
        account.limit(1, reserve=0)
        assert account.used == used
        with pytest.raises(LuaError, match="not enough memory"):
            state.run("text = string.rep('x', 1000000)")
        account.limit(None)


def test_a_state_that_does_not_fit_is_none_and_leaves_nothing() -> None:
    alloc, ud, account = zmalloc.lua_allocator()
    for limit in range(1, 4000, 97):
        account.limit(limit, reserve=0)
        state = lua54.library().lua_newstate(alloc, ud)
        if state:
            lua54.library().lua_close(state)
        assert account.used == 0
        assert account.peak <= limit


def test_a_parent_caps_all_that_is_below_it_together() -> None:
    group = zmalloc.lua_allocator("group")[2]
    group.limit("1 MiB", reserve=0)
    with counted("a", parent=group) as (a, first), counted("b", parent=group) as (b, second):
        assert first.parent is group
        assert second.parent is group
        assert group.parent is None
        a.run("text = string.rep('x', 400000)")
        with pytest.raises(LuaError, match="not enough memory"):
            b.run("text = string.rep('x', 400000)")
        assert group.used == first.used + second.used <= 1 << 20
        assert others() == group.used
        a.run("text = nil collectgarbage()")
        b.run("text = string.rep('x', 400000)")
        first.limit("64 MiB")
        with pytest.raises(LuaError, match="not enough memory"):
            a.run(RUNAWAY)
        assert group.peak <= 1 << 20
    assert group.used == 0


def test_garbage_under_a_limit_is_collected_and_nothing_fails() -> None:
    with counted() as (state, account):
        account.limit(account.used + 20_000, reserve=0)
        state.run(GARBAGE)
        assert account.peak <= account.limit()


# ---- wrong calls -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"name": 3}, TypeError, r"name=3 has the wrong type, int: expected a str"),
        ({"name": "a\0b"}, ValueError, r"name='a\\x00b' is no name"),
        ({"name": "\ud800"}, ValueError, r"is no name: expected text without null"),
        ({"parent": 3}, TypeError, r"parent=3 has the wrong type, int: expected a zmalloc.Account"),
        ({"nmae": "x"}, TypeError, r"nmae"),
    ],
)
def test_a_wrong_call_names_the_value_and_what_is_allowed(
    arguments: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        zmalloc.lua_allocator(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: a.limit(0), ValueError, "limit=0 is out of range: expected at least 1 byte"),
        (lambda a: a.limit(-5), ValueError, "limit=-5 is out of range"),
        (lambda a: a.limit("8 apples"), ValueError, "limit='8 apples' is not a size: expec"),
        (lambda a: a.limit(1.5), TypeError, "limit=1.5 has the wrong type, float"),
        (lambda a: a.limit(True), TypeError, "limit=True has the wrong type, bool"),
        (lambda a: a.limit(1 << 70), OverflowError, "is too large"),
        (lambda a: a.limit(9, reserve=-1), ValueError, "reserve=-1 is out of range: expected 0 or"),
        (lambda a: a.limit(9, reserve=-(1 << 80)), ValueError, "expected 0 or a size"),
        (lambda a: a.limit(9, reserve=1 << 80), OverflowError, "reserve=.* is too large"),
        (lambda a: a.limit(9, reserve=False), TypeError, "reserve=False has the wrong type, bool"),
        (lambda a: a.limit(9, reserve=None), TypeError, "reserve=None has the wrong type"),
        (lambda a: a.limit(9, reserve="x"), ValueError, "reserve='x' is not a size"),
        (lambda a: a.limit(reserve=5), TypeError, "needs a limit"),
        (lambda a: a.limit(None, reserve=5), TypeError, "needs a limit"),
        (lambda a: a.limit(5, 5), TypeError, "at most 1 positional"),
        (lambda a: type(a)(), TypeError, "cannot create"),
        (lambda a: setattr(a, "used", 1), AttributeError, "used"),
    ],
)
def test_a_wrong_limit_is_an_error_and_changes_nothing(
    call: object, error: type[Exception], text: str
) -> None:
    account = zmalloc.lua_allocator()[2]
    account.limit(5000, reserve=700)
    with pytest.raises(error, match=text):
        call(account)  # type: ignore[operator]
    assert (account.limit(), account.reserve) == (5000, 700)


def test_a_name_is_kept_in_full_and_shown() -> None:
    for name in ("Lua", "", "x" * 100, "ü" * 40, "名前" * 20):
        alloc, ud, account = zmalloc.lua_allocator(name)
        assert account.name == name
        assert repr(name) in repr(account)
        assert alloc > 0
        assert ud > 0
        assert type(alloc) is type(ud) is int
    assert zmalloc.lua_allocator()[2].name == "Lua"
    assert re.fullmatch(r"<zmalloc.Account 'Lua', used 0 B, limit none>",
                        repr(zmalloc.lua_allocator()[2]))


# ---- the life of an account --------------------------------------------------------------------


def test_a_state_outlives_its_account_object_under_the_cap_that_it_had() -> None:
    alloc, ud, account = zmalloc.lua_allocator()
    account.limit("1 MiB")
    state = lua54.State(alloc, ud)
    held = account.used
    del account
    gc.collect()
    for _ in range(50):  # others come and go meanwhile, and none gets the memory
        with counted() as (other, _):
            other.run("x = {}")
    assert others() == held
    with pytest.raises(LuaError, match="not enough memory"):
        state.run(RUNAWAY)
    state.close()
    assert others() == 0


def test_accounts_that_come_and_go_cost_no_memory() -> None:
    def come_and_go() -> None:
        alloc, ud, account = zmalloc.lua_allocator("some name")
        account.limit("9 MiB")
        with lua54.state(alloc, ud, libs=False) as state:
            account.reset_peak()
            state.run("return 1")

    come_and_go()
    gc.collect()
    before = zmalloc.used()
    for _ in range(2000):
        come_and_go()
    gc.collect()
    assert abs(zmalloc.used() - before) < 8000, "a few bytes for each"


def test_an_account_begins_anew_whoever_had_its_memory_before() -> None:
    with counted("first") as (state, account):
        account.limit("1 MiB")
        with pytest.raises(LuaError):
            state.run(RUNAWAY)
    del state, account
    gc.collect()
    _, _, account = zmalloc.lua_allocator("second")
    assert account.limit() is None
    assert account.hard_limit is None
    assert account.last_refused is None
    assert not account.limit_hit
    assert account.used == account.peak == account.refusals == account.frees == 0
    assert account.allocations == account.collections == account.overhead_refusals == 0
    assert set(account.created.values()) == {0}


def test_a_parent_lives_as_long_as_its_children() -> None:
    alloc, ud, child = zmalloc.lua_allocator(parent=zmalloc.lua_allocator("group")[2])
    gc.collect()
    assert child.parent is not None
    child.parent.limit("1 MiB")
    state = lua54.State(alloc, ud)
    del child
    gc.collect()
    with pytest.raises(LuaError):
        state.run(RUNAWAY)
    assert 0 < others() <= (1 << 20) + (1 << 16)
    state.close()
    assert others() == 0


def test_the_address_of_the_allocator_is_a_lua_alloc() -> None:
    alloc, ud, account = zmalloc.lua_allocator()
    call = ALLOC(alloc)
    p = call(ud, None, 5, 100)
    assert p
    assert p % 16 == 0
    assert (account.used, account.created["tables"]) == (100, 1)
    p = call(ud, p, 100, 10_000)
    assert account.used == 10_000
    assert call(ud, None, 0, (1 << 64) - 1) is None
    assert call(ud, p, 10_000, (1 << 64) - 1) is None
    assert account.used == 10_000
    p = call(ud, p, 10_000, 1)
    assert account.used == 1
    assert call(ud, p, 1, 0) is None
    assert call(ud, None, 7, 0) is None
    assert (account.used, account.allocations, account.frees) == (0, 1, 1)
    assert account.peak == 10_000


def test_an_account_works_without_the_hooks() -> None:
    snippet(
        """
import zmalloc
assert not zmalloc.is_installed()
alloc, ud, account = zmalloc.lua_allocator()
assert account.used == 0 and zmalloc.total() == 0
""",
        env={"ZMALLOC_NO_INSTALL": "1"},
    )


# ---- threads -----------------------------------------------------------------------------------


def in_threads(count: int, work: object) -> list[BaseException]:
    """Run work(i) in that many threads at once; what they have raised."""
    errors: list[BaseException] = []

    def one(i: int) -> None:
        try:
            work(i)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_eight_states_in_eight_threads_stay_below_their_parent() -> None:
    group = zmalloc.lua_allocator("group")[2]
    group.limit("4 MiB", reserve=0)
    start, ends = threading.Barrier(8), []

    def work(i: int) -> None:
        with counted(f"thread {i}", parent=group) as (state, account):
            start.wait()
            for _ in range(10):
                for code in (RUNAWAY, "collectgarbage()"):
                    try:
                        state.run(code)
                    except LuaError as error:  # the second, too: others may be at the cap
                        ends.append(str(error))
                assert account.used <= group.peak <= 4 << 20

    assert in_threads(8, work) == []
    assert group.used == 0
    assert group.peak <= 4 << 20
    assert group.peak > 3 << 20, "the cap was never near"
    assert len(ends) >= 80
    assert set(ends) == {"not enough memory"}


def test_threads_that_share_one_account_are_counted_right() -> None:
    alloc, ud, account = zmalloc.lua_allocator()

    def work(i: int) -> None:
        for _ in range(10):
            with lua54.state(alloc, ud) as state:
                state.run(GARBAGE.replace("200000", "2000"))

    assert in_threads(8, work) == []
    assert account.used == 0
    assert account.allocations == account.frees > 100_000


def test_accounts_that_end_in_other_threads_than_their_states_do_no_harm() -> None:
    """The last free of a state races with the end of its account and with new accounts."""

    def work(i: int) -> None:
        for n in range(200):
            alloc, ud, account = zmalloc.lua_allocator()
            state = lua54.State(alloc, ud, libs=False)
            closer = threading.Thread(target=state.close)
            closer.start()
            del account
            if n % 2:
                closer.join()
            zmalloc.lua_allocator()
            closer.join()

    assert in_threads(4, work) == []
    assert others() == 0
