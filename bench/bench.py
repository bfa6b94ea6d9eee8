"""What counting costs: stock Python, a pass-through hook, zmalloc and tracemalloc side by side.

    make bench             a few minutes
    ROUNDS=20 make bench   more of them

All contenders run interleaved in one go, each run in a process of its own, so that a machine whose
speed drifts slows all of them alike. For each program the median of the ratios, round by round,
against stock; below them the geometric mean, and zmalloc against the pass-through hook.
"""

import os
import platform
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

from interleave import geometric_mean, measure, ratio, show

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
CONTENDERS = ["stock", "pass-through", "zmalloc", "zmalloc, capped", "held, capped", "tracemalloc"]
PROGRAMS = ["trees", "objects", "words", "floats", "documents", "copies", "tables", "buffers"]


def build_passthrough():
    BUILD.mkdir(parents=True, exist_ok=True)
    target = BUILD / f"zmalloc_passthrough{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_paths()["include"]
    compiler = os.environ.get("CC", "cc")
    source = str(HERE / "passthrough.c")
    flags = ["-O2", "-fPIC", "-shared", f"-I{include}"]
    subprocess.run([compiler, *flags, source, "-o", str(target)], check=True)


def run(program, contender):
    """CPU seconds of one run in a process of its own."""
    env = dict(os.environ, PYTHONPATH=str(BUILD), PYTHONHASHSEED="1")
    command = [sys.executable, str(HERE / "programs.py"), program, contender]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main():
    rounds = int(os.environ.get("ROUNDS", "7"))
    build_passthrough()
    print(
        f"CPython {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs; "
        f"CPU time, {rounds} rounds, median ratio to stock (quartiles)\n"
    )
    columns = CONTENDERS[1:]
    print(f"{'program':<12}{'stock':>10}" + "".join(f"{name:>24}" for name in columns))
    totals = {name: [] for name in columns}
    over_hook = []
    for program in PROGRAMS:
        times = measure(CONTENDERS, lambda c, p=program: run(p, c), rounds)
        line = f"{program:<12}{statistics.median(times['stock']) * 1000:>7.0f} ms"
        for name in columns:
            totals[name].append(ratio(times, name, "stock")[0])
            line += f"{show(times, name, 'stock'):>24}"
        over_hook.append(ratio(times, "zmalloc", "pass-through")[0])
        print(line, flush=True)
    means = "".join(f"{geometric_mean(totals[name]):>24.3f}" for name in columns)
    print(f"{'mean':<12}{'':>10}{means}")
    print(
        f"\nzmalloc over the pass-through hook: {geometric_mean(over_hook):.3f} "
        f"({min(over_hook):.3f} to {max(over_hook):.3f})"
    )


if __name__ == "__main__":
    main()
