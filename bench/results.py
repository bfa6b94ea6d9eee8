"""What was measured, kept in a folder that has the name of the code's last commit: no figure of
older code is ever shown as one of today's.

Python's is a line of JSON a run: a benchmark that was stopped goes on where it was. The others
write a file when they have ended.

    python bench/results.py       prints the folder
"""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"


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


#: What is measured. Other changes leave the figures what they are.
MEASURED = ("csrc", "lua", "zmalloc_py", "setup.py")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words, "--", *MEASURED]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def commit() -> str:
    """The last one that changed what is measured; with a + where that has been changed since."""
    name = _git("log", "-1", "--format=%h", "--abbrev=10")
    return f"{name}{'+' if _git('status', '--porcelain') else ''}" if name else "unknown"


def folder() -> Path:
    """Where figures of this commit are kept."""
    return BUILD / commit()


def keep(name: str, figures: object) -> None:
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def kept(place: Path, name: str) -> Any:
    """What keep() has written there; None: nothing."""
    file = place / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


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


if __name__ == "__main__":
    print(folder())
