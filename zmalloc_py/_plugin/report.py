"""Figures of all tests: gathered from their reports, shown in the terminal, written as JSON.

A report carries its figures as properties, so that those of xdist's workers arrive with them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from zmalloc._plugin import sizes
from zmalloc._plugin.measuring import PROPERTIES
from zmalloc._plugin.window import Figures
from zmalloc._report import put
from zmalloc._version import __version__

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

#: Columns of the longest bar.
BAR = 24

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Entry(NamedTuple):
    """What is known of one test."""

    outcome: str
    figures: Figures


class Gathering:
    """The figures of each test that was measured, by its node id; of several runs the last."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        values = dict(pair for pair in report.user_properties if pair[0] in PROPERTIES)
        if len(values) == len(PROPERTIES):
            figures = Figures(*(int(str(values[name])) for name in PROPERTIES))
            self.entries[report.nodeid] = Entry(report.outcome, figures)

    def highest(self, count: int) -> list[tuple[str, Entry]]:
        """The tests with the highest peaks, the highest first, those of equal peaks by name."""
        return sorted(self.entries.items(), key=lambda pair: (-pair[1].figures.peak, pair[0]))[
            :count
        ]


class Summary:
    """What --memory-report shows."""

    def __init__(self, gathering: Gathering, count: int) -> None:
        self._gathering, self._count = gathering, count

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        shown = self._gathering.highest(self._count)
        total = len(self._gathering.entries)
        terminalreporter.section(f"memory: {_title(len(shown), total)}")
        if not shown:
            return
        highest = max(shown[0][1].figures.peak, 1)
        block = _block(terminalreporter)
        rows = [
            (sizes.show(e.figures.peak), sizes.show(e.figures.used), _bar(e, highest, block), name)
            for name, e in shown
        ]
        widths = [max(len(row[i]) for row in [*rows, ("peak", "stays")]) for i in (0, 1)]
        head = f"{'peak':>{widths[0]}}  {'stays':>{widths[1]}}  {'':<{BAR}}  test"
        terminalreporter.write_line(head)
        for peak, used, bar, name in rows:
            terminalreporter.write_line(
                f"{peak:>{widths[0]}}  {used:>{widths[1]}}  {bar:<{BAR}}  {name}"
            )


def _title(shown: int, total: int) -> str:
    if total == 0:
        return "no test was measured"
    return f"the {shown} highest peaks of {total} test{'s' * (total != 1)}"


def _block(reporter: TerminalReporter) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "█".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"


def _bar(entry: Entry, highest: int, block: str) -> str:
    columns = round(BAR * entry.figures.peak / highest)
    return block * max(columns, 1 if entry.figures.peak > 0 else 0)


class JsonFile:
    """What --memory-json writes at the end of the run."""

    def __init__(self, gathering: Gathering, path: str) -> None:
        self._gathering, self._path = gathering, path

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        content = {
            "python": sys.version.split()[0],
            "zmalloc": __version__,
            "tests": {
                name: {
                    "outcome": entry.outcome,
                    "used": entry.figures.used,
                    "peak": entry.figures.peak,
                    "allocations": entry.figures.allocations,
                }
                for name, entry in sorted(self._gathering.entries.items())
            },
        }
        write_json(self._path, content)


def write_json(path: str, content: dict[str, Any]) -> None:
    """A whole file or none."""
    put(os.path.realpath(path), json.dumps(content, indent=2) + "\n", f".{os.getpid()}.tmp")


def check_folder(option: str, path: str) -> str:
    """The absolute path; UsageError if there is no folder for it."""
    full = os.path.abspath(path)
    if not os.path.isdir(os.path.dirname(full)):
        raise pytest.UsageError(f"{option}: there is no folder {os.path.dirname(full)!r}")
    return full
