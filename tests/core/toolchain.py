"""Builds what the tests load or run, with make and the C compilers of this machine.

Everything goes to build/test/, is named after what makes it different, and is made once: make
decides what is out of date. A lock keeps two runs of the tests from building at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "test"

MODES = ("usable", "prefix")
SOURCES = ("zmalloc.c", "zaccount.c", "zmarks.c", "zsized.c", "zcore.c", "zmap.c", "zport.c",
           "zsize.c")
# The flags are given in full, so that the caller's environment has no say in what is tested.
CFLAGS = "-O2 -g"


def compiler(name: str) -> str | None:
    """The path of a compiler, None if this machine has none."""
    return shutil.which(name)


def run(command: Sequence[str | Path], cwd: Path = ROOT, env: dict[str, str] | None = None,
        timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; the caller looks at the outcome."""
    return subprocess.run([str(word) for word in command], cwd=cwd, env=env, timeout=timeout,
                          capture_output=True, text=True, check=False)


def must(command: Sequence[str | Path], cwd: Path = ROOT,
         env: dict[str, str] | None = None) -> str:
    """Runs a command that has to succeed and returns what it printed."""
    done = run(command, cwd, env)
    words = " ".join(str(word) for word in command)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """The environment without what make would take as a setting of the build."""
    settings = {"CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "BACKEND", "MODE", "OUT", "PREFIX",
                "DESTDIR", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL"}
    return {name: value for name, value in os.environ.items() if name not in settings}


@contextlib.contextmanager
def building() -> Iterator[None]:
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(name: str, target: str, *settings: str, mode: str = "usable") -> Path:
    """Makes `target` of the library in build/test/NAME and returns its path."""
    out = f"build/test/{name}"
    words = ["make", "-s", f"OUT={out}", *settings]
    if not any(word.startswith("CFLAGS=") for word in settings):
        words.append(f"CFLAGS={CFLAGS}")
    if mode == "prefix":
        words.append("MODE=prefix")
    with building():
        must([*words, f"{out}/{target}"], env=clean_environment())
    return ROOT / out / target


def shared_library(mode: str) -> Path:
    """The shared library, in one of the two modes."""
    return make(mode, "libzmalloc.so.0", mode=mode)


def static_library(mode: str) -> Path:
    return make(mode, "libzmalloc.a", mode=mode)


def another_copy(mode: str, name: str) -> Path:
    """The same library as a file of its own, so that the loader takes it for another one."""
    original = shared_library(mode)
    copy = original.with_name(f"lib{name}.so")
    with building():
        shutil.copyfile(original, copy.with_suffix(".tmp"))
        copy.with_suffix(".tmp").replace(copy)
    return copy


def another_layout() -> Path:
    """A copy whose accounts look different inside, as a later version's might.

    What works with it only works because it asks the copy that made the account.
    """
    folder = BUILD / "layout"
    product = folder / "libfourth.so"
    inputs = sorted(CSRC.iterdir())
    with building():
        if is_older(product, inputs):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(CSRC, folder)
            text = (folder / "zcore.h").read_text()
            field = "    zaccount *next;\n"
            changed = text.replace(field, f"    char other[192];\n{field}")
            assert changed != text
            (folder / "zcore.h").write_text(changed)
            must(["gcc", "-std=c11", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden",
                  "-DZMALLOC_SHARED", "-Wl,-Bsymbolic", *SOURCES, "-o", product, "-pthread",
                  "-ldl"], cwd=folder)
    return product


def is_older(product: Path, inputs: Sequence[Path]) -> bool:
    return not product.exists() or any(
        product.stat().st_mtime <= source.stat().st_mtime for source in inputs)


def shim_library() -> Path:
    """tests/core/shim.c with the internal functions that it exports."""
    product = BUILD / "shim" / "libshim.so"
    inputs = [HERE / "shim.c", CSRC / "zmap.c", CSRC / "zport.c", *CSRC.glob("*.h")]
    with building():
        if is_older(product, inputs):
            product.parent.mkdir(parents=True, exist_ok=True)
            must(["gcc", "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-fPIC", "-shared",
                  "-fvisibility=hidden", f"-I{CSRC}", *inputs[:3], "-o", product,
                  "-pthread", "-ldl"])
    return product


def program(source: str, name: str, library: Path, *flags: str, cc: str = "gcc",
            libs: Sequence[str | Path] = ("-pthread", "-ldl")) -> Path:
    """A C program of this folder, linked with a library of make()."""
    product = library.parent / name
    inputs = [HERE / source, HERE / "check.h", library, *CSRC.glob("*.h")]
    with building():
        if is_older(product, inputs):
            must([cc, "-std=c11", "-g", "-Wall", "-Wextra", *flags, f"-I{CSRC}", f"-I{HERE}",
                  HERE / source, "-o", product, library, *libs])
    return product
