"""What ``--stats`` and ``--json`` write when the process ends. Loaded only for them."""

from __future__ import annotations

import os
import sys

from zmalloc import _core
from zmalloc._cli import UsageError
from zmalloc._figures import Stats
from zmalloc._version import __version__

TYPE_CHECKING = False  # typing's, without its import
if TYPE_CHECKING:
    from zmalloc._cli import Options


def to_json(value: object, indent: str = "\n") -> str:
    """JSON of plain values. Module json is not used because it would be found by the program's own
    sys.path, at the end of the program, when there is hardly memory left for it."""
    if isinstance(value, dict):
        inside = indent + "  "
        items = (f"{inside}{to_json(k)}: {to_json(v, inside)}" for k, v in value.items())
        return "{" + ",".join(items) + indent + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_json, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(map(escape, value)) + '"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)  # int, float


def escape(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if " " <= c <= "~":
        return c
    units = c.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i:i + 4]}" for i in range(0, len(units), 4))


def put(path: str, text: str, suffix: str) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return
    beside = path + suffix
    try:
        with open(beside, "w", encoding="utf-8") as file:
            if os.path.exists(path):
                os.chmod(beside, os.stat(path).st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise


def say(text: str) -> None:
    """To stderr, if there is one that takes it."""
    try:  # noqa: SIM105 (contextlib need not be there yet)
        print(text, file=sys.stderr, flush=True)
    except (AttributeError, OSError, ValueError):
        pass


class Report:
    """What --stats and --json write when the process ends."""

    def __init__(self, options: Options) -> None:
        self.stats = options.stats
        self.json = options.json and os.path.join(os.getcwd(), options.json)
        if self.json and not os.path.isdir(os.path.dirname(self.json)):
            raise UsageError(f"--json: there is no folder {os.path.dirname(self.json)!r}")
        self.program = options.program
        self.status = 0
        self.pid = os.getpid()
        self.at_death: _core._Figures | None = None

    def note(self, status: int, died: bool) -> None:
        self.status = status
        if died:  # the figures of the script, not of what it takes to say how it ended
            self.at_death = _core._figures()

    def write(self) -> None:
        if os.getpid() != self.pid:  # a forked child: the report is its parent's
            return
        figures = Stats(self.at_death or _core._figures())
        if self.json:
            self.write_json(self.json, figures.as_dict())
        if self.stats:
            say(str(figures))

    def write_json(self, path: str, figures: dict[str, object]) -> None:
        """A whole file or none: written beside its place, then moved there.

        What is no file (a pipe, a device) is written to.
        """
        content = {
            "script": self.program,
            "status": self.status,
            "python": sys.version.split()[0],
            "zmalloc": __version__,
            "stats": figures,
        }
        try:
            put(os.path.realpath(path), to_json(content) + "\n", f".{self.pid}.tmp")
        except OSError as error:
            say(f"zmalloc: cannot write {path!r}: {error}")
