"""Builds the fuzz targets, with libFuzzer or with the driver of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core import toolchain

HERE = Path(__file__).resolve().parent
TARGETS = ("size", "map", "tree")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion",
         "-Wstrict-prototypes", "-Werror", "-fno-omit-frame-pointer")


def corpus(target: str) -> Path:
    """A seed a line: text for sizes; for the other two a target tells what its bytes mean."""
    return HERE / "corpus" / f"{target}.txt"


def build(target: str, name: str, flags: Sequence[str], cc: str = "gcc",
          *, driver: bool = True) -> Path:
    """A program in build/test/fuzz/NAME/, with all of the core compiled in by the same flags."""
    product = toolchain.BUILD / "fuzz" / name / target
    sources = [HERE / f"{target}.c", *([HERE / "driver.c"] if driver else []),
               *(toolchain.CSRC / source for source in toolchain.SOURCES)]
    with toolchain.building():
        if toolchain.is_older(product, [*sources, HERE / "stream.h", *toolchain.CSRC.glob("*.h")]):
            product.parent.mkdir(parents=True, exist_ok=True)
            toolchain.must([cc, *FLAGS, *flags, f"-I{toolchain.CSRC}", f"-I{HERE}", *sources,
                            "-o", product, "-pthread", "-ldl"])
    return product
