"""The same figures to the byte: in each run, alone, in a suite, in any order, under xdist."""

from __future__ import annotations

import collections
import random
from typing import Any

from .conftest import Runner, needs

#: What is looked at; what is around it in a suite leaves garbage, caches and free lists behind.
LOOKED_AT = """
    import pytest, re, json, decimal

    @pytest.mark.memory_peak("64 MiB")
    def test_known():
        block = bytearray(1_000_000)
        rows = [None] * 1000
        more = []
        for n in range(1000, 1100):  # no comprehension: 3.10 keeps the frame of its first call
            more.append([n])

    def test_memory(memory):
        block = bytearray(1_000_000)
        rows = [None] * 1000
        assert memory.used == 1_000_057 + 8_056
        print("FIGURE", memory.peak)

    class TestClass:
        @pytest.mark.memory_limit("64 MiB")
        @pytest.mark.parametrize("n", [10, 20])
        def test_method(self, n):
            kept = [bytearray(100), bytearray(n * 1000)]
"""

AROUND = """
    @pytest.mark.parametrize("n", range(15))
    def test_around(n):
        cycle = [n]
        cycle.append(cycle)
        re.compile("a" * (n + 1) + "|b")
        json.loads(json.dumps({str(i): [i] for i in range(n * 50)}))
        kind = type(f"Kind{n}", (), {f"name{n}": n})
        assert getattr(kind(), f"name{n}") == n
        class Error(Exception): pass
        with pytest.raises(Error):
            raise Error(n)

    def test_fails_around():
        rows = [bytearray(10_000) for _ in range(10)]
        assert rows == []
"""

#: Each test on its own line of "python -m pytest", so that it can be told which runs.
NAMES = (
    "test_it.py::test_known",
    "test_it.py::test_memory",
    "test_it.py::TestClass::test_method[10]",
    "test_it.py::TestClass::test_method[20]",
)

#: Runs that are compared: 20, most of them of a whole suite in another order each time.
ORDERS = 14

CONFTEST = """
    import os, random
    def pytest_collection_modifyitems(items):
        random.Random(int(os.environ.get("ORDER", "0"))).shuffle(items)
"""


def figures(content: Any) -> dict[str, tuple[int, int, int]]:
    return {
        name: (test["used"], test["peak"], test["allocations"])
        for name, test in content["tests"].items()
        if name in NAMES
    }


@needs("xdist")
def test_figures_are_the_same_in_20_runs(suite: Runner, monkeypatch: Any) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    source = LOOKED_AT + AROUND
    option = "--memory-json=memory.json"
    found = [figures(suite(source, option).json())]
    for name in NAMES:
        found.append({**found[0], **figures(suite(None, option, name).json())})
    (suite(None).folder / "conftest.py").write_text(
        CONFTEST.replace("\n    ", "\n").lstrip(), encoding="utf-8"
    )
    for i in range(ORDERS):
        monkeypatch.setenv("ORDER", str(seed + i))
        found.append(figures(suite(None, option).json()))
    for i in range(20 - len(found)):
        monkeypatch.setenv("ORDER", str(seed + 1000 + i))
        found.append(figures(suite(None, option, "-n2", plugins=("xdist",)).json()))
    assert len(found) == 20
    for name in NAMES:
        assert len({run[name] for run in found}) == 1, [run[name] for run in found]
    used, peak, _ = found[0]["test_it.py::test_known"]
    assert used == 0
    assert 1_000_057 + 8_056 <= peak < 1_030_000


def test_a_thread_that_wakes_now_and_then_is_in_no_figure(suite: Runner) -> None:
    """It gets the interpreter lock before the window, not in it: see Window._settle()."""
    run = suite(
        """
        import pytest

        @pytest.mark.parametrize("n", range(150))
        def test_known(n, memory):
            rows = []
            for _ in range(1000):
                rows.append([n] * 10)
        """,
        "--memory-json=memory.json",
        files={
            "conftest.py": """
                import threading, time

                def wake_now_and_then():
                    while True:
                        time.sleep(0.02)
                        for _ in range(20):
                            cycle = [{}, set(), object()]
                            cycle.append(cycle)
                        del cycle

                threading.Thread(target=wake_now_and_then, daemon=True).start()
            """
        },
    )
    assert run.counts == {"passed": 150}
    figures = run.json()["tests"].values()
    seen = collections.Counter((figure["used"], figure["allocations"]) for figure in figures)
    (most, times), *_ = seen.most_common()
    assert most[0] == 0, seen
    assert times >= 140, seen  # it can still come to wait in the window itself
