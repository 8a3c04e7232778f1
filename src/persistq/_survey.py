"""What is true of a queue on disk right now: read only, whoever is at work on it.

Nothing here claims, announces, renames or writes. What changes meanwhile is seen as it was at one
moment or another; a file that vanishes in between has the look repeated.
"""

from __future__ import annotations

import os
import re

from persistq import _fs
from persistq._journal.locks import Looker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable
    from typing import Any, Union

    Survey = Union["JournalSurvey", "FolderSurvey"]

_JOURNAL = re.compile(
    r"(?P<prefix>.+)_(?:requested|completed|started)_PID\d+(?:-\d+)?"
    r"(?:_requeued|_recovered(?:-\d+)?)?\.tsv",
    re.DOTALL,
)
_CARRIED = re.compile(r"(?P<prefix>.+)_carried\.tsv", re.DOTALL)
_RUN = re.compile(r"run_(\d+)")
_TRIES = 20
_SHOWN = 100

ALIVE, DEAD, ELSEWHERE = "alive", "dead", "elsewhere"


class InHand:
    """What one process is working on, or was when it died.

    Attributes:
        pid (int): Its process id.
        host (str): Ten digits for its host; empty for a journal.
        state (str): ALIVE, DEAD, or ELSEWHERE: on a host that cannot be asked.
        count (int): How many messages it has in hand.
        since_s (float): When it took the last one (journals) or the first one (folders), in
            seconds since the epoch.
        messages (list[bytes]): The first of them: journal lines, or names of claimed files.
    """

    def __init__(
        self, pid: int, host: str, state: str, count: int, since_s: float, messages: list[bytes]
    ) -> None:
        self.pid = pid
        self.host = host
        self.state = state
        self.count = count
        self.since_s = since_s
        self.messages = messages

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            **vars(self),
            "messages": [m.decode("utf-8", "surrogateescape") for m in self.messages],
        }


