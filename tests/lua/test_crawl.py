"""A cap must not become a crawl: garbage beside live data that fill most of it.

Within three times the CPU time that the same takes without a cap, by success or by the limit.
Times are the least of interleaved runs; as another program may have the machine, there are more
of them before it counts.
"""

from __future__ import annotations

import importlib.util

import pytest

from . import toolchain

BENCH = toolchain.ROOT / "bench"
spec = importlib.util.spec_from_file_location("lua_crawl", BENCH / "lua_crawl.py")
assert spec
assert spec.loader
lua_crawl = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lua_crawl)

LIVE, ROUNDS, MOST, TRIES = 20000, 120000, 3.0, 5


@pytest.mark.parametrize("churn", ["tables", "strings", "closures"])
@pytest.mark.parametrize("lua", toolchain.PACKAGES)
def test_a_program_with_little_room_ends_in_time(lua: str, churn: str) -> None:
    reason = toolchain.why_not(lua)
    if reason:
        pytest.skip(reason)
    program = toolchain.program("lua_crawl.c", lua, folder=BENCH)
    least: dict[object, tuple[float, str]] = {}
    for _ in range(TRIES):
        found = lua_crawl.compare(program, churn, lua_crawl.cases(lua), LIVE, ROUNDS, 2)
        least = {case: min(end, least.get(case, end)) for case, end in found.items()}
        if all(ratio <= MOST for ratio, _ in least.values()):
            break
    slow = {case: end for case, end in least.items() if end[0] > MOST}
    assert not slow
