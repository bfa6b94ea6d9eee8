"""Threads: the one that runs away gets the error, the others live on."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import Run, load

#: A thread takes up to 20 kB before it is in its own code, some of these start several.
ROOM = 200_000


class Worker(threading.Thread):
    """A thread that keeps what its work got, and nothing else of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self.work = work
        self.kind: type[BaseException] | None = None
        self.ended = False

    def run(self) -> None:
        try:
            self.work()
        except MemoryError as error:
            self.kind = type(error)
        self.ended = True


def run_away() -> None:
    kept = []
    while True:
        kept.append([0] * 10)


def wait_for_main() -> None:
    """Returns when main is waiting, so that no small request of its own is the one too many."""
    main = threading.main_thread().ident
    assert main is not None
    while not sys._current_frames()[main].f_code.co_filename.endswith("threading.py"):
        time.sleep(0.001)
    time.sleep(0.01)  # from there to where it waits it has a few lines more


@load("threads.worker_while_main_joins", gets="handler", least=ROOM, main_only=True)
def worker_while_main_joins(run: Run) -> None:
    def work() -> None:
        wait_for_main()
        run_away()

    worker = Worker(work)
    worker.start()
    worker.join()
    run.kind = worker.kind


@load("threads.worker_while_main_reads", gets="handler", least=ROOM)
def worker_while_main_reads(run: Run) -> None:
    """main is in a system call that a signal would end."""
    end, other = os.pipe()
    start, begin = os.pipe()

    def work() -> None:
        os.read(start, 1)
        try:
            run_away()
        finally:
            os.write(other, b"x")

    worker = Worker(work)
    worker.start()
    os.write(begin, b"x")
    os.read(end, 1)
    worker.join()
    for one in (end, other, start, begin):
        os.close(one)
    run.kind = worker.kind


#: Where each number leads to: a loop that takes no memory at all.
NEXT = [*range(1, 100), 0]


@load("threads.worker_while_main_is_busy", gets="handler", least=ROOM)
def worker_while_main_is_busy(run: Run) -> None:
    """main has safe points all the time: the worker's error must not be given to it."""
    going = [False]

    def work() -> None:
        while not going[0]:
            pass
        run_away()

    worker = Worker(work)
    worker.start()
    n = 0
    going[0] = True
    while not worker.ended:
        n = NEXT[n]
    worker.join()
    run.kind = worker.kind


