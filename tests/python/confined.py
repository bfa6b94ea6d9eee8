"""A process and what the kernel says of it at its end: its status, and the most it had resident.

A process started by a large one (this one) would inherit that one's peak, so a small one starts it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .processes import clean_environment

TIMEOUT = 240.0

LAUNCHER = """
import os, resource, sys
report, most, *command = sys.argv[1:]
if int(most):
    resource.setrlimit(resource.RLIMIT_AS, (int(most), int(most)))
pid = os.posix_spawn(command[0], command, os.environ)
status, usage = os.wait4(pid, 0)[1:]
with open(report, "w") as file:
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=file)
"""


class Ended(NamedTuple):
    status: int
    #: Bytes, of the largest of its processes.
    resident: int
    out: str
    err: str


def confined(command: Sequence[str | Path], address_space: int = 0) -> Ended:
    """Run to the end, with what it leaves behind killed; `address_space` is an RLIMIT_AS."""
    with tempfile.TemporaryDirectory() as folder:
        out, err, report = (Path(folder, name) for name in ("out", "err", "report"))
        words = [sys.executable, "-ISc", LAUNCHER, report, address_space, *command]
        with out.open("wb") as o, err.open("wb") as e:
            launcher = subprocess.Popen(
                [str(word) for word in words], env=clean_environment(), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=o, stderr=e, cwd=folder,
            )  # fmt: skip
            try:
                launcher.wait(TIMEOUT)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()
        texts = [file.read_text("utf-8", "replace") for file in (out, err)]
        assert report.exists(), texts
        status, kilobytes = map(int, report.read_text().split())
        return Ended(status, kilobytes * 1024, *texts)
