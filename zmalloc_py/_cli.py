"""The command line: ``python -m zmalloc run [options] script.py args...``, also as ``zmalloc run``.

Runs a script as Python itself would, counted and under a cap. What is imported here before the script
starts counts as the script's, so nothing is imported that is not needed yet, and the options are read by
hand.
"""

from __future__ import annotations

import os
import sys

from zmalloc import _core
from zmalloc._version import __version__

TYPE_CHECKING = False  # typing's, without its import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

USAGE = "usage: zmalloc run [options] (script.py | -m module | -c code | -) [args...]"

HELP = f"""{USAGE}

Runs a Python program with every byte counted. Options come before the program:

  --limit SIZE   cap what the program may use; a request beyond it is a MemoryError.
                 The cap stays for the life of the process. A program that dies of it
                 ends with exit status {{status}} and one line that says so.
  --held SIZE    cap what the system gives for it: arenas, large blocks, frames
  --rlimit SIZE  let the kernel cap the process's data at its size now plus SIZE
  --stats        print a table of all figures to stderr at the end
  --json FILE    write the figures, the exit status and the versions to FILE at the end

A SIZE is bytes, or 64MiB, 1.5g, 300kB (all 1024-based), or 80% of the memory there is.
ZMALLOC_LIMIT=SIZE in the environment caps any process that imports zmalloc."""

STATUS_LIMIT = 53
STATUS_USAGE = 2


class UsageError(Exception):
    """A wrong command line: shown in one line, and nothing is run."""


class Options:
    """The options, and the program with its arguments."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.stats = False
        self.json: str | None = None
        self.program: list[str] = []


def parse(argv: Sequence[str]) -> Options:
    """Read what follows ``zmalloc run``; raises UsageError."""
    options = Options()
    rest = list(argv)
    while rest and rest[0].startswith("--"):
        name, given, value = rest.pop(0).partition("=")
        if name == "--":
            break
        if name == "--stats" and not given:
            options.stats = True
        elif name in ("--limit", "--held", "--rlimit", "--json"):
            if not given:
                if not rest:
                    raise UsageError(f"{name} needs a value")
                value = rest.pop(0)
            if name == "--json":
                options.json = value
            else:
                options.sizes[name[2:]] = parse_size(name, value)
        else:
            raise UsageError(f"unknown option {name}")
    if not rest:
        raise UsageError("there is nothing to run")
    if rest[0] in ("-m", "-c") and len(rest) < 2:
        raise UsageError(f"{rest[0]} needs {'a module' if rest[0] == '-m' else 'code'}")
    if len(rest[0]) > 1 and rest[0][0] == "-" and rest[0] not in ("-m", "-c"):
        raise UsageError(f"unknown option {rest[0]}")
    options.program = rest
    return options


def parse_size(name: str, text: str) -> int:
    try:
        return _core._parse_size(int(text) if text.isdecimal() else text, name)
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None


# ---- the program -------------------------------------------------------------------------------


def fresh_main(**attributes: object) -> ModuleType:
    """A new ``__main__``, with what CPython puts into it."""
    module = type(sys)("__main__")
    module.__dict__.update(
        __builtins__=sys.modules["builtins"], __annotations__={}, **attributes
    )
    sys.modules["__main__"] = module
    return module


def set_path(entry: str) -> None:
    """Put the program's entry where Python has put the runner's, if it has put one."""
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0] = entry


def is_importable(path: str) -> bool:
    """A folder or an archive with a __main__.py in it: Python runs those, too."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def as_module(name: str, alter_argv: bool) -> Callable[[], object]:
    import runpy

    run: Callable[[str, bool], object] = runpy._run_module_as_main  # type: ignore[attr-defined]

    def call() -> object:
        return run(name, alter_argv)

    return call


def as_code(source: bytes | str, filename: str, module: ModuleType) -> Callable[[], object]:
    namespace = module.__dict__

    def call() -> object:
        return exec(compile(source, filename, "exec", dont_inherit=True), namespace)

    return call


def as_script(path: str) -> Callable[[], object]:
    from _frozen_importlib_external import SourceFileLoader

    full = os.path.join(os.getcwd(), path)
    if is_importable(path):
        fresh_main()
        sys.path.insert(0, path) if getattr(sys.flags, "safe_path", False) else set_path(path)
        return as_module("__main__", False)
    try:
        with open(full, "rb") as file:
            source = file.read()
    except OSError as error:
        raise UsageError(
            f"can't open file {full!r}: [Errno {error.errno}] {error.strerror}"
        ) from None
    set_path(os.path.dirname(os.path.realpath(path)))
    module = fresh_main(__file__=full, __cached__=None, __loader__=SourceFileLoader("__main__", full))
    return as_code(source, full, module)


