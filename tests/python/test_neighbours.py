"""Other tools in the same process: tracemalloc, trackers that throw us out, users of the C API."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
import zmalloc

from .processes import MODES, Outcome, snippet

TRACING = "import tracemalloc, zmalloc\n"
EQUAL = "\nseen = zmalloc.audit()\nassert seen.used == seen.counted, seen\n"


# ---- tracemalloc ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 5, 25])
def test_tracemalloc_running_before_the_import_goes_on_with_its_frames(frames: int) -> None:
    code = """
        import tracemalloc
        assert tracemalloc.is_tracing()
        import zmalloc
        assert zmalloc.is_installed()
        assert tracemalloc.is_tracing() and tracemalloc.get_traceback_limit() == FRAMES
        block = bytearray(1_000_000)
        trace = tracemalloc.get_object_traceback(block)
        assert trace is not None
        found = tracemalloc.take_snapshot().statistics("lineno")
        assert any(stat.size >= 1_000_000 for stat in found)
        tracemalloc.stop()
        assert zmalloc.is_installed(), "stop() must not throw us out"
        before = zmalloc.used()
        other = bytearray(1_000_000)
        assert 1_000_000 < zmalloc.used() - before < 1_002_000
        del block, other
        """.replace("FRAMES", str(frames))
    body = "\n".join(line[8:] for line in code.splitlines())
    snippet(body + EQUAL, options=("-X", f"tracemalloc={frames}"))
    started = f"\nimport tracemalloc\ntracemalloc.start({frames})\n"
    snippet(started + body + EQUAL)


def test_a_seal_survives_the_stop_of_a_tracemalloc_that_was_first() -> None:
    snippet(
        """
import tracemalloc
tracemalloc.start()
import zmalloc
zmalloc.limit(zmalloc.used() + 3_000_000, seal=True)
tracemalloc.stop()
try:
    bytearray(20_000_000)
except MemoryError:
    pass
else:
    raise AssertionError("the cap is gone")
"""
        + EQUAL
    )


@pytest.mark.parametrize("mode", MODES)
def test_tracemalloc_may_start_and_stop_in_any_order(mode: str) -> None:
    snippet(
        TRACING
        + """
import random
choose = random.Random(5)
kept = []
for n in range(200):
    what = choose.randrange(4)
    if what == 0:
        tracemalloc.start(choose.randrange(1, 10))
    elif what == 1:
        tracemalloc.stop()
    elif what == 2:
        kept.append([bytearray(choose.randrange(5000)) for _ in range(choose.randrange(30))])
    elif kept:
        kept.pop(choose.randrange(len(kept)))
    assert zmalloc.is_installed()
tracemalloc.start()
tracemalloc.take_snapshot()
tracemalloc.clear_traces()
tracemalloc.stop()
kept.clear()
"""
        + EQUAL,
        env={"PYTHONMALLOC": mode},
    )


def test_a_block_made_while_traced_and_freed_after_leaves_no_count() -> None:
    grown = snippet(
        TRACING
        + """
import gc
def measure():
    gc.collect()
    before = zmalloc.used()
    tracemalloc.start()
    kept = [bytearray(1000) for _ in range(1000)]
    tracemalloc.stop()
    del kept
    gc.collect()
    return zmalloc.used() - before
measure(); measure()
print(measure())
"""
        + EQUAL.replace("\n", "\n")
        + "print(measure())\n"
    ).value
    assert abs(grown) < 5000


def test_a_cap_holds_under_tracemalloc() -> None:
    snippet(
        TRACING
        + """
tracemalloc.start(3)
cap = zmalloc.used() + 3_000_000
zmalloc.limit(cap, reserve=0)
kept = []
try:
    while True:
        kept.append(bytearray(50_000))
except MemoryError:
    pass
zmalloc.limit(None)
assert zmalloc.peak() <= cap
assert 2_000_000 < sum(map(len, kept)) < 3_000_000
kept.clear()
tracemalloc.stop()
"""
        + EQUAL
    )


def test_dev_mode_counts_and_caps() -> None:
    snippet(
        """
import zmalloc
cap = zmalloc.used() + 2_000_000
zmalloc.limit(cap, reserve=0)
try:
    bytearray(5_000_000)
except MemoryError:
    pass
else:
    raise AssertionError
