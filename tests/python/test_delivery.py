"""LimitError: when it comes, to whom, and what it says."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest
import zmalloc

from .processes import python, snippet

KIB, MIB, GIB = 2**10, 2**20, 2**30


@pytest.fixture(autouse=True)
def ends_uncapped(steady: None) -> Iterator[None]:
    yield
    zmalloc.limit(None)


def run_away() -> None:
    kept = []
    while True:
        kept.append([0] * 10)


# ---- the error -----------------------------------------------------------------------------------


def test_a_limit_error_is_a_memory_error_that_says_its_figures() -> None:
    n = zmalloc.used() + 300_000
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.limit(n):
        run_away()
    error = caught.value
    assert isinstance(error, MemoryError)
    assert (error.limit, error.hard_limit, error.scope) == (n, n + MIB, "limit")
    assert error.used is not None
    assert n < error.used < n + 100_000
    assert error.requested is not None
    assert 0 < error.requested < 100_000
    assert error.file == __file__[-256:]
    assert error.line == run_away.__code__.co_firstlineno + 3
    text = str(error)
    place = f" requested at {__file__[-256:]}:{error.line}"
    for part in ("limit of ", " in use, ", place, "(hard"):
        assert part in text
    caught.value.__traceback__ = None


def test_the_message_of_an_error_that_came_from_a_with_names_no_request() -> None:
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.budget("64 KiB"):
        block = b"a" * 700_000
    assert "requested" not in str(caught.value)
    assert caught.value.requested == 0
    assert len(block) == 700_000
    caught.value.__traceback__ = None


def test_an_error_can_be_pickled_copied_and_made_by_hand() -> None:
    with pytest.raises(zmalloc.LimitError) as caught, zmalloc.budget(100_000):
        run_away()
    error = caught.value
    error.__traceback__ = None
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is zmalloc.LimitError
        assert (str(other), other.used, other.line) == (str(error), error.used, error.line)
    plain = zmalloc.LimitError("by hand")
    assert (str(plain), plain.used, plain.limit, plain.file) == ("by hand", None, None, None)
    assert zmalloc.LimitError().args == ()


def test_a_request_far_past_the_limit_is_refused_on_its_own_line() -> None:
    with zmalloc.budget(MIB) as b:
        with pytest.raises(MemoryError) as caught:
            bytearray(10**9)
        assert type(caught.value) is MemoryError
        assert b.hit
    caught.value.__traceback__ = None


def test_below_the_limit_nothing_is_raised_or_collected() -> None:
    before = zmalloc.stats()
    with zmalloc.budget(10 * MIB) as b:
        for _ in range(50):
            _block = [bytes(1000) for _ in range(5000)]
    after = zmalloc.stats()
    assert not b.hit
    assert after.limit_errors == before.limit_errors
    assert after.collections == before.collections


# ---- who gets it ---------------------------------------------------------------------------------


def test_the_nearest_handler_of_the_running_function_gets_it() -> None:
    seen = []

    def beside_the_loop() -> None:
        kept = []
        try:
            while True:
                kept.append([0] * 10)
        except MemoryError:
            kept.clear()
            seen.append("beside")

    def outside() -> None:
        try:
            beside_the_loop()
            seen.append("went on")
        except MemoryError:
            seen.append("outside")

    for _ in range(20):
        with zmalloc.budget(50_000):
            outside()
    assert seen == ["beside", "went on"] * 20


def test_finally_and_with_beside_the_loop_are_run() -> None:
    seen = []

    class Noting:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
            seen.append(kind)

    def function() -> None:
        kept = []
        with Noting():
            try:
                while not seen:
                    kept.append([0] * 10)
            finally:
                kept.clear()
                seen.append(None)

    with contextlib.suppress(MemoryError), zmalloc.budget(50_000):
        function()
    assert seen == [None, zmalloc.LimitError]


def test_the_thread_that_runs_away_gets_it_while_main_joins() -> None:
    seen: list[object] = []

    def work() -> None:
        try:
            run_away()
        except MemoryError as error:
            error.__traceback__ = None
            seen.append(threading.get_ident())

    for _ in range(5):
        with zmalloc.budget(300_000):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(30)
            assert not thread.is_alive()
        assert seen.pop() == thread.ident


def test_a_thread_that_takes_little_is_left_alone() -> None:
    """Beside one that stays above the limit, and holds the error's handler for a while."""
    snippet("""
        import threading, zmalloc
        above, done, go = threading.Event(), threading.Event(), threading.Event()
        seen = []
        def hog():
            go.wait()
            kept = [None] * 100000
            at = 0
            try:
                while True:
                    kept[at] = bytes(500)
                    at += 1
            except MemoryError:
                seen.append("hog")
                above.set()
                done.wait(30)
        thread = threading.Thread(target=hog)
        thread.start()
        quiet = []
        with zmalloc.budget(2_000_000, reserve="2 MiB") as b:
            try:
                go.set()
                above.wait(30)
                for n in range(100):
                    quiet.append([n, n])
            finally:
                done.set()
                thread.join(30)
        assert seen == ["hog"] and len(quiet) == 100 and b.hit, (seen, len(quiet))
        """)


