"""The real numpy and pandas: arrays count to the byte, in every thread, and the cap holds for them.

Run where numpy is installed; `make test-neighbours` runs it with all versions of numpy that matter.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from .processes import MODES, snippet
from .test_audit import NO_LEAF

pytestmark = pytest.mark.skipif(not find_spec("numpy"), reason="numpy is not installed")
counting = pytest.mark.parametrize("counting", ["exact", "held"])  # zmalloc's two modes
needs_pandas = pytest.mark.skipif(not find_spec("pandas"), reason="pandas is not installed")

# numpy's array and used() itself make objects of a few sizes. Two arrays of the same kind make the
# same ones, so what one takes more than the other is its data alone. numpy 2.5 keeps freed blocks
# below 1024 bytes and RAW counts them as long; up to 2.4 they are not counted while it keeps them.
GROWTH = """
import gc, sys
import numpy as np
import zmalloc
SMALL = zmalloc._core._arrays() == "handler"
gc.collect(), gc.disable()
def growth(make):
    before = zmalloc.used()
    made = make()
    after = zmalloc.used()
    return after - before, made.nbytes
def data_growth(make, n):
    # The median: now and then a table of CPython's grows meanwhile.
    seen = []
    for _ in range(7):
        large, small = growth(lambda: make(n)), growth(lambda: make(4096))
        seen.append((large[0] - small[0], large[1] - small[1]))
    return sorted(seen)[3]
"""
# A thread that was joined may still be freeing its state.
EQUAL = """
import time
end = time.monotonic() + 10
seen = zmalloc.audit()
while seen.used != seen.counted and time.monotonic() < end:
    seen = zmalloc.audit()
assert seen.used == seen.counted, seen
"""

IMPORTS = {
    "numpy first": "import numpy\nimport zmalloc\n",
    "zmalloc first": "import zmalloc\nimport numpy\n",
    "installed late": "import zmalloc\nimport numpy\nzmalloc.install()\n",
    "all late": "import zmalloc\nzmalloc.install()\nimport numpy\n",
}


@pytest.mark.parametrize("order", IMPORTS)
def test_each_kind_of_array_counts_to_the_byte(order: str, tmp_path: Path) -> None:
    """Catches a way into numpy's data that is not wrapped: each of malloc, calloc and realloc."""
    env = {"ZMALLOC_NO_INSTALL": "1"} if "late" in order else {}
    wrong = snippet(
        IMPORTS[order]
        + GROWTH
        + f"""
assert zmalloc._core._arrays() is not None
path = {str(tmp_path / "data")!r}
np.arange(300_000, dtype="u1").tofile(path)
source = np.arange(300_000, dtype="u1")
floats = np.arange(40_000.0)
generator = np.random.default_rng(1)
def resized(n):
    array = np.zeros(7, dtype="u1")
    array.resize(n, refcheck=False)
    return array
def shrunk(n):
    array = np.ones(n + 99_999, dtype="u1")
    array.resize(n, refcheck=False)
    return array
KINDS = dict(
    zeros=lambda n: np.zeros(n, dtype="u1"),
    ones=lambda n: np.ones(n, dtype="u1"),
    empty=lambda n: np.empty(n, dtype="u1"),
    full=lambda n: np.full(n, 7, dtype="u1"),
    arange=lambda n: np.arange(n, dtype="u1"),
    wide=lambda n: np.zeros((n // 8, 8), dtype="f8"),
    fancy=lambda n: source[np.arange(n)],
    mask=lambda n: source[np.arange(len(source)) < n],
    copy=lambda n: source[:n].copy(),
    sum=lambda n: source[:n] + source[:n],
    sort=lambda n: np.sort(source[:n]),
    concatenate=lambda n: np.concatenate([source[:n // 2], source[:n - n // 2]]),
    astype=lambda n: floats[:n // 8].astype("c16"),
    objects=lambda n: np.full(n, None, dtype=object),
    text=lambda n: np.full(n, "abc"),
    resize=resized,
    shrink=shrunk,
    fromfile=lambda n: np.fromfile(path, dtype="u1", count=n),
    fromiter=lambda n: np.fromiter((i & 7 for i in range(n)), dtype="u1"),
    frombytes=lambda n: np.array(bytearray(n)),
    random=lambda n: generator.random(n),
)
wrong = []
for name, make in KINDS.items():
    for n in (4104, 65_536, 262_144):
        counted, data = data_growth(make, n)
        noise = 500 if name == "fromfile" else 0            # of file objects
        if abs(counted - data) > noise or data == 0:
            wrong.append((name, n, counted, data))
"""
        + EQUAL
        + "print(wrong)\n",
        env=env,
    ).value
    assert wrong == []


