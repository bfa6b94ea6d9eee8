"""Parts of the standard library, each used in earnest."""

from __future__ import annotations

import argparse
import ast
import configparser
import copy
import csv
import difflib
import html.parser
import inspect
import io
import itertools
import json
import logging
import logging.handlers
import pickle
import re
import textwrap
import threading
import tokenize
import typing
import xml.etree.ElementTree
import zlib
from typing import Any

from . import Run, load

DOCUMENT = {"name": "x", "tags": ["a", "b", {"c": [1, 2, 3]}], "at": (1, 2.5), "none": None}


@load("library.re", slow=True)
def regular_expressions(run: Run) -> None:
    kept: list[Any] = []
    while True:
        one = re.compile(rf"(\w+{len(kept)})\s*[=:]\s*('[^']*'|\S+)|[a-f{len(kept)}]*")
        kept.append((one, one.findall("key12=value; other = 12, third:'x y' ")))


@load("library.re_matches")
def matches(run: Run) -> None:
    kept = []
    text = "key=value; other = 12, third:'x y' " * 20
    while True:
        kept.append(list(re.finditer(r"(\w+)(?P<sign>\s*[=:])", text)))


def a_long_text(run: Run) -> None:
    run.made = "some words, " * (run.room // 24 + 2000)


@load("library.re_sub", before=a_long_text)
def substitutions(run: Run) -> None:
    text = run.made
    while True:
        text = re.sub(r"(\w)", lambda found: found[1] * 3, text)


@load("library.deepcopy")
def deep_copies(run: Run) -> None:
    kept: list[Any] = [[DOCUMENT] * 3]
    while True:
        kept.append(copy.deepcopy([dict(DOCUMENT, n=n) for n in range(20)]))


@load("library.deepcopy_of_one_structure", before=lambda run: a_big_structure(run))
def one_deep_copy(run: Run) -> None:
    copy.deepcopy(run.made)


def a_big_structure(run: Run) -> None:
    run.made = [[n, [n]] for n in range(run.room // 100 + 20_000)]


def json_text(run: Run) -> None:
    run.made = "[" + "[1,2],{}," * (run.room // 100 + 20_000) + "0]"


@load("library.json_loads", before=json_text)
def json_loads(run: Run) -> None:
    json.loads(run.made)


@load("library.json_loads_many")
def json_loads_many(run: Run) -> None:
    text = json.dumps([DOCUMENT] * 5)
    kept = []
    while True:
        kept.append(json.loads(text))


@load("library.json_dumps", before=a_big_structure)
def json_dumps(run: Run) -> None:
    kept = []
    while True:
        kept.append(json.dumps(run.made))


@load("library.json_indented", before=a_big_structure)
def json_indented(run: Run) -> None:
    """With an indent the encoder is Python code: generators in generators."""
    kept = []
    while True:
        kept.append(json.dumps(run.made[:50], indent=2) * (1 + run.step // 2000))


def pickled_lists(run: Run) -> None:
    """A list of lists of one 1 each: MARK, EMPTY_LIST, BININT1, APPEND, ..., APPENDS."""
    run.made = b"\x80\x04](" + b"]K\x01a" * (run.room // 80 + 30_000) + b"e."


@load("library.pickle_loads", before=pickled_lists)
def pickle_loads(run: Run) -> None:
    pickle.loads(run.made)


@load("library.pickle_loads_in_python", before=pickled_lists)
def pickle_loads_in_python(run: Run) -> None:
    pickle._loads(run.made)  # type: ignore[attr-defined]


@load("library.pickle_dumps", before=a_big_structure)
def pickle_dumps(run: Run) -> None:
    kept = []
    while True:
        kept.append(pickle.dumps(run.made))


@load("library.pickle_round_trips")
def pickle_round_trips(run: Run) -> None:
    kept = []
    while True:
        kept.append(pickle.loads(pickle.dumps([dict(DOCUMENT) for _ in range(20)])))


class Keeping(logging.Handler):
    """Keeps the records, as the handlers of test tools do."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def a_logger(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("load", logging.DEBUG)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


def the_lock_is_free(run: Run) -> str | None:
    def take() -> None:
        if run.made.lock.acquire(timeout=5):
            run.made.lock.release()
            taken.append(True)

    taken: list[bool] = []
    other = threading.Thread(target=take)  # its own thread could take it twice
    other.start()
    other.join()
    return None if taken else "the logging handler's lock is still held"


def a_keeping_handler(run: Run) -> None:
    run.made = Keeping()


@load("library.logging", slow=True, before=a_keeping_handler, after=the_lock_is_free)
def logging_(run: Run) -> None:
    logger = a_logger(run.made)
    try:
        while True:
            logger.info("record %d of %s", len(run.made.records), "many")
    finally:
        run.made.records.clear()  # the handler outlives the limit


def a_stream_handler(run: Run) -> None:
    run.made = logging.StreamHandler(io.StringIO())


@load("library.logging_to_a_stream", slow=True, before=a_stream_handler, after=the_lock_is_free)
def logging_to_a_stream(run: Run) -> None:
    """Its emit() swallows errors and prints them, so the program takes memory itself, too."""
    logger = a_logger(run.made)
    kept = []
    while True:
        logger.warning("record %d", len(kept))
        kept.append([0] * 50)


@load("library.csv")
def csv_(run: Run) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream)
    rows: list[Any] = []
    while True:
        writer.writerow([len(rows), "a,b", 'say "x"'])
        rows.extend(csv.reader(["1,2,3", '"a, b",c,d']))


@load("library.configparser", slow=True)
def configuration(run: Run) -> None:
    kept = []
    while True:
        parser = configparser.ConfigParser()
        parser.read_string("[one]\na = 1\nb = %(a)s2\n[two]\nc: d\n")
        kept.append((parser, dict(parser["one"])))


@load("library.xml")
def xml_(run: Run) -> None:
    kept = []
    text = "<a>" + "<b c='1'>text<d/></b>" * 50 + "</a>"
    while True:
        kept.append(xml.etree.ElementTree.fromstring(text))


@load("library.html")
def html_(run: Run) -> None:
    class Collecting(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[Any] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.tags.append((tag, attrs))

    parser = Collecting()
    while True:
        parser.feed("<p class='x'>some <b>text</b> &amp; more<br/></p>" * 5)


@load("library.argparse", slow=True)
def arguments(run: Run) -> None:
    kept = []
    while True:
        parser = argparse.ArgumentParser()
        parser.add_argument("--size", type=int, default=1, help="how much")
        parser.add_argument("names", nargs="*")
        kept.append((parser, parser.parse_args(["--size", "5", "a", "b"])))


@load("library.textwrap", slow=True)
def wrapped(run: Run) -> None:
    kept = []
    while True:
        kept.append(textwrap.wrap("some words to be wrapped, " * 10, 30))


@load("library.difflib", slow=True)
def differences(run: Run) -> None:
    kept = []
    one = [f"line {n}" for n in range(20)]
    while True:
        other = [*one[:5], f"new {len(kept)}", *one[7:]]
        kept.append(list(difflib.unified_diff(one, other)))


@load("library.inspect", slow=True)
def signatures(run: Run) -> None:
    kept = []
    while True:
        kept.append(inspect.signature(textwrap.wrap))


@load("library.ast")
def syntax_trees(run: Run) -> None:
    kept = []
    while True:
        tree = ast.parse("def f(a, b=1):\n    return [x * b for x in a if x]\n" * 5)
        kept.append((tree, ast.dump(tree)))


@load("library.tokenize", slow=True)
def tokens(run: Run) -> None:
    kept: list[Any] = []
    source = "def f(a, b=1):\n    return [x * b for x in a]\n" * 5
    while True:
        kept.extend(tokenize.generate_tokens(io.StringIO(source).readline))


@load("library.typing", slow=True)
def typing_(run: Run) -> None:
    kept = []
    while True:

        class Node:
            children: typing.Optional[list[int]]  # noqa: UP045
            table: dict[str, typing.Union[int, str]]  # noqa: UP007

        kept.append((Node, typing.get_type_hints(Node)))


@load("library.itertools")
def iterators(run: Run) -> None:
    kept: list[Any] = []
    while True:
        kept.append(list(itertools.chain(range(10), itertools.accumulate(range(20)))))
        kept.append(list(itertools.product("abc", repeat=3)))
        kept.append([list(group) for _, group in itertools.groupby("aabbbc" * 3)])


@load("library.zlib")
def compressed(run: Run) -> None:
    kept = []
    while True:
        data = zlib.compress(bytes(range(256)) * 10)
        kept.append((data, zlib.decompress(data)))
