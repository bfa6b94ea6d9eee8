"""What gcov has counted, by line and branch: read from its JSON and merged over many builds.

One source is compiled into many programs, for many versions of Python and Lua. A line counts where
any of them has compiled it, and is covered where any has run it. So it is with branches; where two
builds make something else of one line its branches are not the same ones, and all count.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core import toolchain

BATCH = 50


class Site(NamedTuple):
    """A line's branches as one build has made them."""

    line: int
    function: str
    branches: int


class Counts:
    """How often the lines of a file have been run, and its branches been taken."""

    def __init__(self) -> None:
        self.lines: Counter[int] = Counter()
        self.sites: dict[Site, list[int]] = {}
        #: name: first and last line, of each that a build has by that name
        self.functions: dict[str, set[tuple[int, int]]] = defaultdict(set)

    def add(self, file: dict[str, Any]) -> None:
        """A file's part of gcov's JSON."""
        for function in file["functions"]:
            self.functions[function["name"]].add((function["start_line"], function["end_line"]))
        for line in file["lines"]:
            number = line["line_number"]
            self.lines[number] += line["count"]
            taken = [branch["count"] for branch in line["branches"] if not branch["throw"]]
            if taken:
                site = Site(number, line.get("function_name", ""), len(taken))
                before = self.sites.get(site, [0] * len(taken))
                self.sites[site] = [a + b for a, b in zip(before, taken, strict=True)]

    @property
    def uncovered(self) -> set[int]:
        return {line for line, count in self.lines.items() if not count}

    @property
    def branches(self) -> Counter[int]:
        """How many there are, by line."""
        every: Counter[int] = Counter()
        for site in self.sites:
            every[site.line] += site.branches
        return every

    @property
    def untaken(self) -> Counter[int]:
        missing: Counter[int] = Counter()
        for site, taken in self.sites.items():
            missing[site.line] += taken.count(0)
        return +missing


def name_of(path: Path, roots: Sequence[Path], folders: Sequence[str]) -> str | None:
    """A source's name in the project, None for what is none of the folders' own."""
    for root in roots:
        if path.is_relative_to(root):
            name = path.relative_to(root).as_posix()
            return name if name.rpartition("/")[0] in folders else None
    return None


def read(notes: Iterable[Path], roots: Sequence[Path], folders: Sequence[str],
         gcov: str = "gcov") -> dict[str, Counts]:
    """The counts of each source that is directly in one of the folders, below any of the roots.

    `notes` are the .gcno files that the compiler has left: also those of what has never run.
    """
    found: dict[str, Counts] = defaultdict(Counts)
    every = sorted(notes)
    for start in range(0, len(every), BATCH):
        words = [gcov, "--json-format", "--branch-probabilities", "--stdout",
                 *every[start:start + BATCH]]
        for text in toolchain.must(words).splitlines():
            if not text.startswith("{"):
                continue
            told = json.loads(text)
            for file in told["files"]:
                path = Path(told["current_working_directory"], file["file"]).resolve()
                name = name_of(path, roots, folders)
                if name:
                    found[name].add(file)
    return dict(found)


def ranges(lines: Iterable[int], joined: Iterable[int] = ()) -> str:
    """Lines as text: "3, 7-9". Two that have only lines of `joined` between them are one range."""
    between = set(joined)
    parts: list[list[int]] = []
    for line in sorted(lines):
        if parts and all(k in between for k in range(parts[-1][1] + 1, line)):
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(f"{a}-{b}" if a != b else f"{a}" for a, b in parts)
