"""What counting costs a Lua state, and what lies underneath: allocators side by side.

    make bench-lua                Lua 5.4 and LuaJIT, a few minutes
    ROUNDS=30 make bench-lua      more of it
    python bench/lua_bench.py [LUA...]

The contenders:
    stock      the allocator that luaL_newstate() brings: the C library's, or LuaJIT's own
    plain      LuaJIT only: the C library's, as in the others
    single     counted in an account of the state's own
    capped     the same with a cap, a pressure callback and all else
    shared     an account that other threads may use
    group      a state of its own account, below a parent
    jemalloc, mimalloc            preloaded in the place of the C library's, not counted
    single over jemalloc, ...     counted over them

The rule. Each run is a process of its own. All contenders of a program run after each other, round
by round, each round beginning with another one. What is compared is CPU time from before the state
is made until it is closed. A cell is the median of the ratios to stock within a round, with their
quartiles. Below: the geometric mean of the medians, with the quartiles of the means of the
programs round by round; the mean of the ratios of the least times, which other programs on the
machine disturb least; and the worst single program. Resident memory is the median of the
processes' peaks. Instructions, where valgrind is, are those of one whole process with a smaller
size, but for what is preloaded; LuaJIT's also depend on what it happens to compile, which the
addresses of blocks have a say in. All of it is in build/bench/COMMIT/lua.json.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import backends
import instructions
from interleave import Times, geometric_mean, measure, ratio, show
from progress import bar
from results import BUILD, ROOT, keep

HERE = Path(__file__).resolve().parent
# Each with a smaller size, for valgrind, which makes it some fifty times slower.
PROGRAMS = {
    "binary_trees": "8",
    "strings": "3000",
    "closures": "15000",
    "objects": "10000",
    "json": "1",
    "graph": "60",
    "coroutines": "2000",
    "tables": "2",
}
WIDTH = 22


@dataclass(frozen=True)
class Contender:
    name: str
    kind: str  #: of state, in the words of lua_host
    preload: str | None = None


STOCK = Contender("stock", "stock")
PLAIN = Contender("plain", "plain")
OURS = [Contender(name, name) for name in ("single", "capped", "shared", "group")]


def contenders(version: str, preloadable: list[str]) -> list[Contender]:
    # LuaJIT's own allocator takes nothing from malloc.
    own, kind = ([PLAIN], "plain") if version.startswith("LuaJIT") else ([], "stock")
    uncounted = [Contender(name, kind, name) for name in preloadable]
    counted = [Contender(f"single over {name}", "single", name) for name in preloadable]
    return [STOCK, *own, *OURS, *uncounted, *counted]


def build(lua: str) -> Path | None:
    """The host for a Lua; None, and a line on stderr, where its headers are missing."""
    flags: list[str] = []
    for what in ("cflags", "libs"):
        command = [str(ROOT / "tools" / "lua.sh"), lua, what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr.strip().replace("error:", "skipped:"), file=sys.stderr)
            return None
        flags += done.stdout.split()
    BUILD.mkdir(parents=True, exist_ok=True)
    host = BUILD / f"lua_host-{lua}"
    sources = [HERE / "lua_host.c", ROOT / "lua" / "zmalloc_lua.c", *(ROOT / "csrc").glob("*.c")]
    subprocess.run(
        [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG",
         f"-I{ROOT}/csrc", f"-I{ROOT}/lua", *map(str, sources), "-o", str(host), *flags,
         "-pthread", "-ldl"],
        check=True,
    )  # fmt: skip
    return host


def command(host: Path, kind: str, program: str) -> list[str]:
    return [str(host), kind, str(HERE / "lua" / f"{program}.lua")]


class Figures:
    """What was measured of one Lua."""

    def __init__(self, host: Path, version: str, taking_part: list[Contender]) -> None:
        self.host, self.version = host, version
        self.contenders = {one.name: one for one in taking_part}
        self.cpu: dict[str, Times] = {}
        self.peaks: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.instructions: dict[tuple[str, str], int] = {}

    def run(self, program: str, name: str) -> float:
        one = self.contenders[name]
        done = subprocess.run(command(self.host, one.kind, program), check=True, text=True,
                              env=backends.preloading(one.preload),
                              capture_output=True)  # fmt: skip
        seconds, peak = done.stdout.split()
        self.peaks[program, name].append(int(peak))
        return float(seconds)

    def measure(self, rounds: int) -> None:
        counted = [one for one in self.contenders.values() if one.preload is None]
        if not instructions.can_count():
            print("skipped: no valgrind, so no instructions are counted", file=sys.stderr)
            counted = []
        steps = len(PROGRAMS) * (len(self.contenders) * rounds + len(counted))
        with bar(steps) as step:
            for program, small in PROGRAMS.items():
                for one in counted:
                    step(f"{self.version}, instructions: {program}, {one.name}")
                    found = instructions.count([*command(self.host, one.kind, program), small])
                    self.instructions[program, one.name] = found

                def timed(name: str, program: str = program) -> float:
                    step(f"{self.version}: {program}, {name}")
                    return self.run(program, name)

                self.cpu[program] = measure(list(self.contenders), timed, rounds)

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "language": "Lua",
                "version": self.version,
                "program": program,
                "contender": name,
                "cpu": times[name],
                "peak_rss": statistics.median(self.peaks[program, name]),
                "instructions": self.instructions.get((program, name)),
            }
            for program, times in self.cpu.items()
            for name in self.contenders
        ]


def mean(cpu: dict[str, Times], name: str) -> str:
    """The geometric mean of the programs' medians; the quartiles of the rounds' own means."""
    middle = geometric_mean([ratio(times, name, "stock")[0] for times in cpu.values()])
    by_round = zip(*(zip(times[name], times["stock"], strict=True) for times in cpu.values()),
                   strict=True)  # fmt: skip
    low, _, high = statistics.quantiles(
        [geometric_mean([one / stock for one, stock in pairs]) for pairs in by_round], n=4
    )
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def line(title: str, stock: str, cells: list[str]) -> None:
    print(f"{title:<14}{stock:>14}" + "".join(f"{cell:>{WIDTH}}" for cell in cells), flush=True)


def show_time(figures: Figures, rounds: int) -> None:
    names = [name for name in figures.contenders if name != "stock"]
    print(f"\n{figures.version}, CPU time, {rounds} rounds: median ratio to stock (quartiles)")
    line("program", "stock", names)
    for program, times in figures.cpu.items():
        line(program, f"{min(times['stock']) * 1000:.0f} ms",
             [show(times, name, "stock") for name in names])  # fmt: skip
    line("mean", "", [mean(figures.cpu, name) for name in names])
    line("mean of least", "", [
        f"{geometric_mean([min(t[name]) / min(t['stock']) for t in figures.cpu.values()]):.3f}"
        for name in names
    ])  # fmt: skip
    worst = [
        max((ratio(times, name, "stock")[0], program) for program, times in figures.cpu.items())
        for name in names
    ]
    line("worst", "", [f"{value:.3f} {program}" for value, program in worst])


def show_others(figures: Figures) -> None:
    """What is one figure a program: resident memory, instructions."""
    peaks = {key: statistics.median(values) for key, values in figures.peaks.items()}
    for title, unit, of in (
        ("peak of resident memory", 1 << 20, peaks),
        ("millions of instructions, of smaller programs", 10**6, figures.instructions),
    ):
        names = [name for name in figures.contenders
                 if name != "stock" and ("tables", name) in of]  # fmt: skip
        if not names:
            continue
        print(f"\n{figures.version}, {title}: ratio to stock")
        line("program", "MiB" if unit == 1 << 20 else "millions", names)
        ratios = {name: [of[p, name] / of[p, "stock"] for p in PROGRAMS] for name in names}
        for i, program in enumerate(PROGRAMS):
            line(program, f"{of[program, 'stock'] / unit:.1f}",
                 [f"{ratios[name][i]:.4f}" for name in names])  # fmt: skip
        line("mean", "", [f"{geometric_mean(ratios[name]):.4f}" for name in names])
        line("worst", "", [f"{max(ratios[name]):.4f}" for name in names])


def main() -> None:
    rounds = int(os.environ.get("ROUNDS", "5"))
    preloadable = backends.preloadable()
    rows: list[dict[str, object]] = []
    print(f"{os.uname().machine}, {os.cpu_count()} CPUs")
    for lua in sys.argv[1:] or ["lua5.4", "luajit"]:
        host = build(lua)
        if not host:
            continue
        asked = subprocess.run([str(host), "version"], check=True, capture_output=True, text=True)
        version = asked.stdout.strip()
        figures = Figures(host, version, contenders(version, preloadable))
        figures.measure(rounds)
        show_time(figures, rounds)
        show_others(figures)
        rows += figures.rows()
    keep("lua", rows)


if __name__ == "__main__":
    main()
