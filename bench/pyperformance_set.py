"""pyperformance's own benchmarks, each alone in a process, for contenders that run in turn.

Their list is read from the installed package. Left out, by name, are those that start other
processes or need a server (what is measured would not be this process), and those whose pinned
dependencies do not install on the versions that are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import contenders

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent

EXCLUDED = {
    "2to3": "starts a process for what is measured",
    "asyncio_tcp": "waits for sockets: its CPU time depends on who is woken first",
    "asyncio_tcp_ssl": "waits for sockets: its CPU time depends on who is woken first",
    "asyncio_websockets": "a server and a client",
    "concurrent_imap": "starts processes and threads for what is measured",
    "coverage": "pinned to a release that does not build everywhere",
    "dask": "a scheduler with processes",
    "dulwich_log": "reads a repository that is not in the package",
    "fastapi": "a server and a client",
    "genshi": "needs a compiler and a release that does not build everywhere",
    "mako": "takes markupsafe's C part away, of which newer releases want to know",
    "hg_startup": "starts a process for what is measured",
    "python_startup": "starts a process for what is measured",
    "python_startup_no_site": "starts a process for what is measured",
    "sphinx": "pinned dependencies take minutes to install, and it writes files",
    "sqlalchemy_declarative": "pinned to a release that does not build on 3.13",
    "sqlalchemy_imperative": "pinned to a release that does not build on 3.13",
    "tornado_http": "a server and a client",
    "typing_runtime_protocols": "has a clock of its own, which counts the waiting, too",
    "xdsl": "a release that needs Python 3.10 to 3.12",
    "yaml": "pinned to a release that does not build on 3.13",
}
#: One of async_tree's sixteen forms a kind of work; the others repeat it with other schedulers.
EXCLUDED.update(
    dict.fromkeys(
        (
            f"async_tree_{work}"
            for work in (
                "eager",
                "eager_cpu_io_mixed",
                "eager_cpu_io_mixed_tg",
                "eager_io",
                "eager_io_tg",
                "eager_memoization",
                "eager_memoization_tg",
                "eager_tg",
                "cpu_io_mixed_tg",
                "io_tg",
                "memoization_tg",
                "tg",
            )
        ),
        "the same work as async_tree with another scheduler",
    )
)

#: And of the scripts that measure several things, those that repeat one of their own.
EXCLUDED.update(
    dict.fromkeys(
        (
            "urlsafe_base64_small",
            "base32_small",
            "base32_large",
            "base16_small",
            "base16_large",
            "ascii85_small",
            "ascii85_large",
            "base85_small",
            "base85_large",
        ),
        "the same work as base64_small and base64_large in another alphabet",
    )
)

#: Installed for the benchmarks that have more than pyperf.
DEPENDENCIES = [
    "pyperformance",
    "chameleon",
    "django",
    "docutils",
    "html5lib",
    "legacy-cgi; python_version >= '3.13'",
    "networkx",
    "pyaes",
    "setuptools",
    "sqlglot",
    "sympy",
    "tomli",
]

#: Ten kinds of work, for contenders that take many times as long.
TEN = (
    "async_tree",
    "chaos",
    "deepcopy",
    "deltablue",
    "float",
    "json_dumps",
    "pyflate",
    "regex_compile",
    "telco",
    "xml_etree_process",
)

#: CPU seconds that a value takes at least, and from which on one of them is enough.
LEAST, ENOUGH = 0.15, 0.5


@dataclass(frozen=True)
class Benchmark:
    name: str
    script: str
    options: tuple[str, ...]
    task: int  #: which of those that the script has
    loops: int  #: what a value takes
    values: int  #: that a run takes, after as many to warm up, one at most


def _plan(seconds: float) -> tuple[int, int]:
    """Loops and values, for a benchmark that took so long once, with stock Python."""
    if seconds >= ENOUGH:
        return 1, 1
    return max(1, round(LEAST / max(seconds, 1e-7))), 3


@cache
def folder(python: str) -> Path:
    code = "import pyperformance; print(pyperformance.__path__[0])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) / "data-files" / "benchmarks"


def _scripts(python: str) -> list[tuple[str, str, tuple[str, ...]]]:
    found = []
    for place in sorted(folder(python).glob("bm_*")):
        variants = sorted(place.glob("bm_*.toml"))
        plain = place / "pyproject.toml"
        for file in [plain, *variants]:
            about: dict[str, Any] = tomllib.loads(file.read_text())
            own = about.get("tool", {}).get("pyperformance", {})
            if file == plain and variants and "extra_opts" not in own and place.name == "bm_pickle":
                own = {**own, "extra_opts": ["pickle"]}
            name = own.get("name", place.name.removeprefix("bm_"))
            if name not in EXCLUDED:
                script = str(place / "run_benchmark.py")
                found.append((name, script, tuple(own.get("extra_opts", ()))))
    return found


def run(command: list[str], timeout: float) -> tuple[dict[str, list[float]], float, int, str]:
    """Values by the benchmark's name; seconds by the clock, peak of resident memory, an error."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "values.json"
        _, wall, resident, why = _run([*command, "-o", str(output)], Path(place), timeout)
        if not why and not output.exists():
            why = "it wrote no values"
        return ({} if why else _values(output)), wall, resident, why