def test_all_sizes_count_as_requested_also_those_that_numpy_keeps() -> None:
    snippet(
        GROWTH
        + """
sizes = [n for n in [*range(1, 300), *range(300, 2100, 7)] if SMALL or n >= 1024]
sizes += [2**20 - 64, 2**20, 2**24 + 1, 2**25 + 5]
wrong = [n for n in sizes for got, data in [data_growth(lambda n: np.empty(n, "u1"), n)]
         if got != data]
assert not wrong, wrong
held = [np.empty(n, "u1") for n in range(2000) for _ in range(9)]
del held
gc.collect()
"""
        + EQUAL
    )


@pytest.mark.parametrize("mode", MODES)
def test_arrays_from_before_are_freed_and_resized_right(mode: str) -> None:
    """A handler that took its blocks' marks for granted would free what it never counted."""
    snippet(
        """
        import gc
        import numpy as np
        old = [np.ones(n, "u1") for n in range(3000)] + [np.zeros(n) for n in range(0, 60_000, 999)]
        import zmalloc
        gc.collect()
        before = zmalloc.used()
        del old[::2]
        gc.collect()
        assert abs(zmalloc.used() - before) < 4096, zmalloc.used() - before
        for array in old:
            array.resize(array.size + 1000, refcheck=False)
        taken = sum(array.nbytes for array in old)
        assert 0 <= zmalloc.used() - before - taken < 200 * len(old)
        for array in old:
            array.resize(5, refcheck=False)
        seen = zmalloc.audit()
        assert seen.used == seen.counted, seen
        new = [np.ones(n, "u1") for n in range(3000) for _ in range(4)]
        del new, old, array
        gc.collect()
        seen = zmalloc.audit()
        assert seen.used == seen.counted, seen
        assert abs(zmalloc.used() - before) < 2_000_000 # what numpy keeps
        """,
        env={"PYTHONMALLOC": mode},
    )


THREADS = """
import asyncio, contextvars, queue, threading
import numpy as np
orders, results = queue.Queue(), queue.Queue()
def serve():
    for order in iter(orders.get, None):
        results.put(order())
early = threading.Thread(target=serve, daemon=True)
early.start()
import concurrent.futures as futures
import zmalloc
N = 10_000_000
def counted():
    before = zmalloc.used()
    array = np.zeros(N, "u1")
    grown = zmalloc.used() - before
    assert abs(grown - N) < 100_000, grown
    return array
"""


@counting
def test_arrays_count_in_every_thread_and_context(counting: str) -> None:
    """A handler that is set in a context would leave out each new thread and empty context."""
    snippet(
        THREADS
        + """
start, alive = zmalloc.used(), []                       # nothing is freed while another counts
def keep():
    alive.append(counted())
keep()
orders.put(keep)
results.get(timeout=60)                                # of a thread from before the import
late = threading.Thread(target=keep)
late.start(), late.join()
contextvars.Context().run(keep)
contextvars.copy_context().run(keep)
with futures.ThreadPoolExecutor(2) as pool:
    for _ in range(4):
        pool.submit(keep).result()                     # one after the other
async def main():
    keep()
    await asyncio.to_thread(keep)
    await asyncio.create_task(asyncio.to_thread(keep))
    await asyncio.get_running_loop().run_in_executor(None, keep)
asyncio.run(main())
orders.put(None)
early.join()
assert len(alive) == 13
before = zmalloc.used()
alive.clear()                                          # by another thread than took them
assert before - zmalloc.used() >= 13 * N
assert abs(zmalloc.used() - start) < 1_000_000
"""
        + EQUAL,
        env={"ZMALLOC_MODE": counting},
    )


