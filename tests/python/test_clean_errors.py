"""The quick slice of the acceptance harness clean_errors, and that the harness itself bites.

Each Python runs a quarter of the loads under one cap, so that the four of them run each once;
all loads, under many caps, are what `make clean-errors` runs on each.
"""

from __future__ import annotations

import platform
import re
import sys

import pytest

from .clean_errors import checks, loads, matrix, runner
from .clean_errors.known import KNOWN, known

VERSION = platform.python_version()
NAMES = loads.names()
SLICE = [name for n, name in enumerate(NAMES) if n % 4 == sys.version_info.minor % 4]
TIMEOUT = 30.0


def test_there_are_loads_of_each_kind() -> None:
    groups = {name.partition(".")[0] for name in NAMES}
    assert groups == set(loads.GROUPS)
    assert len(NAMES) >= 200


@pytest.mark.parametrize("name", SLICE)
def test_a_load_ends_in_a_clean_error(name: str) -> None:
    """Where it ends is a matter of addresses and of threads' turns, too.

    How many of a thousand runs are not clean is what `make clean-errors` tells; here a load has to
    fail three times to be a regression.
    """
    for _ in range(3):
        outcome = runner.run(runner.Job(name, seed=1), VERSION, TIMEOUT)
        if outcome.clean or runner.is_known(outcome):
            break
        print(*outcome.reasons, outcome.again, outcome.stderr, sep="\n")
    if runner.is_known(outcome):
        pytest.xfail("CPython itself makes that unavoidable: see known.py")
    assert outcome.clean, "\n".join([*outcome.reasons, outcome.again, outcome.stderr])


@pytest.mark.parametrize("name", SLICE[::8])
def test_a_load_ends_in_a_clean_error_in_mode_held(name: str) -> None:
    outcome = runner.run(runner.Job(name, seed=1, kind="large", mode="held"), VERSION, TIMEOUT)
    assert outcome.clean or runner.is_known(outcome), "\n".join(
        [*outcome.reasons, outcome.again, outcome.stderr]
    )


def test_an_entry_of_known_explains_nothing_but_what_it_names() -> None:
    for entry in KNOWN:
        load = entry.load.replace("\\.", ".").replace(".*", "s")
        version = entry.versions[0]
        assert not entry.explains(load, [], version)
        assert not entry.explains(load, ["hang"], version)
        assert not entry.explains("no.such_load", [entry.reason], version)


#: What was seen of the flaws whose reason has more than one form.
SEEN = [
    ("asyncio.unawaited", "stderr: Exception ignored in: <coroutine object nothing at 0x...>"),
    (
        "asyncio.unawaited",
        "stderr: Exception ignored in sys.unraisablehook: <built-in function unraisablehook>",
    ),
    (
        "asyncio.tasks_that_hold",
        "stderr: Exception ignored in: <bound method BaseEventLoop.call_exception_handler of"
        " <_UnixSelectorEventLoop running=True closed=False debug=False>> MemoryError",
    ),
]


@pytest.mark.parametrize(("load", "reason"), SEEN)
def test_each_form_of_a_flaw_is_explained(load: str, reason: str) -> None:
    explained = known(load, [reason], "3.11.7")
    assert explained is not None
    assert known(load, [reason, "SystemError instead of a MemoryError"], "3.11.7") is None


#: Deterministic, and wrong once. Up to 3.11 a worker's error is placed while the loop goes on; the
#: request that ends that frees all. A handler that takes blocks as large as a traceback used up
#: what is there for unwinding.
ONCE_WRONG = [("c_loops.frozenset", 50000), ("swallows.many_impossible_requests", 70000)]


@pytest.mark.parametrize(("load", "seed"), ONCE_WRONG)
def test_a_worker_that_was_wrong_once_is_clean(load: str, seed: int) -> None:
    outcome = runner.run(runner.Job(load, seed, "worker"), VERSION, TIMEOUT)
    assert outcome.clean, "\n".join([*outcome.reasons, outcome.again, outcome.stderr])