def test_it_is_raised_again_for_further_growth_but_not_while_it_is_handled() -> None:
    swallowed = handled = 0
    kept: list[object] = []
    with zmalloc.budget(500_000) as b:
        for _ in range(3):
            try:
                while True:
                    kept.append([0] * 10)
            except MemoryError:
                swallowed += 1
                held = b.used
                for _ in range(2000):
                    kept.append([0] * 10)  # 300 kB more, and no error
                handled += b.used - held > 200_000
                del kept[-2000:]
        kept.clear()
    assert (swallowed, handled) == (3, 3)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_nor_while_a_group_is_handled_that_it_is_in() -> None:
    snippet("""
        import zmalloc
        kept, handled, others = [], [], [ValueError()]

        def goes_on():
            with_error = b.used
            for _ in range(2000):
                kept.append([0] * 10)  # 300 kB more, and no error
            handled.append(b.used - with_error > 200_000)
            del kept[-2000:]

        def in_groups():
            try:
                while True:
                    kept.append([0] * 10)
            except MemoryError as error:
                raise ExceptionGroup("outer", [ExceptionGroup("inner", [*others, error])])

        with zmalloc.budget(500_000) as b:
            try:
                in_groups()
            except ExceptionGroup as group:
                goes_on()
            del kept[:], others[:]   # what is left of a group is handled by itself
            try:
                in_groups()
            except* MemoryError:
                goes_on()
            del kept[:]
            try:
                while True:
                    kept.append([0] * 10)
            except MemoryError:
                kept.clear()
        assert handled == [True, True]
        """)


def test_an_error_that_a_finalizer_swallows_comes_again() -> None:
    snippet("""
        import sys, zmalloc
        sys.unraisablehook = lambda info: None
        kept, swallowed = [], []
        class Hog:
            def __del__(self):
                try:
                    for _ in range(200):
                        kept.append([0] * 10)
                except MemoryError:
                    swallowed.append(1)
                    raise
        for room in range(300_000, 800_000, 20_000):
            error = None
            try:
                with zmalloc.budget(room) as b:
                    while True:
                        Hog()
                        for _ in range(200):
                            kept.append([0] * 10)
            except MemoryError as caught:
                error = caught
            kept.clear()
            assert type(error) is zmalloc.LimitError, (room, error)
            assert b.peak <= room + 2**20
        assert swallowed, "no finalizer ever got it, so this said nothing"
        """)


def test_what_a_raw_call_takes_is_delivered_by_the_next_hook() -> None:
    snippet("""
        import ctypes, zmalloc
        raw = ctypes.pythonapi.PyMem_RawMalloc
        raw.restype, raw.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        seen, kept, went_on = None, [], False
        try:
            with zmalloc.budget(500_000):
                raw(900_000)
                for n in range(1000):
                    kept.append([n])
                went_on = True
        except MemoryError as error:
            seen = error
        assert type(seen) is zmalloc.LimitError and not went_on, (seen, went_on)
        """)


def test_no_error_comes_after_the_with() -> None:
    for size in range(400_000, 700_000, 20_000):
        with contextlib.suppress(MemoryError), zmalloc.budget(size - 5_000):
            _block = bytes(size)
        _block = None
        for n in range(1000):
            _other = [n]


