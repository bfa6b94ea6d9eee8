"""``zmalloc run`` runs a program as Python itself would, and says why it was stopped."""

from __future__ import annotations

import json
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import zmalloc

from .processes import Outcome, clean_environment, python, run

RUN = ("-m", "zmalloc", "run")
LIMIT_STATUS = 53
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def zrun(*arguments: str | Path, **settings: object) -> Outcome:
    return python(*RUN, *arguments, **settings)  # type: ignore[arg-type]


SHOW = """
import sys
main = sys.modules["__main__"]
print(sys.argv, sys.path, __name__, __file__, sorted(vars(main)), globals() is vars(main))
print(__spec__, __package__, __doc__, __annotations__, __builtins__, __cached__)
print(type(__loader__), __loader__.path, __loader__.name, type(main))
"""

SCRIPTS: dict[str, str | bytes] = {
    "show": SHOW,
    "error": "x = 1\ndef f():\n    1/0\nf()\n",
    "chained": "try:\n  1/0\nexcept ZeroDivisionError:\n  raise KeyError('x')\n",
    "cause": "try:\n  1/0\nexcept ZeroDivisionError as e:\n  raise KeyError('x') from e\n",
    "syntax": "x = (\n",
    "indentation": "def f():\n  x\n y\n",
    "tabs": "if 1:\n\tx\n        y\n",
    "return outside": "print('a')\nreturn 5\n",
    "await outside": "await x\n",
    "unknown encoding": "# -*- coding: nosuch -*-\nprint(1)\n",
    "no text encoding": "# coding: rot13\ncevag(1)\n",
    "utf-16 cookie": "# coding: utf-16\nprint(1)\n",
    "latin-1": b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n1/0  # \xe9\n",
    "not UTF-8": b"print('\xe9')\n",
    "BOM": b"\xef\xbb\xbfprint(ascii('\xc3\xa9'))\n1/0\n",
    "BOM and another cookie": b"\xef\xbb\xbf# coding: latin-1\nprint(1)\n",
    "utf-8-sig cookie": "#!/usr/bin/python\n# vim: set fileencoding=utf-8-sig :\nprint(1)\n1/0\n",
    "NUL": b"print(1)\0print(2)\n",
    "CR LF": b"print('a')\r\nprint('b')\r1/0\r\n",
    "no newline at the end": "print(1)",
    "empty": "",
    "exit with a text": "import sys\nsys.exit('bye')\n",
    "exit 3": "import sys\nsys.exit(3)\n",
    "exit None": "import sys\nsys.exit(None)\n",
    "exit without": "raise SystemExit\n",
    "exit 300": "raise SystemExit(300)\n",
    "exit -1": "raise SystemExit(-1)\n",
    "exit with a tuple": "raise SystemExit((1, 2))\n",
    "os._exit": "import os\nprint(1, flush=True)\nos._exit(7)\n",
    "quit": "quit()\n",
    "own excepthook": "import sys\nsys.excepthook = lambda t, v, tb: print('hook', t, v,"
    " tb.tb_lineno, tb.tb_frame.f_code.co_name, tb.tb_next)\n1/0\n",
    "excepthook None": "import sys\nsys.excepthook = None\n1/0\n",
    "excepthook deleted": "import sys\ndel sys.excepthook\n1/0\n",
    "excepthook that fails": "import sys\ndef h(*a): raise ValueError('in hook')\n"
    "sys.excepthook = h\n1/0\n",
    "excepthook that exits": "import sys\ndef h(*a): sys.exit(9)\nsys.excepthook = h\n1/0\n",
    "last_value": "import sys, atexit\natexit.register(lambda: print(sys.last_type,"
    " type(sys.last_value), sys.last_traceback.tb_lineno,"
    " sys.last_traceback.tb_frame.f_code.co_filename))\n1/0\n",
    "a str that fails": "class E(Exception):\n  def __str__(self): raise ValueError\nraise E\n",
    "warning": "import warnings\nwarnings.warn('x')\n",
    "syntax warning": "x = 5\nprint(x is 5)\n",
    "source of itself": "import inspect\nclass A: pass\n"
    "print(A, A.__module__, inspect.getsource(A))\n",
    "doc and annotations": "'''doc'''\nprint(__doc__)\nx: int = 5\nprint(__annotations__)\n",
    "no inherited future": "def f(a: int): pass\nprint(f.__annotations__)\n",
    "import of main": "import __main__\nprint(__main__.__dict__ is globals())\n",
    "closed stdout": "import sys\nsys.stdout.close()\n1/0\n",
    "stdin": "import sys\nprint(sys.stdin.read(), input if 0 else '')\n",
    "atexit and a thread": "import atexit, threading, time\natexit.register(print, 'atexit')\n"
    "def w():\n  time.sleep(.1); print('thread')\nthreading.Thread(target=w).start()\n"
    "print('main')\n",
    "atexit, a thread and an error": "import atexit, threading, time\n"
    "atexit.register(print, 'atexit')\ndef w():\n  time.sleep(.1); print('thread')\n"
    "threading.Thread(target=w).start()\nprint('m')\n1/0\n",
    "atexit in order": "import atexit\nfor n in range(3): atexit.register(print, n)\n",
    "atexit that fails": "import atexit\natexit.register(lambda: 1/0)\n",
    "atexit that exits": "import atexit, sys\natexit.register(lambda: sys.exit(5))\nsys.exit(4)\n",
    "daemon thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,),"
    " daemon=True).start()\nprint('main')\n",
    "error in a thread": "import threading\nt = threading.Thread(target=lambda: 1/0, name='t1')\n"
    "t.start(); t.join()\n",
    "finalizers": "class D:\n  def __init__(self, n): self.n = n\n"
    "  def __del__(self): print('del', self.n)\nd = D('global')\n"
    "def f():\n  e = D('local')\n  1/0\nf()\n",
    "pickle of main's class": "import pickle\nclass A: pass\n"
    "print(type(pickle.loads(pickle.dumps(A()))))\n",
    "spawn": "import multiprocessing as m\ndef f(x): return x * 2\nif __name__ == '__main__':\n"
    "  with m.get_context('spawn').Pool(1) as p: print(p.map(f, [1, 2]))\n",
    "forkserver": "import multiprocessing as m\ndef f(x): return x * 2\n"
    "if __name__ == '__main__':\n  with m.get_context('forkserver').Pool(1) as p:\n"
    "    print(p.map(f, [1, 2]))\n",
    "text on stderr": "import sys\nprint('é', file=sys.stderr)\nassert 0, 'é'\n",
    "MemoryError": "raise MemoryError\n",
    "MemoryError with text": "raise MemoryError('mine')\n",
}


