"""One test for each bug of the classic zmalloc's history: each fails where the bug is back."""

from __future__ import annotations

from ctypes import byref, c_size_t, memset, string_at

import pytest

from . import toolchain
from .core import SIZE_MAX, Core

LIMITS = [SIZE_MAX - k for k in (0, 1, 7, 8, 15, 16, 17, 63, 4096)] + \
         [SIZE_MAX // 2 + k for k in (-17, -16, -15, -1, 0, 1, 16)]
TRY_AND_PANIC = ("ztry", "z")


def test_a_thousand_reallocs_do_not_drift(core: Core) -> None:
    """redis #5398: realloc added the prefix at each call, and use drifted up."""
    start = core.used()
    p = core.zmalloc(100)
    at_first = core.used()
    for i in range(1000):
        p = core.zrealloc(p, 100 + i % 7)
        p = core.zrealloc(p, 100)
    # A block may keep the room it once had, but no more than that: 106 bytes are within 128.
    assert abs(core.used() - at_first) < 32
    assert core.used() - start == core.zmalloc_size(p)
    core.zfree(p)
    assert core.used() == start


@pytest.mark.parametrize("size", [1, 7, 8, 9, 13, 24, 25, 100, 1000, 4097, 131_073])
def test_what_is_counted_is_what_is_uncounted(core: Core, size: int) -> None:
    """redis #4739, #4770, #4849, #5682: a rounded size was computed and the raw one counted."""
    start = core.used()
    p = core.zmalloc(size)
    assert core.used() - start == core.zmalloc_size(p)
    p = core.zrealloc(p, size * 2 + 1)
    assert core.used() - start == core.zmalloc_size(p)
    if core.mode == "prefix":
        assert core.zmalloc_size(p) == size * 2 + 1 + core.prefix
    core.zfree(p)
    assert core.used() == start


def test_every_byte_asked_for_may_be_written_and_none_is_lost(core: Core) -> None:
    """redis #7963: zmalloc_size() assumed a padding that was not there: a write out of bounds.

    ASan looks at the same thing in family.c; here neighbours are looked at for damage.
    """
    start = core.used()
    blocks = [(core.zmalloc(size), size) for size in range(200)]
    for p, size in blocks:
        memset(p, size, size)
    for p, size in blocks:
        assert string_at(p, size) == bytes([size]) * size
        assert core.zmalloc_usable_size(p) >= size
        core.zfree(p)
    assert core.used() == start


def test_use_never_wraps_below_nothing(core: Core) -> None:
    """valkey #694: the prefix was subtracted twice, and use went negative."""
    start = core.used()
    for size in (0, 1, 100):
        core.zfree(core.zmalloc(size))
        assert core.used() == start
        core.zfree_usable(core.zmalloc(size), None)
        assert core.used() == start
        core.zrealloc(core.zmalloc(size), 0)
        assert core.used() == start
    assert start < SIZE_MAX // 2
    assert core.zmalloc_peak_memory() < SIZE_MAX // 2


@pytest.mark.parametrize("size", LIMITS)
@pytest.mark.parametrize("kind", TRY_AND_PANIC)
def test_a_size_that_no_prefix_fits_on_is_refused_by_every_entry(core: Core, size: int, kind: str,
                                                                 complaints: list[int]) -> None:
    """redis #8522 (CVE-2021-21309) and #8531: size + prefix overflowed and a tiny block came."""
    start = core.used()
    usable = c_size_t(99)
    calls = [("malloc", (size,)), ("calloc", (size,)), ("calloc_num", (1, size)),
             ("calloc_num", (size, 1)), ("realloc", (None, size)),
             ("malloc_usable", (size, byref(usable))), ("calloc_usable", (size, byref(usable))),
             ("realloc_usable", (None, size, byref(usable)))]
    for name, arguments in calls:
        assert getattr(core, kind + name)(*arguments) is None, name
    assert complaints == ([] if kind == "ztry" else [size] * len(calls))
    assert core.used() == start


@pytest.mark.parametrize("pair", [(2, SIZE_MAX // 2 + 1), (SIZE_MAX, SIZE_MAX), (1 << 32, 1 << 32),
                                  ((1 << 32) + 1, 1 << 32), (SIZE_MAX // 16 + 2, 16)])
def test_a_product_that_wraps_around_gives_no_small_block(core: Core, pair: tuple[int, int],
                                                          complaints: list[int]) -> None:
    """redis #8522 once more, for products: calloc's own check must not be the only one."""
    start = core.used()
    for count, size in (pair, pair[::-1]):
        assert core.ztrycalloc_num(count, size) is None
        assert core.zcalloc_num(count, size) is None
    assert complaints == [SIZE_MAX] * 2
    assert core.used() == start


@pytest.mark.parametrize("size", LIMITS)
@pytest.mark.parametrize("name", ["zrealloc", "ztryrealloc", "zrealloc_usable",
                                  "ztryrealloc_usable"])
def test_a_realloc_that_fails_leaves_the_old_block_alone(core: Core, size: int, name: str,
                                                         complaints: list[int]) -> None:
    """The classic's ztryrealloc frees the caller's block when the size is near SIZE_MAX / 2."""
    start = core.used()
    p = core.zmalloc(1000)
    memset(p, 0x5A, 1000)
    held, peak = core.used(), core.zmalloc_peak_memory()
    frees = core.figures(core.zmalloc_account()).frees
    arguments = [p, size] + ([None] if name.endswith("usable") else [])
    assert getattr(core, name)(*arguments) is None
    assert complaints == ([] if "try" in name else [size])
    assert (core.used(), core.zmalloc_peak_memory()) == (held, peak)
    assert core.figures(core.zmalloc_account()).frees == frees
    fresh = core.zmalloc(1000)  # would be the same block, if that had been freed
    assert fresh != p
    memset(fresh, 0xA5, 1000)
    assert string_at(p, 1000) == b"\x5a" * 1000
    core.zfree(fresh)
    core.zfree(p)
    assert core.used() == start


@pytest.mark.parametrize("pair", [(0, 0), (7, 0), (0, 7), (SIZE_MAX, 0), (0, SIZE_MAX)])
def test_calloc_of_nothing_is_a_block_and_no_failure(core: Core, pair: tuple[int, int],
                                                     complaints: list[int]) -> None:
    """The classic's zcalloc_num(n, 0) goes to the out-of-memory handler."""
    start = core.used()
    blocks = [core.zcalloc_num(*pair), core.zcalloc_num(*pair), core.ztrycalloc_num(*pair)]
    assert all(blocks)
    assert len(set(blocks)) == 3
    assert complaints == []
    assert core.used() - start == sum(core.zmalloc_size(p) for p in blocks)
    for p in blocks:
        core.zfree(p)
    assert core.used() == start


def test_the_out_parameter_is_set_on_every_way_out(core: Core, complaints: list[int]) -> None:
    """redis@007b8bc7: `if (old_usable) *usable = oldsize`, and nothing set when realloc fails."""
    start = core.used()
    unset = 0xDEAD
    usable = c_size_t(unset)
    for name in ("zmalloc", "zcalloc", "ztrymalloc", "ztrycalloc"):
        function = getattr(core, f"{name}_usable")
        for size in (0, 1, 5000):
            usable.value = unset
            p = function(size, byref(usable))
            assert usable.value == core.zmalloc_size(p) >= size
            core.zfree(p)
        usable.value = unset
        assert function(SIZE_MAX, byref(usable)) is None
        assert usable.value == 0
    for name in ("zrealloc", "ztryrealloc"):
        function = getattr(core, f"{name}_usable")
        usable.value = unset
        p = function(None, 10, byref(usable))
        assert usable.value == core.zmalloc_size(p)
        for size in (10_000, 5):
            usable.value = unset
            p = function(p, size, byref(usable))
            assert usable.value == core.zmalloc_size(p)
        for failing in (SIZE_MAX, 1 << 62):
            usable.value = unset
            assert function(p, failing, byref(usable)) is None
            assert usable.value == 0
        usable.value = unset
        assert function(p, 0, byref(usable)) is None
        assert usable.value == 0
        usable.value = unset
        assert function(None, SIZE_MAX, byref(usable)) is None
        assert usable.value == 0
    for p in (core.zmalloc(77), None):
        counted = core.zmalloc_size(p)
        usable.value = unset
        core.zfree_usable(p, byref(usable))
        assert usable.value == counted
    assert complaints == [SIZE_MAX] * 2 + [SIZE_MAX, 1 << 62, SIZE_MAX]
    assert core.used() == start


def test_a_difference_that_is_negative_stays_one(core: Core) -> None:
    """redis #7908, #5633: unsigned differences wrapped around to 18446744073597767720."""
    start = core.used()
    p = core.zmalloc(1 << 20)
    big = core.used()
    p = core.zrealloc(p, 10)
    assert start < core.used() < big
    assert core.used() - start == core.zmalloc_size(p)
    assert core.zmalloc_peak_memory() < 1 << 40
    core.zfree(p)
    assert core.used() == start


def test_realloc_changes_use_by_one_difference(core: Core) -> None:
    """The classic counts realloc as a free and an allocation: the peak dips or rises wrongly."""
    start = core.used()
    account = core.zmalloc_account()
    p = core.zmalloc(1 << 20)
    core.zaccount_reset_peak(account)
    peak = core.used()
    for size in ((1 << 20) - 4096, 1 << 19, 1 << 18):
        p = core.zrealloc(p, size)
        # Counted as old + new, the peak would be nearly twice as high.
        assert core.zmalloc_peak_memory() == peak
    p = core.zrealloc(p, 1 << 21)
    assert core.zmalloc_peak_memory() == core.used() == start + core.zmalloc_size(p)
    core.zfree(p)
    assert core.used() == start


def test_a_growing_realloc_never_shows_a_dip_to_another_reader() -> None:
    """The other half of the same bug: another thread must not see the block uncounted meanwhile."""
    for mode in toolchain.MODES:
        path = toolchain.program("family.c", "family", toolchain.static_library(mode))
        assert "0 failed" in toolchain.must([path, "dip"])
