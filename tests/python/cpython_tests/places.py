"""Two environments of one interpreter that differ in a single file: a .pth that imports zmalloc.

So each process that a test starts has it, too, whatever it does to its environment, but for one
that is started with -S.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..processes import clean_environment

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build" / "cpython-tests"
WAYS = ("stock", "hooks")  # names of one length: some tests have a path's length in what they do
START = {
    "exact": "import zmalloc",
    "held": "import os; os.environ['ZMALLOC_MODE'] = 'held'; import zmalloc;"
    " del os.environ['ZMALLOC_MODE']",
}
DESCRIBE = """
import importlib.util, json, os, platform, sys, zmalloc
try:
    found = importlib.util.find_spec("test.test_list") is not None
except ImportError:
    found = False
print(json.dumps([platform.python_version(), os.path.realpath(sys._base_executable),
                  os.path.dirname(zmalloc.__file__), found]))
"""


class NoTests(Exception):
    """The interpreter has come without Lib/test."""


@dataclass(frozen=True)
class Places:
    version: str
    folder: Path
    pythons: dict[str, Path]  #: by way


def environment() -> dict[str, str]:
    """Bytecode is written as ever: some tests look at it."""
    return clean_environment({"PYTHONDONTWRITEBYTECODE": None, "PYTHONHASHSEED": "0"})


def said(python: str | Path, *arguments: str) -> str:
    done = subprocess.run([str(python), *arguments], env=environment(), cwd="/", text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)  # fmt: skip
    return done.stdout


def prepare(python: str, mode: str, folder: Path = FOLDER) -> Places:
    """Makes both anew, from an interpreter that has zmalloc installed."""
    version, base, package, has_tests = json.loads(said(python, "-c", DESCRIBE).splitlines()[-1])
    if not has_tests:
        raise NoTests(
            f"{base} ({version}) has come without CPython's own tests, Lib/test; Debian has them"
            f" as libpython{version.rpartition('.')[0]}-testsuite"
        )
    folder = folder / f"{version}-{mode}"
    pythons = {}
    for way in WAYS:
        said(base, "-m", "venv", "--without-pip", "--clear", str(folder / way))
        pythons[way] = folder / way / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('platlib'))"
    packages = Path(said(pythons["hooks"], "-c", where).strip())
    shutil.copytree(package, packages / "zmalloc")
    (packages / "zmalloc-at-start.pth").write_text(START[mode] + "\n")
    look = "import sys; z = sys.modules.get('zmalloc'); print(z and (z.mode(), z.is_installed()))"
    seen = {way: said(pythons[way], "-I", "-c", look).strip() for way in WAYS}
    wanted = {"stock": "None", "hooks": str((mode, True))}
    if seen != wanted:
        raise RuntimeError(f"the two environments are {seen}, not {wanted}")
    return Places(version, folder, pythons)


def modules(places: Places) -> list[str]:
    """All that regrtest would run there, sorted, as it names them but for a leading 'test.'."""
    names = said(places.pythons["stock"], "-m", "test", "--list-tests").split()
    return sorted(name.removeprefix("test.") for name in names)


def full_name(module: str) -> str:
    """As regrtest takes it: modules of packages begin with 'test.'"""
    return f"test.{module}" if "." in module else module


def first(names: Iterable[str], before: Iterable[str]) -> list[str]:
    """The names, those that begin with one of `before` in front, in that order."""
    order = list(before)

    def place(name: str) -> int:
        package = name.partition(".")[0]
        return order.index(package) if package in order else len(order)

    return sorted(names, key=place)
