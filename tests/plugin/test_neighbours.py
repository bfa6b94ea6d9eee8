"""Beside other plugins, and items that are no plain functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Runner, needs

MARKED = """
    import pytest

    kept = []

    @pytest.mark.memory_limit("1 MiB")
    def test_limit():
        rows = []
        while True:
            rows.append([0] * 10)

    @pytest.mark.memory_peak("64 KiB")
    def test_peak():
        bytearray(100_000)

    @pytest.mark.memory_leak("0 B")
    def test_leak():
        kept.append(object())

    @pytest.mark.memory_limit("1 MiB")
    @pytest.mark.memory_peak("1 MiB")
    @pytest.mark.memory_leak("0 B")
    def test_passes():
        bytearray(1000)

    @pytest.mark.skip
    def test_skips(): pass
"""


@needs("xdist")
def test_xdist_gathers_the_figures_of_two_workers(suite: Runner, own: Path) -> None:
    alone = suite(MARKED, "--memory-json=alone.json")
    run = suite(
        None,
        "-n2",
        "--memory-report",
        "--memory-json=memory.json",
        "--memory-baseline=base.json",
        "--memory-update",
        "--junitxml=junit.xml",
        plugins=("xdist",),
    )
    assert run.counts == alone.counts == {"failed": 3, "passed": 1, "skipped": 1}
    assert "the 4 highest peaks of 4 tests" in run.text
    together, before = run.json()["tests"], alone.json("alone.json")["tests"]
    for name in ("peak", "leak", "passes"):
        assert together[f"test_it.py::test_{name}"] == before[f"test_it.py::test_{name}"], name
    assert "the test was stopped at test_it.py:9" in run.told("test_limit")
    for name in ("test_peak", "test_leak"):
        told = run.told(name).split("\n", 1)[1]  # below the line that names the worker
        assert told == alone.told(name)
    assert (own / "junit.xml").read_text(encoding="utf-8").count('"memory_peak"') == 4
    again = suite(None, "-n2", "--memory-baseline=base.json", plugins=("xdist",))
    assert again.counts == run.counts


@needs("xdist")
def test_a_wrong_size_is_told_under_xdist(suite: Runner) -> None:
    run = suite(
        "import pytest\n@pytest.mark.memory_limit('x')\ndef test_wrong(): pass\n",
        "-n2",
        plugins=("xdist",),
    )
    assert run.status == 1
    assert "test_it.py::test_wrong: memory_limit: size='x' is not a size" in run.text


@needs("xdist")
def test_a_worker_whose_test_runs_away_again_and_again_goes_on(suite: Runner) -> None:
    """What arrives from the controller meanwhile does not end the thread that reads it."""
    run = suite(
        """
        import pytest

        @pytest.mark.memory_limit("256 KiB")
        @pytest.mark.parametrize("n", range(40))
        def test_runaway(n):
            rows = []
            while True:
                rows.append([0] * 10)

        @pytest.mark.parametrize("n", range(40))
        def test_fine(n):
            pass
        """,
        "-n2",
        plugins=("xdist",),
    )
    assert run.counts == {"failed": 40, "passed": 40}, run.text


@needs("xdist")
def test_a_worker_whose_first_command_waits_for_it_stops_its_tests(suite: Runner) -> None:
    """The thread that runs the tests handles that one itself: it is not exempt for it."""
    run = suite(
        MARKED,
        "-n2",
        plugins=("xdist",),
        files={
            "conftest.py": """
                import pytest, time

                @pytest.hookimpl(trylast=True)
                def pytest_collection_finish():
                    time.sleep(2)
            """
        },
    )
    assert "the test was stopped at test_it.py:9" in run.told("test_limit")


@needs("pytest_asyncio")
def test_asyncio(suite: Runner) -> None:
    run = suite(
        """
        import asyncio, pytest
        kept = []

        @pytest.mark.asyncio
        @pytest.mark.memory_limit("1 MiB")
        async def test_limit():
            rows = []
            while True:
                rows.append([0] * 10)
                await asyncio.sleep(0)

        @pytest.mark.asyncio
        @pytest.mark.memory_peak("64 KiB")
        async def test_peak():
            bytearray(100_000)

        @pytest.mark.asyncio
        @pytest.mark.memory_leak("0 B")
        async def test_leak():
            kept.append(object())

        @pytest.mark.asyncio
        async def test_memory(memory):
            await asyncio.sleep(0)
            block = bytearray(1_000_000)
            assert memory.used >= 1_000_057

        @pytest.mark.asyncio
        @pytest.mark.memory_limit("4 MiB")
        @pytest.mark.memory_peak("4 MiB")
        async def test_passes():
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))
        """,
        plugins=("asyncio",),
        files={"pytest.ini": "[pytest]\nasyncio_default_fixture_loop_scope = function\n"},
    )
    assert run.outcomes == {"failed": 3, "passed": 2}, run.text
    assert "memory_limit of 1.0 MiB: the test was stopped" in run.told("test_limit")
    assert run.told("test_peak").startswith("memory_peak of 64.0 KiB: its thread held ")
    assert re.match(r"memory_leak of 0 B: .* stay per round", run.told("test_leak"))


def test_coroutines_that_another_plugin_runs(suite: Runner) -> None:
    """A plugin that calls the coroutine function itself, as anyio's does."""
    run = suite(
        """
        import pytest

        async def nothing():
            pass

        @pytest.mark.memory_limit("1 MiB")
        async def test_limit():
            rows = []
            while True:
                rows.append([0] * 10)
                await nothing()

        @pytest.mark.memory_peak("64 KiB")
        async def test_peak():
            await nothing()
            bytearray(100_000)

        async def test_memory(memory):
            block = bytearray(1_000_000)
            assert 1_000_057 <= memory.used < 1_001_000

        @pytest.mark.memory_leak("0 B")
        async def test_leak():
            pass
        """,
        files={
            "conftest.py": """
                import inspect, pytest

                @pytest.hookimpl(tryfirst=True)
                def pytest_pyfunc_call(pyfuncitem):
                    if inspect.iscoroutinefunction(pyfuncitem.obj):
                        names = pyfuncitem._fixtureinfo.argnames
                        kwargs = {name: pyfuncitem.funcargs[name] for name in names}
                        try:
                            pyfuncitem.obj(**kwargs).send(None)
                        except StopIteration:
                            pass
                        return True
            """
        },
    )
    assert run.outcomes == {"failed": 3, "passed": 1}, run.text
    assert "memory_limit of 1.0 MiB: the test was stopped" in run.told("test_limit")
    assert run.told("test_peak").startswith("memory_peak of 64.0 KiB: its thread held ")
    assert (
        "memory_leak: the plugin that runs this coroutine function runs it only once"
        in run.told("test_leak")
    )


