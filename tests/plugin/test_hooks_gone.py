"""Where nothing would be counted a test fails and says so: it never passes silently."""

from __future__ import annotations

import pytest

from .conftest import Runner, needs

GONE = (
    "zmalloc's hooks are not in CPython's allocators: {}. What the test takes cannot be counted, "
    "so nothing about its memory is asserted"
)

SOURCE = """
    import ctypes, pytest
    from saved_allocators import saved

    def take_out():
        for domain, allocator in saved.items():
            ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(allocator))

    def test_before():
        take_out()

    @pytest.mark.memory_peak("1 MiB")
    def test_is_told():
        pass

    @pytest.mark.memory_peak("1 MiB")
    def test_they_are_back():
        kept = bytearray(100_000)
        len(kept)

    @pytest.mark.memory_limit("1 MiB")
    def test_taken_out_inside():
        take_out()

    @pytest.mark.memory_leak("0 B")
    def test_back_again():
        pass

    def test_unmarked():
        take_out()
"""

SAVED = """
    import ctypes, sys
    assert "zmalloc" not in sys.modules

    class Allocator(ctypes.Structure):
        _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "m", "c", "r", "f")]

    saved = {}
    for domain in (1, 2):
        saved[domain] = Allocator()
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(saved[domain]))
"""


def test_hooks_that_another_tool_has_taken_out(
    suite: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that has saved the allocators before zmalloc came puts them back."""
    monkeypatch.setenv("PYTHONPATH", ".")
    run = suite(SOURCE, "-p", "saved_allocators", "-p", "zmalloc", zmalloc=False,
                files={"saved_allocators.py": SAVED})  # fmt: skip
    assert run.counts == {"failed": 2, "passed": 4}, run.text
    assert run.told("test_is_told") == GONE.format(
        "another tool (memray's Tracker, a tracemalloc.stop()) has taken them out before the test"
    )
    assert run.told("test_taken_out_inside") == GONE.format(
        "something in the test (memray's Tracker, a tracemalloc.stop()) has taken them out"
    )


def test_hooks_that_were_never_put_in(suite: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMALLOC_NO_INSTALL", "1")
    run = suite("def test_it(): pass", "--memory-limit=1GiB")
    assert run.counts == {"failed": 1}
    assert run.told("test_it") == GONE.format("ZMALLOC_NO_INSTALL has kept them out")
    assert suite(None).counts == {"passed": 1}, "where nothing asks nothing is told"


def test_a_plugin_that_was_loaded_too_late(suite: Runner) -> None:
    run = suite(
        "def test_it(memory): pass",
        zmalloc=False,
        files={"conftest.py": "pytest_plugins = ['zmalloc.pytest_plugin']\n"},
    )
    assert run.counts == {"failed": 1}
    told = run.told("test_it")
    assert told.startswith("zmalloc was loaded after ")
    assert told.endswith(
        "conftest.py: what that had imported and made before is not counted, so nothing about "
        'memory is asserted. Load zmalloc first: "-p zmalloc" on the command line or in addopts'
    ), told


@pytest.mark.parametrize("name", ["zmalloc", "zmalloc.pytest_plugin"])
def test_it_is_one_plugin_by_whichever_name(
    suite: Runner, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The entry point, -p and a conftest.py may all name it."""
    files = {"conftest.py": "pytest_plugins = ['zmalloc.pytest_plugin']\n"}
    source = "def test_it(memory):\n    assert memory.used == 0\n"
    assert suite(source, "-p", name, zmalloc=False, files=files).counts == {"passed": 1}
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    assert suite(None, "-p", name, zmalloc=False).counts == {"passed": 1}


def test_tracemalloc_in_a_test_does_no_harm(suite: Runner) -> None:
    run = suite("""
        import pytest, tracemalloc

        @pytest.mark.memory_limit("8 MiB")
        def test_it():
            tracemalloc.start()
            kept = bytearray(1000)
            tracemalloc.stop()

        @pytest.mark.memory_limit("1 MiB")
        def test_next():
            bytearray(10**12)
    """)
    assert run.counts == {"failed": 1, "passed": 1}, run.text


@needs("memray")
def test_a_tracker_of_memray_in_a_test(suite: Runner) -> None:
    """It puts back what it found when it began: ours."""
    run = suite("""
        import memray, pytest

        @pytest.mark.memory_limit("64 MiB")
        def test_it(tmp_path):
            with memray.Tracker(tmp_path / "out", trace_python_allocators=True):
                kept = bytearray(1000)
    """)
    assert run.counts == {"passed": 1}, run.text
