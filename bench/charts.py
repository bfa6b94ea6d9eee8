"""The pictures of the page of figures, as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

mpl.rcParams.update({"svg.hashsalt": "zmalloc", "svg.fonttype": "none", "font.size": 9})

#: A label, and its figure in each of the groups; None: not measured there.
Bars = Sequence[tuple[str, Sequence["float | None"]]]


def bars(labelled: Bars, groups: Sequence[str], about: str, target: Path) -> None:
    """What costs more than the stock one grows to the right of 1, what costs less to the left."""
    height = 0.8 / len(groups)
    figure, axes = plt.subplots(figsize=(7.2, 0.42 * len(labelled) + 1.2))
    most = max(value for _, values in labelled for value in values if value is not None)
    for i, group in enumerate(groups):
        for row, (_, values) in enumerate(labelled):
            value = values[i]
            if value is None:
                continue
            at = row + (i - (len(groups) - 1) / 2) * height
            axes.barh(at, value - 1, left=1, height=height * 0.9, color=f"C{i}",
                      label=group if row == 0 else None)  # fmt: skip
            axes.text(max(value, 1) + most * 0.01, at, f"{value:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(right=1 + (most - 1) * 1.1)
    axes.set_yticks(range(len(labelled)), [name for name, _ in labelled])
    axes.invert_yaxis()
    axes.set_xlabel(about)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, target)


def growth(found: Sequence[dict[str, Any]], target: Path) -> None:
    """Each series of growth.py a panel: medians with the quartiles, and the fitted line."""
    columns = 3
    rows = -(-len(found) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(10, 2.6 * rows), squeeze=False)
    for panel, series in zip(panels.flat, found, strict=False):
        is_log = series["slope_per"] == "decade"
        values = [int(value) for value in series["contenders"][0]["ns"]]
        for i, one in enumerate(series["contenders"]):
            quartiles = [statistics.quantiles(times, n=4) for times in one["ns"].values()]
            middles = [statistics.median(times) for times in one["ns"].values()]
            ends = [[max(0.0, middle - low), max(0.0, high - middle)]
                    for middle, (low, _, high) in zip(middles, quartiles, strict=True)]  # fmt: skip
            below_and_above = list(zip(*ends, strict=True))
            panel.errorbar(values, middles, yerr=below_and_above, fmt="o", markersize=3,
                           linewidth=0.8, color=f"C{i}", label=one["contender"])  # fmt: skip
            panel.plot(values, _fitted(values, middles, is_log), linewidth=0.9, color=f"C{i}")
        if is_log:
            panel.set_xscale("log")
        panel.minorticks_off()
        if max(values) < 10**5:
            ticks = [value for value in values if is_log or value == 0 or value > max(values) / 20]
            panel.set_xticks(ticks, [f"{value:,}" for value in ticks])
        panel.set_ylim(bottom=0)
        panel.set_title(f"{series['language']}: {series['series']}", fontsize=9)
        panel.set_ylabel("ns an operation", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=7)
    for panel in list(panels.flat)[len(found) :]:
        panel.set_visible(False)
    _save(figure, target)


def _fitted(values: Sequence[int], figures: Sequence[float], is_log: bool) -> list[float]:
    points = [math.log10(value) if is_log else value for value in values]
    slope, start = statistics.linear_regression(points, figures)
    return [start + slope * point for point in points]


def _save(figure: Any, target: Path) -> None:
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
