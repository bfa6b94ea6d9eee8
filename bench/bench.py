"""What counting costs: stock Python, a pass-through hook, zmalloc and its peers side by side.

    make bench         a few minutes: the allocation-bound set and ten of pyperformance's
    make bench-full    hours: all of both, on CPython 3.11 and 3.13, and more; goes on where it was

    python bench/bench.py quick|full [ROUNDS [PROGRAMS [CONTENDERS]]]

The last two are regular expressions: those alone whose whole name is meant.

All contenders of a program run after each other, each run in a process of its own, round by round
and each round beginning with another one, so that a machine whose speed drifts slows all of them
alike. What is compared is CPU time. A figure is the median of the ratios within a round; of a set
of programs, the geometric mean of those. The allocation-bound set, which is short, has five times
as many rounds; what takes many times as long as stock Python takes part in the first two. What has
run is kept in build/bench, by commit; bench/report.py shows it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import contenders
import programs
import pyperformance_set
import report
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
from progress import bar
from results import BUILD, Results, Run, folder, keep, kept

HERE = Path(__file__).resolve().parent

MAIN = [STOCK, AGAIN, HOOK, COUNTING, HELD]
PEERS = [CAPPED, BUDGET, TRACEMALLOC, MEMRAY, MEMRAY_PYTHON, SCALENE]

#: What they cost is no matter of percents.
SLOW = (TRACEMALLOC, MEMRAY, MEMRAY_PYTHON, SCALENE)
SLOW_ROUNDS = 2
SHORT = 5  #: times as many rounds for the set

#: A run of a contender that takes longer is not waited for.
TIMEOUT = 180.0


@dataclass(frozen=True)
class Program:
    suite: str
    name: str
    contenders: list[str]
    run: Callable[[str], Run]


def build_passthrough() -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    target = BUILD / f"zmalloc_passthrough{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_paths()["include"]
    compiler = os.environ.get("CC", "cc")
    source = str(HERE / "passthrough.c")
    flags = ["-O2", "-fPIC", "-shared", f"-I{include}"]
    subprocess.run([compiler, *flags, source, "-o", str(target)], check=True)
    os.environ["PYTHONPATH"] = str(BUILD)


def install(packages: list[str]) -> bool:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    only = ["--only-binary=memray,scalene,matplotlib"]
    done = subprocess.run([*pip, *only, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        print(f"skipped: {' '.join(packages)}: {''.join(last)}", file=sys.stderr)
    return done.returncode == 0


def run_of_set(name: str, contender: str) -> Run:
    """One of the allocation-bound set."""
    command = contenders.command(
        sys.executable, contender, [str(HERE / "programs.py"), name, contender]
    )
    seconds, wall, resident, why = pyperformance_set.run_plain(command, TIMEOUT)
    return Run(VERSION, "set", name, contender, 0, seconds, wall, resident, why)


def run_of_pyperformance(one: pyperformance_set.Benchmark, contender: str) -> Run:
    worker = pyperformance_set.worker(contender, one)
    command = contenders.command(sys.executable, contender, worker)
    values, wall, resident, why = pyperformance_set.run(command, TIMEOUT)
    seconds = min(values.get(one.name, [0.0]))
    why = why or ("" if seconds else "no value")
    return Run(VERSION, "pyperformance", one.name, contender, 0, seconds, wall, resident, why)


VERSION = platform.python_version()


def planned() -> tuple[list[pyperformance_set.Benchmark], dict[str, str]]:
    """What pyperformance_set.find() has found, now or when this was begun: it takes minutes."""
    name = f"plan-{VERSION}"
    plan = kept(folder(), name)
    if plan:
        return [pyperformance_set.Benchmark(**one) for one in plan["found"]], plan["missing"]
    found, missing = pyperformance_set.find(sys.executable)
    keep(name, {"found": [asdict(one) for one in found], "missing": missing})
    return found, missing


def note_versions() -> None:
    """Of what is compared, for the page."""
    names = ["pyperformance", *sorted(set(contenders.PACKAGES.values()))]
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    keep(f"versions-{VERSION}", found)


def all_programs(is_full: bool) -> Iterator[Program]:
    there = {name: install([package]) for name, package in contenders.PACKAGES.items()}
    peers = [name for name in PEERS if there.get(name, True)]
    for name in programs.NAMES:
        # scalene reports on a program when it ends, and prints over what this one prints.
        of_set = [*MAIN, *(peer for peer in peers if peer != SCALENE)]
        yield Program("set", name, of_set, functools.partial(run_of_set, name))
    if not install(["pyperformance"]):
        return
    for package in pyperformance_set.DEPENDENCIES:
        install([package])
    found, missing = planned()
    for name, why in sorted(missing.items()):
        if name not in pyperformance_set.EXCLUDED:
            print(f"skipped: pyperformance's {name}: {why}", file=sys.stderr)
    for one in found:
        is_one_of_ten = one.name in pyperformance_set.TEN
        if is_full or is_one_of_ten:
            taking_part = [*MAIN, *peers] if is_one_of_ten else MAIN
            run = functools.partial(run_of_pyperformance, one)
            yield Program("pyperformance", one.name, taking_part, run)


def measure(results: Results, taking_part: list[Program], rounds: int) -> None:
    """Round by round, so that what is there when it is stopped is there for all programs."""
    todo = [
        (program, contender, turn)
        for turn in range(rounds * SHORT)
        for program in taking_part
        if turn < rounds or program.suite == "set"
        for contender in _from(program.contenders, turn)
        if (turn < SLOW_ROUNDS or contender not in SLOW)
        and (VERSION, program.suite, program.name, contender, turn) not in results.runs
    ]
    with bar(len(todo)) as step:
        for program, contender, turn in todo:
            step(f"{program.name}: {contender}")
            run = program.run(contender)
            results.add(Run(**{**vars(run), "turn": turn}))


def _from(names: list[str], turn: int) -> list[str]:
    turn %= max(1, len(names))
    return [*names[turn:], *names[:turn]]


def main() -> None:
    form = sys.argv[1] if len(sys.argv) > 1 else "quick"
    if form not in ("quick", "full"):
        raise SystemExit(__doc__)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else {"quick": 3, "full": 5}[form]
    build_passthrough()
    wanted, compared = (re.compile(sys.argv[i] if len(sys.argv) > i else ".*") for i in (3, 4))
    results = Results(folder() / "python.jsonl")
    programs_of_it = list(all_programs(form == "full"))
    note_versions()
    taking_part = [
        replace(one, contenders=[name for name in one.contenders if compared.fullmatch(name)])
        for one in programs_of_it
        if wanted.fullmatch(one.name)
    ]
    measure(results, taking_part, rounds)
    report.show(results, VERSION)


if __name__ == "__main__":
    main()
