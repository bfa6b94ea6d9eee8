"""The fixture ``fail_allocation``: code whose n-th request for memory fails."""

from __future__ import annotations

from collections.abc import Callable

import zmalloc

#: Requests that a callable may make before fail_allocation.each() gives up.
MOST = 100_000


class FailAllocation:
    """Makes requests of this thread fail: see :func:`zmalloc.fail_after`, which does it."""

    def __call__(self, n: int, *, from_there_on: bool = False) -> zmalloc.FailAfter:
        """For a with statement: the n-th request inside fails, counted from 1; with from_there_on
        all after it, too.

        ``.passed`` and ``.failed`` of what ``with ... as`` gives count the requests. TypeError and
        ValueError name an n that is no count.
        """
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"n={n!r} is no whole number")
        if n < 1:
            raise ValueError(f"n={n!r} is too small: the first request is 1")
        return zmalloc.fail_after(n - 1, -1 if from_there_on else 1)

    def each(
        self,
        function: Callable[[], object],
        *,
        raises: type[BaseException] | tuple[type[BaseException], ...] = MemoryError,
        from_there_on: bool = False,
        check: Callable[[], object] | None = None,
        most: int = MOST,
    ) -> int:
        """Calls the function with its first request failing, then with its second, ... until none
        is left to fail.

        Returns how many there are. A call whose request fails may return as ever, or raise what
        `raises` tells; AssertionError says which request made it raise something else. check() is
        called after each, to look at what the failure has left behind. The function is called once
        before, so that caches are filled; one that makes more than `most` requests is an
        AssertionError.
        """
        function()
        for n in range(1, most + 2):
            error: BaseException | None = None
            with self(n, from_there_on=from_there_on) as fault:
                try:
                    function()
                except BaseException as caught:
                    error = caught
            if error is not None and (fault.failed == 0 or not isinstance(error, raises)):
                if not isinstance(error, Exception) or fault.failed == 0:
                    raise error
                raise AssertionError(
                    f"request {n} failed, and {_name(function)} raised {type(error).__name__}: "
                    f"{error}"
                ) from error
            if fault.failed == 0:
                return n - 1
            del error
            if check is not None:
                check()
        raise AssertionError(f"{_name(function)} makes more than {most:,} requests")


def _name(function: Callable[[], object]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
