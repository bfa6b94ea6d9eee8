"""Counts are exact: to the byte what tracemalloc finds, and a peak that is the true maximum."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from . import workloads
from .processes import MODES, Outcome, snippet

# Run twice, so that caches and free lists are warm; then measured once. Both readers make two ints
# and a tuple of them, so that what reading itself takes is the same in both processes.
MEASURE = """
import gc, sys
sys.path.insert(0, {folder!r})
import zmalloc, tracemalloc, workloads
work = workloads.WORKLOADS[{name!r}]
if {traced}:
    tracemalloc.start(1)
    get = tracemalloc.get_traced_memory
    stack = lambda: 0
else:
    zmalloc.install()
    def get():
        return zmalloc.used(), zmalloc.peak()
    stack = lambda: zmalloc.audit().stack

def settle():
    # The cache of type attributes keeps names alive; which ones depends on addresses.
    gc.collect()
    sys._clear_type_cache()

def keys():
    # A class is in its base's table under its address, an int that is larger above 2**30.
    found, todo = 0, [object]
    while todo:
        below = type.__subclasses__(todo.pop())
        found += sum(sys.getsizeof(id(one)) for one in below)
        todo += below
    return found

def read():
    now, peak = get()
    return now + 0  # made by the same addition: the two readers make ints of different kinds

for _ in range(2):
    kept = work()
    kept = None
    settle()
stack_before = stack()
keys(), read(), read()
keys_before = keys()
settle()
before = read()
kept = work()
settle()
after = read()
growth = after - before - (stack() - stack_before) - (keys() - keys_before)
if not {traced}:
    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen
    kept = None
    gc.collect()
    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen
print(growth)
"""


def measure(name: str, traced: bool, seed: int) -> int:
    code = MEASURE.format(folder=str(Path(__file__).parent), name=name, traced=traced)
    env = {"ZMALLOC_NO_INSTALL": "1", "PYTHONHASHSEED": str(seed)}
    growth: int = snippet(code, env=env).value
    return growth


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_used_grows_by_what_tracemalloc_finds_to_the_byte(name: str) -> None:
    ours, theirs = measure(name, False, 7), measure(name, True, 7)
    assert ours == theirs
    assert ours > 1000, "the workload has to hold something for this to say anything"


# The allocator's functions themselves, for exact sizes.
RAW_CALLS = """
import ctypes, gc, zmalloc
from ctypes import c_size_t, c_void_p
gc.disable()
class Pointer(c_void_p):
    # as a result it stays an object of one size; a c_void_p becomes an int, large or small
    pass
def calls(domain):
    made = []
    for name, result, arguments in (("Malloc", Pointer, [c_size_t]),
                                    ("Calloc", Pointer, [c_size_t, c_size_t]),
                                    ("Realloc", Pointer, [c_void_p, c_size_t]),
                                    ("Free", None, [c_void_p])):
        function = getattr(ctypes.pythonapi, domain + name)
        function.restype, function.argtypes = result, arguments
        made.append(function)
    return made
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("domain", ["PyMem_Raw", "PyMem_", "PyObject_"])
def test_every_size_is_counted_as_requested(domain: str, mode: str) -> None:
    """All sizes around every border: of the map's codes, of pymalloc, of an arena, of a leaf."""
    code = (
        RAW_CALLS
        + f"""
malloc, calloc, realloc, free = calls({domain!r})
used = zmalloc.used
sizes = [*range(700), 1023, 1024, 4095, 4096, 65535, 65536, 2**20 - 64, 2**20, 2**20 + 1,
         2**24, 2**24 + 1, 2**25 + 5]
def figures(n):
    # each reading makes an int; their number is the same for each n
    a = used(); p = malloc(n)
    b = used(); p = realloc(p, n + 300)
    c = used(); p = realloc(p, n)
    d = used(); free(p)
    e = used(); p = calloc(1, n)
    f = used(); free(p)
    g = used()
    return b - a, c - b, d - c, e - d, f - e, g - f
figures(5000)
zero = figures(0)
assert zero[1] - zero[2] == 600, zero
wrong = []
for n in sizes:
    grown = [x - y for x, y in zip(figures(n), zero)]
    if grown != [n, 0, 0, -n, n, -n]:
        wrong.append((n, grown))
seen = zmalloc.audit()
assert seen.used == seen.counted, seen
print(wrong)
"""
    )
    assert snippet(code, env={"PYTHONMALLOC": mode}).value == []


PEAK = """
import gc, threading, zmalloc
gc.disable()
def peak_over(function):
    zmalloc.reset_peak()
    base = zmalloc.used()
    function()
    return zmalloc.peak() - base
"""


def near(value: int, expected: int) -> bool:
    """Apart by the small objects that are about: frames, ints, a bound method."""
    return expected <= value <= expected + 4096


def test_peak_is_the_largest_of_a_known_sequence() -> None:
    outcome = snippet(
        PEAK
        + """
def work():
    for size in (10_000, 5_000_000, 40_000, 3_000_000, 2_000_000):
        block = bytearray(size)
        block = None
print(peak_over(work))
"""
    )
    assert near(outcome.value, 5_000_000)


