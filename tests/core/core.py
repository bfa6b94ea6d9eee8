"""The public functions of libzmalloc with their types, by ctypes."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_bool,
    c_char_p,
    c_int,
    c_int64,
    c_long,
    c_size_t,
    c_uint,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

SIZE_MAX = c_size_t(-1).value
UNLIMITED = SIZE_MAX
PREFIX = {"usable": 0, "prefix": 16}


class Figures(Structure):
    """struct zaccount_figures."""

    _fields_ = [
        ("used", c_size_t),
        ("peak", c_size_t),
        ("limit", c_size_t),
        ("hard_limit", c_size_t),
        ("allocations", c_uint64),
        ("frees", c_uint64),
        ("refusals", c_uint64),
        ("last_refused", c_size_t),
        ("retries", c_uint64),
        ("overhead_refusals", c_uint64),
        ("limit_hit", c_bool),
        ("reserve_open", c_bool),
        ("sealed", c_bool),
        ("guest_sealed", c_bool),
    ]

    def as_dict(self) -> dict[str, int | bool]:
        return {name: getattr(self, name) for name, *_ in self._fields_}


class Scope(Structure):
    """struct zaccount_scope."""

    _fields_ = [
        ("limit", c_size_t),
        ("reserve", c_size_t),
        ("peak", c_size_t),
        ("next", c_void_p),
    ]


KINDS = 16
Pressure = CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)
OutOfMemory = CFUNCTYPE(None, c_size_t)
Sizes = POINTER(c_size_t)

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "zmalloc_version": (c_char_p, []),
    "zmalloc_backend": (c_char_p, []),
    "zmalloc": (c_void_p, [c_size_t]),
    "zcalloc": (c_void_p, [c_size_t]),
    "zcalloc_num": (c_void_p, [c_size_t, c_size_t]),
    "zrealloc": (c_void_p, [c_void_p, c_size_t]),
    "zfree": (None, [c_void_p]),
    "zstrdup": (c_void_p, [c_char_p]),
    "ztrymalloc": (c_void_p, [c_size_t]),
    "ztrycalloc": (c_void_p, [c_size_t]),
    "ztrycalloc_num": (c_void_p, [c_size_t, c_size_t]),
    "ztryrealloc": (c_void_p, [c_void_p, c_size_t]),
    "zmalloc_usable": (c_void_p, [c_size_t, Sizes]),
    "zcalloc_usable": (c_void_p, [c_size_t, Sizes]),
    "zrealloc_usable": (c_void_p, [c_void_p, c_size_t, Sizes]),
    "ztrymalloc_usable": (c_void_p, [c_size_t, Sizes]),
    "ztrycalloc_usable": (c_void_p, [c_size_t, Sizes]),
    "ztryrealloc_usable": (c_void_p, [c_void_p, c_size_t, Sizes]),
    "zfree_usable": (None, [c_void_p, Sizes]),
    "zmalloc_size": (c_size_t, [c_void_p]),
    "zmalloc_usable_size": (c_size_t, [c_void_p]),
    "zmalloc_set_oom_handler": (None, [c_void_p]),
    "zmalloc_used_memory": (c_size_t, []),
    "zmalloc_peak_memory": (c_size_t, []),
    "zmalloc_account": (c_void_p, []),
    "zmalloc_get_rss": (c_size_t, []),
    "zmalloc_get_memory_size": (c_size_t, []),
    "zmalloc_get_smap_bytes_by_field": (c_size_t, [c_char_p, c_long]),
    "zmalloc_get_private_dirty": (c_size_t, [c_long]),
    "zaccount_new": (c_void_p, [c_char_p, c_void_p]),
    "zaccount_free": (c_int, [c_void_p]),
    "zaccount_name": (c_char_p, [c_void_p]),
    "zaccount_parent": (c_void_p, [c_void_p]),
    "zaccount_charge": (c_bool, [c_void_p, c_size_t]),
    "zaccount_uncharge": (None, [c_void_p, c_size_t]),
    "zaccount_give_back": (None, [c_void_p, c_size_t]),
    "zaccount_alloc": (c_void_p, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "zaccount_used": (c_size_t, [c_void_p]),
    "zaccount_peak": (c_size_t, [c_void_p]),
    "zaccount_reset_peak": (None, [c_void_p]),
    "zaccount_stats": (None, [c_void_p, POINTER(Figures)]),
    "zmalloc_total": (c_size_t, []),
    "zaccount_set_limit": (c_int, [c_void_p, c_size_t, c_size_t]),
    "zaccount_seal": (None, [c_void_p]),
    "zaccount_clear_hit": (None, [c_void_p]),
    "zaccount_on_pressure": (None, [c_void_p, c_size_t, c_void_p, c_void_p]),
    "zaccount_fail_after": (None, [c_void_p, c_int64, c_int64]),
    "zaccount_faults": (None, [c_void_p, POINTER(c_uint64), POINTER(c_uint64)]),
    "zaccount_set_single": (None, [c_void_p]),
    "zaccount_default": (c_void_p, []),
    "zaccount_kinds": (None, [c_void_p, c_uint64 * KINDS]),
    "zaccount_set_overhead": (None, [c_void_p, c_uint, c_uint]),
    "zaccount_enter": (None, [c_void_p, POINTER(Scope)]),
    "zaccount_leave": (None, [c_void_p, POINTER(Scope)]),
    "zaccount_scope_peak": (c_size_t, [c_void_p, POINTER(Scope)]),
    "zaccount_guest_limit": (c_int, [c_void_p, c_size_t, c_size_t]),
    "zaccount_guest_seal": (None, [c_void_p]),
    "zaccount_guest_peak": (c_size_t, [c_void_p]),
    "zaccount_guest_reset_peak": (None, [c_void_p]),
    "zsize_parse": (c_int, [c_char_p, c_size_t, c_size_t, Sizes]),
    "zsize_format": (c_char_p, [c_char_p, c_size_t]),
}


class Core:
    """One copy of the library. Its functions are attributes: core.zmalloc(10)."""

    def __init__(self, path: Path, mode: str = "usable", flags: int = 0) -> None:
        self.path, self.mode = path, mode
        self.prefix = PREFIX[mode]
        self.library = ctypes.CDLL(str(path), mode=flags)
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def __repr__(self) -> str:
        return f"<{self.mode} library>"

    def figures(self, account: int) -> Figures:
        out = Figures()
        self.zaccount_stats(account, byref(out))
        return out

    def faults(self, account: int) -> tuple[int, int]:
        """What fault injection has let through, and what it has refused."""
        passed, failed = c_uint64(99), c_uint64(99)
        self.zaccount_faults(account, byref(passed), byref(failed))
        return passed.value, failed.value

    def used(self) -> int:
        return int(self.zmalloc_used_memory())