@needs("hypothesis")
def test_hypothesis(suite: Runner) -> None:
    run = suite(
        """
        import pytest
        from hypothesis import given, settings, strategies as st

        @pytest.mark.memory_limit("64 MiB")
        @settings(max_examples=20, database=None, deadline=None)
        @given(st.integers())
        def test_passes(n):
            assert n == n

        @pytest.mark.memory_limit("4 MiB")
        @settings(max_examples=5, database=None, deadline=None)
        @given(st.integers())
        def test_limit(n):
            bytearray(10**12)
        """,
        "--memory-report",
        plugins=("_hypothesis_pytestplugin",),
    )
    assert run.counts == {"failed": 1, "passed": 1}, run.text
    assert "memory_limit of 4.0 MiB: " in run.told("test_limit")


@needs("pytest_rerunfailures")
def test_rerunfailures(suite: Runner) -> None:
    run = suite(
        """
        import pytest
        runs = []

        @pytest.mark.memory_limit("1 MiB")
        def test_second_time():
            runs.append(1)
            bytearray(10**12 if len(runs) < 2 else 1000)

        @pytest.mark.memory_limit("1 MiB")
        def test_never():
            bytearray(10**12)
        """,
        "--reruns=2",
        "--memory-json=memory.json",
        plugins=("rerunfailures",),
    )
    assert run.counts == {"failed": 1, "passed": 1, "rerun": 3}, run.text
    tests = run.json()["tests"]
    assert tests["test_it.py::test_second_time"]["outcome"] == "passed"
    assert 1000 < tests["test_it.py::test_second_time"]["peak"] < 3000


