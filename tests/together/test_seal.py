"""A sealed limit of the process holds for Lua, too: no script gets past it by way of a state."""

from __future__ import annotations

from python.processes import Outcome, snippet

from . import lua54

PREAMBLE = f"""
import gc, os, sys, threading
sys.path.insert(0, {str(lua54.TESTS)!r})
import zmalloc
from together import lua54
from together.lua54 import counted, LuaError
lua54.library()
MB = 1 << 20
RUNAWAY = "local list = {{}} for i = 1, 1e9 do list[i] = {{i}} end"

def audit():
    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen

def refused(state, code=RUNAWAY):
    # Lua itself catches the error and tidies up: at the cap Python has not a byte left, either.
    return state.value(
        f"local ok, err = pcall(function() {{code}} end) collectgarbage() "
        "return not ok and err == 'not enough memory'"
    )
"""


def process(code: str, **keywords: object) -> Outcome:
    return snippet(PREAMBLE + code, **keywords)  # type: ignore[arg-type]


def test_a_sealed_limit_holds_for_python_and_lua_together() -> None:
    process(
        """
cap = zmalloc.used() + 4 * MB
zmalloc.limit(cap, seal=True)
before = zmalloc.used()
with counted() as (state, account):
    assert account.parent is None and account.limit() is None
    lua = account.used
    assert 15_000 < zmalloc.used() - before, "what Lua holds is a part of what is used"
    assert refused(state)
    assert zmalloc.peak() <= zmalloc.stats().hard_limit
    assert account.peak > 3 * MB and not account.limit_hit, "its own cap has not refused"
    assert account.refusals >= 1
    state.run("collectgarbage()")
    audit()
    s = zmalloc.stats()
    assert s.total == s.used, "a part of Python's is no second part of the total"
    s = None

    text = bytearray(3 * MB)             # what Python takes, Lua has not
    assert refused(state)
    state.run("collectgarbage()")
    assert refused(state, "text = string.rep('x', 2000000)")
    del text
    state.run("text = string.rep('x', 1000000)")
    try:
        bytearray(7 * MB // 2)           # and the other way round
    except MemoryError:
        pass
    else:
        raise AssertionError("Lua's share was not seen")
    state.run("text = nil collectgarbage()")
    assert zmalloc.peak() <= zmalloc.stats().hard_limit
    state = account = None
gc.collect()
assert abs(zmalloc.used() - before) < 20_000, zmalloc.used() - before
audit()
"""
    )


def test_no_call_of_an_account_gets_past_the_seal() -> None:
    process(
        """
early = zmalloc.lua_allocator("early")[2]
cap = zmalloc.used() + 4 * MB
zmalloc.limit(cap, seal=True)
group = zmalloc.lua_allocator("group")[2]
try:
    zmalloc.lua_allocator(parent=early)
except PermissionError as error:
    assert "made before the limit was sealed" in str(error)
else:
    raise AssertionError
for parent in (None, group, zmalloc.lua_allocator(parent=group)[2]):
    with counted(parent=parent) as (state, account):
        account.limit("1 GiB", reserve="1 GiB")
        group.limit(None)
        assert refused(state)
        account.limit(None)
        assert refused(state)
        assert zmalloc.peak() <= zmalloc.stats().hard_limit
early.limit("1 GiB")                     # its own affair: it was the host's before the seal
audit()
"""
    )


def test_accounts_from_before_the_seal_are_not_below_it_also_when_used_again() -> None:
    process(
        """
alloc, ud, account = zmalloc.lua_allocator("before")
with lua54.state(alloc, ud) as state:
    state.run("x = 1")
    del account
    gc.collect()
gc.collect()
zmalloc.limit(zmalloc.used() + 4 * MB, seal=True)
with counted("after") as (state, account):
    assert refused(state), "it must not have got the memory of one without a parent"
"""
    )


