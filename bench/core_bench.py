"""What the C core costs: nanoseconds for a block taken and given back, by size and threads.

    make bench-core               a few minutes
    ROUNDS=15 make bench-core     more of it

The contenders, each over the C library's malloc, jemalloc and mimalloc (those the machine has,
built in as BACKEND= does it):
    malloc     the allocator underneath, called as it is
    zmalloc    the family, counting by the size that the allocator tells
    prefix     the family with a prefix before each block, as where no allocator tells it
    account    zaccount_alloc(), one account for all threads
    single     zaccount_alloc(), an account of each thread's own that is told so
    loop       nothing is allocated: what the program itself takes, which is in all figures

The rule. Each run is a process of its own; all contenders of a size run after each other, round by
round, each round beginning with another one. There are 64 blocks live for each thread; one of
them, by chance, is given back and another taken, whose first byte is written. A figure is the CPU
time of all threads, by pair: threads that wait for each other's cache lines pay for it, those that
have no processor do not. Shown is the median, and beside it the median of the ratios to the malloc
underneath within a round. Ratios of jemalloc's and mimalloc's malloc are to the C library's. All of
it is in build/bench/COMMIT/core.json.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import backends
from interleave import Times, measure, ratio
from progress import bar
from results import BUILD, ROOT, keep

HERE = Path(__file__).resolve().parent
SIZES = (16, 64, 256, 1024, 4096, 65536)
THREADS = (1, 2, 4, 8)
KINDS = ("malloc", "zmalloc", "prefix", "account", "single")
LIVE = 64
PAIRS = 500_000


def build(backend: str = "libc", is_prefix: bool = False) -> Path | None:
    """core.c over a backend; None, and a line on stderr, where that is missing."""
    flags = backends.flags(backend)
    if flags is None:
        return None
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / f"core-{backend}{'-prefix' * is_prefix}"
    mode = ["-DNO_MALLOC_USABLE_SIZE"] * is_prefix
    sources = [HERE / "core.c", *(ROOT / "csrc").glob("*.c")]
    subprocess.run(
        [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG", *mode,
         f"-I{ROOT}/csrc", *map(str, sources), "-o", str(program), *flags, "-pthread", "-ldl"],
        check=True,
    )  # fmt: skip
    return program


@dataclass(frozen=True)
class Load:
    """What core.c is told, in its order; see there."""

    size: int = 64
    live: int = LIVE
    threads: int = 1
    accounts: int = 1
    depth: int = 1
    scopes: int = 0
    pairs: int = PAIRS
    chained: int = 0


def run(program: Path, kind: str, load: Load) -> tuple[float, int]:
    """Nanoseconds a pair, and the peak of resident memory."""
    command = [str(program), kind, *map(str, astuple(load))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    took, peak = done.stdout.split()
    return float(took), int(peak)


def load_of(size: int, threads: int) -> Load:
    pairs = PAIRS // 2 if size > 4096 else PAIRS
    return Load(size=size, live=LIVE * threads, threads=threads, pairs=pairs)


class Contenders:
    """Those of this machine, by name: "jemalloc zmalloc"."""

    def __init__(self) -> None:
        self.backends: list[str] = []
        self.programs: dict[str, tuple[Path, str]] = {}
        for backend in ("libc", *backends.NAMES):
            usable = build(backend)
            prefix = build(backend, is_prefix=True) if usable else None
            if not usable or not prefix:
                continue
            self.backends.append(backend)
            for kind in KINDS:
                of = (prefix, "zmalloc") if kind == "prefix" else (usable, kind)
                self.programs[f"{backend} {kind}"] = of
            if backend == "libc":
                self.programs["loop"] = (usable, "loop")

    def run(self, name: str, load: Load) -> float:
        program, kind = self.programs[name]
        return run(program, kind, load)[0]


def measure_all(contenders: Contenders, rounds: int) -> Iterator[tuple[int, int, Times]]:
    with bar(len(SIZES) * len(THREADS) * len(contenders.programs) * rounds) as step:
        for threads in THREADS:
            for size in SIZES:

                def timed(name: str, size: int = size, threads: int = threads) -> float:
                    step(f"{size} bytes, {threads} threads: {name}")
                    return contenders.run(name, load_of(size, threads))

                yield size, threads, measure(list(contenders.programs), timed, rounds)


def cell(times: Times, name: str, base: str) -> str:
    """The median, and the median of the ratios with its quartiles."""
    middle, low, high = ratio(times, name, base)
    return f"{statistics.median(times[name]):.1f}  {middle:.2f} ({low:.2f}-{high:.2f})"


def show(found: list[tuple[int, int, Times]], backend: str) -> None:
    print(f"\n{backend}: ns of CPU time a pair, ratio to malloc (quartiles)")
    print(f"{'threads':<9}{'bytes':>6}{'loop':>7}" + "".join(f"{kind:>29}" for kind in KINDS))
    for size, threads, times in found:
        row = f"{threads:<9}{size:>6}{statistics.median(times['loop']):>7.1f}"
        for kind in KINDS:
            base = "libc malloc" if kind == "malloc" else f"{backend} malloc"
            row += f"{cell(times, f'{backend} {kind}', base):>29}"
        print(row)


def main() -> None:
    rounds = int(os.environ.get("ROUNDS", "5"))
    contenders = Contenders()
    print(f"{os.uname().machine}, {os.cpu_count()} CPUs, {rounds} rounds", flush=True)
    found = list(measure_all(contenders, rounds))
    for backend in contenders.backends:
        show(found, backend)
    rows = [
        {"language": "C", "contender": name, "size": size, "threads": threads, "ns": times[name]}
        for size, threads, times in found
        for name in contenders.programs
    ]
    keep("core", rows)


if __name__ == "__main__":
    main()
