"""``%load_ext zmalloc``: cells of IPython and Jupyter under a cap, by ``%%memlimit SIZE``.

A cell magic of the common kind gets the cell as text and has to run it by itself; what it runs
cannot await, and its tracebacks show the magic. So the cell stays a cell here: its first line is
turned into a call that makes the budget, and the rest is put into a ``with`` statement of it, in
the syntax tree. The budget ends before IPython formats the traceback or displays the value.
"""

from __future__ import annotations

import ast
from typing import Any

import zmalloc
from zmalloc import _core

NAME = "memlimit"
WRAPPED = True  # in place of the cell's text: it is in the `with` that asks

_value: list[object] = [None]  # of the last expression of a cell, on its way out of the `with`


def keep(value: object) -> None:
    """The end of the cell, under the cap: takes no memory."""
    _value[0] = value


def take(*_: object) -> object:
    """After the budget has ended; and after the cell, should the budget have ended in an error."""
    value, _value[0] = _value[0], None
    return value


def usage_error(text: str) -> Exception:
    """What IPython shows in one line."""
    from IPython.core.error import UsageError

    error: Exception = UsageError(text)
    return error


def budget(line: str) -> zmalloc.Budget:
    """The budget that the first line of a cell asks for: ``SIZE [--reserve SIZE]``."""
    text, given, reserve = (part.strip() for part in line.partition("--reserve"))
    try:
        size = _core._parse_size(text, f"%%{NAME}")
        if not given:
            return zmalloc.budget(size)
        return zmalloc.budget(size, reserve=_core._parse_size(reserve.lstrip("= "), "--reserve"))
    except (ValueError, OverflowError, RuntimeError) as error:
        raise usage_error(str(error)) from None


# ---- the cell ----------------------------------------------------------------------------------


def mark_cell(lines: list[str]) -> list[str]:
    """Turn the first line of a ``%%memlimit`` cell into a call; the others stay what they are."""
    name, _, line = lines[0].strip().partition(" ") if lines else ("", "", "")
    if name != f"%%{NAME}" or not "".join(lines[1:]).strip():
        return lines  # of an empty cell, or one that asks for help, IPython takes care
    return [f"get_ipython().run_cell_magic({NAME!r}, {line.strip()!r}, None)\n", *lines[1:]]


# Whether a cell that is being typed is complete is for IPython to say, by its rule for magics.
mark_cell.has_side_effects = True  # type: ignore[attr-defined]


def marked_call(node: ast.AST) -> ast.Call | None:
    """The call that mark_cell() has put in front of a cell."""
    if not (isinstance(node, ast.Module) and node.body and isinstance(node.body[0], ast.Expr)):
        return None
    call = node.body[0].value
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return None
    values = [one.value for one in call.args if isinstance(one, ast.Constant)]
    is_ours = call.func.attr == "run_cell_magic" and len(values) == 3
    return call if is_ours and values[0] == NAME and values[2] is None else None


def call_of(name: str, *arguments: ast.expr) -> ast.Expr:
    """An expression that calls a function of this module, whatever names the user has."""
    found = ast.parse(f"__import__({__name__!r}, fromlist=('_',)).{name}()", mode="eval").body
    assert isinstance(found, ast.Call)
    found.args.extend(arguments)
    return ast.Expr(found)


def is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


class CellWrapper:
    """Puts the rest of a marked cell under the budget."""

    def visit(self, node: ast.AST) -> ast.AST:
        call = marked_call(node)
        if call is None:
            return node
        assert isinstance(node, ast.Module)
        first, *body = node.body
        before = [one for one in body if is_future(one)]
        body = [one for one in body if not is_future(one)] or [ast.Pass()]
        last = body[-1]
        after: list[ast.stmt] = []
        if isinstance(last, ast.Expr):
            body[-1] = ast.copy_location(call_of("keep", last.value), last)
            after = [ast.copy_location(call_of("take"), last)]
        call.args[2] = ast.copy_location(ast.Constant(WRAPPED), call.args[2])
        block = ast.With(items=[ast.withitem(call)], body=body)
        node.body = [*before, ast.copy_location(block, first), *after]
        return ast.fix_missing_locations(node)


# ---- the extension -----------------------------------------------------------------------------


class Extension:
    """What is registered with one shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.wrapper = CellWrapper()

    def memlimit(self, line: str, cell: str | bool | None = None) -> Any:
        """Run a cell that may hold at most SIZE more than at its start.

        ::

            %%memlimit 2GiB
            table = load()

        What would take more is a MemoryError in the cell; the kernel lives. A SIZE is bytes, or
        "64 MiB", "1.5g" (1024-based), or "50%" of the memory there is. ``--reserve SIZE`` is what
        the handling of the error may take beyond it.
        """
        if cell is WRAPPED:
            return budget(line)
        if cell is None:
            raise usage_error("another extension has disabled this one: %reload_ext zmalloc")
        self.shell.run_cell(f"%%{NAME} {line}\n{cell}")
        return None

    def load(self) -> None:
        self.shell.register_magic_function(self.memlimit, "cell", NAME)
        self.shell.input_transformers_cleanup.append(mark_cell)
        self.shell.ast_transformers.append(self.wrapper)
        self.shell.events.register("post_run_cell", take)

    def unload(self) -> None:
        self.shell.events.unregister("post_run_cell", take)
        self.shell.magics_manager.magics["cell"].pop(NAME, None)
        self.shell.input_transformers_cleanup.remove(mark_cell)
        self.shell.ast_transformers.remove(self.wrapper)


_loaded: dict[int, Extension] = {}


def load(shell: Any) -> None:
    if id(shell) not in _loaded:
        _loaded[id(shell)] = Extension(shell)
        _loaded[id(shell)].load()


def unload(shell: Any) -> None:
    extension = _loaded.pop(id(shell), None)
    if extension:
        extension.unload()
