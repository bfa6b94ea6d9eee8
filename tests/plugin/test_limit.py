"""memory_limit: a test is stopped at its limit, and says where."""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil
import pytest

from .conftest import Runner

RUNAWAY = """
    import pytest

    @pytest.mark.memory_limit("2 MiB")
    def test_runaway():
        rows = []
        for i in range(10**9):
            rows.append([0] * 10)

    @pytest.mark.memory_limit("2 MiB")
    def test_huge():
        bytearray(10**12)

    @pytest.mark.memory_limit("2 MiB")
    def test_within():
        rows = [[0] * 10 for i in range(1000)]

    def test_next():
        pass
"""


def test_a_runaway_is_stopped_at_the_line_that_went_over(suite: Runner) -> None:
    run = suite(RUNAWAY)
    assert run.counts == {"failed": 2, "passed": 2}
    told = run.told("test_runaway")
    assert re.search(r"^>  +(for i in range|rows\.append)", told, re.MULTILINE)
    assert re.search(
        r"^E +zmalloc\.LimitError: budget of .* in use, \d+ B requested at .*test_it\.py:[67] \(",
        told,
        re.MULTILINE,
    )
    found = re.search(
        r"memory_limit of 2\.0 MiB: the test was stopped at test_it\.py:[67]\. It held 2\.0 "
        r"MiB \((\d,\d+,\d+) B\) and had asked for \d+ B there",
        told,
    )
    assert found, told
    assert 0 < int(found[1].replace(",", "")) - (2 << 20) < 64 * 1024


def test_one_huge_request_fails_on_its_own_line(suite: Runner) -> None:
    told = suite(RUNAWAY).told("test_huge")
    assert re.search(r"^> +bytearray\(10\*\*12\)", told, re.MULTILINE)
    assert re.search(r"^E +MemoryError$", told, re.MULTILINE)
    assert re.search(
        r"memory_limit of 2\.0 MiB: the test was stopped at test_it\.py:11\. It held [\d.,]+ "
        r"(B|KiB).* "
        r"and had asked for 931\.3 GiB there",
        told,
    )


def test_one_that_catches_the_error_and_goes_on_fails(suite: Runner) -> None:
    run = suite("""
        import pytest

        def swallow():
            rows = []
            try:
                while True:
                    rows.append([0] * 10)
            except MemoryError:
                rows.clear()

        @pytest.mark.memory_limit("1 MiB")
        def test_swallows():
            swallow()

        @pytest.mark.memory_limit("1 MiB")
        def test_raises_is_the_same():
            with pytest.raises(MemoryError):
                bytearray(10**12)

        @pytest.mark.memory_limit("1 MiB")
        def test_swallows_and_skips():
            swallow()
            pytest.skip("no memory")

        @pytest.mark.memory_limit("1 MiB")
        def test_swallows_and_fails():
            swallow()
            assert 1 == 2

        @pytest.mark.memory_limit("1 MiB")
        def test_swallows_in_a_thread():
            import threading
            thread = threading.Thread(target=swallow)
            thread.start()
            thread.join()
    """)
    assert run.counts == {"failed": 5}
    words = (
        r"memory_limit of 1\.0 MiB: the test went over it at test_it\.py:\d+, which asked for .*, "
        r"caught the MemoryError and went on; the peak was "
    )
    for name in ("test_swallows", "test_swallows_and_skips", "test_swallows_in_a_thread"):
        assert re.match(words + r"1\.\d MiB \([\d,]+ B\)\n", run.told(name) + "\n"), run.text
    assert re.match(words, run.told("test_raises_is_the_same"))
    told = run.told("test_swallows_and_fails")
    assert "assert 1 == 2" in told
    assert re.search(words, told)


