"""What docs/pytest.md and the README show of the plugin is true: it is run here."""

from __future__ import annotations

import re
from pathlib import Path

from .conftest import Run, Runner

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def console(command: str) -> list[str]:
    """The lines that the page shows below a command."""
    found = re.search(rf"^\$ {re.escape(command)}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, command
    return found[1].splitlines()


def same_everywhere(line: str) -> str:
    """Without what differs from run to run and from one Python to the next."""
    line = re.sub(r"-?[\d.,]+ (B|KiB|MiB)\b", "SIZE", line)
    line = re.sub(r"\d+(\.\d+)?s\b|:\d+\b|█+", "N", line)
    line = re.sub(r"\([\d.]+ .iB\)|\(SIZE\)", "SIZE", line)
    line = re.sub(r"\S+(?=test_rows\.py)", "", line)
    return re.sub(r"[-\s_=]+", " ", line).strip()


def lines_of(run: Run) -> set[str]:
    return {same_everywhere(line) for line in run.lines}


def test_the_first_example_prints_what_the_page_shows(suite: Runner, own: Path) -> None:
    source = PAGE.split("```python\n# test_rows.py\n")[1].split("```")[0]
    (own / "test_rows.py").write_text("# test_rows.py\n" + source, encoding="utf-8")
    run = suite(None, "-q", "test_rows.py", "--memory-report")
    seen = lines_of(run)
    shown = console("python -m pytest -q test_rows.py --memory-report")
    assert len(shown) > 25
    for line in shown:
        if line.startswith((">", "    ")) or line.endswith(": LimitError") or "..." in line:
            continue  # a traceback's line of the code: which one of the loop differs
        assert same_everywhere(line) in seen, f"{line}\n{run.text}"
    assert re.search(r"^>  +(while True|rows\.append)", run.text, re.MULTILINE)
    assert run.counts == {"failed": 3, "passed": 1}


def test_a_wrong_size_is_told_as_the_page_shows(suite: Runner) -> None:
    run = suite(
        None,
        "-q",
        files={
            "test_wrong.py": """
                import pytest
                @pytest.mark.memory_limit("24 MXB")
                def test_it(): pass
            """
        },
    )
    shown = console("python -m pytest -q test_wrong.py")
    assert shown[-1] in run.lines
    for line in shown:
        assert same_everywhere(line) in lines_of(run)


def test_the_other_examples_run(suite: Runner) -> None:
    example = PAGE.split("```python\ndef test_survives")[1].split("```")[0]
    source = "def parse():\n    return [str(i) * 3 for i in range(1000, 1010)]\n"
    run = suite(source + "def test_survives" + example.replace("...\n", "parse\n", 1))
    assert run.counts == {"passed": 1}, run.text


def test_the_example_of_the_readme_passes(suite: Runner) -> None:
    section = README.split("### In tests")[1]
    source = section.split("```python\n")[1].split("```")[0]
    run = suite("import pytest\n" + source)
    assert run.counts == {"passed": 1}, run.text
    assert '`pytest --memory-limit="1 GiB" --memory-report`' in section
    run = suite(None, "--memory-limit=1 GiB", "--memory-report")
    assert run.counts == {"passed": 1}


def test_the_page_names_each_option_and_marker(suite: Runner) -> None:
    run = suite("def test_it(): pass", "--help")
    section = run.text.split("memory (zmalloc):")[1].split("\n\n")[0]
    options = set(re.findall(r"--memory-[a-z]+", section))
    assert len(options) == 6
    for option in options:
        assert option in PAGE, option
    for marker in re.findall(r"@pytest\.mark\.(memory_\w+)", suite(None, "--markers").text):
        assert f"`{marker}(" in PAGE, marker
