"""What processes of this run that died had in hand, for the living to take over.

With `record_started`, a worker writes each message to `<prefix>_started_PID<pid>.tsv` before it is
handed out, and holds that file locked while it lives. A started file that nobody holds is a dead
worker's; what it started and did not complete is taken over by exactly one of the living, under
the folder's lock: first the lines go to the taker's own started file, then the dead worker's is
put aside, as `..._recovered.tsv`.

Killed between the two steps: both files name the messages, so they may be done twice in this run.
Killed before: nothing has happened. Killed behind: they are in the taker's hand, and so the next
one's to take over. Whatever happens, the journals of requested and completed work do not change.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter

from persistq import _fs
from persistq._journal import locks
from persistq._journal.files import (
    COMPLETED,
    STARTED,
    JournalFile,
    is_own,
    process_files,
)
from persistq._journal.outstanding import outstanding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("persistq")

# A living worker that has just taken a message off the queue needs this long, and far less, to
# record that it has.
_SETTLE_S = 0.05


class Casualties:
    """The dead workers of a run, found in its directory.

    Args:
        directory (str): The directory of the run.
        prefix (str): The queue's prefix.

    Attributes:
        lines (list[bytes]): What they had started and not completed.
        has_living (bool): Whether another process holds a started file.
    """

    def __init__(self, directory: str, prefix: str) -> None:
        self._directory = directory
        self._prefix = prefix
        self.lines: list[bytes] = []
        self._dead: list[str] = []
        self._living: list[tuple[int, str]] = []
        self.has_living = False
        for pid, path in process_files(directory, prefix, STARTED):
            if locks.is_held(path) is not False:
                self._living.append((pid, path))
                self.has_living |= not is_own(path)
            else:
                self._dead.append(path)
                self.lines += outstanding([path], self._completed(pid, by_living=False)).lines

    def __bool__(self) -> bool:
        return bool(self._dead)

    def _completed(self, pid: int, by_living: bool) -> list[str]:
        # An id may have been a dead worker's, and be a living one's now.
        files = process_files(self._directory, self._prefix, COMPLETED)
        return [
            path
            for p, path in files
            if p == pid and (locks.is_held(path) is not False) is by_living
        ]

    def add_lost_on_the_way(self, requested: Sequence[str]) -> None:
        """Add messages that a worker took off the queue, dying before it could record that.

        Only for when all work has been taken off the queue: then what is outstanding, and in no
        living worker's hand, was in a dead one's.

        Args:
            requested (Sequence[str]): Paths of all that was requested in this run.

        Raises:
            OSError: A journal cannot be read.
        """
        lost = self._outstanding_in_no_hand(requested)
        if lost - Counter(self.lines):
            time.sleep(_SETTLE_S)
            lost &= self._outstanding_in_no_hand(requested)
            self.lines += (lost - Counter(self.lines)).elements()

    def _outstanding_in_no_hand(self, requested: Sequence[str]) -> Counter[bytes]:
        completed = [path for _, path in process_files(self._directory, self._prefix, COMPLETED)]
        left = Counter(outstanding(requested, completed).lines)
        for pid, path in self._living:
            try:
                left -= Counter(outstanding([path], self._completed(pid, by_living=True)).lines)
            except FileNotFoundError:
                pass  # it has ended since, with nothing in hand
        return left

    def put_aside(self) -> None:
        """Rename the dead workers' files, so that nobody takes over from them again."""
        for path in self._dead:
            if os.path.getsize(path) == 0:
                os.unlink(path)
                continue
            target, number = path[: -len(".tsv")] + "_recovered.tsv", 1
            while os.path.lexists(target):
                number += 1
                target = f"{path[: -len('.tsv')]}_recovered-{number}.tsv"
            os.rename(path, target)


def has_living_workers(directory: str, prefix: str) -> bool:
    """Tell whether another process takes messages, or may.

    Args:
        directory (str): The directory of the run.
        prefix (str): The queue's prefix.

    Returns:
        bool: True if so.
    """
    return any(
        locks.is_held(path) is not False and not is_own(path)
        for _, path in process_files(directory, prefix, STARTED)
    )


def take_over(
    directory: str,
    prefix: str,
    started: JournalFile,
    requested: Sequence[str] | None,
) -> list[bytes]:
    """Take over what dead workers of this run had in hand.

    Args:
        directory (str): The directory of the run.
        prefix (str): The queue's prefix.
        started (JournalFile): The taker's own record of what it has in hand.
        requested (Sequence[str] | None): Paths of all that was requested in this run, where all of
            it has been taken off the queue; else None.

    Returns:
        list[bytes]: Journal lines. Usually none, since nobody died.

    Raises:
        OSError: The directory or a journal cannot be read.
    """
    with _fs.folder_lock(directory):
        casualties = Casualties(directory, prefix)
        if not casualties:
            return []
        if requested is not None:
            casualties.add_lost_on_the_way(requested)
        lines = casualties.lines
        if lines:
            logger.warning(
                "queue %r: %d messages taken over from workers that died", prefix, len(lines)
            )
            try:
                started.append(b"".join([line + b"\n" for line in lines]))
            except OSError as error:
                logger.warning("cannot record what was taken over: %s", error)
        casualties.put_aside()
        return lines


def remove_started_files(directory: str, prefix: str) -> None:
    """Remove the started files of an earlier run in this directory: requeueing replaces them.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Raises:
        OSError: The directory cannot be listed, or a file not be removed.
    """
    for _, path in process_files(directory, prefix, STARTED):
        if locks.is_held(path) is not True:
            os.unlink(path)
