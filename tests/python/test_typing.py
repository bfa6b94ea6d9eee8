"""What the package says about itself: names, docstrings, stubs, versions, headers."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import metadata
from pathlib import Path

import pytest
import zmalloc
from zmalloc import _core

PACKAGE = Path(zmalloc.__file__).parent
REPOSITORY = Path(__file__).parents[2]


def stub() -> ast.Module:
    return ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))


def stub_names() -> set[str]:
    names: set[str] = set()
    for node in stub().body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("name", zmalloc.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(zmalloc, name)
    if name in ("_C_API", "__version__"):
        return
    assert inspect.getdoc(value), f"{name} has no docstring"


def test_all_is_sorted_and_complete() -> None:
    assert len(set(zmalloc.__all__)) == len(zmalloc.__all__)
    public = {
        name
        for name, value in vars(zmalloc).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public <= set(zmalloc.__all__)


def test_the_extension_and_its_stub_have_the_same_names() -> None:
    real = {
        name for name in vars(_core) if not re.fullmatch(r"__\w+__", name) or name == "__version__"
    }
    # what only the type checker knows: the shape of a dict, type variables
    only_typed = {"_Figures", "_Function", "_Callback"}
    assert real == stub_names() - only_typed


def test_the_stubs_figures_are_the_real_ones() -> None:
    figures = next(n for n in stub().body if isinstance(n, ast.ClassDef) and n.name == "_Figures")
    names = {
        n.target.id
        for n in figures.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    assert names == set(_core._figures())


def test_the_stubs_limit_has_what_the_real_one_has() -> None:
    limit = next(n for n in stub().body if isinstance(n, ast.ClassDef) and n.name == "Limit")
    names = {n.name for n in limit.body if isinstance(n, ast.FunctionDef)}
    real = {name for name in vars(zmalloc.Limit) if name in names or not name.startswith("_")}
    assert names <= set(vars(zmalloc.Limit)) | {"__call__"}
    assert real <= names


def test_the_signature_of_limit_is_readable() -> None:
    assert list(inspect.signature(zmalloc.limit).parameters) == [
        "n",
        "reserve",
        "held",
        "seal",
    ]
    for function in (
        zmalloc.used,
        zmalloc.total,
        zmalloc.peak,
        zmalloc.reset_peak,
        zmalloc.rss,
        zmalloc.is_installed,
        zmalloc.mode,
    ):
        assert str(inspect.signature(function)) == "()"
    assert str(inspect.signature(zmalloc.install)) == "(*, mode=None)"


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_all_versions_are_one() -> None:
    assert zmalloc.__version__ == _core.__version__ == metadata.version("zmalloc")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", zmalloc.__version__)
    header = REPOSITORY / "csrc" / "zmalloc.h"
    found = re.search(r'#define ZMALLOC_VERSION "([^"]+)"', header.read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == zmalloc.__version__


def test_the_core_of_this_process_is_the_extensions_own() -> None:
    assert zmalloc.stats().core == f"zmalloc {zmalloc.__version__}"


def test_the_headers_are_installed() -> None:
    folder = Path(zmalloc.get_include())
    for name in ("zmalloc_capi.h", "zaccount.h", "zapi.h"):
        assert (folder / name).is_file(), name


def test_the_limit_type_shows_where_it_is_from() -> None:
    assert zmalloc.Limit.__module__ == "zmalloc"
    assert zmalloc.Limit.__name__ == "Limit"
    for kind in (zmalloc.Stats, zmalloc.Audit, zmalloc.Domain, zmalloc.Refusal):
        assert kind.__module__.startswith("zmalloc")
