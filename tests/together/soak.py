"""Load and faults for as long as it is told: make soak, or

    python tests/together/soak.py run SECONDS [--json FILE] [--seed N]

Four kinds of process take turns, each with its share of the time; each counts what it did and ends
with status 0 only if its figures were right: nothing in use that was not at the start, audit equal
to the counters, resident memory flat.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import json
import linecache
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

KIB, MIB = 1 << 10, 1 << 20
STATES = 100
#: Objects that the standard library keeps once it has been used, and resident memory's own noise.
KEPT, RESIDENT = 64 * KIB, 16 * MIB
#: Until 3.12 tracemalloc.start() itself leaves some behind each time, more beside other threads.
KEPT_BY_TRACEMALLOC = KIB if sys.version_info < (3, 13) else 0


def audit() -> None:
    import zmalloc

    seen = zmalloc.audit()
    assert seen.used == seen.counted, seen


class Flat:
    """Use and resident memory after a round of each thing, to be the same at the end."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, int]] = []

    def look(self) -> None:
        import zmalloc

        linecache.clearcache()  # the sources of what errors of threads went through
        gc.collect()
        audit()
        assert zmalloc.limit() is None, "a limit was left behind"
        self.marks.append((zmalloc.used(), zmalloc.rss()))

    def figures(self, done: Counter[str]) -> dict[str, int]:
        """After the first third everything is there that stays."""
        first, last = self.marks[len(self.marks) // 3], self.marks[-1]
        return {**done, "looks": len(self.marks), "used_grown": last[0] - first[0],
                "resident_grown": last[1] - first[1]}  # fmt: skip


# ---- threads, caps, budgets, tracemalloc, interrupts, Lua ----------------------------------------


def churn(chance: random.Random, most: int = 200) -> object:
    kept: list[object] = []
    for _ in range(chance.randrange(most)):
        kind = chance.randrange(6)
        size = chance.choice((1, 30, 500, 513, 5_000, 70_000))
        kept.append(
            bytes(size) if kind == 0 else [None] * (size // 8) if kind == 1
            else {n: str(n) for n in range(size % 100)} if kind == 2
            else bytearray(size) if kind == 3 else "é" * size if kind == 4 else [kept[-3:]]
        )  # fmt: skip
        if kind == 3:
            kept[-1].extend(bytes(size // 2))  # type: ignore[attr-defined]
        if len(kept) > 50:
            del kept[chance.randrange(len(kept)) :]
    return kept


def run_away() -> None:
    rows: list[object] = []
    while True:
        rows.append([len(rows)] * 50)


KINDS = ("budget", "thread budget", "limit", "moved", "track", "tracemalloc", "exempt", "fail",
         "churn")  # fmt: skip


def one_of_main(chance: random.Random) -> str:
    """What the interrupted thread does. Others allocate meanwhile: each may end in an error."""
    import zmalloc

    kind = chance.choice(KINDS)
    if kind == "budget":
        with zmalloc.budget(chance.randrange(64 * KIB, 4 * MIB)):
            run_away() if chance.random() < 0.3 else churn(chance)
    elif kind == "thread budget":
        with zmalloc.budget(chance.randrange(KIB, MIB), thread=True):
            run_away() if chance.random() < 0.3 else churn(chance)
    elif kind == "limit":
        with zmalloc.limit(zmalloc.used() + chance.randrange(MIB, 4 * MIB)):
            run_away() if chance.random() < 0.3 else churn(chance)
    elif kind == "moved":
        for _ in range(20):
            zmalloc.limit(zmalloc.used() + chance.randrange(MIB, 60 * MIB))
            churn(chance, 20)
        zmalloc.limit(None)
    elif kind == "track":
        with zmalloc.track() as seen, zmalloc.track(thread=True):
            churn(chance)
        assert seen.peak >= seen.net
    elif kind == "tracemalloc":
        (tracemalloc.stop if tracemalloc.is_tracing() else tracemalloc.start)()
        churn(chance)
    elif kind == "exempt":
        with zmalloc.limit(zmalloc.used() + MIB), zmalloc.exempt():
            churn(chance, 40)
    elif kind == "fail":
        with zmalloc.fail_after(chance.randrange(60), chance.choice((1, 1, 3))):
            churn(chance, 60)
    else:
        churn(chance, 1000)
    return kind


class Interrupts:
    """SIGINT at random moments, an error only where the main thread is ready for one."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.is_armed, self.over, self.count = chance, False, False, 0
        signal.signal(signal.SIGINT, self.come)
        self.thread = threading.Thread(target=self.send, daemon=True)
        self.thread.start()

    def come(self, *_: object) -> None:
        if self.is_armed:
            self.is_armed = False
            self.count += 1
            raise KeyboardInterrupt

    def send(self) -> None:
        while not self.over:
            time.sleep(self.chance.random() * 0.02)
            os.kill(os.getpid(), signal.SIGINT)


class Workers:
    """Threads that allocate while it is open; one that an error has ended is replaced."""

    def __init__(self, seed: int) -> None:
        self.seed, self.over, self.done, self.made = seed, False, 0, 0
        self.threads: list[threading.Thread] = []

    def work(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.over:
            with contextlib.suppress(MemoryError):
                churn(chance)
                self.done += 1

    def refill(self) -> None:
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        while len(self.threads) < 3:
            self.made += 1
            self.threads.append(
                threading.Thread(target=self.work, args=(self.seed + self.made,), daemon=True)
            )
            self.threads[-1].start()

    def end(self) -> None:
        self.over = True
        for thread in self.threads:
            thread.join()
        self.threads = []


def a_round_of_threads(chance: random.Random, done: Counter[str], seconds: float) -> None:
    import zmalloc

    sys.setswitchinterval(0.0005)
    workers, interrupts = Workers(chance.randrange(1 << 30)), Interrupts(chance)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        workers.refill()
        try:
            interrupts.is_armed = True
            done[one_of_main(chance)] += 1
            interrupts.is_armed = False
        except KeyboardInterrupt:
            done["interrupted"] += 1
        except MemoryError:
            done["memory errors"] += 1
        interrupts.is_armed = False
        for _ in range(3):
            # a bare limit that an interrupt left; an error that was asked for may come here
            with contextlib.suppress(MemoryError):
                zmalloc.limit(None)
    interrupts.over = True
    interrupts.thread.join()
    workers.end()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tracemalloc.stop()
    done["worker rounds"] += workers.done
    done["workers"] += workers.made


LUA = """
local kept = {}
for i = 1, %d do kept[i %% 1000] = { string.rep("x", i %% 300), i } end
local co = coroutine.wrap(function() for i = 1, 10 do coroutine.yield({i}) end end)
for i = 1, 5 do co() end
kept = nil
"""


def a_round_of_lua(chance: random.Random, done: Counter[str], seconds: float) -> None:
    """A hundred states under one parent, whose cap moves while three threads run them."""
    import zmalloc

    from together import lua54

    group = zmalloc.lua_allocator("group")[2]
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        made = [lua54.counted(f"{n}", parent=group) for n in range(STATES)]
        opened = [stack.enter_context(one)[0] for one in made]

        def work(states: list[lua54.State], seed: int) -> None:
            mine = random.Random(seed)
            while time.monotonic() < end:
                try:
                    mine.choice(states).run(LUA % mine.randrange(5000))
                    done["Lua runs"] += 1
                except lua54.LuaError as error:
                    done["Lua memory errors" if error.status == lua54.ERRMEM else "others"] += 1

        threads = [
            threading.Thread(target=work, args=(opened[n::3], chance.randrange(1 << 30)))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            group.limit(group.used + chance.randrange(32 * KIB, 2 * MIB))
            time.sleep(0.005)
            assert group.used <= group.peak
        group.limit(None)
        for thread in threads:
            thread.join()
    assert group.used == 0, group.used
    assert not done["others"], "an error of Lua that is none of memory"
    del done["others"]
    done["Lua states"] += STATES


def soak_threads(chance: random.Random, seconds: float) -> dict[str, int]:
    done: Counter[str] = Counter()
    flat, end = Flat(), time.monotonic() + seconds
    part = max(0.25, min(2.0, seconds / 10))
    while time.monotonic() < end or len(flat.marks) < 3:
        a_round_of_threads(chance, done, part)
        a_round_of_lua(chance, done, part / 2)
        flat.look()
    figures = flat.figures(done)
    kept = KEPT + KEPT_BY_TRACEMALLOC * done["tracemalloc"]
    assert -KEPT < figures["used_grown"] < kept, figures
    assert figures["resident_grown"] < RESIDENT + kept, figures
    assert figures["interrupted"] > 0, figures
    assert figures["memory errors"] > 0, figures
    return figures


# ---- forks and interpreters ----------------------------------------------------------------------

CODE = """
import zmalloc
kept = [bytearray(n) for n in range(200)]
with zmalloc.budget(10 ** 9): kept.append(bytes(100_000))
"""
AUDIT = """
seen = zmalloc.audit()
assert seen.used == seen.counted, seen
"""


@contextlib.contextmanager
def an_interpreter() -> Iterator[Callable[[str], object]]:
    try:
        import _interpreters as api  # type: ignore[import-not-found]
    except ImportError:
        import _xxsubinterpreters as api  # type: ignore[import-not-found]
    one = api.create()
    try:
        yield lambda code: api.run_string(one, code)
    finally:
        api.destroy(one)


def a_child(chance: random.Random) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            import zmalloc

            audit()
            with contextlib.suppress(MemoryError), zmalloc.budget(MIB):
                run_away()
            churn(chance)
            audit()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def soak_processes(chance: random.Random, seconds: float) -> dict[str, int]:
    """Of each interpreter CPython itself keeps some: the audit is the judge here."""
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    workers = Workers(1)
    while time.monotonic() < end:
        workers.refill()
        kind = chance.choice(("forks", "interpreters", "processes"))
        if kind == "forks":
            a_child(chance)
        elif kind == "interpreters":
            with an_interpreter() as run:
                failed = run(CODE)  # with a GIL of its own others allocate at once: no audit
                assert failed is None, failed
        else:
            subprocess.run([sys.executable, "-c", CODE + AUDIT], check=True)
        done[kind] += 1
    workers.end()
    gc.collect()
    audit()
    return dict(done)


# ---- the system refuses --------------------------------------------------------------------------


def soak_refusals(chance: random.Random, seconds: float) -> dict[str, int]:
    """Memory that RLIMIT_AS refuses was never counted, also where another thread asks at once."""
    import resource

    import zmalloc

    done: Counter[str] = Counter()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 48 * MIB,) * 2)
    flat, end = Flat(), time.monotonic() + seconds
    while time.monotonic() < end or len(flat.marks) < 3:
        for _ in range(8):
            kept: list[object] = []
            size = chance.choice((200_000, 2 * MIB, 7 * MIB, 100 * MIB))
            try:
                for _ in range(1000):
                    kept.append(bytearray(size))
            except MemoryError:
                done["refused"] += 1
            del kept[-8:]  # an arena's worth: the looks take memory themselves
            audit()
            if kept:
                assert zmalloc.used() > len(kept) * size
            with contextlib.suppress(MemoryError), zmalloc.limit(zmalloc.used() + 4 * MIB):
                kept.append(churn(chance, 50))
            kept.clear()
            churn(chance, 100)
        flat.look()
    figures = flat.figures(done)
    assert abs(figures["used_grown"]) < KEPT, figures
    assert figures["resident_grown"] < RESIDENT, figures
    assert figures["refused"] > 0, figures
    return figures


# ---- killed while it writes ----------------------------------------------------------------------


def soak_kills(chance: random.Random, seconds: float) -> dict[str, int]:
    """SIGKILL at any moment of `run --json`: the old report or the new one, whole."""
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "zmalloc", "run", "--json", str(report), "-c",
                   "import os; print(os.getpid(), flush=True)"]  # fmt: skip
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        usual = time.monotonic() - started
        while time.monotonic() < end or done["killed"] < 3:
            old = report.stat()
            child = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert child.stdout
            child.stdout.readline()  # its program has run: what is left is the report
            time.sleep(chance.random() * usual / 8)
            child.kill()
            child.wait()
            child.stdout.close()
            done["killed" if child.returncode else "ended"] += 1
            content, new = json.loads(report.read_bytes()), report.stat()
            is_new = (new.st_ino, new.st_mtime_ns) != (old.st_ino, old.st_mtime_ns)
            assert content["status"] == 0, content
            assert content["stats"]["peak"] > 0, content
            assert is_new or child.returncode, "an ended process left no report"
            done["new" if is_new else "old"] += 1
    return dict(done)


# ---- the whole -----------------------------------------------------------------------------------

PARTS: dict[str, tuple[Callable[[random.Random, float], dict[str, int]], float]] = {
    "threads": (soak_threads, 0.55),
    "processes": (soak_processes, 0.2),
    "refusals": (soak_refusals, 0.15),
    "kills": (soak_kills, 0.1),
}


@contextlib.contextmanager
def shown(seconds: float) -> Iterator[Callable[[str, float], object]]:
    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield lambda title, done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("soak", total=seconds)
        yield lambda title, done: bar.update(task, description=title, completed=done)


def run(seconds: float, seed: int, file: Path | None) -> int:
    import zmalloc

    started, parts, differences = time.monotonic(), {}, []
    env = {name: value for name, value in os.environ.items() if not name.startswith("ZMALLOC_")}
    with shown(seconds) as show:
        for name, (_, share) in PARTS.items():
            command = [sys.executable, __file__, "part", name, str(seconds * share), str(seed)]
            with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
                child = subprocess.Popen(command, stdout=out, stderr=err, env=env)
                deadline = time.monotonic() + seconds * share + 300
                while child.poll() is None:
                    show(name, time.monotonic() - started)
                    time.sleep(0.1)
                    if time.monotonic() > deadline:
                        child.kill()
                        child.wait()
                        differences.append(f"{name}: hangs")
                out.seek(0), err.seek(0)
                if child.returncode == 0:
                    parts[name] = ast.literal_eval(out.read().splitlines()[-1])
                    print(f"{name}: " + ", ".join(f"{n:,} {k}" for k, n in parts[name].items()))
                else:
                    differences.append(f"{name}: status {child.returncode}")
                    print(f"{name}: status {child.returncode}\n{err.read()[-4000:]}")
    result = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "zmalloc": zmalloc.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "seconds": round(time.monotonic() - started),
        "operations": sum(
            n for part in parts.values() for name, n in part.items() if not name.endswith("grown")
        ),
        "parts": parts,
        "differences": differences,
    }
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['operations']:,} operations in {result['seconds']} s, "
          f"{len(differences)} differences")  # fmt: skip
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["run", "part"])
    parser.add_argument("words", nargs="+")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.what == "run":
        return run(float(options.words[0]), options.seed, options.json)
    name, seconds, seed = options.words
    print(PARTS[name][0](random.Random(int(seed)), float(seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
