"""One measurement of growth.py in a Python process of its own.

    python bench/growth_worker.py CONTENDER LIVE THREADS HOW SCOPES OPERATIONS

LIVE objects are there, an equal share for each thread. An operation: one of them gives way to a new
one. SCOPES blocks are open meanwhile: HOW is budget, thread or limit. Prints the nanoseconds of CPU
time that an operation takes.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time

import contenders

#: Through the objects in steps of this: far enough that none is near the one before.
STRIDE = 7_919_333


def replace(kept: list[float], operations: int) -> float:
    n, at, value = len(kept), 0, 0.0
    start = time.thread_time()
    for _ in range(operations):
        at = (at + STRIDE) % n
        value += 1.0
        kept[at] = value + 0.5
    return time.thread_time() - start


def scope(how: str) -> contextlib.AbstractContextManager[object]:
    import zmalloc

    if how == "limit":
        return zmalloc.limit(contenders.FAR)
    return zmalloc.budget(contenders.FAR, thread=how == "thread")


def main() -> None:
    contender, how = sys.argv[1], sys.argv[4]
    live, threads, scopes, operations = (int(sys.argv[i]) for i in (2, 3, 5, 6))
    gc.disable()
    seconds = [0.0] * threads
    barrier = threading.Barrier(threads)

    def work(i: int) -> None:
        with contextlib.ExitStack() as inner:
            if contender != contenders.STOCK:
                for _ in range(scopes):
                    inner.enter_context(scope(how))
            kept = [i + 0.5 for i in range(live // threads)]
            barrier.wait()
            seconds[i] = replace(kept, operations // threads)
            barrier.wait()

    with contenders.start(contender):
        workers = [threading.Thread(target=work, args=(i,)) for i in range(1, threads)]
        for one in workers:
            one.start()
        work(0)
        for one in workers:
            one.join()
    print(sum(seconds) * 1e9 / (operations // threads * threads))


if __name__ == "__main__":
    main()
