"""Threads, forks, sub-interpreters and the end of the process.

ZMALLOC_TEST_SECONDS is how long the threads churn (30 for a full run).
"""

from __future__ import annotations

import os
import sys

import pytest

from .processes import MODES, Outcome, python, snippet

SECONDS = float(os.environ.get("ZMALLOC_TEST_SECONDS", "2"))

EQUAL = "\nseen = zmalloc.audit()\nassert seen.used == seen.counted, seen\n"

# A thread that has been joined may still be freeing its last RAW block.
SETTLED = """
import time, zmalloc
def settled():
    end = time.monotonic() + 10
    while True:
        seen = zmalloc.audit()
        if seen.used == seen.counted:
            return seen
        if time.monotonic() > end:
            raise AssertionError(seen)
"""


# ---- threads -------------------------------------------------------------------------------------

CHURN = (
    SETTLED
    + """
import random, sys, threading
stop, shared = threading.Event(), [[] for _ in range(8)]
sys.setswitchinterval(1e-4)
def deep(n): return deep(n - 1) + [n] if n else []
def churn(me):
    choose = random.Random(me)
    while not stop.is_set():
        what = choose.randrange(6)
        if what == 0:
            shared[me].append(bytearray(choose.randrange(20_000)))
        elif what == 1:
            shared[choose.randrange(8)].clear()          # what others have made
        elif what == 2:
            shared[me].append({n: str(n) for n in range(choose.randrange(100))})
        elif what == 3:
            deep(choose.randrange(150))
        elif what == 4 and shared[me]:
            try:
                shared[me][-1].extend(b"z" * choose.randrange(5000))
            except (AttributeError, IndexError):
                pass
        else:
            t = threading.Thread(target=shared[choose.randrange(8)].append, args=([me] * 50,))
            t.start(); t.join()
"""
)


@pytest.mark.parametrize("mode", ["pymalloc", "malloc_debug"])
def test_eight_threads_churning_are_counted_exactly(mode: str) -> None:
    snippet(
        CHURN
        + f"""
threads = [threading.Thread(target=churn, args=(n,)) for n in range(8)]
for t in threads: t.start()
end = time.monotonic() + {SECONDS}
while time.monotonic() < end:
    s = zmalloc.stats()
    assert 0 < s.used <= zmalloc.peak() and s.allocations > s.frees
    time.sleep(0.01)
stop.set()
for t in threads: t.join()
settled()
for kept in shared: kept.clear()
seen = settled()
s = zmalloc._core._figures()
assert s["used"] == sum(s[d][0] for d in ("raw", "mem", "obj", "stack")), s
assert seen.used < 3_000_000, seen
""",
        env={"PYTHONMALLOC": mode},
        timeout=120 + 3 * SECONDS,
    )


def test_what_a_thread_leaves_alive_is_counted_until_others_free_it() -> None:
    snippet(
        SETTLED
        + """
import threading
kept = []
def make():
    kept.append([bytearray(1000) for _ in range(1000)])
for _ in range(3):        # the first rounds warm up
    before = settled().used
    threads = [threading.Thread(target=make) for _ in range(10)]
    for t in threads: t.start()
    for t in threads: t.join()
    threads = t = None
    during = settled().used
    assert during - before >= 10_000_000
    kept.clear()
    after = settled().used
assert abs(after - before) < 20_000, (before, after)
"""
    )


def test_threads_that_come_and_go_leave_nothing() -> None:
    snippet(
        SETTLED
        + """
import threading
def round():
    for _ in range(200):
        t = threading.Thread(target=lambda: [bytes(n) for n in range(20)])
        t.start(); t.join()
    return settled().used
round()
before = round()
assert abs(round() - before) < 5000
s = zmalloc._core._figures()
assert s["used"] == sum(s[d][0] for d in ("raw", "mem", "obj", "stack")), s
"""
    )


# ---- the end of the process ----------------------------------------------------------------------


