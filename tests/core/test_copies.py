"""Several copies of the core in one process: one register, one total, shared accounts."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from pathlib import Path

import pytest

from . import toolchain
from .test_threads import check

FLAGS = {"local": 0, "global": ctypes.RTLD_GLOBAL}

PREAMBLE = """
import sys, ctypes, os, signal
sys.path.insert(0, {package!r})
from core.core import *
from _ctypes import dlclose

class Table(ctypes.Structure):
    _fields_ = [("magic", ctypes.c_uint64), ("size", ctypes.c_size_t),
                ("version", ctypes.c_char_p), ("owner", ctypes.c_void_p)]

def table(copy):
    return ctypes.POINTER(Table).in_dll(copy.library, "zmalloc_core_v1")

def owner(copy):
    return table(copy).contents.owner

def address(copy):
    return ctypes.addressof(table(copy).contents)

def is_mapped(path):
    return os.path.realpath(path) in open("/proc/self/maps").read()

paths = {paths!r}
flags = {flags!r}
"""


def in_a_process(body: str, paths: list[Path], flags: int = 0,
                 env: dict[str, str] | None = None) -> None:
    """Runs Python lines in a process that has no copy yet; they must get to their end."""
    text = PREAMBLE.format(package=str(toolchain.HERE.parent), paths=[str(p) for p in paths],
                           flags=flags)
    done = toolchain.run([sys.executable, "-c", text + body + "\nprint('done')"], timeout=60,
                         env={**os.environ, **(env or {})})
    assert (done.returncode, done.stdout) == (0, "done\n"), f"{done.returncode}\n{done.stderr}"


TWO_COPIES = """
a, b = (Core(path, {mode!r}, flags) for path in paths)
for made, used in ((a, b), (b, a)):
    x = made.zaccount_new(b"x", None)
    y = used.zaccount_new(b"y", x)
    assert used.zaccount_set_limit(x, 100, 10) == 0
    assert used.zaccount_charge(y, 60) and made.zaccount_charge(x, 40)
    assert not used.zaccount_charge(y, 1), "the parent's limit holds in the other copy"
    assert used.zaccount_charge(y, 10), "and its reserve serves"
    assert used.zmalloc_total() == made.zmalloc_total() == 110
    for account in (x, y):
        assert made.figures(account).as_dict() == used.figures(account).as_dict()
    assert used.zaccount_name(x) == b"x" and made.zaccount_parent(y) == x
    assert used.zaccount_free(x) == -1
    used.zaccount_uncharge(x, 40); made.zaccount_uncharge(y, 70)
    calls = []
    callback = Pressure(lambda account, use, ud: calls.append((account, use, ud)))
    used.zaccount_on_pressure(x, 50, callback, 77)
    assert made.zaccount_charge(y, 51) and calls == [(x, 51, 77)]
    used.zaccount_give_back(y, 51)
    assert made.zaccount_peak(x) == 110
    used.zaccount_reset_peak(x); assert made.zaccount_peak(x) == 0
    used.zaccount_fail_after(y, 0, 1)
    assert not made.zaccount_charge(y, 1) and made.zaccount_charge(y, 1)
    assert made.faults(y) == used.faults(y) == (1, 1)
    used.zaccount_uncharge(y, 1)
    assert made.figures(x).limit_hit; used.zaccount_clear_hit(x)
    assert not made.figures(x).limit_hit
    assert used.zaccount_guest_limit(y, 80, 5) == 0 and made.figures(y).limit == 80
    used.zaccount_guest_seal(y); assert made.figures(y).guest_sealed
    assert used.zaccount_guest_limit(y, 90, 5) == made.zaccount_guest_limit(y, 90, 5) == -1
    used.zaccount_seal(x); assert made.zaccount_set_limit(x, 1000, 0) == -1
    assert used.zaccount_free(y) == 0 and used.zaccount_free(x) == 0
    assert made.zmalloc_total() == 0