def test_lifting_the_limit_takes_an_error_back_that_is_on_its_way() -> None:
    """No call between the request and the lifting, where the interpreter could take the error."""
    snippet("""
        import zmalloc
        size = 200_000
        text = b"a"
        scope = zmalloc.limit(zmalloc.used() + 100_000)
        leave = scope.__enter__().__exit__
        try:
            block = text * size
        finally:
            leave(KeyError, None, None)
        for n in range(1000):
            other = [n]
        """)


def test_a_coroutine_that_ends_unawaited_takes_no_error_away() -> None:
    """The interpreter calls the module warnings for it, from where an error only gets printed."""
    outcome = snippet("""
        import warnings, zmalloc

        warnings.simplefilter("ignore")
        async def unawaited():
            pass

        def grow():
            rows = []
            while True:
                rows.append([0] * 10)
                unawaited()

        errors = 0
        for k in range(40):
            try:
                with zmalloc.limit(zmalloc.used() + 50_000 + 100 * k):
                    grow()
            except zmalloc.LimitError:
                errors += 1
        assert errors == 40, errors
        """)
    assert "ignored" not in outcome.err


@pytest.mark.parametrize("reserve", ["1 MiB", 0])
def test_a_function_that_is_not_made_does_not_cost_its_code_object(reserve: str | int) -> None:
    """CPython gives it back twice from 3.12 on: some functions later it is freed while in use."""
    snippet(f"reserve = {reserve!r}" + textwrap.dedent("""
        import sys, zmalloc

        def make():
            def inner(): pass
            return inner

        def grow():
            rows = []
            while True:
                rows.append([0] * 10)

        code = make.__code__.co_consts[1]
        extra = [code] * 1000  # it lives on, if it goes wrong
        before = sys.getrefcount(code)
        kept, fill, k, steps = [None] * 200, [None] * 40_000, 0, iter(range(200))
        with zmalloc.limit(zmalloc.used() + 100_000, reserve=reserve):
            try:
                grow()
            except MemoryError:
                for size in (4000, 400, 100, 60):
                    try:
                        while True:
                            fill[k] = bytes(size)
                            k += 1
                    except MemoryError:
                        pass
                for k in steps:  # there is nothing left, not even for an iterator
                    try:
                        kept[k] = make()
                    except MemoryError:
                        pass
            fill = kept = None
        assert sys.getrefcount(code) == before
        """))


def test_a_lock_is_made_where_nothing_is_left() -> None:
    """Its refusal is a RuntimeError, not a MemoryError; an import makes one."""
    snippet("""
        import _thread, zmalloc

        def make():
            return _thread.allocate_lock()

        made = 0
        for room in range(0, 1200, 4):  # at some, for the object, not for its lock
            try:
                zmalloc.limit(zmalloc.used() + room, reserve=8)
                try:
                    make()
                finally:
                    zmalloc.limit(None)
                made += 1
            except MemoryError:
                pass
        assert 0 < made < 300
        """)


