"""The pytest plugin: loaded by the entry point ``pytest11``, or by ``-p zmalloc``.

It measures only when a marker, a fixture or an option asks. docs/pytest.md is its manual. What
measures and reports is imported when it is asked for, and not before: a suite that asks for nothing
pays for the counting only.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest
import zmalloc
from zmalloc._plugin import plan, sizes
from zmalloc._plugin.plan import PLAN

if TYPE_CHECKING:
    from zmalloc._plugin.baseline import Baseline
    from zmalloc._plugin.faults import FailAllocation
    from zmalloc._plugin.measuring import Measuring
    from zmalloc._plugin.tracker import Memory

DEFAULT: pytest.StashKey[plan.Plan | None] = pytest.StashKey()
BASELINE: pytest.StashKey[Baseline] = pytest.StashKey()

#: Why counting began too late; set when the plugin is loaded.
_late: str | None = None


# ---- options -------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("memory", "memory (zmalloc)")
    group.addoption(
        "--memory-limit",
        metavar="SIZE",
        help='What the process may hold beyond the start of each test: "64 MiB"; "none": no limit. '
        "The marker memory_limit overrides it.",
    )
    group.addoption(
        "--memory-report",
        metavar="N",
        nargs="?",
        const="10",
        help="Show the N tests (10 unless told) with the highest peaks.",
    )
    group.addoption(
        "--memory-json",
        metavar="FILE",
        help="Write used, peak and allocations of each test to FILE.",
    )
    group.addoption(
        "--memory-baseline",
        metavar="FILE",
        help="Fail tests whose peak is higher than the one in FILE.",
    )
    group.addoption(
        "--memory-tolerance",
        metavar="SIZE",
        default="10%",
        help='What a peak may be higher by: "64 KiB", or "10%%" (the default) of the one in FILE.',
    )
    group.addoption(
        "--memory-update",
        action="store_true",
        help="Write the peaks of this run into the file of --memory-baseline, and compare nothing.",
    )
    parser.addini(
        "memory_limit", "What the process may hold beyond the start of each test.", default=""
    )
    global _late
    _late = _lateness(pluginmanager)
    _take_both_names(pluginmanager)


def _take_both_names(pluginmanager: pytest.PytestPluginManager) -> None:
    """The plugin is one, whether the entry point, -p or a conftest.py's pytest_plugins names it."""
    module = sys.modules[__name__]
    if pluginmanager.get_name(module) == "zmalloc":
        pluginmanager.register(object(), __name__)
    else:
        pluginmanager.set_blocked("zmalloc")


def _lateness(pluginmanager: pytest.PytestPluginManager) -> str | None:
    """Why what was imported before is not counted, or None."""
    for module in pluginmanager.get_plugins():
        path = getattr(module, "__file__", None) or ""
        if path.endswith("conftest.py"):
            return (
                f"zmalloc was loaded after {path}: what that had imported and made before is not "
                'counted, so nothing about memory is asserted. Load zmalloc first: "-p zmalloc" '
                "on the command line or in addopts"
            )
    return None


def _read_limit(config: pytest.Config) -> int | None:
    for value, what in (
        (config.getoption("memory_limit"), "--memory-limit"),
        (config.getini("memory_limit"), "memory_limit"),
    ):
        if value:
            return None if value.lower() == "none" else _size(value, what)
    return None


def _size(value: str, what: str) -> int:
    try:
        return sizes.parse(int(value) if value.isdecimal() else value, what)
    except (ValueError, OverflowError) as error:
        raise pytest.UsageError(str(error)) from None


def _read_count(config: pytest.Config) -> int:
    text = config.getoption("memory_report")
    if text is None:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise pytest.UsageError(
            f"--memory-report={text!r} is no count: at least 1. It takes what stands behind it: "
            "put the paths first"
        )
    return int(text)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in plan.MARKERS:
        config.addinivalue_line("markers", marker)
    count = _read_count(config)
    json_file = config.getoption("memory_json")
    baseline = config.getoption("memory_baseline")
    if (json_file or baseline) and zmalloc.mode() != "exact":
        name = "--memory-json" if json_file else "--memory-baseline"
        raise pytest.UsageError(f"{name}: {plan.NEEDS_EXACT}")
    config.stash[DEFAULT] = plan.of_options(
        limit=_read_limit(config),
        is_reported=bool(count or json_file or baseline),
        is_exact=bool(json_file or baseline),
    )
    _configure_baseline(config, baseline)
    if not hasattr(config, "workerinput"):
        _configure_gathering(config, count, json_file, baseline)


