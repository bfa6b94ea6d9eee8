"""What a long target has counted, for the documentation's table: build/reliability/NAME.json."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as Tree
from collections.abc import Mapping, Sequence
from pathlib import Path

from core import toolchain

FOLDER = toolchain.ROOT / "build" / "reliability"


def version(*command: str | Path) -> str:
    """The line of what a tool says about itself that has its number, or "none"."""
    try:
        done = toolchain.run([*command, "--version"])
    except OSError:
        return "none"
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    return next((line for line in lines if any(map(str.isdigit, line))), "unknown")


class Figures:
    """Counts of one target. Each part of it is said as it ends."""

    def __init__(self, name: str, *tools: str | Path) -> None:
        self.name = name
        self.start = time.monotonic()
        self.versions = {Path(tool).name: version(tool) for tool in tools}
        self.parts: dict[str, dict[str, int]] = {}
        self.notes: dict[str, str] = {}  # by part: what is no number

    def add(self, part: str, **counts: int) -> None:
        self.parts[part] = counts
        words = ", ".join(f"{number} {what}" for what, number in counts.items())
        print(f"{part}: {words}", flush=True)

    def total(self, what: str) -> int:
        return sum(counts.get(what, 0) for counts in self.parts.values())

    def write(self) -> int:
        """Writes the file, a whole one or none; the status that the target ends with."""
        kinds = dict.fromkeys(kind for counts in self.parts.values() for kind in counts)
        totals = {kind: self.total(kind) for kind in kinds}
        record = {
            "name": self.name,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.start),
            "system": f"{platform.system()} {platform.machine()} {platform.libc_ver()[1]}",
            "versions": {"python": platform.python_version(), **self.versions},
            "totals": totals,
            "parts": self.parts,
            "notes": self.notes,
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        product = FOLDER / f"{self.name}.json"
        product.with_suffix(".tmp").write_text(json.dumps(record, indent=2) + "\n")
        product.with_suffix(".tmp").replace(product)
        words = ", ".join(f"{number} {kind}" for kind, number in totals.items())
        print(f"{self.name}: {words}; {product.relative_to(toolchain.ROOT)}")
        return 1 if totals.get("findings") else 0


def suite(tests: Sequence[str], *, python: Sequence[str | Path] = (sys.executable,),
          env: Mapping[str, str] | None = None, timeout: float = 3600,
          cwd: Path = toolchain.ROOT) -> dict[str, int]:
    """Runs tests by pytest in a process of its own and counts them; shows what failed.

    What ends without a report, or with a status that no test explains, is a finding, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        done = subprocess.run(
            [*map(str, python), "-m", "pytest", "-q", "-p", "no:cacheprovider",
             f"--junitxml={report}", *tests],
            cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False)
        counts = {"tests": 0, "skipped": 0, "findings": 0}
        if report.exists():
            for case in Tree.parse(report).getroot().iter("testcase"):
                kinds = {child.tag for child in case}
                counts["tests"] += 1
                counts["skipped"] += "skipped" in kinds
                counts["findings"] += bool(kinds & {"failure", "error"})
    if done.returncode != 0 and not counts["findings"]:
        counts["findings"] = 1
    if counts["findings"]:
        print(done.stdout[-20_000:], flush=True)
    return counts
