"""What zmalloc.h promises, case by case, and the system's figures against /proc."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from ctypes import byref, c_size_t, memset, string_at
from pathlib import Path

import pytest

from . import toolchain
from .core import SIZE_MAX, UNLIMITED, Core, Pressure

# ---- out of memory -----------------------------------------------------------------------------


def child(core: Core, body: str) -> subprocess.CompletedProcess[str]:
    """Runs Python lines in a process of their own; `core` is the library there, too."""
    start = (f"import sys, ctypes, os; sys.path.insert(0, {str(toolchain.HERE.parent)!r})\n"
             f"from core.core import *\n"
             f"import faulthandler; faulthandler.disable()\n"
             f"core = Core({str(core.path)!r}, {core.mode!r})\n")
    return toolchain.run([sys.executable, "-c", start + body], timeout=60)


@pytest.mark.parametrize(("call", "size"), [
    ("core.zmalloc(SIZE_MAX)", SIZE_MAX),
    ("core.zmalloc(1 << 62)", 1 << 62),
    ("core.zcalloc(SIZE_MAX - 5)", SIZE_MAX - 5),
    ("core.zcalloc_num(1 << 40, 1 << 22)", 1 << 62),
    ("core.zcalloc_num(1 << 63, 2)", SIZE_MAX),
    ("core.zrealloc(core.zmalloc(10), 1 << 62)", 1 << 62),
    ("core.zrealloc(None, SIZE_MAX)", SIZE_MAX),
    ("core.zmalloc_usable(SIZE_MAX, None)", SIZE_MAX),
])
def test_the_default_handler_writes_one_line_with_the_size_and_aborts(core: Core, call: str,
                                                                      size: int) -> None:
    done = child(core, f"print('before', flush=True); {call}; print('after')")
    assert done.stdout == "before\n"
    assert done.returncode == -6
    assert done.stderr == f"zmalloc: out of memory allocating {size} bytes\n"


def test_the_default_handler_comes_back_with_null(core: Core) -> None:
    done = child(core, "h = OutOfMemory(lambda n: None); core.zmalloc_set_oom_handler(h)\n"
                       "core.zmalloc(SIZE_MAX); core.zmalloc_set_oom_handler(None)\n"
                       "core.zmalloc(SIZE_MAX - 1)")
    assert done.returncode == -6
    assert done.stderr == f"zmalloc: out of memory allocating {SIZE_MAX - 1} bytes\n"


def test_try_functions_never_reach_the_handler(core: Core) -> None:
    done = child(core, "core.ztrymalloc(SIZE_MAX); core.ztrycalloc(SIZE_MAX)\n"
                       "core.ztrycalloc_num(SIZE_MAX, 2); core.ztryrealloc(None, SIZE_MAX)\n"
                       "core.ztrymalloc_usable(SIZE_MAX, None)\n"
                       "core.ztrycalloc_usable(SIZE_MAX, None)\n"
                       "core.ztryrealloc_usable(core.zmalloc(1), SIZE_MAX, None)\n"
                       "print('alive')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_a_heap_that_is_really_full_is_out_of_memory_too(core: Core) -> None:
    """Not a size that is refused beforehand: the heap itself says no."""
    done = child(core, """
