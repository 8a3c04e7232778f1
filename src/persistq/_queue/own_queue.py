"""Messages on the default carrier: as journal lines where these say all, pickled else.

A long line that is in a journal already is not sent: its place is (`lines`).
"""

from __future__ import annotations

import logging
import pickle
import time
from multiprocessing import util
from queue import Full

from persistq._carrier.carrier import pickle_message
from persistq._carrier.record import INLINE_BYTES
from persistq._journal.codec import Codec
from persistq._journal.lines import LineReader
from persistq._queue.orphans import OrphanWatch, is_worker
from persistq._sentinels import Sentinel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from persistq._carrier.carrier import Carrier
    from persistq._carrier.feeder import Feeder

logger = logging.getLogger("persistq")

_LOOK_S = 0.2

_STR = frozenset({str})
_WIRE = Codec()
_decode = _WIRE.decode

# In front of a journal line, or of the place of one. Else it is a pickle, which begins with another
# byte: also of what a user puts on `joinable_queue` himself.
_LINE, _PLACE = b"L", b"P"
_LINE_BYTE, _PLACE_BYTE = _LINE[0], _PLACE[0]


class OwnQueue:
    """The default carrier, whose users may be killed at any moment.

    Args:
        carrier (Carrier): The carrier.
        is_plain (bool): Whether journal lines say exactly what messages are: not so where
            formatters or converters are given.
    """

    is_first_in_first_out = True
    crosses_processes = True
    largest_line = INLINE_BYTES - len(_LINE)

    def __init__(self, carrier: Carrier, is_plain: bool) -> None:
        self.carrier = carrier
        self.number_of_workers = 1
        self._is_plain = is_plain
        self._watch: OrphanWatch | None = None
        self._lines = LineReader()
        # A call less for each message.
        self.put = carrier.put_bytes
        self.task_done = carrier.task_done
        self.join = carrier.join

    def watch_for_orphans(self) -> None:
        """Make a waiting `get` return None when this worker's parent has died."""
        if (self._watch is None or not self._watch.is_alive()) and is_worker():
            self._watch = OrphanWatch(self.carrier.wake)

    def check_put(self) -> None:
        """Do nothing: it takes messages at any time."""

    def pack(self, message: Any, line: bytes | None) -> bytes:
        """Return what travels: the message as it is at this moment.

        Args:
            message (Any): A message.
            line (bytes | None): Its journal line, where that is known.

        Returns:
            bytes: What `put` takes.

        Raises:
            TypeError: The message cannot be pickled.
        """
        if (type(message) is str and self._is_plain) or self._is_said_by_line(message):
            return _LINE + (_WIRE.encode(message) if line is None else line)
        try:
            return pickle_message(message)
        except Exception as error:
            kind = type(message)
            name = f"{kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
            raise TypeError(
                f"the message is a {name} that cannot be pickled ({error}); expected one that can "
                "be sent to another process. Put what it is made from (a path, a key) and make "
                "it in the worker, or use queue.Queue() and threads."
            ) from error

    def _is_said_by_line(self, message: Any) -> bool:
        # A line brings back a str, but not a subclass of one, nor what a formatter has changed.
        kind = type(message)
        return self._is_plain and (
            kind is str or (kind is tuple and _STR.issuperset(map(type, message)))
        )

    def can_refer(self, message: Any, line: bytes, longest_place: int) -> bool:
        """Tell whether the place of its journal line had better travel for a message.

        Args:
            message (Any): A message.
            line (bytes): Its journal line.
            longest_place (int): How long its place may be.

        Returns:
            bool: False where the line is short enough to travel, or the place too long.
        """
        return len(line) > self.largest_line >= longest_place and self._is_said_by_line(message)

    def pack_place(self, place: bytes) -> bytes:
        """Return what travels for a message whose line is at a place of a journal.

        Args:
            place (bytes): From `lines.place_of`.

        Returns:
            bytes: What `put` takes.
        """
        return _PLACE + place

    def put_sentinel(
        self, sentinel: Sentinel, block: bool = True, timeout: float | None = None
    ) -> None:
        """Put a sentinel, which is no task, and for which there is always room."""
        self.carrier.put_notice(pickle.dumps(sentinel))

    def put_many(
        self, payloads: Sequence[Any], block: bool = True, timeout: float | None = None
    ) -> tuple[int, BaseException | None]:
        """Put several; timeout in seconds, for all of them.

        Returns:
            tuple[int, BaseException | None]: How many the carrier took, from the first on, and
            why it took no more.
        """
        try:
            count, error = self.carrier.send_many(payloads, block, timeout)
        except BaseException as error:
            return 0, error
        return count, error if error is not None or count == len(payloads) else Full()

    def get(
        self, block: bool = True, timeout: float | None = None
    ) -> tuple[Any, bytes | None] | None:
        """Take the next message or sentinel; timeout in seconds.

        Returns:
            tuple[Any, bytes | None] | None: The message, and its journal line where that is what
            travelled; None when this process was woken to look around.

        Raises:
            queue.Empty: Nothing came within the time.
        """
        data = self.carrier.get_bytes(block, timeout)
        if data is None:
            return None
        kind = data[0]
        if kind == _LINE_BYTE:
            line = data[1:]
            return _decode(line), line
        if kind == _PLACE_BYTE:
            line = self._lines.read(data[1:])
            return _decode(line), line
        return pickle.loads(data), None

    def leave_unread_at_exit(self, is_read: Callable[[], bool]) -> None:
        """Let this process end though nobody takes what is left; the journal has it.

        A multiprocessing queue waits at the interpreter's exit until all is in the pipe: for ever,
        where the workers have died and more was put than the pipe holds.

        Args:
            is_read (() -> bool): Whether somebody lives who may take messages.
        """
        # Behind the moment (0) at which multiprocessing has joined this process's children, and
        # before the one (-5) at which the carrier waits.
        util.Finalize(
            self.carrier, _leave_unread, args=(self.carrier._feeder, is_read), exitpriority=-4
        )

    def qsize(self) -> int:
        """Return the number of messages and sentinels that wait."""
        return self.carrier.qsize()

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        return self.carrier.empty()

    def full(self) -> bool:
        """Tell whether a put would have to wait."""
        return self.carrier.full()

    def __getstate__(self) -> dict[str, Any]:
        return {"carrier": self.carrier, "plain": self._is_plain, "workers": self.number_of_workers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        OwnQueue.__init__(self, state["carrier"], state["plain"])
        self.number_of_workers = state["workers"]


def _leave_unread(feeder: Feeder, is_read: Callable[[], bool]) -> None:
    if not util.is_exiting():
        return  # the carrier was garbage: its feeder sees to itself
    try:
        while feeder.records and is_read():
            time.sleep(_LOOK_S)
    except OSError as error:
        # Without its directory nobody can tell; and a process must be able to end.
        logger.warning("cannot look for workers: %s", error)
    if feeder.records:
        logger.warning(
            "%d messages are left that nobody takes: they are outstanding for the next run",
            len(feeder.records),
        )
        feeder.leave_at_exit()
