"""fail_after(): the n-th request of this thread fails, all else is as ever."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmalloc

from .processes import snippet

#: More requests than any function here makes.
MANY = 10_000

#: PIECE * 1000 is one request, for its object, in each version.
PIECE = b"x"


def outcomes(function: Callable[[], object], repeat: int = 1) -> list[BaseException | None]:
    """What comes of it for n = 0, 1, 2, ... until nothing fails."""
    found: list[BaseException | None] = []
    for n in range(MANY):
        error: BaseException | None = None
        with zmalloc.fail_after(n, repeat) as fault:
            try:
                function()
            except BaseException as caught:
                error = caught.with_traceback(None)
        if fault.failed == 0:
            assert error is None
            return found
        assert fault.passed >= n
        assert repeat < 0 or fault.failed <= repeat
        found.append(error)
    raise AssertionError("there is no end of it")


def make_list() -> object:
    return [str(i) * 3 for i in range(1000, 1050)]


def load_json() -> object:
    return json.loads('{"a": [1.5, 2.5, "text", {"b": null}], "long": "%s"}' % ("z" * 100))


def make_classes() -> object:
    class Parent:
        def method(self) -> list[int]:
            return [1]

    class Child(Parent):
        __slots__ = ("p", "q")

    return Child().method()


def compile_and_run() -> object:
    exec("def f(x):\n  try:\n    return [i for i in x]\n  finally:\n    pass\nf((1, 2))\n", {})
    return eval("1 + 1")


def walk_a_dict() -> object:
    table = {str(i): [i] for i in range(20)}
    table.setdefault("more", []).append(1)
    return list(table.items()), sorted(table, key=lambda name: (name[::-1],))


def raise_and_handle() -> object:
    try:
        return {}[object()]
    except KeyError:
        with contextlib.suppress(ValueError):
            raise ValueError("x") from None


def use_generators() -> object:
    def numbers() -> Iterator[list[int]]:
        for i in range(3):
            try:
                yield [i] * 1000
            finally:
                str(i + 1000)

    return list(numbers())


def import_again() -> object:
    """A module that nobody else has a part of: what failed must not leave it half there."""
    sys.modules.pop("colorsys", None)
    import colorsys

    return colorsys.rgb_to_hsv(1, 0, 0)


def start_a_thread() -> object:
    thread = threading.Thread(target=list)
    thread.start()
    return thread.join(60)


FUNCTIONS = [make_list, load_json, make_classes, compile_and_run, walk_a_dict, raise_and_handle,
             use_generators, import_again, start_a_thread]  # fmt: skip


def assert_counted() -> None:
    """A thread that was joined may still be freeing its state."""
    end = time.monotonic() + 60
    while (seen := zmalloc.audit()).used != seen.counted:
        assert time.monotonic() < end, seen


# ---- counting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "repeat", "fails"),
    [
        (0, 1, "x...."),
        (2, 1, "..x.."),
        (1, 3, ".xxx."),
        (3, -1, "...xx"),
        (0, -1, "xxxxx"),
        (9, 1, "....."),
    ],
)
def test_requests_fail_after_as_many_as_were_asked_for(n: int, repeat: int, fails: str) -> None:
    """A repeated text is one request; nothing else here is any."""
    seen = ["?"] * len(fails)
    steps = iter(range(len(fails)))
    with zmalloc.fail_after(n, repeat) as fault:
        for i in steps:
            try:
                _ = PIECE * 1000
            except MemoryError:
                seen[i] = "x"
            else:
                seen[i] = "."
    assert "".join(seen) == fails
    assert (fault.passed, fault.failed) == (fails.count("."), fails.count("x"))
    assert (fault.n, fault.repeat) == (n, repeat)


def test_a_loop_that_comes_to_the_same_instruction_again_fails_again() -> None:
    """A pair is as large as a traceback's entry, which is not refused where one is due."""
    failed, steps, fault = 0, iter(range(50)), zmalloc.fail_after(0, -1)
    kept = [(i, i) for i in range(5000)]  # no pair is left to be had without a request
    with fault:
        for _ in steps:
            try:
                _pair = (failed, failed)
            except MemoryError:
                failed += 1
    refused = zmalloc.stats().last_refused
    assert failed == fault.failed == 50
    assert refused is not None
    assert refused.bytes == 56 < len(kept)