import resource
account = core.zmalloc_account()
p = core.zmalloc(1000); ctypes.memset(p, 7, 1000)
before = core.figures(account).as_dict()
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
told = []
h = OutOfMemory(told.append); core.zmalloc_set_oom_handler(h)
n, out = 1 << 33, c_size_t(9)
assert core.zmalloc(n) is None and core.zcalloc(n) is None and core.zrealloc(p, n) is None
assert core.zmalloc_usable(n, byref(out)) is None and out.value == 0
assert core.ztryrealloc(p, n) is None and told == [n] * 4, told
assert core.figures(account).as_dict() == before
assert ctypes.string_at(p, 1000) == bytes([7]) * 1000
core.zfree(p)
assert core.used() == 0
print('kept')""")
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr


def test_a_handler_that_returns_makes_the_result_null(core: Core, complaints: list[int]) -> None:
    assert core.zmalloc(SIZE_MAX) is None
    assert core.zcalloc_num(3, SIZE_MAX // 3) is None
    assert complaints == [SIZE_MAX, SIZE_MAX // 3 * 3]


# ---- blocks ------------------------------------------------------------------------------------


def test_blocks_of_no_bytes_are_real_and_distinct(core: Core) -> None:
    start = core.used()
    functions = (core.zmalloc, core.zcalloc, core.ztrymalloc, core.ztrycalloc,
                 lambda n: core.zrealloc(None, n), lambda n: core.ztryrealloc(None, n))
    blocks = [function(0) for function in functions for _ in range(20)]
    assert all(blocks)
    assert len(set(blocks)) == len(blocks)
    assert core.used() - start == sum(map(core.zmalloc_size, blocks)) > 0
    for p in blocks:
        core.zfree(p)
    assert core.used() == start


def test_realloc_to_no_bytes_frees_and_is_no_failure(core: Core, complaints: list[int]) -> None:
    start = core.used()
    account = core.zmalloc_account()
    for function in (core.zrealloc, core.ztryrealloc):
        p = core.zmalloc(100)
        frees = core.figures(account).frees
        assert function(p, 0) is None
        assert core.used() == start
        assert core.figures(account).frees == frees + 1
    assert complaints == []


def test_realloc_of_null_with_no_bytes_is_a_block(core: Core, complaints: list[int]) -> None:
    start = core.used()
    p = core.zrealloc(None, 0)
    assert p
    assert complaints == []
    core.zfree(p)
    assert core.used() == start


def test_null_is_a_block_of_nothing_everywhere(core: Core) -> None:
    start = core.figures(core.zmalloc_account()).as_dict()
    usable = c_size_t(5)
    core.zfree(None)
    core.zfree_usable(None, byref(usable))
    core.zfree_usable(None, None)
    assert usable.value == 0
    assert core.zmalloc_size(None) == core.zmalloc_usable_size(None) == 0
    assert core.zaccount_free(None) == 0
    assert core.figures(core.zmalloc_account()).as_dict() == start


@pytest.mark.parametrize("text", [b"", b"a", b"x" * 5000, "zwölf".encode()])
def test_strdup_copies_up_to_the_zero_and_counts_it(core: Core, text: bytes) -> None:
    start = core.used()
    p = core.zstrdup(text)
    assert string_at(p, len(text) + 1) == text + b"\0"
    assert core.zmalloc_size(p) >= len(text) + 1
    assert core.used() - start == core.zmalloc_size(p)
    core.zfree(p)
    assert core.used() == start


def test_calloc_zeroes_a_block_that_was_used_before(core: Core) -> None:
    start = core.used()
    for size in (1, 24, 200, 1000, 100_000):
        for _ in range(4):
            p = core.zmalloc(size)
            memset(p, 0xFF, size)
            core.zfree(p)
            p = core.zcalloc(size)
            assert string_at(p, size) == bytes(size)
            memset(p, 0xFF, size)
            core.zfree(p)
    assert core.used() == start


def test_usable_size_is_the_size_without_the_prefix(core: Core) -> None:
    start = core.used()
    for size in (0, 1, 16, 1000):
        p = core.zmalloc(size)
        assert core.zmalloc_usable_size(p) == core.zmalloc_size(p) - core.prefix >= size
        core.zfree(p)
    assert core.used() == start


def test_the_two_modes_count_differently_and_say_so(core: Core) -> None:
    """Otherwise one of the modes would not be tested at all."""
    start = core.used()
    p = core.zmalloc(1)
    counted = core.used() - start
    assert counted == 17 if core.mode == "prefix" else counted >= 24
    core.zfree(p)
    assert core.used() == start


def test_version_and_backend_are_the_headers(core: Core) -> None:
    header = (toolchain.CSRC / "zmalloc.h").read_text()
    written = re.search(r'^#define ZMALLOC_VERSION "(.*)"', header, re.M)
    assert written
    assert core.zmalloc_version().decode() == written[1]
    assert core.zmalloc_backend() == b"libc"


def test_the_header_and_the_wrapper_name_the_same_functions() -> None:
    """A public function without a test's types here has no test."""
    from .core import SIGNATURES
    text = "".join((toolchain.CSRC / name).read_text()
                   for name in ("zmalloc.h", "zaccount.h", "zsize.h"))
    declared = set(re.findall(r"^ZMALLOC_API [^;(]*?(z\w+)\(", text, re.M))
    assert declared == set(SIGNATURES)


# ---- the family's account ----------------------------------------------------------------------


