"""Containers that grow."""

from __future__ import annotations

import array
import collections
import heapq
from typing import Any

from . import Run, load


@load("growing.list")
def grow_list(run: Run) -> None:
    items = []
    while True:
        items.append([0] * 10)


@load("growing.list_of_none")
def grow_list_of_none(run: Run) -> None:
    items: list[None] = []
    while True:
        items.append(None)


@load("growing.dict")
def grow_dict(run: Run) -> None:
    table = {}
    n = 0
    while True:
        table[n] = str(n)
        n += 1


@load("growing.set")
def grow_set(run: Run) -> None:
    numbers = set()
    n = 0
    while True:
        numbers.add(n)
        n += 1


@load("growing.set_of_tuples")
def grow_set_of_tuples(run: Run) -> None:
    pairs = set()
    n = 0
    while True:
        pairs |= {(n, n + 1), (n + 1, n)}
        n += 2


@load("growing.deque")
def grow_deque(run: Run) -> None:
    queue = collections.deque()
    while True:
        queue.append((len(queue), "x"))


@load("growing.tuple")
def grow_tuple(run: Run) -> None:
    items: tuple[int, ...] = (1,)
    while True:
        items += items


@load("growing.bytearray")
def grow_bytearray(run: Run) -> None:
    buffer = bytearray()
    while True:
        buffer += b"x" * 500


@load("growing.array")
def grow_array(run: Run) -> None:
    numbers = array.array("d")
    while True:
        numbers.extend((1.0, 2.0, 3.0))


@load("growing.heap")
def grow_heap(run: Run) -> None:
    heap: list[tuple[int, str]] = []
    n = 0
    while True:
        heapq.heappush(heap, (n * 7919 % 10007, str(n)))
        n += 1


@load("growing.default_dict")
def grow_default_dict(run: Run) -> None:
    groups = collections.defaultdict(list)
    n = 0
    while True:
        groups[n // 3].append(n)
        n += 1


@load("growing.counter")
def grow_counter(run: Run) -> None:
    counts: collections.Counter[str] = collections.Counter()
    n = 0
    while True:
        counts.update((f"word {n}", f"word {n // 2}"))
        n += 1


@load("growing.ordered_dict")
def grow_ordered_dict(run: Run) -> None:
    table = collections.OrderedDict()
    n = 0
    while True:
        table[n] = (n, n)
        table.move_to_end(n // 2)
        n += 1


@load("growing.nested_lists")
def grow_nested_lists(run: Run) -> None:
    nest: list[Any] = []
    while True:
        nest = [nest, 1]


@load("growing.nested_tuples")
def grow_nested_tuples(run: Run) -> None:
    nest: tuple[Any, ...] = ()
    while True:
        nest = (nest, 1)


@load("growing.dict_of_dicts")
def grow_dict_of_dicts(run: Run) -> None:
    tree = {}
    n = 0
    while True:
        tree.setdefault(n % 97, {}).setdefault(n % 89, {})[n] = {"n": n}
        n += 1


@load("growing.dict_by_setdefault")
def grow_dict_by_setdefault(run: Run) -> None:
    table: dict[int, int] = {}
    n = 0
    while True:
        table.setdefault(n, n)
        n += 1


@load("growing.live_cycles")
def grow_live_cycles(run: Run) -> None:
    kept = []
    while True:
        one: list[Any] = [1]
        other = [one, 2]
        one.append(other)
        kept.append(one)


@load("growing.garbage_and_list")
def grow_beside_garbage(run: Run) -> None:
    kept = []
    while True:
        cycle: list[Any] = [0] * 20
        cycle.append(cycle)
        kept.append([0] * 10)


@load("growing.slices")
def grow_slices(run: Run) -> None:
    items = list(range(100))
    kept = []
    while True:
        kept.append(items[10:60])
        kept.append(items[::3])


@load("growing.sorted_copies")
def grow_sorted_copies(run: Run) -> None:
    kept = []
    n = 0
    while True:
        kept.append(sorted(range(n % 200, 0, -1)))
        n += 1
