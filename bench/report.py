"""Shows what bench/bench.py has measured: in the terminal, and as Markdown."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contenders import (
    AGAIN,
    BUDGET,
    CAPPED,
    COUNTING,
    HELD,
    HOOK,
    MEMRAY,
    MEMRAY_PYTHON,
    SCALENE,
    STOCK,
    TRACEMALLOC,
)
from interleave import geometric_mean
from results import Results
from rich import box
from rich.console import Console
from rich.table import Table

ORDER = [AGAIN, HOOK, COUNTING, CAPPED, BUDGET, HELD, TRACEMALLOC, MEMRAY, MEMRAY_PYTHON, SCALENE]
SUITES = {"set": "allocation-bound set", "pyperformance": "pyperformance"}


@dataclass(frozen=True)
class Cell:
    """A contender's CPU time over stock's in one program: the ratios within a round."""

    ratios: tuple[float, ...]
    least: float  #: the least time of all rounds over stock's: other load can only add to both
    wall: float  #: by the clock, of the whole process: the median ratio
    resident: float  #: peak of resident memory: the median ratio

    @property
    def middle(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        spread = f" ({min(self.ratios):.2f}-{max(self.ratios):.2f})" if len(self.ratios) > 1 else ""
        return f"{self.middle:.3f}{spread}"


Cells = dict[str, dict[str, Cell]]  # by program, contender


def cells(results: Results, suite: str, version: str, base: str = STOCK) -> Cells:
    found: Cells = {}
    for program, runs in sorted(results.by_program(suite, version).items()):
        of_base = runs.get(base, {})
        for contender, turns in runs.items():
            both = [(run, of_base[turn]) for turn, run in turns.items() if turn in of_base]
            if contender == base or not both:
                continue
            found.setdefault(program, {})[contender] = Cell(
                tuple(run.cpu / other.cpu for run, other in both),
                min(run.cpu for run, _ in both) / min(other.cpu for _, other in both),
                statistics.median(run.wall / other.wall for run, other in both),
                statistics.median(run.resident / max(other.resident, 1) for run, other in both),
            )
    return found


@dataclass(frozen=True)
class Summary:
    """Of a contender over stock, for a set of programs."""

    programs: int
    mean: float  #: of the medians
    least: float  #: of the ratios of the least times
    worst: float  #: of these
    worst_of: str
    wall: float
    resident: float  #: the worst peak over stock's


def summary(found: Cells, contender: str) -> Summary | None:
    of_it = {program: row[contender] for program, row in found.items() if contender in row}
    if not of_it:
        return None
    worst_of = max(of_it, key=lambda program: of_it[program].least)
    return Summary(
        len(of_it),
        geometric_mean([cell.middle for cell in of_it.values()]),
        geometric_mean([cell.least for cell in of_it.values()]),
        of_it[worst_of].least,
        worst_of,
        geometric_mean([cell.wall for cell in of_it.values()]),
        max(cell.resident for cell in of_it.values()),
    )


def _names(found: Cells) -> list[str]:
    return [name for name in ORDER if any(name in row for row in found.values())]


def _rows(found: Cells) -> list[tuple[str, ...]]:
    """A contender a row, as HEADS says."""
    rows: list[tuple[str, ...]] = []
    for name in _names(found):
        if of_it := summary(found, name):
            rows.append(
                (
                    name,
                    str(of_it.programs),
                    f"{of_it.mean:.3f}",
                    f"{of_it.least:.3f}",
                    f"{of_it.worst:.3f} {of_it.worst_of}",
                    f"{of_it.wall:.3f}",
                    f"{of_it.resident:.2f}",
                )
            )
    return rows


HEADS = (
    "over stock",
    "programs",
    "mean of medians",
    "mean of least",
    "worst of least",
    "by the clock",
    "peak RSS, worst",
)


def compare(results: Results, suite: str, version: str) -> list[str]:
    """What zmalloc takes over others than stock: a line for each."""
    lines = []
    for over in (HOOK, TRACEMALLOC, MEMRAY, MEMRAY_PYTHON):
        if of_it := summary(cells(results, suite, version, over), COUNTING):
            lines.append(f"{COUNTING} over {over}: {of_it.mean:.3f}, of least {of_it.least:.3f}")
    return lines


def show(results: Results, version: str) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    for suite, title in SUITES.items():
        found = cells(results, suite, version)
        if not found:
            continue
        names = _names(found)
        of_all = Table(title=f"{title}, CPython {version}: CPU time over stock", box=box.SIMPLE)
        of_all.add_column("program")
        for name in names:
            of_all.add_column(name, justify="right")
        for program, row in found.items():
            of_all.add_row(program, *(str(row.get(name, "")) for name in names))
        console.print(of_all)
        short = Table(*HEADS, box=box.SIMPLE)
        for cells_of_line in _rows(found):
            short.add_row(*cells_of_line)
        console.print(short)
        for line in compare(results, suite, version):
            console.print(line)
    for line in failed(results, version):
        console.print(line)


def failed(results: Results, version: str) -> list[str]:
    """What could not be measured, and why: a line for each program."""
    why: dict[tuple[str, str], list[str]] = {}
    for run in results.runs.values():
        names = why.setdefault((run.program, run.why), [])
        if run.why and run.version == version and run.contender not in names:
            names.append(run.contender)
    return [
        f"not measured: {program} with {', '.join(names)}: {reason}"
        for (program, reason), names in sorted(why.items())
        if names
    ]


# ---- as Markdown ---------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def bars(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A measure, its bar and a figure for each name; without those that nobody has measured."""
    return table(["", "bar", *names], [row for row in rows if any(row[2:])])


def markdown(results: Results, version: str) -> list[str]:
    lines: list[str] = []
    for suite, title in SUITES.items():
        found = cells(results, suite, version)
        if not found:
            continue
        lines += [f"## CPython {version}, {title}", "", *table(HEADS, _rows(found)), ""]
        lines += [f"- {line}" for line in compare(results, suite, version)]
        names = _names(found)
        rows = ([program, *(str(row.get(one, "")) for one in names)]
                for program, row in found.items())  # fmt: skip
        lines += ["", *table(["program", *names], rows), ""]
    if missing := failed(results, version):
        lines += [*(f"- {line}" for line in missing), ""]
    return lines


def data(results: Results, version: str) -> dict[str, object]:
    return {
        suite: {
            program: {
                one: {
                    "ratios": [round(ratio, 4) for ratio in cell.ratios],
                    "least": round(cell.least, 4),
                    "wall": round(cell.wall, 4),
                    "resident": round(cell.resident, 3),
                }
                for one, cell in row.items()
            }
            for program, row in cells(results, suite, version).items()
        }
        for suite in SUITES
    }
