"""Making a process look as if Python had been started with a certain program."""

from __future__ import annotations

import os
import sys

from zmalloc import _core
from zmalloc._cli import ProgramError

TYPE_CHECKING = False  # typing's, without its import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def fresh_main(**attributes: object) -> ModuleType:
    """A new ``__main__``, with what CPython puts into it."""
    module = type(sys)("__main__")
    module.__dict__.update(
        __builtins__=sys.modules["builtins"], __annotations__={}, **attributes
    )
    sys.modules["__main__"] = module
    return module


def set_path(entry: str) -> None:
    """Put the program's entry where Python has put the runner's, if it has put one."""
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0] = entry


def is_importable(path: str) -> bool:
    """A folder or an archive with a __main__.py in it: Python runs those, too."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


# What runs the program keeps the module alive until the interpreter's end, which clears it then.


def as_module(name: str, alter_argv: bool, main: ModuleType) -> Callable[[], object]:
    import runpy

    run: Callable[[str, bool], object] = runpy._run_module_as_main  # type: ignore[attr-defined]

    def call() -> object:
        assert sys.modules["__main__"] is main
        return run(name, alter_argv)

    return call


def as_file(path: str | None, main: ModuleType) -> Callable[[], object]:
    def call() -> object:
        return _core._run_file(path, main.__dict__)

    return call


def as_text(code: str, main: ModuleType) -> Callable[[], object]:
    def call() -> object:
        return _core._run_text(code, main.__dict__)

    return call


def as_pyc(path: str, main: ModuleType) -> Callable[[], object]:
    from _frozen_importlib_external import SourcelessFileLoader

    code = SourcelessFileLoader("__main__", path).get_code("__main__")
    assert code is not None

    def call() -> None:
        exec(code, main.__dict__)

    return call


def as_script(path: str) -> Callable[[], object]:
    from _frozen_importlib_external import SourceFileLoader

    full = os.path.join(os.getcwd(), path)
    if is_importable(path):
        if getattr(sys.flags, "safe_path", False):
            sys.path.insert(0, full)
        else:
            set_path(full)
        return as_module("__main__", False, fresh_main())
    try:
        with open(full, "rb"):
            pass
    except OSError as error:
        raise ProgramError(
            f"can't open file {full!r}: [Errno {error.errno}] {error.strerror}"
        ) from None
    set_path(os.path.dirname(os.path.realpath(path)))
    if full.endswith(".pyc"):
        try:
            return as_pyc(full, fresh_main(__file__=full, __cached__=None))
        except (ImportError, EOFError, ValueError) as error:
            raise ProgramError(f"can't run {full!r}: {error}") from None
    loader = SourceFileLoader("__main__", full)
    return as_file(full, fresh_main(__file__=full, __cached__=None, __loader__=loader))


def prepare(program: list[str]) -> Callable[[], object]:
    """Make the process look as if Python had been started with the program; what runs it."""
    what, *args = program
    if what == "-m":
        sys.argv[:] = program
        sys.argv[1:2] = []
        set_path(os.getcwd())
        return as_module(args[0], True, fresh_main())
    if what == "-c":
        sys.argv[:] = ["-c", *args[1:]]
        set_path("")
        return as_text(args[0], fresh_main(__loader__=sys.__loader__))
    sys.argv[:] = program
    if what == "-":
        set_path("")
        main = fresh_main(__file__="<stdin>", __cached__=None, __loader__=sys.__loader__)
        return as_file(None, main)
    return as_script(what)