def test_a_script_under_the_command_line_cannot_take_more_by_lua() -> None:
    code = (
        PREAMBLE
        + """
with counted() as (state, account):
    assert refused(state)
    peak = zmalloc.peak()
print(peak, zmalloc.limit())
"""
    )
    outcome = snippet(
        f"""
import runpy, sys
sys.argv = ["zmalloc", "run", "--limit", "12MiB", "-c", {code!r}]
runpy.run_module("zmalloc", run_name="__main__")
"""
    )
    peak, limit = map(int, outcome.out.split())
    assert 8 << 20 < peak <= limit == 12 << 20


def test_where_held_alone_is_sealed_there_is_no_allocator() -> None:
    process(
        """
zmalloc.limit(held=zmalloc.stats().held + 8 * MB, seal=True)
try:
    zmalloc.lua_allocator()
except PermissionError as error:
    assert "held" in str(error)
else:
    raise AssertionError
"""
    )


def test_where_held_is_use_a_seal_on_it_holds_for_lua() -> None:
    process(
        """
zmalloc.limit(held=zmalloc.stats().held + 8 * MB, seal=True)
with counted() as (state, account):
    assert refused(state)
    assert account.peak < 8 * MB
    assert zmalloc.stats().held <= zmalloc.stats().held_limit
""",
        env={"PYTHONMALLOC": "malloc"},
    )


def test_a_limit_that_is_not_sealed_is_pythons_own() -> None:
    process(
        """
with zmalloc.limit(zmalloc.used() + 2 * MB):
    with counted() as (state, account):
        state.run("text = string.rep('x', 6000000)")
        assert account.used > 6 * MB - MB
"""
    )


def test_figures_stay_right_while_lua_runs_below_pythons_account() -> None:
    process(
        """
zmalloc.limit(zmalloc.used() + 30 * MB, seal=True)
states = [counted(f"state {i}") for i in range(3)]
opened = [one.__enter__() for one in states]
for state, account in opened:
    state.run("kept = {} for i = 1, 1000 do kept[i] = {i} end")
    audit()
s = zmalloc.stats()
lua = sum(account.used for _, account in opened)
parts = s.raw.used + s.mem.used + s.obj.used + s.stack.used
assert s.used == parts + lua, (s.used, parts, lua)
s = parts = None
if (pid := os.fork()) == 0:              # a child has counters of its own
    audit()
    for one in states:
        one.__exit__(None, None, None)
    audit()
    s = zmalloc.stats()
    assert s.used == s.raw.used + s.mem.used + s.obj.used + s.stack.used
    assert not refused(lua54.State(), "x = 1")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert sum(account.used for _, account in opened) == lua
for one in states:
    one.__exit__(None, None, None)
audit()
"""
    )


def test_threads_of_lua_below_one_seal_stay_below_it() -> None:
    """They press against the cap for a second, all at once, and are quiet again when it is over."""
    process(
        """
import time
HOG = '''
local till, rounds, failures = %d, 0, 0
local function hog() local list = {} for i = 1, 1e9 do list[i] = {i} end end
repeat until os.time() >= till - 1       -- all are in here before the first is at the cap
repeat
    local ok, err = pcall(hog)
    if ok or err ~= "not enough memory" then failures = failures + 1 end
    collectgarbage()
    rounds = rounds + 1
until os.time() >= till
repeat until os.time() >= till + 2
if failures > 0 then return -failures end
return rounds
'''
zmalloc.limit(zmalloc.used() + 4 * MB, seal=True)
cap, group = zmalloc.limit(), zmalloc.lua_allocator("group")[2]
rounds, ready = [], threading.Barrier(9)
def work(i):
    with counted(f"thread {i}", parent=group) as (state, account):
        ready.wait()
        rounds.append(state.number(HOG % (int(time.time()) + 3)))
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
ready.wait()                             # a thread that starts at the cap can hang CPython
for thread in threads: thread.join()
assert len(rounds) == 8 and min(rounds) >= 1, rounds
assert cap - MB < zmalloc.peak() <= zmalloc.stats().hard_limit, (zmalloc.peak(), cap)
assert group.used == 0
del threads
gc.collect()
audit()
"""
    )
