"""Calls, generators, comprehensions, decorators."""

from __future__ import annotations

import contextvars
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from . import Run, load


def count(start: int) -> Iterator[int]:
    held = [start] * 10
    while True:
        yield held[0]


@load("functions.generators")
def generators(run: Run) -> None:
    running = []
    while True:
        one = count(len(running))
        next(one)
        running.append(one)


@load("functions.generator_that_grows")
def generator_that_grows(run: Run) -> None:
    def grow() -> Iterator[int]:
        held = []
        while True:
            held.append([0] * 10)
            yield len(held)

    for _ in grow():
        pass


@load("functions.yield_from")
def yield_from(run: Run) -> None:
    def chained(depth: int) -> Iterator[int]:
        if depth:
            yield from chained(depth - 1)
        else:
            yield from count(1)

    running = []
    while True:
        one = chained(10)
        next(one)
        running.append(one)


@load("functions.send_and_throw")
def send_and_throw(run: Run) -> None:
    def collect() -> Any:
        held = []
        while True:
            try:
                held.append((yield len(held)))
            except KeyError as error:
                held.append(error.args)

    one = collect()
    next(one)
    while True:
        one.send([0] * 10)
        one.throw(KeyError(1))


@load("functions.comprehensions")
def comprehensions(run: Run) -> None:
    kept: list[Any] = []
    while True:
        kept.append([n * 1000 for n in range(30)])
        kept.append({n: [n] for n in range(10)})
        kept.append({(n, m) for n in range(5) for m in range(5)})
        kept.append(tuple(n for n in range(300) if n % 7 == 0))


@load("functions.one_comprehension")
def one_comprehension(run: Run) -> None:
    print(len([[n] for n in itertools.count()]))


@load("functions.generator_expression")
def generator_expression(run: Run) -> None:
    print(len(list([n] for n in itertools.count())))


@load("functions.cached")
def cached(run: Run) -> None:
    @functools.cache
    def square(n: int) -> tuple[int, str]:
        return n * n, str(n)

    for n in itertools.count():
        square(n)


@load("functions.decorators")
def decorators(run: Run) -> None:
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            return function(*arguments, **keywords), function(*arguments, **keywords)

        return wrapper

    kept = []
    while True:

        @twice
        def made(n: int, *, text: str = "x") -> str:
            """Has a docstring."""
            return text * n

        kept.append((made, made(3, text="y")))


@load("functions.argument_lists")
def argument_lists(run: Run) -> None:
    def keep(*arguments: Any, **keywords: Any) -> Any:
        return arguments, keywords

    kept = []
    while True:
        kept.append(keep(*range(20), a=1, **{"b": 2, "c": len(kept)}))


@load("functions.lambdas")
def lambdas(run: Run) -> None:
    kept: list[Any] = []
    while True:
        kept.append(lambda x, y=kept: x + len(y))
        kept.append(list(map(kept[-1], (1, 2, 3))))


@load("functions.tee")
def tee(run: Run) -> None:
    one, other = itertools.tee(itertools.count())
    for n in other:
        if n < 0:
            print(next(one))


@load("functions.contexts")
def contexts(run: Run) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    kept = []
    while True:
        variable.set(len(kept))
        kept.append(contextvars.copy_context())


@load("functions.reduce")
def reduce(run: Run) -> None:
    kept = []
    while True:
        kept.append(functools.reduce(lambda a, b: (*a, b), range(20), ()))


@load("functions.unpacking")
def unpacking(run: Run) -> None:
    kept: list[Any] = []
    while True:
        first, *rest = range(30)
        kept.append([*rest, first, *rest])
        kept.append({**{"a": first}, "b": rest})


@load("functions.pattern_matching")
def pattern_matching(run: Run) -> None:
    kept: list[Any] = []
    while True:
        match {"kind": "list", "items": [1, 2, len(kept)]}:
            case {"kind": "list", "items": [first, *rest], **more}:
                kept.append((first, rest, more))
            case _:
                run.wrong = "the pattern does not match"
                return
