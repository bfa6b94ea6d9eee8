"""Shows what bench/bench.py has measured: in the terminal, and as docs/benchmarks.{md,json,svg}.

    python bench/report.py [COMMIT]

The commit is the one that was measured last if none is named.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from results import ROOT, Results
from rich import box
from rich.console import Console
from rich.table import Table

DOCS = ROOT / "docs"
ORDER = [AGAIN, HOOK, COUNTING, CAPPED, BUDGET, HELD, TRACEMALLOC, MEMRAY, MEMRAY_PYTHON, SCALENE]
SUITES = {"set": "allocation-bound set", "pyperformance": "pyperformance"}


@dataclass(frozen=True)
class Cell:
    """A contender's CPU time over stock's in one program: the ratios within a round."""

    ratios: tuple[float, ...]
    resident: float  #: peak of resident memory over stock's

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
        for contender, turns in runs.items():
            both = [(run, runs[base][turn]) for turn, run in turns.items() if turn in runs[base]]
            if contender == base or not both:
                continue
            found.setdefault(program, {})[contender] = Cell(
                tuple(run.cpu / other.cpu for run, other in both),
                statistics.median(run.resident / max(other.resident, 1) for run, other in both),
            )
    return found


@dataclass(frozen=True)
class Summary:
    """Of a contender over stock, for a set of programs."""

    programs: int
    mean: float
    worst: float
    worst_of: str
    resident: float  #: the worst peak over stock's


def summary(found: Cells, contender: str, only: Sequence[str] | None = None) -> Summary | None:
    of_it = {
        program: row[contender]
        for program, row in found.items()
        if contender in row and (only is None or program in only)
    }
    if not of_it:
        return None
    worst_of = max(of_it, key=lambda program: of_it[program].middle)
    return Summary(
        len(of_it),
        geometric_mean([cell.middle for cell in of_it.values()]),
        of_it[worst_of].middle,
        worst_of,
        max(cell.resident for cell in of_it.values()),
    )


def _names(found: Cells) -> list[str]:
    return [name for name in ORDER if any(name in row for row in found.values())]


def _rows(found: Cells) -> list[tuple[str, ...]]:
    """A contender a row: programs, mean, worst, resident memory."""
    rows: list[tuple[str, ...]] = []
    for name in _names(found):
        if of_it := summary(found, name):
            rows.append(
                (
                    name,
                    str(of_it.programs),
                    f"{of_it.mean:.3f}",
                    f"{of_it.worst:.3f} {of_it.worst_of}",
                    f"{of_it.resident:.2f}",
                )
            )
    return rows


ABOUT = """
Written by `bench/report.py` from what `make bench-full` measured: CPU time over stock Python, every
run in a process of its own, contenders in turn within a round; the median of the ratios of all
rounds and, in brackets, the smallest and the largest. `stock again` is stock Python against itself:
what the machine's noise alone gives.
"""

HEADS = ("over stock", "programs", "mean", "worst", "peak RSS, worst")


def compare(results: Results, suite: str, version: str, over: str, name: str) -> float | None:
    """The geometric mean of one contender over another."""
    of_it = summary(cells(results, suite, version, over), name)
    return of_it.mean if of_it else None


def show(results: Results, version: str) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    for suite, title in SUITES.items():
        found = cells(results, suite, version)
        if not found:
            continue
        names = _names(found)
        table = Table(title=f"{title}, CPython {version}: CPU time over stock", box=box.SIMPLE)
        table.add_column("program")
        for name in names:
            table.add_column(name, justify="right")
        for program, row in found.items():
            table.add_row(program, *(str(row.get(name, "")) for name in names))
        console.print(table)
        short = Table(*HEADS, box=box.SIMPLE)
        for line in _rows(found):
            short.add_row(*line)
        console.print(short)
        for over in (HOOK, TRACEMALLOC, MEMRAY):
            mean = compare(results, suite, version, over, COUNTING)
            if mean:
                console.print(f"{COUNTING} over {over}: {mean:.3f}")
    for run in results.runs.values():
        if run.why and run.version == version:
            console.print(f"{run.program}, {run.contender}: {run.why}")


# ---- what the README shows -----------------------------------------------------------------------


def machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"


def _markdown(results: Results, versions: list[str], name: str) -> str:
    lines = [
        "# What counting costs",
        "",
        *textwrap.wrap(ABOUT, 100),
        "",
        f"Commit {name}, {machine()}.",
        "",
        "![What counting costs](benchmarks.svg)",
        "",
    ]
    for version in versions:
        for suite, title in SUITES.items():
            found = cells(results, suite, version)
            if not found:
                continue
            lines += [
                f"## CPython {version}, {title}",
                "",
                _line(HEADS),
                _line(["---"] * len(HEADS)),
            ]
            lines += [_line(row) for row in _rows(found)]
            lines.append("")
            for over in (HOOK, TRACEMALLOC, MEMRAY, MEMRAY_PYTHON):
                mean = compare(results, suite, version, over, COUNTING)
                if mean:
                    lines.append(f"- {COUNTING} over {over}: {mean:.3f}")
            names = _names(found)
            lines += ["", _line(["program", *names]), _line(["---"] * (len(names) + 1))]
            for program, row in found.items():
                lines.append(_line([program, *(str(row.get(one, "")) for one in names)]))
            lines.append("")
    return "\n".join(lines)


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _chart(results: Results, versions: list[str], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "zmalloc", "svg.fonttype": "none", "font.size": 9})
    bars: list[tuple[str, list[float | None]]] = []
    for name in ORDER:
        of_it = [summary(cells(results, "pyperformance", version), name) for version in versions]
        if any(of_it):
            bars.append((name, [one.mean if one else None for one in of_it]))
    height = 0.8 / len(versions)
    figure, axes = plt.subplots(figsize=(7.2, 0.42 * len(bars) + 1.2))
    for i, version in enumerate(versions):
        for row, (_, means) in enumerate(bars):
            mean = means[i]
            if mean is None:
                continue
            at = row + (i - (len(versions) - 1) / 2) * height
            axes.barh(
                at,
                mean - 1,
                left=1,
                height=height * 0.9,
                color=f"C{i}",
                label=f"CPython {version}" if row == 0 else None,
            )
            axes.text(max(mean, 1) + 0.03, at, f"{mean:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("CPU time over stock Python, geometric mean (stock = 1)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


def _data(results: Results, versions: list[str], name: str) -> dict[str, object]:
    return {
        "commit": name,
        "machine": machine(),
        "suites": {
            f"{suite} {version}": {
                program: {
                    one: {
                        "ratios": [round(ratio, 4) for ratio in cell.ratios],
                        "resident": round(cell.resident, 3),
                    }
                    for one, cell in row.items()
                }
                for program, row in cells(results, suite, version).items()
            }
            for version in versions
            for suite in SUITES
        },
    }


def _latest() -> str:
    found = sorted(
        (ROOT / "build" / "bench").glob("*/python.jsonl"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise SystemExit("nothing has been measured: make bench, or make bench-full")
    return found[-1].parent.name


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else _latest()
    results = Results(ROOT / "build" / "bench" / name / "python.jsonl")
    versions = sorted(
        {run.version for run in results.runs.values()},
        key=lambda version: [int(part) for part in version.split(".")],
    )
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmarks.md").write_text(_markdown(results, versions, name))
    data = json.dumps(_data(results, versions, name), indent=1, sort_keys=True)
    (DOCS / "benchmarks.json").write_text(data + "\n")
    _chart(results, versions, DOCS / "benchmarks.svg")
    print("written: docs/benchmarks.md, .json, .svg")


if __name__ == "__main__":
    main()