def same(
    tmp_path: Path,
    *arguments: str | Path,
    options: tuple[str, ...] = (),
    stdin: bytes | None = None,
) -> None:
    """Python and the runner do the same, to the byte (but for addresses)."""
    expected = python(*arguments, options=options, cwd=tmp_path, stdin=stdin)
    seen = zrun(*arguments, options=options, cwd=tmp_path, stdin=stdin)
    assert ADDRESS.sub("0x", seen.err) == ADDRESS.sub("0x", expected.err)
    assert ADDRESS.sub("0x", seen.out) == ADDRESS.sub("0x", expected.out)
    assert seen.status == expected.status


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_python_runs_it(name: str, tmp_path: Path) -> None:
    source = SCRIPTS[name]
    (tmp_path / "script.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    same(tmp_path, "script.py")


@pytest.mark.parametrize(
    "name",
    [
        "script.py",
        "./script.py",
        "sub/../script.py",
        "link.py",
        "sub/link.py",
        "a b/é.py",
        "noext",
        "{cwd}/script.py",
        "{cwd}//script.py",
    ],
)
def test_a_scripts_name_is_taken_as_python_takes_it(name: str, tmp_path: Path) -> None:
    for folder in ("sub", "a b"):
        (tmp_path / folder).mkdir()
    for file in ("script.py", "a b/é.py", "noext"):
        (tmp_path / file).write_text(SHOW + "1/0\n")
    (tmp_path / "link.py").symlink_to("script.py")
    (tmp_path / "sub" / "link.py").symlink_to("../script.py")
    same(tmp_path, name.format(cwd=tmp_path), "a", "-b", "--limit", "", "--", "é")


@pytest.mark.parametrize(
    "options",
    [
        ("-I",),
        ("-P",),
        ("-B", "-O"),
        ("-W", "error"),
        ("-X", "utf8"),
        ("-u",),
        ("-s", "-E"),
        ("-b",),
        ("-X", "dev"),
    ],
)
def test_pythons_own_flags_hold(options: tuple[str, ...], tmp_path: Path) -> None:
    if "-P" in options and sys.version_info < (3, 11):
        pytest.skip("-P is new in 3.11")
    source = SHOW + "print(sys.flags)\nimport warnings\nwarnings.warn('w')\nassert 0\n"
    (tmp_path / "script.py").write_text(source)
    same(tmp_path, "script.py", options=options)


PACKAGE = """
import sys
print(__name__, sys.argv, sys.path[0], __file__, __package__, __spec__.name, sorted(globals()))
1/0
"""


def package_in(folder: Path) -> None:
    (folder / "pkg" / "sub").mkdir(parents=True)
    (folder / "dir").mkdir()
    (folder / "pkg" / "__init__.py").write_text("print('init', __name__)\n")
    (folder / "pkg" / "sub" / "__init__.py").write_text("")
    (folder / "pkg" / "bad.py").write_text("x = (\n")
    for file in ("pkg/__main__.py", "pkg/mod.py", "dir/__main__.py", "alone.py"):
        (folder / file).write_text(PACKAGE)
    (folder / "exits.py").write_text("import sys\nsys.exit(5)\n")
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.write(folder / "dir" / "__main__.py", "__main__.py")
    (folder / "nomain").mkdir()


@pytest.mark.parametrize(
    "module",
    [
        "pkg",
        "pkg.mod",
        "pkg.sub",
        "alone",
        "exits",
        "nosuch",
        "pkg.nosuch",
        "pkg.bad",
        ".x",
        "",
        "sys",
        "json.tool",
        "pkg.",
    ],
)
def test_a_module_runs_as_python_runs_it(module: str, tmp_path: Path) -> None:
    package_in(tmp_path)
    same(tmp_path, "-m", module, "a", "--stats", stdin=b"{}")


@pytest.mark.parametrize(
    "path",
    ["dir", "./dir", "dir/", "app.zip", "./app.zip", "{cwd}/dir", "{cwd}/app.zip", "pkg", "nomain"],
)
def test_a_folder_or_archive_runs_as_python_runs_it(path: str, tmp_path: Path) -> None:
    package_in(tmp_path)
    same(tmp_path, path.format(cwd=tmp_path), "1", "-2")


@pytest.mark.parametrize(
    "code",
    [
        "import sys; print(sys.argv, sys.path, sorted(globals()), __name__, __spec__, __loader__)",
        "1/0",
        "x = (",
        "",
        "def f():\n  raise KeyError(1)\nf()",
        "  x = 1",
        "import sys; sys.exit(4)",
        "print('é😀')",
        "raise SystemExit('text')",
        "if 1:\n\tx\n        y",
    ],
)
def test_code_runs_as_python_runs_it(code: str, tmp_path: Path) -> None:
    same(tmp_path, "-c", code, "-m", "-c", "x")


@pytest.mark.parametrize(
    "source",
    [
        b"import sys\nprint(sys.argv, sys.path[0], __name__, sorted(globals()))\n",
        b"1/0\n",
        b"x = (\n",
        b"",
        b"def f():\n  1/0\nf()\n",
        b"import sys\nprint(repr(sys.stdin.read()))\nsys.exit(3)\n",
        b"# coding: latin-1\nprint(ascii('\xe9'))\n",
    ],
)
def test_a_script_from_stdin_runs_as_python_runs_it(source: bytes, tmp_path: Path) -> None:
    same(tmp_path, "-", "a", "b", stdin=source)


def test_stdin_is_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys\nprint(input(), repr(sys.stdin.buffer.read()))\n"
    )
    same(tmp_path, "script.py", stdin=b"line\nrest \xff\0\n")


