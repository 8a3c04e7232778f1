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

# From top to bottom: a wing may import from those below it, and from no other beside it.
FLOORS = [
    {"_cli", "_web", "__main__", "queuing", "__init__"},
    {"_run"},
    {"_survey"},
    {"_queue", "_folder"},
    {"_journal", "_carrier"},
    {"_lease"},
    {
        "_attempts",
        "_fs",
        "_generic",
        "_processes",
        "_reasons",
        "_sentinels",
        "_turn",
        "_words",
        "exceptions",
    },
    {"_storing", "_mounts", "_forks"},  # which _fs hands on
    {"_libc"},
]
LEAVES = {*FLOORS[-3], "_libc"}
# What may reach less than its floor allows.
NARROW = {"_carrier": {"_lease", *LEAVES}, "_journal": {"_lease", *LEAVES}}
# What hands names on to those above it, which import from here all the same.
NAMES = {"__init__", "_survey/__init__", "_cli/__init__"}
# Rooms of one floor that know one another.
NEIGHBOURS = {
    ("__main__", "_cli"),
    ("_cli", "_web"),
    ("_fs", "_processes"),
    ("queuing", "__init__"),
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


ROOMS = {module.removesuffix(".py") for module in MODULES}


def wing_of(room: str) -> str:
    return room.split("/")[0]


def floor_of(room: str) -> int:
    return next(number for number, wings in enumerate(FLOORS) if wing_of(room) in wings)


def rooms_used_by(room: str) -> set[str]:
    names = {
        name.removeprefix("persistq.").replace(".", "/")
        for name in imported_modules(SOURCE / f"{room}.py")
        if name.startswith("persistq.")
    }
    used = {name for name in names if name in ROOMS}
    return used | {f"{name}/__init__" for name in names if f"{name}/__init__" in ROOMS}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_go_down_only(room: str) -> None:
    wing = wing_of(room)
    for used in rooms_used_by(room) - {f"{wing}/__init__"}:
        other = wing_of(used)
        if used in NAMES and other != wing:
            continue
        if other != wing and (wing, other) not in NEIGHBOURS:
            assert floor_of(used) > floor_of(room), f"{room} imports {used}, which is not below it"
            assert other in NARROW.get(wing, {other}), f"{room} is not to know {used}"


def test_no_two_rooms_need_each_other() -> None:
    left = {room: rooms_used_by(room) - NAMES - {room} for room in ROOMS - NAMES}
    while left:
        free = [room for room, used in left.items() if not used & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.stdlib_module_names is new in 3.10")
@pytest.mark.parametrize("module", MODULES)
def test_nothing_outside_the_standard_library_is_imported(module: str) -> None:
    tops = {name.split(".")[0] for name in imported_modules(SOURCE / module)}
    # A type checker brings its own typing_extensions; that it is never loaded is tested below.
    checkers = {"typing_extensions"} if module == "_generic.py" else set()
    assert tops <= set(sys.stdlib_module_names) | {"persistq"} | checkers


def test_importing_persistq_loads_neither_the_command_line_nor_heavy_modules() -> None:
    code = "import sys, persistq; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    ).stdout.split()
    heavy = {"argparse", "typing", "dataclasses", "inspect", "asyncio", "sqlite3", "ctypes"}
    heavy.add("typing_extensions")
    assert not heavy & set(loaded)
    assert not {"persistq._cli", "persistq._survey"} & set(loaded)


@pytest.mark.parametrize("queues", ["*", "PersistentQueue, WritableFolderQueue"])
def test_a_queue_loads_only_its_own_rooms_and_no_heavy_modules(queues: str) -> None:
    # What logging itself loads is not ours: from 3.14 on that is `inspect`, to print in colours.
    code = f"import logging, sys; before = {{*sys.modules}}; from persistq import {queues}; "
    code += "print(*sys.modules.keys() - before)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    ).stdout.split()
    heavy = {"argparse", "typing", "dataclasses", "inspect", "asyncio", "sqlite3", "ctypes"}
    heavy.add("typing_extensions")
    if queues == "*":
        heavy.remove("ctypes")  # to load it when a folder is first read would take longer than that
    elif sys.version_info < (3, 10):
        heavy.remove("ctypes")  # it has no os.eventfd, so that is looked for in the C library
    assert not heavy & set(loaded)
    assert not {"persistq._cli", "persistq._survey", "persistq._journal.tally"} & set(loaded)
