"""Strings and buffers."""

from __future__ import annotations

import io
import string
import sys

from . import Run, load


@load("text.strings")
def strings(run: Run) -> None:
    lines = []
    while True:
        lines.append(f"line {len(lines)}" * 3)


@load("text.concatenation")
def concatenation(run: Run) -> None:
    text = ""
    while True:
        text += "x" * 1000


@load("text.doubling")
def doubling(run: Run) -> None:
    text = "é"
    while True:
        text += text


@load("text.join")
def join(run: Run) -> None:
    parts: list[str] = []
    whole = []
    while True:
        parts.append(f"part {len(parts)}")
        if len(parts) % 100 == 0:
            whole.append(", ".join(parts[-100:]))


@load("text.percent_format")
def percent_format(run: Run) -> None:
    lines = []
    while True:
        lines.append("%5d %r %s" % (len(lines), "text", [1, 2]))  # noqa: UP031


@load("text.format_method")
def format_method(run: Run) -> None:
    lines = []
    while True:
        lines.append("{0:>10} {name!r} {0:x}".format(len(lines), name="é€"))


@load("text.split")
def split(run: Run) -> None:
    words = []
    line = "the quick brown fox jumps over it"
    while True:
        words.append(line.split())


@load("text.encoding")
def encoding(run: Run) -> None:
    kept = []
    while True:
        data = f"é€😀 {len(kept)}".encode()
        kept.append((data, data.decode(), data.hex()))


@load("text.replacing")
def replacing(run: Run) -> None:
    text = "ab"
    while True:
        text = text.replace("a", "aab")
        if len(text) > 2000:
            text = text.title().casefold() * 2


@load("text.string_io")
def string_io(run: Run) -> None:
    stream = io.StringIO()
    while True:
        stream.write("some text, ")
        print("a line", stream.tell(), file=stream)


@load("text.bytes_io")
def bytes_io(run: Run) -> None:
    stream = io.BytesIO()
    writer = io.TextIOWrapper(stream, "utf-8")
    while True:
        writer.write("some text é\n" * 20)


@load("text.interned", leaves=True)
def interned(run: Run) -> None:
    """What is interned stays for ever, on 3.12."""
    names = []
    while True:
        names.append(sys.intern(f"name_{len(names)}"))


@load("text.template", slow=True)
def template(run: Run) -> None:
    page = string.Template("$name lives in $place, ${name}s do")
    pages = []
    while True:
        pages.append(page.substitute(name=len(pages), place="here"))


@load("text.translate")
def translate(run: Run) -> None:
    table = str.maketrans({"a": "bcd", "é": None})
    kept = []
    while True:
        kept.append(f"banana é {len(kept)}".translate(table))
