"""Shows what bench/lua_bench.py has measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import report
from interleave import Times, geometric_mean, ratio, show

STOCK, EVERYTHING, POOL = "stock", "capped", "mimalloc"


class Version:
    """The figures of one Lua, over its stock allocator."""

    def __init__(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        self.name = name
        self.times: dict[str, Times] = {}
        self.counts: dict[str, dict[str, int | None]] = {}
        for row in rows:
            program, contender = row["program"], row["contender"]
            self.times.setdefault(program, {})[contender] = row["cpu"]
            self.counts.setdefault(program, {})[contender] = row["instructions"]
        self.contenders = [one for one in next(iter(self.times.values())) if one != STOCK]
        self.rounds = len(next(iter(self.times.values()))[STOCK])

    def middles(self, contender: str) -> list[float]:
        """By program, the median of the ratios within a round."""
        return [ratio(times, contender, STOCK)[0] for times in self.times.values()]

    def least(self, contender: str) -> list[float]:
        """By program, the least time over stock's."""
        return [min(times[contender]) / min(times[STOCK]) for times in self.times.values()]

    def instructions(self, contender: str) -> list[float] | None:
        """By program; None: not counted."""
        found = []
        for counts in self.counts.values():
            count, stock = counts[contender], counts[STOCK]
            if not count or not stock:
                return None
            found.append(count / stock)
        return found


def versions(rows: Sequence[dict[str, Any]]) -> list[Version]:
    names = dict.fromkeys(row["version"] for row in rows)
    return [Version(name, [row for row in rows if row["version"] == name]) for name in names]


def bars(found: Sequence[Version]) -> list[str]:
    """What is asked of counting in Lua, and what it takes."""
    if not found:
        return []
    rows: list[list[str]] = []

    def add(what: str, bar: str, figures: list[str]) -> None:
        rows.append([what, bar, *figures])

    def means(contender: str) -> list[str]:
        return [
            f"{geometric_mean(one.middles(contender)):.3f}, "
            f"{geometric_mean(one.least(contender)):.3f}"
            if contender in one.contenders
            else ""
            for one in found
        ]

    counted = [one.instructions(EVERYTHING) if EVERYTHING in one.contenders else None
               for one in found]  # fmt: skip
    add("counting with everything / stock, instructions", "1.06",
        [f"{geometric_mean(values):.3f}" if values else "" for values in counted])
    add("the same, time", "1.02", means(EVERYTHING))
    over = f"single over {POOL}"
    add(f"counting over {POOL} / stock, time", "0.85", means(over))
    add("the same, worst program", "1.02",
        [f"{max(one.least(over)):.3f}" if over in one.contenders else "" for one in found])
    return [*report.bars([one.name for one in found], rows), ""]


def markdown(found: Sequence[Version]) -> list[str]:
    lines: list[str] = []
    for one in found:
        names = one.contenders
        rows = [[program, *(show(times, name, STOCK) for name in names)]
                for program, times in one.times.items()]  # fmt: skip
        for title, of_each in (
            ("**mean**", [geometric_mean(one.middles(name)) for name in names]),
            ("mean of least", [geometric_mean(one.least(name)) for name in names]),
            ("worst", [max(one.middles(name)) for name in names]),
        ):
            rows.append([title, *(f"{value:.3f}" for value in of_each)])
        lines += [
            f"## {one.name}: CPU time over the stock allocator",
            "",
            f"{one.rounds} rounds: the median of the ratios, and their quartiles. Contenders are as"
            " told in [lua_bench.py](../bench/lua_bench.py).",
            "",
            *report.table(["program", *names], rows),
            "",
        ]
        counted = {name: of_it for name in names if (of_it := one.instructions(name))}
        if counted:
            rows = [[program, *(f"{of_it[i]:.4f}" for of_it in counted.values())]
                    for i, program in enumerate(one.times)]  # fmt: skip
            rows.append(["mean", *(f"{geometric_mean(of_it):.4f}" for of_it in counted.values())])
            lines += [f"## {one.name}: instructions over the stock allocator", "",
                      *report.table(["program", *counted], rows), ""]  # fmt: skip
    return lines
