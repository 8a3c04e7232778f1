"""How a bounded queue keeps its bound although the holder of a slot may be killed.

A put takes a slot, a get frees it. Between taking a record and freeing its slot a reader may be
killed, as may a writer between taking a slot and writing. With a count of them alone the queue
would be narrower by one for ever, and one of size 1 dead. So it is not believed blindly: the pipe
itself says how many records it holds, and no kill can falsify that.
"""

from __future__ import annotations

import time
from collections import deque
from queue import Full

from persistq._carrier.counter import Counter
from persistq._carrier.pipe import has_room, records_in
from persistq._carrier.refusal import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sized
    from multiprocessing.context import BaseContext

    from persistq._carrier.counter import EventCounter, SemaphoreCounter

# How often a put that waits for a slot asks whether one was lost, and for how long the answer
# must have been yes.
_LOOK_S = 0.25
_LOST_AFTER_S = 1.0


class Slots:
    """The free slots of a bounded queue.

    Args:
        size (int): How many messages may wait.
        ctx (multiprocessing.context.BaseContext): Whose processes share them.
    """

    def __init__(self, size: int, ctx: BaseContext) -> None:
        self.__setstate__((size, Counter(size, ctx)))

    def __getstate__(self) -> tuple[int, EventCounter | SemaphoreCounter]:
        return self._size, self.number

    def __setstate__(self, state: tuple[int, EventCounter | SemaphoreCounter]) -> None:
        self._size, self.number = state
        self.free = self.number.up_by_one
        self._starved_since: float | None = None
        # One for each slot that was held for lost; a number would lose what two threads change
        # at once.
        self._taken_over: deque[None] = deque()

    def none_free(self) -> bool:
        """Return whether all slots are taken."""
        return self.number.is_zero()

    def take(self, fd: int, held: Sized, block: bool, timeout: float | None) -> None:
        """Take a free slot, or one that a killed process took with it.

        Args:
            fd (int): The pipe's write end.
            held (Sized): The records that this process's feeder holds.
            block (bool): Whether to wait for a slot.
            timeout (float | None): Seconds to wait; None waits for ever.

        Raises:
            queue.Full: None came free in time.
        """
        if self.number.down() and not self._is_surplus(fd):
            self._starved_since = None
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._was_lost(fd, held):
                self._taken_over.append(None)
                return
            wait_s = _LOOK_S
            if deadline is not None:
                wait_s = min(wait_s, deadline - time.monotonic())
            if not block or wait_s <= 0:
                raise refused(Full())
            if self.number.down_in_time(wait_s) and not self._is_surplus(fd):
                self._starved_since = None
                return

    def take_at_once(self, wanted: int) -> int:
        """Take as many of the wanted slots as are free, and return how many that were."""
        taken = 0
        while taken < wanted and self.number.down():
            taken += 1
        return taken

    def _is_surplus(self, fd: int) -> bool:
        """Return whether the slot just taken is one too many; then it is gone.

        There is one where a slot was held for lost whose holder was only stopped (SIGSTOP).
        """
        if self._taken_over and records_in(fd) >= self._size:
            try:
                self._taken_over.pop()
            except IndexError:
                return False  # another thread has met it
            return True
        return False

    def _was_lost(self, fd: int, held: Sized) -> bool:
        """Return whether no slot is free though too few records have waited for a while.

        A live process holds a slot without a record for microseconds only, unless the pipe has
        no room: then records wait in feeders, and nothing is concluded. A wrong answer lets one
        message too many wait, for a time.
        """
        if records_in(fd) + len(held) >= self._size or not has_room(fd):
            self._starved_since = None
            return False
        now = time.monotonic()
        since = self._starved_since  # another thread may change it at any moment
        if since is None:
            self._starved_since = since = now
        if now - since < _LOST_AFTER_S:
            return False
        self._starved_since = None
        return True