@counting
def test_threads_that_churn_arrays_leave_the_counts_equal(counting: str) -> None:
    snippet(
        """
        import gc, random, threading, time
        import numpy as np
        import zmalloc
        shared = [[] for _ in range(4)]
        def churn(me):
            choose = random.Random(me)
            for _ in range(4000):
                mine = shared[choose.randrange(4)]
                what = choose.randrange(4)
                if what < 2:
                    mine.append(np.zeros(choose.randrange(9000), "u1"))
                elif what == 2:
                    mine.clear()
                else:
                    try:
                        mine[-1].resize(choose.randrange(9000), refcheck=False)
                    except (IndexError, ValueError):
                        pass
        threads = [threading.Thread(target=churn, args=(n,)) for n in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        end = time.monotonic() + 5
        while True:
            seen = zmalloc.audit()
            if seen.used == seen.counted: break
            assert time.monotonic() < end, seen
        data = sum(array.nbytes for arrays in shared for array in arrays)
        before = zmalloc.used()
        for arrays in shared: arrays.clear()
        gc.collect()
        assert before - zmalloc.used() > data * 0.9 or data < 100_000
        """,
        env={"ZMALLOC_MODE": counting},
    )


@counting
def test_a_huge_array_under_a_cap_is_a_memory_error_before_a_page_is_touched(counting: str) -> None:
    snippet(
        """
        import numpy as np
        import zmalloc
        HUGE = 10 << 30
        with zmalloc.limit(zmalloc.used() + (64 << 20)) as cap:
            rss, used = zmalloc.rss(), zmalloc.used()
            for make in (np.zeros, np.ones, np.empty, lambda n: np.full(n, 1.0), np.arange):
                try:
                    make(HUGE // 8)
                except MemoryError as error:
                    assert "Unable to allocate 10.0 GiB" in str(error), error
                else:
                    raise AssertionError(make)
            small = np.ones(1_000_000)
            try:
                small.resize(HUGE // 8, refcheck=False)
            except MemoryError:
                pass
            assert small.sum() == 1_000_000, "a refused resize leaves the array alone"
            assert zmalloc.peak() <= zmalloc.stats().hard_limit
            assert zmalloc.rss() - rss < 16 << 20, zmalloc.rss() - rss
        assert zmalloc.stats().last_refused.bytes >= HUGE - (64 << 20)
        assert zmalloc.stats().last_refused.file == "<string>"
        assert small[-1] == 1 and np.zeros(HUGE // 512).nbytes == HUGE // 64
        """,
        env={"ZMALLOC_MODE": counting},
    )


@counting
def test_a_cap_holds_under_arrays_that_run_away_in_many_threads(counting: str) -> None:
    snippet(
        """
        import threading
        import numpy as np
        import zmalloc
        ended = []
        def run_away(kind):
            rows = []
            try:
                for n in range(100_000):
                    rows.append(kind(30_000 + n))
            except MemoryError:
                rows.clear()
                ended.append(True)
        def work():
            with zmalloc.limit(zmalloc.used() + (50 << 20)):
                hard = zmalloc.stats().hard_limit
                zmalloc.reset_peak()
                kinds = (np.zeros, np.ones, np.empty, lambda n: np.resize(np.arange(9), n))
                threads = [threading.Thread(target=run_away, args=(kind,)) for kind in kinds]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                assert zmalloc.peak() <= hard, (zmalloc.peak(), hard)
                assert zmalloc.peak() > hard - (2 << 20), "they went as far as they could"
        work()
        assert len(ended) == 4
        assert float(np.linspace(0, 1, 1001).sum()) == 500.5
        """
        + EQUAL.replace("\n", "\n        "),
        env={"ZMALLOC_MODE": counting},
    )


