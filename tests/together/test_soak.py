"""A few seconds of make soak: what it does for an hour works, and its figures are kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from python.processes import run

SOAK = Path(__file__).with_name("soak.py")


def test_a_short_soak_finds_no_difference(tmp_path: Path) -> None:
    report = tmp_path / "build" / "soak.json"
    seen = run([sys.executable, SOAK, "run", "6", "--json", report], timeout=400)
    assert seen.status == 0, seen.out + seen.err
    content = json.loads(report.read_text())
    assert content["differences"] == []
    assert set(content["parts"]) == {"threads", "processes", "refusals", "kills"}
    assert content["operations"] > 100
