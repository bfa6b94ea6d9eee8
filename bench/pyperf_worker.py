"""Runs one of pyperformance's benchmarks in this process, under a contender.

    python bench/pyperf_worker.py CONTENDER run_benchmark.py [OPTION...]

pyperf reads CPU time in place of the wall clock here: other work on the machine stays out of it.
"""

from __future__ import annotations

import runpy
import sys
import time
import types
from pathlib import Path

import contenders


def measure_cpu_time() -> None:
    import pyperf
    from pyperf import _runner

    clocks = {**vars(time), "perf_counter": time.process_time}
    _runner.time = types.SimpleNamespace(**clocks)
    pyperf.perf_counter = time.process_time


def main() -> None:
    name, script, *options = sys.argv[1:]
    with contenders.start(name):
        measure_cpu_time()
        sys.argv = [script, *options]
        sys.path[0] = str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