@counting
def test_arrays_that_grow_in_small_steps_end_in_a_limit_error_of_their_line(counting: str) -> None:
    """They ask RAW, where nothing can be raised: the error comes at the next safe point."""
    snippet(
        """
        import numpy as np
        import zmalloc
        for _ in range(20):
            rows = []
            try:
                with zmalloc.budget("4 MiB") as budget:
                    while True:
                        rows.append(np.empty(1000))
            except zmalloc.LimitError as error:
                assert error.line == 9, error.line
                assert budget.peak <= (4 << 20) + (64 << 10), budget.peak
                assert len(rows) * 8000 > 3 << 20
        """,
        env={"ZMALLOC_MODE": counting},
    )


def test_arrays_count_in_the_budget_of_the_thread_that_makes_them() -> None:
    snippet(
        """
        import threading
        import numpy as np
        import zmalloc
        N = 10_000_000
        def near(value, expected):
            assert abs(value - expected) < 20_000, (value, expected)
        def others():
            shared.append(np.zeros(5 * N, "u1"))
        shared = []
        with zmalloc.budget("30 MB", thread=True) as budget:
            array = np.zeros(N, "u1")
            near(budget.used, N)
            array.resize(2 * N, refcheck=False)
            near(budget.used, 2 * N)
            array.resize(N, refcheck=False)
            near(budget.used, N)
            thread = threading.Thread(target=others)
            thread.start(), thread.join()
            near(budget.used, N)
            try:
                np.ones(3 * N, "u1")
            except MemoryError:
                pass
            else:
                raise AssertionError
            near(budget.used, N)
            array = None
            near(budget.used, 0)
        assert shared[0].nbytes == 5 * N and budget.hit
        """
        + EQUAL.replace("\n", "\n        ")
    )


@counting
def test_a_cap_set_before_numpy_comes_holds_for_its_arrays(counting: str) -> None:
    """What is to be wrapped appears in the middle of a capped program that never calls us again."""
    outcome = snippet(
        """
        import zmalloc
        zmalloc.limit("200 MiB")
        import numpy as np
        try:
            np.ones(40_000_000)
        except MemoryError:
            print(zmalloc.peak() < 200 << 20)
        """,
        env={"ZMALLOC_MODE": counting},
    )
    assert outcome.value is True


# ---- being told of the import --------------------------------------------------------------------


def test_the_finder_is_there_once_and_finds_nothing() -> None:
    snippet(
        """
        import importlib, importlib.util, sys
        before = list(sys.meta_path)
        import zmalloc
        watchers = [one for one in sys.meta_path if one not in before]
        assert len(watchers) == 1 and [one for one in sys.meta_path if one in before] == before
        assert watchers[0].find_spec("numpy") is None
        assert watchers[0].find_spec("numpy.linalg", None, target=None) is None
        assert watchers[0].find_spec(5) is None
        spec = importlib.util.find_spec("numpy")
        assert spec.loader.__class__.__name__ == "SourceFileLoader" and "numpy" not in sys.modules
        zmalloc.install()
        importlib.reload(zmalloc)
        for name in [name for name in sys.modules if name.startswith("zmalloc")]:
            del sys.modules[name]
        import zmalloc
        import numpy
        assert zmalloc._core._arrays() in ("handler", "raw")
        inner = next(m for name, m in sys.modules.items() if name.endswith("._multiarray_umath"))
        assert inner.__spec__.loader is inner.__loader__
        assert inner.__loader__.__class__.__name__ == "ExtensionFileLoader"
        assert sum("zmalloc" in type(one).__module__ for one in sys.meta_path) == 1
        """
    )


def test_an_import_that_fails_leaves_nothing_wrapped_and_may_be_tried_again(tmp_path: Path) -> None:
    broken = tmp_path / "numpy"
    (broken / "core").mkdir(parents=True)
    code = "from numpy.core import _multiarray_umath\nimport numpy.no\n"
    (broken / "__init__.py").write_text(code)
    (broken / "core" / "__init__.py").touch()
    (broken / "core" / "_multiarray_umath.py").write_text("_ARRAY_API = object()\n")
    snippet(
        f"""
        import sys
        import zmalloc
        sys.path.insert(0, {str(tmp_path)!r})
        for _ in range(2):
            try:
                import numpy
            except ImportError as error:
                assert "numpy.no" in str(error)
            assert zmalloc._core._arrays() is None
        del sys.path[0]
        for name in [name for name in sys.modules if name.startswith("numpy")]:
            del sys.modules[name]
        sys.path_importer_cache.clear()
        """
        + GROWTH.replace("\n", "\n        ")
        + """
        got, data = data_growth(np.zeros, 100_000)
        assert got == data
        """
    )


