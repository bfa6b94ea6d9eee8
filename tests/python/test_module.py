"""The C module itself: made again as in an interpreter that is not the first, and refused."""

from __future__ import annotations

from .processes import snippet

MAKE = """
import gc, weakref, zmalloc
from importlib import util
from zmalloc import _core
spec = _core.__spec__
def make():
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""


def test_a_module_that_nobody_needs_any_more_is_gone_with_its_types() -> None:
    snippet(
        MAKE
        + """
for i in range(8):
    module = make()
    assert sorted(vars(module)) == sorted(vars(_core))
    with module.budget("1 GiB") as b, module.exempt():
        assert type(b) is module.Budget is not _core.Budget
    types = [value for value in vars(module).values() if type(value) is type]
    gone = [weakref.ref(one) for one in (module, *types)]
    assert len(gone) > 8
    del module, types, b
    gc.collect()
    assert not any(one() for one in gone), gone
    if i == 2:
        before = zmalloc.used()
assert zmalloc.used() - before < 10_000
"""
    )


def test_each_request_of_making_the_module_may_be_refused() -> None:
    requests, failures, kept = snippet(
        MAKE
        + """
make()
gc.collect()
before, failures, n = zmalloc.used(), 0, 0
while True:
    fault, error = zmalloc.fail_after(n), None
    try:
        with fault:
            make()
    except MemoryError as e:
        error = e.with_traceback(None)
        failures += 1
    if not fault.failed:
        break
    n += 1
assert error is None
del error, fault
gc.collect()
seen = zmalloc.audit()
assert seen.used == seen.counted
print((n, failures, zmalloc.used() - before))
"""
    ).value
    assert failures > 100
    assert failures > requests / 2
    assert kept < 300 * requests, "CPython itself keeps some of a type that is refused"
