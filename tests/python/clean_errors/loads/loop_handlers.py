"""Each kind of loop with the handler beside it, in the same function.

CPython 3.11 to 3.13 look for the handler of an error that arrives at a loop's jump in the wrong
place, and so can pass over the try, finally or with that stands round the loop.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from .. import shapes
from . import Run, load

HANDLERS = {"except": "handler", "finally": "finally", "with": "handler"}

LOOPS = {
    "while_true": "while True:\n    GROW",
    "while_true_later": "x = 1\nwhile True:\n    GROW",
    "while_not": "while not flag.no:\n    GROW",
    "while_less": "i = 0\nwhile i < flag.huge:\n    GROW\n    i += 1",
    "while_with_walrus": "while (n := len(items)) < flag.huge:\n    GROW",
    "for": "for i in endless:\n    GROW",
    "for_unpacking": "for i, (j, k) in enumerate(zip(endless, endless)):\n    GROW",
    "list_comprehension": "x = [[0] * 10 for i in endless]",
    "nested_comprehension": "x = [[i, j, [0] * 10] for i in endless for j in three]",
    "dict_comprehension": "x = {i: [0] * 10 for i in itertools.count()}",
    "generator_expression": "x = list([0] * 10 for i in endless)",
}
ASYNC_LOOPS = {
    "while_true_awaiting": "while True:\n    GROW\n    await asyncio.sleep(0)",
    "while_not_awaiting": "while not flag.no:\n    await asyncio.sleep(0)\n    GROW",
    "async_for": "async for i in ticking():\n    GROW",
    "async_comprehension": "x = [[i] * 10 async for i in ticking()]",
}
GENERATOR_LOOPS = {
    "while_true_yielding": "while True:\n    GROW\n    yield 1",
    "for_yielding": "for i in endless:\n    yield i\n    GROW",
    "yield_from": "while not flag.no:\n    GROW\n    yield from three",
}


async def ticking() -> Any:
    """A number every now and then, for ever."""
    n = 0
    while True:
        yield n
        n += 1
        if n % 100 == 0:
            await asyncio.sleep(0)


def _add(loop: str, text: str, handler: str, wrapper: str) -> None:
    """Registers the load of that loop with that handler."""

    def before(run: Run) -> None:
        scope: dict[str, Any] = {"asyncio": asyncio, "itertools": itertools, "ticking": ticking}
        whole = shapes.source("shape", text, shapes.HANDLERS[handler], wrapper)
        exec(compile(whole, f"<{loop}, {handler}>", "exec"), scope)
        run.made = scope["shape"], getattr(scope["shape"].__code__, "co_exceptiontable", None)

    def run_it(run: Run) -> None:
        got: list[Any] = []
        manager = shapes.Manager(got, swallow=True)
        try:
            made = run.made[0](
                [], shapes.Flag(), itertools.repeat(0), (1, 2, 3), shapes.Quiet(), manager, got
            )
            shapes.FINISH[wrapper](made)
        finally:
            run.reached = got == ["finally"]
        run.kind = got[0] if len(got) == 1 else None

    def after(run: Run) -> str | None:
        shape, table = run.made
        same = getattr(shape.__code__, "co_exceptiontable", None) is table
        return None if same else "the function's exception table is another one"

    least = 200_000 if wrapper == "coroutine" else 0  # for the event loop itself
    prefix = "" if wrapper == "function" else f"{wrapper}_"
    load(
        f"loops.{prefix}{loop}.{handler}",
        gets=HANDLERS[handler],
        least=least,
        slow=wrapper == "coroutine",
        before=before,
        after=after,
    )(run_it)


for _handler in HANDLERS:
    for _name, _text in LOOPS.items():
        _add(_name, _text, _handler, "function")
    for _name, _text in {**ASYNC_LOOPS, "for": LOOPS["for"]}.items():
        _add(_name, _text, _handler, "coroutine")
    for _name, _text in {**GENERATOR_LOOPS, "while_true": LOOPS["while_true"]}.items():
        _add(_name, _text, _handler, "generator")