def test_what_only_looks_like_numpy_is_let_alone(tmp_path: Path) -> None:
    """Any object may be in sys.modules under that name, with anything in it."""
    snippet(
        """
        import ctypes, sys, types
        import zmalloc
        name = "numpy._core._multiarray_umath"
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        version = ctypes.CFUNCTYPE(ctypes.c_uint)(lambda: 0x03000000)
        slots = (ctypes.c_void_p * 400)(ctypes.cast(version, ctypes.c_void_p).value)
        for value in (None, 5, new(ctypes.addressof(slots), b"named", None)):
            module = types.ModuleType(name)
            module._ARRAY_API = value
            for sys.modules[name] in (module, types.SimpleNamespace(_ARRAY_API=value), None):
                zmalloc.install()
                with zmalloc.limit("1 GiB"):
                    pass
                assert zmalloc._core._arrays() is None
        module._ARRAY_API = new(ctypes.addressof(slots), None, None)  # of a version to come
        sys.modules[name] = module
        zmalloc.install()
        assert zmalloc._core._arrays() == "not"
        """
    )


def test_an_importer_that_asks_nobody_else_is_noticed_at_the_next_limit() -> None:
    outcome = snippet(
        """
        import sys
        import zmalloc
        from importlib.machinery import PathFinder
        class Everything:
            @staticmethod
            def find_spec(name, path=None, target=None):
                for finder in sys.meta_path[2:]:
                    spec = finder.find_spec(name, path, target)
                    if spec:
                        return spec
                raise ModuleNotFoundError(name, name=name)
        sys.meta_path.insert(0, Everything)
        import numpy as np
        assert zmalloc._core._arrays() is None
        with zmalloc.limit(zmalloc.used() + 1_000_000):
            try:
                np.zeros(1_000_000)
            except MemoryError:
                print(True)
        """
    )
    assert outcome.value is True


def test_without_the_hooks_numpy_is_left_as_it_is() -> None:
    snippet(
        """
        import sys
        before = list(sys.meta_path)
        import zmalloc
        import numpy as np
        assert sys.meta_path == before and zmalloc._core._arrays() is None
        kept = np.zeros(1_000_000)
        assert zmalloc.used() == 0
        zmalloc.install()
        assert zmalloc._core._arrays() in ("handler", "raw")
        before = zmalloc.used()
        kept = None
        assert abs(zmalloc.used() - before) < 1000
        """,
        env={"ZMALLOC_NO_INSTALL": "1"},
    )


@pytest.mark.parametrize("first", [True, False])
def test_threads_that_import_at_once_find_all_modules(first: bool) -> None:
    lead = "import zmalloc\n" if first else ""
    snippet(
        lead
        + """
import importlib, threading
names = ["numpy", "json", "zmalloc", "decimal", "numpy", "csv", "zmalloc", "email.message"]
failed, barrier = [], threading.Barrier(len(names))
def load(name):
    barrier.wait()
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed.append((name, error))
threads = [threading.Thread(target=load, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
"""
        + GROWTH
        + "got, data = data_growth(np.zeros, 100_000)\nassert got == data\n"
    )


# ---- others --------------------------------------------------------------------------------------

