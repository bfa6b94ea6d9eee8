"""What an import that does nothing else costs: time and memory of a whole process.

    python bench/start_cost.py [ROUNDS]

`python -c pass` and `python -c "import zmalloc"` in both modes, in turn. A figure is the median of
the differences within a round; it is kept in build/bench/COMMIT/start-VERSION.json.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time

from contenders import COUNTING, STOCK, UNCAPPED
from interleave import measure
from results import keep

CODE = {STOCK: "pass", COUNTING: "import zmalloc", UNCAPPED: "import zmalloc"}
#: Of the process itself, in KiB: what its own kernel record says when it ends.
TELL = "; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"


class Starts:
    """By contender: the peak of resident memory of each start, in MiB."""

    def __init__(self) -> None:
        self.resident: dict[str, list[float]] = {name: [] for name in CODE}

    def run(self, name: str) -> float:
        env = {**os.environ, "ZMALLOC_MODE": "held" if name == UNCAPPED else "exact"}
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CODE[name] + TELL], env=env, check=True, capture_output=True
        )
        wall = time.perf_counter() - begun
        self.resident[name].append(int(done.stdout) / 1024)
        return wall


def beyond(figures: dict[str, list[float]], name: str) -> tuple[float, float, float]:
    """The median of what a contender takes more than stock, and the quartiles."""
    more = [a - b for a, b in zip(figures[name], figures[STOCK], strict=True)]
    low, _, high = statistics.quantiles(more, n=4)
    return statistics.median(more), low, high


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    starts = Starts()
    starts.run(COUNTING)  # writes the bytecode
    starts = Starts()
    wall = measure(list(CODE), starts.run, rounds)
    version = platform.python_version()
    print(f"CPython {version}, beyond `python -c pass` ({rounds} rounds, quartiles)")
    found = {}
    for name in (COUNTING, UNCAPPED):
        found[name] = {
            "wall_ms": [1000 * value for value in beyond(wall, name)],
            "resident_mib": list(beyond(starts.resident, name)),
        }
        ms, mib = found[name]["wall_ms"], found[name]["resident_mib"]
        print(f"{name:<10}{ms[0]:>8.2f} ms ({ms[1]:.2f} to {ms[2]:.2f}), "
              f"{mib[0]:.2f} MiB ({mib[1]:.2f} to {mib[2]:.2f})")  # fmt: skip
    keep(f"start-{version}", found)


if __name__ == "__main__":
    main()
