"""Instances, classes, closures."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import types
import weakref
from typing import Any

from . import Run, load


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x = x
        self.y = y
        self.name = f"point {x}"


@load("objects.instances")
def instances(run: Run) -> None:
    points = []
    while True:
        points.append(Point(len(points), 1))


class Slotted:
    __slots__ = ("a", "b", "c")

    def __init__(self, a: int) -> None:
        self.a = a
        self.b = [a]
        self.c = None


@load("objects.slots")
def slots(run: Run) -> None:
    kept = []
    while True:
        kept.append(Slotted(len(kept)))


@load("objects.attributes", leaves=True)
def attributes(run: Run) -> None:
    """Their names are interned, and stay for ever, on 3.12."""
    one = types.SimpleNamespace()
    n = 0
    while True:
        setattr(one, f"attribute_{n}", n)
        n += 1


@load("objects.classes")
def classes(run: Run) -> None:
    kept = []
    while True:

        class Made:
            number = len(kept)

            def method(self) -> int:
                return self.number

        kept.append(Made)


@load("objects.classes_by_type")
def classes_by_type(run: Run) -> None:
    kept = []
    while True:
        made = type(f"Made{len(kept)}", (Point,), {"x": 1, "f": lambda self: self})
        kept.append(made(1, 2))


class Registering(type):
    def __prepare__(name: str, bases: Any, **more: Any) -> Any:  # type: ignore[override]
        return collections.OrderedDict(made_by="Registering")

    def __new__(cls, name: str, bases: Any, body: Any, **more: Any) -> Any:
        return super().__new__(cls, name, bases, dict(body))

    def __init__(cls, name: str, bases: Any, body: Any, **more: Any) -> None:
        super().__init__(name, bases, body)
        cls.registered = [name, more]


class Hooked:
    subclasses = 0

    def __init_subclass__(cls, **more: Any) -> None:
        cls.subclasses += 1
        super().__init_subclass__()

    def __class_getitem__(cls, item: Any) -> Any:
        return (cls, item)


@load("objects.metaclasses")
def metaclasses(run: Run) -> None:
    kept = []
    while True:

        class Made(metaclass=Registering, size=len(kept)):
            x = 1

        class Sub(Hooked):
            pass

        kept.append((Made, Sub[int]))


@load("objects.closures")
def closures(run: Run) -> None:
    def make(n: int) -> Any:
        def inner(m: int = n) -> int:
            return n + m

        return inner

    kept = []
    while True:
        kept.append(make(len(kept)))


@load("objects.bound_methods")
def bound_methods(run: Run) -> None:
    kept: list[Any] = []
    while True:
        point = Point(1, 2)
        kept.append((point.__init__, [].append, functools.partial(point.__init__, 1)))


@load("objects.dataclasses", slow=True)
def data_classes(run: Run) -> None:
    kept = []
    while True:

        @dataclasses.dataclass(order=True)
        class Made:
            x: int
            y: float = 0.5

        kept.append([Made(n) for n in range(20)])


@load("objects.named_tuples")
def named_tuples(run: Run) -> None:
    kept = []
    while True:
        made = collections.namedtuple("made", "a b c")
        kept.append([made(n, 2, 3) for n in range(50)])


@load("objects.enums")
def enums(run: Run) -> None:
    kept = []
    while True:
        kept.append(enum.Enum("Made", ["A", "B", f"C{len(kept)}"]))


class Computed:
    def __init__(self) -> None:
        self.cache: dict[str, Any] = {}

    @functools.cached_property
    def table(self) -> dict[int, str]:
        return {n: str(n) for n in range(10)}

    @property
    def fresh(self) -> list[int]:
        return list(self.table)

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.cache.setdefault(name, name * 2)


@load("objects.properties")
def properties(run: Run) -> None:
    kept = []
    while True:
        one = Computed()
        kept.append((one, one.fresh, one.missing, getattr(one, f"x{len(kept)}")))


@load("objects.weak_references")
def weak_references(run: Run) -> None:
    kept = []
    seen = []
    by_number: weakref.WeakValueDictionary[int, Point] = weakref.WeakValueDictionary()
    while True:
        point = Point(len(kept), 1)
        by_number[len(kept)] = point
        kept.append((point, weakref.ref(point, seen.append)))


@load("objects.copies")
def copies(run: Run) -> None:
    kept = [Point(1, 2)]
    while True:
        kept.append(copy.copy(kept[-1]))


@load("objects.operators")
def operators(run: Run) -> None:
    class Vector:
        def __init__(self, *parts: float) -> None:
            self.parts = parts

        def __add__(self, other: Vector) -> Vector:
            return Vector(*(a + b for a, b in zip(self.parts, other.parts, strict=True)))

        def __iter__(self) -> Any:
            return iter(self.parts)

    kept = [Vector(1, 2, 3)]
    while True:
        kept.append(kept[-1] + kept[0])
        kept.append(Vector(*kept[-1]))


@load("objects.wrong_calls")
def wrong_calls(run: Run) -> None:
    kept: list[Any] = []
    nothing: Any = None
    while True:
        try:
            nothing.missing(1)
        except AttributeError as error:
            kept.append(str(error))
        try:
            Point(1)  # type: ignore[call-arg]
        except TypeError as error:
            kept.append(str(error))
