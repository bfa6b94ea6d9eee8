"""asyncio: an error must neither stop the loop for ever nor lose a wake-up.

An error that lands in asyncio's own frames breaks more than the script (upstream's code is not
written for it). Each of these ends by itself once an error has come: one that does not is a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from . import Run, load

#: A first event loop takes some tens of kB before any coroutine runs, and leaves most of them.
ROOM = 200_000


@load("asyncio.runaway_coroutine")
def runaway_coroutine(run: Run) -> None:
    async def grow() -> None:
        kept = []
        while True:
            kept.append([0] * 10)

    asyncio.run(grow())


@load("asyncio.tiny_tasks", slow=True, leaves=True)
def tiny_tasks(run: Run) -> None:
    """So many that cancelling them at the end takes memory, too."""

    async def wait(gate: asyncio.Event) -> None:
        await gate.wait()

    async def main() -> None:
        gate = asyncio.Event()
        tasks = []
        while True:
            tasks.append(asyncio.create_task(wait(gate)))
            await asyncio.sleep(0)

    asyncio.run(main())


@load("asyncio.tasks", gets="handler", least=ROOM)
def tasks(run: Run) -> None:
    """A handler in main and one in each task; whichever gets the error, all tasks end."""
    kept: list[bytes] = []

    async def wait(gate: asyncio.Event) -> bool:
        try:
            await gate.wait()
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        return True

    async def main() -> None:
        gate = asyncio.Event()
        made = []
        try:
            while run.kind is None:
                made.append(asyncio.create_task(wait(gate)))
                kept.append(bytes(run.step * 2))
                await asyncio.sleep(0)
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        gate.set()
        for task in made:
            with contextlib.suppress(MemoryError):  # of one that had not come to its handler
                await task

    asyncio.run(main())


@load("asyncio.tasks_that_hold", least=ROOM, leaves=True)
def tasks_that_hold(run: Run) -> None:
    """No handler, and nothing is free before asyncio.run() has cancelled the last task.

    If the error comes there the loop is not closed, and lives on.
    """

    async def wait(gate: asyncio.Event) -> int:
        held = bytes(run.step)
        await gate.wait()
        return len(held)

    async def main() -> None:
        gate = asyncio.Event()
        made = []
        while True:
            made.append(asyncio.create_task(wait(gate)))
            await asyncio.sleep(0)

    asyncio.run(main())


@load("asyncio.gather", gets="handler", least=ROOM)
def gather(run: Run) -> None:
    async def grow(n: int) -> int:
        held = []
        try:
            while run.kind is None:
                held.append(bytes(run.step))
                await asyncio.sleep(0)
        except MemoryError as error:
            run.kind = type(error)
        return n

    async def main() -> None:
        results = await asyncio.gather(*(grow(n) for n in range(20)))
        if results != list(range(20)):
            run.wrong = f"the results are {results}"

    asyncio.run(main())


@load("asyncio.queues", gets="handler", least=ROOM)
def queues(run: Run) -> None:
    """Whoever gets the error, all others still get what was promised to them."""
    kept: list[bytes] = []

    async def produce(queue: asyncio.Queue[Any]) -> None:
        try:
            while run.kind is None:
                await queue.put(bytes(run.step))
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        await queue.put(None)

    async def consume(queue: asyncio.Queue[Any]) -> bool:
        try:
            while (item := await queue.get()) is not None:
                kept.append(item)
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
            while await queue.get() is not None:
                pass
        return True

    async def main() -> None:
        pairs = [asyncio.Queue(maxsize=3) for _ in range(5)]
        consumers = [asyncio.create_task(consume(queue)) for queue in pairs]
        producers = [asyncio.create_task(produce(queue)) for queue in pairs]
        if not all(await asyncio.gather(*consumers)):
            run.wrong = "a consumer did not end well"
        await asyncio.gather(*producers)

    asyncio.run(main())


@load("asyncio.streams", gets="handler", least=ROOM)
def streams(run: Run) -> None:
    """Two streams over a pair of sockets; one echoes, the other keeps what comes back."""
    kept: list[Any] = []

    def ended_early() -> None:
        if run.kind is None:
            run.wrong = "the stream ended early"

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        except ConnectionError:
            ended_early()
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while run.kind is None:
                writer.write(b"x" * 4096)
                kept.append((await reader.readexactly(4096), bytes(run.step)))
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        except (asyncio.IncompleteReadError, ConnectionError):
            ended_early()
        writer.close()

    async def main() -> None:
        one, other = socket.socketpair()
        here = await asyncio.open_connection(sock=one)
        there = await asyncio.open_connection(sock=other)
        await asyncio.gather(echo(*there), talk(*here))

    asyncio.run(main())


@load("asyncio.wake_ups", gets="handler", least=ROOM)
def wake_ups(run: Run) -> None:
    """A token goes round a ring of tasks, each of which grows when it has it."""
    kept: list[bytes] = []

    async def stand(here: asyncio.Event, there: asyncio.Event) -> None:
        try:
            while run.kind is None:
                await here.wait()
                here.clear()
                if run.kind is None:
                    kept.append(bytes(run.step))
                there.set()
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
            there.set()

    async def main() -> None:
        ring = [asyncio.Event() for _ in range(10)]
        made = [stand(ring[n - 1], ring[n]) for n in range(10)]
        ring[0].set()
        await asyncio.gather(*made)

    asyncio.run(main())


@load("asyncio.callbacks", gets="handler", least=ROOM)
def callbacks(run: Run) -> None:
    """What comes before a callback's own handler goes to the loop's, which asyncio provides."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        kept: list[Any] = []

        def end(kind: type[BaseException]) -> None:
            run.kind = kind
            kept.clear()
            if not done.done():
                done.set_result(None)

        def step() -> None:
            try:
                kept.append([0] * (run.step // 8))
                loop.call_soon(step)
            except MemoryError as error:
                end(type(error))

        loop.set_exception_handler(lambda _, context: end(type(context["exception"])))
        loop.call_soon(step)
        await done

    asyncio.run(main())


@load("asyncio.timers", least=ROOM)
def timers(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        while True:
            loop.call_later(1000, print, "never")
            await asyncio.sleep(0)

    asyncio.run(main())


@load("asyncio.unawaited", least=ROOM)
def unawaited(run: Run) -> None:
    """The interpreter warns of each from its destructor, by Python code."""

    async def nothing() -> None:
        pass

    rows = []
    while True:
        rows.append([0] * (run.step // 8))
        nothing()  # type: ignore[unused-coroutine]


@load("asyncio.timeouts", gets="handler", least=ROOM)
def timeouts(run: Run) -> None:
    async def main() -> None:
        kept = []
        try:
            while True:
                gate = asyncio.Event()
                gate.set()
                await asyncio.wait_for(gate.wait(), 50)
                kept.append(bytes(run.step))
        except MemoryError as error:
            run.kind = type(error)

    asyncio.run(main())


@load("asyncio.async_generators", gets="handler", least=ROOM)
def async_generators(run: Run) -> None:
    async def numbers() -> AsyncIterator[list[int]]:
        n = 0
        try:
            while True:
                yield [n] * 10
                n += 1
                if n % 50 == 0:
                    await asyncio.sleep(0)
        finally:
            run.reached = True

    async def main() -> None:
        kept = []
        source = numbers()
        try:
            async for item in source:
                kept.append(item)
        except MemoryError as error:
            run.kind = type(error)
        await source.aclose()  # type: ignore[attr-defined]
        if not run.reached:
            run.wrong = "the generator's finally block did not run"

    asyncio.run(main())


@load("asyncio.locks", gets="handler", least=ROOM)
def locks(run: Run) -> None:
    async def work(lock: asyncio.Lock, gate: asyncio.Semaphore, kept: list[bytes]) -> None:
        try:
            while run.kind is None:
                async with lock, gate:
                    kept.append(bytes(run.step))
                    await asyncio.sleep(0)
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()

    async def main() -> None:
        lock, gate = asyncio.Lock(), asyncio.Semaphore(2)
        kept: list[bytes] = []
        await asyncio.gather(*(work(lock, gate, kept) for _ in range(5)))
        if lock.locked() or gate.locked():
            run.wrong = "a lock is still held"

    asyncio.run(main())


@load("asyncio.worker_threads", spreads=True, gets="handler", least=ROOM)
def worker_threads(run: Run) -> None:
    """The results come back from threads through call_soon_threadsafe."""

    def grow(kept: list[bytes]) -> bool:
        try:
            for _ in range(10):
                kept.append(bytes(run.step // 4))
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()
        return True

    async def work(kept: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        while run.kind is None:
            if not await loop.run_in_executor(None, grow, kept):
                run.wrong = "a result was lost"

    async def guarded(kept: list[bytes]) -> None:
        try:
            await work(kept)
        except MemoryError as error:
            run.kind = type(error)
            kept.clear()

    async def main() -> None:
        kept: list[bytes] = []
        await asyncio.gather(*(guarded(kept) for _ in range(4)))

    asyncio.run(main())


@load("asyncio.task_groups", gets="handler", least=ROOM, since=(3, 11))
def task_groups(run: Run) -> None:
    async def grow() -> None:
        held = []
        while True:
            held.append(bytes(run.step))
            await asyncio.sleep(0)

    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
                for _ in range(10):
                    group.create_task(grow())
        except MemoryError as error:
            run.kind = type(error)
        except Exception as error:  # a group of them
            first = error
            while hasattr(first, "exceptions"):
                first = first.exceptions[0]
            run.kind = type(first)

    asyncio.run(main())


@load("asyncio.async_with", gets="handler", least=ROOM)
def async_with(run: Run) -> None:
    class Guard:
        async def __aenter__(self) -> Guard:
            await asyncio.sleep(0)
            return self

        async def __aexit__(self, kind: Any, error: Any, where: Any) -> bool:
            await asyncio.sleep(0)
            run.kind = kind
            return True

    async def main() -> None:
        kept = []
        async with Guard():
            while True:
                kept.append([0] * 10)

    asyncio.run(main())
