"""A progress bar on stderr where that is a terminal, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def bar(total: int) -> Iterator[Callable[[str], None]]:
    """Gives a function to call before each of `total` steps, with what is to be shown of it."""
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("", total=total)
        begun = 0

        def step(what: str) -> None:
            nonlocal begun
            shown.update(task, description=what, completed=begun)
            begun += 1

        yield step
        shown.update(task, completed=total)