def test_a_resize_counts_when_it_grows() -> None:
    block = bytearray(1000)
    with zmalloc.fail_after(0, -1) as fault:
        del block[100:]
        try:
            block.extend(b"")
            block *= 50
        except MemoryError:
            pass
    assert (len(block), fault.passed, fault.failed) == (100, 0, 1)


def test_raw_blocks_count_too() -> None:
    """What zlib asks for its state, beside its object."""
    import zlib

    before = zmalloc.stats()
    with contextlib.suppress(MemoryError, zlib.error), zmalloc.fail_after(0) as fault:
        zlib.compressobj()
    after = zmalloc.stats()
    assert fault.failed == 1
    assert after.refusals - before.refusals == 1


def test_the_same_code_makes_the_same_requests() -> None:
    for _ in range(50):
        load_json()  # 3.11 and later rewrite what runs often
    counts = []
    for _ in range(20):
        with zmalloc.fail_after(MANY) as fault:
            load_json()
        counts.append(fault.passed)
    assert len(set(counts)) == 1
    assert counts[0] > 5


def test_entering_leaving_and_looking_are_no_requests() -> None:
    with zmalloc.fail_after(0, -1) as fault:
        pass
    assert (fault.passed, fault.failed) == (0, 0)
    with zmalloc.fail_after(MANY) as many:
        make_list(), make_list(), make_list(), make_list()
        first = many.passed
        again = many.passed
    assert first == again > 256
    assert many.passed == again


# ---- what comes of it --------------------------------------------------------------------------


@pytest.mark.parametrize("repeat", [1, 3, -1])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_request_that_fails_is_a_memory_error_or_does_no_harm(
    function: Callable[[], object], repeat: int
) -> None:
    """Would catch a refusal that CPython makes a SystemError of, or a crash, or a hang."""
    function()
    expected = function()
    errors = outcomes(function, repeat)
    assert {type(error) for error in errors} <= {MemoryError, type(None)}, errors
    assert any(errors)
    assert repr(function()) == repr(expected)
    assert_counted()


def test_it_is_no_limit_that_was_hit() -> None:
    out = snippet("""
        import gc, zmalloc
        collected = []
        gc.callbacks.append(lambda phase, info: collected.append(phase))
        piece = b"x"
        zmalloc.on_pressure(lambda info: collected.append(info))
        gc.disable()
        before = zmalloc.stats()
        try:
            with zmalloc.limit("64 MiB"), zmalloc.budget("32 MiB") as budget:
                with zmalloc.fail_after(0) as fault:
                    piece * 5000
        except MemoryError as error:
            kind = type(error)
        after = zmalloc.stats()
        print((kind is MemoryError, fault.failed, budget.hit, after.limit_hit, after.limit_errors,
               after.collections, collected, after.refusals - before.refusals,
               after.last_refused.bytes > 5000, after.last_refused.line))
    """).value
    assert out == (True, 1, False, False, 0, 0, [], 1, True, 12)


def test_a_limit_is_obeyed_inside_and_outside() -> None:
    out = snippet("""
        import zmalloc
        def run():
            rows = []
            while True:
                rows.append(bytes(1000))
        kinds = []
        with zmalloc.fail_after(10**9) as fault:
            try:
                with zmalloc.limit("8 MiB"):
                    run()
            except MemoryError as error:
                kinds.append(type(error).__name__)
        with zmalloc.limit("8 MiB"):
            for n in (50, 10**9):
                try:
                    with zmalloc.fail_after(n, 1) as fault:
                        run()
                except MemoryError as error:
                    kinds.append(type(error).__name__)
            kinds.append(zmalloc.stats().limit_errors)
        print(kinds)
    """).value
    assert out == ["LimitError", "MemoryError", "LimitError", 2]


