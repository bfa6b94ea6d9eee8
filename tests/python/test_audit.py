"""The map of live blocks and the counters agree, after whatever, in every mode CPython has.

ZMALLOC_TEST_OPS is the number of operations of the long random sequence (1000000 for a full run).
"""

from __future__ import annotations

import os
import random
import sys

import pytest
import zmalloc

from .processes import MODES, snippet

OPERATIONS = int(os.environ.get("ZMALLOC_TEST_OPS", "200000"))

# Operations on objects and on the allocators themselves; audited all along.
SEQUENCE = """
import ctypes, gc, random, sys
foreign = [bytearray(random.randrange(1000)) for _ in range(500)] + [[n] for n in range(500)]
import zmalloc
seed, operations = int(sys.argv[1]), int(sys.argv[2])
choose = random.Random(seed)
from ctypes import c_size_t, c_void_p
def calls(domain):
    made = []
    for name, result, arguments in (("Malloc", c_void_p, [c_size_t]),
                                    ("Calloc", c_void_p, [c_size_t, c_size_t]),
                                    ("Realloc", c_void_p, [c_void_p, c_size_t]),
                                    ("Free", None, [c_void_p])):
        function = getattr(ctypes.pythonapi, domain + name)
        function.restype, function.argtypes = result, arguments
        made.append(function)
    return made
DOMAINS = [calls(name) for name in ("PyMem_Raw", "PyMem_", "PyObject_")]
SIZES = (0, 1, 15, 16, 17, 100, 248, 249, 250, 251, 500, 512, 513, 1000, 5000, 70_000, 1_100_000)
WEIGHTS = (1, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 1, 0.2, 0.02)
blocks, objects = [], []
class Plain: pass

def malloc():
    d = choose.choice(DOMAINS)
    blocks.append((d, d[0](choose.choices(SIZES, WEIGHTS)[0])))
def calloc():
    d = choose.choice(DOMAINS)
    blocks.append((d, d[1](choose.randrange(5), choose.randrange(300))))
def realloc():
    if blocks:
        at = choose.randrange(len(blocks))
        d, p = blocks[at]
        blocks[at] = d, d[2](p, choose.choices(SIZES, WEIGHTS)[0])
def free():
    if blocks:
        at = choose.randrange(len(blocks))
        d, p = blocks[at]
        blocks[at] = blocks[-1]
        blocks.pop()
        d[3](p)
def impossible():
    d = choose.choice(DOMAINS)
    assert d[0](2**62) is None and d[1](2**40, 2**40) is None and d[2](None, 2**62) is None
    if blocks:
        d, p = choose.choice(blocks)
        assert d[2](p, 2**62) is None
def make():
    n = choose.randrange(200)
    objects.append((
        lambda: [n] * n, lambda: {x: str(x) for x in range(n)}, lambda: "é" * n, lambda: n ** n,
        lambda: Plain(), lambda: bytearray(n * 100), lambda: (n, [n]), lambda: set(range(n)),
        lambda: (x for x in range(n)), lambda: type("T", (), {"n": n}), lambda: n / 3,
    )[choose.randrange(11)]())
def cycle():
    one, other = Plain(), Plain()
    one.other, other.one, one.load = other, one, [0] * choose.randrange(100)
def drop():
    if objects:
        objects.pop(choose.randrange(len(objects)))
def drop_many():
    del objects[len(objects) // 2:]
    while len(blocks) > 300: free()
def adopt():
    if foreign:
        one = foreign[choose.randrange(len(foreign))]
        one.extend(b"x" * choose.randrange(300)) if choose.random() < 0.6 else one.__init__()
def unforeign():
    if foreign:
        foreign.pop(choose.randrange(len(foreign)))
def collect(): gc.collect(choose.randrange(3))
WORK = (malloc, calloc, realloc, free, make, drop, cycle, adopt, impossible, drop_many, unforeign,
        collect)
ODDS = (20, 5, 20, 19, 15, 10, 5, 2, 0.1, 0.02, 0.3, 0.1)

def check():
    seen = zmalloc.audit()
    assert seen.used == seen.counted, (seed, seen)
    figures = zmalloc._core._figures()
    balance = sum(figures[d][1] - figures[d][2] for d in ("raw", "mem", "obj"))
    return seen.blocks, balance

every = max(1, operations // 40)
for n in range(0, operations, every):
    for work in choose.choices(WORK, ODDS, k=every):
        work()
    check()
# everything goes; what is left is what was there
for d, p in blocks: d[3](p)
blocks.clear(); objects.clear(); foreign.clear(); gc.collect()
seen = zmalloc.audit()
assert seen.used == seen.counted, (seed, seen)
assert zmalloc.is_installed()
print(seen.used)
"""

VARIANTS = [
    *(pytest.param((), {"PYTHONMALLOC": mode}, id=mode) for mode in MODES),
    pytest.param(("-X", "dev"), {}, id="-X dev"),
    pytest.param(("-X", "tracemalloc"), {}, id="-X tracemalloc"),
    pytest.param(("-X", "tracemalloc=5"), {"PYTHONMALLOC": "debug"}, id="-X tracemalloc=5, debug"),
]


