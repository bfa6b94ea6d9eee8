"""Measuring contenders side by side on a machine whose speed drifts.

All run interleaved in one go, each run in a process of its own; what is quoted are ratios within a
round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

Times = dict[str, list[float]]


def measure(contenders: Sequence[str], run: Callable[[str], float], rounds: int) -> Times:
    """Seconds by contender, one entry a round; each round starts with another contender."""
    times: Times = {contender: [] for contender in contenders}
    for i in range(rounds):
        turn = i % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            times[contender].append(run(contender))
    return times


def ratio(times: Times, contender: str, base: str) -> tuple[float, float, float]:
    """The median of the ratios round by round, and their quartiles."""
    ratios = [a / b for a, b in zip(times[contender], times[base], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return statistics.median(ratios), low, high


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def show(times: Times, contender: str, base: str) -> str:
    """A cell of a table: the median ratio and its quartiles."""
    middle, low, high = ratio(times, contender, base)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"