def test_the_familys_account_is_called_c_and_takes_no_cap(core: Core) -> None:
    start = core.used()
    account = core.zmalloc_account()
    assert core.zaccount_name(account) == b"C"
    assert core.zaccount_parent(account) is None
    assert core.zaccount_set_limit(account, 1, 0) == 0
    p = core.zmalloc(100_000)
    assert p
    core.zaccount_set_limit(account, UNLIMITED, 0)
    core.zfree(p)
    assert core.used() == start


def test_the_family_is_a_part_of_the_total(core: Core) -> None:
    total = core.zmalloc_total()
    p = core.zmalloc(1000)
    assert core.zmalloc_total() - total == core.zmalloc_size(p)
    core.zfree(p)
    assert core.zmalloc_total() == total


def test_a_name_is_cut_to_31_bytes_and_may_be_missing(core: Core) -> None:
    for name, kept in ((b"x" * 100, b"x" * 31), (b"y" * 31, b"y" * 31), (b"", b""), (None, b"")):
        account = core.zaccount_new(name, None)
        assert core.zaccount_name(account) == kept
        assert core.zaccount_free(account) == 0


def test_accounts_made_and_ended_leave_no_memory_behind(core: Core) -> None:
    total = core.zmalloc_total()
    for _ in range(100):  # the allocator's own pools fill up
        core.zaccount_free(core.zaccount_new(b"warm", None))
    before = core.zmalloc_get_smap_bytes_by_field(b"Private_Dirty:", -1)
    for _ in range(20_000):
        assert core.zaccount_free(core.zaccount_new(b"short", None)) == 0
    assert core.zmalloc_get_smap_bytes_by_field(b"Private_Dirty:", -1) - before < 2 << 20
    assert core.zmalloc_total() == total


# ---- caps, step by step ------------------------------------------------------------------------


@pytest.fixture
def account(core: Core) -> Iterator[int]:
    made: int = core.zaccount_new(b"capped", None)
    yield made
    core.zaccount_uncharge(made, core.zaccount_used(made))
    assert core.zaccount_free(made) == 0


def test_a_limit_is_inclusive_on_the_slow_path_too(core: Core, account: int) -> None:
    """Under fault injection each charge takes the long way."""
    core.zaccount_set_limit(account, 100, 10)
    core.zaccount_fail_after(account, 1000, 1)
    assert core.zaccount_charge(account, 100)
    assert not core.zaccount_charge(account, 1)
    assert core.zaccount_charge(account, 10)
    assert not core.zaccount_charge(account, 1)
    assert core.zaccount_used(account) == 110


@pytest.mark.parametrize(("n", "repeat", "granted"), [
    (0, 1, [0, 1, 1, 1, 1]), (2, 1, [1, 1, 0, 1, 1]), (1, 3, [1, 0, 0, 0, 1]),
    (3, -1, [1, 1, 1, 0, 0]),
])
def test_faults_come_after_as_many_requests_as_were_asked_for(
    core: Core, account: int, n: int, repeat: int, granted: list[int]
) -> None:
    core.zaccount_fail_after(account, n, repeat)
    assert [int(core.zaccount_charge(account, 10)) for _ in range(5)] == granted
    assert core.zaccount_charge(account, 0), "nothing is asked for: no request"
    core.zaccount_uncharge(account, 10)
    figures = core.figures(account)
    assert core.faults(account) == (sum(granted), 5 - sum(granted))
    assert (figures.used, figures.refusals) == (10 * sum(granted) - 10, 5 - sum(granted))
    assert (figures.last_refused, figures.limit_hit, figures.reserve_open) == (10, False, False)
    core.zaccount_fail_after(account, n, 0)
    assert all(core.zaccount_charge(account, 1) for _ in range(5)), "it is off"
    assert core.faults(account) == (sum(granted), 5 - sum(granted)), "the counts stay, and stand"
    core.zaccount_fail_after(account, n, repeat)
    assert core.faults(account) == (0, 0)


def test_a_fault_is_only_for_what_grows(core: Core, account: int) -> None:
    block = core.zaccount_alloc(account, None, 0, 100)
    core.zaccount_fail_after(account, 0, -1)
    assert core.zaccount_alloc(account, None, 0, 1) is None
    assert core.zaccount_alloc(account, block, 100, 101) is None
    block = core.zaccount_alloc(account, block, 100, 50)
    assert core.zaccount_alloc(account, block, 50, 50) == block
    core.zaccount_alloc(account, block, 50, 0)
    figures = core.figures(account)
    assert (figures.used, figures.allocations, figures.frees, figures.refusals) == (0, 1, 1, 2)
    assert core.faults(account) == (0, 2)


