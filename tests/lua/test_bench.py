"""The programs of bench/lua at a small size, in each kind of state that make bench-lua compares."""

from __future__ import annotations

import pytest

from . import toolchain

BENCH = toolchain.ROOT / "bench"
PROGRAMS = sorted((BENCH / "lua").glob("*.lua"))
KINDS = ("stock", "plain", "single", "capped", "shared", "group")


@pytest.mark.parametrize("lua", toolchain.PACKAGES)
def test_each_program_ends_well_and_tells_its_figures(lua: str) -> None:
    reason = toolchain.why_not(lua)
    if reason:
        pytest.skip(reason)
    host = toolchain.program("lua_host.c", lua, folder=BENCH)
    assert PROGRAMS
    for number, program in enumerate(PROGRAMS):
        kind = KINDS[number % len(KINDS)]
        seconds, peak = toolchain.core.must([host, kind, program, "4"]).split()
        assert 0 < float(seconds) < 60
        assert 1 << 20 < int(peak) < 1 << 30
