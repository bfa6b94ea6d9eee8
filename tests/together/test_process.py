"""Forks, threads and the end of the interpreter, with Lua states alive."""

from __future__ import annotations

import pytest
from python.processes import snippet

from . import lua54

PREAMBLE = f"""
import atexit, gc, os, signal, sys, threading
sys.path.insert(0, {str(lua54.TESTS)!r})
import zmalloc
from together import lua54
from together.lua54 import LuaError, counted
RUNAWAY = "local list = {{}} for i = 1, 1e9 do list[i] = {{i}} end"
"""


def process(code: str) -> str:
    return snippet(PREAMBLE + code).out


def test_a_child_has_its_own_copy_of_state_account_and_cap() -> None:
    process(
        """
alloc, ud, account = zmalloc.lua_allocator()
account.limit("2 MiB")
state = lua54.State(alloc, ud)
state.run("text = string.rep('x', 300000)")
used = account.used
if (pid := os.fork()) == 0:
    assert account.used == used
    try:
        state.run(RUNAWAY)
    except LuaError:
        state.close()
        s = zmalloc.stats()
        os._exit(0 if account.used == 0 and s.total == s.used else 2)
    os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
assert account.used == used and not account.limit_hit
state.close()
assert account.used == 0
"""
    )


def test_a_child_works_while_threads_of_its_parent_make_and_end_states() -> None:
    process(
        """
stop = False
def work():
    while not stop:
        alloc, ud, account = zmalloc.lua_allocator()
        with lua54.state(alloc, ud, libs=False) as state:
            state.run("local x = {}")
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for n in range(30):
    if (pid := os.fork()) == 0:
        signal.alarm(20)                     # a lock that is not free would be waited for for ever
        with counted() as (state, account):
            state.run("local x = {}")
        seen = zmalloc.audit()
        os._exit(0 if seen.used == seen.counted else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
for thread in threads: thread.join()
"""
    )


@pytest.mark.parametrize("seal", ["", "zmalloc.limit(zmalloc.used() + (8 << 20), seal=True)"])
@pytest.mark.parametrize("drops", ["", "del account", "del state"])
def test_the_interpreter_ends_with_states_alive(drops: str, seal: str) -> None:
    out = process(
        f"""
{seal}
alloc, ud, account = zmalloc.lua_allocator()
state = lua54.State(alloc, ud)
state.run("text = string.rep('x', 300000)")
{drops}
print("done")
"""
    )
    assert out == "done\n"


def test_a_state_may_be_closed_at_exit_and_by_a_finalizer() -> None:
    process(
        """
alloc, ud, account = zmalloc.lua_allocator()
first, second = lua54.State(alloc, ud), lua54.State(alloc, ud)
atexit.register(first.close)
class Closer:
    def __init__(self, state): self.close = state.close
    def __del__(self): self.close()
sys.modules["a module that goes last"] = Closer(second)
"""
    )


def test_the_interpreter_ends_while_a_daemon_thread_is_in_lua() -> None:
    process(
        """
entered = threading.Event()
def work():
    with counted() as (state, account):
        account.limit("4 MiB")
        entered.set()
        state.run(f"while true do pcall(function() {RUNAWAY} end) collectgarbage() end")
threading.Thread(target=work, daemon=True).start()
entered.wait()
"""
    )
