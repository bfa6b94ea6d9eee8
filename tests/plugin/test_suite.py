"""For a suite: the report, JSON, junit xml, and the baseline."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from .conftest import Runner

SOURCE = """
    import pytest

    def test_small():
        pass

    def test_large():
        kept = bytearray(2_000_000)
        len(kept)

    def test_middle():
        kept = bytearray(1_000_000)
        len(kept)

    def test_fails():
        kept = bytearray(500_000)
        raise ValueError(len(kept))

    @pytest.mark.skip
    def test_skipped():
        pass
"""


def test_the_report_shows_the_highest_peaks_with_bars(suite: Runner) -> None:
    run = suite(SOURCE, "--memory-report=2")
    start = next(i for i, line in enumerate(run.lines) if "= memory: " in line)
    title, head, first, second, end = run.lines[start : start + 5]
    assert re.fullmatch(r"=+ memory: the 2 highest peaks of 4 tests =+", title)
    assert re.fullmatch(r" +peak +stays +test", head)
    assert re.fullmatch(r" +1\.9 MiB +-?[\d.]+ K?i?B  █{24}  test_it\.py::test_large", first), first
    assert re.fullmatch(
        r" *976\.\d KiB +-?[\d.]+ K?i?B  █{12} {12}  test_it\.py::test_middle", second
    )
    assert end.startswith("===")


def test_ten_are_shown_unless_told(suite: Runner) -> None:
    run = suite("""
        import pytest
        @pytest.mark.parametrize("n", range(12))
        def test_n(n):
            kept = bytearray(n * 10_000)
            len(kept)
    """, "--memory-report")  # fmt: skip
    shown = [line for line in run.lines if line.endswith("]") and "test_n[" in line]
    assert [line.split("[")[1] for line in shown] == [f"{n}]" for n in range(11, 1, -1)]
    assert "the 10 highest peaks of 12 tests" in run.text


def test_a_report_of_nothing_says_so(suite: Runner) -> None:
    run = suite("import pytest\n@pytest.mark.skip\ndef test_it(): pass\n", "--memory-report")
    assert "memory: no test was measured" in run.text


def test_bars_where_the_terminal_knows_no_blocks(
    suite: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    run = suite(SOURCE, "--memory-report=1")
    assert re.search(r"1\.9 MiB +\S+ K?i?B  #{24}  test_it\.py::test_large", run.text)


def test_json_has_the_figures_of_each_test(suite: Runner) -> None:
    run = suite(SOURCE, "--memory-json=memory.json")
    content = run.json()
    assert content["python"] == sys.version.split()[0]
    tests = content["tests"]
    assert list(tests) == [
        f"test_it.py::test_{name}" for name in ("fails", "large", "middle", "small")
    ]
    assert tests["test_it.py::test_fails"]["outcome"] == "failed"
    large = tests["test_it.py::test_large"]
    assert large["outcome"] == "passed"
    assert large["used"] == 0
    assert 2_000_057 <= large["peak"] < 2_001_000
    assert 0 < large["allocations"] < 20
    assert tests["test_it.py::test_small"] == {
        "outcome": "passed", "used": 0, "peak": 0, "allocations": 0,
    }  # fmt: skip


def test_junit_xml_has_them_as_properties(suite: Runner, own: Path) -> None:
    run = suite(SOURCE, "--memory-json=memory.json", "--junitxml=junit.xml")
    tests = run.json()["tests"]
    found = {}
    for case in ElementTree.parse(own / "junit.xml").iter("testcase"):
        properties = {p.get("name"): p.get("value") for p in case.iter("property")}
        found[f"test_it.py::{case.get('name')}"] = properties
    for name, figures in tests.items():
        assert found[name] == {
            f"memory_{key}": str(figures[key]) for key in ("used", "peak", "allocations")
        }
    assert found["test_it.py::test_skipped"] == {}


def test_junit_xml_has_those_of_marked_tests_without_an_option(suite: Runner, own: Path) -> None:
    suite("""
        import pytest
        @pytest.mark.memory_peak("1 MiB")
        def test_marked(): pass
        def test_other(): pass
    """, "--junitxml=junit.xml")  # fmt: skip
    xml = (own / "junit.xml").read_text(encoding="utf-8")
    assert xml.count('name="memory_peak"') == 1


BASE = """
    def test_grows():
        kept = bytearray({size})
        len(kept)

    def test_stays():
        kept = bytearray(100_000)
        len(kept)
