"""The command line: run, load, list, show, matrix, checks."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from . import checks, loads, matrix, shapes
from .bar import progress
from .runner import (
    MODES,
    PIECES,
    ROOMS,
    ROOT,
    TIMEOUT,
    Job,
    Outcome,
    describe,
    failures,
    report,
    run,
    run_all,
)

RESULTS = ROOT / "build" / "clean-errors" / "results.jsonl"


def plan(options: argparse.Namespace) -> list[tuple[Job, str]]:
    """All jobs: loads x caps x Pythons x pieces turned off."""
    jobs = []
    wanted = re.compile(options.only)
    counts = {kind: getattr(options, kind) for kind in ROOMS}
    for python in options.python or [sys.executable]:
        version, names = describe(python)
        for name in filter(wanted.search, names):
            for kind, count in counts.items():
                load = loads.find(name)
                if (kind == "worker" and load.main_only) or (kind == "budget" and load.spreads):
                    continue
                seeds = range(options.base, options.base + count)
                pieces = [None if off == "nothing" else off for off in options.off or ["nothing"]]
                jobs += [
                    (Job(name, seed, kind, python, off, options.mode), version)
                    for seed in seeds
                    for off in pieces
                ]
    return jobs


def run_command(options: argparse.Namespace) -> int:
    jobs = plan(options)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with options.results.open("a") as file, progress(len(jobs), "loads") as step:

        def done(outcome: Outcome) -> None:
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            step(outcome.clean)

        outcomes = run_all(jobs, processes=options.processes, timeout=options.timeout, done=done)
    print("\n".join(report(outcomes)))
    return 1 if failures(outcomes) and not options.off else 0


def load_command(options: argparse.Namespace) -> int:
    """One run, with all that it printed."""
    job = Job(options.name, options.seed, options.kind, sys.executable, options.off, options.mode)
    outcome = run(job, sys.version.split()[0], options.timeout)
    print(outcome.stderr, end="", file=sys.stderr)
    print(f"PYTHONHASHSEED={job.seed}", *job.child)
    print(json.dumps(outcome.seen))
    print("\n".join(outcome.reasons) or f"clean: {outcome.error}")
    return 1 if outcome.reasons else 0


def matrix_command(options: argparse.Namespace) -> int:
    pythons = options.python or [sys.executable]
    with progress(len(pythons) * len(shapes.WRAPPERS), "matrix") as step:
        results = matrix.run_all(
            pythons,
            processes=options.processes,
            times=options.times,
            tracer=options.tracer,
            off=options.off,
            mode=options.mode,
            only=options.only,
            done=lambda result: step(result.right),
        )
    print("\n".join(matrix.report(results)))
    return 0 if options.off or all(result.right for result in results) else 1


def checks_command(options: argparse.Namespace) -> int:
    figures = checks.run_all(
        options.python or [sys.executable],
        only=options.only,
        quick=options.quick,
        mode=options.mode,
        done=lambda figure: print("\n".join(checks.report([figure])), flush=True),
    )
    return 0 if all(figure.good for figure in figures) else 1


def list_command(options: argparse.Namespace) -> int:
    print("\n".join(loads.names()))
    return 0


def show_command(options: argparse.Namespace) -> int:
    print(inspect.getsource(loads.find(options.name).function), end="")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="clean_errors", description=__doc__)
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(function=function)
        one.add_argument("--mode", choices=MODES, default="exact", help="what zmalloc counts")
        return one

    one = command("run", run_command, "run loads under many caps")
    one.add_argument("--only", default="", metavar="REGEX", help="loads whose name matches")
    one.add_argument("--common", type=int, default=25, metavar="N", help="caps of 50 kB to 8 MB")
    one.add_argument("--large", type=int, default=5, metavar="N", help="caps of 32 to 128 MB")
    one.add_argument("--worker", type=int, default=5, metavar="N", help="common caps, in a thread")
    one.add_argument("--budget", type=int, default=5, metavar="N", help="as budgets of the thread")
    one.add_argument("--base", type=int, default=1, metavar="SEED", help="the first seed")
    one.add_argument(
        "--off", action="append", choices=("nothing", *PIECES), help="turn a piece off"
    )
    one.add_argument("--python", action="append", metavar="PYTHON", help="one that has zmalloc")
    one.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    one.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS")
    one.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")

    one = command("matrix", matrix_command, "run loops x handlers x kinds of functions x threads")
    one.add_argument("--only", default="", metavar="REGEX", help="of 'KIND HANDLER LOOP'")
    one.add_argument("--times", type=int, default=1, metavar="N", help="rounds of each cell")
    one.add_argument("--tracer", choices=("none", "ctrace", "sysmon"), default="none")
    one.add_argument("--off", choices=("repair",), help="turn the repair off")
    one.add_argument("--python", action="append", metavar="PYTHON", help="one that has zmalloc")
    one.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")

    one = command("checks", checks_command, "take the figures that no single load shows")
    one.add_argument("--only", default="", metavar="REGEX", help="checks whose name matches")
    one.add_argument("--quick", action="store_true", help="less of each, and none that is slow")
    one.add_argument("--python", action="append", metavar="PYTHON", help="one that has zmalloc")

    one = command("load", load_command, "run one load under one cap")
    one.add_argument("name")
    one.add_argument("--seed", type=int, default=1)
    kinds = one.add_mutually_exclusive_group()
    for kind in set(ROOMS) - {"common"}:
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind)
    one.set_defaults(kind="common")
    one.add_argument("--off", choices=PIECES)
    one.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS")

    command("list", list_command, "print the names of all loads")
    command("show", show_command, "print a load's source").add_argument("name")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    status: int = options.function(options)
    return status
