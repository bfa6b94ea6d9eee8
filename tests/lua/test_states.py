"""New states, and the cap seen from the allocator's place, on each Lua.

ZMALLOC_TEST_SECONDS=5 lets the random parts run for longer.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from . import toolchain

SECONDS = os.environ.get("ZMALLOC_TEST_SECONDS", "0.4")
every_lua = pytest.mark.parametrize("lua", toolchain.PACKAGES)


#: adopt.c sees to it that malloc() fails.
LINK = {"adopt.c": ("-Wl,--wrap=malloc",)}


def built(source: str, lua: str, variant: str = "plain", cc: str = "gcc") -> Path:
    reason = toolchain.why_not(lua, variant, cc)
    if reason:
        pytest.skip(reason)
    return toolchain.program(source, lua, *LINK.get(source, ()), variant=variant, cc=cc)


@every_lua
def test_a_state_is_counted_to_the_byte_and_gone_without_a_trace(lua: str) -> None:
    """Over a million random operations, all Lua versions together."""
    printed = toolchain.check(built("states.c", lua), "all", SECONDS)
    operations = re.search(r"^(\d+) operations$", printed, re.M)
    assert operations
    assert int(operations[1]) >= 1_000_000 * float(SECONDS)


@every_lua
def test_each_request_is_answered_as_the_cap_and_the_reserve_demand(lua: str) -> None:
    toolchain.check(built("cap.c", lua), "all", SECONDS)


@every_lua
def test_many_threads_of_states_stay_under_one_cap(lua: str) -> None:
    toolchain.check(built("groups.c", lua), "all", str(0.6 * float(SECONDS)))


@every_lua
def test_each_refused_request_is_an_error_or_a_success_and_leaves_nothing(lua: str) -> None:
    """Every request of a script that uses all libraries: once, twice in a row, and from there on.

    LuaJIT needs a process for each; there a part of them, or all with ZMALLOC_TEST_FAULTS=all.
    """
    wanted = lua != "luajit" or os.environ.get("ZMALLOC_TEST_FAULTS") == "all"
    toolchain.check(built("faults.c", lua), "all", "1", env={"STEP": "1" if wanted else "0"})


@every_lua
def test_a_live_state_is_adopted_wherever_it_is_and_whatever_goes_wrong(lua: str) -> None:
    toolchain.check(built("adopt.c", lua), "all", SECONDS)
