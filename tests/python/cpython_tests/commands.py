"""The command line: runs, compares, prints tables, writes figures."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..clean_errors.bar import progress
from . import known, places, runner
from .places import ROOT, NoTests, Places
from .runner import Compared, Difference


class Judged:
    """The results of one interpreter in one mode, sorted into what they mean."""

    def __init__(self, version: str, mode: str, results: Sequence[Compared]) -> None:
        self.version, self.mode = version, mode
        self.results = sorted(results, key=lambda one: one.module)
        self.explained: list[tuple[Compared, Difference, known.Known]] = []
        self.flaky: list[tuple[Compared, Difference]] = []
        self.unexplained: list[tuple[Compared, Difference]] = []
        for result in self.results:
            for one in result.differences:
                entry = known.known(result.module, one.case, version, mode)
                if entry is not None:
                    self.explained.append((result, one, entry))
                else:
                    (self.flaky if one.is_flaky else self.unexplained).append((result, one))

    @property
    def not_compared(self) -> list[Compared]:
        """Stock itself did not come to an end of them, and so with zmalloc."""
        return [one for one in self.results if not one.is_complete and not self.is_skipped(one)]

    @property
    def idle(self) -> list[known.Known]:
        """Entries for what has been run here that explain nothing."""
        used = {entry for _, _, entry in self.explained}
        return [
            entry
            for entry in known.KNOWN
            if entry not in used
            and entry.is_for(self.version, self.mode)
            and any(re.fullmatch(entry.module, one.module) for one in self.results)
        ]

    @staticmethod
    def is_skipped(result: Compared) -> bool:
        return set(result.states["stock"]) <= {"skipped", "no tests"}

    def figures(self) -> dict[str, object]:
        skipped = sum(map(self.is_skipped, self.results))

        def told(found: Sequence[tuple[Compared, Difference]]) -> list[dict[str, object]]:
            return [
                {
                    "module": result.module,
                    "test": one.case,
                    "stock": one.stock,
                    "zmalloc": one.hooks,
                }
                for result, one in found
            ]

        return {
            "name": "cpython-tests",
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "version": self.version,
            "mode": self.mode,
            "modules": len(self.results) - skipped,
            "modules skipped on this machine": skipped,
            "modules that stock does not end": [one.module for one in self.not_compared],
            "test cases": sum(one.cases for one in self.results),
            "test cases skipped on this machine": sum(one.skipped for one in self.results),
            "differences": len(self.explained) + len(self.unexplained),
            "differences with a reason": [
                {**told([(result, one)])[0], "reason": entry.reason}
                for result, one, entry in self.explained
            ],
            "differences without a reason": told(self.unexplained),
            "flaky": told(self.flaky),
            "test cases left out": [
                {"module": module, "tests": pattern, "reason": reason}
                for module, pattern, reason in known.IGNORED
            ],
            "minutes": round(sum(sum(one.seconds.values()) for one in self.results) / 60, 1),
            "seconds of stock": round(sum(one.seconds["stock"] for one in self.results)),
            "seconds of zmalloc": round(sum(one.seconds["hooks"] for one in self.results)),
        }

    def report(self) -> Iterator[str]:
        seen = self.figures()
        yield (
            f"CPython {self.version}, mode {self.mode}: {seen['modules']} modules"
            f" ({seen['modules skipped on this machine']} more are skipped on this machine),"
            f" {seen['test cases']} test cases, {seen['minutes']} minutes"
        )
        yield (
            f"  {seen['differences']} differences, {len(self.unexplained)} of them without a"
            f" reason; {len(self.flaky)} flaky"
        )
        entries = dict.fromkeys(entry for _, _, entry in self.explained)
        for entry in entries:
            these = [(result, one) for result, one, which in self.explained if which == entry]
            yield f"  known: {entry.reason}"
            yield from self.rows(these)
        for title, found in (("flaky", self.flaky), ("NOT EXPLAINED", self.unexplained)):
            if found:
                yield f"  {title}:"
                yield from self.rows(found)
        for result, one in self.unexplained:
            yield f"  --- {result.module} {one.case}"
            yield from (f"    {line}" for line in one.text.splitlines()[-12:])
        for entry in self.idle:
            yield f"  explains nothing here: {entry.module} {entry.case}"
        for result in self.not_compared:
            yield f"  not compared: {result.module}, stock: {', '.join(result.states['stock'])}"

    @staticmethod
    def rows(found: Sequence[tuple[Compared, Difference]]) -> Iterator[str]:
        for result, one in found:
            case = one.case.removeprefix("test.").removeprefix(f"{result.module}.")
            name = f"{result.module}: {case}"
            yield f"    {name:<72} {'/'.join(one.stock)} -> {'/'.join(one.hooks)}"


def results_file(made: Places, mode: str) -> Path:
    return made.folder / f"results-{mode}.jsonl"


def read(file: Path) -> list[Compared]:
    if not file.exists():
        return []
    found = [Compared.of(line) for line in file.read_text().splitlines()]
    return list({one.module: one for one in found}.values())


def one_python(python: str, options: argparse.Namespace) -> bool:
    """True unless there is a difference that nobody has explained."""
    try:
        made = places.prepare(python, options.mode)
    except NoTests as missing:
        print(f"skipped: {missing}", file=sys.stderr)
        return True
    file, mode = results_file(made, options.mode), options.mode
    if not options.go_on:
        file.unlink(missing_ok=True)
    present = {one.module for one in read(file)}
    chosen = [name for name in places.modules(made) if re.search(options.only, name)]
    waiting = [name for name in places.first(chosen, known.FIRST.split()) if name not in present]
    with file.open("a") as out, progress(len(waiting), f"CPython {made.version}") as step:

        def done(result: Compared) -> None:
            out.write(result.line() + "\n")
            out.flush()
            step(not Judged(made.version, mode, [result]).unexplained)

        runner.run_all(
            made,
            waiting,
            processes=options.processes,
            done=done,
            timeout=options.timeout,
            is_explained=lambda module, case: (
                known.known(module, case, made.version, mode) is not None
            ),
        )
    judged = Judged(made.version, mode, [one for one in read(file) if one.module in chosen])
    print("\n".join(judged.report()), flush=True)
    options.json.mkdir(parents=True, exist_ok=True)
    name = f"cpython-tests-{made.version}{'' if mode == 'exact' else f'-{mode}'}.json"
    (options.json / name).write_text(json.dumps(judged.figures()) + "\n")
    return not judged.unexplained


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="cpython_tests", description=__doc__)
    made.add_argument("--python", action="append", metavar="PYTHON", help="one that has zmalloc")
    made.add_argument("--mode", choices=sorted(places.START), default="exact")
    made.add_argument("--only", default="", metavar="REGEX", help="modules whose name matches")
    made.add_argument("--go-on", action="store_true", help="keep the results that are there")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    made.add_argument("--timeout", type=float, default=runner.TIMEOUT, metavar="SECONDS")
    made.add_argument(
        "--json", type=Path, default=ROOT / "build" / "reliability", metavar="FOLDER",
        help="where the figures go",
    )  # fmt: skip
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    # a shell's background job ignores it, and tests that interrupt themselves would wait in vain
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends them, too
    well = [one_python(python, options) for python in options.python or [sys.executable]]
    return 0 if all(well) else 1
