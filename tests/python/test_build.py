"""The extension's C code is clean under the style's warnings, and its distributions are whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from zmalloc import _core

ROOT = Path(__file__).resolve().parent.parent.parent
FRONT = ROOT / "zmalloc_py" / "_core"
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_extension_compiles_without_a_warning(compiler: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} on this machine")
    headers = sysconfig.get_paths()["include"]
    includes = ["-isystem", headers, f"-I{ROOT / 'csrc'}", f"-I{FRONT}"]
    for source in sorted(FRONT.glob("*.c")):
        command = [compiler, "-std=c11", *WARNINGS, *includes, "-fsyntax-only"]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{source.name}:\n{done.stderr}"


@pytest.mark.skipif(not shutil.which("readelf"), reason="no readelf on this machine")
def test_what_is_kept_for_each_thread_fits_where_it_is_found_without_a_call() -> None:
    most = 512  # glibc's tunable rtld.optional_static_tls
    done = subprocess.run(
        ["readelf", "-lW", _core.__file__], capture_output=True, text=True, check=True
    )
    segment = re.search(r"^ *TLS(?: +0x\w+){4} +(0x\w+)", done.stdout, re.MULTILINE)
    assert segment is not None
    assert int(segment[1], 16) < most


def test_no_front_is_known_to_the_core() -> None:
    for source in sorted((ROOT / "csrc").glob("*.[ch]")):
        text = source.read_text(encoding="utf-8")
        assert "#include <Python.h>" not in text
        assert '#include "lua' not in text
        assert "#include <lua" not in text


def test_every_source_is_built_and_declared() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for source in (*FRONT.glob("*.c"), *(ROOT / "csrc").glob("*.c")):
        assert f'"{source.stem}"' in setup, f"{source.name} is not in setup.py"