def test_a_peak_between_two_safe_points_fails_and_is_told_so(suite: Runner) -> None:
    """No call is made in between: the block is gone when the interpreter looks."""
    run = suite("""
        import pytest
        PIECE, N = b"x", 1_300_000

        @pytest.mark.memory_limit("1 MiB")
        def test_moment():
            PIECE * N; N
    """)
    assert run.counts == {"failed": 1}
    assert re.match(
        r"memory_limit of 1\.0 MiB: the peak was 1\.2 MiB \(1,(299,9|300,0)\d\d B\): it passed the "
        r"limit for a "
        r"moment, between two points at which a test can be stopped$",
        run.told("test_moment"),
    ), run.text


def test_what_is_above_the_limit_at_the_end_fails(suite: Runner) -> None:
    run = suite("""
        import pytest
        PIECE, N = b"x", 1_300_000

        @pytest.mark.memory_limit("1 MiB")
        def test_end():
            global kept
            kept = PIECE * N
    """)
    assert run.counts == {"failed": 1}
    assert re.match(
        r"memory_limit of 1\.0 MiB: the test went over it( at test_it\.py:7)? and ended before it "
        r"could "
        r"be stopped; the peak was 1\.2 MiB \(1,(299|30\d),\d\d\d B\)$",
        run.told("test_end"),
    ), run.text


def test_the_limit_holds_for_the_threads_of_the_test(suite: Runner) -> None:
    run = suite("""
        import pytest, threading

        @pytest.mark.memory_limit("1 MiB")
        @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
        def test_thread():
            def run():
                rows = []
                while True:
                    rows.append([0] * 10)
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    """)
    assert run.counts == {"failed": 1}
    assert "caught the MemoryError and went on" in run.told("test_thread")


def test_default_limit_marker_and_none(suite: Runner) -> None:
    run = suite(
        """
        import pytest

        def test_default():
            kept = bytearray(1_500_000)
            return None if kept else 1

        @pytest.mark.memory_limit("4 MiB")
        def test_more():
            kept = bytearray(1_500_000)
            return None if kept else 1

        @pytest.mark.memory_limit(None)
        def test_lifted():
            kept = bytearray(1_500_000)
            return None if kept else 1

        class TestClass:
            pytestmark = pytest.mark.memory_limit("4 MiB")

            def test_of_the_class(self):
                kept = bytearray(1_500_000)
                return None if kept else 1

            @pytest.mark.memory_limit("512 KiB")
            def test_closest(self):
                kept = bytearray(1_500_000)
                return None if kept else 1
        """,
        files={"pytest.ini": "[pytest]\nmemory_limit = 1 MiB\n"},
    )
    assert run.counts == {"failed": 2, "passed": 3}
    assert "memory: limit of 1.0 MiB for each test" in run.lines
    told = run.told("test_default")
    assert "memory_limit of 1.0 MiB: the test was stopped at test_it.py:4." in told
    assert "memory_limit of 512.0 KiB: " in run.told("TestClass.test_closest")


@pytest.mark.parametrize(
    ("option", "counts"),
    [("--memory-limit=64KiB", {"failed": 1}), ("--memory-limit=none", {"passed": 1})],
)
def test_the_option_is_stronger_than_the_ini_file(
    suite: Runner, option: str, counts: dict[str, int]
) -> None:
    run = suite(
        "def test_it():\n    x = bytearray(500_000)\n    len(x)\n",
        option,
        files={"pytest.ini": "[pytest]\nmemory_limit = 128 KiB\n"},
    )
    assert run.counts == counts


def test_values_by_parameter(suite: Runner) -> None:
    run = suite("""
        import pytest

        def room(params):
            return params["n"] + 4096

        @pytest.mark.memory_limit(size=room)
        @pytest.mark.parametrize("n", [100_000, 200_000])
        def test_computed(n):
            kept = bytearray(n)
            len(kept)

        @pytest.mark.memory_limit(lambda params: params["n"] // 2)
        @pytest.mark.parametrize("n", [100_000])
        def test_computed_too_small(n):
            kept = bytearray(n)
            len(kept)

        @pytest.mark.parametrize("n", [
            pytest.param(100_000, marks=pytest.mark.memory_limit("1 MiB")),
            pytest.param(200_000, marks=pytest.mark.memory_limit("100 KiB")),
        ])
        def test_param(n):
            kept = bytearray(n)
            len(kept)
    """)
    assert run.counts == {"failed": 2, "passed": 3}
    assert "memory_limit of 48.8 KiB: " in run.told("test_computed_too_small[100000]")
    assert "memory_limit of 100.0 KiB: " in run.told("test_param[200000]")