def test_an_exempt_thread_is_refused_nothing() -> None:
    exempt = zmalloc.exempt()
    with zmalloc.fail_after(0, -1) as fault, exempt:
        made = make_list()
    assert len(made) == 50  # type: ignore[arg-type]
    assert fault.failed == 0


# ---- threads and nesting -----------------------------------------------------------------------


def test_other_threads_are_not_disturbed() -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[object] = []

    def other() -> None:
        inside.wait(60)
        try:
            seen.extend(len(make_list()) for _ in range(20))  # type: ignore[arg-type]
        except MemoryError:
            seen.append("failed")
        done.set()

    worker = threading.Thread(target=other)
    worker.start()
    with zmalloc.fail_after(MANY, -1) as fault:
        inside.set()
        ended = done.wait(60)
    worker.join(60)
    assert ended
    assert seen == [50] * 20
    assert fault.passed < 200, "what the other thread took is not counted"


def test_it_works_in_a_worker_and_stays_there() -> None:
    found: list[object] = []

    def work() -> None:
        errors = outcomes(make_list)
        found.append({type(error) for error in errors})
        found.append(len(errors))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(60)
    assert found[0] == {MemoryError}
    assert found[1] == len(outcomes(make_list))


def test_the_inner_one_comes_first_and_hides_what_it_refuses() -> None:
    outer, inner = zmalloc.fail_after(3), zmalloc.fail_after(1)

    def ask() -> None:
        with outer:
            with inner:
                _ = PIECE * 1000
                try:
                    _ = PIECE * 1000
                except MemoryError:
                    _ = PIECE * 1000
            _ = PIECE * 1000
            _ = PIECE * 1000

    with pytest.raises(MemoryError):
        ask()
    assert (inner.passed, inner.failed) == (2, 1)
    assert (outer.passed, outer.failed) == (3, 1), "the outer one has not seen what was refused"


def test_one_that_another_thread_ends_is_over() -> None:
    def block() -> Iterator[zmalloc.FailAfter]:
        with zmalloc.fail_after(MANY, -1) as fault:
            yield fault

    running = block()
    fault = next(running)
    make_list()
    worker = threading.Thread(target=running.close)
    worker.start()
    worker.join(60)
    passed = fault.passed
    make_list()
    assert fault.passed == passed > 50
    with pytest.raises(MemoryError), zmalloc.fail_after(0):
        PIECE * 1000


def test_a_thread_may_end_inside() -> None:
    kept: list[zmalloc.FailAfter] = []

    def work() -> None:
        fault = zmalloc.fail_after(MANY)
        fault.__enter__()
        kept.append(fault)
        make_list()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(60)
    kept[0].__exit__(None, None, None)
    assert kept[0].passed >= 50
    kept.clear()


def test_one_that_is_dropped_ends() -> None:
    def block() -> Iterator[None]:
        with zmalloc.fail_after(MANY, -1):
            yield

    running = block()
    next(running)
    del running
    assert len(outcomes(make_list)) >= 50


