"""What the pytest plugin costs a suite of 1,000 small tests: make bench-pytest

    bench/pytest_cost.py PYTHON [ROUNDS]

pytest without it, with it but nothing asked, with a default limit and the report, and
pytest-memray's --memray where that is installed. Instructions by callgrind where valgrind is (whole
process, one run each: they hardly differ), and processor time, interleaved.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from interleave import measure, show

SUITE = '''
import pytest

@pytest.fixture
def numbers():
    return list(range(20))

@pytest.mark.parametrize("n", range(250))
class TestSmall:
    def test_sum(self, n):
        assert sum(range(n)) == n * (n - 1) // 2

    def test_text(self, n):
        assert str(n) * 2 == f"{n}{n}"

    def test_fixture(self, n, numbers):
        assert [i + n for i in numbers][0] == n

    def test_dict(self, n):
        table = {i: str(i) for i in range(50)}
        assert table[7] == "7"
'''

CONTENDERS = {
    "without": ["-p", "no:zmalloc"],
    "nothing asked": ["-p", "zmalloc"],
    "limit and report": ["-p", "zmalloc", "--memory-limit=1GiB", "--memory-report"],
    "pytest-memray": ["-p", "memray", "--memray"],
}


def command(python: str, contender: str) -> list[str]:
    return [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CONTENDERS[contender]]


def environment() -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONDONTWRITEBYTECODE": "",  # pytest keeps what it has made of a plugin's source
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONHASHSEED": "0",
    }


def seconds(python: str, contender: str, folder: Path) -> float:
    before = os.times()
    done = subprocess.run(
        command(python, contender), cwd=folder, env=environment(), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    if "1000 passed" not in done.stdout:
        sys.exit(f"{contender}: {done.stdout}{done.stderr}")
    after = os.times()
    return sum(after[i] - before[i] for i in (2, 3))


def instructions(python: str, contender: str, folder: Path) -> int:
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
         *command(python, contender)],
        cwd=folder, env=environment(), check=False, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if not found or "1000 passed" not in done.stdout:
        sys.exit(f"{contender}: {done.stdout}{done.stderr}")
    return int(found[1])


def main() -> None:
    python = str(Path(sys.argv[1] if len(sys.argv) > 1 else sys.executable).absolute())
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    has_memray = subprocess.run([python, "-c", "import pytest_memray"], capture_output=True)
    names = [name for name in CONTENDERS if name != "pytest-memray" or has_memray.returncode == 0]
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        (folder / "test_small.py").write_text(SUITE, encoding="utf-8")
        seconds(python, "without", folder)  # writes the bytecode
        times = measure(names, lambda name: seconds(python, name, folder), rounds)
        counts: dict[str, int] = {}
        if shutil.which("valgrind"):
            counts = {n: instructions(python, n, folder) for n in names if n != "pytest-memray"}
    print(f"{'1,000 small tests':<20}{'processor time':>24}{'instructions':>16}")
    for name in names:
        count = f"{counts[name] / counts['without']:.3f}" if name in counts else ""
        print(f"{name:<20}{show(times, name, 'without'):>24}{count:>16}")


if __name__ == "__main__":
    main()