zmalloc.limit(None)
assert zmalloc.peak() <= cap
"""
        + EQUAL,
        options=("-X", "dev"),
    )


# ---- another tool, in C --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the built extension module `neighbour`."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("neighbour")
    target = folder / f"neighbour{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [
        compiler,
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-missing-field-initializers",
        "-O2",
        "-shared",
        "-fPIC",
        f"-I{sysconfig.get_path('include')}",
        f"-I{zmalloc.get_include()}",
        str(Path(__file__).with_name("neighbour.c")),
        "-o",
        str(target),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Python.h" in built.stderr and "No such file" in built.stderr:
        pytest.skip("needs Python's headers")
    assert built.returncode == 0, built.stderr
    return folder


def with_neighbour(
    folder: Path, code: str, options: Sequence[str] = (), env: dict[str, str | None] | None = None
) -> Outcome:
    lead = f"import sys; sys.path.insert(0, {str(folder)!r})\nimport neighbour\n"
    return snippet(lead + code, options=options, env=env)


def test_a_thread_of_c_code_counts_from_its_first_call_to_its_very_last(neighbour: Path) -> None:
    """The last ones are made when the thread's own counts are no longer in the list."""
    with_neighbour(
        neighbour,
        """
import itertools
import zmalloc
neighbour.in_thread("m", "r", "f")
def look():
    seen, s = zmalloc.audit(), zmalloc.stats()
    assert seen.used == seen.counted, seen
    return s.used, s.raw.used, s.raw.allocations - s.raw.frees
look()
start = look()
MOST = ("", "m", "c", "r", "f")
for before, inside, end in itertools.product(("", "m"), (*MOST, "mr"), MOST):
    letters = before + inside + end
    live = 0                            # nothing is lost or freed twice
    for letter in letters:
        live = {"m": live + 1, "c": live + 1, "r": live or -9, "f": live - 1}[letter]
        if live not in (0, 1):
            break
    else:
        size = neighbour.in_thread(before, inside, end)
        seen = look()
        assert seen[1] - start[1] == size, (letters, size, seen, start)
        assert seen[2] - start[2] == live, (letters, seen, start)
        if live:
            assert neighbour.in_thread("f", "", "") == 0
        assert look()[1:] == start[1:], letters
""",
    )