@needs("pytest_cov")
def test_cov(suite: Runner) -> None:
    run = suite(MARKED, "--cov=test_it", "--cov-report=term", plugins=("pytest_cov",))
    assert run.counts == {"failed": 3, "passed": 1, "skipped": 1}, run.text
    assert re.search(r"^test_it\.py +\d+ +\d+ +\d+%", run.text, re.MULTILINE)


def test_unittest(suite: Runner) -> None:
    run = suite("""
        import pytest, unittest
        kept = []

        class TestCase(unittest.TestCase):
            def setUp(self):
                self.rows = []

            @pytest.mark.memory_limit("1 MiB")
            def test_limit(self):
                while True:
                    self.rows.append([0] * 10)

            @pytest.mark.memory_limit("1 MiB")
            def test_swallows(self):
                with self.assertRaises(MemoryError):
                    bytearray(10**12)

            @pytest.mark.memory_limit("1 MiB")
            def test_swallows_and_skips(self):
                with self.assertRaises(MemoryError):
                    bytearray(10**12)
                self.skipTest("because")

            @pytest.mark.memory_peak("64 KiB")
            def test_peak(self):
                bytearray(100_000)

            @pytest.mark.memory_leak("0 B")
            def test_leak(self):
                kept.append(object())

            @pytest.mark.memory_leak("0 B")
            @pytest.mark.memory_limit("1 MiB")
            def test_passes(self):
                bytearray(1000)

            @pytest.mark.memory_leak("0 B")
            def test_fails(self):
                self.assertEqual(1, 2)

            @unittest.skip("because")
            def test_skips(self): pass

            @pytest.mark.memory_peak("1 MiB")
            def test_skips_itself(self):
                self.skipTest("because")
    """, "--memory-report")  # fmt: skip
    assert run.counts == {"failed": 6, "passed": 1, "skipped": 2}, run.text
    assert "memory_limit of 1.0 MiB: the test was stopped at test_it.py:11" in run.told(
        "TestCase.test_limit"
    )
    assert "caught the MemoryError" in run.told("TestCase.test_swallows")
    assert "caught the MemoryError" in run.told("TestCase.test_swallows_and_skips")
    assert run.told("TestCase.test_peak").startswith("memory_peak of 64.0 KiB: ")
    assert re.match(r"memory_leak of 0 B: .* stay per round", run.told("TestCase.test_leak"))
    assert "1 != 2" in run.told("TestCase.test_fails")


def test_doctest(suite: Runner) -> None:
    run = suite(
        '''
        def passes():
            """
            >>> len(bytearray(1000))
            1000
            """

        def runs_away():
            """
            >>> len(bytearray(10**12))
            1000000000000
            """
        ''',
        "--doctest-modules",
        "--memory-limit=1MiB",
        "--memory-report",
    )
    assert run.counts == {"failed": 1, "passed": 1}
    assert "MemoryError" in run.told("[doctest] test_it.runs_away")
    assert "memory: the 2 highest peaks of 2 tests" in run.text
    run = suite(None, "--doctest-modules", files={"conftest.py": """
        import pytest
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.memory_leak("0 B"))
    """})  # fmt: skip
    assert run.counts == {"failed": 2}
    assert "memory_leak: a doctest cannot be run again and again" in run.text


@needs("pytest_memray")
@pytest.mark.parametrize("options", [(), ("--memray",)])
def test_pytest_memray_and_this_work_beside_each_other(
    suite: Runner, options: tuple[str, ...]
) -> None:
    run = suite(
        """
        import pytest

        @pytest.mark.limit_memory("100 MB")
        def test_theirs(): pass

        @pytest.mark.limit_memory("1 MB")
        def test_theirs_fails():
            kept = bytearray(10_000_000)
            len(kept)

        @pytest.mark.memory_peak("1 MiB")
        def test_ours(): pass

        @pytest.mark.memory_peak("1 MiB")
        def test_ours_fails():
            kept = bytearray(10_000_000)
            len(kept)
        """,
        *options,
        plugins=("memray",),
    )
    assert run.counts == {"failed": 2, "passed": 2}, run.text
    assert "Test was limited to 1.0MiB but allocated" in run.text
    assert run.told("test_ours_fails").startswith("memory_peak of 1.0 MiB: its thread held 9.5 MiB")
