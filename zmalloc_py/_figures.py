"""What :func:`stats` and :func:`audit` return: frozen, typed, printable.

Written without dataclasses, whose import alone would hold more than everything else here.
"""

from __future__ import annotations

from zmalloc import _core

TYPE_CHECKING = False  # typing's, without its import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn


class _Frozen:
    """Attributes that are set once, a readable repr, equality by value."""

    __slots__ = ()

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is read-only: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is read-only: cannot delete {name!r}")

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        return None, dict(self._values())

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        self._set(**state[1])

    def _values(self) -> Iterator[tuple[str, Any]]:
        names: tuple[str, ...] = self.__slots__
        return ((name, getattr(self, name)) for name in names)

    def as_dict(self) -> dict[str, Any]:
        """All figures as plain ints, bools, strings, None and dicts: ready for JSON."""
        return {
            name: value.as_dict() if isinstance(value, _Frozen) else value
            for name, value in self._values()
        }

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._values())
        return f"{type(self).__name__}({inside})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(value for _, value in self._values()))


class Domain(_Frozen):
    """The figures of one of CPython's allocator domains.

    ``raw``, ``mem`` and ``obj`` are those of PyMem_RawMalloc, PyMem_Malloc and PyObject_Malloc; a
    block belongs to the one that was called. ``stack`` is the chunks that Python frames live in,
    from 3.11 on.
    """

    __slots__ = ("used", "allocations", "frees", "refusals")

    used: int  #: bytes held now
    allocations: int  #: blocks taken; a realloc counts as neither
    frees: int  #: blocks given back
    refusals: int  #: requests refused by a limit

    def __init__(self, used: int, allocations: int, frees: int, refusals: int) -> None:
        self._set(used=used, allocations=allocations, frees=frees, refusals=refusals)


class Refusal(_Frozen):
    """A request that a limit refused: how many bytes, and which line of Python asked."""

    __slots__ = ("bytes", "file", "line")

    bytes: int  #: the size asked for
    file: str | None  #: None where no Python code was running; of a long name the end
    line: int | None

    def __init__(self, size: int, file: str | None, line: int | None) -> None:
        self._set(bytes=size, file=file, line=line)


class Stats(_Frozen):
    """Every figure at one moment, in bytes or events. ``print()`` shows a table."""

    __slots__ = (
        "used",
        "total",
        "peak",
        "limit",
        "hard_limit",
        "reserve",
        "limit_hit",
        "allocations",
        "frees",
        "refusals",
        "last_refused",
        "limit_errors",
        "collections",
        "overhead_errors",
        "handler_repair",
        "untracked",
        "reinstalled",
        "held",
        "held_limit",
        "mode",
        "mode_note",
        "rss",
        "fragmentation",
        "core",
        "raw",
        "mem",
        "obj",
        "stack",
    )

    used: int  #: bytes that Python holds, as requested
    total: int  #: bytes that all accounts of the process hold
    peak: int  #: the true maximum of used
    limit: int | None  #: the limit in force on used
    hard_limit: int | None  #: what used never passes: limit + reserve
    reserve: int  #: hard_limit - limit
    limit_hit: bool  #: a limit has refused something or raised an error since the import
    allocations: int  #: blocks taken; a realloc counts as neither allocation nor free
    frees: int  #: blocks given back
    refusals: int  #: requests refused by a limit
    last_refused: Refusal | None  #: the last of them, or what the last LimitError came for
    limit_errors: int  #: LimitErrors raised
    collections: int  #: garbage collections made before an error was raised, or not
    overhead_errors: int  #: LimitErrors raised because those had become most of the work
    handler_repair: bool  #: whether an error reaches the handler beside a loop on this CPython
    untracked: int  #: blocks not counted as the system gave no room for the map
    reinstalled: int  #: times another tool had taken the hooks out and they were put back
    held: int  #: bytes that the system has given: arenas, large blocks, frame chunks
    held_limit: int | None  #: the limit in force on held
    mode: str  #: "exact" or "held": see install()
    mode_note: str | None  #: why the mode is not the one that was asked for
    rss: int  #: resident memory of the process
    fragmentation: float | None  #: rss / total; None while nothing is counted
    core: str  #: which copy of the core keeps the register of this process
    raw: Domain
    mem: Domain
    obj: Domain
    stack: Domain

    def __init__(self, figures: _core._Figures) -> None:
        last = figures["last_refused"]
        self._set(
            **figures,
        )
        self._set(
            last_refused=Refusal(*last) if last else None,
            fragmentation=figures["rss"] / figures["total"] if figures["total"] else None,
            raw=Domain(*figures["raw"]),
            mem=Domain(*figures["mem"]),
            obj=Domain(*figures["obj"]),
            stack=Domain(*figures["stack"]),
        )

    def __str__(self) -> str:
        return "\n".join(_table(self))


class Audit(_Frozen):
    """What is live by the map of all blocks, beside what the counters say."""

    __slots__ = ("used", "counted", "stack", "blocks")

    used: int  #: bytes of all live blocks and frame chunks, found by walking the map
    counted: int  #: bytes by the counters; equal unless another thread is allocating
    stack: int  #: bytes of the frame chunks, a part of used
    blocks: int  #: live blocks

    def __init__(self, used: int, counted: int, stack: int, blocks: int) -> None:
        self._set(used=used, counted=counted, stack=stack, blocks=blocks)


def _size(n: int | None) -> str:
    if n is None:
        return "none"
    if n < 1024:
        return f"{n:,} B"
    return f"{n:,} B  ({_core._format_size(n)})"


def _refusal(last: Refusal | None) -> str:
    if last is None:
        return "none"
    place = f" at {last.file}:{last.line}" if last.file else ""
    return f"{last.bytes:,} B{place}"


def _table(s: Stats) -> Iterator[str]:
    rows = [
        ("used", _size(s.used)),
        ("peak", _size(s.peak)),
        ("limit", _size(s.limit) + (", hit" if s.limit_hit else "")),
        ("hard limit", _size(s.hard_limit)),
        ("total", _size(s.total)),
        ("held", _size(s.held)),
        ("held limit", _size(s.held_limit)),
        ("mode", s.mode + (f": {s.mode_note}" if s.mode_note else "")),
        ("rss", _size(s.rss)),
        ("fragmentation", "none" if s.fragmentation is None else f"{s.fragmentation:.2f}"),
        ("allocations", f"{s.allocations:,}"),
        ("frees", f"{s.frees:,}"),
        ("refusals", f"{s.refusals:,}"),
        ("last refused", _refusal(s.last_refused)),
        ("limit errors", f"{s.limit_errors:,}"),
        ("collections", f"{s.collections:,}"),
        ("untracked", f"{s.untracked:,}"),
        ("reinstalled", f"{s.reinstalled:,}"),
        ("core", s.core),
    ]
    for name, value in rows:
        yield f"{name:<14}{value}"
    yield f"{'domain':<8}{'used':>16}{'allocations':>16}{'frees':>16}{'refusals':>12}"
    for name in ("raw", "mem", "obj", "stack"):
        d: Domain = getattr(s, name)
        yield f"{name:<8}{d.used:>16,}{d.allocations:>16,}{d.frees:>16,}{d.refusals:>12,}"


def stats() -> Stats:
    """Every figure at this moment. May be called from any thread."""
    return Stats(_core._figures())


def audit() -> Audit:
    """Walk the map of all live blocks and compare it with the counters.

    The two agree whenever no other thread is allocating. Takes about a millisecond for each 10 MB
    that Python holds.
    """
    return Audit(*_core._audit())
