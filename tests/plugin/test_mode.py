"""Mode `held`: a limit works; what needs each block counted is an error that names the mode."""

from __future__ import annotations

import pytest

from .conftest import Runner

WHY = (
    "this needs mode 'exact', which counts each block; the process is in mode 'held' "
    "(ZMALLOC_MODE), where a limit and the report are possible"
)


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMALLOC_MODE", "held")


def test_a_limit_and_the_report_work(suite: Runner) -> None:
    done = suite(
        """
        import pytest, zmalloc

        def test_mode():
            assert zmalloc.mode() == "held"

        def test_runs_away():
            rows = []
            while True:
                rows.append([0] * 10)

        @pytest.mark.memory_limit("40 MiB")
        def test_may_have_more():
            assert len(bytearray(30 * 2**20))
        """,
        "--memory-limit=16 MiB",
        "--memory-report",
    )
    assert done.counts == {"passed": 2, "failed": 1}
    assert "memory_limit of 16.0 MiB: the test was stopped at test_it.py:" in done.text
    assert "test_may_have_more" in done.text


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("@pytest.mark.memory_peak('1 MiB')", "memory_peak"),
        ("@pytest.mark.memory_leak", "memory_leak"),
        ("@pytest.mark.memory_threads('all')", "memory_threads"),
        ("@pytest.mark.memory_peak('1 MiB')\n@pytest.mark.memory_limit('2 MiB')", "memory_peak"),
    ],
)
def test_a_marker_that_needs_each_block_names_the_mode(suite: Runner, mark: str, name: str) -> None:
    done = suite(f"import pytest\n\n{mark}\ndef test_it():\n    pass", "--memory-limit=16 MiB")
    assert done.status != 0
    assert f"test_it.py::test_it: {name}: {WHY}" in done.text + done.err


def test_so_does_the_fixture_memory(suite: Runner) -> None:
    done = suite("def test_it(memory):\n    pass")
    assert done.status != 0
    assert f"test_it.py::test_it: the fixture memory: {WHY}" in done.text + done.err


@pytest.mark.parametrize("option", ["--memory-json", "--memory-baseline"])
def test_so_does_an_option(suite: Runner, option: str) -> None:
    done = suite("def test_it():\n    pass", f"{option}=x.json")
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert f"{option}: {WHY}" in done.text + done.err
