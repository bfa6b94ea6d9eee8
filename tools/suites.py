"""Runs test suites of real projects with the plugin and without, and compares: make test-suites

    tools/suites.py PYTHON [ROUNDS] [NAME...]

Each project's sdist is downloaded by pip and unpacked below build/suites, its tests are run by
PYTHON, whose environment has pytest and zmalloc: without the plugin, and with a default limit and
the report. Outcomes are compared test by test. Exit status 1, with the tests' names, if one
differs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("build/suites").resolve()

#: What runs with the plugin gets.
OPTIONS = ["-p", "zmalloc", "--memory-limit=1GiB", "--memory-report"]

#: Interleaved pairs of runs that the time is taken of, unless told.
ROUNDS = 3


@dataclass(frozen=True)
class Suite:
    """A project of pure Python whose sdist has its tests."""

    version: str
    tests: str  #: below the sdist's folder
    source: str = "."  #: what goes onto the path
    needs: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default=())


SUITES = {
    "attrs": Suite("25.4.0", "tests", "src", ("hypothesis",), ("_hypothesis_pytestplugin",),
                   ("--ignore=tests/test_mypy.yml", "--deselect=tests/test_packaging.py")),
    "more-itertools": Suite("10.8.0", "tests"),
    "packaging": Suite("25.0", "tests", "src", ("pretend",)),
}  # fmt: skip


def unpack(python: str, name: str, suite: Suite) -> Path:
    """The folder of the sdist's content."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pip = [python, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", name,
         "-d", FOLDER, f"{name}=={suite.version}"], check=False,
    )  # fmt: skip
    stem = re.sub(r"[-_.]+", "[-_.]", name)
    (archive,) = (p for p in FOLDER.iterdir() if re.fullmatch(rf"{stem}-.*\.tar\.gz", p.name))
    target = FOLDER / archive.name.removesuffix(".tar.gz")
    if not target.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(FOLDER, filter="data")
    if suite.needs:
        subprocess.run([*pip, "install", *suite.needs], check=True)
    return target


def run(
    python: str, folder: Path, suite: Suite, options: list[str]
) -> tuple[dict[str, str], float]:
    """Outcomes by test, and seconds of processor time."""
    report = folder / "zmalloc-junit.xml"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(folder / suite.source)
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = [word for name in suite.plugins for word in ("-p", name)]
    before = os.times()
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, *options,
         f"--junitxml={report}", *suite.options, suite.tests],
        cwd=folder, env=env, check=False, capture_output=True, text=True,
    )  # fmt: skip
    after = os.times()
    if not report.exists():
        sys.exit(f"{folder.name}: no result\n{done.stdout}{done.stderr}")
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = sorted(
            f"{child.tag}: {(child.get('message') or '').splitlines()[:1]}"
            for child in case
            if child.tag in ("failure", "error", "skipped")
        )
        outcomes[name] = "; ".join(kinds) or "passed"
    report.unlink()
    used = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return outcomes, used


def compare(python: str, name: str, suite: Suite, rounds: int) -> bool:
    folder = unpack(python, name, suite)
    ratios, same = [], True
    for _ in range(rounds):
        without, base = run(python, folder, suite, ["-p", "no:zmalloc"])
        with_it, seconds = run(python, folder, suite, OPTIONS)
        ratios.append(seconds / base)
        for test in sorted(without.keys() | with_it.keys()):
            if without.get(test) != with_it.get(test):
                same = False
                print(f"{name}: {test}: {without.get(test)} without, {with_it.get(test)} with it")
    passed = sum(outcome == "passed" for outcome in without.values())
    print(
        f"{name} {suite.version}: {len(without)} tests, {passed} pass, "
        f"{'the same results' if same else 'DIFFERENT results'}, processor time x "
        f"{sorted(ratios)[len(ratios) // 2]:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        flush=True,
    )
    return same


def main() -> None:
    started = time.monotonic()
    python, *names = sys.argv[1:] or [sys.executable]
    rounds = int(names.pop(0)) if names and names[0].isdecimal() else ROUNDS
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        sys.exit(f"not known: {', '.join(unknown)}. There are {', '.join(SUITES)}")
    python = str(Path(python).absolute())
    results = [compare(python, name, SUITES[name], rounds) for name in names or SUITES]
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
