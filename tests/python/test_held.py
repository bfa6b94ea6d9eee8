"""Mode `held`: what the system gives is counted, and a cap on it ends as cleanly as ever."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping

import pytest
import zmalloc

from .processes import MODES, Outcome, python
from .processes import snippet as run_snippet

HELD = {"ZMALLOC_MODE": "held"}

#: What the snippets have in common.
PRELUDE = """
import gc, os, sys, threading, zmalloc

MIB = 2 ** 20

def run_away():
    rows = []
    while True:
        rows.append([0] * 10)

def is_stopped(room=3 * MIB):
    with zmalloc.limit(zmalloc.used() + room) as limit:
        zmalloc.reset_peak()
        try:
            run_away()
        except zmalloc.LimitError:
            return zmalloc.peak() <= limit.hard_limit
    return False

def is_right():
    seen, figures = zmalloc.audit(), zmalloc.stats()
    return seen.used == seen.counted and figures.used == figures.held

"""


def snippet(code: str, env: Mapping[str, str] = HELD) -> Outcome:
    return run_snippet(PRELUDE + textwrap.dedent(code), env=env)


def test_arenas_are_counted_and_not_what_is_in_them() -> None:
    snippet("""
        assert zmalloc.mode() == zmalloc.stats().mode == "held"
        assert zmalloc.stats().mode_note is None
        before = zmalloc.used()
        objects = [object() for _ in range(300_000)]
        arenas = zmalloc.stats().obj.used
        assert arenas >= 4 * MIB and arenas % MIB == 0
        assert zmalloc.used() >= before + 6 * MIB
        assert is_right()
        del objects
        assert zmalloc.used() < before + 2 * MIB
        assert is_right()
        """)


@pytest.mark.parametrize("depth", [0, 300])
def test_below_a_limit_small_blocks_live_in_arenas(depth: int) -> None:
    """On 3.10, and in a recursion on any version, each of them went to the system by itself."""
    snippet(f"""
        def descend(n):
            return descend(n - 1) if n else [object() for _ in range(300_000)]

        with zmalloc.limit(zmalloc.used() + 64 * MIB):
            before = zmalloc.stats()
            objects = descend({depth})
            after = zmalloc.stats()
        assert after.obj.used - before.obj.used >= 4 * MIB
        assert after.raw.allocations - before.raw.allocations < 3_000
        assert is_right()
        """)


def test_a_large_block_counts_to_the_byte() -> None:
    snippet("""
        before = zmalloc.used()
        block = bytearray(5_000_000)
        assert zmalloc.used() - before == 5_000_001, zmalloc.used() - before
        del block
        assert zmalloc.used() == before
        """)


def test_a_runaway_is_stopped_again_and_again() -> None:
    snippet("""
        for room in (100_000, 1 * MIB, 3 * MIB, 20 * MIB):
            for _ in range(3):
                assert is_stopped(room)
                assert is_right()
        assert zmalloc.stats().limit_errors == 12
        """)


def test_each_thread_gets_its_own_error() -> None:
    snippet("""
        seen = []
        def work():
            seen.append(is_stopped())
        for _ in range(4):
            worker = threading.Thread(target=work)
            worker.start()
            worker.join()
        assert seen == [True] * 4
        assert is_right()
        """)


def test_the_handler_beside_the_loop_gets_it() -> None:
    snippet("""
        def runs():
            rows = []
            try:
                while True:
                    rows.append([0] * 10)
            except MemoryError:
                rows = None
                return "handled"
        with zmalloc.limit(zmalloc.used() + 5 * MIB):
            assert runs() == "handled"
        assert is_right()
        """)


@pytest.mark.parametrize("percent", [50, 80, 90])
def test_garbage_is_no_reason_for_an_error(percent: int) -> None:
    """Also after gc.disable(), and though use does not fall where there is room in pools again."""
    outcome = snippet(f"""
        gc.disable()
        room = 24 * MIB
        start = zmalloc.used()
        live = []
        while zmalloc.used() < start + room * {percent} // 100:
            live.append([0] * 10)
        class Node: pass
        with zmalloc.limit(start + room):
            for _ in range(300_000):
                one, other = Node(), Node()
                one.other, other.other = other, one
        print(zmalloc.stats().collections)
        """)
    assert outcome.value > 0


def test_a_block_kept_in_each_pool_does_not_pass_the_cap() -> None:
    """In mode `exact` use would stay small and resident memory grow without end."""
    snippet("""
        start = zmalloc.rss()
        kept = []
        try:
            with zmalloc.limit(zmalloc.used() + 32 * MIB):
                while True:
                    row = [bytes(400) for _ in range(39 * 64)]
                    kept.extend(row[::39])
                    del row
        except zmalloc.LimitError:
            pass
        assert zmalloc.rss() - start < 1.2 * 32 * MIB
        """)


def test_a_budget_of_the_process_works() -> None:
    snippet("""
        with zmalloc.budget(8 * MIB) as budget:
            kept = bytearray(5 * MIB)
        assert 5 * MIB <= budget.peak <= 8 * MIB and not budget.hit
        try:
            with zmalloc.budget(2 * MIB) as budget:
                run_away()
        except zmalloc.LimitError:
            pass
        assert budget.hit
        """)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("zmalloc.track()", "track()"),
        ("zmalloc.track(thread=True)", "track()"),
        ("zmalloc.budget('1 MiB', thread=True)", "budget(thread=True)"),
        ("zmalloc.fail_after(0)", "fail_after()"),
    ],
)
def test_what_only_exact_counting_can_tell_says_so(call: str, name: str) -> None:
    snippet(f"""
        try:
            {call}
        except RuntimeError as error:
            text = str(error)
            assert text.startswith({name!r}), text
            assert "'held'" in text and "install(mode='exact')" in text, text
        else:
            raise AssertionError("no error")
        """)


def test_from_held_to_exact_and_not_back() -> None:
    snippet("""
        kept = [[n] for n in range(50_000)]
        assert zmalloc.install(mode="exact") is True
        assert zmalloc.mode() == "exact"
        assert zmalloc.used() < 1000  # what lives is not counted
        del kept
        block = b"x" * 1000
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        with zmalloc.track() as track:
            more = bytearray(100_000)
        assert 100_001 <= track.net <= 100_200, track.net
        try:
            zmalloc.install(mode="held")
        except RuntimeError as error:
            assert "ZMALLOC_MODE=held" in str(error)
        else:
            raise AssertionError("no error")
        assert is_stopped()
        """)


def test_a_seal_keeps_the_mode() -> None:
    """Exact counting would let a block in each pool hold any amount."""
    snippet("""
        zmalloc.limit(zmalloc.used() + 4 * MIB, seal=True)
        try:
            zmalloc.install(mode="exact")
        except PermissionError as error:
            assert "sealed" in str(error)
        else:
            raise AssertionError
        assert zmalloc.mode() == "held" and zmalloc.install() is False
        """)


def test_held_can_be_installed_later() -> None:
    snippet(
        """
        assert not zmalloc.is_installed()
        assert zmalloc.install(mode="held") is True
        assert zmalloc.install(mode="held") is False
        assert zmalloc.install() is False
        assert zmalloc.mode() == "held" and zmalloc.is_installed()
        assert is_stopped()
        """,
        {"ZMALLOC_NO_INSTALL": "1"},
    )


@pytest.mark.parametrize(("value", "error"), [("'hold'", "ValueError"), ("1", "TypeError")])
def test_another_mode_is_an_error(value: str, error: str) -> None:
    snippet(f"""
        try:
            zmalloc.install(mode={value})
        except {error} as error:
            assert "expected 'exact' or 'held'" in str(error), error
        else:
            raise AssertionError("no error")
        assert zmalloc.mode() == "held"
        """)


def test_a_wrong_variable_is_an_error_that_names_it() -> None:
    outcome = python("-c", "import zmalloc", env={"ZMALLOC_MODE": "fast"})
    assert outcome.status == 1
    assert "ZMALLOC_MODE='fast' is no mode: expected 'exact' or 'held'" in outcome.err


@pytest.mark.parametrize("allocator", MODES)
def test_where_there_are_no_arenas_each_block_is_counted(allocator: str) -> None:
    has_arenas = allocator not in ("malloc", "malloc_debug")
    outcome = snippet(
        """
        assert is_stopped()
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        print((zmalloc.mode(), zmalloc.stats().mode_note))
        """,
        {**HELD, "PYTHONMALLOC": allocator},
    )
    mode, note = outcome.value
    assert mode == ("held" if has_arenas else "exact")
    assert (note is None) == has_arenas
    assert ("RuntimeWarning: mode 'held' is not possible" in outcome.err) == (not has_arenas)


def test_tracemalloc_may_come_and_go_at_any_time() -> None:
    snippet("""
        import tracemalloc
        tracemalloc.start()
        assert is_stopped() and is_right()
        tracemalloc.stop()
        assert is_stopped() and is_right() and zmalloc.is_installed()
        limit = zmalloc.limit(zmalloc.used() + 3 * MIB)
        rows = []
        try:
            while True:
                rows.append([0] * 10)
        except zmalloc.LimitError:
            assert zmalloc.used() > limit.limit  # the passing hooks are in now
            tracemalloc.start()
        rows = None
        zmalloc.limit(None)
        assert is_stopped() and is_right()
        tracemalloc.stop()
        assert is_stopped() and is_right() and zmalloc.is_installed()
        """)


def test_a_forked_child_has_its_own() -> None:
    snippet("""
        kept = [[n] for n in range(50_000)]
        child = os.fork()
        if child == 0:
            os._exit(0 if is_right() and is_stopped() and is_right() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert is_right()
        """)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sub-interpreters share one GIL")
def test_arenas_of_an_interpreter_with_its_own_gil_count() -> None:
    snippet("""
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        before = zmalloc.used()
        one = interpreters.create()
        interpreters.run_string(one, "kept = [[] for _ in range(100_000)]")
        assert zmalloc.used() - before > 5 * MIB
        assert is_stopped() and is_right()
        full = zmalloc.used()
        interpreters.destroy(one)
        assert zmalloc.used() < full - 3 * MIB, (zmalloc.used(), full)
        assert is_right()
        """)


def test_the_command_line_has_the_mode() -> None:
    code = "import zmalloc; print((zmalloc.mode(), zmalloc.stats().hard_limit))"
    words = ["-m", "zmalloc", "run", "--limit", "40 MiB", "-c", code]
    assert python(*words).value == ("exact", 41 * 2**20)
    words[3:3] = ["--mode", "held"]
    assert python(*words).value == ("held", 41 * 2**20)


def test_a_runaway_program_ends_at_its_cap() -> None:
    code = "rows = []\nwhile True: rows.append([0] * 10)"
    words = ["-m", "zmalloc", "run", "--mode=held", "--limit", "40 MiB", "-c", code]
    outcome = python(*words)
    assert outcome.status == 53
    assert "LimitError: sealed limit of 40.0 MiB" in outcome.err


def test_a_wrong_mode_of_the_command_line_is_told() -> None:
    outcome = python("-m", "zmalloc", "run", "--mode", "fast", "x.py")
    assert outcome.status == 2
    assert "--mode='fast' is no mode: expected 'exact' or 'held'" in outcome.err


def test_a_limit_on_held_is_one_on_use() -> None:
    snippet("""
        with zmalloc.limit(held=zmalloc.used() + 3 * MIB):
            try:
                run_away()
            except MemoryError:
                pass
        assert zmalloc.stats().limit_hit and is_right()
        """)


def test_this_process_counts_each_block() -> None:
    assert zmalloc.mode() == zmalloc.stats().mode == "exact"
    assert zmalloc.install(mode="exact") is False