def test_a_refusal_of_a_thread_without_frames_has_no_line(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
import zmalloc
zmalloc.limit(zmalloc.used() + 3_000_000, reserve=0)
neighbour.in_thread("", "h", "")
zmalloc.limit(None)
last = zmalloc.stats().last_refused
assert (last.file, last.line) == (None, None), last
assert last.bytes == 10_000_000, last
seen = zmalloc.audit()
assert seen.used == seen.counted, seen
""",
    )


THROWN_OUT = """
import warnings
neighbour.save()
import zmalloc
kept = [bytearray(n) for n in range(2000)]
lists = [[n] for n in range(2000)]
assert zmalloc.is_installed() and zmalloc.stats().reinstalled == 0
neighbour.restore(ONLY)
assert not zmalloc.is_installed()
during = [bytearray(n) for n in range(2000)]      # made while nobody counts
del kept[::2]                                     # freed while nobody counts
for one in lists[:500]: one.extend(range(200))    # moved while nobody counts
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("only", [-1, 0, 1, 2])
def test_thrown_out_the_next_limit_installs_again_with_a_warning(
    neighbour: Path, mode: str, only: int
) -> None:
    with_neighbour(
        neighbour,
        THROWN_OUT.replace("ONLY", str(only))
        + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with zmalloc.limit("10 GiB"):
        assert zmalloc.is_installed()
assert [w.category for w in caught] == [RuntimeWarning], caught
assert "hooks" in str(caught[0].message)
assert zmalloc.stats().reinstalled == 1
after = [bytearray(n) for n in range(2000)]
del during[::3], kept[::3], lists[::3], after[::3]
for one in during: one.extend(b"x" * 100)
before = zmalloc.used()
block = bytearray(1_000_000)
assert 1_000_000 < zmalloc.used() - before < 1_002_000
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    zmalloc.limit("10 GiB")
assert not caught, "once"
zmalloc.limit(None)
kept = during = lists = after = block = None
"""
        + EQUAL
        + """
s = zmalloc.stats()
assert s.used == sum(d.used for d in (s.raw, s.mem, s.obj, s.stack)), s
""",
        env={"PYTHONMALLOC": mode},
    )


@pytest.mark.parametrize("only", [-1, 0, 1, 2])
def test_thrown_out_install_puts_the_hooks_back(neighbour: Path, only: int) -> None:
    with_neighbour(
        neighbour,
        THROWN_OUT.replace("ONLY", str(only))
        + """
warnings.simplefilter("error")
assert zmalloc.install() is True
assert zmalloc.install() is False
assert zmalloc.is_installed() and zmalloc.stats().reinstalled == 1
kept = during = lists = None
"""
        + EQUAL,
    )


def test_thrown_out_many_times_nothing_drifts_or_crashes(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
neighbour.save()
import random, zmalloc
choose, kept = random.Random(3), []
for n in range(100):
    neighbour.restore()
    kept += [bytearray(choose.randrange(2000)) for _ in range(100)]
    del kept[choose.randrange(len(kept))::2]
    for one in kept[::5]: one.extend(b"y" * choose.randrange(500))
    assert zmalloc.install()
    kept += [bytearray(choose.randrange(2000)) for _ in range(100)]
    del kept[choose.randrange(len(kept))::2]
    for one in kept[::5]: one.extend(b"y" * choose.randrange(500))
    seen = zmalloc.audit()
    assert seen.used == seen.counted, (n, seen)
assert zmalloc.stats().reinstalled == 100
"""
        + EQUAL,
    )


def test_under_a_cap_the_lost_count_stays_charged(neighbour: Path) -> None:
    """Being thrown out must not be a way to get a second helping."""
    with_neighbour(
        neighbour,
        """
neighbour.save()
import zmalloc, warnings
zmalloc.limit(zmalloc.used() + 10_000_000, seal=True)
kept = bytearray(8_000_000)
before = zmalloc.used()
neighbour.restore()
assert zmalloc.install()
assert abs(zmalloc.used() - before) < 3000, (zmalloc.used(), before)
try:
    bytearray(4_000_000)
except MemoryError:
    pass
else:
    raise AssertionError("a second helping")
del kept
try:
    bytearray(4_000_000)
except MemoryError:
    pass
else:
    raise AssertionError("what was lost is charged for good")
bytearray(1_000_000)
"""
        + EQUAL,
    )


def test_without_a_cap_a_loss_begins_the_count_anew(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
neighbour.save()
import zmalloc
kept = bytearray(8_000_000)
neighbour.restore()
zmalloc.install()
assert zmalloc.used() < 1_000_000
before = zmalloc.used()
del kept
assert abs(zmalloc.used() - before) < 1000
"""
        + EQUAL,
    )


def test_a_warning_that_is_an_error_leaves_the_hooks_in_and_no_limit(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
neighbour.save()
import zmalloc, warnings
neighbour.restore()
warnings.simplefilter("error")
try:
    zmalloc.limit("1 GiB")
except RuntimeWarning:
    pass
else:
    raise AssertionError
assert zmalloc.is_installed() and zmalloc.limit() is None
zmalloc.limit("1 GiB")
assert zmalloc.limit() == 2**30
"""
        + EQUAL,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["on top", "below"])
def test_a_hook_on_top_or_below_passes_through(neighbour: Path, order: str, mode: str) -> None:
    lead = (
        "neighbour.hook()\nimport zmalloc\n"
        if order == "below"
        else "import zmalloc\nneighbour.hook()\n"
    )
    with_neighbour(
        neighbour,
        lead
        + """
assert zmalloc.is_installed()
before, calls = zmalloc.used(), neighbour.hook_calls()
kept = [bytearray(n) for n in range(3000)]
assert neighbour.hook_calls() - calls >= 6000
assert zmalloc.used() - before > sum(range(3000))
zmalloc.limit(zmalloc.used() + 1_000_000)
try:
    bytearray(5_000_000)
except MemoryError:
    pass
else:
    raise AssertionError
zmalloc.limit(None)
for one in kept: one.extend(b"x" * 100)
del kept[::2]
"""
        + EQUAL
        + ("neighbour.unhook()\nassert zmalloc.is_installed()\n" if order == "on top" else "")
        + "del kept\n"
        + EQUAL,
        env={"PYTHONMALLOC": mode},
    )


def test_hooks_below_that_are_taken_out_take_us_with_them(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
neighbour.hook()
import zmalloc
kept = [bytearray(n) for n in range(1000)]
neighbour.unhook()                     # puts back what was there before us
assert not zmalloc.is_installed()
del kept[::2]
assert zmalloc.install()
del kept[::2]
assert zmalloc.is_installed()
"""
        + EQUAL,
    )


def test_tracemalloc_and_a_tracker_in_every_order(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
import itertools, tracemalloc, warnings, zmalloc
warnings.simplefilter("ignore")
steps = {
    "start": lambda: tracemalloc.start(2), "stop": tracemalloc.stop,
    # to save tracemalloc's hooks and bring them back when it has stopped breaks CPython by itself
    "save": lambda: tracemalloc.is_tracing() or neighbour.save(), "restore": neighbour.restore,
    "limit": lambda: zmalloc.limit("9 GiB"),
}
neighbour.save()
kept = []
for order in itertools.permutations(steps):
    for name in order:
        steps[name]()
        kept.append([bytearray(300) for _ in range(10)])
        if len(kept) > 30:
            del kept[::2]
    tracemalloc.stop()
    zmalloc.install()
    assert zmalloc.is_installed(), order
    seen = zmalloc.audit()
    assert seen.used == seen.counted, (order, seen)
zmalloc.limit(None)
"""
        + EQUAL,
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_million_foreign_frees_change_nothing(neighbour: Path, mode: str) -> None:
    count = 1_000_000
    with_neighbour(
        neighbour,
        f"""
assert neighbour.take({count}, 600) == {count}
import zmalloc
def figures():
    f = zmalloc._core._figures()
    return f["frees"], f["allocations"]
before, used = figures(), zmalloc.used()
assert neighbour.give() == {count}
after = figures()
assert after[0] - before[0] < 100, "a foreign free is none of ours"
assert abs(zmalloc.used() - used) < 1000
"""
        + EQUAL,
        env={"PYTHONMALLOC": mode},
    )


def test_foreign_blocks_are_adopted_whole_by_a_realloc(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
assert neighbour.take(30_000, 600) == 30_000
import zmalloc
before = zmalloc.used()
assert neighbour.resize_all(100) == 0
assert abs(zmalloc.used() - before - 3_000_000) < 1000, zmalloc.used() - before
assert neighbour.resize_all(700) == 0
assert abs(zmalloc.used() - before - 21_000_000) < 1000
zmalloc.limit(zmalloc.used() + 100_000, reserve=0)
assert neighbour.resize_all(5000) >= 29_000
assert neighbour.resize_all(10) == 0, "a shrink never fails"
zmalloc.limit(None)
assert abs(zmalloc.used() - before - 300_000) < 1000
neighbour.give()
assert abs(zmalloc.used() - before) < 1000
"""
        + EQUAL,
    )


def test_the_capsule_counts_an_account_into_the_total(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
import zmalloc
version, size, made = neighbour.api_open()
assert version == 1 and size > 100 and made
before, used = zmalloc.total(), zmalloc.used()
assert neighbour.api_charge(5_000_000)
assert 4_999_000 < zmalloc.total() - before < 5_001_000
assert abs(zmalloc.used() - used) < 1000, "it is no part of Python's"
s = zmalloc.stats()
assert s.total - s.used == 5_000_000
assert s.fragmentation == s.rss / s.total
figures = neighbour.api_figures()
assert figures[:2] == (5_000_000, 5_000_000)
assert neighbour.api_close() == -1, "it still holds bytes"
assert neighbour.api_charge(-5_000_000)
assert neighbour.api_alloc() == (5000, 0)
assert neighbour.api_limit(1000, 0) == 0
assert not neighbour.api_charge(1001) and neighbour.api_charge(1000) and neighbour.api_charge(-1000)
assert neighbour.api_figures()[2] == 1
assert neighbour.api_close() == 0
s = zmalloc.stats()
assert s.total == s.used
"""
        + EQUAL,
    )


def test_an_account_below_pythons_is_charged_to_it_and_capped_with_it(neighbour: Path) -> None:
    with_neighbour(
        neighbour,
        """
import zmalloc
neighbour.api_open(True)
before = zmalloc.used()
assert neighbour.api_charge(5_000_000)
assert 4_999_000 < zmalloc.used() - before < 5_001_000
s = zmalloc.stats()
assert s.total == s.used
s = None
zmalloc.limit(zmalloc.used() + 1_000_000)
assert not neighbour.api_charge(2_000_000)
zmalloc.limit(None)
assert neighbour.api_charge(2_000_000) and neighbour.api_charge(-7_000_000)
assert abs(zmalloc.used() - before) < 20_000
assert neighbour.api_close() == 0
""",
    )
