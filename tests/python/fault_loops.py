"""Each name of the package with each of its requests for memory refused in turn.

    python tests/python/fault_loops.py [--quick] [NAME...]

For n = 0, 1, 2, ... until nothing fails any more, once for a single refusal and once for all that
follow: a MemoryError or the same result as without, no limit that stays, the map and the counters
equal, nothing kept from round to round. Prints a line of JSON: what was done, and each difference.
"""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import sys
from collections.abc import Callable

import zmalloc
from zmalloc import _cli, _core

#: More requests than any load makes.
MANY = 2000
#: A load whose use grows in each of so many rounds keeps something.
ROUNDS = 3

Load = Callable[[], object]


def work() -> int:
    return len([bytes(600) for _ in range(3)])


def figures() -> object:
    seen = zmalloc.stats()
    return len(str(seen)) > 100, sorted(seen.as_dict()), seen.raw.used >= 0


def limits() -> object:
    with zmalloc.limit("4 GiB", reserve="2 MiB") as outer:
        return zmalloc.limit(), outer.limit, outer.hard_limit, outer.held, work()


def limit_of_the_process() -> object:
    try:
        zmalloc.limit("4 GiB", held="8 GiB")
        return zmalloc.limit()
    finally:
        zmalloc.limit(None)


def budgets() -> object:
    with zmalloc.budget("1 GiB") as whole, zmalloc.budget("1 GiB", thread=True) as own:
        done = work()
    return done, whole.hit, own.hit, whole.n, own.thread, "budget" in repr(whole)


@zmalloc.budget("1 GiB")
def decorated() -> int:
    return work()


def decorate() -> object:
    return zmalloc.budget("1 GiB")(work)() + decorated()


def tracks() -> object:
    with zmalloc.track() as whole, zmalloc.track(thread=True) as own:
        done = work()
    return done, whole.peak > 0, own.allocations > 0, own.thread, bool(repr(whole))


def exempts() -> object:
    with zmalloc.exempt() as free:
        return work(), bool(repr(free))


def faults() -> object:
    with zmalloc.fail_after(MANY * 10) as inner:
        done = work()
    return done, inner.n, inner.repeat, inner.failed, bool(repr(inner))


def callback(info: object) -> None:
    del info


def pressure() -> object:
    try:
        return zmalloc.on_pressure(callback) is callback
    finally:
        try:  # noqa: SIM105 - another object would be a request, and the callback would stay
            zmalloc.on_pressure(callback, remove=True)
        except ValueError:
            pass  # was never put there


def pressure_of_a_limit() -> object:
    info = zmalloc.Pressure((1, 2, "limit"))
    return info.used, info.limit, info.scope


def accounts() -> object:
    _, _, group = zmalloc.lua_allocator("group")
    account = zmalloc.lua_allocator("faults", parent=group)[2]
    account.limit("1 MiB", reserve="64 KiB")
    account.reset_peak()
    account.clear_hit()
    kept = account.parent
    return (account.used, account.name, kept is not None and kept.name, account.limit(),
            account.reserve, account.refusals, account.limit_hit, account.peak,
            account.created, repr(account)[:8])


def errors() -> object:
    error = zmalloc.LimitError("text")
    return isinstance(error, MemoryError), str(error), error.args


