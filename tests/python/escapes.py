"""Scripts that try to get past the cap of ``zmalloc run``, each as a program does it that means to.

Each tries to hold GOAL bytes and prints "got out" if it could. Without a cap each of them does, so
one that prints nothing has been stopped.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

MIB = 1 << 20
LIMIT = 32 * MIB
RESERVE = MIB
GOAL = 128 * MIB

STOPPED, ENDED = 53, 0

PRELUDE = f"""
import gc, os, sys, threading
import zmalloc
from zmalloc import _core
MIB, GOAL, LIMIT = {MIB}, {GOAL}, {LIMIT}

def fill(goal=GOAL, size=400):
    kept, taken = [], 0
    while taken < goal:
        kept.append(bytes(size))
        taken += size
    return kept

def out():
    os.write(1, b"got out\\n")

def tries(*calls):
    # whatever they raise, and whether or not they work
    for call in calls:
        try:
            call()
        except Exception:
            pass
"""


@dataclass(frozen=True)
class Attempt:
    """A script, and how it ends under the cap."""

    code: str
    ends: tuple[int, ...] = (STOPPED,)
    #: The interpreters that can do it.
    since: tuple[int, int] = (3, 10)
    before: tuple[int, int] = (4, 0)
    #: What else holds it: options of the runner, or ulimit's address space.
    fences: tuple[str, ...] = ()
    slow: bool = False
    #: Its own trace function breaks the report, too.
    reports: bool = True

    @property
    def script(self) -> str:
        return PRELUDE + textwrap.dedent(self.code)


ATTEMPTS = {
    # ---- zmalloc's own names
    "raise the limit": Attempt("""
        tries(lambda: zmalloc.limit("10 GiB"), lambda: zmalloc.limit("10 GiB", seal=True),
              lambda: zmalloc.limit(held="10 GiB"), lambda: zmalloc.limit(zmalloc.limit() + 1))
        kept = fill(); out()
    """),
    "lift the limit": Attempt("""
        tries(lambda: zmalloc.limit(None), lambda: zmalloc.limit(held=None))
        kept = fill(); out()
    """),
    "a huge reserve": Attempt("""
        now = zmalloc.limit() or 4 * GOAL
        tries(lambda: zmalloc.limit(now, reserve="10 GiB", seal=True),
              lambda: zmalloc.limit(now - 1, reserve="10 GiB"),
              lambda: zmalloc.limit(now, reserve="10 GiB"))
        kept = fill(); out()
    """),
    "other scopes": Attempt("""
        import contextlib
        with contextlib.ExitStack() as stack:
            tries(lambda: stack.enter_context(zmalloc.budget("10 GiB")),
                  lambda: stack.enter_context(zmalloc.budget("10 GiB", thread=True)),
                  lambda: stack.enter_context(zmalloc.limit("10 GiB", reserve="10 GiB")),
                  lambda: stack.enter_context(zmalloc.exempt()),
                  lambda: stack.enter_context(zmalloc.fail_after(10 ** 9)),
                  lambda: stack.enter_context(zmalloc.track()))
            kept = fill(); out()
    """),
    "install again": Attempt("""
        for mode in (None, "exact", "held", "none"):
            tries(lambda: zmalloc.install(mode=mode), zmalloc.install)
        kept = fill(); out()
    """),
    "a callback on pressure that takes more": Attempt("""
        kept = []
        @zmalloc.on_pressure
        def more(info):
            kept.append(fill(2 * MIB))
        kept.append(fill()); out()
    """),
    "a callback on pressure that raises": Attempt("""
        @zmalloc.on_pressure
        def no(info):
            raise KeyError("no")
        kept = fill(); out()
    """),
    "a callback that hides what it has": Attempt("""
        # free when the verdict looks, taken again when it has looked
        kept, hidden = [], [bytearray(8 * MIB)]
        @zmalloc.on_pressure
        def hide(info):
            hidden.clear()
        taken = 0
        while taken < GOAL:
            kept.append(bytes(8000)); taken += 8000
            if not hidden:
                try:
                    hidden.append(bytearray(8 * MIB))
                except MemoryError:
                    pass
        out()
    """),
    "the limit's own objects": Attempt("""
        gone = [o for o in gc.get_objects() if type(o).__module__.startswith("zmalloc")]
        for o in gone:
            tries(lambda: o.__exit__(None, None, None), lambda: o(None), lambda: o.__init__())
        del gone
        one = zmalloc.limit(zmalloc.limit() or 4 * GOAL)
        tries(lambda: type(one).__new__(type(one)), lambda: one.__exit__(None, None, None))
        del one
        gc.collect()
        kept = fill(); out()
    """),
    "leave a limit that was never entered": Attempt("""
        most = zmalloc.limit() or 4 * GOAL
        for n in (most, most - MIB):
            tries(lambda: zmalloc.limit(n).__exit__(None, None, None))
            tries(lambda: zmalloc.limit(n)(None))
        kept = fill(); out()
    """),
    "every private function": Attempt("""
        names = [n for n in dir(_core) if n.startswith("_") and not n.startswith("__")]
        for n in sorted(names):
            f = getattr(_core, n)
            if callable(f) and n != "_execute":
                tries(f, lambda: f(None), lambda: f(lambda: None), lambda: f(2 ** 40),
                      lambda: f(2 ** 40, "x"), lambda: f(debt=False, close=False, repair=False))
        kept = fill(); out()
    """),
    "begin to count anew": Attempt("""
        kept = []
        for _ in range(GOAL // (16 * MIB)):
            kept.append(fill(16 * MIB))
            tries(_core._begin_held, _core._begin, lambda: zmalloc.install(mode="exact"))
        out()
    """),
    "a report of its own": Attempt("""
        # what a report leaves behind is on top of the limits
        kept = []
        def take():
            kept.append(fill(6 * MIB))
        report = take
        try:
            report = _core._reporter(take)
        except RuntimeError:
            pass
        while len(kept) < GOAL // (6 * MIB):
            report()
        out()
    """),
    "a program in the program": Attempt("""
        # the runner's own call, with words of the script at its end
        def note(status, died):
            global kept
            kept = fill(); out()
        import atexit
        @atexit.register
        def last():
            more = fill(); out()
        try:
            _core._execute(lambda: 1 // 0, note)
        except RuntimeError:
            pass
        kept = fill(); out()
    """, ends=(STOPPED, 1)),
    "an exception with last words": Attempt("""
        class Wordy(MemoryError):
            def __str__(self):
                self.kept = fill(); out()
                return "x"
        kept = []
        try:
            while not kept or zmalloc.limit() and zmalloc.used() < LIMIT - 4 * MIB:
                kept.append(bytes(1000))
        except MemoryError:
            pass
        raise Wordy()
    """, ends=(1, STOPPED)),
    "a stderr that takes": Attempt("""
        kept = []
        class Greedy:
            def __init__(self, file): self.file = file
            def take(self):
                if not kept:
                    kept.append(None)
                    kept[0] = fill(); out()
            def write(self, text): self.take(); return self.file.write(text)
            def flush(self): kept.clear(); self.take()
        sys.stderr = Greedy(sys.stderr)
        more = fill(GOAL if zmalloc.limit() else 1)
        sys.stderr.flush()
    """, ends=(STOPPED, 120)),
    "reset the peak": Attempt("""
        kept, taken = [], 0
        while taken < GOAL:
            kept.append(bytes(400)); taken += 400
            zmalloc.reset_peak()
        out()
    """),
    "names exchanged": Attempt("""
        import importlib
        for name in dir(zmalloc):
            if not name.startswith("_"):
                setattr(zmalloc, name, lambda *a, **k: None)
        for name in [n for n in sys.modules if n.startswith("zmalloc")]:
            del sys.modules[name]
        tries(lambda: importlib.import_module("zmalloc"),
              lambda: importlib.import_module("zmalloc").limit(None))
        gc.collect()
        kept = fill(); out()
    """),
    "MemoryError exchanged": Attempt("""
        import builtins
        class Mine(BaseException): pass
        builtins.MemoryError = zmalloc.LimitError = _core.LimitError = Mine
        kept = fill(); out()
    """),
    "a second copy of the extension": Attempt("""
        import importlib.util, shutil, tempfile
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, os.path.basename(_core.__file__))
            shutil.copy(_core.__file__, path)
            sys.modules.pop("zmalloc._core")
            spec = importlib.util.spec_from_file_location("zmalloc._core", path)
            try:
                copy = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(copy)
                tries(lambda: copy.limit(None), lambda: copy.limit("10 GiB"), copy.install)
            except Exception:
                pass
        kept = fill(); out()
    """),
    "an account for Lua": Attempt("""
        try:
            account = zmalloc.lua_allocator("x")[2]
            tries(lambda: account.limit("10 GiB", reserve="1 GiB"), lambda: account.limit(None),
                  lambda: account.parent.limit(None))
        except Exception:
            pass
        kept = fill(); out()
    """),
    # ---- swallowing
    "swallow every error": Attempt("""
        kept, errors = [], 0
        while errors < 3000 and len(kept) < GOAL // 4000:
            try:
                kept.append(bytes(4000))
            except BaseException:
                errors += 1
        if errors == 0: out()
    """, ends=(ENDED, STOPPED)),
    "an endless handler": Attempt("""
        kept = []
        def again(n):
            try:
                kept.append(fill())
                out()
            except MemoryError:
                if n: again(n - 1)
        again(100)
    """, ends=(ENDED, STOPPED)),
    "a finally that takes": Attempt("""
        kept = []
        try:
            kept.append(fill()); out()
        finally:
            kept.append(fill()); out()
    """),
    "errors that keep their frames": Attempt("""
        errors = []
        def hoard():
            mine = []
            try:
                while len(mine) * 400 < GOAL: mine.append(bytes(400))
                out()
            except MemoryError as error:
                errors.append(error)
        for _ in range(50): hoard()
    """, ends=(ENDED, STOPPED)),
    "a code that calls itself threading": Attempt("""
        # an error waits until the machinery is done: the hard limit does not
        code = compile("kept = []\\nfor i in range(GOAL // 400): kept.append(bytes(400))\\nout()",
                       threading.__file__, "exec")
        exec(code, {"__name__": "threading", "GOAL": GOAL, "out": out})
    """, slow=True),  # on 3.13 at times with a SystemError: nothing is left to unwind with
    # ---- the collector
    "gc.freeze": Attempt("""
        gc.disable(); gc.freeze(); gc.set_threshold(0)
        gc.callbacks.append(lambda *a: 1 // 0)
        kept = fill(); out()
    """),
    "gc exchanged": Attempt("""
        gc.collect = lambda *a: 0
        sys.modules["gc"] = None
        kept = fill(); out()
    """),
    "__del__ storms": Attempt("""
        kept = []
        class Storm:
            def __del__(self):
                kept.append(bytes(40_000)); kept.append(Storm2())
        class Storm2:
            def __init__(self): self.me = self
            def __del__(self):
                kept.append(bytes(40_000)); kept.append(self); self.__class__ = Storm
        n = 0
        while n < GOAL // 40_000:
            n += 1
            Storm()
            if n % 64 == 0: gc.collect(0)
        if not zmalloc.stats().limit_hit: out()
    """, ends=(ENDED, STOPPED)),
    "weak references' callbacks": Attempt("""
        import weakref
        class A: pass
        kept = []
        for _ in range(GOAL // 4000):
            a = A()
            kept.append(weakref.ref(a, lambda r: kept.append(bytes(4000))))
            del a
        if not zmalloc.stats().limit_hit: out()
    """, ends=(ENDED, STOPPED)),
    # ---- blocks of other kinds
    "objects from before the script": Attempt("""
        grown = 0
        while grown < GOAL:
            sys.path.extend([""] * 10_000); grown += 80_000
            sys.argv.extend([""] * 10_000); grown += 80_000
            for n in range(1000):
                sys.modules["x%d" % (grown + n)] = None
            grown += 120_000
        out()
    """),
    "interned strings": Attempt("""
        kept = [sys.intern(str(n) * 30) for n in range(GOAL // 200)]
        out()
    """),
    "one large block": Attempt("kept = bytearray(GOAL); out()"),
    "a block that grows": Attempt("""
        kept = bytearray()
        while len(kept) < GOAL: kept += bytes(100_000)
        out()
    """),
    "a list of one C call": Attempt("kept = list(range(10 ** 7, 10 ** 7 + GOAL // 32)); out()"),
    "a number": Attempt("kept = 1 << (GOAL * 8); out()"),
    "a text": Attempt('kept = "%*d" % (GOAL, 1); out()'),
    "a joined text": Attempt('kept = "".join(["x" * 1000] * (GOAL // 1000)); out()'),
    "decompressed zeros": Attempt("""
        import zlib
        part = zlib.compress(bytes(MIB), 9)
        kept = [zlib.decompress(part) for _ in range(GOAL // MIB)]
        out()
    """),
    "iterators that remember": Attempt("""
        import itertools
        a, b = itertools.tee(bytes(400) for _ in range(GOAL // 400))
        for _ in a: pass
        out()
    """),
    "slots of classes": Attempt("""
        kept = [type("T%d" % n, (), {}) for n in range(GOAL // 1000)]
        out()
    """),
    "compiled code": Attempt("""
        part = "x = 'a'\\n" * 30_000
        kept = [compile(part, "x", "exec") for _ in range(GOAL // 120_000)]
        out()
    """),
    # ---- frames
    "deep recursion": Attempt("""
        sys.setrecursionlimit(10 ** 9)
        def deep(n):
            a = b = c = d = e = f = g = h = n
            return n if n == 0 else deep(n - 1) + 1
        deep(GOAL // 300); out()
    """, since=(3, 11), slow=True),
    "deep recursion, all errors swallowed": Attempt("""
        sys.setrecursionlimit(10 ** 9)
        def deep(n):
            try:
                return n if n == 0 else deep(n - 1) + 1
            except MemoryError:
                return 0
        if deep(GOAL // 300) == GOAL // 300: out()
    """, ends=(ENDED, STOPPED), since=(3, 11)),
    "70,000 locals": Attempt("""
        names = " = ".join("v%d" % n for n in range(70_000))
        space = {}
        exec("def f(n, go):\\n    if n == 0: go()\\n    else: f(n - 1, go)\\n    return 0\\n    "
             + names + " = 0", space)
        f = space["f"]
        del names
        f(GOAL // 560_000 + 1, out)
    """, ends=(STOPPED, ENDED)),
    "generators in generators": Attempt("""
        def inner():
            mine = bytes(400)
            yield
        kept = []
        for _ in range(GOAL // 400):
            g = inner(); next(g); kept.append(g)
        out()
    """),
    "coroutines": Attempt("""
        import asyncio
        async def hold():
            mine = fill(2 * MIB)
            await asyncio.sleep(3600)
        async def main():
            tasks = [asyncio.ensure_future(hold()) for _ in range(GOAL // (2 * MIB))]
            await asyncio.sleep(0.2)
            if not any(t.done() for t in tasks): out()
            raise MemoryError
        asyncio.run(main())
    """, ends=(STOPPED, 1)),
    # ---- threads, interpreters, processes
    "threads": Attempt("""
        kept, full = [], []
        def work():
            try:
                while sum(full) < GOAL:
                    kept.append(fill(MIB)); full.append(MIB)
            except MemoryError:
                pass
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        if sum(full) >= GOAL: out()
    """, ends=(ENDED,)),
    "threads without a GIL's protection": Attempt("""
        # large blocks that are asked for while the GIL is released
        import zlib
        part = zlib.compress(bytes(2 * MIB), 1)
        kept, full = [], []
        def work():
            for _ in range(40):
                try:
                    kept.append(zlib.decompress(part)); full.append(2 * MIB)
                except MemoryError:
                    pass
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        if sum(full) >= GOAL: out()
    """, ends=(ENDED,)),
    "sub-interpreters": Attempt("""
        try:
            import _interpreters as interpreters
            run = interpreters.exec
        except ImportError:
            import _xxsubinterpreters as interpreters
            run = interpreters.run_string
        code = '''
import os
kept = []
try:
    for _ in range(%d): kept.append(bytes(400))
    os.write(1, b"got out\\\\n")
except MemoryError:
    pass
''' % (GOAL // 400)
        for _ in range(3):
            one = interpreters.create()
            run(one, code)
            run(one, "import zmalloc\\ntry: zmalloc.limit(None)\\nexcept Exception: pass")
            run(one, code)
            interpreters.destroy(one)
    """, ends=(ENDED,)),
    "a forked child": Attempt("""
        pid = os.fork()
        if pid == 0:
            tries(lambda: zmalloc.limit(None), zmalloc.install)
            kept = fill(); out(); os._exit(0)
        os.waitpid(pid, 0)
        kept = fill(); out()
    """),
    "hooks at a fork": Attempt("""
        kept = []
        os.register_at_fork(before=lambda: kept.append(fill(4 * MIB)),
                            after_in_child=lambda: kept.append(fill(4 * MIB)))
        while len(kept) < GOAL // (4 * MIB):
            n = len(kept)
            pid = os.fork()
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0)
            if len(kept) == n: kept.append(fill(4 * MIB))
        out()
    """),
    # ---- at odd moments
    "atexit": Attempt("""
        import atexit
        @atexit.register
        def last():
            tries(lambda: zmalloc.limit(None))
            kept = fill(); out()
    """, ends=(ENDED,)),
    "at the very end": Attempt("""
        class Last:
            def __del__(self, fill=fill, out=out):
                kept = fill(); out()
        sys.modules["last"] = Last()
        import builtins
        builtins.last = Last()
        keep = Last()
    """, ends=(ENDED,)),
    "after an error": Attempt("""
        def hook(*a):
            kept = fill(); out()
        sys.excepthook = sys.unraisablehook = threading.excepthook = hook
        1 // 0
    """, ends=(1, STOPPED)),
    "signal handlers": Attempt("""
        import signal
        kept = []
        def handler(*a):
            kept.append(fill(MIB))
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while len(kept) < GOAL // MIB:
            try:
                signal.pause()
            except MemoryError:
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise
        signal.setitimer(signal.ITIMER_REAL, 0)
        out()
    """, ends=(STOPPED, -14)),  # its timer runs on when Python has taken the handlers out
    "trace functions": Attempt("""
        kept = []
        def trace(*a):
            kept.append(bytes(4000))
            return trace
        sys.settrace(trace); sys.setprofile(trace)
        n = 0
        while len(kept) < GOAL // 4000 and n < 300_000: n += 1
        sys.settrace(None); sys.setprofile(None)
        if len(kept) >= GOAL // 4000: out()
    """, ends=(STOPPED, ENDED), reports=False),
    "audit hooks": Attempt("""
        kept = []
        def hook(name, arguments):
            if len(kept) < GOAL // 4000: kept.append(bytes(4000))
        sys.addaudithook(hook)
        while len(kept) < GOAL // 4000: sys.audit("x")
        out()
    """),
    "sorting and hashing": Attempt("""
        kept = []
        class Key:
            def __init__(self, n): self.n = n
            def __lt__(self, other): kept.append(bytes(4000)); return self.n < other.n
            def __hash__(self): kept.append(bytes(4000)); return self.n
            def __eq__(self, other): kept.append(bytes(4000)); return True
        while len(kept) < GOAL // 4000:
            sorted(map(Key, range(50, 0, -1))); {Key(1): 1, Key(2): 2}
        out()
    """),
    # ---- tools that change the allocators
    "tracemalloc": Attempt("""
        import tracemalloc
        kept, taken = [], 0
        while taken < GOAL:
            tracemalloc.start(5)
            kept.append(fill(MIB)); taken += MIB
            tracemalloc.stop()
            kept.append(fill(MIB)); taken += MIB
        out()
    """),
    "faulthandler and switches": Attempt("""
        import faulthandler
        faulthandler.enable(); sys.setswitchinterval(1e-6)
        kept = fill(); out()
    """),
}

#: What a cap inside the process does not hold, and the fence that does. README lists them.
BEYOND = {
    "a block kept in each pool": Attempt("""
        kept, taken = [], 0
        while taken < GOAL:
            for size in range(16, 480, 16):
                in_pool = 16_336 // (size + 32)
                blocks = [bytes(size - 1) for _ in range(12 * MIB // (size + 32))]
                kept.extend(blocks[::in_pool])
                del blocks
                taken += 12 * MIB
        out()
    """, fences=("--mode=held", "--held", "--rlimit")),
    "the environment": Attempt("""
        n = 0
        while n * 8000 < GOAL:
            os.environ["V%d" % n] = "x" * 4000; n += 1
        out()
    """, fences=("--rlimit",)),
    "tracemalloc's own records": Attempt("""
        import tracemalloc
        tracemalloc.start(60)
        def deep(n):
            return deep(n - 1) if n else [bytes(n % 7) + b"x" for n in range(1000)]
        kept = [deep(n % 60) for n in range(GOAL // 300_000)]
        kept = [kept, fill()]
        out()
    """, slow=True, fences=("--rlimit",)),
    "malloc by ctypes": Attempt("""
        import ctypes
        c = ctypes.CDLL(None)
        c.malloc.restype = ctypes.c_void_p
        c.malloc.argtypes = [ctypes.c_size_t]
        c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        for _ in range(GOAL // MIB):
            p = c.malloc(MIB)
            if not p: raise MemoryError
            c.memset(p, 1, MIB)
        out()
    """, fences=("--rlimit",)),
    "the hooks taken out by ctypes": Attempt("""
        import ctypes
        for domain in range(3):
            ctypes.pythonapi._PyMem_SetDefaultAllocator(domain, None)
        kept = fill(size=4000); out()
    """, fences=("--rlimit",), before=(3, 12)),
    "a private mapping": Attempt("""
        import mmap
        kept = mmap.mmap(-1, GOAL, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, GOAL, 4096): kept[at] = 1
        out()
    """, fences=("--rlimit",)),
    "a shared mapping": Attempt("""
        import mmap
        kept = mmap.mmap(-1, GOAL)
        for at in range(0, GOAL, 4096): kept[at] = 1
        out()
    """, fences=("ulimit -v",)),
    "sqlite": Attempt("""
        import sqlite3
        base = sqlite3.connect(":memory:")
        base.execute("create table t(x)")
        rows = ((b"x" * 10_000,) for _ in range(GOAL // 10_000))
        base.executemany("insert into t values(?)", rows)
        out()
    """, fences=("--rlimit",)),
    "a child process": Attempt("""
        import subprocess
        code = "import os; x = b'1' * %d; os.write(1, b'got out')" % GOAL
        sys.exit(subprocess.run([sys.executable, "-c", code]).returncode)
    """, fences=("--rlimit",)),
    "exec of itself": Attempt("""
        code = "import os; x = b'1' * %d; os.write(1, b'got out')" % GOAL
        os.execv(sys.executable, [sys.executable, "-c", code])
    """, fences=("--rlimit",)),
}
