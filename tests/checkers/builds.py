"""make test-builds: the core built in each way that somebody builds it, and its C programs run."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from core import toolchain
from core.test_threads import check

from .figures import Figures

SECONDS = "0.15"  # of each part of a program


class Build(NamedTuple):
    cc: str
    flags: str
    mode: str = "usable"
    settings: tuple[str, ...] = ()


LTO = "-O3 -flto"
FORTIFY = "-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3"
BUILDS = [
    *(Build(cc, flags, mode) for cc in ("gcc", "clang") for flags in ("-O0", "-O2", FORTIFY)
      for mode in toolchain.MODES),
    Build("gcc", LTO, settings=("AR=gcc-ar",)),
    Build("clang", LTO, settings=("AR=llvm-ar",)),
    *(Build("gcc", "-O2 -m32", mode) for mode in toolchain.MODES),
    *(Build("musl-gcc", "-O2", mode) for mode in toolchain.MODES),
    *(Build("musl-gcc", "-O2 -static", mode) for mode in toolchain.MODES),
]


def run(build: Build, name: str) -> tuple[int, int]:
    """Programs run and checks made."""
    library = toolchain.make(f"builds/{name}", "libzmalloc.a", f"CC={build.cc}",
                             f"CFLAGS={build.flags} -g -Werror", *build.settings,
                             mode=build.mode)
    programs = ["accounts", "family", "fork", "map"]
    checks = 0
    for program in programs:
        path = toolchain.program(f"{program}.c", program, library, *build.flags.split(),
                                 cc=build.cc)
        found = re.search(r"^(\d+) passed", check(path, "all", SECONDS), re.M)
        assert found
        checks += int(found[1])
    return len(programs), checks


def main() -> int:
    figures = Figures("builds", "gcc", "clang")
    for build in BUILDS:
        said = f"{build.cc} {build.flags}" + " NO_MALLOC_USABLE_SIZE" * (build.mode == "prefix")
        programs = checks = findings = 0
        try:
            programs, checks = run(build, re.sub(r"[^a-zA-Z0-9]+", "-", said))
        except AssertionError as error:
            print(error)
            findings = 1
        figures.add(said, builds=1, programs=programs, checks=checks, findings=findings)
    return figures.write()


if __name__ == "__main__":
    sys.exit(main())
