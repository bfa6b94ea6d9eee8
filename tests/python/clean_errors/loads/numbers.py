"""Numbers of all sizes."""

from __future__ import annotations

import datetime
import decimal
import fractions
import struct

from . import Run, load


@load("numbers.big_int")
def big_int(run: Run) -> None:
    number = 3
    kept = []
    while True:
        number = number * 3 if len(kept) % 2000 else 3
        kept.append(number)


@load("numbers.doubling_int")
def doubling_int(run: Run) -> None:
    number = 3
    while True:
        number = (number << number.bit_length()) | number


@load("numbers.int_to_text")
def int_to_text(run: Run) -> None:
    kept = []
    while True:
        kept.append(str(7 ** (len(kept) % 300)))


@load("numbers.floats")
def floats(run: Run) -> None:
    path = []
    x, y = 0.0, 1.0
    while True:
        x, y = x + y * 0.5, y - x * 0.25
        path.append((x, y))


@load("numbers.complex")
def complex_numbers(run: Run) -> None:
    kept = []
    z = 1 + 1j
    while True:
        z = z * (0.6 + 0.8j)
        kept.append(z)


@load("numbers.decimals")
def decimals(run: Run) -> None:
    kept = []
    while True:
        kept.append(decimal.Decimal(len(kept)) / 7)


@load("numbers.fractions")
def fractions_(run: Run) -> None:
    kept = []
    while True:
        kept.append(fractions.Fraction(len(kept), len(kept) + 7))


@load("numbers.dates")
def dates(run: Run) -> None:
    start = datetime.datetime(2020, 1, 1)
    kept = []
    while True:
        day = start + datetime.timedelta(minutes=len(kept))
        kept.append((day, day.isoformat()))


@load("numbers.struct")
def struct_(run: Run) -> None:
    kept = []
    while True:
        data = struct.pack("<QdI", len(kept), 0.5, 7)
        kept.append((data, struct.unpack("<QdI", data)))
