"""The differences that have a reason, and the test cases that are left out, each with its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

ALL = ("3.10", "3.11", "3.12", "3.13")
MODES = ("exact", "held")


@dataclass(frozen=True)
class Known:
    module: str  #: a regular expression for the module's whole name
    case: str  #: and one for the test case's, as unittest names it
    reason: str
    versions: tuple[str, ...] = ALL  #: "3.11" is all of them
    modes: tuple[str, ...] = MODES

    def is_for(self, version: str, mode: str) -> bool:
        return version.rpartition(".")[0] in self.versions and mode in self.modes

    def explains(self, module: str, case: str, version: str, mode: str) -> bool:
        return (
            self.is_for(version, mode)
            and re.fullmatch(self.module, module) is not None
            and re.fullmatch(self.case, case) is not None
        )


NAMES = (
    "CPython has names for its own allocators alone: where a hook is in, tracemalloc's or another,"
    " asking for the name is a RuntimeError"
)

KNOWN: tuple[Known, ...] = (
    Known("test_cmd_line", r".*\.test_(pythonmalloc|xdev)", NAMES),
    Known(
        "test_sys",
        r".*\.test_debugmallocstats",
        "sys._debugmallocstats() leaves out the figures of pymalloc where a hook is in for objects,"
        " tracemalloc's or another; in mode held there is none",
        modes=("exact",),
    ),
    Known(
        "test_site",
        r".*\.test_startup_imports",
        "skips itself where the site-packages have a .pth: it is what imports zmalloc here",
    ),
)

#: Test cases that are not run either way: the module, a pattern of regrtest's, the reason.
IGNORED = (
    ("test_socket", "*VSOCK*", "waits for ever where the machine has vsock and nobody to answer"),
)

#: What matters most to an allocator is run first.
FIRST = (
    "test_capi test_gc test_tracemalloc test_list test_dict test_set test_bytes test_unicode"
    " test_str test_memoryview test_array test_io test_threading test_thread test_fork1"
    " test_os test_sys test_weakref test_generators test_coroutines test_exceptions"
    " test_traceback test_interpreters test_faulthandler test_code test_ast test_compile"
    " test_json test_pickle test_re test_ctypes test_sqlite3 test_zlib test_import"
    " test_subprocess test_asyncio test_concurrent_futures test_multiprocessing_fork"
    " test_atexit test_embed test_cmd_line test_site test_audit test_threading_local"
    " test_finalization test_signal test_mmap test_buffer test_long"
)


def known(module: str, case: str, version: str, mode: str) -> Known | None:
    """The entry that explains the difference, if there is one."""
    return next((one for one in KNOWN if one.explains(module, case, version, mode)), None)


def ignored(module: str) -> list[str]:
    """Regrtest's options that leave them out."""
    return [word for one, pattern, _ in IGNORED if one == module for word in ("-i", pattern)]