@pytest.mark.parametrize(
    "name", ["missing.py", "missing/dir.py", "dir-without/main/x", "file.py/x"]
)
def test_a_script_that_cannot_be_read_is_one_line_as_pythons(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("")
    expected, seen = python(name, cwd=tmp_path), zrun(name, cwd=tmp_path)
    assert seen.status == expected.status == 2
    assert seen.err == expected.err.replace(f"{sys.executable}: ", "zmalloc: ")
    assert seen.out == ""


def test_an_interrupt_ends_the_process_by_sigint(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import atexit\natexit.register(print, 'atexit')\nraise KeyboardInterrupt\n")
    expected = python(script, may_be_killed=True)
    for options in ((), ("--stats",), ("--limit", "100MiB")):
        seen = zrun(*options, script, may_be_killed=True)
        assert seen.status == expected.status == -signal.SIGINT
        assert seen.out == expected.out == "atexit\n"
        assert seen.err.startswith(expected.err)


def test_a_real_sigint_ends_the_process_by_sigint(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, *RUN, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        text=True,
        # A job that a shell started in the background ignores SIGINT, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")
    assert "zmalloc" not in err.replace(str(tmp_path), "")


def console_script() -> str:
    path = Path(sysconfig.get_path("scripts")) / "zmalloc"
    found = str(path) if path.exists() else shutil.which("zmalloc")
    if not found:
        pytest.skip("the console script is not installed")
    return found


@pytest.mark.parametrize("name", ["show", "error", "exit 3", "latin-1", "spawn"])
def test_the_console_script_does_the_same(name: str, tmp_path: Path) -> None:
    source = SCRIPTS[name]
    (tmp_path / "script.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    expected = python("script.py", "x", cwd=tmp_path)
    seen = run([console_script(), "run", "script.py", "x"], cwd=tmp_path)
    assert (seen.out, seen.err, seen.status) == (expected.out, expected.err, expected.status)


# ---- the command itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("walk",),
        ("run",),
        ("run", "--limit"),
        ("run", "--limit", "5"),
        ("run", "--nosuch", "x.py"),
        ("run", "-x", "x.py"),
        ("run", "-m"),
        ("run", "-c"),
        ("run", "--stats=yes", "x.py"),
        ("run", "--limit", "12 parsecs", "x.py"),
        ("run", "--limit=-1", "x.py"),
        ("run", "--limit", "0", "x.py"),
        ("run", "--limit", "1.5", "x.py"),
        ("run", "--limit", "24 MBxyz", "x.py"),
        ("run", "--limit=", "x.py"),
        ("run", "--limit", "9" * 30, "x.py"),
        ("run", "--held", "nothing", "x.py"),
        ("run", "--rlimit", "x", "x.py"),
        ("run", "--limit", "²", "x.py"),
        ("run", "--limit", "٣", "x.py"),
        ("run", "--limit", "101%", "x.py"),
        ("run", "--json"),
        ("run", "--json", "", "x.py"),
        ("run", "--json", "missing/folder/f.json", "x.py"),
        ("run", "--limit", "9" * 5000, "x.py"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_the_usage(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "x.py").write_text("print('ran')")
    seen = python("-m", "zmalloc", *arguments, cwd=tmp_path)
    lines = seen.err.splitlines()
    assert seen.status == 2, seen
    assert seen.out == "", "nothing is run"
    assert len(lines) == 2, seen.err
    assert lines[0].startswith("zmalloc: ")
    assert lines[1].startswith("usage: ")


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("run", "--help"), ("run", "-h")])
def test_help_names_every_option(arguments: tuple[str, ...]) -> None:
    seen = python("-m", "zmalloc", *arguments)
    assert seen.status == 0
    assert seen.err == ""
    for word in (
        "--limit",
        "--held",
        "--rlimit",
        "--stats",
        "--json",
        "ZMALLOC_LIMIT",
        str(LIMIT_STATUS),
    ):
        assert word in seen.out


def test_the_version_is_the_packages() -> None:
    seen = python("-m", "zmalloc", "--version")
    assert (seen.status, seen.out) == (0, f"zmalloc {zmalloc.__version__}\n")


def test_options_may_be_given_with_an_equals_sign_and_end_with_two_dashes(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import sys, zmalloc\nprint(sys.argv, zmalloc.limit())")
    seen = zrun("--limit=77MiB", "--", "x.py", "--limit", "5", cwd=tmp_path)
    assert seen.out == f"['x.py', '--limit', '5'] {77 * 2**20}\n"


# ---- caps --------------------------------------------------------------------------------------

RUNAWAY = """
import sys
kept = []
def grow():
    while True:
        kept.append(bytearray(100_000))       # line 6
grow()
"""


def limit_line(seen: Outcome) -> str:
    lines = [line for line in seen.err.splitlines() if "zmalloc:" in line]
    assert len(lines) == 1, seen.err
    assert seen.err.splitlines()[-1] == lines[0], "after the script's own traceback"
    return lines[0]


@pytest.mark.parametrize("size", ["8MiB", "8388608", "8 mb", "8192k"])
def test_a_runaway_is_stopped_and_one_line_says_so(size: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(RUNAWAY)
    seen = zrun("--limit", size, script)
    assert seen.status == LIMIT_STATUS
    line = limit_line(seen)
    assert "the limit of 8.0 MiB (hard limit 9.0 MiB)" in line
    assert "peak 8.0 MiB" in line
    assert "97.6 KiB" in line, "what was asked for last"
    assert f"{script}:6" in line
    assert "1 error raised" in line
    traceback = seen.err[: seen.err.index("zmalloc:")]
    assert traceback.startswith('Traceback (most recent call last):\n  File "' + str(script))
    last = traceback.splitlines()[-1]
    assert last.startswith("zmalloc.LimitError: sealed limit of 8.0 MiB: 8.0 MiB in use, 97.6 KiB")
    assert f"{script}:6" in last
    assert "_cli" not in traceback


def test_without_a_reserve_a_runaway_is_refused_at_the_limit_itself(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(RUNAWAY)
    seen = zrun("--limit", "8MiB", "--reserve", "0", script)
    assert seen.status == LIMIT_STATUS
    line = limit_line(seen)
    assert "limit of 8.0 MiB: peak 7.9 MiB, 1 request refused, the last one for 97.6 KiB" in line
    assert "\nMemoryError\n" in seen.err


def test_a_reserve_needs_a_limit(tmp_path: Path) -> None:
    seen = zrun("--reserve", "1MiB", "-c", "print('run')")
    assert (seen.status, seen.out) == (2, "")
    assert "--reserve needs --limit" in seen.err


@pytest.mark.parametrize("program", [("-m", "runaway"), ("-c", RUNAWAY)])
def test_modules_and_code_are_stopped_too(program: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "runaway.py").write_text(RUNAWAY)
    seen = zrun("--limit", "8MiB", *program, cwd=tmp_path)
    assert seen.status == LIMIT_STATUS
    assert ":6" in limit_line(seen)


def test_memory_errors_that_the_script_swallows_end_as_it_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = "try:\n    bytearray(10**9)\nexcept MemoryError:\n    print('caught')\n"
    script.write_text(body)
    seen = zrun("--limit", "8MiB", script)
    assert (seen.status, seen.out, seen.err) == (0, "caught\n", "")
    script.write_text(body + "raise SystemExit(7)\n")
    assert zrun("--limit", "8MiB", script).status == 7
    script.write_text(body + "1/0\n")
    seen = zrun("--limit", "8MiB", script)
    assert seen.status == 1
    assert "zmalloc:" not in seen.err


def test_a_memory_error_without_the_limit_hit_is_pythons_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise MemoryError\n")
    seen = zrun("--limit", "100MiB", script)
    assert seen.status == 1
    assert "zmalloc:" not in seen.err


@pytest.mark.parametrize("size", ["1", "3", "2000"])
@pytest.mark.parametrize("option", ["--limit", "--held"])
def test_a_cap_below_what_is_in_use_ends_at_once(option: str, size: str) -> None:
    seen = zrun(option, size, "-c", "print('ran')", timeout=20)
    assert seen.status in (2, LIMIT_STATUS)
    assert seen.out == ""
    assert "zmalloc: " in seen.err


def test_a_runaway_in_a_thread_does_not_end_the_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import threading\ndef w():\n    bytearray(10**9)\nt = threading.Thread(target=w)\n"
        "t.start(); t.join()\nprint('on')\n"
    )
    seen = zrun("--limit", "16MiB", script)
    assert (seen.status, seen.out) == (0, "on\n")


def test_the_line_names_the_limit_that_refused(tmp_path: Path) -> None:
    """A scope of the script's own is over by the time that the report is written."""
    script = tmp_path / "script.py"
    script.write_text("import zmalloc\nwith zmalloc.limit('3 MiB'):\n    bytearray(10**9)\n")
    for options in ((), ("--limit", "64MiB")):
        seen = zrun(*options, script)
        if seen.status == LIMIT_STATUS:
            line = limit_line(seen)
            assert "EiB" not in line
            assert "64.0 MiB" not in line
            assert "3.0 MiB" in line


def test_the_line_and_the_figures_tell_the_same_request(tmp_path: Path) -> None:
    """A list that grows asks for its new size; what is refused is the whole request."""
    script = tmp_path / "script.py"
    script.write_text("l = []\nwhile True:\n    l.append(None)\n")
    report = tmp_path / "report.json"
    seen = zrun("--limit", "8MiB", "--json", report, script)
    assert seen.status == LIMIT_STATUS
    last = json.loads(report.read_text())["stats"]["last_refused"]["bytes"]
    assert f"the last one for {last / 1024:.1f}"[:-2] in limit_line(seen)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("é日😀.py", "é日😀.py"), (os.fsdecode(b"\xff\xfe.py"), "??.py"), ("a b.py", "a b.py")],
)
def test_the_line_names_a_script_of_any_name(name: str, shown: str, tmp_path: Path) -> None:
    script = tmp_path / name
    script.write_text(RUNAWAY)
    seen = zrun("--limit", "8MiB", script)
    assert seen.status == LIMIT_STATUS
    assert f" at {tmp_path}/{shown}:6" in limit_line(seen)


@pytest.mark.parametrize(
    "file", ["None", "object()", "type('F', (), {'flush': lambda self: 1 / 0})()"]
)
@pytest.mark.parametrize("end", ["sys.exit(3)", "1 / 0", "pass"])
def test_a_script_may_leave_anything_in_place_of_stderr(end: str, file: str) -> None:
    code = f"import sys; sys.stderr = {file}; {end}"
    assert zrun("-c", code).status == python("-c", code).status


def test_the_cap_of_the_command_line_is_sealed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import zmalloc\nassert zmalloc.limit() == 20 * 2**20\nfor n in (None, '21 MiB'):\n"
        "    try:\n        zmalloc.limit(n)\n    except PermissionError:\n        print('no')\n"
    )
    assert zrun("--limit", "20MiB", script).out == "no\nno\n"


@pytest.mark.parametrize(
    "call", ["_reporter(print)", "_begin_held()", "_execute(print, lambda status, died: None)"]
)
def test_a_program_cannot_call_what_is_the_command_lines(call: str) -> None:
    """A report may go beyond the limit: a program that makes its own would have no limit."""
    code = f"""
import zmalloc
try:
    zmalloc._core.{call}
except RuntimeError as error:
    print(repr(str(error)))
"""
    assert zrun("--limit", "30MiB", "-c", code).value == "zmalloc runs a program already"


def test_held_is_capped_and_sealed_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(RUNAWAY)
    seen = zrun("--held", "12MiB", script)
    assert seen.status == LIMIT_STATUS
    assert "12.0 MiB" in limit_line(seen)
    script.write_text(
        "import zmalloc\ns = zmalloc.stats()\nprint(s.limit, s.held_limit)\n"
        "zmalloc.limit(held='1 GiB')\n"
    )
    seen = zrun("--held", "12MiB", script)
    assert seen.status == 1
    assert "PermissionError" in seen.err
    assert seen.out == f"None {12 * 2**20}\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA as Linux has it")
def test_rlimit_is_the_kernels_and_nobody_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import mmap\nmmap.mmap(-1, 10 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "print('small')\ntry:\n    bytearray(400 * 2**20)\n"
        "except MemoryError:\n    print('caught')\n"
        "bytearray(400 * 2**20)\n"
    )
    seen = zrun("--rlimit", "60MiB", script)
    assert seen.out == "small\ncaught\n"
    assert seen.status == 1
    assert seen.err.endswith("MemoryError\n")
    assert zrun("--rlimit", "2GiB", "-c", "bytearray(400 * 2**20)").status == 0


def test_the_environment_caps_a_script_and_its_status_stays_pythons(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import zmalloc\n" + RUNAWAY)
    seen = python(script, env={"ZMALLOC_LIMIT": "8MiB"})
    assert seen.status == 1
    assert "zmalloc.LimitError: sealed limit of 8.0 MiB" in seen.err
    assert "zmalloc: stopped" not in seen.err


@pytest.mark.parametrize(
    ("variable", "option", "least"), [("9MiB", "8MiB", 8), ("8MiB", "9MiB", 8), ("8MiB", "8MiB", 8)]
)
def test_of_the_variable_and_the_option_the_smaller_holds(
    variable: str, option: str, least: int, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import zmalloc\nprint(zmalloc.limit())\n" + RUNAWAY)
    seen = zrun("--limit", option, script, env={"ZMALLOC_LIMIT": variable})
    assert seen.out == f"{least * 2**20}\n"
    assert seen.status == LIMIT_STATUS


@pytest.mark.parametrize("option", ["--limit", "--held"])
def test_a_cap_without_hooks_is_an_error(option: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('ran')")
    seen = zrun(option, "8MiB", script, env={"ZMALLOC_NO_INSTALL": "1"})
    assert (seen.status, seen.out) == (2, "")
    assert "ZMALLOC_NO_INSTALL" in seen.err
    seen = zrun(script, env={"ZMALLOC_NO_INSTALL": "1", "ZMALLOC_LIMIT": "8MiB"})
    assert seen.status != 0
    assert seen.out == ""
    assert "ZMALLOC_NO_INSTALL" in seen.err


def test_without_hooks_a_script_runs_uncounted(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import zmalloc\nprint(zmalloc.used(), zmalloc.is_installed())")
    assert zrun("--stats", script, env={"ZMALLOC_NO_INSTALL": "1"}).out == "0 False\n"


def test_a_wrong_variable_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('ran')")
    seen = zrun(script, env={"ZMALLOC_LIMIT": "12 parsecs"})
    assert seen.status != 0
    assert seen.out == ""
    assert "12 parsecs" in seen.err


# ---- reports -----------------------------------------------------------------------------------


def test_stats_are_a_table_on_stderr(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys\natexit.register(print, 'last word', file=sys.stderr)\nprint('out')"
    )
    seen = zrun("--stats", script)
    assert (seen.status, seen.out) == (0, "out\n")
    lines = seen.err.splitlines()
    assert lines[0] == "last word", "the report comes after the script's own exit functions"
    assert lines[1].startswith("used")
    assert lines[-1].startswith("stack")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('text')", 1),
        ("1/0", 1),
        ("import sys; sys.exit()", 0),
        ("x = [0] * 10**9", LIMIT_STATUS),
        ("import sys; sys.exit(True)", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_json_is_a_whole_file_with_the_status_inside(
    code: str, status: int, tmp_path: Path
) -> None:
    script, report = tmp_path / "script.py", tmp_path / "report.json"
    script.write_text(code)
    seen = zrun("--limit", "30MiB", "--json", report, script, "arg", may_be_killed=True)
    assert seen.status == status
    content = json.loads(report.read_text())
    assert content["status"] == status
    assert content["script"] == [str(script), "arg"]
    assert content["python"] == sys.version.split()[0]
    assert content["zmalloc"] == zmalloc.__version__
    assert set(content["stats"]) == set(zmalloc.Stats.__annotations__)
    assert content["stats"]["limit"] == 30 * 2**20
    assert content["stats"]["limit_hit"] is (status == LIMIT_STATUS)
    assert content["stats"]["peak"] <= 30 * 2**20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "script.py"]


def test_json_goes_where_it_was_said_also_if_the_script_goes_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, sys\nos.chdir('/')\nsys.argv = []\nsys.path.clear()\n"
    )
    assert zrun("--json", "r.json", "script.py", cwd=tmp_path).status == 0
    assert json.loads((tmp_path / "r.json").read_text())["status"] == 0


def test_the_report_does_not_run_modules_of_the_script(tmp_path: Path) -> None:
    for name in ("json", "io", "tempfile", "string", "dataclasses"):
        (tmp_path / f"{name}.py").write_text("print('imported', __name__)\n")
    (tmp_path / "script.py").write_text("print('script')\n")
    seen = zrun("--stats", "--json", tmp_path / "r.out", "script.py", cwd=tmp_path)
    assert (seen.status, seen.out) == (0, "script\n")
    assert json.loads((tmp_path / "r.out").read_text())["script"] == ["script.py"]


def test_json_replaces_an_old_file_and_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    report.write_text("old")
    assert zrun("--json", report, "-c", "").status == 0
    assert json.loads(report.read_text())["status"] == 0
    folder = tmp_path / "folder"
    folder.mkdir()
    seen = zrun("--json", folder, "-c", "")
    assert "zmalloc:" in seen.err
    assert str(folder) in seen.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "r.json"]


def test_a_report_that_cannot_be_written_is_said_and_the_status_stays(tmp_path: Path) -> None:
    seen = zrun("--json", "/proc/nosuch.json", "-c", "import sys; sys.exit(3)")
    assert seen.status == 3
    assert seen.err.startswith("zmalloc: cannot write '/proc/nosuch.json'")
    assert len(seen.err.splitlines()) == 1


@pytest.mark.parametrize(
    "ending", ["", "import os; os._exit(0)", "import sys; sys.exit(4)", "1/0", "bytearray(10**9)"]
)
def test_a_forked_child_inherits_the_cap_and_writes_no_second_report(
    ending: str, tmp_path: Path
) -> None:
    script, report = tmp_path / "script.py", tmp_path / "r.json"
    script.write_text(f"""
import os, sys, zmalloc
pid = os.fork()
if pid == 0:
    assert zmalloc.limit() == 30 * 2**20
    try:
        bytearray(10**8)
        os._exit(77)
    except MemoryError:
        pass
    sys.stderr = open(os.devnull, "w")
    {ending}
    sys.exit(0)
status = os.waitpid(pid, 0)[1]
assert os.waitstatus_to_exitcode(status) != 77
assert not os.path.exists({str(report)!r})
print("parent", file=sys.stderr)
""")
    seen = zrun("--limit", "30MiB", "--stats", "--json", report, script)
    assert seen.status == 0
    text = seen.err[seen.err.index("parent\n") :]
    assert text.count("fragmentation") == 1
    assert seen.err.count("fragmentation") == 1
    assert json.loads(report.read_text())["status"] == 0


@pytest.mark.parametrize("where", ["globals", "the exception", "both", "builtins"])
@pytest.mark.parametrize("reserve", [0, 2**20])
def test_the_report_works_with_nothing_left(reserve: int, where: str, tmp_path: Path) -> None:
    script, report = tmp_path / "script.py", tmp_path / "r.json"
    script.write_text(f"""
import builtins, sys
sys._getframe()
hoard = [None] * 200_000
def fill(at=0):
    sys._getframe()
    error = MemoryError()
    if {where!r} in ("the exception", "both"):
        error.hoard = hoard
        if {where!r} == "the exception":
            globals()["hoard"] = None
            mine = error.hoard
    if {where!r} == "builtins":
        builtins.hoard = hoard
    mine = hoard or error.hoard
    for size in (10_000, 100, 1):
        try:
            while True:
                mine[at] = bytes(size) + b"."
                at += 1
        except MemoryError:
            pass
    raise error
fill()
""")
    most = 8 * 2**20 + reserve
    seen = zrun("--limit", "8MiB", "--reserve", reserve, "--stats", "--json", report, script)
    assert seen.status == LIMIT_STATUS, seen
    # CPython may have lost its traceback for want of room
    assert "MemoryError" in seen.err or "LimitError" in seen.err
    assert seen.err.count("zmalloc: stopped at the limit of 8.0 MiB") == 1
    assert seen.err.count("fragmentation") == 1
    content = json.loads(report.read_text())
    assert content["status"] == LIMIT_STATUS
    assert 8 * 2**20 - 1000 < content["stats"]["peak"] <= most, "the report is not in the peak"


@pytest.mark.parametrize("reserve", [0, 2**20])
def test_the_report_works_when_an_exit_function_leaves_nothing(
    reserve: int, tmp_path: Path
) -> None:
    script, report = tmp_path / "script.py", tmp_path / "r.json"
    script.write_text("""
import atexit, sys
numbers = list(range(100_000))
hoard = [None] * 100_000
@atexit.register
def fill():
    sys._getframe()
    free = iter(numbers)
    for size in (10_000, 100, 1):
        try:
            for at in free:
                hoard[at] = bytes(size)
        except MemoryError:
            pass
    try:
        for at in free:
            hoard[at] = object()
    except MemoryError:
        pass
""")
    seen = zrun("--limit", "8MiB", "--reserve", reserve, "--stats", "--json", report, script)
    assert seen.status == 0, seen
    assert seen.err.count("fragmentation") == 1
    content = json.loads(report.read_text())
    peak, most = content["stats"]["peak"], 8 * 2**20 + reserve
    assert 8 * 2**20 - 2000 < peak <= most, "the report is not in the peak"
    assert content["stats"]["limit_errors" if reserve else "refusals"] >= (1 if reserve else 4)


# ---- what the runner itself holds ----------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--limit", "64MiB"),
        ("--stats",),
        ("--json", "r.json"),
        ("--limit", "64MiB", "--stats", "--json", "r.json"),
    ],
)
def test_the_runner_holds_less_than_300_kB(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code = "import zmalloc\nprint(zmalloc.used())\n"
    (tmp_path / "script.py").write_text(code)
    # without a compiled file -m has to compile, for which Python itself makes 260 kB of types
    assert python("-m", "py_compile", "script.py", cwd=tmp_path).status == 0
    for program in (("script.py",), ("-m", "script"), ("-c", code)):
        seen = zrun(*arguments, *program, cwd=tmp_path)
        assert int(seen.out) < 300_000, program
        assert int(seen.out) > 1000


def test_the_examples_run(tmp_path: Path) -> None:
    runaway = Path(__file__).parents[2] / "examples" / "runaway.py"
    if not runaway.exists():
        pytest.skip("examples/runaway.py is not there yet")
    seen = zrun("--limit", "64MiB", runaway, cwd=tmp_path)
    assert seen.status in (0, LIMIT_STATUS)
    assert os.listdir(tmp_path) == []


# ---- what a report is written to ---------------------------------------------------------------


def test_a_report_goes_into_a_pipe_and_leaves_it_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        zrun("--json", str(pipe), "-c", "pass")
        out, _ = reader.communicate(timeout=30)
    assert json.loads(out)["status"] == 0
    assert pipe.is_fifo()


def test_a_report_follows_a_link_and_keeps_the_mode_of_the_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    zrun("--json", str(link), "-c", "pass")
    assert link.is_symlink()
    assert json.loads(target.read_text())["status"] == 0
    assert target.stat().st_mode & 0o777 == 0o600


def test_the_json_file_is_written_also_when_stderr_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    code = "import sys; sys.stderr.close()"
    assert zrun("--stats", "--json", str(file), "-c", code).status == 0
    assert json.loads(file.read_text())["stats"]["used"] > 0


def test_a_compiled_script_runs(tmp_path: Path) -> None:
    source = tmp_path / "script.py"
    source.write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    compiled = py_compile.compile(str(source), cfile=str(tmp_path / "compiled.pyc"))
    assert zrun(compiled, "a").out == python(compiled, "a").out == "__main__ ['a']\n"


@pytest.mark.parametrize("limit", ["1", "3000", "60 KiB"])
def test_a_variable_too_small_to_run_python_in_is_an_error(limit: str) -> None:
    seen = python("-c", "import zmalloc", env={"ZMALLOC_LIMIT": limit})
    assert seen.status == 1
    assert "too small to run Python in: at least 65536 bytes" in seen.err


def test_a_variable_too_small_for_the_runner_is_an_error() -> None:
    seen = zrun("-c", "print(1)", env={"ZMALLOC_LIMIT": "66 KiB"})
    assert (seen.status, seen.out) == (2, "")
    assert "ZMALLOC_LIMIT is too small to run Python in" in seen.err
