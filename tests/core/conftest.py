"""Fixtures: the library in both modes, further copies of it, and the shim."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_bool, c_char_p, c_size_t, c_uint, c_uint64, c_void_p

import pytest

from . import toolchain
from .core import Core, OutOfMemory


@pytest.fixture(scope="session", params=toolchain.MODES)
def core(request: pytest.FixtureRequest) -> Core:
    """The library, in each mode."""
    return Core(toolchain.shared_library(request.param), request.param)


@pytest.fixture(scope="session")
def copies() -> list[Core]:
    """Copies of the library in this process, which share one register; one differs inside."""
    return [Core(toolchain.shared_library("usable")),
            Core(toolchain.another_copy("usable", "second")),
            Core(toolchain.another_copy("prefix", "third"), "prefix"),
            Core(toolchain.another_layout())]


class Sums(ctypes.Structure):
    """struct zmap_figures."""

    _fields_ = [(name, c_size_t) for name in ("bytes", "blocks", "spans", "leaves")]


@pytest.fixture(scope="session")
def shim() -> ctypes.CDLL:
    """Internal functions of the core: see shim.c."""
    library = ctypes.CDLL(str(toolchain.shim_library()))
    for name, result, arguments in (
        ("shim_map_new", c_void_p, []),
        ("shim_map_free", None, [c_void_p]),
        ("shim_set", c_bool, [c_void_p, c_uint64, c_size_t]),
        ("shim_set_tag", c_bool, [c_void_p, c_uint64]),
        ("shim_set_span", c_bool, [c_void_p, c_uint64, c_size_t]),
        ("shim_reach", c_bool, [c_void_p, c_uint64]),
        ("shim_has_leaf", c_bool, [c_void_p, c_uint64]),
        ("shim_code", c_uint, [c_void_p, c_uint64]),
        ("shim_size", c_size_t, [c_void_p, c_uint64]),
        ("shim_clear", None, [c_void_p, c_uint64]),
        ("shim_sum", None, [c_void_p, ctypes.POINTER(Sums)]),
        ("shim_forget", None, [c_void_p]),
        ("shim_give_back", c_size_t, [c_void_p, c_uint64, c_size_t]),
        ("shim_memory_size_at", c_size_t, [c_char_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@pytest.fixture
def complaints(core: Core) -> Iterator[list[int]]:
    """The sizes that the out-of-memory handler was told; it returns, so that NULL comes back."""
    told: list[int] = []
    handler = OutOfMemory(told.append)
    core.zmalloc_set_oom_handler(handler)
    yield told
    core.zmalloc_set_oom_handler(None)


@pytest.fixture(autouse=True)
def leaves_no_trace(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of a library leaves use and the process's total where they were."""
    if "core" in request.fixturenames:
        library: Core = request.getfixturevalue("core")
    elif "copies" in request.fixturenames:
        library = request.getfixturevalue("copies")[0]
    else:
        yield
        return
    used, total = library.used(), library.zmalloc_total()
    yield
    assert library.used() == used, "the test left blocks of the family behind"
    assert library.zmalloc_total() == total, "the test left charges behind"
