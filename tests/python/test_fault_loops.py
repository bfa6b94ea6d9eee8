"""The quick form of fault_loops.py, and that it sees what it is for."""

from __future__ import annotations

import json
from pathlib import Path

from .processes import python, snippet

LOOPS = Path(__file__).with_name("fault_loops.py")


def test_each_public_name_survives_each_request_that_fails() -> None:
    """A name of the package without a load is a difference, too."""
    outcome = python(LOOPS, "--quick")
    seen = json.loads(outcome.out.splitlines()[-1])
    assert (outcome.status, seen["what"]) == (0, [])
    assert outcome.err == ""
    assert seen["faults"] > 1000
    assert seen["errors"] > 1000


def test_an_install_that_ends_well_will_see_numpy_come() -> None:
    """Would catch one that takes a refusal for a sys.meta_path that is not there."""
    found = snippet("""
        import sys, zmalloc
        def watchers():
            return sum(type(finder).__name__ == "ImportWatcher" for finder in sys.meta_path)
        zmalloc.install()
        found = []
        for n in range(200):
            sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ImportWatcher"]
            error = None
            with zmalloc.fail_after(n) as fault:
                try:
                    zmalloc.install()
                except MemoryError as caught:
                    error = "MemoryError"
            found.append((error, watchers()))
            if not fault.failed:
                break
        print(found)
    """).value
    assert set(found) == {("MemoryError", 0), (None, 1)}
