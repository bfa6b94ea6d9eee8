"""make coverage: which lines and branches the tests reach, in C and in Python.

    python -m checkers.coverage [--jobs OPTIONS] [--only PART]... PYTHON...

The tests run in a copy of the project, build/coverage/, where gcc stands for gcc with counters:
what the tests build, the extension and the Lua modules are all counted. A line of C counts if one
of the builds has it in. The Python files are looked at in a run of their own, by the first PYTHON,
as a tracer takes memory that tests of exact figures see.

Below LINES or BRANCHES percent in a folder the status is 1. Tests that fail are told; it is for
make test to judge them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from core import toolchain

from . import gcov, project
from .figures import Figures, suite
from .uncovered import LEFT, Left

LINES, BRANCHES = 95.0, 85.0

ROOT = toolchain.ROOT
TREE = ROOT / "build" / "coverage"
SOURCES = TREE / "build" / "source"  # the extension's, one folder for each Python
PYTHON_DATA = TREE / "build" / "python"
C_FOLDERS = ("csrc", "lua", "zmalloc_py/_core")

#: Threads add to counters at one time. The last -O holds. What is inlined at any level would have
#: branches of its own wherever that is.
FLAGS = ("-O0", "-g", "--coverage", "-fprofile-update=atomic", "-Dalways_inline=noinline",
         "-Wno-attributes")
WRAPPED = ("gcc", "cc", "g++")
#: Other compilers' builds are not counted; a sanitizer's or valgrind's run reaches nothing more;
#: and the rest is about symbols, unloading and times, which are others here.
SKIPPED = ("clang", "valgrind", "sanitizer", "without_a_warning", "bench", "exports_",
           "can_be_closed")

#: The tests that reach the Python files.
TRACED = ["tests/plugin", "tests/together/test_examples.py", *(
    f"tests/python/test_{name}.py"
    for name in ("budgets", "build", "cli", "figures", "held", "jupyter", "neighbours"))]

#: What other targets run for long, for a short time: by its name, with its options. Whether all of
#: it is right those targets judge.
LONGER = {
    "make clean-errors": ("tests/python/clean_errors", "run", "--common", "1", "--large", "0",
                          "--worker", "0", "--budget", "0", "--processes", "1"),
    "make soak": ("tests/together/soak.py", "run", "60"),
}


# ---- the copy, and the compiler that counts ------------------------------------------------------


def forget() -> None:
    """All counts and builds of an earlier run. Environments stay, and get the project anew."""
    for path in (TREE / "build").glob("*"):
        if not path.is_dir():
            path.unlink()
        elif path.name != "venv":
            shutil.rmtree(path)
    for stamp in (TREE / "build" / "venv").glob("*/.installed*"):
        stamp.unlink()


def wrap_compilers() -> dict[str, str]:
    """The environment in which the compilers count."""
    folder = TREE / "build" / "cc"
    folder.mkdir(parents=True, exist_ok=True)
    real = {name: path for name in WRAPPED if (path := shutil.which(name))}
    ends = ROOT / "tests" / "checkers" / "ends.c"
    announce, early = folder / "announce.o", folder / "early.so"
    toolchain.must([real["gcc"], "-O1", "-fPIC", "-c", ends, "-o", announce])
    toolchain.must([real["gcc"], "-O1", "-fPIC", "-shared", "-DEARLY", ends, "-o", early, "-ldl"])
    for name, path in real.items():
        run = f'exec {shlex.quote(path)} "$@" {" ".join(FLAGS)}'
        script = folder / name
        script.write_text(
            "#!/bin/sh\n"
            'case " $* " in *" -fsanitize"*) echo "error: no sanitizers" >&2; exit 1 ;; esac\n'
            f"for word; do case $word in -[cSEM] | -MM | -fsyntax-only) {run} ;; esac; done\n"
            f"{run} -x none {shlex.quote(str(announce))}\n")
        script.chmod(0o755)
    return {
        **toolchain.clean_environment(),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "LD_PRELOAD": str(early),
        "GCOV_ERROR_FILE": str(TREE / "build" / "gcov.log"),  # not where tests look
    }


# ---- the tests -----------------------------------------------------------------------------------


class Run:
    """The tests, in the copy."""

    def __init__(self, figures: Figures, pythons: Sequence[str], jobs: str) -> None:
        self.figures, self.pythons, self.jobs = figures, pythons, jobs.split()
        self.env = wrap_compilers()

    def must(self, *words: str | Path, **env: str) -> str:
        done = toolchain.run(words, TREE, {**self.env, **env}, timeout=1800)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def environment(self, python: str, neighbours: bool = False) -> Path:
        """The interpreter of an environment with the project in it, its C code counted."""
        name = python.strip("/").replace("/", "_")
        folder = Path("build", "venv", name)
        # CC, as an interpreter may have been built by a compiler with a longer name.
        self.must("tools/venv.sh", python, folder, "test", CC="gcc", ZMALLOC_BUILD="coverage",
                  ZMALLOC_SOURCE=str(SOURCES / name))
        if neighbours:
            self.must("tools/neighbours.sh", folder)
        return TREE / folder / "bin" / "python"

    def suite(self, name: str, tests: Sequence[str], python: Path, **env: str) -> None:
        counts = suite([*self.jobs, "-k", " and ".join(f"not {word}" for word in SKIPPED), *tests],
                       python=[python], env={**self.env, **env}, cwd=TREE)
        counts["failed"] = counts.pop("findings")
        self.figures.add(name, **counts)

    def core(self) -> None:
        self.suite("tests of the core", ["tests/core", "tests/fuzz"],
                   self.environment(self.pythons[0], True))

    def lua(self) -> None:
        python = self.environment(self.pythons[0], True)
        self.must("make", "-s", "lua-all")
        self.suite("tests of Lua", ["tests/lua"], python)
        self.must("tools/test_lua.sh", *self.must("tools/lua.sh", "list").split())

    def extension(self) -> None:
        for python in self.pythons:
            self.suite(f"tests of the extension, {version(python)}",
                       ["tests/python", "tests/together"],
                       self.environment(python, python == self.pythons[0]))
            self.longer(python)

    def longer(self, python: str) -> None:
        path = self.environment(python, python == self.pythons[0])
        for name, words in LONGER.items():
            done = toolchain.run([path, *words], TREE, self.env, timeout=1800)
            self.figures.add(f"a part of {name}, {version(python)}", programs=1,
                             failed=int(done.returncode != 0))

    def python(self) -> None:
        shutil.rmtree(PYTHON_DATA, ignore_errors=True)
        PYTHON_DATA.mkdir(parents=True)
        settings = PYTHON_DATA / "settings"
        settings.write_text(
            "[run]\nbranch = true\nparallel = true\nsource_pkgs = zmalloc\npatch = _exit, fork\n"
            f"data_file = {PYTHON_DATA / 'data'}\n"
            "[paths]\nzmalloc =\n    zmalloc_py\n    */site-packages/zmalloc\n")
        python = self.pythons[0]
        path = self.environment(python, True)
        site = self.must(
            path, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
        Path(site, "zmalloc_coverage.pth").write_text(
            "import os; 'COVERAGE_PROCESS_START' in os.environ and "
            "__import__('coverage').process_startup()\n")
        self.suite(f"tests of the Python files, {version(python)}", TRACED, path,
                   COVERAGE_PROCESS_START=str(settings))
        for words in (["combine", "--quiet"], ["json", "-o", PYTHON_DATA / "coverage.json"]):
            self.must(path, "-m", "coverage", *words, f"--rcfile={settings}")


def version(python: str) -> str:
    return toolchain.must([python, "--version"]).strip()


# ---- what they have reached ----------------------------------------------------------------------


def counts_of_c() -> dict[str, gcov.Counts]:
    roots = [*SOURCES.glob("*"), TREE]
    return gcov.read(TREE.rglob("*.gcno"), roots, C_FOLDERS)


def counts_of_python() -> dict[str, gcov.Counts]:
    """coverage.py's report in the form of gcov's."""
    found = {}
    report = PYTHON_DATA / "coverage.json"
    told = json.loads(report.read_text()) if report.exists() else {"files": {}}
    for name, file in told["files"].items():
        if not name.startswith("zmalloc_py/"):
            continue  # a test has made a package of its own
        counts = gcov.Counts()
        counts.lines.update({line: 1 for line in file["executed_lines"]})
        counts.lines.update({line: 0 for line in file["missing_lines"]})
        taken = Counter(line for line, _ in file["executed_branches"])
        missing = Counter(line for line, _ in file["missing_branches"])
        for line in {*taken, *missing}:
            site = gcov.Site(line, "", taken[line] + missing[line])
            counts.sites[site] = [1] * taken[line] + [0] * missing[line]
        found[name] = counts
    return found


def listed(counts: gcov.Counts, source: Sequence[str], entry: Left) -> set[int]:
    """The lines that an entry is about."""
    if entry.where in counts.functions:
        return {line for first, last in counts.functions[entry.where]
                for line in range(first, last + 1)}
    found = set()
    for i, line in enumerate(source):
        if entry.where not in line:
            continue
        found.add(i + 1)
        margin = len(line) - len(line.lstrip())
        for k in range(i + 1, len(source)):
            below = source[k]
            is_outside = len(below) - len(below.lstrip()) <= margin
            if below.strip() not in ("", "{", "}") and is_outside:
                break
            found.add(k + 1)
            if below.strip() == "}" and is_outside:
                break
    return found


class Sum(Counter[str]):
    """Lines and branches of a file or a folder: all, reached, and listed ones among the rest."""

    def percent(self, what: str, less: bool = False) -> float:
        every = self[what] - (self[f"{what} listed"] if less else 0)
        return 100 * self[f"{what} covered"] / every if every else 100.0

    def __str__(self) -> str:
        return "".join(f"{self.percent(what, less):8.1f} %" for less in (False, True)
                       for what in ("lines", "branches"))


def summed(counts: gcov.Counts, named: set[int]) -> Sum:
    lines, branches = counts.uncovered, counts.untaken
    total = Sum()
    total["lines"] = len(counts.lines)
    total["lines covered"] = len(counts.lines) - len(lines)
    total["lines listed"] = len(lines & named)
    total["branches"] = counts.branches.total()
    total["branches covered"] = counts.branches.total() - branches.total()
    total["branches listed"] = sum(branches[line] for line in named)
    return total


def show(figures: Figures) -> None:
    """The table; each line and branch that is not reached goes to build/coverage/uncovered.txt."""
    found = {**counts_of_c(), **counts_of_python()}
    sums: dict[str, Sum] = {}
    rest: list[str] = []
    unused = []
    print(f"{'':32}{'reached':>19}{'but for the listed':>23}\n"
          f"{'':32}{'lines':>10}{'branches':>10}{'lines':>10}{'branches':>10}  not reached")
    for name, counts in sorted(found.items()):
        source = (ROOT / name).read_text(encoding="utf-8").splitlines()
        named: set[int] = set()
        for entry in LEFT:
            if entry.file == name:
                about = listed(counts, source, entry)
                if not about & {*counts.uncovered, *counts.untaken}:
                    unused.append(entry)
                named |= about
        total = summed(counts, named)
        folder = name.rpartition("/")[0].removesuffix("/_plugin")
        sums.setdefault(folder, Sum()).update(total)
        blank = set(range(1, len(source) + 1)) - set(counts.lines)
        print(f"{name:32}{total}  {gcov.ranges(counts.uncovered, blank)}")
        rest += uncovered_text(name, counts, source, named)
    print()
    for folder, total in sums.items():
        below = total.percent("lines") < LINES or total.percent("branches") < BRANCHES
        print(f"{folder:32}{total}{'  too few' * below}")
        figures.parts[folder] = {**{what: total[what] for what in (
            "lines", "lines covered", "lines listed", "branches", "branches covered",
            "branches listed")}, "findings": int(below)}
    (TREE / "uncovered.txt").write_text("".join(f"{line}\n" for line in rest), encoding="utf-8")
    print(f"\nlisted in {Path(__file__).with_name('uncovered.py').relative_to(ROOT)}:")
    for entry in LEFT:
        print(f"{entry.file}, {entry.where}: {entry.why}")
    for entry in unused:
        print(f"no longer needed: {entry.file}, {entry.where}")


def uncovered_text(name: str, counts: gcov.Counts, source: Sequence[str],
                   named: set[int]) -> Iterable[str]:
    for line in sorted({*counts.uncovered, *counts.untaken}):
        what = ("listed  " if line in named else "") + (
            "line    " if line in counts.uncovered else
            f"{counts.untaken[line]} of {counts.branches[line]}  ")
        yield f"{name}:{line}: {what}{source[line - 1].strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--jobs", default="", help="options of pytest")
    parser.add_argument("--only", action="append", default=[],
                        help="this part, beside what has been counted: core, lua, extension, "
                             "longer (of extension), python, or report")
    options = parser.parse_args()
    for name in ("PYTHONPATH", "LD_PRELOAD"):
        os.environ.pop(name, None)
    if not options.only:
        forget()
    project.copy(TREE)
    figures = Figures("coverage", "gcc", "gcov")
    figures.versions["tested"] = ", ".join(version(python) for python in options.pythons)
    run = Run(figures, options.pythons, options.jobs)
    parts: dict[str, Callable[[], object]] = {
        "core": run.core, "lua": run.lua, "extension": run.extension, "python": run.python,
        "longer": lambda: [run.longer(python) for python in options.pythons],
        "report": lambda: show(figures)}
    every = ("core", "lua", "extension", "python", "report")
    for name in [*options.only, "report"] if options.only else every:
        parts[name]()
    return figures.write()


if __name__ == "__main__":
    sys.exit(main())
