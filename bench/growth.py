"""Does an operation cost more where there is more of everything? The C core and Python.

    make bench-growth             a few minutes
    ROUNDS=15 make bench-growth   more of it
    LIVE=100000000 ...            up to that many live blocks (4 GB), where memory allows
    python bench/growth.py [C] [Python]

One thing grows in each series, all else stays: live blocks, accounts, accounts above an account,
open scopes, threads. In C an operation is a block given back and one taken (core.c), 24 bytes each,
picked by chance; malloc beside it. Chained: what is in a block tells which is next, so no two
operations overlap in the processor; elsewhere they may, as in a loop that frees what it has a list
of. In Python an operation is an object that gives way to a new one (growth_worker.py); stock Python
beside it, which has neither accounts nor scopes: there its figures tell the machine's noise alone.
Each thread has as many live blocks, however many threads there are. What the loop takes itself, and
its cache misses, are in all figures.

The rule. Each run is a process of its own; in a round all contenders run at each value, one after
the other, each round beginning with another one. A figure is CPU time of all threads by operation,
the median of the rounds. A line is fitted through each round's figures by least squares; its slope
is told as the median of the rounds with the quartiles. "over stock" is the slope of the difference
to the stock allocator of the same round: the growth that is ours. It is in nanoseconds per decade
(ten times as much), for depth and scopes per level and per scope. All of it is in
build/bench/COMMIT/growth.json.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import contenders
import core_bench
from core_bench import Load
from interleave import Times, measure
from progress import bar
from results import keep

HERE = Path(__file__).resolve().parent
BYTES = 24
MANY = 20_000  # live blocks where something else grows: they stay in the caches
PY_OPERATIONS = 400_000
#: What each live block takes, with its place in the list of them: to be sure that memory allows.
ROOM = 64


@dataclass(frozen=True)
class Series:
    language: str
    name: str
    per: str  #: decade, or else one more of it
    values: tuple[int, ...]
    contenders: tuple[str, ...]  #: the stock one first
    run: Callable[[str, int], float]

    def at(self, value: int) -> float:
        return math.log10(value) if self.per == "decade" else value


def live_values() -> tuple[int, ...]:
    most = int(float(os.environ.get("LIVE", "1e7")))
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if most * ROOM > available:
        print(f"skipped: {most:,} live blocks: too little memory is free", file=sys.stderr)
    return tuple(n for n in (10**i for i in range(4, 9)) if n <= most and n * ROOM <= available)


def c_series(program: Path) -> list[Series]:
    def run(**fixed: int) -> Callable[[str, int], float]:
        def run_one(kind: str, value: int) -> float:
            words = {key: given if given >= 0 else value for key, given in fixed.items()}
            live = MANY * words.get("threads", 1)
            load = Load(**{"size": BYTES, "live": live, **words})
            return core_bench.run(program, kind, load)[0]

        return run_one

    family = ("malloc", "zmalloc", "account", "single")
    capped = ("malloc", "account", "single")
    alone = ("malloc", "account")
    grows = -1
    return [
        Series("C", "live blocks", "decade", live_values(), family, run(live=grows)),
        Series("C", "live blocks, chained", "decade", live_values(), family,
               run(live=grows, chained=1)),
        Series("C", "accounts", "decade", (1, 10, 100, 1000, 10_000), capped, run(accounts=grows)),
        Series("C", "accounts of one tree", "decade", (1, 10, 100, 1000, 10_000), alone,
               run(accounts=grows, depth=4)),
        Series("C", "depth", "level", (1, 2, 3, 4, 6, 8), capped, run(depth=grows)),
        Series("C", "open scopes", "scope", (0, 1, 4, 16, 64), capped, run(scopes=grows)),
        Series("C", "threads", "decade", (1, 2, 4, 8), family, run(threads=grows)),
    ]  # fmt: skip


def python_run(contender: str, live: int, threads: int, how: str, scopes: int) -> float:
    words = [live, threads, how, scopes, PY_OPERATIONS]
    command = [sys.executable, str(HERE / "growth_worker.py"), contender, *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def python_series() -> list[Series]:
    stock, exact, held = contenders.STOCK, contenders.COUNTING, contenders.UNCAPPED
    three = (stock, exact, held)
    live = tuple(n for n in live_values() if n <= 10**7)
    scopes = (0, 1, 4, 16, 64)

    def objects(who: str, n: int) -> float:
        return python_run(who, n, 1, "budget", 0)

    def threads(scopes: int) -> Callable[[str, int], float]:
        return lambda who, n: python_run(who, MANY * n, n, "thread", scopes)

    def opened(how: str) -> Callable[[str, int], float]:
        return lambda who, n: python_run(who, MANY, 1, how, n)

    return [
        Series("Python", "live objects", "decade", live, three, objects),
        Series("Python", "open budgets", "scope", scopes, three, opened("budget")),
        Series("Python", "open thread budgets", "scope", scopes, (stock, exact), opened("thread")),
        Series("Python", "open limits", "scope", scopes, three, opened("limit")),
        Series("Python", "threads", "decade", (1, 2, 4, 8), three, threads(0)),
        Series("Python", "threads with a budget each", "decade", (1, 2, 4, 8, 32), (stock, exact),
               threads(1)),
    ]  # fmt: skip


def key(contender: str, value: int) -> str:
    return f"{contender}: {value}"


def slopes(series: Series, times: Times, contender: str, is_over_stock: bool) -> list[float]:
    """Of each round."""
    points = [series.at(value) for value in series.values]
    found = []
    for turn in range(len(next(iter(times.values())))):
        figures = [times[key(contender, value)][turn] for value in series.values]
        if is_over_stock:
            stock = [times[key(series.contenders[0], value)][turn] for value in series.values]
            figures = [a - b for a, b in zip(figures, stock, strict=True)]
        found.append(statistics.linear_regression(points, figures).slope)
    return found


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def show(series: Series, times: Times) -> None:
    title = f"{series.language}, {series.name}"
    print(f"\n{title:<30}" + "".join(f"{value:>12,}" for value in series.values)
          + f"{f'ns per {series.per}':>34}{'over stock':>34}")  # fmt: skip
    for contender in series.contenders:
        cells = "".join(
            f"{statistics.median(times[key(contender, value)]):>12.1f}" for value in series.values
        )
        line = f"{contender:<30}{cells}{spread(slopes(series, times, contender, False)):>34}"
        if contender != series.contenders[0]:
            line += f"{spread(slopes(series, times, contender, True)):>34}"
        print(line, flush=True)


def rows(series: Series, times: Times) -> dict[str, object]:
    return {
        "language": series.language,
        "series": series.name,
        "slope_per": series.per,
        "contenders": [
            {
                "contender": contender,
                "ns": {value: times[key(contender, value)] for value in series.values},
                "slope": slopes(series, times, contender, False),
                "slope_over_stock": slopes(series, times, contender, True),
            }
            for contender in series.contenders
        ],
    }


def main() -> None:
    rounds = int(os.environ.get("ROUNDS", "5"))
    program = core_bench.build()
    assert program
    languages = sys.argv[1:] or ["C", "Python"]
    both = [*c_series(program), *python_series()]
    wanted = [series for series in both if series.language in languages]
    print(f"{os.uname().machine}, {os.cpu_count()} CPUs, CPython {platform.python_version()}; "
          f"ns of CPU time an operation, {rounds} rounds", flush=True)  # fmt: skip
    found = []
    with bar(rounds * sum(len(one.values) * len(one.contenders) for one in wanted)) as step:
        for series in wanted:
            runs = {key(who, n): (who, n) for n in series.values for who in series.contenders}

            def timed(name: str, series: Series = series,
                      runs: dict[str, tuple[str, int]] = runs) -> float:  # fmt: skip
                step(f"{series.language}, {series.name}: {name}")
                return series.run(*runs[name])

            times = measure(list(runs), timed, rounds)
            show(series, times)
            found.append(rows(series, times))
    keep("growth", found)


if __name__ == "__main__":
    main()
