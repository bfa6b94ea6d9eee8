"""stats(), and that every figure in it is right."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import threading
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import zmalloc

from .processes import MODES, snippet

DOMAINS = ("raw", "mem", "obj", "stack")


def test_every_field_has_its_type() -> None:
    s = zmalloc.stats()
    for name in (
        "used",
        "total",
        "peak",
        "reserve",
        "allocations",
        "frees",
        "refusals",
        "untracked",
    ):
        assert type(getattr(s, name)) is int, name
    for name in ("reinstalled", "held", "rss"):
        assert type(getattr(s, name)) is int, name
    for name in ("limit", "hard_limit", "held_limit"):
        assert getattr(s, name) is None, name
    assert type(s.limit_hit) is bool
    assert type(s.fragmentation) is float
    assert type(s.core) is str
    for name in DOMAINS:
        domain = getattr(s, name)
        assert type(domain) is zmalloc.Domain
        for figure in ("used", "allocations", "frees", "refusals"):
            assert type(getattr(domain, figure)) is int, (name, figure)


def test_stats_are_frozen() -> None:
    s = zmalloc.stats()
    for owner in (s, s.obj):
        with pytest.raises(AttributeError, match="read-only"):
            owner.used = 5
        with pytest.raises(AttributeError, match="read-only"):
            del owner.used
        with pytest.raises(AttributeError):
            owner.colour = 5


def test_as_dict_is_complete_and_fit_for_json() -> None:
    s = zmalloc.stats()
    plain = s.as_dict()
    assert set(plain) == set(zmalloc.Stats.__annotations__)
    for name in DOMAINS:
        assert set(plain[name]) == set(zmalloc.Domain.__annotations__)
    again = json.loads(json.dumps(plain))
    assert again == plain
    for name, value in plain.items():
        mine = getattr(s, name)
        assert value == (mine.as_dict() if hasattr(mine, "as_dict") else mine)


def test_print_shows_a_table_with_every_figure() -> None:
    s = zmalloc.stats()
    text = str(s)
    lines = text.splitlines()
    for name in (
        "used",
        "peak",
        "limit",
        "hard limit",
        "total",
        "held",
        "rss",
        "fragmentation",
        "allocations",
        "frees",
        "refusals",
        "last refused",
        "untracked",
        "reinstalled",
        "core",
    ):
        assert any(line.startswith(name) for line in lines), name
    for name in DOMAINS:
        assert any(line.split()[0] == name for line in lines[-4:]), name
    for figure in (s.used, s.peak, s.total, s.held, s.rss, s.allocations, s.frees, s.obj.used):
        assert f"{figure:,}" in text
    assert all(len(line) <= 80 for line in lines if not line.startswith(("last refused", "core")))
    assert repr(s).startswith("Stats(used=")


def test_stats_compare_and_hash_by_value() -> None:
    s = zmalloc.stats()
    bytearray(5_000_000)
    other = zmalloc.stats()
    assert s == s
    assert s != other
    assert s != s.as_dict()
    assert hash(s) == hash(s)
    domain = zmalloc.Domain(s.obj.used, s.obj.allocations, s.obj.frees, s.obj.refusals)
    assert domain == s.obj
    assert hash(domain) == hash(s.obj)
    assert len({domain, s.obj, s.mem}) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_stats_can_be_sent_to_another_process_and_copied(protocol: int) -> None:
    s = zmalloc.stats()
    assert pickle.loads(pickle.dumps(s, protocol)) == s
    assert copy.copy(s) == s
    assert copy.deepcopy(s) == s
    seen = zmalloc.audit()
    assert pickle.loads(pickle.dumps(seen, protocol)) == seen


def test_the_domains_add_up() -> None:
    s = zmalloc.stats()
    domains = [getattr(s, name) for name in DOMAINS]
    assert sum(d.allocations for d in domains) == s.allocations
    assert sum(d.frees for d in domains) == s.frees
    assert sum(d.refusals for d in domains) == s.refusals


CONSISTENT = """
import zmalloc
def check():
    f = zmalloc._core._figures
    s = f()
    assert s["used"] == sum(s[d][0] for d in ("raw", "mem", "obj", "stack")), s
    # the dict that stats() makes itself is not in it yet, but is when the audit comes
    a, s, b = zmalloc._core._audit(), f(), zmalloc._core._audit()
    live = sum(s[d][1] - s[d][2] for d in ("raw", "mem", "obj"))
    assert a[3] <= live <= b[3], (a, live, b)
    assert live - a[3] <= 5, (a, live)      # a's own tuple and ints
    assert s["stack"][0] == a[2]
