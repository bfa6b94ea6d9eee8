"""memory_peak asserts after the test; memory_leak runs it again and again."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

from .conftest import Runner


def test_peaks(suite: Runner) -> None:
    run = suite("""
        import pytest, threading

        def take():
            kept = bytearray(1_000_000)
            len(kept)

        def in_thread():
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()

        @pytest.mark.memory_peak("1 MiB")
        def test_below():
            take()

        @pytest.mark.memory_peak("900 KiB")
        def test_above():
            take()

        @pytest.mark.memory_peak("2 MiB", min="900 KiB")
        def test_between():
            take()

        @pytest.mark.memory_peak(min="2 MiB")
        def test_too_little():
            take()

        @pytest.mark.memory_peak("900 KiB")
        def test_others_do_not_count():
            in_thread()

        @pytest.mark.memory_peak("900 KiB", threads="all")
        def test_others_count():
            in_thread()

        @pytest.mark.memory_peak("900 KiB")
        @pytest.mark.memory_peak("3 MiB", min="900 KiB", threads="all")
        def test_both():
            in_thread()

        @pytest.mark.memory_peak(size=lambda params: params["n"], threads="this")
        @pytest.mark.parametrize("n", [100_000, 2_000_000])
        def test_computed(n):
            take()

        @pytest.mark.memory_peak("900 KiB")
        def test_fails_anyway():
            take()
            assert False, "first"
    """)
    assert run.counts == {"failed": 5, "passed": 5}
    assert re.match(
        r"memory_peak of 900\.0 KiB: its thread held 976\.\d KiB \(1,000,\d+ B\) at the peak, "
        r"76\.\d KiB \(78,\d+ B\) more$",
        run.told("test_above"),
    ), run.text
    assert re.match(
        r"memory_peak of at least 2\.0 MiB: its thread held no more than 976\.\d KiB \(1,000,\d+ "
        r"B\)$",
        run.told("test_too_little"),
    )
    assert "memory_peak of 900.0 KiB: the process held 9" in run.told("test_others_count")
    assert "memory_peak of 97.6 KiB: " in run.told("test_computed[100000]")
    told = run.told("test_fails_anyway")
    assert "first" in told
    assert "memory_peak" not in told.split("assert False")[1]


LEAKS = """
    import functools, pytest

    kept, table, seen = [], {}, set()

    @pytest.mark.memory_leak("0 B")
    def test_one_object_a_round():
        kept.append(object())

    @pytest.mark.memory_leak
    def test_one_key_a_round():
        table[len(table) + 1000] = None

    @pytest.mark.memory_leak("1 KiB")
    def test_a_little_is_allowed():
        kept.append(object())

    @pytest.mark.memory_leak("1 KiB")
    def test_more_than_a_little():
        kept.append(bytearray(2000))

    @pytest.mark.memory_leak(rounds=5, warmup=1)
    def test_nothing():
        rows = [str(i) for i in range(1000)]
        rows.sort(key=len)
        cycle = []
        cycle.append(cycle)

    @functools.lru_cache(maxsize=8)
    def cached(n):
        return str(n) * 100

    @pytest.mark.memory_leak("0 B")
    def test_a_cache_that_settles():
        cached(len(seen))
        seen.add(len(seen)) if len(seen) < 30 else None

    @pytest.mark.memory_leak("0 B")
    def test_classes_and_names_do_not_stay():
        class Local:
            def method(self):
                return self.missing if hasattr(self, "missing") else None
        assert Local().method() is None

    @pytest.mark.memory_leak("0 B")
    @pytest.mark.memory_limit("8 MiB")
    def test_with_a_limit():
        bytearray(1000)

    @pytest.fixture
    def made_once(request):
        kept.append(bytearray(100_000))
        return kept

    @pytest.mark.memory_leak("0 B")
    def test_fixtures_are_set_up_once(made_once):
        assert sum(isinstance(one, bytearray) and len(one) == 100_000 for one in kept) == 1

    @pytest.mark.memory_leak("0 B")
    @pytest.mark.parametrize("n", [0, 10])
    def test_parametrised(n):
        kept.extend(object() for _ in range(n))

    counts = []

    @pytest.mark.memory_leak("0 B", rounds=4, warmup=2)
    def test_fails_in_a_later_round():
        counts.append(1)
        assert len(counts) < 4

    class TestClass:
        @pytest.mark.memory_leak("0 B")
        def test_method(self):
            kept.append((self, object()))
