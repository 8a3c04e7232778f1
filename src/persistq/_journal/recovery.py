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
    STARTED,
    JournalFile,
    RunFiles,
    has_recovered_files,
    is_own,
    process_files,
    process_id,
    recovered_files,
)
from persistq._journal.outstanding import Journals, outstanding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("persistq")

# A living worker that has just taken a message off the queue needs far less than this to record
# that it has, if it is not stopped.
_SETTLE_S = 1.0
_LOOK_S = 0.02


class Casualties:
    """The dead workers of a run, found in its directory.

    Args:
        directory (str): The directory of the run.
        prefix (str): The queue's prefix.
        files (() -> RunFiles): Lists the run's files.

    Attributes:
        lines (list[bytes]): What they had started and not completed.
        has_living (bool): Whether another process holds a started file.
        has_deaths (bool): Whether any worker has died, also one whose work was taken over.
    """

    def __init__(self, directory: str, prefix: str, files: Callable[[], RunFiles]) -> None:
        self._files = files
        self.lines: list[bytes] = []
        self._dead: list[str] = []
        self._living: list[tuple[int, str]] = []
        self.has_living = False
        dead = []
        for pid, path in process_files(directory, prefix, STARTED):
            if locks.is_held(path) is not False:
                self._living.append((pid, path))
                self.has_living |= not is_own(path)
            else:
                self._dead.append(path)
                dead.append((pid, path))
        # Listed behind that, so all that the dead have ever completed is there.
        begun = files().begun if dead else []
        for pid, path in dead:
            completed = _of_process(begun, pid, is_living=False)
            self.lines += outstanding(Journals([path], completed)).lines
        # What the dead have left is the evidence that they died, however long ago.
        self.has_deaths = bool(self._dead) or has_recovered_files(directory, prefix)
        if len(set(self.lines)) < len(self.lines):
            self._drop_what_two_had()

    def _drop_what_two_had(self) -> None:
        # Killed while it took over, a worker leaves a message in two files. Done twice, it would
        # be acknowledged once too often.
        left = self._outstanding()
        lines, self.lines = self.lines, []
        seen: Counter[bytes] = Counter()
        for line in lines:
            seen[line] += 1
            if seen[line] <= max(left[line], 1):
                self.lines.append(line)

    def lost_on_the_way(self) -> Counter[bytes]:
        """Return messages that are outstanding, and in no living worker's hand.

        Once all work has been taken off the queue, these were in a dead worker's: it took them,
        and died before it could record that, or has recorded it.

        Returns:
            Counter[bytes]: Their lines.

        Raises:
            OSError: A journal cannot be read.
        """
        return self._outstanding() - self.in_hand()

    def _outstanding(self) -> Counter[bytes]:
        # Listed anew: whoever has completed something since may have done so in a new file.
        files = self._files()
        return Counter(outstanding(Journals(files.requested, files.completed)).lines)

    def in_hand(self) -> Counter[bytes]:
        """Return what the living have started and not completed."""
        lines: Counter[bytes] = Counter()
        begun = self._files().begun
        for pid, path in self._living:
            try:
                completed = _of_process(begun, pid, is_living=True)
                lines.update(outstanding(Journals([path], completed)).lines)
            except FileNotFoundError:
                pass  # it has ended since, with nothing in hand
        return lines

    def add_lost_on_the_way(self) -> None:
        """Add messages that a worker took off the queue, dying before it could record that.

        Only for when all work has been taken off the queue.

        Raises:
            OSError: A journal cannot be read.
        """
        deadline_s = time.monotonic() + _SETTLE_S
        lost = self.lost_on_the_way() - Counter(self.lines)
        while lost and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
            lost &= self.lost_on_the_way() - Counter(self.lines)
        self.lines += lost.elements()

    def put_aside(self) -> None:
        """Rename the dead workers' files, so that nobody takes over from them again."""
        for path in self._dead:
            target, number = path[: -len(".tsv")] + "_recovered.tsv", 1
            while os.path.lexists(target):
                number += 1
                target = f"{path[: -len('.tsv')]}_recovered-{number}.tsv"
            os.rename(path, target)
        self._dead = []


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


def _of_process(completed: list[str], pid: int, is_living: bool) -> list[str]:
    # An id may have been a dead worker's, and be a living one's now; that of a process of an
    # earlier run is not among these.
    return [
        path
        for path in completed
        if process_id(path) == pid and (locks.is_held(path) is not False) is is_living
    ]


def take_over(
    directory: str,
    prefix: str,
    started: JournalFile,
    files: Callable[[], RunFiles],
    is_all_taken: bool,
) -> list[bytes]:
    """Take over what dead workers of this run had in hand.

    Args:
        directory (str): The directory of the run.
        prefix (str): The queue's prefix.
        started (JournalFile): The taker's own record of what it has in hand.
        files (() -> RunFiles): Lists the run's files.
        is_all_taken (bool): Whether all that was requested has been taken off the queue.

    Returns:
        list[bytes]: Journal lines. Usually none, since nobody died.

    Raises:
        OSError: The directory or a journal cannot be read.
    """
    with _fs.folder_lock(directory):
        casualties = Casualties(directory, prefix, files)
        if not casualties.has_deaths:
            return []
        if is_all_taken:
            casualties.add_lost_on_the_way()
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
    paths = [path for _, path in process_files(directory, prefix, STARTED)]
    over = [path for path in paths if locks.is_held(path) is not True]
    if len(over) == len(paths):
        # Nobody of this run is there yet, so these tell of deaths in earlier ones.
        over += recovered_files(directory, prefix)
    for path in over:
        os.unlink(path)