#: What the judge has to say of each load that is wrong on purpose.
WRONG = {
    "broken.ends_without_an_error": "it ended without an error",
    "broken.raises_a_system_error": "SystemError instead of a MemoryError",
    "broken.recurses_where_it_should_not": "RecursionError instead of a MemoryError",
    "broken.passes_over_its_handler": "MemoryError passed over the handler",
    "broken.passes_over_its_finally": "MemoryError passed over the finally block",
    "broken.gets_it_in_another_thread": "Exception in thread .* MemoryError",
    "broken.prints_an_ignored_error": "Exception ignored in: .* KeyError",
    "broken.ends_the_process": "the process ended before its report",
    "broken.crashes": "SIGABRT",
    "broken.goes_over_the_hard_limit": r"\d+ bytes over the hard limit",
    "broken.leaves_a_limit": "health: a limit is in force",
    "broken.breaks_the_json_module": "health: round_trip: AssertionError",
    "broken.breaks_imports": "health: imports: MemoryError",
    "broken.ends_with_another_status": "exit status 3",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_clean_is_found(name: str) -> None:
    outcome = runner.run(runner.Job(name, seed=1), VERSION, TIMEOUT)
    assert any(re.search(WRONG[name], reason) for reason in outcome.reasons), outcome


def test_a_load_that_never_ends_is_a_hang_with_the_traces_of_its_threads() -> None:
    outcome = runner.run(runner.Job("broken.hangs", seed=1), VERSION, timeout=2.0)
    assert outcome.reasons == ["hang"]
    assert "in hangs" in outcome.stderr


def test_nothing_is_said_of_a_clean_load() -> None:
    outcome = runner.run(runner.Job("broken.well", seed=1), VERSION, TIMEOUT)
    assert outcome.clean, outcome


def test_a_job_says_how_to_run_it_again() -> None:
    job = runner.Job("growing.list", seed=7, kind="large", off="debt")
    assert job.again.endswith("load growing.list --seed 7 --large --off debt")
    held = runner.Job("growing.list", seed=7, mode="held")
    assert held.again.endswith("load growing.list --seed 7 --mode held")
    assert runner.HELD_ROOM[0] <= held.room <= runner.HELD_ROOM[1]
    assert runner.ROOMS["large"][0] <= job.room <= runner.ROOMS["large"][1]
    assert job.room == runner.Job("growing.list", seed=7, kind="large").room


@pytest.mark.parametrize("wrapper", matrix.shapes.WRAPPERS)
def test_the_handler_beside_a_loop_gets_the_error(wrapper: str) -> None:
    only = " (except|finally|with|nested|none_after_a_try) (while|for|list|dict|try|generator)"
    part = matrix.Part(sys.executable, wrapper, only=f"{only}[a-z_]*$")
    result = matrix.run(part, VERSION)
    assert result.right, "\n".join(result.problems)
    assert result.seen["cells"] > 100


def test_a_traced_generator_goes_on_after_an_error_that_was_taken_back() -> None:
    """3.11 went round in circles at its next poll."""
    pytest.importorskip("coverage")
    only = "coroutine finally generator_expression$"
    part = matrix.Part(sys.executable, "coroutine", tracer="ctrace", only=only)
    result = matrix.run(part, VERSION)
    assert result.right, "\n".join(result.problems)
    assert result.seen["cells"] == 2


def test_the_handler_beside_a_loop_gets_the_error_in_mode_held() -> None:
    part = matrix.Part(sys.executable, "function", only=" except [a-z_]*$", mode="held")
    result = matrix.run(part, VERSION)
    assert result.right, "\n".join(result.problems)
    assert result.seen["cells"] > 20


QUICK = [name for name in checks.CHECKS if name not in checks.THOROUGH]


@pytest.mark.parametrize("name", QUICK)
def test_a_figure_is_good_enough(name: str) -> None:
    subject = checks.Subject(sys.executable, VERSION, quick=True)
    figures = list(checks.run(subject, name))
    assert figures
    assert all(figure.good for figure in figures), "\n".join(checks.report(figures))