"""


def test_the_baseline_fails_what_has_grown(suite: Runner, own: Path) -> None:
    first = suite(BASE.format(size=100_000), "--memory-baseline=base.json", "--memory-update")
    assert first.counts == {"passed": 2}
    assert f"peaks of 2 tests written to {own / 'base.json'}" in first.lines
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    content = json.loads((own / "base.json").read_text(encoding="utf-8"))
    assert content["format"] == "zmalloc baseline"
    assert list(content["peaks"][python]) == ["test_it.py::test_grows", "test_it.py::test_stays"]

    assert suite(None, "--memory-baseline=base.json").counts == {"passed": 2}
    assert suite(
        BASE.format(size=105_000), "--memory-baseline=base.json"
    ).counts == {"passed": 2}, "10 % are tolerated"
    grown = suite(BASE.format(size=150_000), "--memory-baseline=base.json")
    assert grown.counts == {"failed": 1, "passed": 1}
    assert re.match(
        r"memory baseline: the peak has grown from 97\.\d KiB \(100,\d+ B\) to 146\.\d KiB "
        r"\(150,\d+ B\); 10% more is tolerated$",
        grown.told("test_grows"),
    ), grown.text
    for tolerance, failed in (("0 B", 1), ("49 KiB", 0), ("20 KB", 1), ("60%", 0)):
        run = suite(None, "--memory-baseline=base.json", f"--memory-tolerance={tolerance}")
        assert run.counts.get("failed", 0) == failed, tolerance


def test_the_baseline_names_what_it_does_not_know_and_keeps_what_was_not_run(
    suite: Runner, own: Path
) -> None:
    suite(BASE.format(size=100_000), "--memory-baseline=base.json", "--memory-update")
    more = BASE.format(size=100_000) + "\n    def test_new(): pass\n"
    run = suite(more, "--memory-baseline=base.json")
    assert run.counts == {"passed": 3}
    assert (
        "not in it, so not compared (--memory-update adds them): test_it.py::test_new" in run.lines
    )
    suite(more, "--memory-baseline=base.json", "--memory-update", "-k", "new")
    content = json.loads((own / "base.json").read_text(encoding="utf-8"))
    (peaks,) = content["peaks"].values()
    assert list(peaks) == [f"test_it.py::test_{n}" for n in ("grows", "new", "stays")]
    content["peaks"] = {"2.7": {}}
    (own / "base.json").write_text(json.dumps(content), encoding="utf-8")
    run = suite(None, "--memory-baseline=base.json")
    assert run.status == 4
    assert re.search(
        r"--memory-baseline: '.*base\.json' has no peaks of Python 3\.\d+, only of 2\.7: add them "
        r"with --memory-update",
        run.err,
    )


def test_failed_tests_do_not_get_into_the_baseline(suite: Runner, own: Path) -> None:
    suite(SOURCE, "--memory-baseline=base.json", "--memory-update")
    (peaks,) = json.loads((own / "base.json").read_text(encoding="utf-8"))["peaks"].values()
    assert "test_it.py::test_fails" not in peaks
    assert len(peaks) == 3


def test_nothing_is_measured_where_nothing_asks(suite: Runner) -> None:
    run = suite("""
        def test_it(request):
            assert not request.config.pluginmanager.hasplugin("zmalloc-measuring")
            assert request.node.user_properties == []
    """)
    assert run.counts == {"passed": 1}
