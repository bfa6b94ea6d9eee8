"""The fuzz targets on their corpus and on streams made of it: the same ones in each run.

ZMALLOC_TEST_STREAMS=20 does twenty times as many; make fuzz looks for new ones, by coverage.
"""

from __future__ import annotations

import os
import re

import pytest
from core import toolchain
from core.test_threads import ENVIRONMENT, can_sanitize, without_randomisation

from .building import TARGETS, build, corpus

TIMES = int(os.environ.get("ZMALLOC_TEST_STREAMS", "1"))
STREAMS = {"size": 60_000, "map": 2_000, "tree": 12_000}
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.mark.parametrize("target", TARGETS)
def test_each_stream_does_what_the_model_says(target: str) -> None:
    reason = can_sanitize("gcc", SANITIZE)
    flags = [] if reason else SANITIZE.split()
    program = build(target, "plain" if reason else "sanitized", flags)
    command = [program, str(TIMES * STREAMS[target]), "20240", corpus(target)]
    done = toolchain.run(without_randomisation(command), env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    streams = re.search(r"^(\d+) streams$", done.stdout, re.M)
    assert streams
    assert int(streams[1]) > TIMES * STREAMS[target]