def prepare(program: list[str]) -> Callable[[], object]:
    """Make the process look as if Python had been started with the program; what runs it."""
    what, *args = program
    if what == "-m":
        sys.argv[:] = program
        sys.argv[1:2] = []
        set_path(os.getcwd())
        fresh_main()
        return as_module(args[0], True)
    if what == "-c":
        sys.argv[:] = ["-c", *args[1:]]
        set_path("")
        return as_code(args[0], "<string>", fresh_main(__loader__=sys.__loader__))
    sys.argv[:] = program
    if what == "-":
        set_path("")
        main = fresh_main(__loader__=sys.__loader__)
        return as_code(sys.stdin.buffer.read(), "<stdin>", main)
    return as_script(what)


# ---- caps --------------------------------------------------------------------------------------


def data_size() -> int:
    """The kernel's VmData of this process, in bytes: what RLIMIT_DATA is compared with."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    raise OSError("no VmData in /proc/self/status")


def set_rlimit(size: int) -> None:
    try:
        import resource

        most = data_size() + size
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"--rlimit: this system does not allow it: {error}") from None


def set_caps(sizes: dict[str, int]) -> None:
    if "rlimit" in sizes:
        set_rlimit(sizes["rlimit"])
    caps = {name: sizes[name] for name in ("limit", "held") if name in sizes}
    if not caps:
        return
    if not _core.is_installed():
        raise UsageError(
            f"--{next(iter(caps))} needs the hooks: it cannot be given with ZMALLOC_NO_INSTALL"
        )
    in_force = _core.limit()
    if in_force is not None and "limit" in caps:
        caps["limit"] = min(caps["limit"], in_force)  # ZMALLOC_LIMIT: the smaller one holds
    if "limit" in caps:
        _core.limit(caps["limit"], held=caps.get("held"), seal=True)
    else:
        _core.limit(held=caps["held"], seal=True)


# ---- reports -----------------------------------------------------------------------------------


class Report:
    """What --stats and --json write when the process ends."""

    def __init__(self, options: Options) -> None:
        self.stats = options.stats
        self.json = options.json and os.path.join(os.getcwd(), options.json)
        self.program = options.program
        self.status = 0
        self.pid = os.getpid()

    def note(self, status: int) -> None:
        self.status = status

    def write(self) -> None:
        if os.getpid() != self.pid:  # a forked child: the report is its parent's
            return
        from zmalloc._figures import stats

        figures = stats()
        if self.stats and sys.stderr:
            print(figures, file=sys.stderr, flush=True)
        if self.json:
            self.write_json(self.json, figures.as_dict())

    def write_json(self, path: str, figures: dict[str, object]) -> None:
        """A whole file or none: written beside its place, then moved there."""
        import json

        content = {
            "script": self.program,
            "status": self.status,
            "python": sys.version.split()[0],
            "zmalloc": __version__,
            "stats": figures,
        }
        beside = f"{path}.{self.pid}.tmp"
        try:
            with open(beside, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError as error:
            print(f"zmalloc: cannot write {path!r}: {error}", file=sys.stderr)
            if os.path.exists(beside):
                os.unlink(beside)


# ---- the command -------------------------------------------------------------------------------


def run(argv: Sequence[str]) -> int:
    options = parse(argv)
    report = Report(options)
    if report.json and not os.path.isdir(os.path.dirname(report.json)):
        raise UsageError(f"--json: there is no folder {os.path.dirname(report.json)!r}")
    call = prepare(options.program)
    if options.stats or options.json:
        import atexit

        atexit.register(_core._reporter(report.write))  # the first one in is the last one to run
    set_caps(options.sizes)
    _core._execute(call, report.note)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["-h"], ["--help"]) or args[:2] in (["run", "-h"], ["run", "--help"]):
        print(HELP.format(status=STATUS_LIMIT))
        return 0
    if args[:1] == ["--version"]:
        print(f"zmalloc {__version__}")
        return 0
    try:
        if args[:1] != ["run"]:
            raise UsageError(f"unknown command {args[0]!r}" if args else "no command given")
        return run(args[1:])
    except UsageError as error:
        print(f"zmalloc: {error}\n{USAGE}", file=sys.stderr)
        return STATUS_USAGE
