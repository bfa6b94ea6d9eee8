"""The fixtures memory and fail_allocation."""

from __future__ import annotations

import re

from .conftest import Runner


def test_memory_is_exact(suite: Runner) -> None:
    run = suite("""
        import pytest, threading

        def test_starts_at_zero(memory):
            assert memory.used == 0

        def test_counts_to_the_byte(memory):
            block = bytearray(1_000_000)
            assert memory.used == 1_000_057
            rows = [None] * 1000
            assert memory.used == 1_000_057 + 8_056
            del block
            assert memory.used == 8_056
            assert memory.peak >= 1_008_113
            assert memory.allocations > 0

        def test_reset(memory):
            kept = bytearray(1_000_000)
            memory.reset()
            assert memory.used == 0
            assert memory.peak < 100_000
            del kept
            assert memory.used == -1_000_057

        def in_thread(kept):
            thread = threading.Thread(target=lambda: kept.append(bytearray(1_000_000)))
            thread.start()
            thread.join()

        def test_this_thread(memory):
            in_thread(kept := [])
            assert memory.used < 100_000

        @pytest.mark.memory_threads("all")
        def test_all_threads(memory):
            in_thread(kept := [])
            assert 1_000_057 < memory.used < 1_100_000

        def test_all_threads_by_a_method(memory):
            memory.reset(threads="all")
            in_thread(kept := [])
            assert 1_000_057 < memory.used < 1_100_000

        def test_budget(memory):
            with memory.budget("1 MiB") as budget:
                block = bytearray(100_000)
            assert 100_000 < budget.peak < 110_000
            with pytest.raises(MemoryError), memory.budget("1 MiB"):
                bytearray(10**10)

        @pytest.mark.memory_leak("0 B", rounds=3)
        def test_each_round_begins_anew(memory):
            assert memory.used == 0
            block = bytearray(1_000_000)
            assert memory.used == 1_000_057
            memory.reset()
            assert memory.used == 0

        class TestClass:
            def test_method(self, memory):
                block = bytearray(1_000_000)
                assert memory.used == 1_000_057

        def test_outside_of_the_call(memory):
            pass

        @pytest.fixture(autouse=True)
        def early(request):
            if "memory" in request.fixturenames:
                memory = request.getfixturevalue("memory")
                assert (memory.used, memory.peak, memory.allocations) == (0, 0, 0)
                with pytest.raises(RuntimeError, match="inside the test"):
                    memory.reset()
                with pytest.raises(ValueError, match="threads='other' is not known"):
                    memory.reset(threads="other")
    """)
    assert run.counts == {"passed": 10}, run.text


def test_an_assertion_shows_the_figure(suite: Runner) -> None:
    run = suite("""
        def test_it(memory):
            block = bytearray(1_000_000)
            assert memory.used == 0
    """)
    told = run.told("test_it")
    assert re.search(r"^E +assert 1000057 == 0$", told, re.MULTILINE), told
    assert re.search(
        r"^E +\+  where 1000057 = <memory of this thread>\.used$", told, re.MULTILINE
    ), told


def test_fail_allocation(suite: Runner) -> None:
    run = suite("""
        import pytest

        def rows():
            return [str(i) * 3 for i in range(1000, 1010)]

        def test_the_nth(fail_allocation):
            rows()
            failed = 0
            with fail_allocation(3) as fault:
                try:
                    rows()
                except MemoryError:
                    failed = 1
                rows()
            assert fault.passed > 2 and fault.failed == failed == 1

        def test_from_there_on(fail_allocation):
            rows()
            with fail_allocation(2, from_there_on=True) as fault:
                try:
                    rows()
                except MemoryError:
                    pass
                try:
                    rows()
                except MemoryError:
                    pass
            assert fault.passed == 1 and fault.failed > 1

        def test_each(fail_allocation):
            checked = []
            count = fail_allocation.each(rows, check=lambda: checked.append(1))
            assert count == len(checked) > 10
            assert fail_allocation.each(rows) == count

        def test_each_from_there_on(fail_allocation):
            assert fail_allocation.each(rows, from_there_on=True) > 10

        def careless():
            try:
                return rows()
            except MemoryError:
                raise KeyError("lost") from None

        def test_each_tells_what_else_was_raised(fail_allocation):
            fail_allocation.each(careless)

        def test_each_may_raise_that(fail_allocation):
            assert fail_allocation.each(careless, raises=(MemoryError, KeyError)) > 10

        def test_each_gives_up(fail_allocation):
            fail_allocation.each(rows, most=5)

        def broken():
            raise ZeroDivisionError

        def test_each_of_a_broken_one(fail_allocation):
            with pytest.raises(ZeroDivisionError):
                fail_allocation.each(broken)

        @pytest.mark.parametrize(("n", "error", "text"), [
            (0, ValueError, "n=0 is too small: the first request is 1"),
            (True, TypeError, "n=True is no whole number"),
            ("1", TypeError, "n='1' is no whole number"),
        ])
        def test_wrong(fail_allocation, n, error, text):
            with pytest.raises(error, match=text):
                fail_allocation(n)
    """)
    assert run.counts == {"failed": 2, "passed": 9}, run.text
    assert re.search(
        r"AssertionError: request 1 failed, and careless raised KeyError: 'lost'",
        run.told("test_each_tells_what_else_was_raised"),
    ), run.text
    assert "AssertionError: rows makes more than 5 requests" in run.told("test_each_gives_up")
