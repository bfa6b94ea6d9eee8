"""`with` in its many forms: the error has to pass each __exit__ on its way."""

from __future__ import annotations

import contextlib
import decimal
import io
import threading
from collections.abc import Iterator
from typing import Any

from . import Run, load


class Manager:
    """Keeps what its __exit__ got, and allocates while it leaves."""

    def __init__(self, log: list[str], swallow: bool = False) -> None:
        self.log = log
        self.swallow = swallow
        self.got: type[BaseException] | None = None

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, where: Any) -> bool:
        self.got = kind
        self.log.append(f"left {len(self.log)}")
        return self.swallow


@load("context_managers.class", gets="handler")
def class_(run: Run) -> None:
    kept = []
    manager = Manager([], swallow=True)
    with manager:
        while True:
            kept.append([0] * 10)
    run.kind = manager.got


@load("context_managers.nested", gets="handler")
def nested(run: Run) -> None:
    kept = []
    log: list[str] = []
    one, two, three = Manager(log, swallow=True), Manager(log), Manager(log)
    with one, two, three:
        while True:
            kept.append([0] * 10)
    if two.got is not one.got or three.got is not one.got:
        run.wrong = f"the managers got {three.got}, {two.got}, {one.got}"
    run.kind = one.got


@load("context_managers.generator", gets="handler")
def generator(run: Run) -> None:
    @contextlib.contextmanager
    def guarded() -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            run.kind = type(error)
        finally:
            run.reached = True

    kept = []
    with guarded():
        while True:
            kept.append([0] * 10)
    if not run.reached:
        run.wrong = "the finally block did not run"


@load("context_managers.exit_stack", gets="handler")
def exit_stack(run: Run) -> None:
    left = [0]

    def leave(kind: type[BaseException] | None, error: Any, where: Any) -> None:
        left[0] += 1

    entered = 0
    try:
        with contextlib.ExitStack() as stack:
            while True:
                stack.push(leave)
                entered += 1
                stack.callback([].append, [0] * 20)
    except MemoryError as error:
        run.kind = type(error)
    # the error may land behind the push and before the count
    if not entered <= left[0] <= entered + 1:
        run.wrong = f"{entered} were entered, {left[0]} left"


@load("context_managers.suppress", gets="handler")
def suppress(run: Run) -> None:
    kept = []
    with contextlib.suppress(MemoryError):
        while True:
            kept.append([0] * 10)
    run.kind = MemoryError  # suppress() does not tell which


@load("context_managers.lock", gets="handler")
def lock(run: Run) -> None:
    kept = []
    guard = threading.Lock()
    try:
        with guard:
            while True:
                kept.append([0] * 10)
    except MemoryError as error:
        run.kind = type(error)
    if guard.locked():
        run.wrong = "the lock is still held"


@load("context_managers.lock_taken_often", gets="handler")
def lock_taken_often(run: Run) -> None:
    kept = []
    guard = threading.RLock()
    try:
        while True:
            with guard:
                kept.append([0] * 10)
    except MemoryError as error:
        run.kind = type(error)
    taken: list[bool] = []
    other = threading.Thread(target=lambda: taken.append(guard.acquire(timeout=5)))
    kept.clear()
    other.start()
    other.join()
    if taken != [True]:
        run.wrong = "the lock is still held"


@load("context_managers.redirected", gets="handler")
def redirected(run: Run) -> None:
    import sys

    before = sys.stdout
    kept = []
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            while True:
                print("a line", len(kept))
                kept.append([0] * 10)
    except MemoryError as error:
        run.kind = type(error)
    if sys.stdout is not before:
        run.wrong = "stdout is still redirected"
        sys.stdout = before


@load("context_managers.local_context", gets="handler")
def local_context(run: Run) -> None:
    before = decimal.getcontext().prec
    kept = []
    try:
        with decimal.localcontext() as context:
            context.prec = 50
            while True:
                kept.append(decimal.Decimal(len(kept)) / 7)
    except MemoryError as error:
        run.kind = type(error)
    if decimal.getcontext().prec != before:
        run.wrong = "the precision was not put back"


@load("context_managers.enter_in_a_loop", gets="handler")
def enter_in_a_loop(run: Run) -> None:
    """What each __enter__ has taken its __exit__ gives back, also of the last."""
    depth = [0]

    class Counted:
        def __enter__(self) -> None:
            depth[0] += 1

        def __exit__(self, *error: object) -> None:
            depth[0] -= 1

    kept = []
    try:
        while True:
            with Counted():
                kept.append([0] * 10)
    except MemoryError as error:
        run.kind = type(error)
    # between __enter__'s last line and the block there is a safe point that no `with` covers
    if depth[0] not in (0, 1):
        run.wrong = f"{depth[0]} were not left"
