"""What a budget does as a decorator. Loaded when one is."""

from __future__ import annotations

import functools

from zmalloc import _core

TYPE_CHECKING = False  # typing's, without its import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: A call of such a function makes an object and runs nothing: CO_GENERATOR and its kin in inspect.
KINDS = {
    0x20: "a generator function",
    0x80: "an async function",
    0x200: "an async generator function",
}


def decorate(
    function: Callable[..., Any], n: int, reserve: int, thread: bool
) -> Callable[..., Any]:
    """The function, each call of which has a budget of its own."""
    code = getattr(function, "__code__", None)
    for flag, kind in KINDS.items():
        if code is not None and code.co_flags & flag:
            raise TypeError(
                f"a budget cannot decorate {function.__qualname__}: it is {kind}, whose call only "
                "makes an object. Use `with zmalloc.budget(...):` inside of it"
            )

    @functools.wraps(function)
    def within_budget(*args: Any, **kwargs: Any) -> Any:
        with _core.budget(n, reserve=reserve, thread=thread):
            return function(*args, **kwargs)

    return within_budget
