"""zsize_parse and zsize_format against a model of our own: a pattern and exact fractions."""

from __future__ import annotations

import re
from ctypes import byref, c_size_t, create_string_buffer
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .core import SIZE_MAX, Core
from .randomly import randomly

OK, SYNTAX, RANGE, OVERFLOW = range(4)
LARGEST = SIZE_MAX // 2
MEMORY = 8 << 30
UNTOUCHED = 0xABCD

GRAMMAR = re.compile(r"(?P<whole>[0-9]+)(\.(?P<part>[0-9]{1,18}))?"
                     r"(?P<rest> ?(?P<unit>b|[kmgt](i?b)?)| ?(?P<percent>%))?", re.I | re.A)


def model(text: str, memory: int) -> tuple[int, int]:
    """What zsize.h says of a text: an error and, with OK, the size."""
    found = GRAMMAR.fullmatch(text)
    if not found or (found["part"] and not found["rest"]):
        return SYNTAX, UNTOUCHED
    number = Fraction(f"{found['whole']}.{found['part'] or 0}")
    if found["percent"]:
        if not 0 < number <= 100:
            return RANGE, UNTOUCHED
        if len(found["part"] or "") > 15:
            return SYNTAX, UNTOUCHED
        size = memory * number / 100
    else:
        power = "bkmgt".index((found["unit"] or "b")[0].lower())
        size = number * 1024**power
    if int(size) < 1:
        return RANGE, UNTOUCHED
    if int(size) > LARGEST:
        return OVERFLOW, UNTOUCHED
    return OK, int(size)


def parse(core: Core, text: str, memory: int = MEMORY) -> tuple[int, int]:
    raw = text.encode("utf-8", "surrogatepass")
    size = c_size_t(UNTOUCHED)
    return core.zsize_parse(raw + b"9%", len(raw), memory, byref(size)), size.value


numbers = st.one_of(
    st.integers(0, 2000).map(str),
    st.sampled_from([LARGEST >> p for p in (0, 10, 20, 30, 40)]).flatmap(
        lambda top: st.integers(max(0, top - 2), top + 2)).map(str),
    st.integers(0, 1 << 70).map(str),
    st.text("0123456789", min_size=1, max_size=40),
)
parts = st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=20).map("." .__add__))
units = st.one_of(st.just(""), st.sampled_from(
    [a + b for a in "kKmMgGtT" for b in ("", "b", "B", "ib", "iB", "Ib", "IB")] + ["b", "B", "%"]))
blanks = st.sampled_from(["", "", " ", "  ", "\t"])
good = st.builds(lambda number, part, unit: number + part + unit, numbers, parts,
                 units | units.map(" ".__add__))
nearly = st.builds(lambda a, n, p, b, u, c: a + n + p + b + u + c, blanks, numbers, parts, blanks,
                   units | st.text("bkmgtpiBKMGTI%. eE+-_,", max_size=4), blanks)
memories = st.one_of(st.integers(0, SIZE_MAX), st.integers(0, 1000), st.just(MEMORY))


@randomly(10)
@given(text=good | nearly | st.text(max_size=12), memory=memories)
def test_sizes_are_read_as_the_grammar_says(core: Core, text: str, memory: int) -> None:
    assert parse(core, text, memory) == model(text, memory), text


@randomly(4)
@given(whole=st.integers(0, 100), part=st.text("0123456789", min_size=1, max_size=15),
       memory=memories)
def test_percentages_are_exact_to_the_byte(core: Core, whole: int, part: str, memory: int) -> None:
    text = f"{whole}.{part}%"
    assert parse(core, text, memory) == model(text, memory)