# A handler as users set them: the same functions, in a struct of its own.
OWN_HANDLER = """
import ctypes, sys
import numpy as np
api = ctypes.pythonapi
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
umath = sys.modules.get("numpy._core._multiarray_umath")
umath = umath or sys.modules["numpy.core._multiarray_umath"]
slots = api.PyCapsule_GetPointer(umath._ARRAY_API, None)
slots = (ctypes.c_void_p * 307).from_address(slots)
set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(slots[304])
get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(slots[305])
def copy_of(capsule):
    at = api.PyCapsule_GetPointer(capsule, b"mem_handler")
    copy = ctypes.create_string_buffer(ctypes.string_at(at, 128 + 5 * 8))
    kept.append(copy)
    return api.PyCapsule_New(ctypes.addressof(copy), b"mem_handler", None)
kept = []
default = get_handler()
"""


def test_the_default_handler_is_wrapped_also_while_another_is_in_use() -> None:
    """What GetHandler gives belongs to the context, and goes away with it."""
    snippet(
        OWN_HANDLER
        + """
set_handler(copy_of(default))
foreign = np.zeros(100_000)
import zmalloc
set_handler(default)
"""
        + GROWTH
        + """
got, data = data_growth(np.zeros, 100_000)
assert got == data, (got, data)
before = zmalloc.used()
foreign.resize(200_000, refcheck=False)
del foreign
"""
        + EQUAL
    )


def test_a_copy_of_the_wrapped_handler_counts_too() -> None:
    snippet(
        "import zmalloc\n"
        + OWN_HANDLER
        + GROWTH
        + """
set_handler(copy_of(default))
got, data = data_growth(np.zeros, 100_000)
assert got == data, (got, data)
held = np.zeros(100_000)
set_handler(default)
del held
"""
        + EQUAL
    )


def test_a_block_goes_at_the_size_it_was_asked_for_whatever_its_owner_says() -> None:
    snippet(
        "import zmalloc\n"
        + OWN_HANDLER
        + """
at = api.PyCapsule_GetPointer(default, b"mem_handler")
ctx, malloc, calloc, realloc, free = (ctypes.c_void_p * 5).from_address(at + 128)
Pointer = type("Pointer", (ctypes.c_void_p,), {})
malloc = ctypes.PYFUNCTYPE(Pointer, ctypes.c_void_p, ctypes.c_size_t)(malloc)
free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, Pointer, ctypes.c_size_t)(free)
for _ in range(3):
    before = zmalloc.stats().raw.used
    block = malloc(ctx, 500_000)
    during = zmalloc.stats().raw.used
    free(ctx, block, 7000)
    after = zmalloc.stats().raw.used
assert abs(during - before - 500_000) < 1000 and abs(after - before) < 1000
free(ctx, Pointer(), 7000)
"""
        + EQUAL
    )


def test_a_request_that_the_system_refuses_changes_nothing() -> None:
    snippet(
        """
        import numpy as np
        import zmalloc
        array = np.ones(100_000)
        for n in range(3):
            data = zmalloc.stats().raw.used
            for ask in (np.zeros, lambda n: array.resize(n, refcheck=False)):
                try:
                    ask(1 << 46)
                except MemoryError:
                    pass
                else:
                    raise AssertionError
        assert array.sum() == 100_000
        assert zmalloc.stats().raw.used == data
        before = zmalloc.stats().raw.used
        array = None
        assert before - zmalloc.stats().raw.used >= 800_000
        """
        + EQUAL.replace("\n", "\n        ")
    )


LOSS = """
import ctypes
get, put = ctypes.pythonapi.PyMem_GetAllocator, ctypes.pythonapi.PyMem_SetAllocator
saved = [ctypes.create_string_buffer(40) for _ in range(3)]
for domain in range(3): get(domain, saved[domain])
"""


@pytest.mark.parametrize("order", ["numpy first", "zmalloc first"])
def test_after_a_loss_of_the_hooks_arrays_count_again(order: str) -> None:
    snippet(
        LOSS
        + IMPORTS[order]
        + """
import numpy as np
kept = [np.zeros(n) for n in range(0, 3000, 7)]
for domain in range(3): put(domain, saved[domain])
assert not zmalloc.is_installed()
during = [np.zeros(n) for n in range(0, 3000, 7)]
del kept[::2]
assert zmalloc.install()
del during[::2], kept[::2]
for array in during: array.resize(4000, refcheck=False)
"""
        + EQUAL
        + GROWTH
        + """
got, data = data_growth(np.zeros, 100_000)
assert got == data, (got, data)
kept = during = array = None
"""
        + EQUAL
    )


