"""Imported first where a program has the C part built in (zmalloc_embed.h): loads it from there.

The import system of Python 3.10 and of the first releases of 3.11 does not look for a submodule
among the built-in ones: it would load the package's own extension module, beside the one that is
counting already.
"""

import importlib.util
import sys
from importlib.machinery import BuiltinImporter

from zmalloc._version import __version__


def _load() -> None:
    spec = BuiltinImporter.find_spec("zmalloc._core")
    if spec is None or spec.loader is None:
        raise ImportError("zmalloc._core is said to be built in, and is not")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.__version__ != __version__:
        raise ImportError(
            f"this program has zmalloc {module.__version__} built in, but the package in "
            f"{__spec__.parent!r} is {__version__}: install the same version"
        )
    sys.modules["zmalloc._core"] = module


if "zmalloc._core" not in sys.modules:
    _load()