@pytest.mark.parametrize("refuses", ["cap", "plain cap", "fault"])
def test_no_lock_stays_locked_where_nothing_is_left(refuses: str) -> None:
    """An __exit__ in C is handed its arguments in a tuple: where there is none it is not called."""
    snippet(f"""
        import gc, threading, zmalloc

        def leave(lock):
            with lock:
                pass

        def leave_by_error(lock):
            with lock:
                raise error

        lines = ["def leave_long(lock):", "    'so that None is no early constant'"]
        lines += [f"    x = 1000.{{n}}" for n in range(300)] + ["    with lock: x = 1"]
        exec(chr(10).join(lines))

        def run(function, lock, n):
            if {refuses!r} == "fault":
                with zmalloc.fail_after(n):
                    function(lock)
            else:
                zmalloc.limit(zmalloc.used() + 16 * n, reserve=0 if is_plain else 8)
                try:
                    function(lock)
                finally:
                    zmalloc.limit(None)

        class Guard:
            __slots__ = ("is_held",)

            def __enter__(self):
                self.is_held = True

            def __exit__(self, kind, value, traceback):
                self.is_held = False

        error, both, kept, failed = KeyError(), (MemoryError, KeyError), [], 0
        is_plain = {refuses!r} == "plain cap"  # also of what module threading does
        kinds = [threading.Lock, threading.RLock]
        if not is_plain:
            kinds += [threading.Condition, threading.Semaphore]
        guard = Guard()
        functions = [leave, leave_long] + [leave_by_error] * ({refuses!r} == "fault")
        for function in functions:
            for n in range(40):
                for kind in kinds:
                    lock = kind()
                    gc.collect()
                    kept.append([(i, i, i) for i in range(2500)])  # none is left ready
                    try:
                        run(function, lock, n)
                    except both as caught:
                        failed += type(caught) is MemoryError
                    free = []
                    thread = threading.Thread(target=lambda: free.append(lock.acquire(False)))
                    thread.start()
                    thread.join()
                    assert free == [True], (function, kind, n)
                guard.is_held = False
                try:
                    run(function, guard, n)
                except both:
                    pass
                assert is_plain or not guard.is_held, (function, n)
                if len(kept) > 60:
                    del kept[:]
        assert failed > 4 * ({refuses!r} == "fault")
        """)


def test_an_error_comes_through_the_same_call_any_number_of_times() -> None:
    """Where nothing is left: its traceback is made while CPython has it out of sight."""
    snippet("""
        import zmalloc

        class Refused:
            def __enter__(self):
                return [(i, i, i) for i in range(10)]

            def __exit__(self, kind, value, traceback):
                pass

        def enter(refused):
            with refused:
                pass

        def run(n):
            zmalloc.limit(zmalloc.used() + 16 * n, reserve=8)
            try:
                enter(refused)
            finally:
                zmalloc.limit(None)

        refused, kinds, kept = Refused(), [], []
        for n in range(40):
            kept.append([(i, i, i) for i in range(2500)])
            try:
                run(n)
            except Exception as error:
                kinds.append(type(error))
        assert len(kinds) > 5, kinds
        assert all(issubclass(kind, MemoryError) for kind in kinds), kinds
        """)


def test_the_code_of_a_long_loop_does_not_count_as_what_the_loop_has_left() -> None:
    """The repair has CPython make the code's plain form, which stays with it."""
    snippet("""
        import zmalloc

        never = [f"                x = n + {k}; y = x" for k in range(9000)]
        source = [
            "def grow(n, items):",
            "    try:",
            "        while True:",
            "            if n:",
            *never,
            "            items.append([0] * 10)",
            "    except zmalloc.LimitError:",
            "        items.clear()",
            "        return 'handled'",
        ]
        scope = {"zmalloc": zmalloc}
        exec(chr(10).join(source), scope)
        with zmalloc.limit(zmalloc.used() + (1 << 17)):
            assert scope["grow"](0, []) == "handled"
        """)


@pytest.mark.parametrize(
    "scope", ["limit(zmalloc.used() + 1_000_000)", "budget(1_000_000, thread=True)"]
)
def test_the_last_quarter_is_for_small_requests(scope: str) -> None:
    """Else a thread that runs away, too, takes it, and whoever cleans up is refused his bytes."""
    snippet(f"""
        import itertools, zmalloc

        kept = []
        zmalloc.reset_peak()
        with zmalloc.{scope} as scope:
            try:
                kept.extend(map(bytes, itertools.repeat(1000)))
            except MemoryError:
                try:
                    bytearray(200_000)
                except MemoryError:
                    pass
                had = 0 if hasattr(scope, "peak") else scope.limit - 1_000_000
                peak = getattr(scope, "peak", zmalloc.peak()) - had
                kept = None
        assert 1_700_000 < peak < 1_800_000, peak
        """)


def test_a_loop_in_c_of_blocks_as_large_as_a_traceback_leaves_room_to_unwind() -> None:
    snippet("""
        import collections, itertools, types, zmalloc
        GC_HEAD = 16
        width = types.TracebackType.__basicsize__ + GC_HEAD - "".__sizeof__()
        def descend(n, kept):
            if n:
                descend(n - 1, kept)
            kept.extend(map(str, itertools.count(10 ** (width - 1))))
        errors = 0
        n = zmalloc.used() + 1_000_000
        zmalloc.limit(n, reserve="1 MiB")
        for _ in range(10):
            try:
                descend(100, collections.deque())
            except MemoryError:
                errors += 1
        assert errors == 10
        assert zmalloc.peak() < n + (7 << 17)  # half of the last quarter is still there
        """)


