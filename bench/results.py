"""What was measured, a line of JSON a run: a benchmark that was stopped goes on where it was.

The folder's name is that of the commit, so that no figure of older code is ever shown as one of
today's.
"""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Run:
    """One process."""

    version: str  #: of the language
    suite: str
    program: str
    contender: str
    turn: int  #: the round; contenders of one round run after each other
    cpu: float  #: seconds of CPU time in what is measured; 0: it failed
    wall: float  #: seconds by the clock, start of the process included
    resident: int  #: peak, bytes
    why: str = ""  #: it failed

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self.version, self.suite, self.program, self.contender, self.turn


def commit() -> str:
    """The commit's short name; with a + where the tree has been changed since."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


class Results:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.runs: dict[tuple[str, str, str, str, int], Run] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                run = Run(**json.loads(line))
                self.runs[run.key] = run

    def add(self, run: Run) -> None:
        self.runs[run.key] = run
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")

    def by_program(self, suite: str, version: str) -> dict[str, dict[str, dict[int, Run]]]:
        """Program, contender, round: those that worked."""
        found: dict[str, dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
        for run in self.runs.values():
            if (run.suite, run.version) == (suite, version) and run.cpu > 0:
                found[run.program][run.contender][run.turn] = run
        return found