def test_peak_is_the_largest_sum_of_blocks_alive_together() -> None:
    outcome = snippet(
        PEAK
        + """
def work():
    a = bytearray(1_000_000); b = bytearray(2_000_000); del a; c = bytearray(700_000); del b
    d = bytearray(900_000)
print(peak_over(work))
"""
    )
    assert near(outcome.value, 3_000_000)


def test_growing_and_shrinking_by_realloc_makes_no_false_peak() -> None:
    """One signed difference: neither the old and the new block together, nor a dip."""
    outcome = snippet(
        PEAK
        + RAW_CALLS
        + """
malloc, calloc, realloc, free = calls("PyObject_")
def work():
    p = malloc(1_000_000)
    for size in (2_000_000, 3_000_000, 1_500_000, 10, 2_900_000, 400, 600, 512, 513):
        p = realloc(p, size)
    free(p)
print(peak_over(work))
"""
    )
    assert near(outcome.value, 3_000_000)


def test_a_list_that_grows_has_the_peak_of_its_last_array() -> None:
    """realloc of a list's array is one signed difference: no dip, and not old and new at once."""
    outcome = snippet(
        PEAK
        + """
items = []
def work():
    for n in range(400_000):
        items.append(None)
print([peak_over(work), items.__sizeof__() - list.__basicsize__])
"""
    )
    peak, array = outcome.value
    assert near(peak, array)


def test_peak_of_threads_together_is_their_sum() -> None:
    outcome = snippet(
        PEAK
        + """
barrier = threading.Barrier(8)
def hold():
    block = bytearray(1_000_000)
    barrier.wait()
    del block
    barrier.wait()
def work():
    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
stack = zmalloc.audit().stack
print([peak_over(work), zmalloc.stats().stack.allocations])
"""
    )
    peak, chunks = outcome.value
    small = 8 * 16384 + chunks * 16384 + 65536  # the threads' own objects and frame chunks
    assert 8_000_000 <= peak <= 8_000_000 + small


def test_reset_peak_begins_with_what_is_in_use() -> None:
    outcome = snippet("""
        import zmalloc
        block = bytearray(5_000_000)
        del block
        block = bytearray(1_000_000)
        high = zmalloc.peak()
        zmalloc.reset_peak()
        low = zmalloc.peak()
        print([high - zmalloc.used() > 3_900_000, 0 <= low - zmalloc.used() + 200 < 400])
        """)
    assert outcome.value == [True, True]


def test_peak_is_never_below_used_whatever_happens() -> None:
    outcome = snippet("""
        import random, zmalloc
        seed = random.randrange(2**32)
        print("seed", seed)
        choose = random.Random(seed)
        blocks, model = [], zmalloc.peak()
        for _ in range(20_000):
            if choose.random() < 0.01:
                zmalloc.reset_peak()
                model = 0
            if blocks and choose.random() < 0.5:
                blocks.pop(choose.randrange(len(blocks)))
            else:
                blocks.append(bytes(choose.randrange(5000)))
            now = zmalloc.used()
            model = max(model, now)
            assert zmalloc.peak() >= model, (zmalloc.peak(), model)
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        print(0)
        """)
    assert outcome.status == 0


def python_frames() -> str:
    return """
import sys, zmalloc
sys.setrecursionlimit(100_000)
def down(n):
    return down(n - 1) if n else zmalloc.audit()
shallow, deep, after = zmalloc.audit(), down(20_000), zmalloc.audit()
for seen in (shallow, deep, after):
    assert seen.used == seen.counted, seen
print([shallow.stack, deep.stack, after.stack, zmalloc.stats().stack.frees])
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="frames are ordinary blocks up to 3.10")
def test_frame_chunks_are_counted_as_stack_and_given_back() -> None:
    shallow, deep, after, frees = snippet(python_frames()).value
    assert deep - shallow > 1_000_000
    assert after <= shallow + 65536
    assert frees > 0


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="frames live in chunks from 3.11 on")
def test_frames_of_old_versions_are_counted_as_blocks() -> None:
    assert snippet(python_frames()).value[:3] == [0, 0, 0]


def outcome_of_threads(seed: int) -> Outcome:
    return snippet(f"""
        import random, threading, time, zmalloc
        print("seed", {seed})
        def churn(n):
            choose, blocks = random.Random({seed} * 100 + n), []
            for _ in range(3000):
                if blocks and choose.random() < 0.5:
                    blocks.pop(choose.randrange(len(blocks)))
                else:
                    blocks.append([None] * choose.randrange(3000))
        threads = [threading.Thread(target=churn, args=(n,)) for n in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        end = time.monotonic() + 10
        while True:
            seen = zmalloc.audit()
            if seen.used == seen.counted or time.monotonic() > end:
                break
        print([seen.used - seen.counted, zmalloc.peak() >= seen.used])
        """)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_threads_leave_counters_and_map_equal(seed: int) -> None:
    assert outcome_of_threads(seed).value == [0, True]