check()
keep = [bytearray(n * 100) for n in range(100)] + [str(n) * n for n in range(100)]
check()
for block in keep[:100]:
    block.extend(bytes(2000))
    del block[50:]
check()
keep.clear()
check()
"""


@pytest.mark.parametrize("mode", MODES)
def test_allocations_less_frees_are_the_live_blocks(mode: str) -> None:
    snippet(CONSISTENT, env={"PYTHONMALLOC": mode})


def test_a_realloc_is_neither_an_allocation_nor_a_free() -> None:
    snippet("""
        import ctypes, gc, zmalloc
        gc.disable()
        api = ctypes.pythonapi
        for prefix, domain in (("PyMem_Raw", "raw"), ("PyMem_", "mem"), ("PyObject_", "obj")):
            names = ("Malloc", "Realloc", "Free")
            malloc, realloc, free = (getattr(api, prefix + name) for name in names)
            for f in (malloc, realloc):
                f.restype = ctypes.c_void_p
            malloc.argtypes, free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
            realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
            free.restype = None
            def figures():
                f = zmalloc._core._figures()[domain]
                return f[1] , f[2]
            def round_of(sizes):
                before = figures()
                p = malloc(1000)
                for size in sizes:
                    p = realloc(p, size)
                free(p)
                after = figures()
                return after[0] - before[0], after[1] - before[1]
            few, many = (900, 800), (900, 800) * 50
            round_of(many)
            a, b = round_of(few), round_of(many)
            # each call of realloc makes ctypes objects in MEM and OBJ, always freed: the balance is
            # what counts there; RAW has no others
            if domain == "raw":
                assert a == b == (1, 1), (a, b)
            else:
                assert a[0] - a[1] == b[0] - b[1], (domain, a, b)
        """)


REFUSED = """
import sys, threading, zmalloc
def ask():
    try:
        bytearray(77_777_777)      # line 5
    except MemoryError:
        return
before = zmalloc.stats()
assert before.last_refused is None and not before.limit_hit and before.refusals == 0
zmalloc.limit(zmalloc.used() + 3_000_000)
"""


def check_refused(code: str, line: int) -> None:
    snippet(
        REFUSED
        + code
        + f"""
