"""The worker's side of a PersistentQueue: what one process takes, begins, and completes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from queue import Empty

from persistq import _fs
from persistq._journal.files import COMPLETED, STARTED, JournalFile, has_recovered_files
from persistq._journal.recovery import take_over
from persistq._queue.orphans import is_orphan
from persistq._sentinels import DONE, FAILED, Sentinel
from persistq.exceptions import UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.files import RunFiles
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

# How long a message may be on its way from another process, before what the queue counts as
# waiting is taken to be lost with that process.
_IN_FLIGHT_S = 1.0


class Consumer:
    """What one copy of a queue takes off it.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns messages into journal lines, and back.
        directory (str | None): Directory of the journals; None keeps none.
        prefix (str): The queue's prefix.
        fsync (bool): Whether a completion is to survive a power cut.
        record_started (bool): Whether to record what is begun, for the living to take over.
        number_of_producers (int): How many `DONE`s make a last one.
        files (() -> RunFiles): The files of this run.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        directory: str | None,
        prefix: str,
        fsync: bool,
        record_started: bool,
        number_of_producers: int,
        files: Callable[[], RunFiles],
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._directory = directory
        self._prefix = prefix
        self._number_of_producers = number_of_producers
        self._files = files
        self.completed: JournalFile | None = None
        self._started: JournalFile | None = None
        if directory is not None:
            self.completed = JournalFile(directory, prefix, COMPLETED, fsync)
            if record_started:
                # Not synced: after a power cut there is nobody to take over.
                self._started = JournalFile(directory, prefix, STARTED, False)
        self._begin()
        _fs.watch_forks(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._is_announced = False
        self._dones_met = 0
        self._ends_owed = 0  # last DONEs that were met, and not yet handed out
        self._taken_over: deque[bytes] = deque()
        self._taken = self._finished = 0
        self._last: tuple[Any, bytes | None] = (None, None)

    def _after_fork(self) -> None:
        """In a forked child: be a consumer of its own."""
        self._begin()

    # --- taking ---------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take a message, DONE or FAILED; timeout in seconds. See `PersistentQueue.get`."""
        if self._ends_owed:
            message = self._get_at_the_end()
            if message is not None:
                return message[0]
        if not self._is_announced:
            self._announce()
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                taken = self._transport.get(block, timeout)
            except Empty:
                if self._transport.crosses_processes and is_orphan():
                    raise self._orphaned() from None
                raise
            if taken is None:
                self._look_around()
            elif type(taken[0]) is not Sentinel:
                self._taken += 1
                self._last = taken
                if self._started is not None:
                    self._record_started(taken)
                return taken[0]
            else:
                if taken[0] is FAILED:
                    return FAILED
                if self._is_last_done():
                    message = self._get_at_the_end()
                    if message is not None:
                        return message[0]
            if deadline_s is not None:
                timeout = max(deadline_s - time.monotonic(), 0)

    def _announce(self) -> None:
        """Before the first message: be seen to live, and watch that the parent does."""
        self._is_announced = True
        self._transport.watch_for_orphans()
        if self._started is not None:
            try:
                self._started.open()
            except OSError as error:
                logger.warning("cannot record what is begun: %s", error)

    def _record_started(self, taken: tuple[Any, bytes | None]) -> None:
        message, line = taken
        try:
            if line is None:
                line = self._codec.encode(message)
                self._last = (message, line)
            # Killed before this: the message was taken, and is in no living worker's hand.
            self._started.append(line + b"\n")  # type: ignore[union-attr]
        except Exception as error:
            # Whatever it is, the message is here, and its work can be done.
            logger.warning("cannot record that %r was begun: %s", message, error)

    def _look_around(self) -> None:
        if is_orphan():
            try:
                waiting = self._transport.qsize()
            except NotImplementedError:
                waiting = 0  # it was empty when this process woke
            if waiting == 0:
                raise self._orphaned()

    def _orphaned(self) -> UpstreamFailureError:
        return UpstreamFailureError(
            f"queue {self._prefix!r}: the process that started this worker has died, and the "
            "queue is empty, so there will be no more work. Start the job again: what was not "
            "completed is outstanding."
        )

    def _is_last_done(self) -> bool:
        # Each producer puts a DONE for each worker, behind its own work. Whichever workers take
        # them, the last one that is taken stands behind all work of all producers.
        with self._lock:
            self._dones_met += 1
            if self._dones_met < self._number_of_producers:
                return False
            self._dones_met = 0
            self._ends_owed += 1
            return True

    def _get_at_the_end(self) -> tuple[Any] | None:
        """Return what dead workers had in hand, then DONE; None where no DONE is owed."""
        with self._lock:
            while self._ends_owed:
                if not self._taken_over:
                    self._taken_over.extend(self._take_over())
                if not self._taken_over:
                    self._ends_owed -= 1
                    if self._taken == self._finished:
                        self._stop_recording()
                    return (DONE,)
                line = self._taken_over.popleft()
                try:
                    message = self._codec.decode(line)
                except Exception as error:
                    logger.error("%r, of a dead worker, is left outstanding: %s", line, error)
                    continue
                self._taken += 1
                self._last = (message, line)
                return (message,)
        return None

    def _take_over(self) -> list[bytes]:
        if self._started is None or self._directory is None:
            return []
        # Of one producer, the DONE stands behind all work, so all has been taken by somebody.
        is_all_taken = self._number_of_producers == 1 and self._transport.is_first_in_first_out
        try:
            return take_over(
                self._directory, self._prefix, self._started, self._files, is_all_taken
            )
        except OSError as error:
            logger.warning("cannot look for workers that died: %s", error)
            return []

    # --- completing -----------------------------------------------------------------------

    def task_done(self, obj: Any) -> None:
        """Record that a message is done, and tell the queue. See `PersistentQueue.task_done`."""
        if obj is DONE or obj is FAILED:
            return
        if self.completed is None:
            self._transport.task_done()
            return
        message, known = self._last
        # What was taken last is done as it was then, even if it has been changed since.
        line = known if message is obj and known is not None else self._codec.encode(obj)
        # Killed before this: the work is done again by the next run. Behind it: it is not.
        self.completed.append(line + b"\n")
        try:
            self._transport.task_done()
        except ValueError:
            if not self._has_been_taken_over():
                self.completed.withdraw([line])
                raise
        self._finished += 1

    def _has_been_taken_over(self) -> bool:
        # A worker that was stopped for long may have been held for dead, and its message done by
        # another, too. That is nothing to fail for: done twice is what is promised at worst.
        if self._started is None or self._directory is None:
            return False
        try:
            return has_recovered_files(self._directory, self._prefix)
        except OSError:
            return False

    def mark_all_done(self) -> None:
        """Complete what is left. See `PersistentQueue.mark_all_work_done`."""
        sentinels = []
        try:
            while True:
                try:
                    taken = self._take_what_is_left()
                except Empty:
                    break
                if taken is None:
                    continue
                if type(taken[0]) is Sentinel:
                    sentinels.append(taken[0])
                else:
                    self._taken += 1
                    self.task_done(taken[0])
        finally:
            for sentinel in sentinels:
                self._transport.put_sentinel(sentinel)

    def _take_what_is_left(self) -> tuple[Any, bytes | None] | None:
        try:
            return self._transport.get(False)
        except Empty:
            try:
                is_one_in_flight = self._transport.qsize() > 0
            except NotImplementedError:
                is_one_in_flight = True
            if not is_one_in_flight:
                raise
            return self._transport.get(True, _IN_FLIGHT_S)

    def _stop_recording(self) -> None:
        """Nothing is in hand: a file that stayed would look like that of a killed worker."""
        if self._started is not None:
            self._started.remove()
            self._is_announced = False
            self._taken = self._finished = 0

    def dispose(self) -> None:
        """Close the files. What is not completed by now is given up, for the next run to do."""
        others = [t for t in threading.enumerate() if not t.daemon]
        if self._taken == self._finished or others == [threading.current_thread()]:
            self._stop_recording()
        if self.completed is not None:
            self.completed.close()
