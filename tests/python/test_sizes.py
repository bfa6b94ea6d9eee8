"""Sizes, wherever one is taken: what they mean, and that a wrong one changes nothing."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import pytest
import zmalloc

from .processes import python, snippet

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
KEPT = 90 * GIB


@pytest.fixture(autouse=True)
def a_limit_that_has_to_stay(steady: None) -> Iterator[None]:
    zmalloc.limit(KEPT)
    yield
    zmalloc.limit(None)


class MyInt(int):
    pass


class MyStr(str):
    __slots__ = ()


class Size(enum.IntEnum):
    LARGE = 5 * GIB


GOOD: list[tuple[int | str, int]] = [
    (5 * GIB, 5 * GIB),
    (2**62, 2**62),
    (2**63 - 1, 2**63 - 1),
    (MyInt(7 * GIB), 7 * GIB),
    (Size.LARGE, 5 * GIB),
    (str(7 * GIB), 7 * GIB),
    (MyStr("8 GiB"), 8 * GIB),
    ("8GiB", 8 * GIB),
    ("8 GiB", 8 * GIB),
    ("8gib", 8 * GIB),
    ("8 gIb", 8 * GIB),
    ("8GB", 8 * GIB),
    ("8 gb", 8 * GIB),
    ("8G", 8 * GIB),
    ("8g", 8 * GIB),
    ("2T", 2 * TIB),
    ("2TB", 2 * TIB),
    ("2 TiB", 2 * TIB),
    ("9000M", 9000 * MIB),
    ("9000 MB", 9000 * MIB),
    ("9000MiB", 9000 * MIB),
    ("9000000 k", 9000000 * KIB),
    ("9000000KB", 9000000 * KIB),
    ("9000000 KiB", 9000000 * KIB),
    ("9000000000B", 9000000000),
    ("9000000000 b", 9000000000),
    ("1.5 TiB", 3 * 2**39),
    ("8.25g", 33 * 2**28),
    ("0.5T", 2**39),
    ("8.000GiB", 8 * GIB),
    ("00008GiB", 8 * GIB),
    ("8.0000000001 GiB", 8 * GIB),
    ("8589934592.9 B", 8589934592),
    ("9" * 18, int("9" * 18)),
]


@pytest.mark.parametrize(("size", "expected"), GOOD, ids=repr)
def test_a_size_is_read_exactly(size: int | str, expected: int) -> None:
    assert zmalloc.limit(size).limit == expected
    assert zmalloc.limit() == expected
    zmalloc.limit(None)
    made = zmalloc.limit(held=size)
    assert made.held == expected
    assert zmalloc.stats().held_limit == expected


MALFORMED = [
    "",
    " ",
    "12 parsecs",
    "parsecs",
    "-1",
    "-1 GiB",
    "+8 GiB",
    "24 MBxyz",
    "24MBs",
    "8 GiBB",
    "8GBi",
    "8iB",
    " 8 GiB",
    "8 GiB ",
    "8  GiB",
    "8\tGiB",
    "8\nGiB",
    "8 GiB\n",
    "8 G iB",
    "8.GiB",
    ".5 GiB",
    "8.5.5 GiB",
    "1.5",
    "1.0",
    "1e9",
    "1e3 k",
    "0x10",
    "1_000 MiB",
    "1,5 GiB",
    "8,000",
    "inf",
    "nan",
    "GiB",
    "%",
    "80 %%",
    "80%x",
    "%80",
    "-5%",
    "8 PiB",
    "8P",
    "8E",
    "\uff18 GiB",
    "²GiB",
    "٣ GiB",
    "8 G\u0131B",
    "8 \u212ab",
    "8 GiB\0",
    "\0",
    "8\0GiB",
    "\ud800",
    "é",
    "None",
    "True",
    "8 bits",
    "8 kbit",
    "8 o",
    "8 ki",
    "8 K i B",
    "1.1234567890123456789 GiB",
]


@pytest.mark.parametrize("size", MALFORMED, ids=ascii)
def test_what_is_no_size_is_a_value_error_that_names_it(size: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        zmalloc.limit(size)
    message = str(caught.value)
    assert repr(size) in message
    assert message.startswith("limit=")
    assert "64 MiB" in message, "what is allowed"
    assert zmalloc.limit() == KEPT
    with pytest.raises(ValueError, match="held="):
        zmalloc.limit(1, held=size)
    assert zmalloc.limit() == KEPT
    assert zmalloc.stats().held_limit is None


@pytest.mark.parametrize(
    "size",
    [
        0,
        -1,
        -(2**100),
        -(2**63),
        "0",
        "0 GiB",
        "0.0 GiB",
        "0.4 B",
        "0.0001 k",
        "0%",
        "0.0%",
        "101%",
        "100.1%",
        "1000%",
        MyInt(0),
        "0.00000000000001%",
    ],
    ids=repr,
)
def test_a_size_below_one_byte_or_a_wrong_share_is_out_of_range(size: int | str) -> None:
    with pytest.raises(ValueError, match=r"range|at least 1"):
        zmalloc.limit(size)
    assert zmalloc.limit() == KEPT


@pytest.mark.parametrize(
    "size",
    [
        2**63,
        2**64,
        2**64 + 5,
        10**100,
        str(2**63),
        "9" * 19,
        "9" * 50,
        "9" * 5000,
        "8388608 TiB",
        "9999999999 T",
        "9" * 30 + " B",
        "9" * 30 + ".5 k",
    ],
    ids=lambda size: repr(size)[:30],
)
def test_a_size_that_no_object_can_have_is_an_overflow_error(size: int | str) -> None:
    with pytest.raises(OverflowError, match=r"limit=.*at most 9223372036854775807"):
        zmalloc.limit(size)
    assert zmalloc.limit() == KEPT


@pytest.mark.parametrize(
    "size",
    [
        1.5,
        1.0,
        float("inf"),
        float("nan"),
        True,
        False,
        b"64 MiB",
        Decimal(5),
        Fraction(5),
        5j,
        [5],
        (5,),
        {},
        object(),
        int,
        bytearray(b"5"),
        ...,
    ],
    ids=lambda size: ascii(size)[:20],
)
def test_another_type_is_a_type_error_that_names_it(size: object) -> None:
    with pytest.raises(TypeError, match="expected") as caught:
        zmalloc.limit(size)  # type: ignore[call-overload]
    assert type(size).__name__ in str(caught.value)
    assert "integer" in str(caught.value)
    assert zmalloc.limit() == KEPT
    with pytest.raises(TypeError, match="held"):
        zmalloc.limit(held=size)  # type: ignore[call-overload]
    assert zmalloc.limit() == KEPT


def test_an_object_with_index_is_no_size() -> None:
    class Index:
        def __index__(self) -> int:
            return GIB

        def __int__(self) -> int:
            return GIB

    with pytest.raises(TypeError):
        zmalloc.limit(Index())  # type: ignore[call-overload]
    assert zmalloc.limit() == KEPT


def test_a_repr_that_fails_is_an_error_and_changes_nothing() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    with pytest.raises((TypeError, ZeroDivisionError)):
        zmalloc.limit(Rude())  # type: ignore[call-overload]
    assert zmalloc.limit() == KEPT


def memory() -> int:
    made = zmalloc.limit("100%")
    assert made.limit is not None
    return made.limit


def test_a_share_is_of_the_memory_that_there_is() -> None:
    whole = memory()
    assert zmalloc.limit("50%").limit == whole // 2
    assert zmalloc.limit("80 %").limit == whole * 80 // 100
    assert zmalloc.limit("12.5%").limit == whole // 8
    assert zmalloc.limit("99.999%").limit == whole * 99999 // 100000
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(next(line for line in file if line.startswith("MemTotal:")).split()[1]) * KIB
    assert 16 * MIB < whole <= total


@pytest.mark.parametrize("seed", range(3))
def test_random_sizes_are_read_as_fractions_say(seed: int) -> None:
    print("seed", seed)
    choose = random.Random(seed)
    powers = {"k": 10, "m": 20, "g": 30, "t": 40}
    for _ in range(500):
        letter = choose.choice("kmgt")
        number = f"{choose.randrange(1, 5000)}.{choose.randrange(10 ** choose.randrange(1, 18))}"
        unit = choose.choice([letter, letter + "b", letter + "ib"])
        unit = "".join(choose.choice([c.upper(), c.lower()]) for c in unit)
        expected = int(Fraction(number) * 2 ** powers[letter])
        text = number + choose.choice(["", " "]) + unit
        assert zmalloc._core._parse_size(text, "x") == expected, text


@pytest.mark.parametrize("seed", range(3))
def test_random_text_is_a_size_or_a_value_error(seed: int) -> None:
    print("seed", seed)
    choose = random.Random(seed)
    for _ in range(3000):
        text = "".join(
            choose.choice("0123456789.. %kKmMiIbBgGtT-+eé\0") for _ in range(choose.randrange(9))
        )
        message = repr(text)
        try:
            assert zmalloc._core._parse_size(text, "x") >= 1
        except (ValueError, OverflowError) as error:
            message = str(error)
        assert repr(text) in message


@pytest.mark.parametrize("size", ["12 parsecs", "0", "1.5", "101%"])
def test_the_command_line_and_the_environment_read_the_same_sizes(size: str) -> None:
    seen = python("-m", "zmalloc", "run", "--limit", size, "-c", "")
    assert seen.status == 2
    assert size in seen.err
    code = "try:\n    import zmalloc\nexcept ValueError as e:\n    print(repr(str(e)))"
    assert size in snippet(code, env={"ZMALLOC_LIMIT": size}).value
