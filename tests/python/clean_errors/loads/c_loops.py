"""One call into C that takes memory until there is none, and never comes back in between."""

from __future__ import annotations

import array
import collections
import functools
import itertools
import operator

from . import Run, load


@load("c_loops.list_range")
def list_range(run: Run) -> None:
    list(range(run.room // 8 + (1 << 20)))


@load("c_loops.list_range_far")
def list_range_far(run: Run) -> None:
    list(range(10**11))


@load("c_loops.list_map")
def list_map(run: Run) -> None:
    list(map(str, itertools.count()))


@load("c_loops.tuple")
def tuple_(run: Run) -> None:
    tuple(map(float, itertools.count()))


@load("c_loops.set")
def set_(run: Run) -> None:
    set(itertools.count())


@load("c_loops.frozenset")
def frozenset_(run: Run) -> None:
    frozenset(zip(itertools.count(), itertools.repeat(1)))


@load("c_loops.dict_of_pairs")
def dict_of_pairs(run: Run) -> None:
    dict(zip(itertools.count(), itertools.count()))


@load("c_loops.dict_fromkeys")
def dict_fromkeys(run: Run) -> None:
    dict.fromkeys(itertools.count())


@load("c_loops.dict_update")
def dict_update(run: Run) -> None:
    table: dict[int, str] = {}
    table.update((n, str(n)) for n in itertools.count())


@load("c_loops.list_extend")
def list_extend(run: Run) -> None:
    items: list[str] = []
    items.extend(map(repr, itertools.count()))


@load("c_loops.list_multiplied")
def list_multiplied(run: Run) -> None:
    items = [[1]]
    while True:
        items *= 2


@load("c_loops.deque_extend")
def deque_extend(run: Run) -> None:
    collections.deque(itertools.count())


@load("c_loops.sorted")
def sorted_(run: Run) -> None:
    sorted(map(str, itertools.count()))


@load("c_loops.sorted_by_key", before=lambda run: setattr(run, "made", list(range(run.room // 20))))
def sorted_by_key(run: Run) -> None:
    kept = []
    while True:
        kept.append(sorted(run.made, key=operator.neg))


@load("c_loops.str_join")
def str_join(run: Run) -> None:
    "".join(map(str, itertools.count()))


@load("c_loops.str_join_of_one", before=lambda run: setattr(run, "made", ["é" * 1000] * 500))
def str_join_of_one(run: Run) -> None:
    ", ".join(run.made * (run.room // 250_000 + 10))


@load("c_loops.bytes_join")
def bytes_join(run: Run) -> None:
    b"".join(map(b"%d".__mod__, itertools.count()))


@load("c_loops.bytes_of_numbers")
def bytes_of_numbers(run: Run) -> None:
    bytes(itertools.repeat(7))


@load("c_loops.bytearray_extend")
def bytearray_extend(run: Run) -> None:
    bytearray().extend(itertools.repeat(7))


@load("c_loops.str_replace", before=lambda run: setattr(run, "made", "ab" * (run.room // 8 + 9999)))
def str_replace(run: Run) -> None:
    kept = []
    while True:
        kept.append(run.made.replace("a", "a long text instead"))


@load(
    "c_loops.str_split", before=lambda run: setattr(run, "made", "ab " * (run.room // 9 + 50_000))
)
def str_split(run: Run) -> None:
    run.made.split()


@load("c_loops.array")
def array_(run: Run) -> None:
    array.array("Q", itertools.count())


@load("c_loops.product")
def product(run: Run) -> None:
    list(itertools.product(range(100), repeat=5))


@load("c_loops.permutations")
def permutations(run: Run) -> None:
    sorted(itertools.permutations(range(12)))


@load("c_loops.zip_star", before=lambda run: setattr(run, "made", [(1,) * 50] * (run.room // 300)))
def zip_star(run: Run) -> None:
    kept = []
    while True:
        kept.append(list(zip(*run.made, strict=True)))


@load("c_loops.reduce")
def reduce(run: Run) -> None:
    functools.reduce(operator.concat, itertools.repeat("x" * 4 * run.step))


@load("c_loops.sum_of_lists")
def sum_of_lists(run: Run) -> None:
    sum(itertools.repeat([1] * run.step), [])  # noqa: RUF017


@load("c_loops.counter")
def counter(run: Run) -> None:
    collections.Counter(itertools.count())


@load("c_loops.shift")
def shift(run: Run) -> None:
    number = 1 << (run.room * 8 + (40 << 20))
    print(number.bit_length())


@load("c_loops.max_of_copies")
def max_of_copies(run: Run) -> None:
    """The key function is Python, called from C, and keeps what it makes."""
    kept = []
    max(itertools.count(), key=lambda n: kept.append([n] * 10) or 0)