@pytest.mark.parametrize(("options", "env"), VARIANTS)
def test_a_long_random_sequence_leaves_counters_and_map_equal(
    options: tuple[str, ...], env: dict[str, str]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    # The debug allocators and tracemalloc take several times as long.
    operations = OPERATIONS // (4 if options or "debug" in env.get("PYTHONMALLOC", "") else 1)
    left = snippet(
        SEQUENCE, str(seed), str(operations), options=options, env=env, timeout=900
    ).value
    # tracemalloc's own table is not small
    assert left < 3_000_000, "what was freed is still counted"


@pytest.mark.parametrize(("options", "env"), VARIANTS)
def test_threads_that_churn_leave_counters_and_map_equal(
    options: tuple[str, ...], env: dict[str, str]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    code = f"""
        import random, threading, time, zmalloc
        def settled():
            # a joined thread's last RAW free may still be under way
            end = time.monotonic() + 10
            while True:
                seen = zmalloc.audit()
                if seen.used == seen.counted or time.monotonic() > end:
                    return seen
        shared = []
        def churn(n):
            choose = random.Random({seed} + n)
            for _ in range(1500):
                shared.append([None] * choose.randrange(400))
                shared.append(bytearray(choose.randrange(3000)))
                if choose.random() < 0.2:
                    del shared[len(shared) // 2:]       # what other threads have made
        for _ in range(3):
            threads = [threading.Thread(target=churn, args=(n,)) for n in range(6)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            seen = settled()
            assert seen.used == seen.counted, seen
        shared.clear()
        seen = settled()
        assert seen.used == seen.counted, seen
        """
    snippet(code, options=options, env=env)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_counted_from_the_import_on(mode: str) -> None:
    snippet(
        """
        import zmalloc
        assert zmalloc.is_installed()
        def grow():
            before = zmalloc.used()
            block = bytearray(1_000_000)
            grown = zmalloc.used() - before
            del block
            return grown, zmalloc.used() - before
        grown, left = grow()
        assert 1_000_000 < grown < 1_000_400 and 0 <= left < 400, (grown, left)
        """,
        env={"PYTHONMALLOC": mode},
    )


def test_the_audit_counts_a_thousand_more_blocks_for_a_thousand() -> None:
    keep = [b""] * 1000
    zmalloc.audit()
    before = zmalloc.audit()
    for n in range(1000):
        keep[n] = bytes(967)  # 33 bytes more with the object's head
    after = zmalloc.audit()
    assert 1000 <= after.blocks - before.blocks <= 1050
    assert 1_000_000 <= after.used - before.used <= 1_020_000


def test_an_audit_is_frozen_and_compares_by_value() -> None:
    seen = zmalloc.audit()
    with pytest.raises(AttributeError, match="read-only"):
        seen.used = 5
    with pytest.raises(AttributeError, match="read-only"):
        del seen.used
    with pytest.raises(AttributeError):
        seen.other = 5
    same = zmalloc.Audit(seen.used, seen.counted, seen.stack, seen.blocks)
    assert same == seen
    assert hash(same) == hash(seen)
    assert zmalloc.Audit(0, 0, 0, 0) != seen
    assert seen.as_dict() == {
        "used": seen.used,
        "counted": seen.counted,
        "stack": seen.stack,
        "blocks": seen.blocks,
    }
    assert repr(seen).startswith("Audit(used=")


def test_stack_is_a_part_of_used() -> None:
    seen = zmalloc.audit()
    assert 0 <= seen.stack <= seen.used


# ---- no memory for the map -----------------------------------------------------------------------

#: A block of BLOCK bytes can be had then, but no leaf of the map for where it begins.
NO_LEAF = """
import resource, zmalloc
MIB = 1 << 20
BLOCK = 64 * MIB                 # begins where the map has no leaf yet
def room(n):
    pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + n + MIB // 2, resource.RLIM_INFINITY))
def free():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
def look(untracked):
    free()
    seen, s = zmalloc.audit(), zmalloc.stats()
    assert seen.used == seen.counted, seen
    assert s.untracked == untracked, s.untracked
    return s.used
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS as Linux has it")
@pytest.mark.parametrize("mode", MODES[:2])
def test_a_block_that_the_map_has_no_room_for_is_nobodys_or_refused(mode: str) -> None:
    """Uncapped it is not counted; under a cap it must not exist."""
    snippet(
        NO_LEAF
        + """
before = look(0)
for n, make in enumerate((bytearray, bytes), 1):
    room(BLOCK)
    block = make(BLOCK)
    assert abs(look(n) - before) < 10_000
    del block
    assert abs(look(n) - before) < 10_000
small = bytearray(BLOCK // 3)
assert look(2) - before > BLOCK // 4
room(BLOCK - BLOCK // 3)
small *= 3
assert abs(look(3) - before) < 10_000
del small
assert abs(look(3) - before) < 10_000
with zmalloc.limit("1 GiB"):
    for make in (bytearray, bytes):
        room(BLOCK)
        try:
            make(BLOCK)
        except MemoryError:
            free()
        else:
            raise AssertionError
    assert abs(look(3) - before) < 10_000
free()
block = bytearray(BLOCK)
assert look(3) - before > BLOCK
""",
        env={"PYTHONMALLOC": mode},
    )
