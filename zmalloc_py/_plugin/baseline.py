"""Peaks of an earlier run, kept in a file: a test whose peak has grown since fails."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from zmalloc._plugin import sizes
from zmalloc._plugin.report import PYTHON, Gathering, write_json

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

#: What a file of ours has at its beginning.
FORMAT = "zmalloc baseline"

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class Tolerance:
    """What a peak may have grown by: a size, or percent of the baseline's."""

    def __init__(self, text: str) -> None:
        self.text = text
        percent = _PERCENT.fullmatch(text.strip())
        self._percent = float(percent[1]) if percent else None
        self._size = 0 if percent else sizes.parse(text, "--memory-tolerance", zero=True)

    def bound(self, peak: int) -> int:
        """The highest peak that is no growth."""
        if self._percent is None:
            return peak + self._size
        return peak + int(peak * self._percent / 100)


def _read(path: str) -> dict[str, dict[str, int]]:
    """Peaks by Python and test. UsageError: it is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            content: Any = json.load(file)
        if content["format"] != FORMAT:
            raise KeyError("format")
        return {
            python: {name: int(peak) for name, peak in peaks.items()}
            for python, peaks in content["peaks"].items()
        }
    except OSError as error:
        raise pytest.UsageError(
            f"--memory-baseline: cannot read {path!r}: {error.strerror}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise pytest.UsageError(
            f"--memory-baseline: {path!r} is no baseline of zmalloc's"
        ) from None


class Baseline:
    """Peaks of this Python's tests."""

    def __init__(self, path: str, tolerance: Tolerance) -> None:
        peaks = _read(path)
        if PYTHON not in peaks:
            raise pytest.UsageError(
                f"--memory-baseline: {path!r} has no peaks of Python {PYTHON}, only of "
                f"{', '.join(sorted(peaks)) or 'none'}: add them with --memory-update"
            )
        self._peaks, self._tolerance = peaks[PYTHON], tolerance

    def __contains__(self, name: str) -> bool:
        return name in self._peaks

    def judge(self, item: pytest.Item, peak: int) -> str | None:
        """Why the test fails, or None."""
        before = self._peaks.get(item.nodeid)
        if before is None or peak <= self._tolerance.bound(before):
            return None
        return (
            f"memory baseline: the peak has grown from {sizes.show_exactly(before)} to "
            f"{sizes.show_exactly(peak)}; {self._tolerance.text} more is tolerated"
        )


class NewTests:
    """Names at the end what the baseline does not know."""

    def __init__(self, baseline: Baseline, gathering: Gathering) -> None:
        self._baseline, self._gathering = baseline, gathering

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        new = [name for name in self._gathering.entries if name not in self._baseline]
        if new:
            terminalreporter.section("memory baseline")
            terminalreporter.write_line(
                f"not in it, so not compared (--memory-update adds them): {', '.join(sorted(new))}"
            )


class Update:
    """What --memory-update writes: peaks of tests that have passed, beside those of others."""

    def __init__(self, path: str, gathering: Gathering) -> None:
        self._path, self._gathering = path, gathering
        self._peaks = _read(path) if os.path.exists(path) else {}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        peaks = self._peaks.setdefault(PYTHON, {})
        for name, entry in self._gathering.entries.items():
            if entry.outcome == "passed":
                peaks[name] = entry.figures.peak
        ordered = {
            python: dict(sorted(tests.items())) for python, tests in sorted(self._peaks.items())
        }
        write_json(self._path, {"format": FORMAT, "peaks": ordered})

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        count = sum(entry.outcome == "passed" for entry in self._gathering.entries.values())
        terminalreporter.section("memory baseline")
        terminalreporter.write_line(f"peaks of {count} tests written to {self._path}")