s = zmalloc.stats()
zmalloc.limit(None)
last = s.last_refused
assert type(last) is zmalloc.Refusal, last
assert 77_777_777 <= last.bytes <= 77_777_800, last
assert (last.file, last.line) == ("<string>", {line}), last
assert s.limit_hit and s.refusals == 1 == sum(d.refusals for d in (s.raw, s.mem, s.obj, s.stack)), s
assert "77,777,77" in str(s) and "<string>:{line}" in str(s)
assert s.as_dict()["last_refused"] == {{"bytes": last.bytes, "file": "<string>", "line": {line}}}
after = zmalloc.stats()
assert after.limit_hit, "sticky"
assert after.last_refused == last and hash(after.last_refused) == hash(last)
"""
    )


def test_last_refused_tells_the_line_in_the_main_thread() -> None:
    check_refused("ask()", 5)


def test_last_refused_tells_the_line_in_another_thread() -> None:
    check_refused("t = threading.Thread(target=ask); t.start(); t.join()", 5)


def test_last_refused_tells_the_line_of_a_call_over_several() -> None:
    code = "try:\n    x = [\n        1,\n        bytearray(77_777_777),\n    ]\n"
    code += "except MemoryError: pass"
    check_refused(code, 14)


def test_last_refused_knows_generators_lambdas_and_comprehensions() -> None:
    check_refused(
        "try:\n    list(bytearray(77_777_777)\n         for _ in 'abc')\nexcept MemoryError: pass",
        12,
    )
    check_refused(
        "try:\n    (lambda: (\n        bytearray(77_777_777)))()\nexcept MemoryError: pass", 13
    )


def test_last_refused_keeps_the_end_of_a_very_long_name() -> None:
    name = "/very" * 200 + "/end.py"
    snippet(f"""
        import zmalloc
        code = compile("\\n\\nbytearray(50_000_000)", {name!r}, "exec")
        zmalloc.limit(zmalloc.used() + 3_000_000)
        try:
            exec(code)
        except MemoryError:
            pass
        last = zmalloc.stats().last_refused
        assert last.line == 3 and {name!r}.endswith(last.file) and len(last.file) > 200, last
        """)


@pytest.mark.parametrize("name", ["é.py", "日本.py", "😀.py", "\udcff.py", "", "a\nb.py"])
def test_last_refused_takes_any_file_name(name: str) -> None:
    snippet(f"""
        import json, zmalloc
        # compile() itself takes no lone surrogates
        code = compile("bytearray(50_000_000)", "x", "exec").replace(co_filename={name!r})
        zmalloc.limit(zmalloc.used() + 3_000_000)
        try:
            exec(code)
        except MemoryError:
            pass
        s = zmalloc.stats()
        assert s.last_refused.file in ({name!r}, None), s.last_refused
        assert s.last_refused.bytes >= 50_000_000
        json.dumps(s.as_dict()), str(s)
        """)


def test_rss_is_what_the_system_tells() -> None:
    block = bytearray(b"x") * 50_000_000
    mine, theirs = zmalloc.rss(), psutil.Process().memory_info().rss
    assert abs(mine - theirs) < 4 * 2**20
    assert mine > len(block)
    assert abs(zmalloc.stats().rss - mine) < 4 * 2**20


def test_fragmentation_is_rss_over_total() -> None:
    s = zmalloc.stats()
    assert s.fragmentation == pytest.approx(s.rss / s.total)


def test_total_is_used_while_python_is_the_only_account() -> None:
    values = [(zmalloc.used(), zmalloc.total()) for _ in range(10)]
    assert all(abs(used - total) < 200 for used, total in values)
    s = zmalloc.stats()
    assert s.total == s.used


def test_the_first_refusals_are_counted_one_by_one() -> None:
    snippet("""
        import zmalloc
        zmalloc.limit(zmalloc.used() + 3_000_000)
        for n in range(1, 51):
            try:
                bytearray(10_000_000)
            except MemoryError:
                pass
            assert zmalloc._core._figures()["refusals"] == n
        """)


def test_without_hooks_every_figure_is_nothing() -> None:
    snippet(
        """
        import zmalloc
        s = zmalloc.stats()
        assert (s.used, s.total, s.peak, s.allocations, s.frees, s.held) == (0,) * 6, s
        assert s.fragmentation is None and s.limit is None and s.rss > 0
        a = zmalloc.audit()
        assert (a.used, a.counted, a.stack, a.blocks) == (0, 0, 0, 0)
        str(s), s.as_dict(), hash(s)
        """,
        env={"ZMALLOC_NO_INSTALL": "1"},
    )


def test_figures_may_be_read_from_any_thread_at_any_time() -> None:
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                s = zmalloc.stats()
                assert s.peak >= 0
                assert s.allocations >= s.frees
                str(s)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    for n in range(300):
        _ = [bytes(n) for n in range(n)]
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures


def test_used_and_peak_and_total_take_no_arguments() -> None:
    functions: tuple[Any, ...] = (
        zmalloc.used,
        zmalloc.peak,
        zmalloc.total,
        zmalloc.rss,
        zmalloc.reset_peak,
        zmalloc.stats,
        zmalloc.audit,
        zmalloc.is_installed,
        zmalloc.install,
    )
    for function in functions:
        with pytest.raises(TypeError):
            function(1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="frames are ordinary blocks up to 3.10")
def test_refused_frame_chunks_are_refusals_of_the_domain_stack() -> None:
    snippet("""
        import sys, zmalloc
        sys.setrecursionlimit(10**6)
        def down():
            return down()
        keep = [down] * 9   # 3.11 drops the function twice when it gets no frame for it
        zmalloc.limit(zmalloc.used() + 500_000, reserve=0)
        try:
            down()
        except (MemoryError, SystemError, RecursionError):
            pass
        zmalloc.limit(None)
        s = zmalloc.stats()
        assert s.stack.refusals >= 1 and s.refusals >= s.stack.refusals, s
        """)


def test_the_maps_memory_goes_back_with_the_arenas() -> None:
    """A sixteenth of 180 MiB would stay resident, 11 MiB."""
    snippet("""
        import gc, zmalloc
        start = zmalloc.rss()
        kept = [bytes(40) for _ in range(2_000_000)]
        grown = zmalloc.rss() - start
        del kept
        gc.collect()
        left = zmalloc.rss() - start
        assert grown > 150 << 20 and left < 7 << 20, (grown, left)
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        """)
