"""make fuzz: libFuzzer on the targets of this folder, atheris on the Python API.

    python -m fuzz.fuzz SECONDS PYTHON

SECONDS are for all of it together. What libFuzzer has found worth keeping stays in build/fuzz/ for
the next time; an input that fails is named, and left there, too. PYTHON has atheris, if there is
one for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from checkers.figures import Figures
from core import toolchain

from .building import HERE, TARGETS, build, corpus

FOLDER = toolchain.ROOT / "build" / "fuzz"
FLAGS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
LONGEST = {"size": 48, "map": 400, "tree": 1000}


def sow(target: str) -> Path:
    """The folder of a target's inputs, with the lines of its corpus in it."""
    folder = FOLDER / target
    folder.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(corpus(target).read_bytes().splitlines()):
        (folder / f"seed-{number}").write_bytes(line)
    return folder


def run(command: list[str | Path], name: str, seconds: int) -> dict[str, int]:
    """Runs a fuzzer that speaks as libFuzzer does, and reads its figures."""
    failures = FOLDER / "failures"
    failures.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*map(str, command), f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=60",
         f"-artifact_prefix={failures}/{name}-"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        timeout=seconds + 600, check=False)
    inputs = re.search(r"number_of_executed_units:\s*(\d+)", done.stdout)
    seen = re.findall(r"cov: (\d+) .*?corp: (\d+)", done.stdout)
    counts = {"inputs": int(inputs[1]) if inputs else 0, "seconds": seconds,
              "edges": int(seen[-1][0]) if seen else 0,
              "kept": int(seen[-1][1]) if seen else 0,
              "findings": int(done.returncode != 0 or not inputs)}
    if counts["findings"]:
        print(done.stdout[-6000:])
    return counts


def main(arguments: list[str]) -> int:
    seconds, python = int(arguments[0]), arguments[1]
    figures = Figures("fuzz", "clang")
    has_atheris = toolchain.run([python, "-c", "import atheris"]).returncode == 0
    share = max(1, seconds // (len(TARGETS) + has_atheris))
    for target in TARGETS:
        program = build(target, "libfuzzer", FLAGS, "clang", driver=False)
        figures.add(target, **run([program, f"-max_len={LONGEST[target]}", sow(target)], target,
                                  share))
    if has_atheris:
        (FOLDER / "api").mkdir(exist_ok=True)
        figures.add("Python API", **run([python, HERE / "api.py", "-max_len=400",
                                         "-len_control=0", FOLDER / "api"],
                                        "api", share))
    else:
        print(f"skipped: no atheris for {toolchain.must([python, '--version']).strip()}")
    return figures.write()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
