"""Fixtures of the Python side, and one rule: a test in this process leaves no limit behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import zmalloc


@pytest.fixture(autouse=True)
def leaves_no_limit() -> Iterator[None]:
    """Whatever a test does to this process, it is uncapped and counted correctly afterwards."""
    yield
    assert zmalloc.limit() is None, "the test left a limit behind"
    assert zmalloc.stats().held_limit is None, "the test left a limit on held behind"
    assert zmalloc.is_installed(), "the test left the hooks out"


@pytest.fixture
def steady(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test leaves used() where it was, but for a few objects of the test runner's own."""
    gc.collect()
    before, failed = zmalloc.used(), request.session.testsfailed
    yield
    if request.session.testsfailed != failed:
        return  # a failed test's traceback is kept
    gc.collect()
    assert abs(zmalloc.used() - before) < 64 * 1024, "the test left blocks behind"
    seen = zmalloc.audit()
    assert seen.used == seen.counted
