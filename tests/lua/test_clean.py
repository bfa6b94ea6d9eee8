"""The C programs of this folder under the sanitizers and valgrind.

On a part of the Luas, or on all with ZMALLOC_TEST_LUAS=all: the library's own code differs little
between them.
"""

from __future__ import annotations

import os

import pytest

from . import toolchain
from .test_states import built

ALL = os.environ.get("ZMALLOC_TEST_LUAS") == "all"
LUAS = toolchain.PACKAGES if ALL else ("lua5.1", "lua5.4", "luajit")
some_luas = pytest.mark.parametrize("lua", LUAS)


@some_luas
@pytest.mark.parametrize("program", ["states", "cap", "groups", "adopt", "faults"])
def test_the_address_sanitizer_is_silent(program: str, lua: str) -> None:
    """With the one for undefined behaviour. Leaks of blocks and accounts are found by it, too."""
    toolchain.check(built(f"{program}.c", lua, "address"), "all", "0.1")


@some_luas
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_the_thread_sanitizer_is_silent(cc: str, lua: str) -> None:
    toolchain.check(built("groups.c", lua, "thread", cc), "all", "0.2")


@pytest.mark.parametrize("lua", toolchain.PACKAGES if ALL else ("lua5.4", "luajit"))
@pytest.mark.parametrize("program", ["states", "adopt"])
def test_valgrind_is_silent(program: str, lua: str) -> None:
    command = toolchain.valgrind()
    if not command:
        pytest.skip("no valgrind on this machine")
    toolchain.check(built(f"{program}.c", lua), "all", "0.002", under=command)