"""


def test_leaks_are_found_and_caches_are_not_blamed(suite: Runner) -> None:
    run = suite(LEAKS, "-v", "-rN")
    failed = {line.split()[0].split("::", 1)[1] for line in run.lines if " FAILED" in line}
    assert failed == {
        "test_one_object_a_round",
        "test_one_key_a_round",
        "test_more_than_a_little",
        "test_parametrised[10]",
        "test_fails_in_a_later_round",
        "TestClass::test_method",
    }, run.text
    assert run.counts == {"failed": 6, "passed": 7}
    assert re.match(
        r"memory_leak of 0 B: [\d.]+ B in 1(\.\d)? blocks? stay per round \(the last 10 of 50 "
        r"rounds, after 3 "
        r"to warm up\)\nOf 4 more rounds, by the line that asked:\n  16 B in 1 block per round: "
        r"\S+test_it\.py:7$",
        run.told("test_one_object_a_round"),
    ), run.text
    told = run.told("test_more_than_a_little")
    assert re.match(
        r"memory_leak of 1\.0 KiB: 2,0\d\d(\.\d)? B in [12](\.\d)? blocks stay per round", told
    ), told
    assert "assert 4 < 4" in run.told("test_fails_in_a_later_round")


EXTENSION = """
    #define PY_SSIZE_T_CLEAN
    #include <Python.h>

    static PyObject *leak(PyObject *self, PyObject *unused)
    {
        (void)PyMem_Malloc(24);
        Py_RETURN_NONE;
    }

    static PyObject *forget(PyObject *self, PyObject *unused)
    {
        PyObject *one = PyBytes_FromString("an object whose reference is lost");
        Py_INCREF(one);
        Py_DECREF(one);
        Py_RETURN_NONE;
    }

    static PyObject *clean(PyObject *self, PyObject *unused)
    {
        PyMem_Free(PyMem_Malloc(24));
        Py_RETURN_NONE;
    }

    static PyMethodDef methods[] = {
        {"leak", leak, METH_NOARGS, NULL},
        {"forget", forget, METH_NOARGS, NULL},
        {"clean", clean, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };

    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "leaky", NULL, -1, methods};

    PyMODINIT_FUNC PyInit_leaky(void) { return PyModule_Create(&module); }
"""


def test_leaks_of_an_extension_in_c_are_found(suite: Runner, own: Path) -> None:
    import os
    import subprocess
    import textwrap

    source = own / "leaky.c"
    source.write_text(textwrap.dedent(EXTENSION), encoding="utf-8")
    target = own / f"leaky{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-w"]
    command += [f"-I{sysconfig.get_paths()['include']}", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    run = suite("""
        import pytest, sys
        sys.path.insert(0, ".")
        import leaky
        pytestmark = pytest.mark.memory_leak("0 B")

        def test_block():
            leaky.leak()

        def test_object():
            leaky.forget()

        def test_clean():
            leaky.clean()
    """)
    assert run.counts == {"failed": 2, "passed": 1}
    assert run.told("test_block").startswith(
        "memory_leak of 0 B: 24 B in 1 block stay per round (the last 10 of 50 rounds, after 3 to "
        "warm up)\nOf 4 more rounds, by the line that asked:\n  24 B in 1 block per round: "
    )
    assert run.told("test_block").rstrip().endswith("test_it.py:7")
    told = run.told("test_object")
    assert re.match(r"memory_leak of 0 B: 66 B in 1 block stay per round", told), run.text
