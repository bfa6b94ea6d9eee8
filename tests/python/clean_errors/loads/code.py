"""Code that is made, compiled and imported at run time."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from . import Run, load


def source(functions: int) -> str:
    return "\n".join(
        f"def f{n}(a, b={n}, *c, d='text {n}'):\n"
        f"    '''Does {n}.'''\n"
        f"    try:\n        return [a, b, c, d, a + {n * 1000}, [x for x in c if x != {n}]]\n"
        f"    except TypeError:\n        return lambda: (a, {n})\n"
        for n in range(functions)
    )


@load("code.exec")
def execute(run: Run) -> None:
    kept = []
    while True:
        scope: dict[str, Any] = {}
        exec(f"def f(a):\n    return a + {len(kept)}\nx = f(1)\n", scope)
        kept.append(scope)


@load("code.eval", slow=True)
def evaluate(run: Run) -> None:
    kept = []
    while True:
        kept.append(eval(f"[{len(kept)}, 'text', lambda x: x + 1][:]"))


@load("code.compile", slow=True)
def compile_(run: Run) -> None:
    kept = []
    text = source(3)
    while True:
        kept.append(compile(text, "made", "exec"))


def a_big_source(run: Run) -> None:
    run.made = source((run.room + (2 << 20)) // 10_000)


@load("code.compile_one", before=a_big_source)
def compile_one(run: Run) -> None:
    """One call into the compiler that takes more than there is."""
    compile(run.made, "made", "exec")


def a_big_literal(run: Run) -> None:
    run.made = "x = [" + "[1, 2, 'a%d'], " * 10 % tuple(range(10)) * (run.room // 2000 + 1000) + "]"


@load("code.compile_literal", before=a_big_literal)
def compile_literal(run: Run) -> None:
    compile(run.made, "made", "exec")


def a_module(run: Run) -> None:
    """Two modules that have no cached bytecode: a small one, and one that never fits."""
    folder = tempfile.TemporaryDirectory()
    Path(folder.name, "zmalloc_small_module.py").write_text(source(5))
    Path(folder.name, "zmalloc_big_module.py").write_text(source((run.room + (2 << 20)) // 10_000))
    sys.path.insert(0, folder.name)
    run.made = folder


@load("code.imports", slow=True, before=a_module)
def imports(run: Run) -> None:
    kept = []
    while True:
        kept.append(importlib.import_module("zmalloc_small_module"))
        del sys.modules["zmalloc_small_module"]


def imports_again(run: Run) -> str | None:
    module = importlib.import_module("zmalloc_big_module")
    return None if module.f0(1) and sys.modules.get(module.__name__) is module else "not imported"


@load("code.import_tried_again", before=a_module, after=imports_again)
def import_tried_again(run: Run) -> None:
    import zmalloc_big_module  # type: ignore[import-not-found]

    print(zmalloc_big_module)


@load("code.import_of_a_package", may_succeed=True)
def import_of_a_package(run: Run) -> None:
    """What is left of the room is not told: in a large one the import succeeds."""
    held = bytearray(max(0, run.room - 300_000))
    import email.mime.multipart
    import unittest.mock
    import xml.dom.minidom

    print(held[:0], email.mime.multipart, unittest.mock, xml.dom.minidom)


class Maker(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes any module called zmalloc_made_N."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.startswith("zmalloc_made_"):
            return importlib.util.spec_from_loader(name, self)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        module.table = [module.__name__] * 100  # type: ignore[attr-defined]


def a_maker(run: Run) -> None:
    run.made = Maker()
    sys.meta_path.insert(0, run.made)


def no_maker(run: Run) -> str | None:
    sys.meta_path.remove(run.made)
    return None


@load("code.imports_by_a_finder", slow=True, before=a_maker, after=no_maker)
def imports_by_a_finder(run: Run) -> None:
    """What it has imported it takes out of sys.modules: that would outlive it."""
    n = 0
    try:
        while True:
            importlib.import_module(f"zmalloc_made_{n}")
            n += 1
    finally:
        for made in range(n + 1):
            sys.modules.pop(f"zmalloc_made_{made}", None)


@load("code.reloads", slow=True, before=a_module)
def reloads(run: Run) -> None:
    import zmalloc_small_module  # type: ignore[import-not-found]

    kept = []
    while True:
        importlib.reload(zmalloc_small_module)
        kept.append(dict(vars(zmalloc_small_module)))
