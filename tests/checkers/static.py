"""make check-static: clang-tidy, cppcheck and gcc's analyzer over all C of the project.

A finding is either mended or accepted below, with its reason. An exception that nothing needs any
more is a finding, too. Rules that are off as a whole are in .clang-tidy.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from typing import NamedTuple

from core import toolchain
from lua.toolchain import luas

from .figures import Figures

ROOT = toolchain.ROOT


class Accepted(NamedTuple):
    """A rule's findings in the lines of a file that have this text in them."""

    file: str
    rule: str
    text: str
    why: str


RETURNED = "p is what the function returns: cppcheck does not see through the macros around it"
ACCEPTED = [
    Accepted("csrc/zsized.c", "memleak", "return zport_likely(p != NULL) ? p : undo", RETURNED),
    Accepted("csrc/zsized.c", "memleak", "return p ? p : ptr;", RETURNED),
    Accepted("csrc/zsized.c", "memleak", "return undo(a, n);", "p is NULL there"),
    Accepted("csrc/zport.c", "uninitvar", "task_info(mach_task_self()",
             "macOS: task_info() is what fills it, through a cast"),
    Accepted("csrc/zport.c", "-Wanalyzer-malloc-leak", "all->name[all->count++] = copy;",
             "the copies are freed by zport_each_symbol(), whose list the analyzer loses in the "
             "callback's void *"),
    Accepted("zmalloc_py/_core/threads.c", "-Wanalyzer-malloc-leak", "calloc(1, size)",
             "kept in the thread's record, which the analyzer takes for a local"),
    Accepted("lua/zlua_options.c", "clang-analyzer-core.NullDereference",
             "o->code[o->code_count++] = code;",
             "zlua_complain() never returns 0, so without o->code no word is looked at"),
    Accepted("lua/zpace.c", "clang-analyzer-deadcode.DeadStores", "const bool again",
             "read where LUA_VERSION_NUM is 502"),
    Accepted("zmalloc_py/_core/runner.c", "bugprone-not-null-terminated-result",
             'memcpy(hard, " (hard limit ", 13);', "zsize_format() writes on from there"),
]


class Finding(NamedTuple):
    file: str
    line: int
    rule: str
    said: str


class Source(NamedTuple):
    path: str
    flags: tuple[str, ...]


def sources() -> list[Source]:
    include = sysconfig.get_paths()["include"]
    lua = luas()["lua5.4"].cflags
    folders = {
        "csrc": ["-Icsrc"],
        "lua": ["-Icsrc", "-Ilua", *lua],
        "zmalloc_py/_core": ["-Icsrc", "-Izmalloc_py/_core", f"-I{include}"],
    }
    return [Source(str(path.relative_to(ROOT)), ("-std=c11", *flags))
            for folder, flags in folders.items() for path in sorted((ROOT / folder).glob("*.c"))]


SAID = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?:warning|error): (?P<said>.*) "
                  r"\[(?P<rule>[^\]]+)\]$", re.M)


def findings(text: str) -> set[Finding]:
    """Those in what a compiler, or cppcheck with its gcc-like form, has printed."""
    found = set()
    for line in SAID.finditer(text):
        path = os.path.relpath(ROOT / line["file"], ROOT)
        for rule in re.findall(r"-Wanalyzer-[\w-]+", line["rule"]) or [line["rule"].split(",")[0]]:
            found.add(Finding(path, int(line["line"]), rule, line["said"]))
    return found


def run_each(command: Sequence[str], files: Sequence[Source], *, end: str = "") -> set[Finding]:
    found: set[Finding] = set()
    for source in files:
        words = [*command, source.path, *([end] if end else []), *source.flags]
        done = toolchain.run(words)
        here = findings(done.stdout + done.stderr)
        assert done.returncode == 0 or here, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        found |= here
    return found


def cppcheck(files: Sequence[Source]) -> set[Finding]:
    done = toolchain.run(
        ["cppcheck", "-q", "--std=c11", "--library=python", "--max-configs=40",
         "--enable=warning,performance,portability", "--error-exitcode=0",
         "--template={file}:{line}: warning: {message} [{id}]", "-Icsrc", "-Ilua",
         "-Izmalloc_py/_core", *(source.path for source in files)])
    assert done.returncode == 0, done.stdout + done.stderr
    return findings(done.stdout + done.stderr)


def is_accepted(finding: Finding, entry: Accepted) -> bool:
    if (finding.file, finding.rule) != (entry.file, entry.rule):
        return False
    line = (ROOT / finding.file).read_text().splitlines()[finding.line - 1]
    return entry.text in line


def main() -> int:
    figures = Figures("check-static", "clang-tidy", "cppcheck", "gcc")
    files = sources()
    tools = {
        "cppcheck": lambda: cppcheck(files),
        "gcc -fanalyzer": lambda: run_each(
            ["gcc", "-O2", "-fanalyzer", "-c", "-o", os.devnull], files),
        "clang-tidy": lambda: run_each(["clang-tidy", "--quiet"], files, end="--"),
    }
    needed = set()
    for name, tool in tools.items():
        assert shutil.which(name.split()[0]), f"no {name}"
        left = 0
        found = tool()
        for finding in sorted(found):
            reasons = {entry for entry in ACCEPTED if is_accepted(finding, entry)}
            needed |= reasons
            if not reasons:
                left += 1
                print(f"{finding.file}:{finding.line}: {finding.said} [{finding.rule}]")
        figures.add(name, files=len(files), accepted=len(found) - left, findings=left)
    unneeded = [entry for entry in ACCEPTED if entry not in needed]
    for entry in unneeded:
        print(f"accepted for nothing: {entry.file}: {entry.rule}: {entry.text}")
    figures.add("exceptions", entries=len(ACCEPTED), findings=len(unneeded))
    return figures.write()


if __name__ == "__main__":
    sys.exit(main())
