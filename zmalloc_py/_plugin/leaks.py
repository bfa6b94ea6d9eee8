"""Rounds of one test's body: what stays of each, and where it came from."""

from __future__ import annotations

import array
import itertools
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import zmalloc
from zmalloc._plugin import sizes
from zmalloc._plugin.plan import BATCHES, Leak
from zmalloc._plugin.window import clear_caches

#: Rounds that are traced, and lines that are shown, when there is a leak.
TRACED, SHOWN = 4, 5


class Growth(NamedTuple):
    """What stayed of the rounds of one batch."""

    size: int
    blocks: int
    rounds: int

    def exceeds(self, leak: Leak) -> bool:
        """Blocks count where nothing may stay: one freed and a larger one taken is no growth of
        them.
        """
        return self.size > leak.size * self.rounds or (leak.size == 0 and self.blocks > 0)


def find(body: Callable[[], object], leak: Leak) -> str | None:
    """Runs the body until a batch of rounds leaves no more than allowed, and returns None; or the
    failure's text if each of BATCHES batches leaves more. What the body raises ends it.
    """
    for _ in range(leak.warmup):
        body()
    grown: list[Growth] = []
    for _ in range(BATCHES):
        grown.append(_measure(body, leak.rounds))
        if not grown[-1].exceeds(leak):
            return None
    return _tell(leak, grown[-1], _trace(body))


def _measure(body: Callable[[], object], rounds: int) -> Growth:
    """What this takes itself, it takes before the first figure: numbers go into an array."""
    seen = array.array("q", [0] * 4)
    steps = itertools.repeat(None, rounds)
    with zmalloc.track() as track:
        clear_caches()
        seen[0], seen[1] = track.net, track.allocations - track.frees
        for _ in steps:
            body()
            clear_caches()
        seen[2], seen[3] = track.net, track.allocations - track.frees
    return Growth(seen[2] - seen[0], seen[3] - seen[1], rounds)


def _trace(body: Callable[[], object]) -> list[tracemalloc.StatisticDiff]:
    """What a few more rounds leave, by line, the largest first."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start(1)
    try:
        body()
        clear_caches()
        before = tracemalloc.take_snapshot()
        for _ in range(TRACED):
            body()
        clear_caches()
        after = tracemalloc.take_snapshot()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    ours = [tracemalloc.Filter(False, name) for name in (tracemalloc.__file__, __file__)]
    compared = after.filter_traces(ours).compare_to(before.filter_traces(ours), "lineno")
    return [line for line in compared if line.size_diff > 0 and line.count_diff > 0][:SHOWN]


def _per_round(size: int, blocks: int, rounds: int) -> str:
    each, count = (f"{total / rounds:,.1f}".removesuffix(".0") for total in (size, blocks))
    return f"{each} B in {count} block{'s' * (count != '1')}"


def _tell(leak: Leak, growth: Growth, lines: list[tracemalloc.StatisticDiff]) -> str:
    text = [
        f"memory_leak of {sizes.show(leak.size)}: "
        f"{_per_round(growth.size, growth.blocks, growth.rounds)} stay per round (the last "
        f"{growth.rounds} of "
        f"{BATCHES * growth.rounds} rounds, after {leak.warmup} to warm up)"
    ]
    if lines:
        text.append(f"Of {TRACED} more rounds, by the line that asked:")
    for line in lines:
        frame = line.traceback[0]
        text.append(
            f"  {_per_round(line.size_diff, line.count_diff, TRACED)} per round: "
            f"{frame.filename}:{frame.lineno}"
        )
    if not lines:
        text.append(f"{TRACED} more rounds, under tracemalloc, show no line that it came from")
    return "\n".join(text)
