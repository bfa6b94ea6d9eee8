"""What the README and the examples show of C is true."""

from __future__ import annotations

from pathlib import Path

from . import toolchain

README = (toolchain.ROOT / "README.md").read_text(encoding="utf-8")


def build_and_run(source: Path, folder: Path) -> list[str]:
    """The lines that a program prints; it must build without a warning and end with 0."""
    library = toolchain.shared_library("usable").parent / "libzmalloc.a"
    toolchain.must(["make", "-s", "lib", f"OUT={library.parent}"])
    program = folder / "program"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{toolchain.CSRC}"]
    toolchain.must(["cc", *flags, source, library, "-o", program, "-pthread", "-ldl"])
    return toolchain.must([program]).splitlines()


def test_the_c_program_of_the_readme_prints_what_its_comments_say(tmp_path: Path) -> None:
    source = tmp_path / "readme.c"
    source.write_text(README.split("```c\n")[1].split("```")[0], encoding="utf-8")
    used, plugin = build_and_run(source, tmp_path)
    assert used.endswith("bytes in use")
    assert int(used.split()[0]) >= 4000
    assert plugin == "refused"


def test_the_example_in_c_counts_and_caps(tmp_path: Path) -> None:
    lines = build_and_run(toolchain.ROOT / "examples" / "count.c", tmp_path)
    assert lines[1].startswith("0 now, ")
    assert lines[2] == "plugin: 4000 of 4096 bytes, 97 more: refused"
