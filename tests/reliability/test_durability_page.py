"""The page on durability names what shows each of its claims: it is there, and it is run."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs/explanation/durability.md"
NAMED = re.compile(r"`(test_\w+|\w+\.py)(?: [^`]*)?`")


def rows() -> list[list[str]]:
    """Return the cells of the rows of all tables on the page that say what shows them."""
    found: list[list[str]] = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text("utf-8"), re.MULTILINE):
        lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
        assert lines[0][-1] == "Shown by"
        found += lines[2:]
    return found


def test_every_row_names_what_shows_it() -> None:
    assert len(rows()) > 20
    for row in rows():
        assert NAMED.search(row[-1]), row


def test_everything_that_the_page_names_is_there_and_run() -> None:
    named = set(NAMED.findall(PAGE.read_text("utf-8")))
    sources = "\n".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    programs = {path.name for path in TESTS.glob("reliability/*.py")}
    # Run: a test names the program.
    programs = {name for name in programs if f'{name}"' in sources or f'"{name} ' in sources}
    assert named
    assert named - tests - programs == set()
