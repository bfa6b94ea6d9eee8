"""Loads that are wrong on purpose: each has to be found, or the harness bites nobody."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

import zmalloc

from . import Run, load


def run_away() -> None:
    kept = []
    while True:
        kept.append([0] * 10)


@load("broken.well", gets="handler")
def well(run: Run) -> None:
    """Nothing is wrong with it: what the others are compared with."""
    try:
        bytearray(10**10)
    except MemoryError as error:
        run.kind = type(error)


@load("broken.ends_without_an_error")
def ends_without_an_error(run: Run) -> None:
    with contextlib.suppress(MemoryError):
        run_away()


@load("broken.hangs")
def hangs(run: Run) -> None:
    threading.Event().wait()


@load("broken.raises_a_system_error")
def raises_a_system_error(run: Run) -> None:
    raise SystemError("error return without exception set")


@load("broken.recurses_where_it_should_not")
def recurses(run: Run) -> None:
    raise RecursionError


@load("broken.passes_over_its_handler", gets="handler")
def passes_over_its_handler(run: Run) -> None:
    raise MemoryError


@load("broken.passes_over_its_finally", gets="finally")
def passes_over_its_finally(run: Run) -> None:
    raise MemoryError


@load("broken.gets_it_in_another_thread", gets="handler")
def gets_it_in_another_thread(run: Run) -> None:
    def work() -> None:
        raise MemoryError

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    run.kind = MemoryError


class Late:
    def __del__(self) -> None:
        raise KeyError("late")


@load("broken.prints_an_ignored_error")
def prints_an_ignored_error(run: Run) -> None:
    Late()
    bytearray(10**10)


@load("broken.ends_the_process")
def ends_the_process(run: Run) -> None:
    os._exit(0)


@load("broken.crashes")
def crashes(run: Run) -> None:
    os.abort()


@load("broken.goes_over_the_hard_limit")
def goes_over_the_hard_limit(run: Run) -> None:
    run.hard = 1
    bytearray(10**10)


@load("broken.leaves_a_limit")
def leaves_a_limit(run: Run) -> None:
    zmalloc.limit(zmalloc.used() + (1 << 30))
    bytearray(10**10)


@load("broken.breaks_the_json_module")
def breaks_the_json_module(run: Run) -> None:
    import json

    json.loads = lambda text: None  # type: ignore[assignment]
    bytearray(10**10)


@load("broken.breaks_imports")
def breaks_imports(run: Run) -> None:
    class Finder:
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            raise MemoryError

    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
    bytearray(10**10)


@load("broken.ends_with_another_status")
def ends_with_another_status(run: Run) -> None:
    import atexit

    atexit.register(os._exit, 3)
    bytearray(10**10)
