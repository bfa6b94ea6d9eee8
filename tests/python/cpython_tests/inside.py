"""Runs in the interpreter that is tested: regrtest, and a line of JSON for each thing that happens.

    PYTHON inside.py RECORD ARGUMENT...    the arguments of python -m test

Regrtest's own reports leave out what fails in a sub-test or in a setUpClass(), and are not written
at all when a process crashes. Imports nothing that regrtest would not have imported itself.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from typing import Any

KINDS = {
    "startTest": "start",
    "addSuccess": "success",
    "addFailure": "failure",
    "addError": "error",
    "addSkip": "skipped",
    "addExpectedFailure": "expected failure",
    "addUnexpectedSuccess": "unexpected success",
}


class Record:
    """Written by this process, not its forks; opened for each line, as tests count files."""

    def __init__(self, path: str) -> None:
        self.path, self.pid = path, os.getpid()
        # a test may put others there for as long as it runs
        self.open, self.write, self.close = os.open, os.write, os.close
        self.getpid, self.dumps, self.format = os.getpid, json.dumps, traceback.format_exception

    def note(self, kind: str, test: Any, rest: tuple[Any, ...] = ()) -> None:
        if self.getpid() != self.pid:
            return
        what = rest[0] if rest else ""
        text = what if isinstance(what, str) else "".join(self.format(*what))[-4000:]
        if type(test).__name__ == "_SubTest":
            test = test.test_case
        name = type(test).id(test)  # tests have attributes of such names, too
        line = self.dumps([kind, name, text]) + "\n"
        file = self.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.write(file, line.encode())
        finally:
            self.close(file)


def watched(original: Callable[..., Any], kind: str, record: Record) -> Callable[..., Any]:
    def method(result: Any, test: Any, *rest: Any) -> Any:
        record.note(kind, test, rest)
        return original(result, test, *rest)

    return method


def watch(result: type, record: Record) -> None:
    for name, kind in KINDS.items():
        setattr(result, name, watched(getattr(result, name), kind, record))
    of_subtest = result.addSubTest  # type: ignore[attr-defined]

    def add(self: Any, test: Any, subtest: Any, error: Any) -> None:
        if error is not None:
            is_failure = issubclass(error[0], test.failureException)
            record.note("failure" if is_failure else "error", test, (error,))
        of_subtest(self, test, subtest, error)

    result.addSubTest = add  # type: ignore[attr-defined]


def main() -> None:
    record = Record(sys.argv[1])
    del sys.argv[1]
    sys.path[0] = os.getcwd()  # as -m has it
    try:
        from test.libregrtest.testresult import RegressionTestResult
    except ImportError:  # 3.10, and the first releases of 3.11
        from test.support.testresult import RegressionTestResult
    watch(RegressionTestResult, record)
    runpy.run_module("test", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
