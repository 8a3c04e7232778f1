"""The arrows between the rooms: imports go down only, and never leave the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import persistq

SOURCE = Path(persistq.__file__).parent
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

# Each room, and the rooms it may import from.
LEAVES = {"exceptions", "_sentinels", "_fs", "_processes"}
ARROWS = {
    "_journal/codec": set(),
    "_journal/lines": set(),
    "_journal/files": {"_journal/codec", "_journal/locks", "_journal/lines"},
    "_journal/outstanding": {"_journal/codec"},
    "_journal/runs": {
        "_journal/locks",
        "_journal/files",
        "_journal/outstanding",
        "_journal/recovery",
    },
    "_journal/pipe": set(),
    "_journal/record": {"_journal/pipe"},
    "_journal/slots": {"_journal/pipe"},
    "_journal/feeder": {"_journal/pipe"},
    "_journal/spill": set(),
    "_journal/carrier": {
        "_journal/pipe",
        "_journal/record",
        "_journal/slots",
        "_journal/feeder",
        "_journal/spill",
    },
    "_journal/default_carrier": {"_journal/carrier"},
    "_journal/transport": set(),
    "_journal/own_queue": {
        "_journal/carrier",
        "_journal/feeder",
        "_journal/codec",
        "_journal/lines",
        "_journal/orphans",
        "_journal/record",
    },
    "_journal/user_queue": {"_journal/orphans"},
    "_journal/journal_only": {"_journal/runs", "_journal/codec"},
    "_journal/locks": set(),
    "_journal/orphans": set(),
    "_journal/recovery": {"_journal/locks", "_journal/files", "_journal/outstanding"},
    "_journal/joining": {
        "_journal/recovery",
        "_journal/files",
        "_journal/codec",
        "_journal/transport",
    },
    "_journal/consumer": {
        "_journal/codec",
        "_journal/files",
        "_journal/orphans",
        "_journal/recovery",
        "_journal/transport",
    },
    "_journal/producer": {
        "_journal/codec",
        "_journal/files",
        "_journal/own_queue",
        "_journal/runs",
        "_journal/transport",
    },
    "_journal/persistent": {
        "_journal/transport",
        "_journal/own_queue",
        "_journal/user_queue",
        "_journal/journal_only",
        "_journal/default_carrier",
        "_journal/consumer",
        "_journal/joining",
        "_journal/orphans",
        "_journal/producer",
        "_journal/recovery",
        "_journal/runs",
        "_journal/codec",
    },
    "_journal/tally": {"_journal/outstanding"},
    "_folder/acting": {
        "_folder/control",
        "_folder/names",
        "_folder/readable",
        "_folder/watch",
        "_folder/writable",
    },
    "_survey/hand": set(),
    "_survey/journals": {
        "_survey/hand",
        "_journal/files",
        "_journal/locks",
        "_journal/outstanding",
        "_journal/tally",
    },
    "_survey/folder": {
        "_survey/hand",
        "_survey/journals",
        "_folder/control",
        "_folder/grouped",
        "_folder/names",
    },
    "_survey/find": {"_survey/folder", "_survey/journals", "_folder/names", "_journal/files"},
    "_cli/show": set(),
    "_cli/parser": {"_cli/show"},
    "_cli/look": {
        "_cli/show",
        "_survey",
        "_folder/names",
        "_journal/codec",
        "_journal/files",
        "_journal/outstanding",
    },
    "_cli/watch": {"_cli/look", "_cli/show", "_survey", "_journal/files"},
    "_cli/repair": {
        "_cli/show",
        "_survey",
        "_folder/names",
        "_folder/readable",
        "_folder/recovery",
    },
    "_cli/take_part": {"_cli/show", "_folder/acting", "_folder/readable"},
    "_folder/names": set(),
    "_folder/control": {"_folder/names"},
    "_folder/ordered": set(),
    "_folder/watch": {"_folder/names"},
    "_folder/recovery": {"_folder/names", "_folder/control"},
    "_folder/base": {"_folder/names", "_folder/control", "_folder/recovery", "_folder/watch"},
    "_folder/writable": {"_folder/base", "_folder/names", "_folder/control", "_folder/recovery"},
    "_folder/readable": {
        "_folder/base",
        "_folder/names",
        "_folder/control",
        "_folder/recovery",
        "_folder/ordered",
        "_folder/watch",
    },
    "_folder/grouped": {
        "_folder/readable",
        "_folder/base",
        "_folder/names",
        "_folder/control",
        "_folder/watch",
    },
}


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            names.add(str(node.module))
            if node.module == "persistq" or str(node.module).startswith("persistq._"):
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    room = module.removesuffix(".py")
    if room not in ARROWS:
        return
    allowed = ARROWS[room] | LEAVES
    rooms = {other.removesuffix(".py") for other in MODULES}
    used = {
        name.removeprefix("persistq.").replace(".", "/")
        for name in imported_modules(SOURCE / module)
        if name.startswith("persistq.")
    }
    assert (used & rooms) - {"_journal", "_folder", "_cli"} <= allowed


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.stdlib_module_names is new in 3.10")
@pytest.mark.parametrize("module", MODULES)
def test_nothing_outside_the_standard_library_is_imported(module: str) -> None:
    tops = {name.split(".")[0] for name in imported_modules(SOURCE / module)}
    assert tops <= set(sys.stdlib_module_names) | {"persistq"}


def test_importing_persistq_loads_neither_the_command_line_nor_heavy_modules() -> None:
    code = "import sys, persistq; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    ).stdout.split()
    heavy = {"argparse", "typing", "dataclasses", "inspect", "asyncio", "sqlite3", "ctypes"}
    assert not heavy & set(loaded)
    assert not {"persistq._cli", "persistq._survey"} & set(loaded)


def test_a_queue_loads_only_its_own_rooms_and_no_heavy_modules() -> None:
    code = "import sys; from persistq import *; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    ).stdout.split()
    heavy = {"argparse", "typing", "dataclasses", "inspect", "asyncio", "sqlite3", "ctypes"}
    assert not heavy & set(loaded)
    assert not {"persistq._cli", "persistq._survey", "persistq._journal.tally"} & set(loaded)
