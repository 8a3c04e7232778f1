"""Which queues there are at a path, and which of them matter."""

from __future__ import annotations

import contextlib
import os
import re

from persistq._journal.names import prefix_of, prefix_of_whole
from persistq._journal.run_state import RunState
from persistq._survey.ending import ending_of, endings_in
from persistq._survey.folder import FolderSurvey
from persistq._survey.journals import JournalSurvey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any, Callable, Union

    Survey = Union[JournalSurvey, FolderSurvey]

_RUN = re.compile(r"run_(\d+)")


def journal_prefixes(folder: str) -> list[str]:
    """Return the prefixes of the journals in a folder.

    Args:
        folder (str): The folder.

    Returns:
        list[str]: Sorted; none where it is a folder queue, or something else.

    Raises:
        OSError: The folder cannot be listed.
    """
    return prefixes_among(os.listdir(folder))


def prefixes_among(names: Collection[str]) -> list[str]:
    """Return the prefixes of the journals among the names of a folder's files, sorted."""
    found = set(filter(None, map(prefix_of, names)))
    if not any(name.endswith((".helo", ".done", ".failed", ".wip")) for name in names):
        # Just a name; a folder queue may have a message called so.
        found |= set(filter(None, map(prefix_of_whole, names)))
    return sorted(found)


def is_run(name: str) -> bool:
    """Tell whether a folder of this name is one that `pickup_dirs` made."""
    return _RUN.fullmatch(name) is not None


def runs(home: str) -> list[str]:
    """Return the run folders that `pickup_dirs` made in a folder.

    Args:
        home (str): `root/<prefix>`.

    Returns:
        list[str]: Paths, the latest run first.
    """
    found = []
    with os.scandir(home) as entries:
        for entry in entries:
            match = entry.name.startswith("run_") and _RUN.fullmatch(entry.name)
            if match and entry.is_dir():
                found.append((int(match[1]), entry.path))
    return [path for _, path in sorted(found, reverse=True)]


def homes(path: str) -> list[str]:
    """Return the folders that hold run folders: the path itself, or folders in it.

    Args:
        path (str): A root of `pickup_dirs`, or `root/<prefix>`.

    Returns:
        list[str]: Paths, sorted.
    """
    found = [path] if runs(path) else []
    with os.scandir(path) as entries:
        inside = sorted(entry.path for entry in entries if _is_folder(entry))
    for folder in inside:
        # One that cannot be looked into (lost+found) is no queue's.
        with contextlib.suppress(PermissionError, FileNotFoundError):
            if not is_run(os.path.basename(folder)) and runs(folder):
                found.append(folder)
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.name[:1] != "." and entry.is_dir()
    except OSError:
        return False  # a link in a circle, or into a folder that this user may not enter


def current_runs(home: str) -> list[tuple[str, str]]:
    """Return the run folders that matter: those whose work no later run has taken over.

    Args:
        home (str): `root/<prefix>`.

    Returns:
        list[tuple[str, str]]: Path and prefix of the journals, the latest run first.
    """
    # Not of every command's start.
    from persistq._journal.decisions import is_elsewhere

    found = []
    carried: set[tuple[str, str]] = set()  # prefix and identity of runs that a later one carries
    taken_over: dict[str, bool] = {}  # whether the run behind has carried work on, by prefix
    behind = 0
    for folder in runs(home):
        number = int(os.path.basename(folder)[len("run_") :])
        if number != behind - 1:
            # Whatever stood between may have been what carried this one's work, or forgot it.
            taken_over.clear()
        behind = number
        for prefix in journal_prefixes(folder):
            state = RunState(folder, prefix)
            is_carried = (
                is_elsewhere(state)
                # That one is gone, but a later one has carried it on in its turn.
                or (state.seal is not None and (prefix, state.seal.by) in carried)
                # A start that was killed has not sealed it yet; or it could not be written.
                or (prefix, state.run) in carried
                # Runs without an identity, as of version 0.1, say nothing of each other.
                or (not state.run and taken_over.get(prefix, False))
            )
            if not is_carried:
                found.append((folder, prefix))
            carried |= {(prefix, source["run"]) for source in state.carries if source.get("run")}
            taken_over[prefix] = bool(state.carried or state.requeued)
    return found


def journals(path: str) -> list[tuple[str, str]]:
    """Return the journals at a path: in the folder itself, and of runs in or below it.

    Args:
        path (str): A pickup directory, `root/<prefix>`, or a root of `pickup_dirs`.

    Returns:
        list[tuple[str, str]]: Folder and prefix of each; none where it is a folder queue.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = [(path, prefix) for prefix in journal_prefixes(path)]
    for home in homes(path):
        found += current_runs(home)
    return found


def survey(path: str, **folder_options: Any) -> list[Survey]:
    """Return what is true of the queues at a path right now.

    Args:
        path (str): A pickup directory, `root/<prefix>`, a root of `pickup_dirs`, or a folder queue.
        **folder_options (Any): What `FolderSurvey` takes besides its path.

    Returns:
        list[JournalSurvey | FolderSurvey]: One for each prefix of journals, or one for a folder.

    Raises:
        OSError: Something cannot be read.
    """
    found: list[Survey] = [*of_journals(journals(path))]
    return found + of_folder(path, bool(found), bool(homes(path)), **folder_options)


def of_journals(
    places: Iterable[tuple[str, str]],
    look: Callable[[str, str], JournalSurvey] = JournalSurvey,
) -> list[JournalSurvey]:
    """Survey journals, those of runs of which each left something undone, and the latest.

    Args:
        places (Iterable[tuple[str, str]]): Folder and prefix of each; of one home, latest first.
        look (((folder: str, prefix: str) -> JournalSurvey)): Makes a survey.
    """
    found = []
    latest = set()
    for folder, prefix in places:
        journal = look(folder, prefix)
        # Of earlier runs only what they left undone is of interest.
        key = (os.path.dirname(folder), prefix)
        if key not in latest or not journal.is_finished or journal.alive or journal.failed:
            found.append(journal)
        latest.add(key)
    return found


def of_folder(
    path: str,
    has_journals: bool,
    has_runs: bool,
    extension: str | None = None,
    ignore_case: bool = False,
    **options: Any,
) -> list[FolderSurvey]:
    """Survey the folder queues of a folder, of which there may be one for each extension.

    Args:
        path (str): The folder.
        has_journals (bool): Whether journals were found at it; then it is mostly no folder queue.
        has_runs (bool): Whether it is a root of `pickup_dirs`, so that one without anything of a
            folder queue is none.
        extension (str | None): The message extension; None: as those who use the folder say.
        ignore_case (bool): Whether it counts in other letters, too, whatever those say.
        **options (Any): What `FolderSurvey` takes besides.
    """
    found = []
    endings = endings_in(path) if extension is None else []
    for each, ignores in endings or [ending_of(path, extension, ignore_case)]:
        queue = FolderSurvey(
            path,
            each,
            holds_journals=has_journals,
            ignore_case=ignore_case or ignores,
            **options,
        )
        if has_journals:
            counts = vars(queue.producers).values()
            if queue.in_progress or any(counts) or queue.failed or queue.set_aside:
                found.append(queue)
        elif not has_runs or queue.is_queue:
            found.append(queue)
    return found
