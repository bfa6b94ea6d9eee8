"""The quick slice of cpython_tests, three modules of Lib/test, and that it sees what it is for.

The rest is what `make cpython-tests` runs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .cpython_tests import places, runner
from .cpython_tests.commands import Judged
from .cpython_tests.known import KNOWN, MODES, known

SLICE = ("test_list", "test_dict", "test_memoryview")
TIMEOUT = 60.0

DIFFERS = """
import pathlib, subprocess, sys, unittest

LOOK = "import sys; sys.exit('zmalloc' in sys.modules)"
RUNS = pathlib.Path(__file__).with_name("runs")


class Differs(unittest.TestCase):
    def test_same(self):
        pass

    def test_process(self):
        self.assertFalse("zmalloc" in sys.modules, "it is there")

    def test_child(self):
        self.assertEqual(subprocess.call([sys.executable, "-I", "-c", LOOK], env={}), 0)

    def test_of_subtests(self):
        with self.subTest("a part"):
            self.assertFalse("zmalloc" in sys.modules, "it is there")

    def test_skipped(self):
        if "zmalloc" in sys.modules:
            self.skipTest("counted")

    def test_of_chance(self):
        with RUNS.open("a") as file:
            file.write("run\\n")
        self.assertNotEqual(len(RUNS.read_text().splitlines()), 2)
"""
CRASHES = """
import os, signal, sys, unittest


class Crashes(unittest.TestCase):
    def test_before(self):
        pass

    def test_crash(self):
        if "zmalloc" in sys.modules:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> places.Places:
    try:
        return places.prepare(sys.executable, "exact", tmp_path_factory.mktemp("cpython"))
    except places.NoTests as missing:
        pytest.skip(str(missing))


def test_modules_of_cpythons_own_tests_do_the_same_with_zmalloc(made: places.Places) -> None:
    results = runner.run_all(
        made, SLICE, processes=1, done=lambda result: None, timeout=TIMEOUT,
        is_explained=lambda module, case: known(module, case, made.version, "exact") is not None,
    )  # fmt: skip
    judged = Judged(made.version, "exact", results)
    assert not judged.unexplained, "\n".join(judged.report())
    assert [(one.module, one.states["hooks"]) for one in judged.results] == [
        (name, ["success"]) for name in sorted(SLICE)
    ]
    assert sum(one.cases for one in results) > 300


def test_it_sees_each_kind_of_difference(made: places.Places, tmp_path: Path) -> None:
    (tmp_path / "test_differs.py").write_text(DIFFERS)
    seen = runner.both(made, "test_differs", TIMEOUT, options=["--testdir", str(tmp_path)])
    assert seen.cases == 6
    found = {one.case.rpartition(".")[2]: one for one in seen.differences}
    assert {name for name, one in found.items() if one.is_flaky} == {"test_of_chance"}
    with_zmalloc = {
        name: set(one.hooks) for name, one in found.items() if set(one.stock) == {"success"}
    }
    assert with_zmalloc == {
        "test_process": {"failure"},
        "test_child": {"failure"},
        "test_of_subtests": {"failure"},
        "test_skipped": {"skipped"},
        "test_of_chance": {"failure", "success"},
    }
    assert "True is not false : it is there" in found["test_process"].text
    judged = Judged(made.version, "exact", [seen])
    assert (len(judged.unexplained), len(judged.flaky), judged.explained) == (4, 1, [])


def test_a_crash_is_a_difference_that_names_its_test(made: places.Places, tmp_path: Path) -> None:
    (tmp_path / "test_crashes.py").write_text(CRASHES)
    options = ["--testdir", str(tmp_path)]
    runs = {
        way: [runner.run(python, "test_crashes", tmp_path / f"{way}.log", TIMEOUT, options)]
        for way, python in made.pythons.items()
    }
    (one,) = runner.compare("test_crashes", runs).differences
    assert (one.case, one.stock, one.hooks) == (runner.WHOLE, ["success"], ["signal 9"])
    assert one.text == "in test_crashes.Crashes.test_crash"


def test_an_entry_of_known_explains_nothing_but_what_it_names() -> None:
    for entry in KNOWN:
        assert re.compile(entry.module)
        assert re.compile(entry.case)
        assert len(entry.reason) > 20
        assert entry.modes
        for version in entry.versions:
            assert not entry.explains("test_", "test_", f"{version}.0", entry.modes[0])
    assert known("test_list", "test.test_list.ListTest.test_append", "3.13.0", "exact") is None
    assert set(MODES) == set(places.START)
