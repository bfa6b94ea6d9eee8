"""Sizes in markers and options: as everywhere in zmalloc, and 0 where nothing may be held."""

from __future__ import annotations

import re

from zmalloc import _core

_ZERO = r"(?i)0(\.0+)?\s*([KMGT]i?B?|B)?"  # compiled where it is needed


def parse(value: object, what: str, zero: bool = False) -> int:
    """Bytes. ``what`` is named in the ValueError, TypeError or OverflowError of a wrong one."""
    if zero and (_is_int_zero(value) or (isinstance(value, str) and re.fullmatch(_ZERO, value))):
        return 0
    return _core._parse_size(value, what)


def _is_int_zero(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def show(size: int) -> str:
    """Text for people: ``1,000 B``, ``24.0 MiB``; differences may be negative."""
    if abs(size) < 1024:
        return f"{size:,} B"
    return ("-" if size < 0 else "") + _core._format_size(abs(size))


def show_exactly(size: int) -> str:
    """The same, with all digits where the short text has not got them."""
    return show(size) if abs(size) < 1024 else f"{show(size)} ({size:,} B)"
