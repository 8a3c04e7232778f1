"""Deleting what runs have left that are over, and carried on: `persistq retire`."""

from __future__ import annotations

import os
import shutil

from persistq import _fs, _survey
from persistq._cli import show
from persistq._cli.exits import ERROR, FINE
from persistq._cli.repair import may
from persistq._journal.decisions import undecided
from persistq._journal.names import HELD, WITHOUT_IDENTITY
from persistq._journal.outstanding import count
from persistq._journal.run_state import RunState

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_RETIRED = ".persistq_retired_"


def retire(options: argparse.Namespace) -> int:
    """Remove run folders whose work later runs have carried on, and what such runs have left.

    Args:
        options (argparse.Namespace): With `root`, `keep`, `dry_run` and `yes`.
    """
    if options.keep < 1:
        raise ValueError(
            f"--keep {options.keep}: expected 1 or more; the last run is the next one's"
        )
    root = options.root
    if not _survey.homes(root) and not _survey.journal_prefixes(root):
        raise ValueError(
            f"{root} holds no run folders; expected a root of pickup_dirs(), or a folder "
            "with run_000001 and so on in it, or a pickup directory"
        )
    every = _find(root, options.keep)
    if not every:
        show.say("nothing to retire")
        return FINE
    for old in every:
        show.say(("would remove " if options.dry_run else "old: ") + show.safe(old.path))
    if options.dry_run:
        return FINE
    if not may(f"{show.count_of(len(every), 'run folder')} would be deleted.", options):
        return ERROR
    removed = sum(_remove(old) for old in every)
    show.say(f"{show.count_of(removed, 'run folder')} removed")
    return FINE


class _Old:
    """A folder that can go.

    Attributes:
        path (str): Its path.
        lock (str | None): The directory under whose lock it goes; None: it is hidden already.
        can_still_go (() -> bool): Asked once more, under that lock.
    """

    def __init__(self, path: str, lock: str | None, can_still_go: Callable[[], bool]) -> None:
        self.path = path
        self.lock = lock
        self.can_still_go = can_still_go


def _find(root: str, keep: int) -> list[_Old]:
    """Give the folders that can go, those that a killed `retire` has hidden first."""
    hidden: list[_Old] = []
    old: list[_Old] = []
    spent: list[_Old] = []
    directories = [root] if _survey.journal_prefixes(root) else []
    for home in _survey.homes(root):
        hidden += _hidden_in(home)
        going = _retirable(home, keep)
        old += going
        gone = {run.path for run in going}
        directories += [folder for folder in _survey.runs(home)[::-1] if folder not in gone]
    for directory in directories:
        for prefix in _survey.journal_prefixes(directory):
            state = RunState(directory, prefix)
            hidden += _hidden_in(os.path.join(directory, state.names.earlier))
            spent += _spent(state, keep)
    return [*hidden, *old, *spent]


def _remove(old: _Old) -> bool:
    """Remove a folder, if it still can go: the question may have waited for its answer."""
    hidden = old.path
    if old.lock is not None:
        # First out of sight: killed half way, no run could be read that has lost a part.
        folder, name = os.path.split(old.path)
        hidden = os.path.join(folder, _RETIRED + name)
        with _fs.folder_lock(old.lock):
            if not old.can_still_go():
                show.complain(f"{old.path}: in use since; it is left alone")
                return False
            os.rename(old.path, hidden)
    shutil.rmtree(hidden)
    return True


def _hidden_in(folder: str) -> list[_Old]:
    """Give what a retire that was killed has left, hidden already."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith(_RETIRED))
    except FileNotFoundError:
        return []  # no run before the one that is there
    return [_Old(os.path.join(folder, name), None, lambda: True) for name in names]


def _retirable(home: str, keep: int) -> list[_Old]:
    """Give the run folders that can go, the earliest first.

    A run can go when a later one carried its work on, or when it has none left; never one in which
    a process takes part, and never one of the last that hold journals, for the next run looks
    there.
    """
    needed = set(_survey.current_runs(home))
    found, kept = [], 0
    for folder in _survey.runs(home):
        prefixes = _survey.journal_prefixes(folder)
        if kept < keep:
            kept += bool(prefixes)
            continue
        states = [RunState(folder, prefix) for prefix in prefixes]
        if all(_can_go(state, (folder, state.names.prefix) in needed) for state in states):
            found.append(_Old(folder, folder, _same_again(folder, states, needed)))
    return found[::-1]


def _same_again(
    folder: str, states: list[RunState], needed: set[tuple[str, str]]
) -> Callable[[], bool]:
    runs = {state.names.prefix: state.run for state in states}

    def can_still_go() -> bool:
        now = [RunState(folder, prefix) for prefix in _survey.journal_prefixes(folder)]
        return {state.names.prefix: state.run for state in now} == runs and all(
            _can_go(state, (folder, state.names.prefix) in needed) for state in now
        )

    return can_still_go


def _can_go(state: RunState, is_needed: bool) -> bool:
    if _held(state):
        return False
    return not (is_needed and (count(state.chain()).lines or undecided(state)))


def _held(state: RunState) -> set[str]:
    """Give the runs that a process may take part in; one that is not known to be dead does."""
    return {
        member.name.run
        for member in state.members
        if member.name.state == HELD and member.is_dead() is not True
    }


def _spent(state: RunState, keep: int) -> list[_Old]:
    """Give the folders of runs that were carried on in the same directory, the earliest first.

    All that is in them was carried on before it was moved there, under the directory's lock. The
    run that the directory holds is the last of those to be kept.
    """
    directory, prefix = state.directory, state.names.prefix
    folder = os.path.join(directory, state.names.earlier)
    return [
        _Old(
            os.path.join(folder, name),
            directory,
            lambda name=name: name in _spent_names(RunState(directory, prefix), keep),  # type: ignore[misc]
        )
        for name in _spent_names(state, keep)
    ]


def _spent_names(state: RunState, keep: int) -> list[str]:
    folder = os.path.join(state.directory, state.names.earlier)
    before = [run or WITHOUT_IDENTITY for run in state.record.get("continues", ())]
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    # Of runs too long ago to be listed, which to keep hangs on the clock.
                    place = before.index(name) if name in before else -1
                    found.append((place, entry.stat().st_mtime, name))
    except FileNotFoundError:
        return []  # no run was here before
    names = [name for _, _, name in sorted(found) if name != state.run]
    held = _held(state)
    return [
        name
        for name in names[: max(len(names) - (keep - 1), 0)]
        if not any(name.startswith(run) for run in held)
    ]
