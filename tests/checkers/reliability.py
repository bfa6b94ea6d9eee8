"""make reliability: docs/reliability.md, from what the long targets have left in build/reliability.

Nothing in it is written by hand: a target that has not been run on this machine is not in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core import toolchain

from .figures import FOLDER

PAGE = toolchain.ROOT / "docs" / "reliability.md"

HEAD = """# Reliability

What the long tests of this project have counted, each by its own target, on the day and with the
versions that are named. `make reliability` writes this page from what the targets leave; a quick
slice of each is in `make test`.
"""

#: The targets, in the order of the page, and what they do.
TARGETS = {
    "faults": ("make test-faults", "each public entry of C, Python and Lua, with its first, second,"
               " ... request refused, until it asks for no more"),
    "fuzz": ("make fuzz", "random inputs for sizes, map, accounts and the Python API"),
    "sanitize": ("make sanitize", "ASan, UBSan, TSan and valgrind"),
    "static": ("make check-static", "clang-tidy, cppcheck, gcc -fanalyzer"),
    "builds": ("make test-builds", "the core's programs, built in each way"),
    "cpython-tests": ("make cpython-tests", "CPython's own tests, stock and with zmalloc on:"
                      " case by case"),
    "escapes": ("make test-escapes", "scripts under a sealed cap that try to get past it"),
    "soak": ("make soak", "threads, processes, forks, moving caps, interrupts, refusals, kills"),
    "coverage": ("make coverage", "lines and branches that the tests reach"),
    "mutants": ("make mutants", "the code broken on purpose: a quick test has to turn red"),
}  # fmt: skip

EXPLAINED, UNEXPLAINED = "differences with a reason", "differences without a reason"

#: Not shown as a count of what was done.
NOT_DONE = ("findings", "differences", "seconds", "seed")


def number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def counts(of: dict[str, Any]) -> str:
    kinds = {kind: n for kind, n in of.items() if kind not in NOT_DONE}
    return ", ".join(f"{number(n)} {kind}" for kind, n in kinds.items() if isinstance(n, int))


def differences(record: dict[str, Any]) -> str:
    if UNEXPLAINED in record:
        return f"{len(record[UNEXPLAINED])}, and {len(record[EXPLAINED])} with a reason"
    found = record.get("totals", record)
    found = found.get("findings", found.get("differences", 0))
    return number(len(found) if isinstance(found, list) else found)


def versions(record: dict[str, Any]) -> str:
    said = record.get("versions") or {
        name: record[name] for name in ("python", "version") if name in record
    }
    if isinstance(said, dict):
        return ", ".join(
            word if name in word else f"{name} {word}" for name, word in said.items() if word
        )
    return str(said)


def seconds(record: dict[str, Any]) -> str:
    if "minutes" in record:
        return f"{record['minutes']} min"
    took = record.get("seconds")
    return "" if took is None else f"{took / 60:.1f} min"


def target_of(name: str) -> str:
    """The target whose figures are in the file of that name, which may have more behind it."""
    return next((target for target in TARGETS if name.startswith(target)), "")


def row(name: str, record: dict[str, Any]) -> str:
    command, what = TARGETS.get(target_of(name), (name, ""))
    done = counts(record.get("totals", record))
    cells = [f"`{command}`: {what}", record["date"][:10], versions(record), seconds(record), done]
    return "| " + " | ".join([*cells, differences(record)]) + " |"


def parts(name: str, record: dict[str, Any]) -> Iterator[str]:
    """A target's own table: what of its parts."""
    found = record.get("parts") or {}
    if not found:
        return
    notes = record.get("notes") or {}
    last = "Caught by" if name == "mutants" else "Note"
    yield f"\n## {TARGETS.get(name, (name, ''))[0]}\n"
    yield f"| | Counted | {last} |" if notes else "| | Counted |"
    yield "|---|---|---|" if notes else "|---|---|"
    for part, of in found.items():
        cells = [part, counts(of) or "-"]
        if notes:
            cells.append(f"`{notes[part]}`" if notes.get(part) else "**nothing**")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reasons(name: str, record: dict[str, Any]) -> Iterator[str]:
    """Differences that are as they should be, by their reason."""
    if not record.get(EXPLAINED):
        return
    yield f"\n## `{name}`: differences with a reason\n"
    tests: dict[str, list[str]] = {}
    for one in record[EXPLAINED]:
        tests.setdefault(one["reason"], []).append(f"`{one['test'].removeprefix('test.')}`")
    for reason, found in tests.items():
        yield f"- {reason}: {', '.join(found)}"


def page(records: dict[str, dict[str, Any]]) -> str:
    lines = [HEAD, "| | Date | Versions | Took | Counted | Differences |", "|" + "---|" * 6]
    lines += [row(name, record) for name, record in records.items()]
    for name, record in records.items():
        lines += parts(name, record)
        lines += reasons(name, record)
    return "\n".join(lines) + "\n"


def order(file: Path) -> tuple[int, str]:
    return [*TARGETS, ""].index(target_of(file.stem)), file.stem


def read(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(folder.glob("*.json"), key=order)
    return {file.stem: json.loads(file.read_text()) for file in files}


def main() -> int:
    records = read(FOLDER)
    if not records:
        print(f"nothing has been run: {FOLDER} has no figures", file=sys.stderr)
        return 1
    PAGE.write_text(page(records))
    print(f"{PAGE.relative_to(toolchain.ROOT)}: {', '.join(records)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
