"""What is public is run with its requests refused in turn."""

from __future__ import annotations

from .processes import snippet


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
