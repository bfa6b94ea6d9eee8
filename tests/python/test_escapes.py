"""No way out of the cap of ``zmalloc run``: what a script can try is stopped, or needs a fence.

ZMALLOC_TEST_ESCAPES=all, as make test-escapes sets it, also tries each in mode held, and without a
cap: there each has to get out, or its test could not fail. Else each version from 3.10 to 3.13 has
its quarter of the attempts.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import pytest

from .confined import Ended, confined
from .escapes import ATTEMPTS, BEYOND, GOAL, LIMIT, MIB, RESERVE, Attempt

EVERYTHING = os.environ.get("ZMALLOC_TEST_ESCAPES") == "all"
MODES = ("exact", "held") if EVERYTHING else ("exact",)
QUARTER = sys.version_info.minor % 4
HARD = LIMIT + RESERVE
#: README's table of modes: resident memory of runaways, over the cap.
#: ROOM is for their last words and for noise.
RESIDENT = {"exact": 1.24, "held": 1.08}
ROOM = 12 * MIB
CRASHES = ("Fatal Python error", "SystemError", "Segmentation", "Assertion", "core dumped")


def zrun(*options: str | Path, script: str, folder: Path, address_space: int = 0) -> Ended:
    path = folder / "script.py"
    path.write_text(script)
    words = [sys.executable, "-m", "zmalloc", "run", *options, path]
    return confined(words, address_space)


@functools.cache
def at_rest(mode: str) -> int:
    """Resident memory of a script that does nothing."""
    words = ["-m", "zmalloc", "run", "--mode", mode, "-c", "import threading"]
    return confined([sys.executable, *words]).resident


def possible(name: str) -> Attempt:
    attempt = ATTEMPTS.get(name) or BEYOND[name]
    if not attempt.since <= sys.version_info[:2] < attempt.before:
        pytest.skip("not on this version")
    is_of_others = [*ATTEMPTS, *BEYOND].index(name) % 4 != QUARTER
    if not EVERYTHING and (attempt.slow or is_of_others):
        pytest.skip("ZMALLOC_TEST_ESCAPES=all")
    return attempt


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_script_does_not_get_past_its_cap(name: str, mode: str, tmp_path: Path) -> None:
    attempt, report = possible(name), tmp_path / "report.json"
    seen = zrun("--limit", str(LIMIT), "--mode", mode, "--json", report,
                script=attempt.script, folder=tmp_path)  # fmt: skip
    assert "got out" not in seen.out, seen
    assert seen.status in attempt.ends, seen
    assert not any(word in seen.err for word in CRASHES), seen
    most = at_rest(mode) + RESIDENT[mode] * HARD + ROOM
    assert seen.resident <= most, (seen.resident / MIB, most / MIB)
    if not attempt.reports or seen.status < 0:  # a signal of its own leaves no time for one
        return
    stats = json.loads(report.read_text())["stats"]
    assert stats["mode"] == mode
    assert stats["limit"] <= LIMIT, stats
    assert stats["peak"] <= stats["hard_limit"] <= HARD, stats
    if seen.status == 53:
        assert stats["limit_hit"], stats


@pytest.mark.skipif(not EVERYTHING, reason="ZMALLOC_TEST_ESCAPES=all")
@pytest.mark.parametrize("name", ATTEMPTS)
def test_without_a_cap_it_would(name: str, tmp_path: Path) -> None:
    attempt = possible(name)
    seen = zrun(script=attempt.script, folder=tmp_path)
    assert seen.resident > at_rest("exact") + GOAL * 3 // 4
    assert "got out" in seen.out


# ---- beyond the cap ----------------------------------------------------------------------------

FENCE = 48 * MIB
FENCES = [(name, fence) for name, attempt in BEYOND.items() for fence in attempt.fences]


def fenced(fence: str, script: str, folder: Path) -> Ended:
    words = ["--limit", str(LIMIT)]
    if fence in ("--rlimit", "--held"):
        words += [fence, str(FENCE)]
    elif fence.startswith("--"):
        words.append(fence)
    return zrun(*words, script=script, folder=folder,
                address_space=128 * MIB if fence == "ulimit -v" else 0)  # fmt: skip


@pytest.mark.parametrize("name", BEYOND)
def test_what_no_cap_inside_the_process_holds(name: str, tmp_path: Path) -> None:
    """If this fails because the cap holds it, README's list is shorter by one."""
    attempt = possible(name)
    seen = zrun("--limit", str(LIMIT), script=attempt.script, folder=tmp_path)
    assert seen.resident > at_rest("exact") + RESIDENT["exact"] * HARD + ROOM, seen


@pytest.mark.parametrize(("name", "fence"), FENCES)
def test_the_outer_fence_holds_it(name: str, fence: str, tmp_path: Path) -> None:
    seen = fenced(fence, possible(name).script, tmp_path)
    assert "got out" not in seen.out, seen
    # where the kernel refuses CPython's own C code may crash: 3.13 does, in its interned strings
    assert seen.status != 0, seen
    assert seen.resident <= at_rest("exact") + FENCE + ROOM, (seen.resident / MIB, seen)


def test_what_reports_leave_behind_does_not_raise_a_sealed_limit_without_end(
    tmp_path: Path,
) -> None:
    """Where no program has been run by the runner its reports can still be made."""
    script = tmp_path / "script.py"
    script.write_text("""
import zmalloc
MIB = 2 ** 20
zmalloc.limit(zmalloc.used() + 8 * MIB, seal=True)
kept, done = [None] * 20, 0
def take():
    global done
    kept[done] = b"x" * (6 * MIB)
    done += 1
report = zmalloc._core._reporter(take)
try:
    for _ in range(20): report()
except MemoryError:
    kept.clear()
assert 1 <= done < 20
""")
    seen = confined([sys.executable, script])
    assert seen.status == 0, seen
    assert seen.resident <= at_rest("exact") + (8 + 1 + 4 + 8) * MIB + ROOM, seen.resident / MIB
