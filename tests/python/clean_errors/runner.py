"""Runs loads under many caps, each in a process of its own, several processes at a time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..processes import clean_environment
from . import loads
from .judge import verdict
from .known import known

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]

#: Bytes from the start to the limit, by kind of cap.
ROOMS = {
    "common": (50_000, 8 << 20),
    "large": (32 << 20, 128 << 20),
    "worker": (50_000, 8 << 20),  # the load runs in a thread that main joins
    "budget": (50_000, 8 << 20),  # a budget of the thread in place of the limit
}
MODES = ("exact", "held")
#: Mode `held` counts whole arenas of 1 MiB: what survives in a room of that size is nearly nothing.
HELD_ROOM = (8 << 20, 128 << 20)
PIECES = ("reserve", "debt", "close", "repair")
TIMEOUT = 60.0


@dataclass(frozen=True)
class Job:
    """One run: a load, a seed, what kind of cap, which Python, and which piece is turned off."""

    load: str
    seed: int
    kind: str = "common"
    python: str = sys.executable
    off: str | None = None
    mode: str = "exact"

    @property
    def room(self) -> int:
        """By the seed alone; small rooms are as frequent as large ones."""
        low, high = ROOMS[self.kind] if self.mode == "exact" else HELD_ROOM
        choose = random.Random(f"{self.load} {self.kind} {self.seed}")
        return max(int(low * (high / low) ** choose.random()), loads.find(self.load).least)

    @property
    def child(self) -> list[str]:
        """The command of the process that the load runs in."""
        reserve = "0" if self.off == "reserve" else str(1 << 20)
        piece = self.off if self.off not in (None, "reserve") else "-"
        where = self.kind if self.kind in ("worker", "budget") else "-"
        words = ["child", self.load, str(self.room), reserve, str(piece), where]
        return [self.python, "-X", "faulthandler", str(FOLDER), *words]

    @property
    def again(self) -> str:
        """The command line that runs exactly this again."""
        kind = [] if self.kind == "common" else [f"--{self.kind}"]
        off = ["--off", self.off] if self.off else []
        mode = [] if self.mode == "exact" else ["--mode", self.mode]
        words = ["load", self.load, "--seed", str(self.seed), *kind, *off, *mode]
        return shlex.join([shorter(self.python), shorter(str(FOLDER)), *words])


def shorter(path: str) -> str:
    """From here, where it lies below."""
    here = str(Path.cwd()) + os.sep
    return path.removeprefix(here)


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    load: str
    seed: int
    kind: str
    version: str
    off: str | None
    mode: str
    room: int
    reasons: list[str]
    seen: dict[str, Any]  #: what the process reported
    seconds: float
    again: str
    stderr: str

    @property
    def clean(self) -> bool:
        return not self.reasons

    @property
    def error(self) -> str | None:
        """Which error it was in the end: LimitError, MemoryError, ..."""
        names = (self.seen.get(who) for who in ("kind", "caller", "outside"))
        return next(filter(None, names), None)


def stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ends a process that hangs; faulthandler writes where its threads are."""
    process.send_signal(signal.SIGABRT)
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def start(
    command: Sequence[str], seed: int, timeout: float, mode: str
) -> tuple[int | None, str, str]:
    """Status, output and errors of a process; the status of one that hangs is None."""
    with subprocess.Popen(
        command,
        env=clean_environment({"PYTHONHASHSEED": str(seed), "ZMALLOC_MODE": mode}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        cwd=ROOT,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return None, *stop(process)
        return process.returncode, out, err


def last_line(out: str) -> dict[str, Any]:
    """The report that a process has printed; empty if it came to none."""
    with contextlib.suppress(ValueError, IndexError):
        seen: dict[str, Any] = json.loads(out.splitlines()[-1])
        return seen
    return {}


def run(job: Job, version: str, timeout: float = TIMEOUT) -> Outcome:
    """One run, judged."""
    load = loads.find(job.load)
    begin = time.monotonic()
    status, out, err = start(job.child, job.seed, timeout, job.mode)
    reasons = verdict(load, status, out, err)
    return Outcome(
        **{name: value for name, value in asdict(job).items() if name != "python"},
        version=version,
        room=job.room,
        reasons=reasons,
        seen=last_line(out),
        seconds=round(time.monotonic() - begin, 3),
        again=job.again,
        stderr=err[-4000:],
    )


def describe(python: str) -> tuple[str, list[str]]:
    """The version of a Python that has zmalloc, and its loads. Compiles the harness for it, too."""
    code = "import platform, zmalloc; print(platform.python_version())"
    commands = ([python, "-c", code], [python, str(FOLDER), "list"])
    environment = clean_environment({"PYTHONDONTWRITEBYTECODE": None})
    version, names = (
        subprocess.run(
            command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True,
            timeout=TIMEOUT,
        ).stdout
        for command in commands
    )  # fmt: skip
    return version.strip(), names.split()


def run_all(
    jobs: Sequence[tuple[Job, str]],
    *,
    processes: int,
    timeout: float = TIMEOUT,
    done: Callable[[Outcome], object] = lambda outcome: None,
) -> list[Outcome]:
    """Runs the jobs, each beside the version of its Python; calls `done` after each."""
    outcomes = []
    with ThreadPoolExecutor(processes) as pool:
        running: list[Future[Outcome]] = [
            pool.submit(run, job, version, timeout) for job, version in jobs
        ]
        try:
            for future in as_completed(running):
                outcome = future.result()
                done(outcome)
                outcomes.append(outcome)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """By version of Python: how many runs, and what part of them was clean."""
    yield (
        f"{'Python':<10}{'off':<10}{'runs':>8}{'clean':>8}{'clean %':>10}"
        f"{'LimitError':>12}{'MemoryError':>13}{'known':>8}{'failed':>8}"
    )
    for version, off in sorted({(one.version, one.off or "") for one in outcomes}):
        mine = [one for one in outcomes if (one.version, one.off or "") == (version, off)]
        clean = [one for one in mine if one.clean]
        explained = [one for one in mine if not one.clean and is_known(one)]
        errors = [one.error for one in clean]
        yield (
            f"{version:<10}{off or '-':<10}{len(mine):>8}{len(clean):>8}"
            f"{100 * len(clean) / len(mine):>10.2f}{errors.count('LimitError'):>12}"
            f"{errors.count('MemoryError'):>13}{len(explained):>8}"
            f"{len(mine) - len(clean) - len(explained):>8}"
        )


def is_known(outcome: Outcome) -> bool:
    return known(outcome.load, outcome.reasons, outcome.version) is not None


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What was not clean and has no entry in known.py."""
    bad = [one for one in outcomes if not one.clean and not is_known(one)]
    return sorted(bad, key=lambda one: (one.version, one.load, one.kind, one.seed))


def report(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The table, each failure with the command that runs it again, and what is known."""
    yield from table(outcomes)
    for one in failures(outcomes):
        yield f"\n{one.version} {one.load} seed {one.seed} {one.kind}, {one.room:,} bytes of room"
        yield from (f"    {reason}" for reason in one.reasons)
        yield f"    {one.again}"
    explained = [one for one in outcomes if not one.clean and is_known(one)]
    if explained:
        yield "\nWhat CPython itself makes unavoidable:"
    for one in explained:
        entry = known(one.load, one.reasons, one.version)
        assert entry is not None
        yield f"    {one.version} {one.load}: {one.reasons[0]} ({entry.issue})\n    {one.again}"