def test_tracemalloc_sees_arrays_as_it_does_without_us() -> None:
    snippet(
        """
        import tracemalloc
        import zmalloc
        import numpy as np
        tracemalloc.start()
        before, ours = tracemalloc.get_traced_memory()[0], zmalloc.used()
        array = np.zeros(1_000_000)
        theirs = tracemalloc.get_traced_memory()[0] - before
        ours = zmalloc.used() - ours
        assert 8_000_000 <= theirs < 8_010_000, theirs
        assert 8_000_000 <= ours < 8_010_000, ours
        try:
            with zmalloc.limit(zmalloc.used() + 1_000_000):
                np.ones(1_000_000)
        except MemoryError:
            pass
        tracemalloc.stop()
        del array
        """
        + EQUAL.replace("\n", "\n        ")
    )


@counting
def test_a_forked_child_goes_on_counting_arrays(counting: str) -> None:
    snippet(
        """
        import os
        import numpy as np
        import zmalloc
        array = np.zeros(1_000_000)
        limit = zmalloc.limit(zmalloc.used() + 20_000_000)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                before = zmalloc.used()
                array = None
                assert before - zmalloc.used() >= 8_000_000
                array = np.ones(1_000_000)
                try:
                    np.ones(9_000_000)
                except MemoryError:
                    seen = zmalloc.audit()
                    status = 0 if seen.used == seen.counted else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        zmalloc.limit(None)
        before = zmalloc.used()
        array = None
        assert before - zmalloc.used() >= 8_000_000
        """
        + EQUAL.replace("\n", "\n        "),
        env={"ZMALLOC_MODE": counting},
    )


@pytest.mark.parametrize("imports", ["import zmalloc", "import zmalloc, numpy", "import numpy"])
def test_a_sub_interpreter_does_no_harm(imports: str) -> None:
    """numpy refuses to be imported there, or warns and shares its handler; either is fine."""
    code = (
        f"try:\n    {imports}\n    kept = [numpy.zeros(n) for n in range(0, 3000, 7)]\n"
        "except (ImportError, NameError):\n    pass\n"
    )
    snippet(
        f"""
        try:
            import _interpreters as api
            interpreter = api.create("legacy")
        except ImportError:
            import _xxsubinterpreters as api
            interpreter = api.create(isolated=False)
        import numpy as np
        import zmalloc
        array = np.zeros(1_000_000)
        api.run_string(interpreter, {code!r})
        api.destroy(interpreter)
        before = zmalloc.used()
        array = None
        assert before - zmalloc.used() >= 8_000_000
        """
        + EQUAL.replace("\n", "\n        ")
    )


@counting
def test_arrays_that_live_until_the_very_end_do_no_harm(counting: str) -> None:
    snippet(
        """
        import sys, threading
        import numpy as np
        import zmalloc
        class Late:
            def __init__(self): self.array = np.ones(1000)
            def __del__(self): self.array = self.array * 2
        sys.kept = Late()
        kept = Late()
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        zmalloc.limit(zmalloc.used() + (1 << 20), seal=True)
        """,
        env={"ZMALLOC_MODE": counting},
    )


# ---- pandas --------------------------------------------------------------------------------------

PANDAS = """
import gc, io
import numpy as np
import pandas as pd
import zmalloc
def frame(n):
    return pd.DataFrame({"key": np.arange(n), "x": np.arange(n) * 0.5})
text = frame(20_000).to_csv(index=False)
left, right = frame(40_000), frame(60_000)[20_000:]
WORK = dict(
    frame=lambda: frame(100_000),
    read_csv=lambda: pd.read_csv(io.StringIO(text)),
    merge=lambda: left.merge(right, on="key"),
    concat=lambda: pd.concat([left, right], ignore_index=True),
    group=lambda: left.groupby(left.key % 7).cumsum(),
)
"""


