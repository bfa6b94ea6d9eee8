"""Exact memory accounting and memory caps for Python.

Importing this package puts hooks into CPython's allocators; from then on every byte that Python
takes is counted::

    import zmalloc

    zmalloc.used()                      # bytes that Python holds now
    with zmalloc.limit("64 MiB"):       # what passes it gets a LimitError, a MemoryError
        run_something()
    print(zmalloc.stats())

Import it first: what was allocated before is not counted. ``ZMALLOC_NO_INSTALL=1`` leaves the hooks
out until :func:`install` is called; ``ZMALLOC_LIMIT="64 MiB"`` caps the process for good;
``ZMALLOC_MODE=held`` counts what the system gives in place of each block, see :func:`install`.
"""

import sys

if "zmalloc._core" in sys.builtin_module_names:
    from zmalloc import _embedded as _embedded

from zmalloc._core import (
    _C_API,
    Account,
    Budget,
    Exempt,
    FailAfter,
    Limit,
    LimitError,
    Pressure,
    Track,
    _begin,
    budget,
    exempt,
    fail_after,
    install,
    is_installed,
    limit,
    lua_allocator,
    mode,
    on_pressure,
    peak,
    reset_peak,
    rss,
    total,
    track,
    used,
)
from zmalloc._figures import Audit, Domain, Refusal, Stats, audit, stats
from zmalloc._version import __version__

__all__ = [
    "_C_API",
    "Account",
    "Audit",
    "Budget",
    "Domain",
    "Exempt",
    "FailAfter",
    "Limit",
    "LimitError",
    "Pressure",
    "Refusal",
    "Stats",
    "Track",
    "__version__",
    "audit",
    "budget",
    "exempt",
    "fail_after",
    "get_include",
    "install",
    "is_installed",
    "limit",
    "load_ipython_extension",
    "lua_allocator",
    "mode",
    "on_pressure",
    "peak",
    "reset_peak",
    "rss",
    "stats",
    "total",
    "track",
    "unload_ipython_extension",
    "used",
]


def get_include() -> str:
    """The folder with ``zmalloc_capi.h``, for extension modules that use ``zmalloc._C_API``, and
    ``zmalloc_embed.h``, for programs that have Python inside."""
    return __path__[0] + "/include"


def load_ipython_extension(ipython: object) -> None:
    """What ``%load_ext zmalloc`` calls: gives IPython and Jupyter ``%%memlimit SIZE`` for cells."""
    from zmalloc import _jupyter

    _jupyter.load(ipython)


def unload_ipython_extension(ipython: object) -> None:
    """What ``%unload_ext zmalloc`` calls."""
    from zmalloc import _jupyter

    _jupyter.unload(ipython)


_begin()  # puts the hooks in, and obeys ZMALLOC_NO_INSTALL and ZMALLOC_LIMIT
