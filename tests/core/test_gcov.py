"""The reader of gcov's JSON, of make coverage, on a program small enough to count by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkers import gcov

from . import toolchain

SOURCE = """\
#include "half.h"
#if PART == 1
int first(int n)
{
    return half(n) > 3 ? 1 : 2;
}
#else
int second(int n);
int second(int n)
{
    if (n < 0)
        return half(-n);
    return half(n);
}
#endif
int main(void)
{
    return PART == 1 ? CALL : 0;
}
"""
HEADER = """\
static inline int half(int n)
{
    return n % 2 ? n / 2 + 1 : n / 2;
}
"""


@pytest.mark.skipif(not shutil.which("gcov"), reason="no gcov on this machine")
def test_lines_and_branches_of_two_builds_are_merged(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "csrc").mkdir()
    (root / "csrc" / "program.c").write_text(SOURCE)
    (root / "csrc" / "half.h").write_text(HEADER)
    builds = {"one": ["-DPART=1", "-DCALL=first(2) == 1"], "two": ["-DPART=2", "-DCALL=0"]}
    for name, flags in builds.items():
        toolchain.must(["gcc", "--coverage", "-O0", *flags, "csrc/program.c", "-o", name], root)
        toolchain.must([root / name], root)
    found = gcov.read(root.glob("*.gcno"), [root], ["csrc"])
    assert set(found) == {"csrc/program.c", "csrc/half.h"}

    program, header = found["csrc/program.c"], found["csrc/half.h"]
    assert program.lines[5] == 1
    assert program.uncovered == {9, 11, 12, 13}, "compiled in one build, run in none"
    assert program.branches == {5: 2, 11: 2}
    assert program.untaken == {5: 1, 11: 2}
    assert program.functions["second"] == {(9, 14)}
    assert header.lines == {1: 1, 3: 1}
    assert header.branches == {3: 2}
    assert header.untaken == {3: 1}
    assert gcov.ranges(program.uncovered, joined={10}) == "9-13"
    assert gcov.ranges([3, 4, 9, 1]) == "1, 3-4, 9"
    assert gcov.read(root.glob("*.gcno"), [root], ["lua"]) == {}