"""


def copies_of(mode: str) -> list[Path]:
    return [toolchain.shared_library(mode), toolchain.another_copy(mode, "second")]


def test_a_copy_whose_accounts_look_different_inside_is_asked_about_them() -> None:
    in_a_process(TWO_COPIES.format(mode="usable"),
                 [toolchain.another_layout(), toolchain.shared_library("usable")])
    in_a_process(TWO_COPIES.format(mode="usable"),
                 [toolchain.shared_library("usable"), toolchain.another_layout()])


ORDERS = list(itertools.product((False, True), FLAGS, toolchain.MODES))


@pytest.mark.parametrize(("backwards", "flags", "mode"), ORDERS)
def test_two_copies_have_one_register_in_either_order(backwards: bool, flags: str,
                                                      mode: str) -> None:
    paths = copies_of(mode)[::-1 if backwards else 1]
    in_a_process(f"""
a, b = (Core(path, {mode!r}, flags) for path in paths)
assert address(a) != address(b)
assert owner(a) == owner(b) == address(a), "the first is the owner"
assert a.zmalloc_account() == b.zmalloc_account()
p, q = a.zmalloc(1000), b.zmalloc(500)
assert a.used() == b.used() == a.zmalloc_size(p) + b.zmalloc_size(q)
b.zfree(p); a.zfree(q)
assert a.used() == b.used() == a.zmalloc_total() == b.zmalloc_total() == 0
""", paths, FLAGS[flags])


@pytest.mark.parametrize(("backwards", "flags", "mode"), ORDERS)
def test_an_account_obeys_the_functions_of_both_copies(backwards: bool, flags: str,
                                                       mode: str) -> None:
    paths = copies_of(mode)[::-1 if backwards else 1]
    in_a_process(TWO_COPIES.format(mode=mode), paths, FLAGS[flags])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_three_copies_in_any_order_and_mixed_modes_agree(order: tuple[int, ...]) -> None:
    paths = [toolchain.shared_library("usable"), toolchain.another_copy("usable", "second"),
             toolchain.another_copy("prefix", "third")]
    in_a_process("""
copies = [Core(path) for path in paths]
assert {owner(copy) for copy in copies} == {address(copies[0])}
made = [copy.zaccount_new(b"x", None) for copy in copies]
for i, account in enumerate(made):
    assert copies[i - 1].zaccount_charge(account, 10 ** i)
assert [copy.zmalloc_total() for copy in copies] == [111] * 3
for i, account in enumerate(made):
    copies[i - 1].zaccount_uncharge(account, 10 ** i)
    assert copies[i - 2].zaccount_free(account) == 0
assert [copy.zmalloc_total() for copy in copies] == [0] * 3
""", [paths[i] for i in order])


@pytest.mark.parametrize("table", [
    "{0x7a6d616c6c6f6332u, 4096, 0, &table}",  # another magic number
    "{0x7a6d616c6c6f6331u, 32, 0, &table}",  # of before the first version
    "{0x7a6d616c6c6f6331u, 4096, 0, 0}",  # its constructor has not run
])
def test_what_only_has_the_name_of_a_table_is_passed_over(table: str, tmp_path: Path) -> None:
    source, product = tmp_path / "other.c", tmp_path / "libother.so"
    source.write_text("#include <stddef.h>\n#include <stdint.h>\n"
                      "struct table { uint64_t magic; size_t size; const char *version;\n"
                      "    struct table *owner; void *more[500]; };\n"
                      f"static struct table table = {table};\n"
                      "struct table *zmalloc_core_v1 = &table;\n")
    toolchain.must(["gcc", "-shared", "-fPIC", source, "-o", product])
    in_a_process("""
other = ctypes.CDLL(paths[0], mode=ctypes.RTLD_GLOBAL)
a, b = Core(paths[1]), Core(paths[2])
assert owner(a) == owner(b) == address(a)
assert a.zmalloc_total() == b.zmalloc_total() == 0
""", [product, *copies_of("usable")])


def test_an_owner_that_is_closed_stays_mapped_and_goes_on() -> None:
    in_a_process("""