@load("threads.main_beside_busy_workers")
def main_beside_busy_workers(run: Run) -> None:
    stop = [False]

    def count() -> None:
        n = 0
        while not stop[0]:
            n = NEXT[n]

    workers = [Worker(count) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        run_away()
    finally:
        stop[0] = True
        for worker in workers:
            worker.join()
            if worker.kind is not None:
                run.wrong = f"a worker got main's {worker.kind.__name__}"


def four_threads(run: Run) -> None:
    """They wait, and run away as soon as main does."""
    gate = threading.Event()

    def work() -> None:
        gate.wait()
        wait_for_main()
        run_away()

    workers = [Worker(work) for _ in range(4)]
    for worker in workers:
        worker.start()
    run.made = gate, workers


@load("threads.four_runaways", gets="handler", before=four_threads, main_only=True)
def four_runaways(run: Run) -> None:
    """Each gets an error in the end, as what one gives back the others take."""
    gate, workers = run.made
    gate.set()
    for worker in workers:
        worker.join()
    kinds = [worker.kind for worker in workers]
    if not all(kinds):
        run.wrong = f"the four got {kinds}"
    run.kind = kinds[0]


def idle_threads(run: Run) -> None:
    """100 of them, before the cap."""
    gate = threading.Event()
    workers = [Worker(gate.wait) for _ in range(100)]
    for worker in workers:
        worker.start()
    run.made = gate, workers


def idle_threads_end_well(run: Run) -> str | None:
    gate, workers = run.made
    gate.set()
    for worker in workers:
        worker.join()
    hit = [worker.kind for worker in workers if worker.kind is not None or not worker.ended]
    return f"idle threads got {hit}" if hit else None


@load("threads.idle_100_beside_a_runaway", before=idle_threads, after=idle_threads_end_well)
def idle_100_beside_a_runaway(run: Run) -> None:
    run_away()


@load("threads.idle_100_beside_a_deep_recursion", before=idle_threads, after=idle_threads_end_well,
      recurses=True)  # fmt: skip
def idle_100_beside_a_deep_recursion(run: Run) -> None:
    def descend(n: int) -> Any:
        return bytearray(run.step * 3), descend(n + 1)

    descend(0)


@load("threads.starting", gets="handler", least=ROOM, thread_may_die=True)
def starting(run: Run) -> None:
    """Threads start all the time while main takes memory; a start that never returns is a hang."""
    kept: list[Any] = []

    def work() -> None:
        kept.append([0] * (run.step // 16))

    last: Worker | None = None
    try:
        while last is None or last.kind is None:
            last = Worker(work)
            last.start()
            last.join()
            kept.append(bytes(run.step))
        run.kind = last.kind
    except MemoryError as error:
        run.kind = type(error)
        kept.clear()
    if last is not None and last.ident is not None:
        last.join()


@load("threads.starting_beside_a_runaway", gets="handler", least=ROOM, thread_may_die=True)
def starting_beside_a_runaway(run: Run) -> None:
    runaway = Worker(run_away)
    runaway.start()
    try:
        while not runaway.ended:
            one = Worker(lambda: [0] * 100)
            one.start()
            one.join()
            run.kind = run.kind or one.kind
    except MemoryError as error:
        run.kind = type(error)
    runaway.join()
    run.kind = runaway.kind or run.kind


@load("threads.starting_and_staying", gets="handler", least=ROOM, thread_may_die=True)
def starting_and_staying(run: Run) -> None:
    """Threads pile up until there is no memory for one more, or 200 are there."""
    gate = threading.Event()
    workers: list[Worker] = []
    kept = []
    try:
        while len(workers) < 200:
            workers.append(Worker(gate.wait))
            workers[-1].start()
            kept.append(bytes(run.step * 3))
        run_away()
    except MemoryError as error:
        run.kind = type(error)
        kept.clear()
    gate.set()
    for worker in workers:
        if worker.ident is not None:
            worker.join()


@load("threads.pool", gets="handler", least=ROOM)
def pool(run: Run) -> None:
    """A job's error comes out of its future; the pool goes on with the next job."""

    def work() -> None:
        kept = []
        try:
            while True:
                kept.append([0] * 10)
        finally:
            kept.clear()  # the future keeps the error, and that this frame

    with ThreadPoolExecutor(4) as executor:
        try:
            futures = [executor.submit(work) for _ in range(8)]
            for future in futures:
                run.kind = type(future.exception())
                if not issubclass(run.kind, MemoryError):
                    run.wrong = f"a job got {run.kind}"
        except MemoryError as error:  # main takes a little, too
            run.kind = type(error)
        if executor.submit(sum, range(10)).result() != 45:
            run.wrong = "the pool's next result is wrong"


@load("threads.pool_map")
def pool_map(run: Run) -> None:
    def make(n: int) -> list[int]:
        return [n] * (run.step // 4)

    with ThreadPoolExecutor(3) as executor:
        kept = []
        while True:
            kept.extend(executor.map(make, range(20)))


@load("threads.queue", gets="handler", least=ROOM)
def queue_(run: Run) -> None:
    """A producer and a consumer, each of which may be hit, and both of which end."""
    line: queue.Queue[bytes] = queue.Queue(maxsize=5)
    kept: list[Any] = []
    ended = threading.Event()

    def consume() -> None:
        try:
            while not ended.is_set():
                try:
                    kept.append((line.get(timeout=0.1), bytes(run.step)))
                except queue.Empty:
                    continue
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        while run.kind is None:
            try:
                line.put(bytes(run.step), timeout=0.1)
            except queue.Full:
                continue
    except MemoryError as error:
        run.kind = type(error)
        kept.clear()
    ended.set()
    consumer.join()


@load("threads.conditions", gets="handler", least=ROOM)
def conditions(run: Run) -> None:
    """Two threads take turns; the error must not leave one of them waiting."""
    turn = threading.Condition()
    state = {"turn": 0}

    def play(me: int, kept: list[bytes]) -> None:
        try:
            while run.kind is None:
                with turn:
                    while state["turn"] != me and run.kind is None:
                        turn.wait()
                    state["turn"] = 1 - me
                    turn.notify_all()
                kept.append(bytes(run.step))
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        with turn:
            state["turn"] = 1 - me
            turn.notify_all()

    kept: list[bytes] = []
    other = threading.Thread(target=play, args=(1, kept))
    other.start()
    play(0, kept)
    other.join()


@load("threads.locals", gets="handler", least=ROOM)
def locals_(run: Run) -> None:
    store = threading.local()

    def work() -> None:
        store.kept = []
        while True:
            store.kept.append([0] * 10)

    workers = [Worker(work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if not all(worker.kind for worker in workers):
        run.wrong = f"the two got {[worker.kind for worker in workers]}"
    run.kind = workers[0].kind


@load("threads.timers", gets="handler", least=ROOM, thread_may_die=True)
def timers(run: Run) -> None:
    kept: list[Any] = []
    hit: list[type[BaseException]] = []

    def work() -> None:
        try:
            kept.append(bytes(run.step * 4))
        except MemoryError as error:
            hit.append(type(error))

    last: threading.Timer | None = None
    try:
        while not hit:
            last = threading.Timer(0, work)
            last.start()
            last.join()
            kept.append(bytes(run.step))
        run.kind = hit[0]
    except MemoryError as error:
        run.kind = type(error)
    kept.clear()
    if last is not None and last.ident is not None:
        last.join()