@pytest.mark.parametrize("scope", ["limit", "plain limit", "budget", "thread budget"])
def test_a_dict_that_grows_by_setdefault_stays_whole(scope: str) -> None:
    snippet(
        """
        import sys, zmalloc
        scopes = {
            "limit": lambda n: zmalloc.limit(zmalloc.used() + n),
            "plain limit": lambda n: zmalloc.limit(zmalloc.used() + n, reserve=0),
            "budget": zmalloc.budget,
            "thread budget": lambda n: zmalloc.budget(n, thread=True),
        }
        for room in (30_000, 300_000, 3_000_000, 6_000_000):
            table = {}
            n = 0
            try:
                with scopes[sys.argv[1]](room):
                    while True:
                        table.setdefault(n, n)
                        n += 1
            except MemoryError:
                pass
            assert len(table) == len(list(table)) and n - len(table) in (-1, 0, 1)
            for key in range(20_000):
                table.setdefault(str(key))
            assert len(table) == len(list(table)) > 20_000
            del table
            seen = zmalloc.audit()
            assert seen.used == seen.counted
        """,
        scope,
    )


WORKER = """
        import queue, threading, zmalloc
        MIB = 1 << 20
        todo, done, blocks = queue.SimpleQueue(), queue.SimpleQueue(), []

        def work():
            while job := todo.get():
                done.put(job())

        def worker(job):
            todo.put(job)
            return done.get()

        def pass_the_limit():
            try:
                blocks.append(bytes(MIB))
                kept = [bytes(1000) for _ in range(40)]
            except MemoryError as error:
                return type(error).__name__

        def drop():
            blocks.clear()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
"""


@pytest.mark.parametrize("was_exempt", [False, True])
def test_what_a_bystander_takes_beside_many_others_is_not_added_up(was_exempt: bool) -> None:
    """A step above the limit makes it one who runs away, too: since that was passed last."""
    snippet(f"""{WORKER}
        for _ in range(400):
            with zmalloc.limit(zmalloc.used() + MIB // 2, reserve=4 * MIB):
                if {was_exempt}:
                    with zmalloc.exempt():
                        pass_the_limit()
                        drop()
                assert worker(lambda: pass_the_limit()) == "LimitError"
                worker(lambda: drop())  # two functions that are made here, above the limit
        worker(lambda: todo.put(None))
        """)


def test_an_error_for_a_worker_is_looked_at_again_before_it_is_handed_on() -> None:
    """Two scopes are passed; the handler of the one's error makes room in both."""
    snippet(f"""{WORKER}
        budget = zmalloc.budget(MIB // 2, reserve=4 * MIB, thread=True)
        worker(budget.__enter__)

        def pass_both():
            try:
                return pass_the_limit()
            finally:
                drop()

        for _ in range(50):
            with zmalloc.limit(zmalloc.used() + MIB // 2, reserve=4 * MIB):
                assert worker(pass_both) == "LimitError"
            assert worker(lambda: 5) == 5
        worker(lambda: budget.__exit__(None, None, None))
        worker(lambda: todo.put(None))
        thread.join()
        """)


#: Takes the last byte.
FILL = """
        kept = []
        def fill():
            for size in (100_000, 10_000, 1000, 100, 33, 1):
                for _ in range(100_000):
                    try:
                        kept.append(bytes(size))
                    except MemoryError:
                        break
"""