def capsule() -> object:
    """The functions behind it, by the place that zmalloc_capi.h gives them."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(zmalloc._C_API, b"zmalloc._C_API"), ctypes.POINTER(ctypes.c_void_p))
    new = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(table[4])
    free = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(table[5])
    charge = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_size_t)(table[6])
    uncharge = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(table[7])
    account = new(b"capsule", None)
    charged = charge(account, 100)
    uncharge(account, 100)
    return charged, free(account)


OPTIONS = sorted(vars(_cli.parse(["run", "script.py"])))


def command_line() -> object:
    options = _cli.parse(["run", "--limit", "64MiB", "--stats", "script.py", "one"])
    return [getattr(options, name) for name in OPTIONS]


def sizes() -> object:
    return _core._parse_size("1.5 GiB", "n"), _core._format_size(1 << 20)


def wrong_sizes() -> object:
    """What is told of them is text that has to be made; 3.10 itself raises the error without it."""
    told = 0
    for size in (-1, 10**30, "1 XB", "9" * 100, "x" * 100, b"1", 0.5, "\xb5B"):
        try:
            _core._parse_size(size, "n")
        except (ValueError, TypeError, OverflowError):
            told += 1
    return told


def wrong_reserves() -> object:
    account = zmalloc.lua_allocator("wrong")[2]
    told = 0
    for call in (zmalloc.limit, zmalloc.budget, account.limit):
        for reserve in (-1, "1 XB", None if call == account.limit else 0.5):
            try:
                call(2**40, reserve=reserve)
            except (ValueError, TypeError, OverflowError):
                told += 1
    zmalloc.limit(None)
    return told


#: The names of zmalloc.__all__, and parts of the command line that work in this process. Those
#: of types stand with the functions that make them.
LOADS: dict[str, Load] = {
    "_C_API": capsule,
    "Account": accounts,
    "Audit": lambda: (zmalloc.Audit(1, 2, 3, 4) == zmalloc.Audit(1, 2, 3, 4)),
    "Budget": budgets,
    "Domain": lambda: zmalloc.Domain(1, 2, 3, 4).used,
    "Exempt": exempts,
    "FailAfter": faults,
    "Limit": limits,
    "LimitError": errors,
    "Pressure": pressure_of_a_limit,
    "Refusal": lambda: repr(zmalloc.Refusal(1, "file", 2)),
    "Stats": figures,
    "Track": tracks,
    "__version__": lambda: zmalloc.__version__ + "",
    "audit": lambda: repr(type(zmalloc.audit())),
    "budget": decorate,
    "exempt": exempts,
    "fail_after": faults,
    "get_include": zmalloc.get_include,
    "install": lambda: zmalloc.install(),
    "is_installed": zmalloc.is_installed,
    "limit": limit_of_the_process,
    "lua_allocator": accounts,
    "mode": zmalloc.mode,
    "on_pressure": pressure,
    "peak": lambda: zmalloc.peak() > 0,
    "reset_peak": zmalloc.reset_peak,
    "rss": lambda: zmalloc.rss() > 0,
    "stats": figures,
    "total": lambda: zmalloc.total() > 0,
    "track": tracks,
    "used": lambda: zmalloc.used() > 0,
    "run: command line": command_line,
    "run: sizes": sizes,
    "wrong sizes": wrong_sizes,
    "wrong reserves": wrong_reserves,
}
#: Without a load, and why.
WITHOUT = {
    "load_ipython_extension": "asks IPython's own objects: test_jupyter.py",
    "unload_ipython_extension": "the same",
}


#: Written in Python, or in need of ctypes. CPython itself loses some bytes of what is refused in
#: such code: an object of a plain class with five attributes does on 3.13, ctypes.CFUNCTYPE() on
#: 3.11 and 3.12. Told, and no difference.
MAY_KEEP = {"_C_API", "Audit", "Refusal", "Stats", "budget", "stats", "run: command line"}


class Counts:
    def __init__(self) -> None:
        self.runs = self.faults = self.errors = 0
        self.differences: list[str] = []
        self.kept: dict[str, list[int]] = {}


def look(name: str, n: int, repeat: int, found: list[str]) -> None:
    seen = zmalloc.audit()
    where = f"{name}, request {n}, repeat {repeat}"
    if seen.used != seen.counted:
        found.append(f"{where}: the map has {seen.used}, the counters {seen.counted}")
    if zmalloc.limit() is not None or zmalloc.stats().held_limit is not None:
        zmalloc.limit(None)
        found.append(f"{where}: a limit stayed")
    if not zmalloc.is_installed():
        found.append(f"{where}: the hooks are out")
        zmalloc.install()


def is_memory_error(error: BaseException) -> bool:
    """ctypes makes an error of its own of what happens to an argument."""
    return isinstance(error, MemoryError) or (
        isinstance(error, ctypes.ArgumentError) and "MemoryError" in str(error))


def run(name: str, n: int, repeat: int, expected: object, counts: Counts) -> bool:
    """True when the fault came."""
    load, error, result = LOADS[name], None, expected
    fault = zmalloc.fail_after(n, repeat)
    try:
        with fault:
            result = load()
    except BaseException as caught:
        error = caught.with_traceback(None)
    counts.runs += 1
    counts.faults += fault.failed
    counts.errors += error is not None
    where = f"{name}, request {n}, repeat {repeat}"
    if error is not None and not is_memory_error(error):
        counts.differences.append(f"{where}: {error!r}")
    elif error is not None and fault.failed == 0:
        counts.differences.append(f"{where}: {error!r} without a refusal")
    elif error is None and result != expected:
        counts.differences.append(f"{where}: {result!r} in place of {expected!r}")
    look(name, n, repeat, counts.differences)
    return fault.failed > 0


def loop(name: str, counts: Counts, rounds: int) -> None:
    for _ in range(10):
        expected = LOADS[name]()  # 3.11 and later rewrite what runs often
    grown = []
    for _ in range(rounds):
        gc.collect()
        before = zmalloc.used()
        for repeat in (1, -1):
            n = 0
            while run(name, n, repeat, expected, counts) and n < MANY:
                n += 1
            if n == MANY:
                counts.differences.append(f"{name}: there is no end of it")
        gc.collect()
        grown.append(zmalloc.used() - before)
    if rounds > 1 and min(grown[1:]) > 0:
        counts.kept[name] = grown
        if name not in MAY_KEEP:
            counts.differences.append(f"{name}: keeps {grown} bytes in its rounds")
    if LOADS[name]() != expected:
        counts.differences.append(f"{name}: is not what it was afterwards")


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    names = [word for word in arguments if word != "--quick"] or list(LOADS)
    counts = Counts()
    missing = sorted(set(zmalloc.__all__) - set(LOADS) - set(WITHOUT))
    counts.differences += [f"{name}: no load" for name in missing]
    public = {name for name in dir(zmalloc) if not name.startswith("_")} - {"sys"}
    counts.differences += [f"{name}: public, and not in __all__"
                           for name in sorted(public - set(zmalloc.__all__))]
    for name in names:
        loop(name, counts, 1 if quick else ROUNDS)
    print(json.dumps({
        "front": "Python", "with": platform.python_version(), "entries": len(names),
        "runs": counts.runs, "faults": counts.faults, "errors": counts.errors,
        "differences": len(counts.differences), "what": counts.differences[:50],
        "kept": counts.kept,
    }))
    return 1 if counts.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
