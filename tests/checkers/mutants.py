"""make mutants: the code is broken on purpose, and a quick test has to turn red, each time.

Each mutant is one change of one file, made in a copy of the project. The tests that are run are
among those of `make test`; the first that fails is named.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core import toolchain

from . import project
from .figures import Figures

TREE = toolchain.ROOT / "build" / "mutants" / "tree"
VENV = toolchain.ROOT / "build" / "mutants" / "venv"
TIMEOUT = 600

CORE = tuple(
    f"tests/core/test_{name}.py"
    for name in ("scopes", "contract", "threads", "sizes", "entries", "model")
)
HOOKS = ("tests/python/test_exact.py", "tests/python/test_audit.py", "tests/python/test_limit.py")
DELIVERY = ("tests/python/test_delivery.py",)
SCOPES = ("tests/python/test_scopes_model.py", "tests/python/test_budgets.py")
THREADS = ("tests/python/test_threads_fork.py",)
MODEL = ("tests/python/test_api_model.py",)
HELD = ("tests/python/test_held.py",)
FAULTS = ("tests/python/test_fail_after.py",)


@dataclass(frozen=True)
class Mutant:
    what: str
    file: str
    old: str  #: is there once
    new: str
    tests: tuple[str, ...]

    @property
    def is_of_extension(self) -> bool:
        return self.tests[0].startswith("tests/python/")


C = "csrc/"
PY = "zmalloc_py/_core/"
MUTANTS = (
    Mutant("an uncharge is dropped", C + "zsized.c",
           "atomic_store_explicit(&a->used, before - n, memory_order_relaxed);\n"
           "    zaccount_note_drop(a, before, before - n);\n    zport_free(ptr);",
           "zaccount_note_drop(a, before, before - n);\n    zport_free(ptr);", CORE),
    Mutant("a parent's uncharge is dropped", C + "zcore.h",
           "        zaccount_drop_alone(parent, n);\n", "        (void)0;\n", CORE),
    Mutant("charged after the allocation", C + "zcore.h",
           "        if (zport_unlikely(!zaccount_grow(a, ptr, osize, nsize)))\n"
           "            return NULL;\n        void *p = beneath(ctx, NULL, osize, nsize);\n",
           "        void *p = beneath(ctx, NULL, osize, nsize);\n"
           "        if (zport_unlikely(!zaccount_grow(a, ptr, osize, nsize)))\n"
           "            return NULL;\n", CORE),
    Mutant("a failed allocation stays charged", C + "zcore.h",
           "            zaccount_give_back(a, nsize);\n", "            (void)0;\n", CORE),
    Mutant("a resize is charged whole", C + "zsized.c",
           "    if (zport_unlikely(!zaccount_take_single(a, nsize - osize)))",
           "    if (zport_unlikely(!zaccount_take_single(a, nsize)))", CORE),
    Mutant("the cap is checked with >=", C + "zaccount.c",
           "most = open ? GET(a->hard) : limit;\n        if (n > most || used > most - n) {",
           "most = open ? GET(a->hard) : limit;\n        if (n >= most || used >= most - n) {",
           CORE),
    Mutant("the peak is not kept", C + "zcore.h",
           "    zaccount_raise(&a->peak, before);\n", "", CORE),
    Mutant("off by one at a leaf's border", C + "zmap.h",
           "[(address >> ZMAP_GRANULE_BITS) & (ZMAP_LEAF_BYTES - 1)]",
           "[(address >> ZMAP_GRANULE_BITS) % (ZMAP_LEAF_BYTES - 1)]", CORE),
    Mutant("a long entry keeps its size when it goes", C + "zmap.h",
           "        memset((unsigned char *)at + 1, 0, sizeof(uint64_t));\n", "        (void)0;\n",
           CORE),
    Mutant("a hook's uncharge is dropped", PY + "hooks.c",
           "    zaccount_drop_alone(&python_account, n);\n    if (d != OBJ)\n",
           "    if (d != OBJ)\n", HOOKS),
    Mutant("no clear before a realloc", PY + "hooks.c",
           "    if (code)\n        zmap_clear(at, code);\n    void *q = ask_resize(",
           "    void *q = ask_resize(", (*HOOKS, *THREADS)),
    Mutant("a hook charges after the allocation that failed", PY + "hooks.c",
           "        give_back_slowly(d, t, n);\n        return NULL;\n    }\n"
           "    if (zport_unlikely(!mark_result(t, d, p, n)))",
           "        return NULL;\n    }\n    if (zport_unlikely(!mark_result(t, d, p, n)))", HOOKS),
    Mutant("a small block that is freed stays in its thread's scopes", PY + "hooks.c",
           "    if (t->state) {\n        drop_measured(t, n);\n", "    if (t->state) {\n", SCOPES),
    Mutant("counters are plain with several threads, too", C + "zport.h",
           "(__libc_single_threaded != 0)", "(__libc_single_threaded != 2)", THREADS),
    Mutant("a scope's peak is forgotten", PY + "gauges.c",
           "raise_to(&g->peak, GET(g->net) + GET(l->top));", "raise_to(&g->peak, GET(g->net));",
           SCOPES),
    Mutant("a thread's budget gives credit for what was there", PY + "gauges.c",
           "        if (g->is_clamped)\n            narrow(&down, held);\n", "", SCOPES),
    Mutant("a scope is entered with what came before", PY + "gauges.c",
           "    settle(t);\n    return tied_sweep(", "    return tied_sweep(", SCOPES),
    Mutant("an __exit__ is refused its arguments", PY + "frames.c",
           "return (is_arguments || is_frame) && spot->frame", "return false && spot->frame",
           DELIVERY),
    Mutant("an error that comes the same way again is refused its traceback", PY + "relief.c",
           "        u->guesses[0].times = 0; /*", "        (void)0; /*", DELIVERY),
    Mutant("the last quarter is everybody's", PY + "delivery.c",
           "return state && frames_is_tracing(state) ? 4 : 3;", "return 4;", MODEL),
    Mutant("what a bystander takes is added up", PY + "delivery.c",
           "    if (t->crossing != now)\n        t->above = 0;\n", "", DELIVERY),
    Mutant("a worker's error is handed on without a look", PY + "verdict.c",
           "    if (!is_above(ask))\n        return spare(ask, t);\n    if (!is_own",
           "    if (!is_own", DELIVERY),
    Mutant("a pool's worker is refused what its bookkeeping takes", PY + "relief.c",
           " || (machinery_is_pool(top) && !zport_is_main_thread())", "", DELIVERY),
    Mutant("the trace of a frame that an exception passes is refused", PY + "faults.c",
           " || (d == RAW && way->was_vital && callers_trace_an_object())", "", FAULTS),
    Mutant("no arena where use is watched", PY + "hooks.c",
           "!zaccount_take_below(&python_account, n)", "!zaccount_take_fast(&python_account, n)",
           HELD),
)  # fmt: skip


def is_there_once(mutant: Mutant) -> bool:
    return (toolchain.ROOT / mutant.file).read_text().count(mutant.old) == 1


def run(command: list[str | Path]) -> tuple[int, str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = toolchain.run(command, TREE, env, TIMEOUT)
    except subprocess.TimeoutExpired:
        return 1, "FAILED it did not end\n"
    return done.returncode, done.stdout + done.stderr


def red(tests: Iterable[str], of_extension: bool) -> str:
    """What fails first, or "" if nothing does."""
    python: str | Path = sys.executable
    if of_extension:
        status, out = run(["tools/venv.sh", sys.executable, VENV, "test"])
        if status:
            return "it does not compile" if "error:" in out else f"no environment: {out[-500:]}"
        python = VENV / "bin" / "python"
    status, out = run([python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests])
    if status == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", out, re.M)
    return found[1] if found else f"status {status}"


def judge(figures: Figures, mutants: Iterable[Mutant]) -> None:
    for mutant in mutants:
        file = TREE / mutant.file
        text = file.read_text()
        file.write_text(text.replace(mutant.old, mutant.new))
        figures.notes[mutant.what] = by = red(mutant.tests, mutant.is_of_extension)
        file.write_text(text)
        print(f"    {by or 'NOTHING IS RED'}", flush=True)
        figures.add(mutant.what, mutants=1, findings=int(not by))


def main() -> int:
    parser = argparse.ArgumentParser(prog="checkers.mutants")
    parser.add_argument("--only", default="", metavar="REGEX", help="mutants whose name matches")
    chosen = [one for one in MUTANTS if re.search(parser.parse_args().only, one.what)]
    figures = Figures("mutants", "gcc")
    shutil.rmtree(TREE, ignore_errors=True)  # an interrupted run has left a mutant's objects
    project.copy(TREE)
    for of_extension in (False, True):
        tests = {test: None for one in chosen if one.is_of_extension == of_extension
                 for test in one.tests}  # fmt: skip
        wrong = tests and red(tests, of_extension)
        if wrong:
            figures.add(f"unchanged: {wrong}", mutants=0, findings=1)
            return figures.write()
    judge(figures, chosen)
    return figures.write()


if __name__ == "__main__":
    sys.exit(main())
