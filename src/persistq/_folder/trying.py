"""What becomes of a file with which an attempt failed: tried again so many times, then set aside.

What is on disk at each step, and so what a kill leaves:

1. The file, claimed: reclaimed after the claimer's death, which counts as one attempt.
2. A note of how often it was begun, written before the file waits again. Killed here: claimed
   still, and reclaimed as before, so one attempt is counted twice.
3. The file, waiting again; or set aside, as `failing` does it.
"""

from __future__ import annotations

import os

from persistq._folder import notes
from persistq._folder.readable import ReadableFolderQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TryingReader(ReadableFolderQueue):
    """A consumer that tries again what failed, and knows what it has set aside.

    Args:
        path (str): The queue's folder.
        message_extension (str): As for any folder queue.
        **options (Any): As for any folder queue.

    Attributes:
        set_aside (list[tuple[str, str]]): Name and reason of each file that was set aside: by
            this queue's attempts, or as what had killed its workers.
    """

    def __init__(self, path: str, message_extension: str, **options: Any) -> None:
        self.set_aside: list[tuple[str, str]] = []
        super().__init__(path, message_extension, **options)

    def name_of(self, path: str) -> str:
        """Give a claimed file's own name."""
        return os.path.basename(self.original_filename_from_wip(path))

    def attempts(self, path: str) -> int:
        """Tell how often a claimed file was begun before.

        To be asked before the work begins: what is noted speaks of the file as it was then, and
        the work may write to it.
        """
        note = notes.read(self.path, self.name_of(path), path)
        return note.attempts if note is not None else 0

    def attempt_failed(
        self, path: str, reason: str, attempts: int, max_attempts: int, delay: float
    ) -> bool:
        """Put a claimed file back, or set it aside where that was one attempt too many.

        One that cannot be put back, since a file of its name waits already, is set aside, too.

        Args:
            path (str): Path of the claimed file.
            reason (str): Why the attempt failed, in one line.
            attempts (int): How often it was begun, this time included.
            max_attempts (int): How often it may be.
            delay (float): Milliseconds in which nobody is handed the file.

        Returns:
            bool: Whether it waits again.

        Raises:
            FileNotFoundError: The claimed file is gone.
            OSError: The file system refuses; the file stays claimed.
        """
        name = self.name_of(path)
        if attempts < max_attempts and not os.path.lexists(os.path.join(self.path, name)):
            said = {"attempts": attempts, **notes.due_in(delay)}
            self._noted.add(name)
            notes.write(self.path, name, path, self._staged(self.path), said)
            try:
                self._put_back(path)
                return True
            except FileExistsError:
                pass  # it came this moment
        self._set_aside(path, reason, attempts)
        return False

    def _set_aside(self, path: str, reason: str, attempts: int | None = None) -> None:
        super()._set_aside(path, reason, attempts)
        self.set_aside.append((self.name_of(path), reason))

    def put_back_unstarted(self, started: set[str]) -> None:
        """Put back what an interrupted `get` has claimed, and nobody was handed.

        Args:
            started (set[str]): Paths of the claimed files that somebody has in hand.
        """
        for path in [*self._member.claimed]:
            if path not in started:
                try:
                    self.release(path)
                except FileNotFoundError:
                    pass  # put back already, or finished

    def lease_fd(self) -> int | None:
        """Give the descriptor of the lease, for children that are to hold it; None without one."""
        lease = self._member.lease
        return lease.fileno() if lease is not None else None
