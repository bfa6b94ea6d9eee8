"""Loops and the handlers beside them, as text: for the loads of group `loops` and the matrix.

Where a loop stands decides which bytecode CPython makes of it, and so where an error that arrives
at its jump looks for a handler: a `while True` that is the first thing in a try, one that is not,
a `while` that tests something, one that is so long that its jump needs a prefix.

A shape may use these names: `items` is what GROW appends to, `flag` has attributes that never
change (no, yes, huge, small, large, text), `endless` is an iterator, `three` a tuple of three,
`quiet` a context manager that does nothing, `manager` one that notes what it gets, `got` the notes.
"""

from __future__ import annotations

import asyncio
import collections
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

GROW = "items.append([0] * 10)"


def _long(head: str, statements: int) -> str:
    """A loop with so many statements, none of which runs."""
    never = "".join(f"        x = flag.no + {n}; flag.x{n} = x\n" for n in range(statements))
    return f"{head}\n    if flag.no:\n{never}    GROW"


LOOPS = {
    "while_true": "while True:\n    GROW",
    "while_true_on_one_line": "while True: GROW",
    "while_true_later": "x = 1\nwhile True:\n    GROW",
    "while_true_of_three_lines": "while True:\n    GROW\n    y = items[-1]\n    z = (y,)",
    "while_true_with_continue": "while True:\n    if flag.no:\n        x = 1\n    else:\n"
    "        GROW\n        continue\n    x = 3",
    "while_not": "while not flag.no:\n    GROW",
    "while_not_on_one_line": "while not flag.no: GROW",
    "while_not_of_two_lines": "while not flag.no:\n    y = 1\n    GROW",
    "while_not_else": "while not flag.no:\n    GROW\nelse:\n    x = 2",
    "while_less": "i = 0\nwhile i < flag.huge:\n    GROW\n    i += 1",
    "while_less_small": "i = 0\nwhile i < flag.small:\n    GROW\n    i += 1",
    "while_less_float": "i = 0.0\nwhile i < flag.large:\n    GROW\n    i += 1.0",
    "while_equal_text": "y = 'a'\nwhile y == flag.text:\n    GROW",
    "while_is_none": "y = None\nwhile y is None:\n    GROW",
    "while_is_not_none": "y = 1\nwhile y is not None:\n    GROW",
    "while_and_or": "while flag.yes and (not flag.no or flag.large):\n    GROW",
    "for": "for i in endless:\n    GROW",
    "for_count": "for i in itertools.count():\n    GROW",
    "for_with_continue": "for i in endless:\n    if i == flag.no:\n        GROW\n"
    "        continue\n    x = 3",
    "list_comprehension": "x = [[0] * 10 for i in endless]",
    "filtered_comprehension": "x = [[0] * 10 for i in endless if not flag.no if i == 0]",
    "dict_comprehension": "x = {i: [0] * 10 for i in itertools.count()}",
    "generator_expression": "x = list([0] * 10 for i in endless)",
    "while_in_for": "for i in endless:\n    j = 0\n    while j < 5:\n        GROW\n        j += 1",
    "for_in_while": "while not flag.no:\n    for j in three:\n        GROW",
    "try_in_while": "while not flag.no:\n    try:\n        GROW\n"
    "    except KeyError:\n        x = 1",
    "try_in_while_true": "while True:\n    try:\n        GROW\n        continue\n"
    "    except KeyError:\n        x = 1",
    "with_in_while": "while not flag.no:\n    with quiet:\n        GROW",
    "finally_in_while": "while not flag.no:\n    try:\n        GROW\n    finally:\n        x = 1",
    "long_while_not": _long("while not flag.no:", 60),
    "long_while_true": _long("while True:", 60),
    "huge_while_true": _long("while True:", 9000),
}

NOTE = "except MemoryError as error:\n    got.append(type(error))"

#: What stands round LOOP.
HANDLERS = {
    "except": "try:\n    LOOP\nNOTE",
    "finally": "try:\n    LOOP\nfinally:\n    got.append('finally')",
    "with": "with manager:\n    LOOP",
    "with_as": "with manager as name:\n    LOOP",
    "except_else_finally": "try:\n    LOOP\nNOTE\nelse:\n    got.append('else')\n"
    "finally:\n    x = 5",
    "nested": "for k in three:\n    try:\n        try:\n            LOOP\n"
    "        except KeyError:\n            got.append('inner')\n    except MemoryError as error:\n"
    "        got.append(type(error))\n        raise",
    "after_a_try": "try:\n    items.append(1)\nexcept MemoryError:\n    got.append('earlier')\n"
    "try:\n    LOOP\nNOTE",
    "none_after_a_try": "try:\n    items.append(1)\nexcept MemoryError:\n"
    "    got.append('earlier')\nLOOP",
    "finally_after_a_try": "try:\n    try:\n        items.append(1)\n    except MemoryError:\n"
    "        got.append('earlier')\n    LOOP\nfinally:\n    got.append('finally')",
    "in_an_except": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    try:\n        LOOP\n"
    "    except MemoryError as error:\n        got.append(type(error))",
    "in_a_finally": "try:\n    try:\n        pass\n    finally:\n        LOOP\nNOTE",
}
if sys.version_info >= (3, 11):
    HANDLERS["except_star"] = (
        "try:\n    LOOP\nexcept* MemoryError as error:\n    got.append(type(error.exceptions[0]))"
    )

#: The handlers past which the error goes on to the caller, and what they have noted by then.
PASSES_ON = {"finally", "nested", "none_after_a_try", "finally_after_a_try", "with", "with_as"}
NOTES = {"finally": ["finally"], "finally_after_a_try": ["finally"], "none_after_a_try": []}

#: What makes a function, a generator and a coroutine of it.
WRAPPERS = {
    "function": ("def", "x = 0"),
    "generator": ("def", "yield 0"),
    "coroutine": ("async def", "await asyncio.sleep(0)"),
}


def _drain(iterator: Any) -> None:
    """In C: a loop of its own would be a safe point, at which the generator's handler is not."""
    collections.deque(iterator, maxlen=0)


#: What runs what the wrapped function has returned.
FINISH: dict[str, Callable[[Any], object]] = {
    "function": lambda made: None,
    "generator": _drain,
    "coroutine": asyncio.run,
}

ARGUMENTS = "items, flag, endless, three, quiet, manager, got"


def _put(text: str, name: str, inner: str) -> str:
    """`inner`, where the line `name` stands, indented as it is."""
    return re.sub(
        rf"^( *){name}$", lambda found: textwrap.indent(inner, found[1]), text, flags=re.MULTILINE
    )


def source(name: str, loop: str, handler: str, wrapper: str = "function") -> str:
    """The text of a function called `name` with that loop and that handler round it."""
    body = _put(_put(handler, "NOTE", NOTE), "LOOP", loop)
    body = body.replace("GROW", GROW)
    define, first = WRAPPERS[wrapper]
    return f"{define} {name}({ARGUMENTS}):\n    {first}\n{textwrap.indent(body, '    ')}\n"


class Flag:
    """Its attributes never change, but the compiler does not know."""

    no = 0
    yes = 1 << 60
    huge = 1 << 60
    small = 1 << 28
    large = 1e300
    text = "a"


class Quiet:
    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Manager:
    """Notes the type of what it gets, and swallows it if told so."""

    def __init__(self, got: list[object], swallow: bool = False) -> None:
        self.got = got
        self.swallow = swallow

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, kind: object, error: object, where: object) -> bool:
        self.got.append(kind)
        return self.swallow
