"""memray, which hooks CPython's allocators, too, and libc's, comes and goes at any time.

Run where memray is installed, as `make test-neighbours` does where there is a wheel of it.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from .processes import snippet

pytestmark = pytest.mark.skipif(not find_spec("memray"), reason="memray is not installed")


@pytest.mark.parametrize("first", ["memray", "zmalloc"])
@pytest.mark.parametrize("allocators", [False, True], ids=["libc", "libc and Python"])
@pytest.mark.parametrize("counting", ["exact", "held"])
def test_a_tracker_may_come_and_go_at_any_time(
    counting: str, allocators: bool, first: str, tmp_path: object
) -> None:
    """What is taken with it and freed without it, or the other way, is counted and capped."""
    second = "zmalloc" if first == "memray" else "memray"
    snippet(
        f"""
        import gc, pathlib, sys
        import {first}
        import {second}

        def make(n):
            return [[i] * 10 for i in range(n)], bytearray(300_000)

        def run_away():
            zmalloc.reset_peak()
            try:
                with zmalloc.limit(zmalloc.used() + (8 << 20)):
                    hard = zmalloc.stats().hard_limit
                    rows = []
                    while True:
                        rows.append([0] * 10)
            except zmalloc.LimitError:
                rows = None
            assert zmalloc.peak() <= hard, (zmalloc.peak(), hard)

        folder, kept = pathlib.Path(sys.argv[1]), []
        for turn in range(6):
            kept.append(make(2000))
            with memray.Tracker(folder / str(turn), trace_python_allocators={allocators}):
                kept.append(make(2000))
                del kept[0]
                run_away()
                assert zmalloc.is_installed()
            kept.append(make(500))
            run_away()
        held = zmalloc.used()
        kept = None
        gc.collect()
        assert held - zmalloc.used() > 12 * 300_000
        seen = zmalloc.audit()
        assert seen.used == seen.counted, seen
        assert zmalloc.stats().reinstalled == 0 and zmalloc.mode() == {counting!r}
        """,
        str(tmp_path),
        env={"ZMALLOC_MODE": counting},
    )
