"""What is true of the journals of one prefix in a folder right now."""

from __future__ import annotations

import os
import re

from persistq._journal.locks import Looker
from persistq._survey.hand import ALIVE, DEAD, SHOWN, TRIES, InHand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any
# A journal's name. The prefix may hold anything.
JOURNAL = re.compile(
    r"(?P<prefix>.+)_(?:requested|completed|started)_PID\d+(?:-\d+)?"
    r"(?:_requeued|_recovered(?:-\d+)?)?\.tsv",
    re.DOTALL,
)


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
        for number in range(TRIES):
            try:
                self._look()
            except FileNotFoundError:
                # A worker has ended, or carried work is being requeued, and a file has gone.
                if number == TRIES - 1 or not os.path.isdir(path):
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
        from persistq._journal.outstanding import Journals, count

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
        totals = count(Journals(names.requested, names.completed))
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
                self.in_progress.append(InHand(pid, "", state, len(lines), since_s, lines[:SHOWN]))

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
    from persistq._journal.reading import Reader

    found: list[bytes] = []
    reader = Reader(path)
    try:
        while (block := reader.read()) is not None:
            if not wanted.isdisjoint(block.keys):
                found += [key for key in block.keys if key in wanted]
    finally:
        reader.close()
    return found
