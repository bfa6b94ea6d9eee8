"""Runs each module of Lib/test both ways, in a process of its own, and compares test by test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .known import ignored
from .places import WAYS, Places, environment, full_name

INSIDE = Path(__file__).with_name("inside.py")
TIMEOUT = 300.0
#: How often a module is run each way, once it has shown a difference that nobody has explained.
RUNS = 3
#: In place of a test case: what became of the process.
WHOLE = "(the module)"
#: Statuses of regrtest with which all test cases have been run, or none is to be.
STATES = {0: "success", 2: "failure", 3: "environment changed", 4: "no tests"}


class Stopped(Exception):
    """Nothing is run any more."""


class Running:
    """The processes that are there, for whoever has to end them early."""

    def __init__(self) -> None:
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.is_over = False

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> int:
        self.processes.add(process)
        try:
            if self.is_over:
                raise Stopped
            return process.wait(seconds)
        finally:
            end(process)
            self.processes.discard(process)

    def stop(self) -> None:
        self.is_over = True
        for process in list(self.processes):
            end(process)


RUNNING = Running()


@dataclass
class Run:
    """One module, once, one way."""

    state: str
    seconds: float
    outcomes: dict[str, set[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.state in STATES.values()

    def of(self, case: str) -> str:
        if case == WHOLE:
            return self.state
        return " and ".join(sorted(self.outcomes.get(case, {"absent"})))


@dataclass
class Difference:
    """One test case whose outcomes are not the same, in each run that has been made."""

    case: str
    stock: list[str]
    hooks: list[str]
    text: str  #: the last error or reason with zmalloc, or else without

    @property
    def is_flaky(self) -> bool:
        """Both ways have had the same outcome: a matter of chance, or of load."""
        return bool(set(self.stock) & set(self.hooks))


@dataclass
class Compared:
    """One module, both ways."""

    module: str
    cases: int
    skipped: int
    states: dict[str, list[str]]
    seconds: dict[str, float]
    differences: list[Difference]

    @property
    def is_complete(self) -> bool:
        return any(state in STATES.values() for state in self.states["stock"])

    @staticmethod
    def of(line: str) -> Compared:
        made = json.loads(line)
        made["differences"] = [Difference(**one) for one in made["differences"]]
        return Compared(**made)

    def line(self) -> str:
        return json.dumps(asdict(self))


def read(record: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """What each test case did: 'unfinished' where it has begun, and nothing has come of it."""
    outcomes: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    if record.exists():
        for line in record.read_text().splitlines():
            kind, case, text = json.loads(line)
            seen = outcomes.setdefault(case, set())
            if kind != "start":
                seen.add(kind)
                texts[case] = text or texts.get(case, "")
    for seen in outcomes.values():
        # one of its sub-tests was skipped, or has failed: it went on
        for less in ("skipped", "success"):
            if len(seen) > 1:
                seen.discard(less)
    return {case: seen or {"unfinished"} for case, seen in outcomes.items()}, texts


@contextlib.contextmanager
def room() -> Iterator[Path]:
    """A folder for what tests leave behind; a short name, for sockets in it."""
    folder = tempfile.mkdtemp(prefix="zt")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Whatever the tests have started goes, too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(
    python: Path, module: str, log: Path, timeout: float = TIMEOUT, options: Sequence[str] = ()
) -> Run:
    """One run. What it prints is kept in `log`, its test cases beside it."""
    record = log.with_suffix(".jsonl")
    record.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with room() as folder, log.open("wb") as file:
        command = [python, INSIDE, record, "--tempdir", folder, "--fail-env-changed",
                   "--randseed", "1", "--timeout", f"{timeout}", *options,
                   full_name(module)]  # fmt: skip
        begun = time.monotonic()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**environment(), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            # regrtest itself ends at the timeout, and says where it was
            status = RUNNING.wait(process, timeout * 1.1 + 10)
            state = STATES.get(status, f"status {status}")
            if status < 0:
                state = f"signal {-status}"
        except subprocess.TimeoutExpired:
            state = "timeout"
        seconds = time.monotonic() - begun
    outcomes, texts = read(record)
    if b"Timeout (" in log.read_bytes()[-100_000:] and state == "status 1":
        state = "timeout"
    if state == "success" and not outcomes:
        state = "skipped"
    made = Run(state, seconds, outcomes, texts)
    if not made.is_complete and state != "skipped":
        last = [case for case, seen in outcomes.items() if "unfinished" in seen]
        made.texts[WHOLE] = f"in {', '.join(last) or 'none of its tests'}"
    return made


def compare(module: str, runs: dict[str, list[Run]]) -> Compared:
    """All that differs, case by case, in the runs that came to their end."""
    stock, hooks = (runs[way] for way in WAYS)
    whole = {way: [one for one in runs[way] if one.is_complete] for way in WAYS}
    names = dict.fromkeys(name for way in WAYS for one in whole[way] for name in one.outcomes)
    if not all(whole.values()):
        names = {}
    found = []
    for case in [*names, WHOLE]:
        these = whole if case != WHOLE else runs
        seen = {way: [one.of(case) for one in these[way]] for way in WAYS}
        if len({*seen["stock"], *seen["hooks"]}) == 1:
            continue
        if case == WHOLE and found and all(one.is_complete for one in stock + hooks):
            continue  # its tests say that already
        texts = [one.texts.get(case, "") for way in WAYS for one in these[way]]
        text = next((text for text in reversed(texts) if text), "")
        found.append(Difference(case, seen["stock"], seen["hooks"], text))
    sample = next(iter(whole["stock"]), stock[0])
    return Compared(
        module=module,
        cases=len(sample.outcomes),
        skipped=sum(seen == {"skipped"} for seen in sample.outcomes.values()),
        states={way: [one.state for one in runs[way]] for way in WAYS},
        seconds={way: round(sum(one.seconds for one in runs[way]), 2) for way in WAYS},
        differences=found,
    )


def both(
    places: Places,
    module: str,
    timeout: float = TIMEOUT,
    is_explained: Callable[[str, str], bool] = lambda module, case: False,
    options: Sequence[str] = (),
) -> Compared:
    """One module both ways, again where there is a difference that nobody has explained."""
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    options = [*options, *ignored(module)]
    for n in range(1, RUNS + 1):
        for way in WAYS:
            log = places.folder / "logs" / f"{module}-{way}-{n}.log"
            runs[way].append(run(places.pythons[way], module, log, timeout, options))
        seen = compare(module, runs)
        if all(is_explained(module, one.case) for one in seen.differences):
            break
    return seen


def run_all(
    places: Places,
    names: Sequence[str],
    *,
    processes: int,
    done: Callable[[Compared], Any],
    **options: Any,
) -> list[Compared]:
    """Several modules at once; `done` is called as each of them ends."""
    with ThreadPoolExecutor(processes) as pool:
        waiting = [pool.submit(both, places, name, **options) for name in names]
        results = []
        try:
            for future in as_completed(waiting):
                results.append(future.result())
                done(results[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            RUNNING.stop()
            raise
    return results
