"""limit_memory and limit_leaks where pytest-memray is not active."""

from __future__ import annotations

import re

from .conftest import Runner, needs

SOURCE = """
    import pytest, threading

    kept = []

    @pytest.mark.limit_memory("1 MB")
    def test_below():
        block = bytearray(1_000_000)
        len(block)

    @pytest.mark.limit_memory("100 KB")
    def test_above():
        block = bytearray(120_000)
        len(block)

    def in_thread():
        thread = threading.Thread(target=lambda: len(bytearray(1_000_000)))
        thread.start()
        thread.join()

    @pytest.mark.limit_memory("500 KB")
    def test_other_threads_count():
        in_thread()

    @pytest.mark.limit_memory("500 KB", current_thread_only=True)
    def test_or_do_not():
        in_thread()

    def leak(size):
        kept.append(bytearray(size))

    @pytest.mark.limit_leaks("10 KB")
    def test_leaks():
        leak(20_000)

    @pytest.mark.limit_leaks("10 KB")
    def test_small_leaks():
        for _ in range(3):
            leak(2_000)

    @pytest.mark.limit_leaks("10 KB", filter_fn=lambda stack: stack.frames[0].function != "leak")
    def test_filtered():
        leak(20_000)

    @pytest.mark.limit_leaks("10 KB")
    def test_no_leaks():
        block = bytearray(1_000_000)
        len(block)
"""


def test_the_markers_mean_what_they_mean_there(suite: Runner) -> None:
    run = suite(SOURCE, "--strict-markers", plugins=("zmalloc.compat_memray",))
    assert run.counts == {"failed": 3, "passed": 5}, run.text
    assert re.fullmatch(
        r"Test was limited to 100\.0KiB but allocated 117\.\dKiB", run.told("test_above")
    ), run.text
    assert re.fullmatch(
        r"Test was limited to 500\.0KiB but allocated 9[89]\d\.\dKiB",
        run.told("test_other_threads_count"),
    )
    lines = run.told("test_leaks").splitlines()
    assert lines[:3] == [
        "Test was allowed to leak 10.0KiB per location but at least one location leaked more",
        "List of leaked allocations:",
        "    - 19.6KiB allocated here:",
    ]
    assert re.fullmatch(r" {8}leak:\S+test_it\.py:29", lines[3])
    assert re.fullmatch(r" {8}test_leaks:\S+test_it\.py:33", lines[4])


def test_wrong_values_are_collection_errors(suite: Runner) -> None:
    values = {
        'limit_memory("24 MiB")': "limit_memory: limit='24 MiB' is not a size of pytest-memray's",
        'limit_memory("24 MBxyz")': "limit_memory: limit='24 MBxyz' is not a size of",
        "limit_memory(24)": "limit_memory: limit=24 is not a size of pytest-memray's",
        'limit_leaks("x")': "limit_leaks: location_limit='x' is not a size of pytest-memray's",
        'limit_leaks("1 KB", current_thread_only=True)':
            "limit_leaks: current_thread_only=True is not possible without memray",
        'limit_leaks("1 KB", filter_fn=3)': "limit_leaks: filter_fn=3 cannot be called",
    }  # fmt: skip
    files = {
        f"test_{i}.py": f"import pytest\n@pytest.mark.{marker}\ndef test_it(): pass\n"
        for i, marker in enumerate(values)
    }
    run = suite(None, plugins=("zmalloc.compat_memray",), files=files)
    assert run.counts == {"error": len(values)}
    for i, text in enumerate(values.values()):
        assert f"test_{i}.py::test_it: {text}" in run.told(f"ERROR collecting test_{i}.py")


def test_without_the_plugin_it_says_what_it_needs(suite: Runner) -> None:
    run = suite("def test_it(): pass", plugins=("zmalloc.compat_memray",), zmalloc=False)
    assert run.status == 4
    assert "-p zmalloc.compat_memray needs zmalloc's own plugin, too: -p zmalloc" in run.err


@needs("pytest_memray")
def test_where_pytest_memray_is_active_the_markers_are_its_own(
    suite: Runner, monkeypatch: object
) -> None:
    run = suite(
        """
        import pytest

        @pytest.mark.limit_memory("1 MB")
        def test_it():
            block = bytearray(5_000_000)
            len(block)
        """,
        plugins=("memray", "zmalloc.compat_memray"),
    )
    assert run.counts == {"failed": 1}, run.text
    assert "List of allocations:" in run.text
    assert (
        "zmalloc.compat_memray: pytest-memray is active, limit_memory and limit_leaks are its own"
        in run.lines
    )