def test_a_fault_of_a_parent_is_its_own_and_hits_its_children(core: Core, account: int) -> None:
    child = core.zaccount_new(b"child", account)
    core.zaccount_fail_after(child, 1, 1)
    assert [core.zaccount_charge(child, 5) for _ in range(3)] == [True, False, True]
    assert core.figures(account).refusals == 0, "the parent has not been asked"
    core.zaccount_fail_after(child, 0, 0)
    core.zaccount_fail_after(account, 1, 1)
    assert [core.zaccount_charge(child, 5) for _ in range(3)] == [True, False, True]
    assert core.faults(account) == core.faults(child) == (2, 1)
    assert (core.zaccount_used(child), core.zaccount_used(account)) == (20, 20)
    core.zaccount_uncharge(child, 20)
    assert core.zaccount_free(child) == 0


def test_the_request_that_hit_the_limit_is_not_served_from_the_reserve(core: Core,
                                                                       account: int) -> None:
    core.zaccount_set_limit(account, 100, 50)
    assert core.zaccount_charge(account, 90)
    assert not core.zaccount_charge(account, 20)
    assert core.zaccount_used(account) == 90
    assert core.figures(account).reserve_open
    assert core.zaccount_charge(account, 60)


@pytest.mark.parametrize(("limit", "reserve", "closes"), [
    (100, 10, 90), (100, 50, 50), (100, 80, 50), (100, SIZE_MAX, 50), (1, 1, 1), (0, 5, 0),
])
def test_the_reserve_closes_at_its_mark_and_not_before(core: Core, account: int, limit: int,
                                                       reserve: int, closes: int) -> None:
    core.zaccount_set_limit(account, limit, reserve)
    assert core.zaccount_charge(account, limit)
    assert not core.zaccount_charge(account, 1)
    assert core.zaccount_charge(account, 1)
    core.zaccount_uncharge(account, core.zaccount_used(account) - closes - 1)
    assert core.figures(account).reserve_open or limit == closes
    core.zaccount_uncharge(account, core.zaccount_used(account) - closes)
    assert not core.figures(account).reserve_open


def test_the_reserve_closes_also_when_the_callback_was_made_ready_on_the_way(
        core: Core, account: int) -> None:
    """Two things wait for use to fall, at different marks: one must not forget the other."""
    calls: list[int] = []
    callback = Pressure(lambda _, used, __: calls.append(used))
    core.zaccount_set_limit(account, 100, 40)
    core.zaccount_on_pressure(account, 80, callback, None)
    assert core.zaccount_charge(account, 100)
    assert not core.zaccount_charge(account, 1)
    core.zaccount_uncharge(account, 25)  # 75: below the mark, above where the reserve closes
    assert core.figures(account).reserve_open
    core.zaccount_uncharge(account, 15)  # 60
    assert not core.figures(account).reserve_open
    assert core.zaccount_charge(account, 30)
    assert calls == [100, 90]
    core.zaccount_on_pressure(account, 0, None, None)


def test_under_a_seal_neither_mark_rises_and_both_may_fall(core: Core, account: int) -> None:
    core.zaccount_set_limit(account, 100, 10)
    core.zaccount_seal(account)
    for limit, reserve in ((101, 0), (100, 11), (50, 61), (UNLIMITED, 0), (100, SIZE_MAX)):
        assert core.zaccount_set_limit(account, limit, reserve) == -1
        assert (core.figures(account).limit, core.figures(account).hard_limit) == (100, 110)
    assert core.zaccount_set_limit(account, 50, 60) == 0
    assert core.zaccount_set_limit(account, 40, 0) == 0
    assert core.zaccount_set_limit(account, 40, 1) == -1


def test_a_cap_below_what_is_in_use_is_legal_and_refuses_growth_only(core: Core,
                                                                     account: int) -> None:
    p = core.zaccount_alloc(account, None, 0, 1000)
    assert core.zaccount_set_limit(account, 10, 0) == 0
    assert core.zaccount_alloc(account, p, 1000, 1001) is None
    p = core.zaccount_alloc(account, p, 1000, 500)
    assert p
    assert core.zaccount_used(account) == 500
    assert core.zaccount_alloc(account, p, 500, 0) is None
    assert core.zaccount_charge(account, 10)


# ---- the system's figures ----------------------------------------------------------------------


