"""The page of figures says what the targets have counted, and nothing else."""

from __future__ import annotations

from typing import Any

from checkers import reliability

SOAK: dict[str, Any] = {
    "date": "2026-01-02", "python": "3.13.0", "seconds": 3600, "operations": 1234567,
    "parts": {"threads": {"operations": 7}}, "differences": ["threads: hangs"],
}  # fmt: skip
MUTANTS: dict[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00", "seconds": 90, "versions": {"gcc": "gcc 12.2.0"},
    "totals": {"mutants": 2, "findings": 1}, "parts": {"a|b": {"mutants": 1}, "c": {"mutants": 1}},
    "notes": {"a|b": "tests/core/test_x.py::test_y", "c": ""},
}  # fmt: skip
CPYTHON: dict[str, Any] = {
    "date": "2026-01-02", "version": "3.13.0", "test cases": 36000, "minutes": 20.5,
    reliability.UNEXPLAINED: [],
    reliability.EXPLAINED: [{"test": "test.test_sys.A.b", "reason": "as it should be"}],
}  # fmt: skip


def test_a_target_is_a_line_with_its_differences() -> None:
    text = reliability.page({"soak": SOAK, "cpython-tests-3.13.0": CPYTHON})
    lines = text.splitlines()
    [soak] = [line for line in lines if "`make soak`" in line]
    assert "| 2026-01-02 | python 3.13.0 | 60.0 min | 1,234,567 operations | 1 |" in soak
    [cpython] = [line for line in lines if "`make cpython-tests`" in line]
    assert "36,000 test cases" in cpython
    assert cpython.endswith("| 0, and 1 with a reason |")
    assert "- as it should be: `test_sys.A.b`" in lines


def test_a_mutant_that_nothing_catches_is_seen() -> None:
    text = reliability.page({"mutants": MUTANTS})
    assert "| a\\|b | 1 mutants | `tests/core/test_x.py::test_y` |" in text
    assert "| c | 1 mutants | **nothing** |" in text
