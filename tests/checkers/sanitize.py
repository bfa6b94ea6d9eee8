"""make sanitize: ASan, UBSan, TSan and valgrind's memcheck over all C of the project.

    python -m checkers.sanitize PLAIN SANITIZED [PART...]

PLAIN and SANITIZED are interpreters of two environments with the project in them, the second built
with ZMALLOC_BUILD=sanitize. The parts are core, lua, python and valgrind; all, unless told.
"""

from __future__ import annotations

import os
import sys

from core import toolchain

from lua import toolchain as lua

from .figures import Figures, suite

SUPPRESSIONS = toolchain.ROOT / "tests" / "checkers" / "python.supp"

#: The tests that call zmalloc in their own process, which is in the mode that is looked at.
INSIDE = ["sizes", "exact", "audit", "figures", "budgets", "fail_after"]
#: Those that bring their own processes along; they are in the mode that they ask for.
OUTSIDE = ["held", "limit", "delivery", "threads_fork"]
MODES = ("malloc", "debug", "pymalloc_debug")
#: ASan keeps freed blocks for a while, so that resident memory is not what these ask for.
RESIDENT = ["test_held.py::test_a_block_kept_in_each_pool_does_not_pass_the_cap",
            "test_limit.py::test_a_cap_on_what_is_held_counts_large_blocks_that_have_shrunk"]


def files(names: list[str]) -> list[str]:
    return [f"tests/python/test_{name}.py" for name in names]


def preload() -> dict[str, str]:
    """An interpreter that is not built with the sanitizers gets them before anything else.

    It leaves much behind at its end by design, so that leaks are looked for in the C programs only.
    """
    found = [toolchain.must(["gcc", f"-print-file-name={name}"]).strip()
             for name in ("libasan.so", "libubsan.so")]
    return {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


def core_part(figures: Figures) -> None:
    figures.add("core: ASan, UBSan, TSan", **suite(
        ["tests/core/test_threads.py", "-k", "sanitizer"], env={"ZMALLOC_TEST_SECONDS": "1"}))


def lua_part(figures: Figures) -> None:
    figures.add("Lua: ASan, UBSan, TSan, memcheck", **suite(
        ["tests/lua/test_clean.py"], env={"ZMALLOC_TEST_LUAS": "all"}))


def python_part(figures: Figures, python: str) -> None:
    skipped = [f"--deselect=tests/python/{name}" for name in RESIDENT]
    figures.add("Python: ASan, UBSan, pymalloc", **suite(
        [*files(INSIDE + OUTSIDE), *skipped], python=[python], env=preload()))
    for mode in MODES:
        figures.add(f"Python: ASan, UBSan, {mode}", **suite(
            files(INSIDE), python=[python], env={**preload(), "PYTHONMALLOC": mode}))


def valgrind_part(figures: Figures, python: str) -> None:
    """Only the process of the tests: twenty times slower, so a slice of them."""
    command = [word for word in lua.valgrind() if not word.startswith(("--leak", "--errors-for",
                                                                       "--suppressions"))]
    assert command, "no valgrind"
    for mode in ("malloc", "pymalloc"):
        figures.add(f"Python: memcheck, {mode}", **suite(
            files(["sizes", "budgets"]), env={"PYTHONMALLOC": mode},
            python=[*command, f"--suppressions={SUPPRESSIONS}", python]))


def main(arguments: list[str]) -> int:
    plain, sanitized, *wanted = arguments
    os.environ.pop("LD_PRELOAD", None)
    figures = Figures("sanitize", "gcc", "clang", "valgrind")
    figures.versions["tested"] = toolchain.must([plain, "--version"]).strip()
    parts = {
        "core": lambda: core_part(figures),
        "lua": lambda: lua_part(figures),
        "python": lambda: python_part(figures, sanitized),
        "valgrind": lambda: valgrind_part(figures, plain),
    }
    for name in wanted or parts:
        parts[name]()
    return figures.write()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
