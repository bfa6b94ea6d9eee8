"""The two modes side by side: instructions over stock Python, and resident memory under a cap.

    make bench-modes
    python bench/modes.py cost        instructions (needs valgrind), start-up subtracted; they are
                                      kept in build/bench/COMMIT/instructions-VERSION.json
    python bench/modes.py resident    runaways under caps of 64 and 512 MiB
    python bench/modes.py runaway NAME MIB

Instructions do not depend on the machine. Resident memory is the peak of a process beyond what it
had before the runaway began, by Linux's own count.
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import contenders
import programs
from instructions import can_count, count
from interleave import geometric_mean
from results import keep

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
MODES = ("exact", "held")

# ---- cost --------------------------------------------------------------------------------------

PART = 16  # of a program's usual size: valgrind makes it fifty times slower
CONTENDERS = [
    contenders.STOCK,
    contenders.COUNTING,
    contenders.CAPPED,
    contenders.BUDGET,
    contenders.UNCAPPED,
    contenders.HELD,
]


def instructions(program: str, contender: str) -> int:
    command = [sys.executable, str(HERE / "programs.py"), program, contender, str(PART)]
    return count(command, dict(os.environ, PYTHONHASHSEED="1"))


def show_cost() -> None:
    if not can_count():
        print("skipped: no valgrind, so no instructions are counted", file=sys.stderr)
        return
    start = {contender: instructions("nothing", contender) for contender in CONTENDERS}
    columns = CONTENDERS[1:]
    version = platform.python_version()
    print(f"CPython {version}, instructions over stock, start-up subtracted")
    print(f"{'program':<12}" + "".join(f"{name:>24}" for name in columns))
    ratios: dict[str, dict[str, float]] = {}
    for program in programs.NAMES:
        taken = {name: instructions(program, name) - start[name] for name in CONTENDERS}
        ratios[program] = {name: taken[name] / taken["stock"] for name in columns}
        print(f"{program:<12}" + "".join(f"{ratio:>24.3f}" for ratio in ratios[program].values()),
              flush=True)  # fmt: skip
    means = (geometric_mean([row[name] for row in ratios.values()]) for name in columns)
    print(f"{'mean':<12}" + "".join(f"{mean:>24.3f}" for mean in means))
    keep(f"instructions-{version}", ratios)


# ---- runaways ------------------------------------------------------------------------------------


def small_tuples() -> None:
    kept = []
    while True:
        kept.append((len(kept), str(len(kept))))


def dicts() -> None:
    kept = []
    while True:
        kept.append({"a": len(kept), "b": [len(kept)]})


def big_buffers() -> None:
    kept = []
    while True:
        kept.append(bytearray(b"x") * 300_000)


def one_block_kept_per_pool() -> None:
    """A class of sizes after the other is filled, and all but a block of each pool given back."""
    kept = []
    while True:
        for size in range(16, 480, 16):
            in_pool = 16_336 // (size + 32)
            blocks = [bytes(size - 1) for _ in range(40 * MIB // (size + 32))]
            kept.extend(blocks[::in_pool])
            del blocks


def recursion() -> None:
    sys.setrecursionlimit(1 << 30)

    def descend(n: int) -> int:
        return 1 + descend(n + len([n] * 20))

    descend(0)


def strings() -> None:
    kept = []
    while True:
        kept.append("x" * (len(kept) % 5000))


def a_set_of_ints() -> None:
    kept = set()
    n = 10**20
    while True:
        n += 1
        kept.add(n)


def one_list() -> None:
    kept = []
    while True:
        kept.append(None)


def classes() -> None:
    kept = []
    while True:
        kept.append(type("One", (), {"x": 1}))


def closures() -> None:
    kept: list[object] = []
    while True:
        kept.append(lambda n=1, all_of=kept: n + len(all_of))


def four_threads() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            small_tuples()
        except MemoryError as error:
            errors.append(error.with_traceback(None))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    raise errors[0]


def five_tasks() -> None:
    async def work() -> None:
        kept = []
        while True:
            kept.append([0] * 10)
            if len(kept) % 100 == 0:
                await asyncio.sleep(0)

    async def run() -> None:
        await asyncio.gather(*[work() for _ in range(5)])

    asyncio.run(run())


ALL: tuple[Callable[[], None], ...] = (
    small_tuples, dicts, big_buffers, one_block_kept_per_pool, recursion, strings, a_set_of_ints,
    one_list, classes, closures, four_threads, five_tasks,
)  # fmt: skip
RUNAWAYS = {f.__name__: f for f in ALL}


def run_away(name: str, mib: int) -> None:
    """Prints the peak of resident memory beyond the start, in bytes, and what ended it."""
    import zmalloc

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = contenders.peak_resident()
    how = "nothing"
    try:
        with zmalloc.limit(zmalloc.used() + mib * MIB):
            RUNAWAYS[name]()
    except BaseException as error:
        how = type(error).__name__
    print(contenders.peak_resident() - start, how)


def resident(name: str, mib: int, mode: str) -> tuple[float, str]:
    command = [sys.executable, __file__, "runaway", name, str(mib)]
    env = dict(os.environ, ZMALLOC_MODE=mode, PYTHONHASHSEED="1")
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL)  # fmt: skip
    taken, how = done.stdout.split()[-2:]
    return int(taken) / (mib * MIB), how


def show_resident() -> None:
    print(f"CPython {platform.python_version()}, peak resident memory beyond the start / cap")
    columns = [(mib, mode) for mib in (64, 512) for mode in MODES]
    print(f"{'runaway':<26}" + "".join(f"{f'{mode} {mib} MiB':>16}" for mib, mode in columns))
    for name in RUNAWAYS:
        row = f"{name.replace('_', ' '):<26}"
        for mib, mode in columns:
            row += f"{resident(name, mib, mode)[0]:>16.3f}"
        print(row, flush=True)


def main() -> None:
    wanted = sys.argv[1:] or ["cost", "resident"]
    if wanted[0] == "runaway":
        run_away(wanted[1], int(wanted[2]))
        return
    for what in wanted:
        {"cost": show_cost, "resident": show_resident}[what]()


if __name__ == "__main__":
    main()
