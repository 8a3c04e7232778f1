"""The documentation is true: its examples run, its links lead somewhere, and it names everything.

How a page is run, from top to bottom, in an empty directory of its own:

- A `python` block is a part of one script, which is the page. It starts no processes, since it
  has no `if __name__ == "__main__"`.
- A `python script` block is a script of its own, and runs there. `python script load.py` is a file
  of that name, for later blocks to use.
- A `console` block runs its `$ ` lines in a shell; what it shows is what they print.
- An `output` block is what the page has printed since the last one.
- `<!-- needs redis redis-server -->`: modules and commands without which a page is not run.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import persistq
from persistq import exceptions, queuing

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = ROOT / "docs/reference/persistent-queue.md"

BLOCK = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEPARATOR = "\x1e"
LIMIT_S = 60


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def run_page(text: str, folder: Path) -> list[tuple[str, str]]:
    """Run a page; return, for each output that it shows, what it showed and what it should."""
    folder.mkdir()
    # Each block stands at its own line of the page, so a traceback names that.
    lines = [""] * (text.count("\n") + 2)
    shown: list[str] = []

    def call(line: int, command: list[str], arguments: str) -> None:
        lines[line] += f"__import__('subprocess').run({command!r}, {arguments});"

    for match in BLOCK.finditer(text):
        kind, info, code = match.groups()
        line = text.count("\n", 0, match.start())
        words = info.split()
        if kind == "python" and not words:
            lines[line + 1 : line + 1 + code.count("\n")] = code.split("\n")[:-1]
        elif kind == "python":
            assert words[0] == "script", f"```python {info}: what is this?"
            name = words[1] if len(words) > 1 else f"script_{line + 1}.py"
            (folder / name).write_text(code, "utf-8")
            if len(words) == 1:
                call(line, [sys.executable, "-u", name], "check=True")
        elif kind == "console":
            commands = [part[2:] for part in code.splitlines() if part.startswith("$ ")]
            printed = [part for part in code.splitlines() if not part.startswith("$ ")]
            for command in commands:
                call(line, ["bash", "-c", command], "stderr=-2")
            shown.append("".join(f"{part}\n" for part in printed))
            lines[line] += f"print({SEPARATOR!r}, end='')"
        elif kind == "output":
            shown.append(code)
            lines[line] = f"print({SEPARATOR!r}, end='')"
    page = folder / "page.py"
    page.write_text("\n".join(lines), "utf-8")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        "PYTHONUNBUFFERED": "1",
        # The modules that the pages tell to copy.
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT / "docs/examples"), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    result = subprocess.run(
        [sys.executable, page.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        start_new_session=True,  # an example may kill its process group
    )
    assert result.returncode == 0, result.stderr
    shown.append("")  # nothing is printed that the page does not show
    printed = result.stdout.split(SEPARATOR)
    assert len(printed) == len(shown)
    return list(zip(printed, shown))


WITH_EXAMPLES = [page for page in PAGES if "```python" in page.read_text("utf-8")]


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_the_examples_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    if "```console" in text and os.name == "nt":
        pytest.skip("the page's commands are for a POSIX shell")
    for needed in re.findall(r"^<!-- needs (.*) -->$", text, re.MULTILINE):
        for name in needed.split():
            if importlib.util.find_spec(name) is None and shutil.which(name) is None:
                pytest.skip(f"the page needs {name}")
    for printed, shown in run_page(text, tmp_path / "page"):
        assert printed == shown


def test_a_wrong_output_and_a_failing_example_would_be_noticed(tmp_path: Path) -> None:
    page = (
        "# A page\n```python\nx = 2\n```\ntext\n```python\nprint(x + 1)\n```\n```output\n4\n```\n"
    )
    assert run_page(page, tmp_path / "wrong") == [("3\n", "4\n"), ("", "")]

    with pytest.raises(AssertionError, match=r'page\.py", line 7'):
        run_page(page.replace("x + 1", "y"), tmp_path / "failing")
    with pytest.raises(AssertionError, match="returned non-zero exit status 3"):
        run_page("```python script\nraise SystemExit(3)\n```\n", tmp_path / "script")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=name_of)
def test_every_page_can_be_found_from_the_index(page: Path) -> None:
    index = ROOT / "docs/README.md"
    if page != index:
        assert f"]({page.relative_to(index.parent).as_posix()})" in index.read_text("utf-8")


def public(obj: Any) -> set[str]:
    return {name for name in vars(obj) if not name.startswith("_")}


def test_the_reference_names_everything_that_is_public() -> None:
    names = {*persistq.__all__, *queuing.__all__, *public(persistq.PersistentQueue)}
    names |= set(inspect.signature(persistq.PersistentQueue).parameters)
    names |= set(inspect.signature(persistq.pickup_dirs).parameters)
    names |= {name for name in public(exceptions) if name.endswith("Error")}
    names |= public(persistq.Summary) | set(inspect.signature(persistq.run).parameters)
    names |= public(persistq.PersistentQueue()) | {"MPXError", "queuing", "exceptions"}
    pages = "\n".join(page.read_text("utf-8") for page in REFERENCE.parent.glob("*.md"))
    spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", pages))
    assert not names - set(re.findall(r"\w+", " ".join(spans)))


def parameters(method: Any) -> str:
    """Return the parameters and defaults, as the reference shows them."""
    signature = inspect.signature(method)
    shown = [
        str(p.replace(annotation=p.empty))
        for p in signature.parameters.values()
        if p.name != "self"
    ]
    return ", ".join(shown)


@pytest.mark.parametrize("name", sorted(public(persistq.PersistentQueue)))
def test_the_reference_shows_each_method_with_its_parameters_and_defaults(name: str) -> None:
    member = vars(persistq.PersistentQueue)[name]
    if isinstance(member, property):
        return
    function = getattr(persistq.PersistentQueue, name)
    text = REFERENCE.read_text("utf-8")
    assert f"`{name}({parameters(function)})`" in text


def test_the_architecture_names_every_room() -> None:
    source = Path(persistq.__file__).parent
    text = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    rooms = [path for path in source.rglob("*.py") if path.stem != "__init__"]
    assert [path.name for path in rooms if not re.search(rf"\b{path.stem}\b", text)] == []
