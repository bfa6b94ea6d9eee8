"""make bench-full's last step: docs/benchmarks.md, its data and its pictures, from build/bench.

    python bench/page.py [COMMIT]

The commit is the one that was measured last if none is named. Nothing in the page is written by
hand; what has not been measured for that commit is not in it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lua_report
import report
from contenders import BUDGET, CAPPED, COUNTING, HELD, HOOK, MEMRAY_PYTHON, STOCK, TRACEMALLOC
from growth import spread
from interleave import Times, geometric_mean, ratio
from results import BUILD, ROOT, Results, kept

DOCS = ROOT / "docs"

ABOUT = """
Written by `bench/page.py` from what `make bench-full` measured. Each run is a process of its own;
all contenders of a program run in turn within a round. Python's figures are CPU time over stock
Python: the median of the ratios within a round and, in brackets, the smallest and the largest; of
a set of programs, their geometric mean. "Of least" is the ratio of the least times of all rounds:
what else runs on a machine can only add to a time, so it is disturbed least. `stock again` is
stock Python against itself: what the machine's noise alone gives.
"""

ABOUT_GROWTH = """
What an operation costs where there is more of everything: medians in nanoseconds, and the slope of
a fitted line with its quartiles. "Over stock" is the slope of the difference to the stock allocator
within a round. Where many blocks are live an operation is waiting for memory. Operations that know
their block in advance wait at the same time, the more of them the shorter they are, so that
malloc's look cheaper than they are one by one; chained, none can.
"""

Rows = list[list[str]]


def machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"


# ---- what this project holds itself to -----------------------------------------------------------


def python_bars(place: Path, results: Results, versions: Sequence[str]) -> list[str]:
    rows: Rows = []

    def add(what: str, bar: str, figures: list[str]) -> None:
        rows.append([what, bar, *figures])

    def over(suite: str, base: str, name: str) -> list[report.Summary | None]:
        return [report.summary(report.cells(results, suite, version, base), name)
                for version in versions]  # fmt: skip

    def means(found: list[report.Summary | None]) -> list[str]:
        return [f"{one.mean:.3f}, {one.least:.3f}" if one else "" for one in found]

    benchmarks, objects = over("pyperformance", STOCK, COUNTING), over("set", STOCK, COUNTING)
    add("pyperformance, zmalloc / stock, geometric mean", "1.06", means(benchmarks))
    add(
        "the same, worst single one",
        "1.15",
        [f"{one.worst:.3f} {one.worst_of}" if one else "" for one in benchmarks],
    )
    add(
        "pyperformance, zmalloc / pass-through hook",
        "1.03",
        means(over("pyperformance", HOOK, COUNTING)),
    )
    add(
        "pyperformance, mode held with a cap / stock",
        "the noise",
        means(over("pyperformance", STOCK, HELD)),
    )
    add(
        "pyperformance, stock / stock: the noise",
        "",
        means(over("pyperformance", STOCK, report.AGAIN)),
    )
    add("allocation-bound set, zmalloc / stock", "1.15", means(objects))
    for suite, name in (("set", "the set"), ("pyperformance", "the ten")):
        add(f"a cap / zmalloc without, {name}", "1.02", means(over(suite, COUNTING, CAPPED)))
        add(
            f"a budget of the thread / zmalloc without, {name}",
            "1.02",
            means(over(suite, COUNTING, BUDGET)),
        )
    for peer in (TRACEMALLOC, MEMRAY_PYTHON):
        add(f"{peer} / zmalloc, the ten", "over 2.5", means(over("pyperformance", COUNTING, peer)))
    add(
        "peak of resident memory, zmalloc / stock, the median program",
        "1.07",
        [_middle_resident(results, version) for version in versions],
    )
    add("import, beside `python -c pass`, ms", "10",
        [_start(place, version) for version in versions])  # fmt: skip
    about = "Two figures: the mean of the medians, and the mean of the ratios of the least times."
    names = [f"CPython {version}" for version in versions]
    return ["## What this is held to", "", about, "", *report.bars(names, rows), ""]


def _middle_resident(results: Results, version: str) -> str:
    rows = [
        row for suite in report.SUITES for row in report.cells(results, suite, version).values()
    ]
    found = [row[COUNTING].resident for row in rows if COUNTING in row]
    return f"{statistics.median(found):.3f} (most {max(found):.2f})" if found else ""


def _start(place: Path, version: str) -> str:
    found = kept(place, f"start-{version}")
    if not found:
        return ""
    ms, mib = found[COUNTING]["wall_ms"], found[COUNTING]["resident_mib"]
    return f"{ms[0]:.2f} ({ms[1]:.2f}-{ms[2]:.2f}), {mib[0]:.2f} MiB"


# ---- the parts -----------------------------------------------------------------------------------


def instructions(place: Path, version: str) -> list[str]:
    found: dict[str, dict[str, float]] | None = kept(place, f"instructions-{version}")
    if not found:
        return []
    names = list(next(iter(found.values())))
    rows = [[program, *(f"{row[name]:.3f}" for name in names)] for program, row in found.items()]
    means = [geometric_mean([row[name] for row in found.values()]) for name in names]
    rows.append(["mean", *(f"{mean:.3f}" for mean in means)])
    title = f"## CPython {version}, allocation-bound set: instructions over stock"
    about = "Counted by cachegrind at a sixteenth of the size, start-up subtracted."
    return [title, "", about, "", *report.table(["program", *names], rows), ""]


def core(place: Path) -> list[str]:
    found: list[dict[str, Any]] = kept(place, "core") or []
    by_case: dict[tuple[int, int], Times] = defaultdict(dict)
    for row in found:
        by_case[row["threads"], row["size"]][row["contender"]] = row["ns"]
    if not by_case:
        return []
    names = list(next(iter(by_case.values())))
    lines: list[str] = ["## The C core: a block taken and given back", "",
                        "Nanoseconds of CPU time a pair, and in brackets the ratio to the malloc"
                        " underneath.", ""]  # fmt: skip
    for backend in dict.fromkeys(name.split()[0] for name in names if " " in name):
        kinds = [name for name in names if name.startswith(f"{backend} ")]
        rows: Rows = []
        for (threads, size), times in by_case.items():
            figures = []
            for name in kinds:
                middle = statistics.median(times[name])
                over = ratio(times, name, f"{backend} malloc")[0]
                figures.append(f"{middle:.1f}" + (f" ({over:.2f})" if name != kinds[0] else ""))
            rows.append([str(threads), f"{size:,}", *figures])
        heads = ["threads", "bytes", *(name.split()[1] for name in kinds)]
        lines += [f"### Over {backend}", "", *report.table(heads, rows), ""]
    return lines


def growth(found: Sequence[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    lines = ["## Growth", "", *textwrap.wrap(ABOUT_GROWTH.strip(), 100), "",
             "![Growth](growth.svg)", ""]  # fmt: skip
    for series in found:
        values = list(series["contenders"][0]["ns"])
        per = f"ns per {series['slope_per']}"
        rows = []
        for i, one in enumerate(series["contenders"]):
            middles = [f"{statistics.median(times):.1f}" for times in one["ns"].values()]
            more = "" if i == 0 else spread(one["slope_over_stock"])
            rows.append([one["contender"], *middles, spread(one["slope"]), more])
        heads = [f"{series['language']}, {series['series']}",
                 *(f"{int(value):,}" for value in values), per, "over stock"]  # fmt: skip
        lines += [*report.table(heads, rows), ""]
    return lines


# ---- all of it -----------------------------------------------------------------------------------


def markdown(place: Path, results: Results, versions: Sequence[str]) -> str:
    lua = lua_report.versions(kept(place, "lua") or [])
    lines = [
        "# What counting costs",
        "",
        *textwrap.wrap(ABOUT.strip(), 100),
        "",
        f"Commit {place.name}, {machine()}.",
        *compared_with(place, versions),
        "",
        "![What counting costs](benchmarks.svg)",
        "",
        *python_bars(place, results, versions),
        *lua_report.bars(lua),
    ]
    for version in versions:
        lines += report.markdown(results, version)
        lines += instructions(place, version)
    lines += lua_report.markdown(lua)
    lines += core(place)
    lines += growth(kept(place, "growth") or [])
    return "\n".join(lines).rstrip() + "\n"


def compared_with(place: Path, versions: Sequence[str]) -> list[str]:
    """The versions of what is measured beside."""
    lines = []
    for version in versions:
        found: dict[str, str] = kept(place, f"versions-{version}") or {}
        if found:
            names = ", ".join(f"{name} {one}" for name, one in found.items())
            lines.append(f"With CPython {version}: {names}.")
    return lines


def pictures(place: Path, results: Results, versions: Sequence[str]) -> None:
    import charts

    labelled = []
    for name in report.ORDER:
        of_it = [report.summary(report.cells(results, "pyperformance", version), name)
                 for version in versions]  # fmt: skip
        if any(of_it):
            most = max(one.programs for one in of_it if one)
            label = f"{name} ({most} programs)"
            labelled.append((label, [one.least if one else None for one in of_it]))
    charts.bars(labelled, [f"CPython {version}" for version in versions],
                "pyperformance: CPU time over stock Python, geometric mean (stock = 1)",
                DOCS / "benchmarks.svg")  # fmt: skip
    if found := kept(place, "growth"):
        charts.growth(found, DOCS / "growth.svg")


def _latest() -> str:
    found = sorted(BUILD.glob("*/python.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit("nothing has been measured: make bench, or make bench-full")
    return found[-1].parent.name


def main() -> None:
    place = BUILD / (sys.argv[1] if len(sys.argv) > 1 else _latest())
    results = Results(place / "python.jsonl")
    versions = sorted(
        {run.version for run in results.runs.values()},
        key=lambda version: [int(part) for part in version.split(".")],
    )
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmarks.md").write_text(markdown(place, results, versions))
    data = {
        "commit": place.name,
        "machine": machine(),
        "python": {version: report.data(results, version) for version in versions},
        **{
            file.stem: json.loads(file.read_text())
            for file in sorted(place.glob("*.json"))
            if not file.stem.startswith(("plan-", "versions-"))
        },
    }
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    (DOCS / "benchmarks.json").write_text(text + "\n")
    pictures(place, results, versions)
    print("written: docs/benchmarks.md, .json, .svg, docs/growth.svg")


if __name__ == "__main__":
    main()
