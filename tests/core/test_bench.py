"""bench/core.c at a small size: it gives back all that it takes, whatever it is told to grow."""

from __future__ import annotations

import pytest

from . import toolchain

SOURCE = toolchain.ROOT / "bench" / "core.c"
#: SIZE LIVE THREADS ACCOUNTS DEPTH SCOPES PAIRS CHAINED
LOADS = ("24 64 1 1 1 0 1000 0", "4096 64 2 8 3 2 1000 1")


@pytest.mark.parametrize("mode", toolchain.MODES)
def test_each_kind_of_allocation_is_measured_and_leaves_nothing(mode: str) -> None:
    library = toolchain.static_library(mode)
    program = toolchain.program(str(SOURCE), "core", library, "-O2", "-D_GNU_SOURCE")
    for kind in ("loop", "malloc", "zmalloc", "account", "single"):
        for load in LOADS:
            took, peak = toolchain.must([program, kind, *load.split()]).split()
            assert 0 < float(took) < 1e9
            assert 1 << 19 < int(peak) < 1 << 30
