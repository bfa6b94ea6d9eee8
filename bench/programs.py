"""The allocation-bound set: small programs that do little but make and drop objects.

    python bench/programs.py NAME CONTENDER [PART]

runs one of them once, or the 1/PART of it, in this process, with a contender's hooks in place, and
prints the CPU seconds that it took, start-up excluded.
"""

import copy
import inspect
import json
import pickle
import sys
import time

import contenders


def trees(depth=13, rounds=160):
    """Binary trees of tuples, built and walked."""

    def build(n):
        return (build(n - 1), build(n - 1)) if n else None

    def count(tree):
        return 1 + count(tree[0]) + count(tree[1]) if tree else 1

    for _ in range(rounds):
        count(build(depth))


def objects(n=300_000):
    """A graph of small class instances with lists in them."""

    class Node:
        def __init__(self, name, parent):
            self.name = name
            self.parent = parent
            self.children = []

    root = Node("root", None)
    for i in range(n):
        node = Node(f"node{i}", root)
        root.children.append(node)
        if len(root.children) > 100:
            root = node


def words(n=120_000):
    """Text split, cleaned, counted."""
    line = "the quick brown fox jumps over the lazy dog and runs away again"
    counts = {}
    for i in range(n):
        for word in f"{line} {i}".upper().split():
            word = word.strip("AEIOU")
            counts[word] = counts.get(word, 0) + 1


def floats(n=8_000_000):
    """Numbers in short-lived tuples: points moved about."""
    x, y = 0.0, 1.0
    path = []
    for _ in range(n):
        x, y = x + y * 0.5, y - x * 0.25
        path.append((x, y))
        if len(path) == 1000:
            path = [(b, a) for a, b in path[:10]]


def documents(rounds=600):
    """JSON out and in."""
    document = [{"id": i, "name": f"item {i}", "tags": "ab", "at": i * 0.5} for i in range(200)]
    for _ in range(rounds):
        document = json.loads(json.dumps(document))


def copies(rounds=200):
    """deepcopy and pickle of nested containers."""
    data = {i: [list(range(5)), {"k": (i, str(i))}] for i in range(200)}
    for _ in range(rounds):
        data = copy.deepcopy(data)
        data = pickle.loads(pickle.dumps(data))


def tables(n=8_000):
    """Dicts and sets of different sizes, merged and sorted."""
    for i in range(n):
        table = {f"{i}-{j}": j for j in range(40)}
        table |= {f"{j}": str(j) for j in range(20)}
        sorted(table.items(), key=lambda item: item[0])
        set(table) & set(map(str, range(40)))


def buffers(n=250_000):
    """Byte strings of all sizes, grown and joined."""
    parts = []
    for i in range(n):
        part = bytearray(i % 700)
        part.extend(b"x" * (i % 3000))
        parts.append(bytes(part[: i % 900]))
        if len(parts) == 50:
            b"".join(parts)
            parts.clear()


def nothing(n=0):
    """For what starting takes."""


ALL = (nothing, trees, objects, words, floats, documents, copies, tables, buffers)
PROGRAMS = {f.__name__: f for f in ALL}
NAMES = [name for name in PROGRAMS if name != "nothing"]

def main():
    name, contender = sys.argv[1:3]
    program = PROGRAMS[name]
    size = list(inspect.signature(program).parameters.values())[-1]
    part = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    with contenders.start(contender):
        start = time.process_time()
        program(**{size.name: size.default // part})
        taken = time.process_time() - start
    print(taken)


if __name__ == "__main__":
    main()
