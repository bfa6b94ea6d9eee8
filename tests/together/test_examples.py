"""The examples with both languages run and print what is promised, and the host leaves nothing."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from python.processes import Outcome, run

from . import building

ROOT = building.ROOT


def number(text: str) -> int:
    return int(text.replace(",", ""))


# ---- together.py -------------------------------------------------------------------------------


def test_together_shows_one_total_and_a_runaway_that_python_survives(module: Path) -> None:
    done = run([sys.executable, ROOT / "examples" / "together.py", module.parent])
    assert (done.status, done.err) == (0, "")
    rows = {
        match[1].strip(): tuple(number(part) for part in match.groups()[1:])
        for match in re.finditer(r"^(.{40}) *([\d,]+) +([\d,]+) +([\d,]+)$", done.out, re.MULTILINE)
    }
    table = rows["100,000 numbers in a Lua table"]
    python = rows["100,000 numbers in a Python list, too"]
    start, end = rows["a Lua state with all libraries"], rows["the state closed"]
    for total, used, lua in rows.values():
        assert total == used + lua
    assert table[2] - start[2] > 1_600_000, "Lua's share moves"
    assert table[1] - start[1] < 10_000, "and Python's does not"
    assert python[1] - table[1] > 3_000_000
    assert python[2] == table[2]
    assert end[2] == 0
    match = re.search(r"total\(\) in Lua ([\d,]+), in Python ([\d,]+)", done.out)
    assert match
    assert match[1] == match[2]
    assert "a Lua runaway under 4 MiB: not enough memory" in done.out
    peak = re.search(r"its peak: ([\d,]+) bytes", done.out)
    assert peak
    assert 3 << 20 < number(peak[1]) <= (4 << 20) + (256 << 10)
    assert "Python goes on: sum(range(1000)) = 499500" in done.out


def test_together_says_so_where_lua_has_no_module(tmp_path: Path) -> None:
    done = run([sys.executable, ROOT / "examples" / "together.py", tmp_path],
               env={"LUA_CPATH": "/nowhere/?.so", "LUA_PATH": "/nowhere/?.lua"})
    assert done.status == 0
    assert "no module zmalloc for Lua, which `make lua` builds" in done.out
    assert "Python goes on" in done.out


# ---- host.c ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Path:
    if not building.has_libpython():
        pytest.skip("this Python has no libpython to build into a program")
    return building.host()


def run_host(host: Path, *wrapper: str, **env: str) -> Outcome:
    return run([*wrapper, host, sys.executable], env=env)


ROW = re.compile(r"^( *)(\S.*?) +(\d+) +(\d+) +(\d+|none)$", re.MULTILINE)


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc", "debug", "malloc_debug"])
def test_the_host_prints_one_tree_that_adds_up(host: Path, allocator: str) -> None:
    done = run_host(host, PYTHONMALLOC=allocator)
    assert (done.status, done.err) == (0, "")
    assert "counted from before Py_Initialize on" in done.out
    assert "plugin 1                 ended by itself" in done.out
    assert "plugin 2                 stopped: not enough memory" in done.out
    running, ended = done.out.split("when all have ended")
    used = {name: int(n) for _, name, n, _, _ in ROW.findall(running)}
    total = re.search(r"^total +(\d+)$", running, re.MULTILINE)
    assert total
    assert used["Python"] + used["plugins"] + used["C"] == int(total[1])
    assert used["plugin 1"] + used["plugin 2"] == used["plugins"] <= 4 << 20
    assert used["Python"] > 4_000_000, "a list of 100,000 ints, and all that Python started with"
    for language in ("Python", "Lua"):
        match = re.search(rf"the total, as {language} and C see it: +(\d+), (\d+)", done.out)
        assert match
        assert match[1] == match[2]
    assert re.search(r"Python's blocks, one by one: +equal", done.out)
    left = {name: int(n) for _, name, n, _, _ in ROW.findall(ended)}
    assert left["plugins"] == left["plugin 1"] == left["plugin 2"] == left["C"] == 0
    assert left["Python"] < 1_000_000, "Py_FinalizeEx gives nearly all back"


def test_the_start_of_python_is_counted(host: Path) -> None:
    match = re.search(r"on: (\d+) bytes for its start", run_host(host).out)
    assert match
    assert int(match[1]) > 1_000_000


def test_a_limit_of_the_environment_holds_from_the_import_on(host: Path) -> None:
    done = run_host(host, ZMALLOC_LIMIT="5 MiB")
    assert "zmalloc.LimitError: sealed limit of 5.0 MiB" in done.err or "MemoryError" in done.err
    assert done.status != 0


def test_a_package_of_another_version_is_refused(host: Path, tmp_path: Path) -> None:
    import zmalloc

    copy = shutil.copytree(Path(zmalloc.__file__).parent, tmp_path / "zmalloc")
    (copy / "_version.py").write_text('__version__ = "77.0.0"\n', encoding="utf-8")
    done = run_host(host, PYTHONPATH=str(tmp_path))
    assert done.status != 0
    assert f"this program has zmalloc {zmalloc.__version__} built in, but the package" in done.err
    assert "is 77.0.0" in done.err


@pytest.mark.skipif(not shutil.which("valgrind"), reason="no valgrind on this machine")
def test_no_memory_error_and_no_leak_of_ours_under_valgrind(host: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run_host(
        host, "valgrind", "--leak-check=full", "--show-leak-kinds=definite,possible",
        f"--log-file={log}", PYTHONMALLOC="malloc"
    )
    assert "Python's blocks, one by one:       equal" in done.out
    records = re.split(r"==\d+== \n", log.read_text())
    python = re.compile(r"(raw|mem|obj)_(malloc|calloc|realloc)|arena_alloc|libpython|_Py|PyMem_")
    ours = [r for r in records if "lost in loss record" in r and not python.search(r)]
    # What CPython itself reads before it is written (3.11 does) is none of ours.
    inside = re.compile(r"at 0x\w+: \w+ \((z\w+|hooks|install|accounts|scopes|threads|figures)\.c:")
    errors = [r for r in records if re.search(r"Invalid|Mismatched", r)
              or ("ninitialised" in r and inside.search(r))]
    assert ours == []
    assert errors == []
