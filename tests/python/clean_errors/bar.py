"""A progress bar on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(total: int, title: str) -> Iterator[Callable[[bool], object]]:
    """A bar on a terminal, where rich is installed; yields what to call after each of `total`."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining
    except ImportError:
        yield lambda well: None
        return
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(title, total=total)

        def step(well: bool) -> None:
            nonlocal failed
            failed += not well
            text = f"{title}, {failed} failed" if failed else title
            bar.update(task, advance=1, description=text)

        yield step
