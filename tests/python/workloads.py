"""Things that Python programs do with memory. Each returns what has to stay alive.

They are run in processes of their own and import nothing but the standard library. Each is
deterministic: the same hash seed gives the same requests to the allocators.
"""

from __future__ import annotations

import collections
import copy
import decimal
import io
import itertools
import json
import pickle
import re
import string
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

WORKLOADS: dict[str, Callable[[], object]] = {}


def workload(function: Callable[[], object]) -> Callable[[], object]:
    WORKLOADS[function.__name__] = function
    return function


@workload
def containers() -> object:
    return [list(range(n)) for n in range(200)], [{n: str(n)} for n in range(500)], {*range(3000)}


@workload
def strings() -> object:
    words = [f"{letter}{n}" for letter in string.ascii_letters for n in range(40)]
    return (
        "".join(words),
        " ".join(words).split(),
        [word.upper() * 3 for word in words],
        "é€😀" * 999,
    )


@workload
def classes() -> object:
    class Plain:
        def __init__(self, n: int) -> None:
            self.number, self.name = n, f"name {n}"

    class Slotted:
        __slots__ = ("x", "y")
        x: int

    made = [type(f"Made{n}", (Plain,), {"n": n, "method": lambda self: self}) for n in range(30)]
    slotted = [Slotted() for _ in range(500)]
    for n, one in enumerate(slotted):
        one.x = n * 1000
    return made, [Plain(n) for n in range(500)], slotted, [c(1) for c in made]


@workload
def exceptions() -> object:
    caught: list[BaseException] = []

    def fail(n: int) -> None:
        if n:
            return fail(n - 1)
        raise ValueError("no", n)

    for n in range(60):
        try:
            try:
                fail(n % 20)
            except ValueError as error:
                raise KeyError(n) from error
        except KeyError as error:
            caught.append(error)
    return caught


@workload
def json_round_trips() -> object:
    data = [{"id": n, "name": f"n{n}", "tags": ["a", "b", None, True, n / 7]} for n in range(400)]
    text = json.dumps(data)
    return text, json.loads(text), json.dumps(data, indent=1).encode()


@workload
def pickles() -> object:
    data = {n: (str(n), [n] * 5, {n}, frozenset((n, n + 1)), n * 0.5) for n in range(300)}
    copies = [pickle.dumps(data, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return copies, pickle.loads(copies[-1])


@workload
def regular_expressions() -> object:
    re.purge()
    text = "key=value; other = 12, third:'x y' " * 60
    compiled = [re.compile(rf"(\w{{{n}}})\s*[=:]\s*('[^']*'|\S+)") for n in range(1, 12)]
    return compiled, [list(one.finditer(text)) for one in compiled], re.split(r"\W+", text)


@workload
def generators() -> object:
    def count(n: int) -> Iterator[int]:
        for number in range(n):
            yield number * 1000

    def chained(n: int) -> Iterator[int]:
        yield from count(n)
        yield from (x + 1 for x in count(n))

    running = [chained(n) for n in range(5, 205)]
    return running, [next(one) for one in running], list(itertools.islice(chained(99), 150))


@workload
def big_buffers() -> object:
    stream = io.BytesIO()
    for n in range(50):
        stream.write(bytes([n]) * 12345)
    return bytearray(1_000_000), bytes(300_000), stream, zlib.compress(bytes(range(256)) * 999)


@workload
def growing_by_realloc() -> object:
    buffer, items, text = bytearray(), [], ""
    for n in range(3000):
        buffer += b"%d" % n
        items.append(n)
        text += "x"
    del items[1000:]
    del buffer[5000:]
    return buffer, items, text, collections.deque(range(2000), maxlen=1500)


@workload
def cyclic_garbage() -> object:
    class Node:
        partner: object
        load: list[int]

    kept = []
    for n in range(3000):
        one, other = Node(), Node()
        one.partner, other.partner, one.load = other, one, [n] * 10
        if n % 10 == 0:
            kept.append(one)
    return kept


@workload
def comprehensions() -> object:
    squares = {n: n * n for n in range(4000)}
    for n in range(0, 4000, 3):
        del squares[n]
    tuples = {(n % 50, n % 7): [n] for n in range(2000)}
    return (
        squares,
        tuples,
        {str(n) for n in range(999)} | {*"abc"},
        [*zip(range(99), "x" * 99, strict=True)],
    )


@workload
def joins_of_bytes() -> object:
    parts = [b"%05d" % n for n in range(4000)]
    whole = b"-".join(parts)
    return (
        whole,
        whole.split(b"-")[::3],
        memoryview(whole)[5:],
        whole.hex(),
        whole.replace(b"0", b""),
    )


@workload
def deep_recursion() -> object:
    def tree(depth: int, path: tuple[int, ...] = ()) -> Any:
        return [depth, path, tree(depth - 1, (depth,))] if depth else []

    return tree(700)


@workload
def numbers_and_copies() -> object:
    big = [7**n for n in range(0, 1500, 10)]
    exact = [decimal.Decimal(n) / 7 for n in range(1, 200)]
    return big, exact, copy.deepcopy([big, {"k": (1, [2, {3: 4}])}]), [n / 3 for n in range(2000)]


@workload
def code_made_at_run_time() -> object:
    scope: dict[str, Any] = {}
    body = "\n".join(
        f"def f{n}(a, b={n}):\n    return [a, b, {n!r} * 2, a + {n}]" for n in range(60)
    )
    exec(compile(body, "made", "exec"), scope)
    return (
        [scope[f"f{n}"](1) for n in range(60)],
        [sys.intern(f"made_{n}") for n in range(200)],
        scope,
    )
