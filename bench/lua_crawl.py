"""How long a program with little room below its cap goes on, by Lua version.

    python bench/lua_crawl.py [LUA...]

A state holds live data that fill 90, 99 or 99.9 percent of its cap, and makes garbage beside
them. A cell is the CPU time in terms of the same program without a cap, the least of several
interleaved runs, and how it ended: "limit" is a memory error. paced: after zmalloc_lua_pace(),
which Lua 5.1 and LuaJIT need, as they never collect when they are refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
LUAS = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"]
CHURNS = ["tables", "strings", "closures", "turnover", "coroutines", "buffers"]
SHARES = ["90", "99", "99.9"]
COLLECTS_AT_A_REFUSAL = {"lua5.2", "lua5.3", "lua5.4"}


class Case(NamedTuple):
    share: str = "0"
    is_paced: bool = False
    is_generational: bool = False


class End(NamedTuple):
    seconds: float
    how: str


def build(lua: str) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / f"lua_crawl-{lua}"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", lua], check=True,
                           capture_output=True, text=True).stdout.split()
    names = ("zmalloc_lua.c", "zmalloc_lua_state.c", "zpace.c")
    sources = [HERE / "lua_crawl.c", *(ROOT / "lua" / name for name in names),
               *(ROOT / "csrc").glob("*.c")]
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG",
                    f"-I{ROOT}/csrc", f"-I{ROOT}/lua", *map(str, sources), "-o", str(program),
                     *flags,
                    "-pthread", "-ldl", "-lm"], check=True)
    return program


def run(program: Path, churn: str, case: Case, live: int, rounds: int) -> End:
    command = [str(program), churn, case.share, str(int(case.is_paced)),
               str(int(case.is_generational)),
               str(live), str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    seconds, how, *_ = done.stdout.split()
    return End(float(seconds), how)


def cases(lua: str) -> list[Case]:
    """The cells of a row, without the first: no cap."""
    paces = (False, True) if lua in COLLECTS_AT_A_REFUSAL else (True,)
    modes = (False, True) if lua == "lua5.4" else (False,)
    return [Case(share, pace, mode) for mode in modes for pace in paces for share in SHARES]


def compare(program: Path, churn: str, wanted: list[Case], live: int, rounds: int,
            times: int) -> dict[Case, tuple[float, str]]:
    """The ratio of the least times, and the end, by case."""
    least: dict[Case, End] = {}
    bases = sorted({Case(is_generational=case.is_generational) for case in wanted})
    for _ in range(times):
        for case in [*bases, *wanted]:
            end = run(program, churn, case, live, rounds)
            if case not in least or end < least[case]:
                least[case] = end
    return {case: (least[case].seconds / least[Case(is_generational=case.is_generational)].seconds,
                   least[case].how) for case in wanted}


def title(case: Case) -> str:
    words = [case.share, "paced" if case.is_paced else "", "gen" if case.is_generational else ""]
    return " ".join(word for word in words if word)


def main() -> None:
    live, rounds = 40000, int(os.environ.get("CHURN", "400000"))
    for lua in sys.argv[1:] or LUAS:
        found = subprocess.run(["pkg-config", "--exists", lua], check=False)
        if found.returncode:
            print(f"{lua}: not on this machine")
            continue
        program, columns = build(lua), cases(lua)
        print(f"\n{lua:<12}" + "".join(f"{title(case):>15}" for case in columns))
        for churn in CHURNS:
            row = compare(program, churn, columns, live, rounds, int(os.environ.get("ROUNDS", "5")))
            cells = (
                f"{ratio:.2f}" + ("" if how == "done" else " limit") for ratio, how in row.values()
            )
            print(f"{churn:<12}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