@pytest.mark.parametrize("reserve", ["16 KiB", "200 KiB"])
def test_a_pools_worker_hands_its_result_on_with_nothing_left(reserve: str) -> None:
    """It ended in the middle of that, and whoever waited for the result waited for ever."""
    outcome = snippet(
        f"""{FILL}
        import time, zmalloc
        from concurrent.futures import ThreadPoolExecutor
        ended = []
        with ThreadPoolExecutor(1) as pool:
            pool.submit(sum, [1, 2]).result()
            for _ in range(10):
                pool.submit(time.sleep, 0.05)  # the limit is set meanwhile
                future = pool.submit(fill)
                future.add_done_callback(ended.append)
                zmalloc.limit(zmalloc.used() + 1_000_000, reserve="{reserve}")
                n = 0
                while not ended and n < 250:  # takes nothing
                    time.sleep(0.02)
                    n += 1
                kept.clear()
                zmalloc.limit(None)
                assert ended, "nobody has heard of its end"
                ended.clear()
        """
    )
    assert "Exception in worker" not in outcome.err


# ---- what comes before it ------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_first(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        before = zmalloc.stats().collections
        with zmalloc.budget(2 * MIB) as b:
            for _ in range(30_000):
                loop: list[object] = []
                loop.append(loop)
                loop.append(bytes(500))
        assert not b.hit
        assert enabled or zmalloc.stats().collections > before
    finally:
        gc.enable()


@pytest.mark.parametrize("where", ["main", "worker"])
def test_collections_do_not_become_the_program(where: str) -> None:
    snippet(
        """
        import gc, sys, threading, time, zmalloc
        live = [[n] for n in range(200_000)]  # what a collection has to look through
        errors = 0
        def swallow():
            global errors
            kept = []
            while errors < 300:
                try:
                    while True:
                        kept.append([0] * 100)
                except MemoryError:
                    kept.clear()
                    errors += 1
        def loops():
            for _ in range(30_000):
                loop = []
                loop.append(loop)
                loop.append(bytes(500))
        def run():
            zmalloc.limit(zmalloc.used() + 2_000_000)
            swallow()
            assert errors >= 300
            collections = zmalloc.stats().collections
            assert collections < 200, collections  # not one for each error
            time.sleep(1)
            if where == "main" or sys.version_info >= (3, 12):  # then garbage is collected
                gc.disable()
                loops()
                assert zmalloc.stats().collections > collections
        if where == "main":
            run()
        else:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            assert errors >= 300
        """.replace("where ==", f"{where!r} ==")
    )


def test_callbacks_drop_caches_before_the_verdict() -> None:
    cache: list[bytes] = []
    told: list[zmalloc.Pressure] = []

    def drop(info: zmalloc.Pressure) -> None:
        told.append(info)
        cache.clear()

    def broken(info: zmalloc.Pressure) -> None:
        raise ValueError("broken")

    reported: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda info: reported.append(info.exc_type)
    assert zmalloc.on_pressure(broken) is broken
    assert zmalloc.on_pressure(drop) is drop
    try:
        with zmalloc.budget(MIB) as b:
            for _ in range(5000):
                cache.append(bytes(1000))
        assert not b.hit
        assert len(told) in (4, 5)
        assert set(reported) == {ValueError}
        limit = told[0].limit
        assert (told[0].scope, told[0].used > limit) == ("budget", True)
    finally:
        sys.unraisablehook = before
        zmalloc.on_pressure(drop, remove=True)
        zmalloc.on_pressure(broken, remove=True)
    with pytest.raises(ValueError, match="not registered"):
        zmalloc.on_pressure(drop, remove=True)
    with pytest.raises(TypeError, match="expected a callable"):
        zmalloc.on_pressure(5)  # type: ignore[type-var]
    cache.clear()
    told.clear()


# ---- recursion, threads, the end -----------------------------------------------------------------


@pytest.mark.parametrize("room", [100_000, 1_000_003, 8_000_000])
@pytest.mark.parametrize("limit", [15_000, 10**6])
def test_deep_recursion_ends_in_a_clean_error(limit: int, room: int) -> None:
    if limit > 15_000 and sys.version_info < (3, 11):
        pytest.skip("3.10 recurses on the C stack, whose 8 MB bear no more")
    snippet(f"""
        import json, sys, zmalloc
        sys.setrecursionlimit({limit})
        def f(n):
            return f(n + 1) + 1
        error = None
        try:
            with zmalloc.budget({room}) as b:
                f(0)
        except (MemoryError, RecursionError) as caught:
            error = caught
        assert type(error) in (zmalloc.LimitError, RecursionError), repr(error)
        assert b.peak <= {room} + 2**20
        error = None
        assert json.loads("[1]") == [1]
        seen = zmalloc.audit()
        assert seen.used == seen.counted
        """)


