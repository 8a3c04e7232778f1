"""Which queues there are anywhere under some folders, looked at again and again.

For a page that is open all day: what has not changed is not read again, and what cannot be read
is told, and keeps nobody from the rest.
"""

from __future__ import annotations

import os

from persistq._survey import find
from persistq._survey.folder import FolderSurvey
from persistq._survey.journals import JournalSurvey, stamp
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from typing import Any, Union

    Survey = Union[JournalSurvey, FolderSurvey]

_DEEPEST = 3
_MOST_FOLDERS = 1000
_SHOWN = 100
"""So many messages of each queue that were set aside are told."""


class Found:
    """A queue.

    Attributes:
        survey (JournalSurvey | FolderSurvey): What is true of it.
        set_aside (list[dict[str, Any]]): The latest messages that were set aside, latest first, as
            `persistq failed --json` gives them.
    """

    def __init__(self, survey: Survey, set_aside: list[dict[str, Any]]) -> None:
        self.survey = survey
        self.set_aside = set_aside

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        survey = self.survey
        if isinstance(survey, JournalSurvey):
            return os.path.realpath(survey.path), survey.prefix
        # No prefix of journals holds a slash.
        return os.path.realpath(survey.path), "/" + survey.extension


class Unreadable:
    """What could not be looked at.

    Attributes:
        path (str): A folder.
        error (str): Why, in one line.
    """

    def __init__(self, path: str, error: str) -> None:
        self.path = path
        self.error = error


class Surveyor:
    """Looks at all queues under some folders. Not for several threads at once.

    Args:
        roots (Sequence[str]): Each a pickup directory, a root of `pickup_dirs`, a folder queue, or
            a folder that holds such, down to three folders below it. Links to folders, hidden
            folders, and folders of files that no process has marked as a queue's, are passed over.
        **folder_options (Any): What `FolderSurvey` takes besides its path: of roots that are
            folder queues themselves.
    """

    def __init__(self, roots: Sequence[str], **folder_options: Any) -> None:
        self._roots = roots
        self._options = folder_options
        self._journals: dict[tuple[str, str], tuple[Hashable, JournalSurvey]] = {}
        self._failed: dict[tuple[str, str], tuple[JournalSurvey, list[dict[str, Any]]]] = {}
        self._seen: set[tuple[str, str]] = set()

    def look(self) -> tuple[list[Found], list[Unreadable]]:
        """Look at each queue once, also where roots overlap.

        Returns:
            tuple[list[Found], list[Unreadable]]: The queues, as they are found on the way; and
            what could not be read.
        """
        found: dict[tuple[str, str], Found] = {}
        unreadable: list[Unreadable] = []
        self._seen = set()
        for root in self._roots:
            for number, (folder, names) in enumerate(_walk(root, unreadable)):
                if number == _MOST_FOLDERS:
                    text = f"more than {_MOST_FOLDERS:,} folders: name those that hold queues"
                    unreadable.append(Unreadable(root, text))
                    break
                try:
                    for queue in self._queues_of(folder, names, folder == root):
                        found.setdefault(queue.key, queue)
                except FileNotFoundError:
                    if folder == root:
                        unreadable.append(Unreadable(folder, "it is not there"))
                except (OSError, ValueError, PersistqError) as error:
                    unreadable.append(Unreadable(folder, _describe(error)))
        for known in (self._journals, self._failed):
            for key in known.keys() - self._seen:
                del known[key]
        return [*found.values()], unreadable

    def _queues_of(self, folder: str, names: list[str], is_root: bool) -> Iterator[Found]:
        places = [(folder, prefix) for prefix in find.prefixes_among(names)]
        has_runs = any(name.startswith("run_") for name in names) and bool(find.runs(folder))
        if has_runs:
            places += find.current_runs(folder)
        for journal in find.of_journals(places, self._journal):
            yield Found(journal, self._failed_lines(journal))
        if is_root or _is_marked(names):
            options = self._options if is_root else {}
            queues = find.of_folder(folder, bool(places), has_runs=True, **options)
            for queue in queues:
                yield Found(queue, self._failed_files(queue, options.get("failed_folder")))

    def _journal(self, folder: str, prefix: str) -> JournalSurvey:
        key = (folder, prefix)
        self._seen.add(key)
        for _ in range(2):
            try:
                now = stamp(folder, prefix)
                break
            except FileNotFoundError:
                pass  # a file has gone meanwhile; what cannot be told apart is looked at
        else:
            return JournalSurvey(folder, prefix)
        known = self._journals.get(key)
        if known is None or known[0] != now:
            # The stamp is of before the reading: what was appended since is a change to the next.
            known = self._journals[key] = (now, JournalSurvey(folder, prefix))
        return known[1]

    def _failed_lines(self, journal: JournalSurvey) -> list[dict[str, Any]]:
        if not journal.failed:
            return []
        key = (journal.path, journal.prefix)
        known = self._failed.get(key)
        if known is None or known[0] is not journal:
            from persistq._journal.codec import Codec
            from persistq._journal.decisions import undecided
            from persistq._journal.run_state import RunState
            from persistq._survey import as_json

            codec = Codec()
            state = RunState(*key)
            # Appended to file by file: the time of each decides.
            entries = [as_json.failed_line(state, line, codec) for line in undecided(state)]
            known = self._failed[key] = (journal, _latest(entries))
        return known[1]

    def _failed_files(self, queue: FolderSurvey, directory: str | None) -> list[dict[str, Any]]:
        if not queue.set_aside:
            return []
        from persistq._folder import failing
        from persistq._survey import as_json

        files = failing.list_failed(queue.path, queue.extension, directory, queue.ignore_case)
        return _latest([as_json.failed_file(queue.path, file) for file in files])


def _latest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: entry["failed_at"] or "", reverse=True)[:_SHOWN]


def _walk(root: str, unreadable: list[Unreadable]) -> Iterator[tuple[str, list[str]]]:
    """Yield folders with the names of what is in them, those nearest to the root first."""
    level = [root]
    for depth in range(_DEEPEST + 1):
        below: list[str] = []
        for folder in level:
            names, inside = [], []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        names.append(entry.name)
                        if entry.name[:1] != "." and entry.is_dir(follow_symlinks=False):
                            inside.append(entry.path)
            except FileNotFoundError:
                if folder == root:
                    unreadable.append(Unreadable(root, "it is not there"))
                continue
            except OSError as error:
                if os.path.basename(folder) == "lost+found":
                    continue  # the file system's own, and no queue's
                unreadable.append(Unreadable(folder, _describe(error)))
                continue
            yield folder, names
            if depth < _DEEPEST:
                # Runs are looked at from the folder that holds them, and `earlier` are over.
                over = {f"{prefix}_earlier" for prefix in find.prefixes_among(names)}
                below += sorted(
                    path
                    for path in inside
                    if not find.is_run(os.path.basename(path))
                    and os.path.basename(path) not in over
                )
        level = below


def _is_marked(names: list[str]) -> bool:
    """Tell whether processes have left anything that says that a folder is a queue's."""
    from persistq._folder import names as of_queues

    endings = (*of_queues.CONTROL, of_queues.WIP, of_queues.REJECTED)
    return any(
        name.endswith(endings) or (name.endswith(of_queues.LEASE) and of_queues.parse_lease(name))
        for name in names
    )


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
