"""How many tasks are unfinished: put on the queue, and not yet acknowledged.

A number that processes share would need a lock, or a call of the system for each message. So each
thread counts its own two on the board, what it has added and what it has finished, with single
stores that a kill leaves whole; whoever wants to know adds them up.
"""

from __future__ import annotations

from collections import deque

from persistq._fs import watch_forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from persistq._carrier.board import Board


class Tasks:
    """The unfinished tasks of one carrier, as one process counts them.

    Args:
        board (Board): What the processes of the carrier share.

    Attributes:
        took ((None) -> None): Says that this process has taken a message.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._local = board.local  # less to look up for each message
        # One entry for each message that was taken here and not finished. A number would be shared
        # by threads, and lose what two of them change at once; these are one step each.
        self._unfinished_here: deque[None] = deque()
        self.took: Callable[[None], None] = self._unfinished_here.append
        watch_forks(self)

    def _after_fork(self) -> None:
        """Begin with nothing taken: what a fork has brought is the parent's."""
        self._unfinished_here.clear()
        self._local = self._board.local

    def add(self, count: int = 1) -> None:
        """Count tasks, before their messages can be taken."""
        try:
            self._local.numbers[0] += count
        except AttributeError:
            self._board.numbers()[0] += count

    def finish(self) -> None:
        """Count one task as finished.

        Raises:
            ValueError: There was none left.
        """
        # For each message that was taken here there is a task. Beyond that, as for who completes
        # what others took, all have to be asked.
        try:
            numbers = self._local.numbers
        except AttributeError:
            numbers = self._board.numbers()
        try:
            self._unfinished_here.pop()
        except IndexError:
            if self._board.unfinished() <= 0:
                raise ValueError("task_done() called too many times") from None
        numbers[1] += 1

    def trust_the_taker(self) -> None:
        """Keep no account of what is taken here: who takes does, and counts on the board."""
        self.took = _forget
        self._unfinished_here.clear()

    def none_left(self) -> bool:
        """Tell whether none is unfinished."""
        return self._board.unfinished() <= 0


def _forget(_: None) -> None:
    """Take no note."""