def status(field: str) -> int:
    line = re.search(rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert line
    return int(line[1]) * 1024


def smaps(field: str, pid: int | str = "self") -> int:
    lines = re.findall(rf"^{field}:\s*(\d+) kB$", Path(f"/proc/{pid}/smaps").read_text(), re.M)
    return sum(map(int, lines)) * 1024


def test_resident_memory_is_what_proc_says(core: Core) -> None:
    # status is exact only to some pages a CPU: the kernel batches the counter.
    assert abs(core.zmalloc_get_rss() - status("VmRSS")) < 4 << 20


def test_resident_memory_follows_touched_pages(core: Core) -> None:
    before = core.zmalloc_get_rss()
    size = 64 << 20
    with mmap.mmap(-1, size) as area:
        assert core.zmalloc_get_rss() - before < size // 2
        for at in range(0, size, mmap.PAGESIZE):
            area[at] = 1
        assert abs(core.zmalloc_get_rss() - before - size) < size // 16
    assert abs(core.zmalloc_get_rss() - before) < size // 16


@pytest.mark.parametrize("field", ["Rss", "Pss", "Private_Dirty", "Private_Clean", "Shared_Clean",
                                   "Anonymous", "Size"])
def test_smaps_fields_add_up(core: Core, field: str) -> None:
    """`Size` is not in smaps_rollup: it has to be added up from smaps itself."""
    for _ in range(300):  # reading it needs memory, too, and other processes share these pages
        before = smaps(field)
        read = core.zmalloc_get_smap_bytes_by_field(f"{field}:".encode(), -1)
        if before == smaps(field) > 0 and abs(read - before) <= before // 200:
            break
    assert abs(read - before) <= before // 200


def test_a_field_is_matched_as_a_whole(core: Core) -> None:
    """`Private_Dirty:` must not be read out of `Shared_Dirty:` nor `Rss:` out of `SwapRss:`."""
    pss = core.zmalloc_get_smap_bytes_by_field(b"Pss:", -1)
    assert abs(pss - smaps("Pss")) <= 4 << 20
    assert core.zmalloc_get_smap_bytes_by_field(b"Dirty:", -1) == 0
    assert core.zmalloc_get_smap_bytes_by_field(b"NoSuchField:", -1) == 0


def test_smaps_of_another_process_and_of_none(core: Core) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL) as other:
        while smaps("Rss", other.pid) < 4 << 20:  # until it is up
            pass
        mine = core.zmalloc_get_smap_bytes_by_field(b"Size:", other.pid)
        assert abs(mine - smaps("Size", other.pid)) <= 4 << 20
        assert core.zmalloc_get_private_dirty(other.pid) > 0
        other.communicate(b"\n")
    assert core.zmalloc_get_smap_bytes_by_field(b"Rss:", other.pid) == 0
    assert core.zmalloc_get_private_dirty(2**31 - 1) == 0


def test_private_dirty_grows_with_what_is_written(core: Core) -> None:
    start = core.used()
    before = core.zmalloc_get_private_dirty(-1)
    p = core.zmalloc(32 << 20)
    assert core.zmalloc_get_private_dirty(-1) - before < 4 << 20
    memset(p, 1, 32 << 20)
    assert abs(core.zmalloc_get_private_dirty(-1) - before - (32 << 20)) < 1 << 19
    core.zfree(p)
    assert core.used() == start


def test_the_system_figures_leave_no_descriptor_open(core: Core) -> None:
    before = os.listdir("/proc/self/fd")
    core.zmalloc_get_rss()
    core.zmalloc_get_memory_size()
    core.zmalloc_get_private_dirty(-1)
    core.zmalloc_get_smap_bytes_by_field(b"Size:", -1)
    assert os.listdir("/proc/self/fd") == before


