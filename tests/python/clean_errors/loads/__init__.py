"""The loads: small programs that take memory until an error stops them.

A load is a function of one argument, its `Run`. What has to be true of the error:

caller    the load has no handler: the error leaves it, and its caller gets it
handler   the load's own handler gets it, puts its type into `run.kind`, and the load returns
finally   the load's own finally block sets `run.reached`, and its caller gets the error

The group in a load's name is the module that it stands in. A child imports that module only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

GROUPS = (
    "growing",
    "text",
    "numbers",
    "objects",
    "errors",
    "functions",
    "library",
    "code",
    "c_loops",
    "finalizers",
    "context_managers",
    "recursion",
    "asyncio",
    "threads",
    "swallows",
    "loops",
)
#: Loads that are wrong on purpose: what the harness has to find.
BROKEN = "broken"

#: A frame in a file of asyncio's name might be taken for one of asyncio's own.
MODULES = {"asyncio": "event_loops", "loops": "loop_handlers"}


class Run:
    """What a load is told, and where it leaves what happened. Writing here takes no memory."""

    __slots__ = ("caller", "hard", "kind", "made", "outside", "peak", "reached", "room", "step",
                 "where", "wrong")  # fmt: skip

    def __init__(self, room: int) -> None:
        self.room = room  #: bytes from the start to the limit
        self.step = max(64, room // 1000)  #: what fills the room in a thousand rounds
        self.made: Any = None  #: what the load's `before` has made, uncapped
        self.kind: type[BaseException] | None = None  #: what the load's own handler got
        self.reached = False  #: the load's own finally block ran
        self.wrong: str | None = None  #: what the load itself found to be wrong
        self.caller: type[BaseException] | None = None  #: what left the load
        self.outside: type[BaseException] | None = None  #: what left the `with` of the limit
        self.where = "nowhere"
        self.peak = 0
        self.hard = 0


class Load(NamedTuple):
    """A load and what is asked of it. No dataclass: their import costs each child 10 ms."""

    name: str
    function: Callable[[Run], object]
    gets: str = "caller"
    #: bytes that it needs before it is in its own try: a smaller room would be met outside of that
    least: int = 0
    #: it takes little in much time: all of a large room but SLOW_ROOM is filled for it
    slow: bool = False
    #: it recurses: a RecursionError is clean, too
    recurses: bool = False
    #: errors are swallowed in its __del__ methods or callbacks, and CPython prints them
    unraisable: bool = False
    #: a thread may meet its error before it is in its own code, and die of it
    thread_may_die: bool = False
    #: what it has taken may outlive it: then leaving the limit is an error once more
    leaves: bool = False
    #: ending without an error is clean, too
    may_succeed: bool = False
    #: runs before the cap is set, and leaves what it makes in `run.made`
    before: Callable[[Run], object] | None = None
    #: runs after the cap was lifted, and returns what is wrong, if anything
    after: Callable[[Run], str | None] | None = None
    #: the first version of Python that it is for
    since: tuple[int, int] = (3, 10)
    #: it needs the main thread
    main_only: bool = False
    #: other threads take the memory: a budget of its own thread does not end it
    spreads: bool = False


SLOW_ROOM = 12 << 20


_loads: dict[str, Load] = {}


def load(name: str, **options: Any) -> Callable[[Callable[[Run], object]], Callable[[Run], object]]:
    """Registers a function as the load `name`, which is "group.what"."""

    def register(function: Callable[[Run], object]) -> Callable[[Run], object]:
        options.setdefault("spreads", name.startswith("threads."))
        one = Load(name, function, **options)
        assert one.gets in ("caller", "handler", "finally"), one
        assert name not in _loads, f"two loads are called {name}"
        if sys.version_info >= one.since:
            _loads[name] = one
        return function

    return register


def find(name: str) -> Load:
    """The load of that name; imports its module only."""
    group = name.partition(".")[0]
    if group in (*GROUPS, BROKEN):
        importlib.import_module(f"{__name__}.{MODULES.get(group, group)}")
    if name not in _loads:
        raise KeyError(f"no load is called {name}")
    return _loads[name]


def names() -> list[str]:
    """All loads of this version of Python, but those that are broken on purpose."""
    for group in GROUPS:
        importlib.import_module(f"{__name__}.{MODULES.get(group, group)}")
    return [name for name in _loads if not name.startswith(BROKEN)]