@needs_pandas
def test_frames_count_as_the_memory_they_tell_of() -> None:
    snippet(
        PANDAS
        + """
def data():
    return zmalloc.stats().raw.used          # where arrays count
for name, work in WORK.items():
    for _ in range(3):
        made = work()
        made = None
        gc.collect()
    before, used = data(), zmalloc.used()
    made = work()
    gc.collect()
    grown, told = data() - before, int(made.memory_usage().sum())
    assert told > 300_000, (name, told)
    assert abs(grown - told) < 4096, (name, grown, told)
    assert zmalloc.used() - used > told - 100_000, (name, zmalloc.used() - used, told)
    made = None
    gc.collect()
    assert abs(data() - before) < 4096, (name, data() - before)
"""
        + EQUAL
    )


@needs_pandas
@counting
def test_a_frame_that_runs_away_ends_at_the_cap(counting: str) -> None:
    snippet(
        PANDAS
        + """
frames = [left]
try:
    with zmalloc.limit(zmalloc.used() + (40 << 20)):
        hard = zmalloc.stats().hard_limit
        zmalloc.reset_peak()
        while True:
            frames.append(pd.concat(frames[-2:], ignore_index=True))
except MemoryError:
    peak = zmalloc.peak()
assert peak <= hard, (peak, hard)
frames.clear()
assert int(left.merge(right, on="key").x_x.sum()) == 299995000
"""
        + EQUAL,
        env={"ZMALLOC_MODE": counting},
    )


def test_only_versions_that_need_it_are_wrapped() -> None:
    """numpy 2.5 asks RAW and is left alone; the ones before are wrapped."""
    version, state = snippet(
        "import numpy, zmalloc\nprint((numpy.__version__, zmalloc._core._arrays()))"
    ).value
    major, minor = (int(part) for part in version.split(".")[:2])
    assert state == ("raw" if (major, minor) >= (2, 5) else "handler")


# ---- requests that fail on purpose, names that are no text ---------------------------------------


def test_an_arrays_data_is_refused_on_purpose_too() -> None:
    """By each way to it: malloc, calloc and realloc."""
    snippet(
        """
        import numpy as np
        import zmalloc
        def grown():
            array = np.zeros(7, dtype="u1")
            array.resize(300_000, refcheck=False)
            return array
        makers = {
            "malloc": lambda: np.empty(300_000, dtype="u1"),
            "calloc": lambda: np.zeros(300_000, dtype="u1"),
            "realloc": grown,
        }
        for name, make in makers.items():
            for _ in range(10):
                make()
            said, n = [], 0
            while True:
                fault, made = zmalloc.fail_after(n), None
                try:
                    with fault:
                        made = make()
                except MemoryError as error:
                    said.append(str(error))
                if not fault.failed:
                    break
                n += 1
            assert made.nbytes == 300_000
            assert any("llocate" in text for text in said), (name, said)
            seen = zmalloc.audit()
            assert seen.used == seen.counted
        """
    )


def test_an_array_that_the_map_has_no_room_for_is_nobodys_or_refused() -> None:
    snippet(
        "import numpy as np\n"
        + NO_LEAF
        + """
if zmalloc._core._arrays() == "handler":
    np.zeros(8)
    before = look(0)
    for n, make in enumerate((np.empty, np.zeros), 1):
        room(BLOCK)
        block = make(BLOCK, dtype="u1")
        assert abs(look(n) - before) < 20_000
        del block
        assert abs(look(n) - before) < 20_000
    with zmalloc.limit("1 GiB"):
        for make in (np.empty, np.zeros):
            room(BLOCK)
            try:
                make(BLOCK, dtype="u1")
            except MemoryError:
                free()
            else:
                raise AssertionError
        assert abs(look(2) - before) < 20_000
"""
    )


def test_a_name_that_is_no_text_is_imported_as_without_the_watcher() -> None:
    snippet(
        r"""
        import zmalloc
        assert zmalloc._core._arrays() is None
        try:
            __import__("\ud800")
        except (ImportError, UnicodeEncodeError):
            pass
        import numpy
        assert zmalloc._core._arrays() is not None
        """
    )
