"""entries.c: each function of the headers with each of its requests refused.

ZMALLOC_FAULT_COUNTS: a file to which what was done is written, as lines of JSON.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from . import toolchain
from .test_threads import check

WRAPPED = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc", "free")]


def declared() -> set[str]:
    """The functions of the headers that are installed."""
    text = "".join((toolchain.CSRC / name).read_text(encoding="utf-8")
                   for name in ("zmalloc.h", "zaccount.h", "zsize.h"))
    return set(re.findall(r"^ZMALLOC_API [\w ]+?[ *](\w+)\(", text, re.M))


@pytest.mark.parametrize("mode", toolchain.MODES)
def test_each_function_survives_each_request_that_is_refused(mode: str) -> None:
    """A function of a header without a load is a failure, too."""
    library = toolchain.static_library(mode)
    program = toolchain.program("entries.c", "entries", library, "-O2", *WRAPPED)
    check(program)
    printed = toolchain.run([program]).stdout
    assert set(re.findall(r"^entry (\w+)$", printed, re.M)) == declared()
    counts = json.loads(re.findall(r"^\{.*\}$", printed, re.M)[-1])
    assert counts["faults"] > 100
    assert counts["differences"] == 0
    wanted = os.environ.get("ZMALLOC_FAULT_COUNTS")
    if wanted:
        with Path(wanted).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**counts, "with": mode}) + "\n")
