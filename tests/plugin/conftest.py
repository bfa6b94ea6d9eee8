"""A pytest in a process of its own, with the plugin and no other unless the test names it."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: How long one such run may take, on a slow machine, too.
TIMEOUT = 120.0


@dataclass(frozen=True)
class Run:
    """What a run has printed."""

    status: int
    lines: list[str]
    err: str
    folder: Path

    @property
    def counts(self) -> dict[str, int]:
        """``{"passed": 2, "failed": 1}``, of the last line."""
        for line in reversed(self.lines):
            if re.search(r" in [\d.]+s", line):
                return {
                    word.removesuffix("s") if word == "errors" else word: int(number)
                    for number, word in re.findall(r"(\d+) ([a-z]+)", line.split(" in ")[0])
                }
        raise AssertionError("\n".join(self.lines) + self.err)

    @property
    def outcomes(self) -> dict[str, int]:
        """The same without warnings, which differ by version."""
        return {word: number for word, number in self.counts.items() if word != "warning"}

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def told(self, name: str) -> str:
        """What is told of the failure or error of one test: the lines below its title."""
        titles = [
            i for i, line in enumerate(self.lines) if re.fullmatch(r"[_=]{3,} .* [_=]{3,}", line)
        ]
        for k, i in enumerate(titles):
            if re.search(rf" {re.escape(name)} _+$", self.lines[i]):
                end = titles[k + 1] if k + 1 < len(titles) else len(self.lines)
                return "\n".join(self.lines[i + 1 : end])
        raise AssertionError(f"nothing is told of {name}:\n{self.text}{self.err}")

    def json(self, name: str = "memory.json") -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


Runner = Callable[..., Run]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """suite(source, *options, plugins=(), files={}): writes test_it.py and runs it."""
    for name in ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "COV_CORE_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("COLUMNS", "160")

    def run(
        source: str | None,
        *options: str,
        plugins: tuple[str, ...] = (),
        files: dict[str, str] | None = None,
        zmalloc: bool = True,
        status: int | None = None,
    ) -> Run:
        if source is not None:
            pytester.makepyfile(test_it=textwrap.dedent(source))
        for name, text in (files or {}).items():
            (pytester.path / name).write_text(textwrap.dedent(text), encoding="utf-8")
        named = ("zmalloc", *plugins) if zmalloc else plugins
        words = [word for name in named for word in ("-p", name)]
        done = pytester.runpytest_subprocess(
            *words, "-p", "no:cacheprovider", *options, timeout=TIMEOUT
        )
        ended = Run(int(done.ret), done.outlines, done.stderr.str(), pytester.path)
        if status is not None:
            assert ended.status == status, ended.text + ended.err
        return ended

    return run


@pytest.fixture
def own(pytester: pytest.Pytester) -> Path:
    """The folder that the tests of a run are in."""
    return pytester.path


def needs(module: str) -> pytest.MarkDecorator:
    """Skips, by name, where a neighbour cannot be had on this Python."""
    from importlib.util import find_spec

    return pytest.mark.skipif(
        find_spec(module) is None, reason=f"there is no {module} for {sys.version.split()[0]}"
    )
