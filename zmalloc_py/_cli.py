"""The command line: ``python -m zmalloc run [options] script.py args...``, also as ``zmalloc run``.

Runs a script as Python itself would, counted and under a cap. What is imported here before the
script starts counts as the script's, so nothing is imported that is not needed yet, and the options
are read by hand.
"""

from __future__ import annotations

import sys

from zmalloc import _core

TYPE_CHECKING = False  # typing's, without its import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zmalloc._report import Report

USAGE = "usage: zmalloc run [options] (script.py | -m module | -c code | -) [args...]"

STATUS_USAGE = 2

ROOM = 65_536  # what a program needs to start at all, and to end with a MemoryError


USUAL_RESERVE = 1 << 20  # as limit()'s own


class UsageError(Exception):
    """A wrong command line: shown in one line, and nothing is run."""


class ProgramError(Exception):
    """A program that cannot be started: shown as Python shows it, without a usage line."""


class Options:
    """The options, and the program with its arguments."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.stats = False
        self.mode = "exact"
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
        elif name in ("--limit", "--reserve", "--held", "--rlimit", "--json", "--mode"):
            if not given:
                if not rest:
                    raise UsageError(f"{name} needs a value")
                value = rest.pop(0)
            if name == "--mode":
                if value not in ("exact", "held"):
                    raise UsageError(f"--mode={value!r} is no mode: expected 'exact' or 'held'")
                options.mode = value
            elif name == "--json":
                if not value:
                    raise UsageError("--json needs the name of a file")
                options.json = value
            elif name == "--reserve" and value.strip() in ("0", "0 B", "0B"):
                options.sizes["reserve"] = 0
            else:
                options.sizes[name[2:]] = parse_size(name, value)
        else:
            raise UsageError(f"unknown option {name}")
    if "reserve" in options.sizes and "limit" not in options.sizes:
        raise UsageError("--reserve needs --limit")
    if not rest or not rest[0]:
        raise UsageError("there is nothing to run")
    if rest[0] in ("-m", "-c") and len(rest) < 2:
        raise UsageError(f"{rest[0]} needs {'a module' if rest[0] == '-m' else 'code'}")
    if len(rest[0]) > 1 and rest[0][0] == "-" and rest[0] not in ("-m", "-c"):
        raise UsageError(f"unknown option {rest[0]}")
    options.program = rest
    return options


def parse_size(name: str, text: str) -> int:
    try:
        return _core._parse_size(text, name)
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from None


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


def check_caps(sizes: dict[str, int]) -> None:
    if _core.is_installed():
        return
    for name in ("limit", "held"):
        if name in sizes:
            raise UsageError(
                f"--{name} needs the hooks: it cannot be given with ZMALLOC_NO_INSTALL"
            )


def check_room(sizes: dict[str, int]) -> None:
    """A cap near what is in use would leave not one byte to say so with."""
    figures = _core._figures()
    in_force = figures["limit"]
    caps = [
        ("--limit", sizes.get("limit"), figures["used"] + ROOM),
        ("ZMALLOC_LIMIT", in_force, figures["used"] + ROOM),
        ("--held", sizes.get("held"), figures["held"]),
    ]
    for name, cap, least in caps:
        if cap is not None and cap < least:
            raise UsageError(f"{name} is too small to run Python in: at least {least:,} bytes")


def seal_caps(sizes: dict[str, int]) -> None:
    """Cap what the program may use, for good. ZMALLOC_LIMIT may have done so: the smaller holds."""
    held = sizes.get("held")
    limit = sizes.get("limit")
    in_force = _core.limit()
    if limit is not None:
        reserve = sizes.get("reserve", USUAL_RESERVE)
        most = limit
        if in_force is not None:
            most, reserve = min(limit, in_force), min(reserve, _core._figures()["reserve"])
        _core.limit(most, reserve=reserve, held=held, seal=True)
    elif held is not None:
        _core.limit(held=held, seal=True)


# ---- the command -------------------------------------------------------------------------------


def make_note(options: Options, report: Report | None) -> Callable[[int, bool], None]:
    """What is told how the program ended, before its exception is shown."""

    def note(status: int, died: bool) -> None:
        if report:
            report.note(status, died)
        if died and options.program[0] == "-c" and sys.version_info >= (3, 13):
            import linecache  # from 3.13 on, tracebacks show the lines of -c

            code = options.program[1]
            linecache.cache["<string>"] = (
                len(code),
                None,
                [line + "\n" for line in code.splitlines()],
                "<string>",
            )

    return note


def run(argv: Sequence[str]) -> int:
    options = parse(argv)
    check_caps(options.sizes)
    if options.mode == "held" and _core.is_installed():
        _core._begin_held()
    report = None
    if options.stats or options.json:
        from zmalloc._report import Report

        report = Report(options)
    if "rlimit" in options.sizes:
        set_rlimit(options.sizes["rlimit"])  # before the program's folder is on the path
    from zmalloc._program import prepare

    call = prepare(options.program)
    check_room(options.sizes)
    if report:
        import atexit

        atexit.register(_core._reporter(report.write))  # the first one in is the last one to run
    seal_caps(options.sizes)
    _core._execute(call, make_note(options, report))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["-h"], ["--help"]) or args[:2] in (["run", "-h"], ["run", "--help"]):
        from zmalloc._help import HELP

        print(HELP)
        return 0
    if args[:1] == ["--version"]:
        print(f"zmalloc {_core.__version__}")
        return 0
    try:
        if args[:1] != ["run"]:
            raise UsageError(f"unknown command {args[0]!r}" if args else "no command given")
        return run(args[1:])
    except UsageError as error:
        print(f"zmalloc: {error}\n{USAGE}", file=sys.stderr)
    except ProgramError as error:
        print(f"zmalloc: {error}", file=sys.stderr)
    return STATUS_USAGE
