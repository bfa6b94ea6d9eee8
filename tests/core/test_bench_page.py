"""docs/benchmarks.md says what was measured, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import toolchain

PAGE = """
import sys
from pathlib import Path
import page, results
place = Path(sys.argv[1])
print(page.markdown(place, results.Results(place / "python.jsonl"), ["3.13.0"]))
"""
MIB = 1 << 20


def runs(program: str, contender: str, cpu: list[float], resident: int = 100 * MIB) -> list[str]:
    return [
        json.dumps({
            "version": "3.13.0", "suite": "pyperformance", "program": program,
            "contender": contender, "turn": turn, "cpu": seconds, "wall": 2 * seconds + 1,
            "resident": resident, "why": "",
        })
        for turn, seconds in enumerate(cpu)
    ]  # fmt: skip


def page_of(place: Path, python: list[str], **others: object) -> str:
    (place / "python.jsonl").write_text("\n".join(python) + "\n")
    for name, figures in others.items():
        (place / f"{name.replace('_', '-')}.json").write_text(json.dumps(figures))
    command = [sys.executable, "-B", "-c", PAGE, str(place)]
    return toolchain.must(command, cwd=toolchain.ROOT / "bench")


def test_medians_are_of_the_ratios_within_a_round_and_least_times_stand_beside(
    tmp_path: Path,
) -> None:
    text = page_of(tmp_path, [
        *runs("one", "stock", [1.0, 2.0, 4.0]),
        *runs("one", "zmalloc", [1.1, 2.6, 4.8], 106 * MIB),
        *runs("two", "stock", [1.0, 1.0, 1.0]),
        *runs("two", "zmalloc", [1.2, 1.2, 0.0]),  # the last of them failed
        *runs("two", "pass-through", [1.0, 1.0]),
    ])  # fmt: skip
    assert "| one | 1.200 (1.10-1.30) |" in text.replace("|  |", "|")
    assert "| zmalloc | 2 | 1.200 | 1.149 | 1.200 two |" in text
    assert "zmalloc over pass-through: 1.200, of least 1.200" in text
    assert "| peak of resident memory, zmalloc / stock, the median program | 1.07 | 1.030" in text


def test_what_was_not_measured_is_not_shown(tmp_path: Path) -> None:
    text = page_of(tmp_path, [*runs("one", "stock", [1.0]), *runs("one", "zmalloc", [1.5])])
    assert "| one | 1.500 |" in text
    for word in ("nan", "None", "tracemalloc", "mode held", "import", "Lua", "Growth", "C core"):
        assert word not in text


def test_lua_the_core_and_growth_have_their_parts(tmp_path: Path) -> None:
    lua = [
        {"language": "Lua", "version": "Lua 5.4", "program": program, "contender": name,
         "cpu": cpu, "peak_rss": MIB, "instructions": count}
        for program, name, cpu, count in (
            ("tables", "stock", [1.0, 1.0], 100), ("tables", "single", [1.0, 1.2], 103),
            ("json", "stock", [2.0, 2.0], 200), ("json", "single", [2.0, 2.4], 202),
        )
    ]  # fmt: skip
    core = [
        {"language": "C", "contender": name, "size": 16, "threads": 2, "ns": ns}
        for name, ns in (("libc malloc", [10.0, 10.0]), ("libc account", [12.0, 14.0]))
    ]
    growth = [{
        "language": "C", "series": "live blocks", "slope_per": "decade",
        "contenders": [
            {"contender": "malloc", "ns": {"10000": [5.0, 5.0], "100000": [7.0, 7.0]},
             "slope": [2.0, 2.0], "slope_over_stock": [0.0, 0.0]},
            {"contender": "account", "ns": {"10000": [6.0, 6.0], "100000": [8.0, 9.0]},
             "slope": [2.0, 3.0], "slope_over_stock": [0.0, 1.0]},
        ],
    }]  # fmt: skip
    text = page_of(tmp_path, runs("one", "stock", [1.0]), lua=lua, core=core, growth=growth)
    assert "| **mean** | 1.100 |" in text
    assert "| mean of least | 1.000 |" in text
    assert "| mean | 1.0200 |" in text
    assert "| 2 | 16 | 10.0 | 13.0 (1.30) |" in text
    assert "| account | 6.0 | 8.5 | +2.50 (+1.75 to +3.25) | +0.50 (-0.25 to +1.25) |" in text