def _configure_baseline(config: pytest.Config, path: str | None) -> None:
    if path is None:
        if config.getoption("memory_update"):
            raise pytest.UsageError("--memory-update needs --memory-baseline=FILE")
        return
    from zmalloc._plugin.baseline import Baseline, Tolerance
    from zmalloc._plugin.report import check_folder

    full = check_folder("--memory-baseline", path)
    try:
        tolerance = Tolerance(config.getoption("memory_tolerance"))
    except (ValueError, OverflowError) as error:
        raise pytest.UsageError(str(error)) from None
    if not config.getoption("memory_update"):
        config.stash[BASELINE] = Baseline(full, tolerance)


def _configure_gathering(
    config: pytest.Config, count: int, json_file: str | None, baseline: str | None
) -> None:
    """Where the figures of all tests arrive: not in a worker of xdist."""
    if not (count or json_file or baseline):
        return
    from zmalloc._plugin.baseline import NewTests, Update
    from zmalloc._plugin.report import Gathering, JsonFile, Summary, check_folder

    gathering = Gathering()
    plugins: list[object] = [gathering]
    if count:
        plugins.append(Summary(gathering, count))
    if json_file:
        plugins.append(JsonFile(gathering, check_folder("--memory-json", json_file)))
    if baseline and config.getoption("memory_update"):
        plugins.append(Update(check_folder("--memory-baseline", baseline), gathering))
    elif baseline:
        plugins.append(NewTests(config.stash[BASELINE], gathering))
    for plugin in plugins:
        config.pluginmanager.register(plugin)


def pytest_report_header(config: pytest.Config) -> str | None:
    made = config.stash[DEFAULT]
    if made is None or made.limit is None:
        return None
    return f"memory: limit of {sizes.show(made.limit)} for each test"


# ---- collection ----------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    """A wrong marker is an error of what it was collected from."""
    collect = collector.collect

    def checked() -> list[pytest.Item | pytest.Collector]:
        found = list(collect())
        for node in found:
            if isinstance(node, pytest.Item):
                _check(node)
        return found

    collector.collect = checked  # type: ignore[method-assign]
    yield
    collector.collect = collect  # type: ignore[method-assign]


def _check(item: pytest.Item) -> None:
    try:
        plan.make(item, item.config.stash[DEFAULT])
    except plan.Wrong as error:
        raise pytest.Collector.CollectError(str(error)) from None


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Now that all markers are there: those that conftest files have added, too."""
    config = session.config
    if config.option.collectonly:
        return
    measuring: Measuring | None = None
    has_setup = False
    for item in session.items:
        try:
            made = plan.make(item, config.stash[DEFAULT])
        except plan.Wrong as error:
            raise pytest.UsageError(str(error)) from None
        if made is None:
            continue
        item.stash[PLAN] = made
        measuring = measuring or _make_measuring(config)
        measuring.arm(item)
        has_setup = has_setup or made.has_setup
    if measuring is not None:
        config.pluginmanager.register(measuring, "zmalloc-measuring")
        if hasattr(config, "workerinput"):
            from zmalloc._plugin.workers import exempt_receiver

            exempt_receiver(config)
    if has_setup:
        from zmalloc._plugin.measuring import SetupLimits

        config.pluginmanager.register(SetupLimits(), "zmalloc-setup-limits")


def _make_measuring(config: pytest.Config) -> Measuring:
    from zmalloc._plugin.measuring import Measuring

    baseline = config.stash.get(BASELINE, None)
    return Measuring(_late, baseline.judge if baseline else None)


# ---- fixtures ------------------------------------------------------------------------------------


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Memory:
    """What the test has taken since its start: used, peak, allocations, reset(), budget()."""
    from zmalloc._plugin.tracker import Memory

    mark = request.node.get_closest_marker("memory_threads")
    all_threads = mark is not None and request.node.stash[PLAN].all_threads
    return Memory(request.node, all_threads)


@pytest.fixture
def fail_allocation() -> FailAllocation:
    """with fail_allocation(n): the n-th request for memory fails; .each(function) has each fail in
    turn.
    """
    from zmalloc._plugin.faults import FailAllocation

    return FailAllocation()


__all__ = ["fail_allocation", "memory"]
