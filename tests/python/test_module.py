"""The C module itself: made again as in an interpreter that is not the first, refused, misused."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import zmalloc
from zmalloc import _core

from .processes import snippet

core: Any = _core  # as a type checker would not let it be called

MAKE = """
import gc, weakref, zmalloc
from importlib import util
from zmalloc import _core
spec = _core.__spec__
def make():
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""


def test_a_module_that_nobody_needs_any_more_is_gone_with_its_types() -> None:
    snippet(
        MAKE
        + """
for i in range(8):
    module = make()
    assert sorted(vars(module)) == sorted(vars(_core))
    with module.budget("1 GiB") as b, module.exempt():
        assert type(b) is module.Budget is not _core.Budget
    types = [value for value in vars(module).values() if type(value) is type]
    gone = [weakref.ref(one) for one in (module, *types)]
    assert len(gone) > 8
    del module, types, b
    gc.collect()
    assert not any(one() for one in gone), gone
    if i == 2:
        before = zmalloc.used()
assert zmalloc.used() - before < 10_000
"""
    )


def test_each_request_of_making_the_module_may_be_refused() -> None:
    requests, failures, kept = snippet(
        MAKE
        + """
make()
gc.collect()
before, failures, n = zmalloc.used(), 0, 0
while True:
    fault, error = zmalloc.fail_after(n), None
    try:
        with fault:
            make()
    except MemoryError as e:
        error = e.with_traceback(None)
        failures += 1
    if not fault.failed:
        break
    n += 1
assert error is None
del error, fault
gc.collect()
seen = zmalloc.audit()
assert seen.used == seen.counted
print((n, failures, zmalloc.used() - before))
"""
    ).value
    assert failures > 100
    assert failures > requests / 2
    assert kept < 300 * requests, "CPython itself keeps some of a type that is refused"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: core._parse_size("1 KiB"), "TypeError: _parse_size() takes a value and what"),
        (lambda: core._parse_size("1 KiB", 1), "TypeError: _parse_size() takes a value and what"),
        (lambda: core._parse_size("1 KiB", "\ud800"), "UnicodeEncodeError: "),
        (lambda: core._format_size(-1), "OverflowError: "),
        (lambda: core._format_size("1"), "TypeError: "),
        (lambda: core._execute(len), "TypeError: _execute() takes a function and a note"),
        (lambda: core._run_file("file"), "TypeError: expected a program and a dict"),
        (lambda: core._run_file("file", 1), "TypeError: expected a program and a dict"),
        (lambda: core._run_file(1, {}), "TypeError: "),
        (lambda: core._run_file("/no/such/file", {}), "FileNotFoundError: "),
        (lambda: core._run_text("1", 1), "TypeError: expected a program and a dict"),
        (lambda: core._run_text("\ud800", {}), "UnicodeEncodeError: "),
        (lambda: core._run_text(1, {}), "TypeError: "),
        (lambda: core._pieces(other=True), "TypeError: "),
        (lambda: core.budget("1 GiB").__enter__(1), "TypeError: __enter__() takes no arguments"),
        (lambda: core.Exempt.__enter__(1), "TypeError: not a zmalloc.Exempt"),
        (lambda: core.Exempt.__enter__.__get__(1), "TypeError: not a zmalloc.Exempt"),
    ],
)
def test_what_only_the_package_or_a_with_calls_takes_nothing_else(
    call: Callable[[], object], error: str
) -> None:
    with pytest.raises((TypeError, ValueError, OSError, OverflowError)) as raised:
        call()
    assert f"{type(raised.value).__name__}: {raised.value}".startswith(error)


def test_what_others_have_put_in_place_of_builtins_is_left_alone() -> None:
    snippet(
        """
        import builtins
        plain = builtins.compile, builtins.eval
        builtins.compile = lambda *a, **k: plain[0](*a, **k)
        del builtins.eval
        import zmalloc
        with zmalloc.fail_after(50) as fault:
            kept = [[n] for n in range(20)]
        assert fault.failed == 0
        """
    )


def test_without_arguments_no_piece_is_turned_off() -> None:
    assert core._pieces() is None


def capi(place: int, result: Any, *arguments: Any) -> Any:
    """A function of the capsule, by its place in zmalloc_capi.h; of 2 it is Python's account."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(zmalloc._C_API, b"zmalloc._C_API"), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.CFUNCTYPE(result, *arguments)(table[place]) if result is not int else table[place]


def test_the_limit_of_an_account_that_c_code_has_sealed_does_not_rise() -> None:
    _, address, account = zmalloc.lua_allocator("sealed")
    account.limit("4 MiB")
    capi(15, None, ctypes.c_void_p)(address)
    with pytest.raises(PermissionError, match=r"sealed.* is sealed: it cannot rise"):
        account.limit("8 MiB")
    account.limit("2 MiB")
    assert account.limit() == 2 << 20


@pytest.mark.parametrize("capped", [False, True])
def test_c_code_may_have_requests_of_python_refused(capped: bool) -> None:
    python = capi(2, int)
    fail_after = capi(18, None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    kept, refused = [], 0
    with zmalloc.budget("1 GiB") if capped else zmalloc.exempt():
        refusals = zmalloc.stats().refusals
        fail_after(python, 500, 3)
        for n in range(1000):
            try:
                kept.append(bytes(1000 + n))
            except MemoryError:
                refused += 1
        fail_after(python, -1, 0)
        refusals = zmalloc.stats().refusals - refusals
    assert 1 <= refused <= refusals <= 3, "what an error on its way asks for is granted"
    seen = zmalloc.audit()
    assert seen.used == seen.counted