def test_the_setup_counts_where_it_is_told_to(suite: Runner) -> None:
    run = suite("""
        import pytest

        @pytest.fixture
        def large():
            yield bytearray(1_500_000)

        @pytest.mark.memory_limit("1 MiB")
        def test_without(large):
            pass

        @pytest.mark.memory_limit("1 MiB", setup=True)
        def test_in_setup(large):
            pass

        @pytest.mark.memory_limit("2 MiB", setup=True)
        def test_together(large):
            kept = bytearray(1_000_000)
            len(kept)

        @pytest.mark.memory_limit("3 MiB", setup=True)
        def test_enough(large):
            kept = bytearray(1_000_000)
            len(kept)
    """)
    assert run.counts == {"failed": 1, "passed": 2, "error": 1}, run.text
    assert "LimitError" in run.told("ERROR at setup of test_in_setup")
    told = run.told("test_together")
    assert re.search(
        r"memory_limit of \d+\.\d KiB, what the setup has left of 2\.0 MiB: ", told
    ), told


def test_skips_xfails_and_errors_stay_what_they_are(suite: Runner) -> None:
    run = suite("""
        import pytest
        pytestmark = pytest.mark.memory_limit("8 MiB")

        def test_skip():
            pytest.skip("because")

        @pytest.mark.skip
        def test_skipped(): pass

        @pytest.mark.xfail
        def test_xfail():
            assert 0

        @pytest.mark.xfail
        @pytest.mark.memory_limit("1 MiB")
        def test_xfail_of_the_limit():
            bytearray(10**12)

        @pytest.fixture
        def broken():
            raise ValueError

        def test_error(broken): pass

        def test_fail():
            assert [1] == [2]
    """)
    assert run.counts == {"skipped": 2, "xfailed": 2, "error": 1, "failed": 1}
    assert "memory" not in run.told("test_fail")


def test_a_terabyte_of_small_objects_ends_within_seconds(suite: Runner, own: Path) -> None:
    """The machine's memory never sees it: the process is looked at while it runs."""
    source = """
        import pytest, psutil

        class Row:
            def __init__(self, i):
                self.i, self.rest = i, {}

        @pytest.mark.memory_limit("64 MiB")
        def test_runaway():
            rows = []
            for i in range(10**10):
                rows.append(Row(i))

        def test_next():
            info = psutil.Process().memory_full_info()
            import resource
            print("MOST", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """
    start = time.monotonic()
    run = suite(source, "-s")
    took = time.monotonic() - start
    assert run.counts == {"failed": 1, "passed": 1}
    assert took < 30
    most = int(re.search(r"MOST (\d+)", run.text)[1])  # type: ignore[index]
    assert most < psutil.Process().memory_info().rss + (200 << 20)
    assert most < 400 << 20


def test_it_is_stopped_again_and_again_until_it_gives_up(suite: Runner) -> None:
    run = suite("""
        import pytest

        @pytest.mark.memory_limit("1 MiB")
        def test_stubborn():
            rows = []
            for _ in range(20):
                try:
                    while True:
                        rows.append([0] * 10)
                except MemoryError:
                    pass
    """)
    assert run.counts == {"failed": 1}
    found = re.search(r"the peak was \d\.\d MiB \(([\d,]+) B\)", run.told("test_stubborn"))
    assert found
    assert int(found[1].replace(",", "")) <= 2 << 20, "beyond limit and reserve"


