"""The C programs of this folder under the sanitizers, with both compilers, in both modes.

ZMALLOC_TEST_SECONDS=5 lets each part of a program run for longer.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from . import toolchain

SECONDS = os.environ.get("ZMALLOC_TEST_SECONDS", "0.15")
SANITIZERS = {
    "address": "-fsanitize=address,undefined",
    "thread": "-fsanitize=thread",
    "undefined": "-fsanitize=undefined",
}
# A status of its own tells the sanitizer's end from a program's.
ENVIRONMENT = {
    "ASAN_OPTIONS": "allocator_may_return_null=1:detect_stack_use_after_return=1:exitcode=99",
    "TSAN_OPTIONS": "halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def without_randomisation(command: list[str | Path]) -> list[str | Path]:
    """TSan wants its addresses free: on some kernels randomisation takes them."""
    setarch = shutil.which("setarch")
    if setarch and subprocess.run([setarch, "-R", "true"], check=False,
                                  capture_output=True).returncode == 0:
        return [setarch, "-R", *command]
    return command


@functools.cache
def can_sanitize(cc: str, flags: str) -> str:
    """Empty if a program with this sanitizer can be built and run, else why not."""
    if not toolchain.compiler(cc):
        return f"no {cc} on this machine"
    with tempfile.TemporaryDirectory() as folder:  # others may be trying, too
        source = Path(folder, "try.c")
        source.write_text("int main(void) { return 0; }\n")
        program = source.with_suffix("")
        done = toolchain.run([cc, *flags.split(), source, "-o", program])
        if done.returncode == 0:
            done = toolchain.run(without_randomisation([program]))
    return "" if done.returncode == 0 else f"{cc} {flags} does not work here"


def check(program: Path, *arguments: str) -> str:
    """Runs a program of check.h: all it checked must have passed. Returns what it printed."""
    done = toolchain.run(without_randomisation([program, *arguments]), timeout=120,
                         env={**os.environ, **ENVIRONMENT})
    report = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.M)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
    assert report, done.stdout
    assert int(report[1]) > 0
    assert int(report[2]) == 0
    assert "runtime error" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", toolchain.MODES)
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_eight_threads_leave_the_figures_exact_and_the_sanitizer_silent(cc: str, sanitizer: str,
                                                                        mode: str) -> None:
    flags = SANITIZERS[sanitizer]
    reason = can_sanitize(cc, flags)
    if reason:
        pytest.skip(reason)
    flags += " -fno-omit-frame-pointer -fno-sanitize-recover=all -O1 -g"
    library = toolchain.make(f"{cc}-{sanitizer}-{mode}", "libzmalloc.a", f"CC={cc}",
                             f"CFLAGS={flags}", mode=mode)
    for name in ("accounts", "family", "map"):
        if name == "map" and mode == "prefix":
            continue  # the map knows no modes
        program = toolchain.program(f"{name}.c", name, library, *flags.split(), cc=cc)
        check(program, "all", SECONDS)


@pytest.mark.parametrize("mode", toolchain.MODES)
@pytest.mark.parametrize("name", ["accounts", "family", "map"])
def test_eight_threads_leave_the_figures_exact_at_full_speed(name: str, mode: str) -> None:
    """Without a sanitizer the races are others."""
    library = toolchain.static_library(mode)
    check(toolchain.program(f"{name}.c", name, library, "-O2"), "all", SECONDS)


@pytest.mark.parametrize("mode", toolchain.MODES)
def test_a_child_that_was_forked_amid_threads_does_not_hang(mode: str) -> None:
    """Every lock has to be held over fork(): a thread that holds one is not in the child."""
    program = toolchain.program("fork.c", "fork", toolchain.static_library(mode), "-O2")
    check(program, "all", str(10 * float(SECONDS)))
