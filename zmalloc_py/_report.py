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
