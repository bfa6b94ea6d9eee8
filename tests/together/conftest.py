"""Fixtures of the tests of both languages: every test leaves both as it found them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmalloc

from . import building


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """No account holds anything after a test, Python is uncapped and counted right."""
    gc.collect()
    before, failed = zmalloc.stats(), request.session.testsfailed
    others, used = before.total - before.used, before.used
    del before
    yield
    assert zmalloc.limit() is None, "the test left a limit behind"
    assert zmalloc.is_installed(), "the test left the hooks out"
    if request.session.testsfailed != failed:
        return  # a failed test's traceback is kept
    gc.collect()
    after = zmalloc.stats()
    assert after.total - after.used == others, "the test left bytes in an account"
    assert abs(after.used - used) < 1 << 20, "the test left blocks behind"  # hypothesis keeps some
    seen = zmalloc.audit()
    assert seen.used == seen.counted


@pytest.fixture(scope="session")
def module() -> Path:
    """The Lua module zmalloc.so for Lua 5.4."""
    return building.module()


@pytest.fixture(scope="session")
def other_module() -> Path:
    """One of another version, built in another way."""
    return building.other_module()