a, b = (Core(path) for path in paths)
x = a.zaccount_new(b"x", None)
y = b.zaccount_new(b"y", x)
p = a.zmalloc(100)
dlclose(a.library._handle)
assert is_mapped(a.path), "the owner is pinned"
assert b.zaccount_charge(y, 5) and b.zaccount_used(x) == 5
assert b.zmalloc_total() == 5 + b.zmalloc_size(p)
b.zaccount_uncharge(y, 5)
assert b.zaccount_free(y) == 0 and b.zaccount_free(x) == 0
b.zfree(p)
assert b.zmalloc_total() == 0
if os.fork() == 0:
    os._exit(b.zmalloc_total())
assert os.wait()[1] == 0
""", copies_of("usable"))


def test_a_copy_that_is_closed_leaves_its_accounts_readable() -> None:
    """The one that does not own the register: its table is asked about its accounts."""
    in_a_process("""
a, b = (Core(path) for path in paths)
x = b.zaccount_new(b"x", None)
assert b.zaccount_charge(x, 5)
dlclose(b.library._handle)
assert is_mapped(b.path), "it is pinned, too"
assert a.zmalloc_total() == 5 and a.zaccount_name(x) == b"x"
a.zaccount_uncharge(x, 5)
assert a.zaccount_free(x) == 0 and a.zmalloc_total() == 0
""", copies_of("usable"))


def test_a_copy_that_is_alone_can_be_closed_and_loaded_again() -> None:
    """Its fork handlers must go with it, and the next copy becomes the owner."""
    in_a_process("""
a = Core(paths[0])
a.zfree(a.zmalloc(10))
dlclose(a.library._handle)
assert not is_mapped(paths[0]), "nothing keeps a copy that is alone"
if os.fork() == 0:
    os._exit(0)
assert os.wait()[1] == 0
b = Core(paths[1])
assert owner(b) == address(b)
c = Core(paths[0])
assert owner(c) == address(b)
""", copies_of("usable"))


def test_copies_find_each_other_by_relative_names_and_after_a_change_of_folder() -> None:
    in_a_process("""
import pathlib
here = os.path.dirname(paths[0])
os.chdir(here)
a = Core("./" + os.path.basename(paths[0]))
os.chdir("/")
b = Core(paths[1])
assert owner(a) == owner(b) == address(a)
""", copies_of("usable"))


@pytest.mark.parametrize("mode", toolchain.MODES)
@pytest.mark.parametrize("exports", [True, False])
def test_a_program_with_the_core_inside_works_with_a_library(mode: str, exports: bool) -> None:
    """With -rdynamic they find each other; without, an account can still be handed over."""
    library = toolchain.static_library(mode)
    flags, name = (["-rdynamic"], "copies-shared") if exports else ([], "copies-apart")
    program = toolchain.program("copies.c", name, library, "-O2", *flags)
    check(program, str(toolchain.another_copy(mode, "second")), "shared" if exports else "apart")


def test_a_library_that_is_there_before_the_program_starts_is_the_owner() -> None:
    """Its constructor runs before the program's, whose symbol it can already see."""
    library = toolchain.static_library("usable")
    program = toolchain.program("copies.c", "copies-shared", library, "-O2", "-rdynamic")
    path = toolchain.another_copy("usable", "second")
    done = toolchain.run([program, path, "shared"], timeout=60,
                         env={**os.environ, "LD_PRELOAD": str(path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_a_child_finds_the_register_free_in_every_copy() -> None:
    in_a_process("""
import threading
a, b = (Core(path) for path in paths)
stop = False
def work(copy):
    while not stop:
        copy.zaccount_free(copy.zaccount_new(b"t", None))
threads = [threading.Thread(target=work, args=(copy,)) for copy in (a, b)]
for thread in threads: thread.start()
for i in range(50):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        x = b.zaccount_new(b"x", None)
        ok = a.zaccount_charge(x, 3) and a.zmalloc_total() == 3 == b.zmalloc_total()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
for thread in threads: thread.join()
""", copies_of("usable"))
