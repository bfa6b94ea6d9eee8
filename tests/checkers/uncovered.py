"""What make coverage leaves uncovered, and why: its figures are shown with and without these.

An entry that nothing needs any more is named at the end of a run.
"""

from __future__ import annotations

from typing import NamedTuple


class Left(NamedTuple):
    """A function, or the lines that have a text in them, each with what is indented below it."""

    file: str
    where: str
    why: str


LEFT: list[Left] = []
