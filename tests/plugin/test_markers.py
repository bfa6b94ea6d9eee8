"""Markers are registered, and what is wrong with one is told while the tests are collected."""

from __future__ import annotations

import pytest

from .conftest import Runner


def test_the_markers_are_documented_and_known_under_strict_markers(suite: Runner) -> None:
    run = suite("def test_it(): pass", "--markers")
    for name in ("memory_limit(size, setup=False)", "memory_peak(size, min=None, threads=",
                 "memory_leak(size=", "memory_threads(threads)"):  # fmt: skip
        assert any(line.startswith(f"@pytest.mark.{name}") for line in run.lines), run.text
    run = suite("""
        import pytest
        @pytest.mark.memory_limit("1 MiB")
        @pytest.mark.memory_peak("1 MiB")
        @pytest.mark.memory_leak("0 B")
        @pytest.mark.memory_threads("all")
        def test_it(memory): pass
    """, "--strict-markers")  # fmt: skip
    assert run.counts == {"passed": 1}


WRONG = [
    ("memory_limit('24 MXB')", "memory_limit: size='24 MXB' is not a size: expected "),
    ("memory_limit(0)", "memory_limit: size=0 is out of range: expected at least 1 byte"),
    ("memory_limit(1.5)", "memory_limit: size=1.5 has the wrong type, float: expected "),
    ("memory_limit(True)", "memory_limit: size=True has the wrong type, bool: expected "),
    ("memory_limit('200%')", "memory_limit: size='200%' is out of range: expected "),
    ("memory_limit()", 'memory_limit: needs a size, such as "24 MiB", or None for no limit'),
    ("memory_limit('1 MiB', 2)",
     "memory_limit: takes 1 positional argument, 2 were given: '1 MiB', 2"),
    ("memory_limit('1 MiB', size=2)", "memory_limit: size is given twice: '1 MiB' and 2"),
    ("memory_limit('1 MiB', max=2)",
     "memory_limit: there is no argument max=2: it takes size, setup"),
    ("memory_limit('1 MiB', setup=1)", "memory_limit: setup=1 is neither True nor False"),
    ("memory_limit(lambda params: params['n'])",
     "memory_limit: size=<lambda> failed for {}: KeyError: 'n'"),
    ("memory_limit(lambda params: 'much')", "memory_limit: size='much' is not a size: "),
    ("memory_peak()", 'memory_peak: needs a size, such as "24 MiB", or min='),
    ("memory_peak('x')", "memory_peak: size='x' is not a size: "),
    ("memory_peak(min=-1)", "memory_peak: min=-1 is out of range: "),
    ("memory_peak('1 MiB', min='2 MiB')", "memory_peak: min='2 MiB' is more than size='1 MiB'"),
    ("memory_peak('1 MiB', threads='both')",
     'memory_peak: threads=\'both\' is not known: "this" or "all"'),
    ("memory_leak('no')", "memory_leak: size='no' is not a size: "),
    ("memory_leak(rounds=0)", "memory_leak: rounds=0 is too small: at least 1"),
    ("memory_leak(rounds=2.5)", "memory_leak: rounds=2.5 is no whole number"),
    ("memory_leak(warmup=-1)", "memory_leak: warmup=-1 is too small: at least 0"),
    ("memory_threads('x')", 'memory_threads: threads=\'x\' is not known: "this" or "all"'),
]  # fmt: skip


def test_a_wrong_one_is_a_collection_error_that_names_test_and_value(suite: Runner) -> None:
    """A file for each, collected in one run."""
    files = {
        f"test_{i}.py": f"import pytest\n@pytest.mark.{marker}\ndef test_wrong(): pass\n"
        for i, (marker, _) in enumerate(WRONG)
    }
    run = suite(None, files=files)
    assert run.status == 2
    assert run.counts == {"error": len(WRONG)}
    for i, (_, text) in enumerate(WRONG):
        assert f"test_{i}.py::test_wrong: {text}" in run.told(f"ERROR collecting test_{i}.py")


def test_each_wrong_one_is_told_with_its_parameters_and_in_classes(suite: Runner) -> None:
    run = suite("""
        import pytest, unittest

        @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.memory_limit("no"))])
        def test_param(n): pass
    """, files={"test_class.py": """
        import pytest, unittest

        @pytest.mark.memory_limit("none of it")
        class TestClass:
            def test_method(self): pass
    """, "test_unit.py": """
        import pytest, unittest

        class TestUnit(unittest.TestCase):
            @pytest.mark.memory_peak("wrong")
            def test_case(self): pass
    """, "test_module.py": """
        import pytest
        pytestmark = pytest.mark.memory_leak(rounds="many")
        def test_of_the_module(): pass
    """, "test_right.py": "def test_right(): pass"})  # fmt: skip
    assert run.status == 2
    assert run.counts["error"] == 4
    assert "test_it.py::test_param[2]: memory_limit: size='no' is not a size" in run.text
    assert "test_class.py::TestClass::test_method: memory_limit: size='none of it'" in run.text
    assert "test_unit.py::TestUnit::test_case: memory_peak: size='wrong' is not" in run.text
    assert "test_module.py::test_of_the_module: memory_leak: rounds='many' is no whole" in run.text


def test_markers_that_a_conftest_adds_count_and_wrong_ones_are_told(suite: Runner) -> None:
    conftest = """
        import pytest
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker(pytest.mark.memory_limit({size!r}))
    """
    source = "def test_it():\n    x = bytearray(1_000_000)\n    len(x)\n"
    run = suite(source, files={"conftest.py": conftest.format(size="64 KiB")})
    assert run.counts == {"failed": 1}
    run = suite(source, files={"conftest.py": conftest.format(size="64 XB")})
    assert run.status == 4
    assert "ERROR: test_it.py::test_it: memory_limit: size='64 XB' is not a size" in run.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--memory-limit=x",), "--memory-limit='x' is not a size: expected "),
        (("--memory-limit=0",), "--memory-limit=0 is out of range: "),
        (("-o", "memory_limit=5 XB"), "memory_limit='5 XB' is not a size: "),
        (("--memory-report=0",), "--memory-report='0' is no count: at least 1"),
        (("--memory-report=some",), "--memory-report='some' is no count: at least 1"),
        (("--memory-json=no/such/file",), "--memory-json: there is no folder "),
        (("--memory-update",), "--memory-update needs --memory-baseline=FILE"),
        (("--memory-baseline=missing",), "--memory-baseline: cannot read "),
        (("--memory-baseline=test_it.py",), "test_it.py' is no baseline of zmalloc's"),
        (("--memory-baseline=x", "--memory-update", "--memory-tolerance=much"),
         "--memory-tolerance='much' is not a size: expected "),
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(
    suite: Runner, options: tuple[str, ...], text: str
) -> None:
    run = suite("def test_it(): pass", *options)
    assert run.status == 4
    assert text in run.err, run.text + run.err