def test_a_recursion_error_stays_one() -> None:
    def down() -> None:
        down()

    with zmalloc.budget(8 * MIB), pytest.raises(RecursionError) as caught:
        down()
    caught.value.__traceback__ = None


def test_threads_that_start_at_the_cap_do_not_hang() -> None:
    """Each starts somewhere else between limit and refusal; a thread may die of it, not hang."""
    snippet("""
        import sys, threading, zmalloc
        threading.excepthook = lambda args: None
        sys.unraisablehook = lambda info: None
        ended, errors = [], 0
        def work():
            kept = [bytes(500) for _ in range(30)]
            ended.append(1)
        for at in range(60):
            ballast = None
            try:
                with zmalloc.budget(300_000):
                    ballast = bytes(200_000 + 14_000 * at)
                    thread = threading.Thread(target=work, daemon=True)
                    thread.start()
                    thread.join(20)
                    assert not thread.is_alive(), "hangs"
            except (MemoryError, RuntimeError):
                errors += 1
        assert errors > 20 and ended, (errors, ended)
        """, timeout=100)


def test_an_import_that_fails_for_memory_can_be_tried_again() -> None:
    snippet("""
        import sys, zmalloc
        failed = 0
        for room in range(20_000, 3_000_000, 60_000):
            try:
                with zmalloc.budget(room):
                    import email.message
                break
            except MemoryError:
                failed += 1
        assert failed, "never failed"
        import email.message
        email.message.EmailMessage()["a"] = "b"
        """)


def test_a_process_with_many_daemon_threads_and_a_sealed_cap_ends() -> None:
    outcome = python(
        "-c",
        """
import threading, time, zmalloc
zmalloc.limit(zmalloc.used() + 3_000_000, seal=True)
def hog():
    kept = []
    while True:
        try:
            while True:
                kept.append([0] * 10)
        except MemoryError:
            kept.clear()
def start():
    try:
        threading.Thread(target=hog, daemon=True).start()
    except (MemoryError, RuntimeError):
        pass
def main():
    for _ in range(30):
        try:
            start()
        except MemoryError:  # the hogs let use grow again while start() handled its own error
            pass
    time.sleep(0.3)
    print("end", flush=True)
while True:
    try:
        main()
        break
    except MemoryError:
        pass
""",
        timeout=60,
        may_be_killed=sys.version_info < (3, 11),
    )
    assert outcome.out.startswith("end\n"), outcome.err[-3000:]
    if outcome.status < 0:
        assert sys.version_info < (3, 11), "3.10 itself crashes in some ends beside daemon threads"


def test_a_forked_child_has_its_own_error() -> None:
    snippet("""
        import os, zmalloc
        n = zmalloc.used() + 300_000
        zmalloc.limit(n)
        pid = os.fork()
        status = 1
        try:
            kept = []
            while True:
                kept.append([0] * 10)
        except MemoryError as error:
            kept = None
            status = 0 if type(error) is zmalloc.LimitError else 3
        if pid == 0:
            os._exit(status)
        zmalloc.limit(None)
        assert status == 0
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """)


def test_a_loop_of_asyncio_that_has_nothing_left_ends_and_another_one_works() -> None:
    """What it needs for its own turn is granted then, and it is left at the end of that."""
    outcome = snippet(
        FILL
        + """
        import asyncio, zmalloc
        async def tick():
            while True:
                await asyncio.sleep(0)
        async def main():
            tasks = [asyncio.ensure_future(tick()) for _ in range(50)]
            await asyncio.sleep(0)
            zmalloc.limit(zmalloc.used() + 1_000_000, reserve="64 KiB")
            for _ in range(2):
                asyncio.get_running_loop().call_soon(fill)
            await asyncio.gather(*tasks)
        try:
            asyncio.run(main())
        except MemoryError:
            kept.clear()
            zmalloc.limit(None)
            assert asyncio.run(asyncio.sleep(0, 5)) == 5
            seen = zmalloc.audit()
            print(seen.used == seen.counted)
        """
    )
    assert outcome.value is True