class JournalSurvey:
    """The journals of one prefix in a directory.

    Args:
        path (str): The directory.
        prefix (str): The queue's prefix.

    Attributes:
        requested (int): Messages put, carried ones included.
        completed (int): Messages completed.
        outstanding (int): Messages requested and not completed.
        in_progress (list[InHand]): What processes have in hand, by process.
        carried (int): How many of the requested ones were carried over from the run before.
        torn (int): Torn last lines, as a crash leaves them.
        last_activity_s (float): When a journal was last written to, in seconds since the epoch.
        alive (list[int]): Ids of the processes that have a journal open.

    Raises:
        OSError: The directory or a journal cannot be read.
    """

    kind = "journals"

    def __init__(self, path: str, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        for number in range(_TRIES):
            try:
                self._look()
            except FileNotFoundError:
                # A worker has ended, or carried work is being requeued, and a file has gone.
                if number == _TRIES - 1 or not os.path.isdir(path):
                    raise
            else:
                break

    def _look(self) -> None:
        from persistq._journal.files import (
            COMPLETED,
            REQUESTED,
            STARTED,
            JournalNames,
            process_files,
        )
        from persistq._journal.tally import tally

        looker = Looker()
        names = JournalNames(self.path, self.prefix)
        # Who lives, before the reading: a message that is completed meanwhile is just not shown.
        processes = {
            kind: [
                (pid, file, looker.is_held(file))
                for pid, file in process_files(self.path, self.prefix, kind)
            ]
            for kind in (REQUESTED, COMPLETED, STARTED)
        }
        files = [*names.requested, *names.completed, *(f for _, f, _ in processes[STARTED])]
        self.last_activity_s = max((os.stat(file).st_mtime for file in files), default=0.0)
        self.alive = sorted({p for found in processes.values() for p, _, held in found if held})
        self.carried = sum(map(_count_lines, names.carried + names.requeued))
        totals = tally(names.requested, names.completed)
        self.requested, self.completed = totals.requested, totals.completed
        self.torn, self.outstanding = totals.torn, len(totals.lines)
        left = totals.lines if isinstance(totals.lines, set) else set(totals.lines)
        self.in_progress: list[InHand] = []
        for pid, file, held in processes[STARTED]:
            # An id may have been a dead worker's, and be a living one's now.
            done = [f for p, f, h in processes[COMPLETED] if p == pid and h is held]
            lines = _lines_in_hand(file, done, left)
            if lines:
                state = ALIVE if held else DEAD
                since_s = os.stat(file).st_mtime
                self.in_progress.append(InHand(pid, "", state, len(lines), since_s, lines[:_SHOWN]))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is outstanding."""
        return self.outstanding == 0

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "kind": self.kind,
            **vars(self),
            "in_progress": [hand.as_dict() for hand in self.in_progress],
        }


def _count_lines(path: str) -> int:
    count = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 16):
            count += block.count(b"\n")
    return count


def _lines_in_hand(started: str, completed: Iterable[str], left: set[bytes]) -> list[bytes]:
    """Return which lines of a started file are outstanding and not completed by its process."""
    if not left:
        return []
    found = _matching(started, left)
    if found:
        wanted = set(found)
        for path in completed:
            for line in _matching(path, wanted):
                if line in found:
                    found.remove(line)  # it was requested more than once, and once completed
    return found


def _matching(path: str, wanted: set[bytes]) -> list[bytes]:
    from persistq._journal.outstanding import Reader

    found: list[bytes] = []
    reader = Reader(path)
    try:
        while (lines := reader.lines()) is not None:
            if not wanted.isdisjoint(lines):
                found += [line for line in lines if line in wanted]
    finally:
        reader.close()
    return found


class Producers:
    """The producers of a folder queue, by what their control files say.

    Attributes:
        open (int): Announced, not closed, and alive or on a host that cannot be asked.
        closed (int): Put all that they had.
        dead (int): Announced and not closed, by a process of this host that no longer lives.
    """

    def __init__(self, open: int = 0, closed: int = 0, dead: int = 0) -> None:
        self.open = open
        self.closed = closed
        self.dead = dead


class FolderSurvey:
    """A folder queue.

    Args:
        path (str): The queue's folder.
        extension (str): The message extension with its leading dot.
        done_folder (str | None): Where finished files go, if they are to be counted.
        items (Collection[str] | None): What makes a group complete, where groups are looked at.
        locate (((name: str) -> tuple[str, str] | None) | None): Gives a name's group and item.
        holds_journals (bool): Whether journals live here too, whose files are no messages.

    Attributes:
        waiting (int): Messages that nobody has taken.
        in_progress (list[InHand]): Claimed files, by process and host.
        done (int | None): Messages in `done_folder`.
        producers (Producers): Who still puts.
        failed (bool): Whether consumers meet FAILED.
        ended (bool): Whether consumers meet DONE once no message waits.
        incomplete (dict[str, list[str]]): What each incomplete group misses.
        others (int): Files that are none of the queue's: of another extension, for instance.
        last_activity_s (float): When the folder last changed, in seconds since the epoch.

    Raises:
        OSError: The folder cannot be read.
    """

    kind = "folder"

    def __init__(
        self,
        path: str,
        extension: str = ".tsv",
        done_folder: str | None = None,
        items: Collection[str] | None = None,
        locate: Callable[[str], tuple[str, str] | None] | None = None,
        holds_journals: bool = False,
    ) -> None:
        from persistq._folder import names

        self.path = path
        self.others = 0
        self.last_activity_s = os.stat(path).st_mtime
        waiting: list[str] = []
        claims: list[tuple[str, int, str]] = []
        controls: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if name.endswith(extension):
                    if entry.is_file() and not (holds_journals and _JOURNAL.fullmatch(name)):
                        waiting.append(name)
                elif name.endswith(names.WIP) and (parts := names.parse_wip(name)):
                    claims.append((name, parts[0], parts[1]))
                elif name.endswith(names.CONTROL):
                    controls.append(name)
                else:
                    self.others += 1
        self.waiting = len(waiting)
        self.in_progress = self._look_at_claims(claims)
        self._look_at_producers(controls)
        self.done = None if done_folder is None else _count_messages(done_folder, extension)
        self.incomplete: dict[str, list[str]] = {}
        if items is not None and locate is not None:
            self._look_at_groups(waiting, frozenset(items), locate)

    def _look_at_claims(self, claims: list[tuple[str, int, str]]) -> list[InHand]:
        from persistq._folder import names

        if not claims:
            return []
        here = names.host_digits(_fs.machine_fqdn(), _fs.pid_namespace())
        starts_s: dict[int, float | None] = {}
        hands: dict[tuple[str, int, str], InHand] = {}
        for name, pid, host in sorted(claims):
            try:
                since_s = os.lstat(os.path.join(self.path, name)).st_ctime
            except FileNotFoundError:
                continue  # finished meanwhile
            state = ELSEWHERE
            if host == here:
                if pid not in starts_s:
                    starts_s[pid] = _fs.process_start_s(pid)
                state = _state(starts_s[pid], since_s)
            key = (host, pid, state)
            hand = hands.get(key)
            if hand is None:
                hand = hands[key] = InHand(pid, host, state, 0, since_s, [])
            hand.count += 1
            hand.since_s = min(hand.since_s, since_s)
            if len(hand.messages) < _SHOWN:
                hand.messages.append(os.fsencode(name))
        return [hands[key] for key in sorted(hands)]

    def _look_at_producers(self, controls: list[str]) -> None:
        from persistq._folder import control, names

        announced: dict[tuple[str, str, str], float] = {}
        finished = set()
        self.failed = by_hand = False
        for name in controls:
            path = os.path.join(self.path, name)
            found, producer = control.read(path)
            if not found:
                continue
            if name.endswith(names.FAILED) or (producer is None and name.endswith(names.HELO)):
                self.failed = True
            if producer is None:
                by_hand |= name.endswith(names.DONE)
            elif name.endswith(names.HELO):
                try:
                    announced[producer] = os.stat(path).st_mtime
                except FileNotFoundError:
                    continue
            else:
                finished.add(producer)
        self.producers = Producers(closed=len(finished))
        self.ended = by_hand or (bool(finished) and announced.keys() <= finished)
        fqdn = _fs.machine_fqdn() if announced.keys() - finished else ""
        for producer in announced.keys() - finished:
            start_s: float | None = float("-inf")
            if producer[0] == fqdn and producer[1].isdigit():
                start_s = _fs.process_start_s(int(producer[1]))
            if _state(start_s, announced[producer]) == ALIVE:
                self.producers.open += 1
            else:
                self.producers.dead += 1

    def _look_at_groups(
        self,
        waiting: list[str],
        items: frozenset[str],
        locate: Callable[[str], tuple[Hashable, Hashable] | None],
    ) -> None:
        from persistq._folder.grouped import Groups

        groups = Groups(locate, items)
        for name in waiting:
            groups.add(name)
        self.incomplete = {
            str(group): sorted(map(str, missing))
            for group, missing in groups.parts().items()
            if missing
        }

    @property
    def outstanding(self) -> int:
        """How many messages wait or are in progress."""
        return self.waiting + sum(hand.count for hand in self.in_progress)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is outstanding, and no producer failed, died or may put more."""
        producers = self.producers
        return not (
            self.outstanding
            or self.failed
            or ((producers.open or producers.dead) and not self.ended)
        )

    @property
    def is_queue(self) -> bool:
        """Whether there is anything of a folder queue at all."""
        counts = vars(self.producers).values()
        return bool(self.outstanding or self.failed or self.ended or any(counts))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "kind": self.kind,
            **vars(self),
            "outstanding": self.outstanding,
            "in_progress": [hand.as_dict() for hand in self.in_progress],
            "producers": vars(self.producers),
        }


