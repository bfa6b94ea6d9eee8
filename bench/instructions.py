"""How many instructions a program takes, by valgrind: a figure that does not depend on the load."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence


def can_count() -> bool:
    return shutil.which("valgrind") is not None


def count(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Of a whole process, its start included."""
    under = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run([*under, *command], env=env, check=True, capture_output=True, text=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found, done.stderr
    return int(found[1].replace(",", ""))
