"""What counting costs a Lua state: the stock allocator and zmalloc's side by side.

    make bench-lua

CPU time interleaved, each run in a process of its own: the median of the ratios to stock. Beside it
instructions, by valgrind where there is one: they do not depend on the machine.

single: an account of the state's own. capped: the same with a cap, a pressure callback and all
else.
shared: an account that other threads may use. group: a state of its own account, below a parent.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from interleave import geometric_mean, measure, ratio, show

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
CONTENDERS = ["stock", "single", "capped", "shared", "group"]
PROGRAMS = ["binary_trees", "strings", "closures", "objects", "json"]
# Under valgrind a program is some fifty times slower.
SMALL = {
    "binary_trees": "9",
    "strings": "3000",
    "closures": "20000",
    "objects": "15000",
    "json": "1",
}


def build(lua: str) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    host = BUILD / f"lua_host-{lua}"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", lua], check=True, capture_output=True, text=True
    ).stdout.split()
    sources = [HERE / "lua_host.c", ROOT / "lua" / "zmalloc_lua.c", *(ROOT / "csrc").glob("*.c")]
    subprocess.run(
        [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG",
         f"-I{ROOT}/csrc", f"-I{ROOT}/lua", *map(str, sources), "-o", str(host), *flags,
         "-pthread", "-ldl"],
        check=True,
    )
    return host


def seconds(host: Path, contender: str, program: str) -> float:
    command = [str(host), contender, str(HERE / "lua" / f"{program}.lua")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def instructions(host: Path, contender: str, program: str) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(host),
               contender,
               str(HERE / "lua" / f"{program}.lua"), SMALL[program]]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found, done.stderr
    return int(found[1])


def head(title: str) -> None:
    print(f"\n{title}\n{'program':<14}{'stock':>14}" + "".join(f"{c:>22}" for c in CONTENDERS[1:]))


def foot(totals: dict[str, list[float]]) -> None:
    means = "".join(f"{geometric_mean(totals[c]):>22.3f}" for c in CONTENDERS[1:])
    print(f"{'mean':<14}{'':>14}{means}")


def compare_time(host: Path, rounds: int) -> None:
    head(f"CPU time, {rounds} rounds: median ratio to stock (quartiles)")
    totals: dict[str, list[float]] = {c: [] for c in CONTENDERS}
    for program in PROGRAMS:
        times = measure(CONTENDERS, lambda c, p=program: seconds(host, c, p), rounds)
        for c in CONTENDERS:
            totals[c].append(ratio(times, c, "stock")[0])
        cells = "".join(f"{show(times, c, 'stock'):>22}" for c in CONTENDERS[1:])
        print(f"{program:<14}{min(times['stock']) * 1000:>11.0f} ms{cells}", flush=True)
    foot(totals)


def compare_instructions(host: Path) -> None:
    head("instructions: ratio to stock")
    totals: dict[str, list[float]] = {c: [] for c in CONTENDERS}
    for program in PROGRAMS:
        counts = {c: instructions(host, c, program) for c in CONTENDERS}
        for c in CONTENDERS:
            totals[c].append(counts[c] / counts["stock"])
        cells = "".join(f"{counts[c] / counts['stock']:>22.4f}" for c in CONTENDERS[1:])
        print(f"{program:<14}{counts['stock']:>14,}{cells}", flush=True)
    foot(totals)


def main() -> None:
    lua = sys.argv[1] if len(sys.argv) > 1 else "lua5.4"
    host = build(lua)
    print(f"{lua}, {os.uname().machine}, {os.cpu_count()} CPUs")
    compare_time(host, int(os.environ.get("ROUNDS", "11")))
    if shutil.which("valgrind"):
        compare_instructions(host)
    else:
        print("\nno valgrind here: instructions were not counted")


if __name__ == "__main__":
    main()