@pytest.mark.parametrize("cap", ["", "zmalloc.limit(zmalloc.used() + 2_000_000, seal=True)"])
@pytest.mark.parametrize("count", [1, 30])
def test_daemon_threads_may_live_until_the_end(cap: str, count: int) -> None:
    # CPython 3.10 with 30 such threads crashes at one end in twenty, without zmalloc, too.
    attempts = 5 if sys.version_info < (3, 11) else 1
    for attempt in range(1, attempts + 1):
        outcome = end_beside_daemon_threads(cap, count, may_be_killed=attempt < attempts)
        if outcome.status >= 0:
            break
    assert outcome.status == 5, outcome


def end_beside_daemon_threads(cap: str, count: int, *, may_be_killed: bool) -> Outcome:
    return python(
        "-c",
        f"""
import sys, threading, time, zmalloc
def churn():
    kept = []
    while True:
        try:
            kept.append(bytearray(3000))
        except MemoryError:
            kept.clear()
        if len(kept) > 100: kept.clear()
for _ in range({count}):
    threading.Thread(target=churn, daemon=True).start()
{cap}
time.sleep(0.2)
sys.exit(5)
""",
        timeout=60,
        may_be_killed=may_be_killed,
    )


def test_exit_functions_and_finalizers_are_counted_and_capped() -> None:
    outcome = python(
        "-c",
        """
import atexit, sys, zmalloc
class Late:
    def __del__(self):
        try:
            bytearray(50_000_000)
        except MemoryError:
            sys.__stdout__.write("refused\\n")
def at_exit():
    global late
    late = Late()
    assert zmalloc.is_installed()
    seen = zmalloc.audit()
    assert seen.used == seen.counted
    print("at exit", flush=True)
atexit.register(at_exit)
cycle = Late(); cycle.me = cycle
zmalloc.limit(zmalloc.used() + 5_000_000, seal=True)
""",
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out == "at exit\nrefused\nrefused\n"
    assert outcome.err == ""


@pytest.mark.parametrize("mode", MODES)
def test_the_import_as_the_very_last_thing_is_harmless(mode: str) -> None:
    snippet(
        """
        import atexit
        kept = [bytearray(n) for n in range(3000)]
        def last():
            import zmalloc
            assert zmalloc.is_installed()
            zmalloc.limit("1 GiB")
        atexit.register(last)
        """,
        env={"PYTHONMALLOC": mode},
    )


# ---- fork ----------------------------------------------------------------------------------------

FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")       # 3.12+ warns of a fork with threads
def in_child(function):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            function()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
@pytest.mark.parametrize("mode", MODES)
def test_a_forked_child_inherits_counters_caps_and_seal(mode: str) -> None:
    snippet(
        FORK
        + """
import zmalloc
kept = [bytearray(n) for n in range(3000)]
zmalloc.limit(30_000_000, seal=True)
zmalloc.limit(20_000_000)
scope = zmalloc.limit(15_000_000).__enter__()
try:
    bytearray(90_000_000)
except MemoryError:
    pass
used, peak, refused = zmalloc.used(), zmalloc.peak(), zmalloc.stats().refusals
def child():
    assert abs(zmalloc.used() - used) < 20_000
    assert zmalloc.peak() >= peak and zmalloc.stats().refusals == refused
    assert zmalloc.limit() == 15_000_000
    scope.__exit__(None, None, None)
    assert zmalloc.limit() == 20_000_000
    try:
        zmalloc.limit(30_000_001)
    except PermissionError:
        pass
    else:
        raise AssertionError
    try:
        bytearray(25_000_000)
    except MemoryError:
        pass
    else:
        raise AssertionError
    kept.clear()
    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen
    assert zmalloc.used() < used - 4_000_000
in_child(child)
assert zmalloc.limit() == 15_000_000 and zmalloc.used() > used - 20_000
scope.__exit__(None, None, None)
"""
        + EQUAL,
        env={"PYTHONMALLOC": mode},
    )


@needs_fork
def test_children_of_children_are_exact() -> None:
    snippet(
        FORK
        + """
import zmalloc
def generation(n):
    kept = [bytearray(10_000) for _ in range(20)]
    seen = zmalloc.audit()
    assert seen.used == seen.counted, (n, seen)
    if n:
        in_child(lambda: generation(n - 1))
    del kept
    seen = zmalloc.audit()
    assert seen.used == seen.counted, (n, seen)
generation(5)
"""
    )


@needs_fork
@pytest.mark.parametrize("mode", ["pymalloc", "malloc", "pymalloc_debug"])
def test_a_child_of_a_process_with_threads_is_exact(mode: str) -> None:
    """Other threads may be in the middle of anything, also of RAW calls without the GIL."""
    snippet(
        FORK
        + """
import hashlib, random, threading, time, zmalloc, zlib, bz2
stop = threading.Event()
def churn(n):
    choose, kept = random.Random(n), []
    data = bytes(choose.randrange(256) for _ in range(5000))
    while not stop.is_set():
        kept.append([None] * choose.randrange(2000))
        zlib.compress(data)           # RAW, while the GIL is released
        bz2.compress(data[:500])
        if len(kept) > 50: kept.clear()
threads = [threading.Thread(target=churn, args=(n,)) for n in range(6)]
for t in threads: t.start()
def child():
    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen
    kept = [bytearray(n) for n in range(500)]
    t = threading.Thread(target=kept.clear); t.start(); t.join()
    end = time.monotonic() + 10
    while True:
        seen = zmalloc.audit()
        if seen.used == seen.counted or time.monotonic() > end: break
    assert seen.used == seen.counted, seen
    s = zmalloc._core._figures()
    assert s["used"] == sum(s[d][0] for d in ("raw", "mem", "obj", "stack")), s
    with zmalloc.limit(zmalloc.used() + 3_000_000):
        try:
            bytearray(9_000_000)
        except MemoryError:
            return
        raise AssertionError
for _ in range(60):
    in_child(child)
stop.set()
for t in threads: t.join()
""",
        env={"PYTHONMALLOC": mode},
        timeout=180,
    )


@needs_fork
def test_a_fork_while_other_threads_set_limits_does_not_hang() -> None:
    snippet(
        FORK
        + """
import threading, zmalloc
stop = threading.Event()
def limits():
    while not stop.is_set():
        with zmalloc.limit("50 GiB"):
            zmalloc.stats()
threads = [threading.Thread(target=limits) for _ in range(4)]
for t in threads: t.start()
def child():
    for _ in range(20):
        with zmalloc.limit("40 GiB"):
            assert zmalloc.limit() == 40 * 2**30
            zmalloc.stats()
for _ in range(60):
    in_child(child)
stop.set()
for t in threads: t.join()
"""
        + EQUAL,
        timeout=60,
    )


SCRIPT = """
import multiprocessing, os, sys, zmalloc
def work(n):
    block = bytearray(1_000_000)
    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen
    return zmalloc.limit(), zmalloc.used() > 1_000_000, zmalloc.is_installed()
if __name__ == "__main__":
    zmalloc.limit("300 MiB")
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(sorted(set(pool.map(work, range(20))), key=repr))
    seen = zmalloc.audit()
"""


@pytest.mark.parametrize(
    ("method", "limit"), [("fork", 300 * 2**20), ("spawn", None), ("forkserver", None)]
)
@pytest.mark.parametrize("variable", [None, "200 MiB"])
def test_multiprocessing_counts_in_every_child(
    method: str, limit: int | None, variable: str | None, tmp_path: object
) -> None:
    script = f"{tmp_path}/script.py"
    with open(script, "w", encoding="utf-8") as file:
        file.write(SCRIPT.replace('"300 MiB"', '"150 MiB"' if variable else '"300 MiB"'))
    outcome: Outcome = python(script, method, env={"ZMALLOC_LIMIT": variable})
    assert outcome.status == 0, outcome.err
    expected = limit
    if variable:  # forked children inherit the cap, the others have only the variable
        expected = 150 * 2**20 if method == "fork" else 200 * 2**20
    assert outcome.value == [(expected, True, True)]


def test_a_subprocess_inherits_only_the_variable() -> None:
    snippet("""
        import subprocess, sys, zmalloc
        zmalloc.limit("70 MiB")
        code = "import zmalloc; print(zmalloc.limit())"
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "None\\n"
        """)


# ---- sub-interpreters ----------------------------------------------------------------------------

INTERPRETERS = (
    SETTLED
    + """
import os, sys, threading
def failed(error):                         # a thread's failure is the process's
    sys.__excepthook__(*error[:3])
    os._exit(1)
threading.excepthook = failed
try:
    import _interpreters as api            # 3.13
except ImportError:
    import _xxsubinterpreters as api
def create(own_gil=False):
    if sys.version_info >= (3, 13):
        return api.create("isolated" if own_gil else "legacy")
    return api.create(isolated=own_gil)
def run(interpreter, code):
    failed = api.run_string(interpreter, code)
    assert failed is None, failed
def in_new(code, own_gil=False):
    interpreter = create(own_gil)
    try:
        run(interpreter, code)
    finally:
        api.destroy(interpreter)
"""
)

# Up to 3.11 a sub-interpreter cannot have a GIL of its own.
KINDS = [False, True] if sys.version_info >= (3, 12) else [False]


@pytest.mark.parametrize("own_gil", KINDS)
@pytest.mark.parametrize("imports", [False, True])
def test_sub_interpreters_made_and_destroyed_a_hundred_times(own_gil: bool, imports: bool) -> None:
    """CPython itself keeps some of each: the audit is the judge."""
    code = "kept = [bytearray(n) for n in range(300)]\n"
    if imports:
        code += (
            "import zmalloc\nassert zmalloc.is_installed() and zmalloc.used() > 0\n"
            "with zmalloc.limit('50 GiB'):\n    assert zmalloc.limit() == 50 * 2**30\n"
            "seen = zmalloc.audit()\nassert seen.used == seen.counted, seen\n"
        )
    snippet(
        INTERPRETERS
        + f"""
for n in range(100):
    in_new({code!r}, {own_gil})
    if n % 10 == 0:
        settled()
    if n == 50:
        half = settled().used
seen = settled()
assert zmalloc.limit() is None
assert (seen.used - half) / 49 < 300_000, (seen.used - half) / 49
assert zmalloc.is_installed()
s = zmalloc._core._figures()
assert s["used"] == sum(s[d][0] for d in ("raw", "mem", "obj", "stack")), s
kept = [bytearray(n) for n in range(1000)]
del kept
settled()
""",
        timeout=300,
    )


def test_all_interpreters_share_one_account_and_one_cap() -> None:
    snippet(
        INTERPRETERS
        + """
cap = zmalloc.used() + 40_000_000
zmalloc.limit(cap, reserve=0)
in_new(f'''
import zmalloc
assert zmalloc.limit() == {cap}
before = zmalloc.used()
try:
    bytearray(60_000_000)
except MemoryError:
    pass
else:
    raise AssertionError
zmalloc.limit({cap} - 1000)
''')
assert zmalloc.limit() == cap - 1000, "a bare limit is the process's"
zmalloc.limit(None)
settled()
"""
    )


def test_callbacks_are_the_main_interpreters() -> None:
    snippet(
        INTERPRETERS
        + """
in_new('''
import zmalloc
try:
    zmalloc.on_pressure(print)
except RuntimeError as error:
    assert "main interpreter only" in str(error)
else:
    raise AssertionError
''')
"""
    )


@pytest.mark.parametrize("own_gil", KINDS)
def test_a_scope_that_an_interpreter_never_left_ends_with_it(own_gil: bool) -> None:
    snippet(
        INTERPRETERS
        + f"""
for n in range(20):
    in_new('''
import zmalloc
scope = zmalloc.limit("50 GiB")
scope.__enter__()
class Cycle: pass
one = Cycle(); one.me = one; one.scope = zmalloc.limit("60 GiB").__enter__()
def generator():
    with zmalloc.limit("70 GiB"):
        yield
g = generator(); next(g)
''', {own_gil})
    assert zmalloc.limit() is None, n
settled()
"""
    )


@pytest.mark.parametrize("own_gil", KINDS)
def test_the_environment_is_obeyed_once(own_gil: bool) -> None:
    """What a program puts into its environment for its children does not cap the program itself."""
    snippet(
        INTERPRETERS
        + f"""
import os
os.environ["ZMALLOC_LIMIT"] = "90 MiB"
in_new("import zmalloc", {own_gil})
assert zmalloc.limit() is None
"""
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a GIL of its own is new in 3.12")
@pytest.mark.parametrize("mode", ["pymalloc", "malloc", "pymalloc_debug"])
def test_interpreters_with_their_own_gil_allocate_at_once(mode: str) -> None:
    snippet(
        INTERPRETERS
        + """
import threading
code = '''
import random, zmalloc
choose, kept = random.Random(SEED), []
for n in range(30_000):
    kept.append(bytearray(choose.randrange(3000)) if n % 3 else [n] * choose.randrange(50))
    if len(kept) > 200:
        del kept[::2]
'''
for round in range(3):
    ids = [create(True) for _ in range(3)]
    threads = [threading.Thread(target=run, args=(i, code.replace("SEED", str(n))))
               for n, i in enumerate(ids)]
    for t in threads: t.start()
    while any(t.is_alive() for t in threads):
        assert zmalloc.peak() >= zmalloc.used() - 5_000_000
        bytearray(50_000)
    for t in threads: t.join()
    settled()
    for i in ids: api.destroy(i)
    settled()
s = zmalloc._core._figures()
assert s["used"] == sum(s[d][0] for d in ("raw", "mem", "obj", "stack")), s
""",
        env={"PYTHONMALLOC": mode},
        timeout=180,
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a GIL of its own is new in 3.12")
def test_a_cap_holds_over_interpreters_that_run_at_once() -> None:
    snippet(
        INTERPRETERS
        + """
import threading
ids = [create(True) for _ in range(3)]
code = '''
kept = []
for n in range(20_000):
    try:
        kept.append(bytearray(5000))
    except MemoryError:
        kept.clear()
'''
for i in ids: run(i, "pass")
gate = threading.Lock()
def work(i):
    with gate:
        pass
    try:
        run(i, code)
    except Exception as error:         # the loop's own int is refused, too
        assert "MemoryError" in str(error), error
threads = [threading.Thread(target=work, args=(i,)) for i in ids]
with gate:
    # before the cap: where CPython has no memory to start a thread, start() waits for ever
    for t in threads: t.start()
    cap = zmalloc.used() + 20_000_000
    zmalloc.reset_peak()
    zmalloc.limit(cap, reserve=0)
for t in threads: t.join()
zmalloc.limit(None)
assert zmalloc.peak() <= cap, (zmalloc.peak(), cap)
assert zmalloc.stats().refusals > 0
for i in ids: api.destroy(i)
settled()
""",
        timeout=120,
    )


@pytest.mark.parametrize("tool", ["", "import tracemalloc\n"])
@pytest.mark.parametrize("own_gil", KINDS)
def test_the_first_import_may_be_made_by_a_sub_interpreter(own_gil: bool, tool: str) -> None:
    """One with a GIL of its own cannot import _tracemalloc, to be asked whether it runs."""
    code = INTERPRETERS.replace("import time, zmalloc\n", "import time\n")
    snippet(f"{tool}{code}\nin_new('import zmalloc; assert zmalloc.is_installed()', {own_gil})\n")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a GIL of its own is new in 3.12")
def test_the_first_import_may_be_made_by_several_interpreters_at_once() -> None:
    code = (
        INTERPRETERS.replace("import time, zmalloc\n", "import time\n")
        + """
import threading
ids = [create(True) for _ in range(4)]
for i in ids: run(i, "import sys, os, types")
threads = [threading.Thread(target=run, args=(i, "import zmalloc; assert zmalloc.is_installed()"))
           for i in ids]
for t in threads: t.start()
for t in threads: t.join()
import zmalloc
settled()
s = zmalloc.stats()
assert s.total == s.used, "registered once"
for i in ids: api.destroy(i)
settled()
"""
    )
    for _ in range(5):
        snippet(code)
