"""The fixture ``memory``: figures of the running test, for assertions inside of it."""

from __future__ import annotations

import pytest
import zmalloc
from zmalloc._plugin.window import WINDOW, Window, clear_caches


class Memory:
    """What the test has taken since its start, in bytes.

    Of the thread that runs it, less what that thread has freed itself; of the whole process after
    ``reset(threads="all")`` or with the marker ``memory_threads("all")``. Figures are exact;
    reading them takes nothing that they would count. Outside of the test's call they are 0.
    """

    def __init__(self, item: pytest.Item, all_threads: bool) -> None:
        self._item = item
        self._all_threads = all_threads
        self._track: zmalloc.Track | None = None

    def __repr__(self) -> str:
        return f"<memory of {'all threads' if self._all_threads else 'this thread'}>"

    def _begin(self, window: Window) -> None:
        self._track = window.track(self._all_threads)

    def begin_round(self, window: Window) -> None:
        """Begins anew, and leaves nothing of the round before behind."""
        window.end_further()
        self.reset()

    @property
    def used(self) -> int:
        """Bytes held beyond the start, once the garbage is collected and CPython's free lists are
        empty.

        Below 0 where more was freed than taken.
        """
        clear_caches()
        return self._track.net if self._track else 0

    @property
    def peak(self) -> int:
        """The most that ``used`` was since the start."""
        return self._track.peak if self._track else 0

    @property
    def allocations(self) -> int:
        """Blocks taken since the start; a resize is none."""
        return self._track.allocations if self._track else 0

    def reset(self, threads: str | None = None) -> None:
        """All figures begin anew at 0: of "this" thread, or of "all". A ValueError names another
        value; a RuntimeError says that no test is running.
        """
        if threads not in (None, "this", "all"):
            raise ValueError(f'threads={threads!r} is not known: "this" or "all"')
        window = self._item.stash.get(WINDOW, None)
        if window is None or self._track is None:
            raise RuntimeError("memory.reset() works inside the test, whose call has not begun")
        if threads is not None:
            self._all_threads = threads == "all"
        track = zmalloc.track(thread=not self._all_threads)
        enter = track.__enter__
        window.further.append((track, enter))  # nothing of it is to be freed while it counts
        self._track = track
        clear_caches()
        enter()

    def budget(self, size: int | str) -> zmalloc.Budget:
        """For a with statement: at most size bytes more than at its entry, of the threads that are
        measured. What passes it is a zmalloc.LimitError on the line that asked.
        """
        return zmalloc.budget(size, thread=not self._all_threads)


def read(window: Window) -> None:
    """All that reads, once: see Preparer.warm()."""
    memory = Memory(window.item, all_threads=True)
    memory._begin(window)
    _ = memory.used, memory.peak, memory.allocations