def _state(start_s: float | None, since_s: float) -> str:
    if start_s is None or start_s > since_s + _fs.YOUNGER_S:
        return DEAD
    return ALIVE


def _count_messages(folder: str, extension: str) -> int:
    with os.scandir(folder) as entries:
        return sum(
            entry.name.endswith(extension) and not entry.name.startswith(".") for entry in entries
        )


def journal_prefixes(folder: str) -> list[str]:
    """Return the prefixes of the journals in a folder.

    Args:
        folder (str): The folder.

    Returns:
        list[str]: Sorted; none where it is a folder queue, or something else.

    Raises:
        OSError: The folder cannot be listed.
    """
    names = os.listdir(folder)
    likely = [name for name in names if "_PID" in name]  # of 100,000 files few are journals
    found = {match["prefix"] for match in map(_JOURNAL.fullmatch, likely) if match}
    if not any(name.endswith((".helo", ".done", ".failed", ".wip")) for name in names):
        # Just a name; a folder queue may have a message called so.
        found |= {match["prefix"] for match in map(_CARRIED.fullmatch, names) if match}
    return sorted(found)


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
        inside = sorted(entry.path for entry in entries if entry.is_dir() and entry.name[:1] != ".")
    return found + [
        folder for folder in inside if not _RUN.fullmatch(os.path.basename(folder)) and runs(folder)
    ]


def is_carrying(folder: str, prefix: str) -> bool:
    """Tell whether a run has taken over the work of the run before it.

    Args:
        folder (str): A run folder.
        prefix (str): The queue's prefix.
    """
    from persistq._journal.files import JournalNames

    names = JournalNames(folder, prefix)
    return bool(names.carried or names.requeued)


def current_runs(home: str) -> list[tuple[str, str]]:
    """Return the run folders that matter: those whose work no later run has taken over.

    Args:
        home (str): `root/<prefix>`.

    Returns:
        list[tuple[str, str]]: Path and prefix of the journals, the latest run first.
    """
    found = []
    taken_over: dict[str, bool] = {}  # whether the run behind has carried the work on, by prefix
    behind = 0
    for folder in runs(home):
        number = int(os.path.basename(folder)[len("run_") :])
        if number != behind - 1:
            # Whatever stood between may have been what carried this one's work, or forgot it.
            taken_over.clear()
        behind = number
        for prefix in journal_prefixes(folder):
            if not taken_over.get(prefix):
                found.append((folder, prefix))
            taken_over[prefix] = is_carrying(folder, prefix)
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
    found: list[Survey] = []
    latest = set()
    for folder, prefix in journals(path):
        journal = JournalSurvey(folder, prefix)
        # Of earlier runs only what they left undone is of interest.
        key = (os.path.dirname(folder), prefix)
        if key not in latest or not journal.is_finished or journal.alive:
            found.append(journal)
        latest.add(key)
    has_runs = bool(homes(path))
    queue = FolderSurvey(path, holds_journals=bool(found), **folder_options)
    if found:
        if queue.in_progress or any(vars(queue.producers).values()) or queue.failed:
            found.append(queue)
    elif not has_runs or queue.is_queue:
        found.append(queue)
    return found
