"""Deep recursion: unwinding it costs more than the recursion did."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

from . import Run, load

#: A frame of 3.10 takes C stack, too: 8 MB of it are enough for so many.
DEEP = 1_000_000 if sys.version_info >= (3, 11) else 9_000


def limit_back(run: Run) -> str | None:
    sys.setrecursionlimit(1000)
    return None


@load("recursion.plain", recurses=True)
def plain(run: Run) -> None:
    def descend(n: int) -> Any:
        return [descend(n + 1)]

    descend(0)


@load("recursion.holding", recurses=True)
def holding(run: Run) -> None:
    def descend(n: int) -> Any:
        held = bytearray(run.step * 5)
        return held, descend(n + 1)

    descend(0)


@load("recursion.raised_limit", recurses=True, main_only=True, after=limit_back)
def raised_limit(run: Run) -> None:
    sys.setrecursionlimit(DEEP)

    def descend(n: int) -> Any:
        return descend(n + 1)

    descend(0)


@load("recursion.raised_limit_holding", recurses=True, main_only=True, after=limit_back)
def raised_limit_holding(run: Run) -> None:
    sys.setrecursionlimit(DEEP)

    def descend(n: int, path: tuple[int, ...]) -> Any:
        table = {n: path}
        return [table, descend(n + 1, (n,))]

    descend(0, ())


@load("recursion.raised_limit_many_locals", recurses=True, main_only=True, after=limit_back)
def raised_limit_many_locals(run: Run) -> None:
    sys.setrecursionlimit(DEEP)
    body = "".join(f"    v{n} = n\n" for n in range(200))
    scope: dict[str, Any] = {}
    exec(f"def descend(n):\n{body}    return descend(n + 1) + v0\n", scope)
    scope["descend"](0)


@load("recursion.raised_limit_with_finally", recurses=True, main_only=True, after=limit_back)
def raised_limit_with_finally(run: Run) -> None:
    sys.setrecursionlimit(DEEP)
    left = [0]

    def descend(n: int) -> Any:
        try:
            return descend(n + 1)
        finally:
            left[0] += 1

    descend(0)


@load("recursion.raised_limit_in_a_thread", gets="handler", recurses=True, after=limit_back,
      least=200_000)  # fmt: skip
def raised_limit_in_a_thread(run: Run) -> None:
    """In a thread with a stack for 3.10, too, whose frames need much of it."""
    sys.setrecursionlimit(1_000_000)

    def descend(n: int) -> Any:
        return descend(n + 1)

    def work() -> None:
        try:
            descend(0)
        except (MemoryError, RecursionError) as error:
            run.kind = type(error)

    before = threading.stack_size(1 << 30)
    worker = threading.Thread(target=work)
    worker.start()
    threading.stack_size(before)
    worker.join()


@load("recursion.handlers_on_each_level", gets="handler", recurses=True)
def handlers_on_each_level(run: Run) -> None:
    """The innermost handler gets the error, frees, and returns."""
    got: list[type[BaseException]] = []

    def descend(n: int) -> int:
        kept = []
        try:
            if n < 200:
                return descend(n + 1)
            while True:
                kept.append([0] * 10)
        except MemoryError as error:
            got.append(type(error))
            return n

    descend(0)
    if len(got) != 1:
        run.wrong = f"{len(got)} handlers got it"
    run.kind = got[0] if got else None


@load("recursion.through_repr", recurses=True)
def through_repr(run: Run) -> None:
    nest: list[Any] = []
    kept = []
    while True:
        for _ in range(20):
            nest = [nest]
        kept.append(repr(nest))


@load("recursion.through_map", recurses=True)
def through_map(run: Run) -> None:
    def descend(n: int) -> Any:
        return list(map(descend, [n + 1]))

    descend(0)


@load("recursion.through_methods", recurses=True)
def through_methods(run: Run) -> None:
    class Tricky:
        def __init__(self, level: int) -> None:
            self.level = level

        def __getattr__(self, name: str) -> Any:
            return getattr(Tricky(self.level + 1), name + "x")

        def __eq__(self, other: object) -> bool:
            return bool([self] == [Tricky(0)])

        __hash__ = None  # type: ignore[assignment]

    kept = []
    for n in itertools.count():
        try:
            kept.append(Tricky(0).anything if n % 2 else Tricky(0) == Tricky(1))
        except RecursionError as error:
            kept.append(error)


@load("recursion.through_generators", recurses=True)
def through_generators(run: Run) -> None:
    def walk(n: int) -> Iterator[int]:
        yield n
        yield from walk(n + 1)

    kept = []
    while True:
        kept.append(list(itertools.islice(walk(0), 200)))
        kept.append(list(walk(0)))


@load("recursion.through_deepcopy", recurses=True)
def through_deepcopy(run: Run) -> None:
    nest: list[Any] = []
    kept = []
    while True:
        nest = [nest]
        kept.append(copy.deepcopy(nest))


@load("recursion.through_pickle", recurses=True)
def through_pickle(run: Run) -> None:
    nest: list[Any] = []
    kept = []
    while True:
        nest = [nest]
        kept.append(pickle.dumps(nest))


@load("recursion.through_json", recurses=True)
def through_json(run: Run) -> None:
    kept = []
    for n in itertools.count(1):
        kept.append(json.loads("[" * n + "]" * n))


@load(
    "recursion.through_compile",
    recurses=True,
    before=lambda run: setattr(run, "made", []),
    leaves=True,
)
def through_compile(run: Run) -> None:
    """The compiler recurses over nested expressions, and has a limit of its own."""
    for n in itertools.count(1):
        try:
            code = compile("+".join(f"x{m}" for m in range(n % 90 + 2)), "made", "eval")
            run.made.append((code, bytes(run.step)))
        except RecursionError as error:
            run.made.append(error)


@load("recursion.fibonacci", recurses=True)
def fibonacci(run: Run) -> None:
    """Goes down and up again all the time, and keeps what it finds."""
    table: dict[tuple[int, int], int] = {}

    def value(n: int, key: int) -> int:
        if n < 2:
            return n
        if (n, key) not in table:
            table[n, key] = value(n - 1, key) + value(n - 2, key)
        return table[n, key]

    for key in itertools.count():
        value(100, key)
