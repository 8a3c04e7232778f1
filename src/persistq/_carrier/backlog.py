"""What waits in a feeder besides records: messages still to be read from a source, and an end."""

from __future__ import annotations

import os

from persistq._carrier.pipe import RECORDS_PER_WRITE
from persistq._carrier.record import WAKE
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from persistq._carrier.board import Board
    from persistq._carrier.spill import Spill


class Source:
    """Messages that are read only when they are about to be written.

    Args:
        count (int): How many there are; so many are counted as tasks already.
        source (Iterator[list[bytes]]): Gives them, some at a time.
        spill (Spill): Where the large ones go.
        count_down (() -> None): Lowers the number of tasks by one.
    """

    def __init__(
        self,
        count: int,
        source: Iterator[list[bytes]],
        spill: Spill,
        count_down: Callable[[], None],
    ) -> None:
        self.left = count
        self._source = source
        self._spill = spill
        self._count_down = count_down
        self._records: list[bytes] = []
        self._at = 0

    def batch(self, largest: int) -> list[bytes]:
        """Return the next records, none at the end.

        Args:
            largest (int): How many at most.

        Raises:
            PersistqError: There are fewer than was said.
            BaseException: What the source raises. Nothing more can be read from it then.
        """
        while self._at >= len(self._records):
            if not self.left:
                return []
            self._records = []
            self._at = 0
            messages = next(self._source, None)
            if messages is None:
                raise PersistqError(f"{self.left} messages fewer came than were announced")
            self._records = self._spill.records_of(messages[: self.left])
        return self._records[self._at : self._at + largest]

    def drop(self, number: int) -> None:
        """Forget so many records: they are sent."""
        self._at += number
        self.left -= number

    def give_up(self) -> None:
        """Count what is left as tasks no more."""
        left, self.left = self.left, 0
        records, self._records = self._records[self._at :], []
        for _ in range(left):
            self._count_down()
        self._spill.discard_records(records)


class Ending:
    """The news that this process has put all it will.

    Args:
        kind (bytes): What is posted.
        wakes (int): How many readers are to look for it.
    """

    left = 0

    def __init__(self, kind: bytes, wakes: int) -> None:
        self._kind = kind
        self._wakes = wakes

    def tell(self, board: Board, fd: int) -> None:
        """Post it, and wake readers; never wait.

        Args:
            board (Board): Where it is posted.
            fd (int): The pipe's write end.

        Raises:
            OSError: It could not be posted.
        """
        # Killed before this, the process has not ended, but died. Killed behind it, the readers
        # that sleep are not woken by it: who looks for the dead wakes them.
        board.post(self._kind)
        wakes = self._wakes
        while wakes > 0:
            number = min(wakes, RECORDS_PER_WRITE)
            try:
                os.write(fd, WAKE * number)
            except BlockingIOError:
                return  # the pipe is full: there are readers that are awake, or will be
            wakes -= number