# ---- how much memory there is to use -----------------------------------------------------------

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def tree(root: Path, cgroup: str, files: dict[str, str]) -> bytes:
    """A made-up /proc/self/cgroup and /sys/fs/cgroup below `root`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root).encode()


V1 = "12:cpu,cpuacct:/a\n5:memory:/docker/abc\n3:name=systemd:/docker/abc\n0::/\n"
NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(("cgroup", "files", "expected"), [
    pytest.param("0::/a/b\n", {"a/b/memory.max": f"{64 * MIB}\n"}, 64 * MIB, id="v2"),
    pytest.param("0::/a/b\n", {"a/b/memory.max": "max\n"}, MACHINE, id="v2 without a limit"),
    pytest.param("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{32 * MIB}\n"},
                 32 * MIB, id="v2, the limit is the parent's"),
    pytest.param("0::/a/b\n", {"a/b/memory.max": f"{64 * MIB}\n", "a/memory.max": f"{9 * MIB}\n"},
                 9 * MIB, id="v2, the parent's is smaller"),
    pytest.param("0::/a/b\n", {"a/b/memory.max": f"{8 * MIB}\n", "a/memory.max": f"{9 * MIB}\n"},
                 8 * MIB, id="v2, the parent's is larger"),
    pytest.param("0::/\n", {"memory.max": f"{7 * MIB}\n"}, 7 * MIB, id="v2 in a namespace"),
    pytest.param("0::/../other\n", {"memory.max": f"{7 * MIB}\n"}, 7 * MIB,
                 id="v2 outside the namespace's root"),
    pytest.param("0::/a b/c:d\n", {"a b/c:d/memory.max": f"{6 * MIB}\n"}, 6 * MIB,
                 id="v2, blanks and colons in the path"),
    pytest.param("0::/a/b", {"a/b/memory.max": f"{64 * MIB}"}, 64 * MIB, id="no last newline"),
    pytest.param(V1, {"memory/docker/abc/memory.limit_in_bytes": f"{5 * MIB}\n"}, 5 * MIB, id="v1"),
    pytest.param(V1, {"memory/docker/abc/memory.limit_in_bytes": NO_LIMIT_V1}, MACHINE,
                 id="v1 without a limit"),
    pytest.param(V1, {"memory/memory.limit_in_bytes": f"{4 * MIB}\n"}, 4 * MIB,
                 id="v1, a container that sees only its own mount"),
    pytest.param(V1, {"memory/docker/memory.limit_in_bytes": f"{3 * MIB}\n",
                      "memory/docker/abc/memory.limit_in_bytes": NO_LIMIT_V1,
                      "memory/memory.limit_in_bytes": NO_LIMIT_V1}, 3 * MIB,
                 id="v1, the limit is the parent's"),
    pytest.param(V1, {"cpu,cpuacct/a/memory.limit_in_bytes": f"{MIB}\n"}, MACHINE,
                 id="v1, a file of another controller"),
    pytest.param("5:memory:/x\n0::/y\n", {"memory/x/memory.limit_in_bytes": f"{90 * MIB}\n",
                                          "y/memory.max": f"{80 * MIB}\n"}, 80 * MIB,
                 id="both, the smaller"),
    pytest.param("0::/a\n", {"a/memory.max": str(SIZE_MAX) + "00\n"}, MACHINE, id="more than fits"),
    pytest.param("0::/a\n", {"a/memory.max": "\n"}, MACHINE, id="an empty line"),
    pytest.param("0::/a\n", {}, MACHINE, id="no file"),
    pytest.param("", {}, MACHINE, id="an empty list"),
    pytest.param("nonsense\n5:memory\n::\n", {"memory.max": f"{2 * MIB}\n"}, 2 * MIB,
                 id="nonsense"),
    pytest.param("0::/" + "d" * 200 + "\n", {"memory.max": f"{2 * MIB}\n"}, 2 * MIB, id="long"),
])
def test_memory_size_is_the_smallest_of_the_machine_and_the_groups(
        shim: ctypes.CDLL, tmp_path: Path, cgroup: str, files: dict[str, str],
        expected: int) -> None:
    assert shim.shim_memory_size_at(tree(tmp_path, cgroup, files)) == expected


def test_memory_size_without_a_list_of_groups_is_the_machines(shim: ctypes.CDLL,
                                                              tmp_path: Path) -> None:
    assert shim.shim_memory_size_at(str(tmp_path).encode()) == MACHINE


def test_a_list_of_groups_longer_than_its_buffer_is_read_as_far_as_it_goes(
        shim: ctypes.CDLL, tmp_path: Path) -> None:
    lines = "0::/a\n" + "".join(f"{i}:cpu{i}:/{'x' * 100}\n" for i in range(200))
    assert shim.shim_memory_size_at(tree(tmp_path, lines, {"a/memory.max": f"{MIB}\n"})) == MIB


def test_memory_size_of_this_process_is_within_the_machine(core: Core) -> None:
    assert 0 < core.zmalloc_get_memory_size() <= MACHINE
