"""The plugin that measures: registered only for a run in which something asks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator
from typing import Any

import pytest
import zmalloc
from zmalloc._plugin import leaks, sizes
from zmalloc._plugin.plan import PLAN, Leak
from zmalloc._plugin.tracker import Memory, read
from zmalloc._plugin.window import FIGURES, Preparer, Window, fail, plain_call

SETUP_USED: pytest.StashKey[int] = pytest.StashKey()

#: Names of the properties that a report has, and junit xml shows.
PROPERTIES = ("memory_used", "memory_peak", "memory_allocations")


class Measuring:
    """Hooks around the call of each test that has a plan."""

    def __init__(
        self, late: str | None, judge: Callable[[pytest.Item, int], str | None] | None
    ) -> None:
        self._preparer = Preparer(late, read)
        self._judge_baseline = judge

    def arm(self, item: pytest.Item) -> None:
        """Items without a pytest_pyfunc_call are measured around their runtest()."""
        if not _is_pyfunc(item):
            item.runtest = self._around_runtest(item, item.runtest)  # type: ignore[method-assign]

    # ---- hooks ----

    @pytest.hookimpl(
        hookwrapper=True, trylast=True
    )  # the innermost: what others put around is not in it
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, Any, None]:
        if PLAN not in pyfuncitem.stash or not _is_pyfunc(pyfuncitem):
            yield
            return
        function = pyfuncitem.obj
        pyfuncitem.obj = self._around_function(pyfuncitem, function)
        yield
        pyfuncitem.obj = function

    # ---- what stands in for the test's function ----

    def _around_function(
        self, item: pytest.Function, function: Callable[..., object]
    ) -> Callable[..., object]:
        if _is_async(function):
            return self._around_coroutine(item, function)

        def stand_in(**kwargs: Any) -> None:
            __tracebackhide__ = True
            item.obj = function
            self._run(item, function, kwargs)

        return stand_in

    def _around_coroutine(
        self, item: pytest.Function, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        """For plugins that run coroutines themselves: each step of it is in the window."""

        async def stand_in(**kwargs: Any) -> None:
            __tracebackhide__ = True
            item.obj = function
            plan = item.stash[PLAN]
            if plan.leak is not None:
                fail("memory_leak: the plugin that runs this coroutine function runs it only once")
            await _Steps(self, item, function(**kwargs))

        return stand_in

    def _around_runtest(
        self, item: pytest.Item, runtest: Callable[[], object]
    ) -> Callable[[], None]:
        def stand_in() -> None:
            __tracebackhide__ = True
            plan = item.stash[PLAN]
            if plan.leak is not None and isinstance(item, pytest.DoctestItem):
                fail("memory_leak: a doctest cannot be run again and again")
            self._run(item, runtest, {})

        return stand_in

    def open(self, item: pytest.Item) -> Window:
        """A window that is ready. Fails the test where nothing would be counted."""
        __tracebackhide__ = True
        plan = item.stash[PLAN]
        limit = plan.limit
        if limit is not None and SETUP_USED in item.stash:
            limit -= item.stash[SETUP_USED]
            if limit < 1:
                fail(
                    f"memory_limit of {sizes.show(plan.limit or 0)}: the setup has taken all of it"
                )
        self._preparer.prepare(plan.is_exact)
        if plan.is_exact:
            self._preparer.warm(item)
        window = Window(item, plan, limit)
        memory = getattr(item, "funcargs", {}).get("memory")
        if isinstance(memory, Memory):
            memory._begin(window)
        return window

    def _run(
        self, item: pytest.Item, function: Callable[..., object], kwargs: dict[str, Any]
    ) -> None:
        __tracebackhide__ = True
        call, args = plain_call(function, kwargs)
        window = self.open(item)
        try:
            window.run(call, args)
        finally:
            self.close(window)
        caught = getattr(item, "_excinfo", None)
        if caught:  # unittest has recorded what the test raised, and reports that
            try:
                window.note(caught[0].value)
            except pytest.fail.Exception:
                caught.clear()
                raise
            return
        self.judge(window)
        if window.plan.leak is not None:
            self._find_leaks(window, window.plan.leak, functools.partial(call, *args))

    def close(self, window: Window) -> None:
        """Puts the figures into the reports of the test."""
        figures = window.item.stash.get(FIGURES, None)
        if figures is None:
            return
        properties = window.item.user_properties
        if any(name in PROPERTIES for name, _ in properties):  # of an earlier run of this test
            properties[:] = [pair for pair in properties if pair[0] not in PROPERTIES]
        values = (figures.used, figures.peak, figures.allocations)
        properties.extend(zip(PROPERTIES, values, strict=True))

    def judge(self, window: Window) -> None:
        """Fails the test, which has passed, if its memory is not what it was to be."""
        __tracebackhide__ = True
        window.judge()
        if self._judge_baseline is not None:
            text = self._judge_baseline(window.item, window.figures().peak)
            if text:
                fail(text)

    def _find_leaks(self, window: Window, leak: Leak, body: Callable[[], object]) -> None:
        __tracebackhide__ = True
        item = window.item
        memory = getattr(item, "funcargs", {}).get("memory")

        def round_of_body() -> None:
            __tracebackhide__ = True
            if isinstance(memory, Memory):
                memory.begin_round(window)
            body()
            if getattr(item, "_excinfo", None):
                raise _Ended

        try:
            if window.limit is None:
                text = leaks.find(round_of_body, leak)
            else:
                with zmalloc.budget(window.limit):
                    text = leaks.find(round_of_body, leak)
        except _Ended:
            return
        if not zmalloc.is_installed():
            window.judge()
        if text:
            fail(text)


class _Ended(Exception):
    """A round has failed, and unittest has caught it."""


class _Steps:
    """Awaits a coroutine in a window: its steps run where the window's thread is."""

    def __init__(self, measuring: Measuring, item: pytest.Item, coroutine: Any) -> None:
        self._measuring, self._item, self._coroutine = measuring, item, coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        __tracebackhide__ = True
        window = self._measuring.open(self._item)
        try:
            yield from window.steps(self._coroutine)
        finally:
            self._measuring.close(window)
        self._measuring.judge(window)


class SetupLimits:
    """For limits that count from the start of the setup: registered only if there is one."""

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, None]:
        plan = item.stash.get(PLAN, None)
        if plan is None or plan.limit is None or not plan.has_setup:
            yield
            return
        budget = zmalloc.budget(plan.limit)
        error: BaseException | None = None
        with budget:
            outcome = yield
        error = self._judge(budget, plan.limit, outcome)
        item.stash[SETUP_USED] = max(budget.used, 0)
        if error is not None:
            outcome.force_exception(error)

    @staticmethod
    def _judge(budget: zmalloc.Budget, limit: int, outcome: Any) -> BaseException | None:
        if outcome.excinfo is not None:
            return None
        if not budget.hit and budget.peak <= limit:
            return None
        return pytest.fail.Exception(
            f"memory_limit of {sizes.show(limit)}: the setup went over it: the peak was "
            f"{sizes.show_exactly(budget.peak)}",
            pytrace=False,
        )


def _is_pyfunc(item: pytest.Item) -> bool:
    """pytest calls pytest_pyfunc_call for it: a function, and no unittest.TestCase's method."""
    if not isinstance(item, pytest.Function):
        return False
    unittest = sys.modules.get("unittest")
    return unittest is None or not (
        isinstance(item.cls, type) and issubclass(item.cls, unittest.TestCase)
    )


def _is_async(function: object) -> bool:
    import inspect

    return inspect.iscoroutinefunction(function)