def run_plain(command: list[str], timeout: float) -> tuple[float, float, int, str]:
    """The same for a program that prints its seconds."""
    with tempfile.TemporaryDirectory() as place:
        text, wall, resident, why = _run(command, Path(place), timeout)
        return (0.0 if why else float(text.split()[-1])), wall, resident, why


def _run(command: list[str], place: Path, timeout: float) -> tuple[str, float, int, str]:
    """What it printed; seconds by the clock, peak of resident memory, an error."""
    log, resident = place / "log", place / "resident"
    begun = time.monotonic()
    env = {**os.environ, "PYTHONHASHSEED": "0", contenders.RESIDENT: str(resident)}
    with log.open("wb") as file:
        try:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=place,
                env=env,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return "", timeout, 0, f"took more than {timeout:.0f} s"
    wall = time.monotonic() - begun
    text = log.read_text(errors="replace").strip()
    if status:
        return text, wall, 0, f"status {status}: {text.splitlines()[-1] if text else ''}"[:200]
    return text, wall, int(resident.read_text()) if resident.exists() else 0, ""


def _values(output: Path) -> dict[str, list[float]]:
    report = json.loads(output.read_text())
    common = report.get("metadata", {})
    found = {}
    for one in report["benchmarks"]:
        name = one.get("metadata", common).get("name") or common["name"]
        found[name] = [value for each in one["runs"] for value in each.get("values", ())]
    return found


def worker(contender: str, one: Benchmark) -> list[str]:
    """The arguments of Python for a run."""
    return _worker(
        contender, one.script, one.options, one.loops, one.values, [f"--worker-task={one.task}"]
    )


def _worker(
    contender: str, script: str, options: tuple[str, ...], loops: int, values: int, more: list[str]
) -> list[str]:
    return [
        str(HERE / "pyperf_worker.py"),
        contender,
        script,
        *options,
        "--worker",
        *more,
        f"-l{loops}",
        f"-n{values}",
        f"-w{min(values - 1, 1)}",
    ]


def find(python: str) -> tuple[list[Benchmark], dict[str, str]]:
    """All that can run here, and why others cannot."""
    found: list[Benchmark] = []
    missing = dict(EXCLUDED)
    for name, script, options in _scripts(python):
        values, _, _, why = run([python, *_worker("stock", script, options, 1, 2, [])], 120)
        if why:
            missing[name] = why
        for task, (one, seconds) in enumerate(values.items()):
            if one not in EXCLUDED:
                found.append(Benchmark(one, script, options, task, *_plan(min(seconds))))
    return found, missing