# ---- calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((-1,), ValueError, "n=-1 is out of range: expected an int from 0 to"),
        ((2**63,), ValueError, "n=9223372036854775808 is out of range"),
        (("3",), TypeError, "n='3' has the wrong type: expected an int from 0 to"),
        ((1.5,), TypeError, "n=1.5 has the wrong type"),
        ((True,), TypeError, "n=True has the wrong type"),
        ((1, 0), ValueError, "repeat=0 is out of range: expected an int from 1 to .*, or -1"),
        ((1, -2), ValueError, "repeat=-2 is out of range"),
        ((1, None), TypeError, "repeat=None has the wrong type"),
        ((), TypeError, "n"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(
    arguments: tuple[object, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        zmalloc.fail_after(*arguments)  # type: ignore[arg-type]


def test_it_is_entered_once() -> None:
    fault = zmalloc.fail_after(MANY)
    assert (fault.passed, fault.failed) == (0, 0)
    with pytest.raises(RuntimeError, match="entered already"), fault:
        fault.__enter__()
    with pytest.raises(RuntimeError, match="entered already"), fault:
        pass


def test_its_repr_tells_what_it_has_done() -> None:
    fault = zmalloc.fail_after(0, repeat=2)
    assert repr(fault) == "<zmalloc.fail_after 0, repeat 2, not entered, 0 passed, 0 failed>"
    with contextlib.suppress(MemoryError), fault:
        PIECE * 1000
    assert repr(fault) == "<zmalloc.fail_after 0, repeat 2, ended, 0 passed, 1 failed>"


def test_async_with_says_what_to_write() -> None:
    with pytest.raises(TypeError, match="plain with statement"):
        zmalloc.fail_after(1).__aenter__  # type: ignore[attr-defined]  # noqa: B018


def test_without_the_hooks_it_says_so() -> None:
    out = snippet(
        """
        import zmalloc
        try:
            zmalloc.fail_after(0)
        except RuntimeError as error:
            print(repr(str(error)))
        """,
        env={"ZMALLOC_NO_INSTALL": "1"},
    ).value
    assert "not installed" in out


@pytest.mark.parametrize("repeat", [1, -1])
def test_tracemalloc_gets_its_trace_of_a_block_that_has_grown(repeat: int) -> None:
    """It has no way back by then, and ends the process."""
    snippet(f"""
        import tracemalloc, zmalloc
        tracemalloc.start()
        kept, failed = [], 0
        for n in range(60):
            try:
                with zmalloc.fail_after(n, {repeat}):
                    for i in range(2000):
                        kept.append(i)
            except MemoryError:
                failed += 1
        assert failed > 10, failed
        """)


OWNED = """
        import sys, tracemalloc, zmalloc

        def inner(kept):
            kept[0] = sys._getframe()
            return [bytes(700) for _ in range(5)]

        def outer(kept):
            return inner(kept)

        tracemalloc.start()
        outer([None])
"""


@pytest.mark.parametrize("repeat", [1, 2, 3, -1])
def test_tracemalloc_gets_its_trace_of_a_frame_that_an_exception_passes(repeat: int) -> None:
    """Else that one is lost: CPython clears what a caller without a frame object has raised."""
    snippet(f"""{OWNED}
        failed = 0
        for n in range(40):
            try:
                with zmalloc.fail_after(n, {repeat}):
                    outer([None])
            except MemoryError:
                failed += 1
        assert failed > 10, failed
        """)


@pytest.mark.parametrize("reserve", [8, 1000])
def test_so_it_does_with_nothing_left(reserve: int) -> None:
    snippet(f"""{OWNED}
        failed = 0
        for room in range(0, 6_000, 16):
            try:
                with zmalloc.limit(zmalloc.used() + room, reserve={reserve}):
                    outer([None])
            except MemoryError:
                failed += 1
        assert failed > 10, failed
        """)


@pytest.mark.parametrize("reserve", [0, 100_000])
def test_and_of_a_block_that_has_grown_at_the_hard_limit(reserve: int) -> None:
    snippet(f"""
        import tracemalloc, zmalloc
        rows = 4000
        grow = compile("\\n".join(f"lists[{{i}}].append(0)" for i in range(rows)), "grow", "exec")
        stopped = 0
        for room in range(0, 2_000, 100):
            lists = [[0, 0, 0, 0] for _ in range(rows)]   # each is full
            tracemalloc.start()                           # each line is a trace of its own
            try:
                with zmalloc.limit(zmalloc.used() + room, reserve={reserve}):
                    exec(grow)
            except MemoryError:
                stopped += 1
            tracemalloc.stop()
        assert stopped > 10, stopped
        """)