@pytest.mark.parametrize(("text", "size"), [
    ("64 MiB", 64 << 20), ("64MB", 64 << 20), ("64m", 64 << 20), ("1.5g", 3 << 29),
    ("300 kB", 300 << 10), ("80%", MEMORY * 8 // 10), ("80 %", MEMORY * 8 // 10),
    ("100%", MEMORY), ("1", 1), ("1 B", 1), ("2t", 2 << 40), ("0.001k", 1), ("1.9 B", 1),
    ("007", 7), ("0.000000000000000001T", None), ("1.000000000000000000 k", 1024),
    ("9223372036854775807", LARGEST), ("8388607.999999999999999999T", LARGEST),
])
def test_examples_of_the_header_and_its_borders(core: Core, text: str, size: int | None) -> None:
    assert parse(core, text) == ((OK, size) if size else (RANGE, UNTOUCHED))


@pytest.mark.parametrize(("text", "error"), [
    ("", SYNTAX), (" 1", SYNTAX), ("1 ", SYNTAX), ("1k ", SYNTAX), ("1  k", SYNTAX), ("-1", SYNTAX),
    ("+1", SYNTAX), ("1.5", SYNTAX), (".5k", SYNTAX), ("1.k", SYNTAX), ("1,5k", SYNTAX),
    ("1e3", SYNTAX), ("0x10", SYNTAX), ("1_000", SYNTAX), ("1 kib b", SYNTAX), ("1 bb", SYNTAX),
    ("1 bib", SYNTAX), ("1 ki", SYNTAX), ("1 p", SYNTAX), ("k", SYNTAX), ("%", SYNTAX),
    ("1\0", SYNTAX), ("1\0k", SYNTAX), ("1k\n", SYNTAX), ("\u0661k", SYNTAX), ("1\u212a", SYNTAX),
    ("0.1234567890123456789k", SYNTAX), ("1.1234567890123456%", SYNTAX),
    ("0", RANGE), ("0.0k", RANGE), ("0.5 B", RANGE), ("0%", RANGE), ("100.000001%", RANGE),
    ("101%", RANGE), ("99999999999999999999999%", RANGE), ("0.0000000001%", RANGE),
    ("9223372036854775808", OVERFLOW), ("18446744073709551616", OVERFLOW),
    ("8388608T", OVERFLOW), ("9" * 100, OVERFLOW), ("9" * 100 + "T", OVERFLOW),
    ("17179869184 G", OVERFLOW), ("18446744073709551617 B", OVERFLOW),
])
def test_wrong_sizes_are_told_apart_and_write_nothing(core: Core, text: str, error: int) -> None:
    assert parse(core, text) == (error, UNTOUCHED)


def test_the_locale_has_no_say(core: Core) -> None:
    import locale
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "tr_TR.UTF-8", "C.UTF-8"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        try:
            assert parse(core, "1.5 KIB") == (OK, 1536)
            assert formatted(core, 1536) == "1.5 KiB"
        finally:
            locale.setlocale(locale.LC_ALL, before)


def formatted(core: Core, size: int) -> str:
    buffer = create_string_buffer(b"\xff" * 32, 32)
    result = core.zsize_format(buffer, size)
    assert result == buffer.value
    return str(buffer.value, "ascii")


def format_model(size: int) -> str:
    """The largest unit of which there is at least one, rounded down to a tenth."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 6)
    tenths = Fraction(size * 10, 1024**power).__floor__()
    return f"{tenths // 10}.{tenths % 10} {'_KMGTPE'[power]}iB"


tenths = st.builds(lambda tenth, power, off: -(-tenth * 1024**power // 10) + off,
                   st.integers(10, 10239), st.integers(1, 6), st.integers(-2, 2))


@randomly(8)
@given(size=st.integers(0, SIZE_MAX) | tenths.filter(lambda size: 0 <= size <= SIZE_MAX)
       | st.integers(0, 64).map(lambda bit: min(1 << bit, SIZE_MAX)) | st.integers(0, 1 << 22))
def test_sizes_are_written_rounded_down_to_a_tenth(core: Core, size: int) -> None:
    text = formatted(core, size)
    assert text == format_model(size)
    assert len(text) < 32


@pytest.mark.parametrize(("size", "text"), [
    (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (64 << 20, "64.0 MiB"),
    ((1 << 20) - 1, "1023.9 KiB"), (1_153_434, "1.1 MiB"), (1_153_433, "1.0 MiB"),
    ((1 << 30) - 1, "1023.9 MiB"), (SIZE_MAX, "15.9 EiB"), (1 << 60, "1.0 EiB"),
])
def test_sizes_are_written_for_people(core: Core, size: int, text: str) -> None:
    assert formatted(core, size) == text


@randomly(4)
@given(size=st.integers(1, LARGEST))
def test_what_is_written_is_never_more_than_was_there(core: Core, size: int) -> None:
    """Up to the tebibyte, what is written can be read again."""
    text = formatted(core, size % (1 << 50) or 1)
    error, read = parse(core, text)
    assert error == OK
    assert read <= (size % (1 << 50) or 1) < read * 1.11 + 1
