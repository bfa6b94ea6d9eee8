"""What the README and the examples show of Python is true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import zmalloc

from .processes import run

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_program_of_the_readme_prints_what_its_comments_say(tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text(README.split("```python\n")[1].split("```")[0], encoding="utf-8")
    first, error, *table = run([sys.executable, script]).out.splitlines()
    promised = re.search(r"print\(zmalloc\.used\(\)\) +# (\d+)", README)
    assert promised
    # Beside the list: what the interpreter holds since the import, a few hundred bytes.
    assert 0 <= int(first) - int(promised[1]) < 4096
    assert error.startswith("limit of 64.0 MiB: 64.0 MiB in use, ")
    assert table[0].startswith("used ")
    assert table[2].endswith("none, hit")


def test_the_command_of_the_readme_ends_with_the_status_it_shows() -> None:
    command = [sys.executable, "-m", "zmalloc", "run", "--limit", "64MiB", "examples/runaway.py"]
    done = run(command, cwd=ROOT)
    assert done.status == 53
    *_, error, line = done.err.splitlines()
    assert error.startswith("zmalloc.LimitError: sealed limit of 64.0 MiB: 64.0 MiB in use, ")
    shown = re.search(r"^zmalloc: stopped at the limit of .*$", README, re.MULTILINE)
    assert shown
    # Which of the lines that take memory it is depends on what was in use before: 7, 14 or 15.
    varies = r"[\d.]+ [KM]?i?B|:(7|14|15)$"
    pattern = re.sub(varies, "SIZE", shown[0]).replace(".../", "")
    told = re.sub(varies, "SIZE", line).replace(str(ROOT) + "/", "")
    assert told == pattern


def test_every_field_of_stats_is_in_the_table_of_the_readme() -> None:
    table = README.split("### What `stats()` tells")[1].split("`print(stats())`")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert set(zmalloc.Stats.__slots__) <= named


def test_the_host_of_the_examples_goes_on_after_the_script_was_stopped() -> None:
    done = run([sys.executable, ROOT / "examples" / "host.py"])
    assert done.status == 0
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert "stopped by LimitError" in lines["ended"]
    peak = re.search(r"used at most +([\d,]+)", done.out)
    assert peak
    assert int(peak[1].replace(",", "")) <= 65 << 20
    after = re.search(r"used after it +([\d,]+)", done.out)
    assert after
    assert int(after[1].replace(",", "")) < 2 << 20
    assert "goes on" in done.out
