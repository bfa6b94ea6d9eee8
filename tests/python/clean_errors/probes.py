"""What checks.py judges, each in this process: prints its figures as a line of JSON.

python tests/python/clean_errors probe NAME ARGUMENT...
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import zmalloc

Figures = dict[str, Any]
PROBES: dict[str, Callable[..., Figures]] = {}


def probe(function: Callable[..., Figures]) -> Callable[..., Figures]:
    PROBES[function.__name__] = function
    return function


# ---- below the limit nothing ever comes ----------------------------------------------------------


def one_block() -> None:
    bytearray(50_000)


def many_blocks() -> None:
    {n: [n] for n in range(15)}


def deep_calls() -> None:
    def descend(n: int) -> int:
        return descend(n - 1) + 1 if n else 0

    descend(300)


#: What unwinding that many calls is taken to cost, at most, on any version.
DEEP_DEBT = 300 * 2048
BLOCKS = {"one block": (one_block, 0), "many": (many_blocks, 0), "deep": (deep_calls, DEEP_DEBT)}


#: By what use may rise in mode `held` between two blocks.
ARENA = 1 << 20


def least_limit(block: Callable[[], None], debt: int) -> int:
    """The smallest limit that the block stays at or below, with its debt."""
    far = zmalloc.used() + (1 << 30)
    highest = 0
    for _ in range(300):
        zmalloc.reset_peak()
        with zmalloc.limit(far):
            block()
        highest = max(highest, zmalloc.peak())
    return highest + debt + (ARENA if zmalloc.mode() == "held" else 0)


@probe
def quiet(times: str) -> Figures:
    """How many errors come if use plus debt stays at or below n; 100 threads wait meanwhile."""
    gate = threading.Event()
    errors: list[str] = []

    def idle() -> None:
        try:
            gate.wait()
        except BaseException as error:
            errors.append(f"an idle thread got {type(error).__name__}")

    threads = [threading.Thread(target=idle) for _ in range(100)]
    for one in threads:
        one.start()
    before = zmalloc.stats().limit_errors
    for name, (block, debt) in BLOCKS.items():
        share = int(times) // len(BLOCKS)
        n = least_limit(block, debt)
        try:
            for _ in range(share):
                with zmalloc.limit(n):
                    block()
        except MemoryError as error:
            errors.append(f"{name}: {type(error).__name__} {error}")
    kept = [[0] * 10 for _ in range(50_000)]  # a late error would come here
    gate.set()
    for one in threads:
        one.join()
    return {
        "errors": errors,
        "raised": zmalloc.stats().limit_errors - before,
        "times": int(times) // len(BLOCKS) * len(BLOCKS),
        "kept": len(kept),
    }


# ---- budgets of threads --------------------------------------------------------------------------

BUDGET = 2 << 20


def compute(seed: int) -> int:
    """Takes up to a MiB, and gives the same result each time."""
    choose = random.Random(seed)
    table = {n: [choose.random()] * 10 for n in range(3000)}
    return hash(tuple(sorted(value[0] for value in table.values())))


@probe
def thread_budgets(times: str) -> Figures:
    """8 threads with a budget each; the first runs away, again and again."""
    seeds = range(1, 8)
    expected = [compute(seed) for seed in seeds]
    hits: list[str] = []
    wrong: list[str] = []
    ended = threading.Event()
    rounds = [0] * 8
    start = threading.Barrier(8)

    def runs_away() -> None:
        start.wait()
        for _ in range(int(times)):
            kept = []
            try:
                with zmalloc.budget(BUDGET, thread=True):
                    while True:
                        kept.append([0] * 10)
            except MemoryError as error:
                hits.append(type(error).__name__)
        ended.set()

    def computes(n: int) -> None:
        start.wait()
        try:
            while not ended.is_set() or rounds[n] < 5:
                with zmalloc.budget(BUDGET, thread=True):
                    if compute(seeds[n - 1]) != expected[n - 1]:
                        wrong.append(f"thread {n}: a wrong result")
                rounds[n] += 1
        except BaseException as error:
            wrong.append(f"thread {n}: {type(error).__name__} {error}")

    threads = [threading.Thread(target=runs_away)]
    threads += [threading.Thread(target=computes, args=(n,)) for n in range(1, 8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return {"hits": hits, "wrong": wrong, "rounds": sum(rounds)}


# ---- garbage and churn ---------------------------------------------------------------------------


def fill(live: list[list[int]], size: int) -> None:
    """Live data up to so many bytes of used()."""
    while zmalloc.used() < size:
        live.append([0] * 100)


def in_main_or_worker(where: str, work: Callable[[], None]) -> None:
    if where == "main":
        work()
        return
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@probe
def garbage(mebibytes: str, percent: str, where: str, collector: str, size: str) -> Figures:
    """Makes cyclic garbage, four times the limit of it, beside live data."""
    n = int(mebibytes) << 20
    live: list[list[int]] = []
    got: list[str] = []
    if collector == "disabled":
        gc.disable()

    def litter() -> None:
        payload = int(size)
        for _ in range(4 * n // (payload + 150)):
            cycle: list[Any] = [bytes(payload)]
            cycle.append(cycle)

    def work() -> None:
        try:
            with zmalloc.limit(n):
                litter()
        except MemoryError as error:
            got.append(f"{type(error).__name__} {error}")

    fill(live, int(n * float(percent) / 100))
    begin = time.process_time()
    in_main_or_worker(where, work)
    return {
        "got": got,
        "seconds": time.process_time() - begin,
        "collections": zmalloc.stats().collections,
    }


@probe
def churn(mebibytes: str, percent: str, kind: str, capped: str) -> Figures:
    """Replaces live data by new, which takes as much; `cyclic` leaves garbage for the collector."""
    live: list[list[Any]] = []
    n = int(mebibytes) << 20
    fill(live, int(n * float(percent) / 100))
    choose = random.Random(1)
    end = "success"
    begin = time.process_time()
    try:
        with zmalloc.limit(n if capped == "capped" else 1 << 40):
            for _ in range(n // 128):
                new: list[Any] = [0] * 100
                if kind == "cyclic":
                    new[0] = new
                live[int(choose.random() * len(live))] = new
    except MemoryError as error:
        end = type(error).__name__
    seconds = time.process_time() - begin
    return {"end": end, "seconds": seconds, "collections": zmalloc.stats().collections}


# ---- what a far limit costs, and the end of a process --------------------------------------------


@probe
def work(capped: str) -> Figures:
    """An allocation-bound program, for callgrind."""
    if capped == "capped":
        zmalloc.limit(1 << 40)

    def tree(n: int) -> Any:
        return (tree(n - 1), tree(n - 1)) if n else None

    for _ in range(3):
        tree(10)
    words: dict[str, int] = {}
    for n in range(3000):
        for word in f"the quick brown fox {n} jumps".upper().split():
            words[word] = words.get(word, 0) + 1
    nodes = [{"id": n, "tags": [n, str(n)], "at": n * 0.5} for n in range(3000)]
    buffers = [bytearray(n % 900) + b"x" * (n % 700) for n in range(3000)]
    return {"made": len(words) + len(nodes) + len(buffers)}


@probe
def daemons() -> Figures:
    """Ends while 100 daemon threads run into a sealed cap, again and again.

    They rest after each error: beside 100 threads that never wait CPython itself takes up to a
    minute to end, as each time that the main thread lets go of the interpreter lock costs a round
    of them all.
    """
    gate = threading.Event()
    hit = [False] * 100

    def run_for_ever(n: int) -> None:
        kept: list[Any] = []
        gate.wait()
        while True:
            try:
                while True:
                    kept.append([0] * 100)
            except MemoryError:
                hit[n] = True
                kept.clear()
            try:
                time.sleep(0.3)
            except MemoryError:
                kept.clear()

    for n in range(100):
        threading.Thread(target=run_for_ever, args=(n,), daemon=True).start()
    print(json.dumps({"ended": True}), flush=True)  # at the cap there may be no memory for it
    zmalloc.limit(zmalloc.used() + (16 << 20), seal=True)
    for _ in range(2000):
        with contextlib.suppress(MemoryError):
            gate.set()
            time.sleep(0.01)
            if hit.count(True) > 20:
                sys.exit(0)
    os._exit(3)


def main(arguments: list[str]) -> int:
    name, *rest = arguments[1:]
    print(json.dumps(PROBES[name](*rest)), flush=True)
    return 0
