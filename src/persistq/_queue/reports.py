"""What comes back from workers that keep no journal, and how it is recorded.

On a carrier that `reports_back`, a worker says what came of each message, wherever it is, and a
thread of each copy that puts writes that to its own journal. A message is done when that stands
there. Killed between a report and its record, or with the carrier: the message is outstanding, and
comes again, as it would if its worker had been killed before `task_done`.
"""

from __future__ import annotations

import logging
import threading
import time

from persistq import _fs
from persistq._queue.progress import Looking
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._journal.codec import Codec
    from persistq._journal.journal_file import JournalFile
    from persistq._journal.members import Membership
    from persistq._queue.failing import Failing
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

DONE, FAILED, LOST = "done", "failed", "lost"

_TAKE_S = 0.5
_LOOK_S = 0.05


class Reports:
    """What one copy of a queue records for others.

    Args:
        transport (Transport): What carries the reports.
        codec (Codec): What turns journal lines into messages.
        membership (Membership): The copy's part in the run.
        completed (JournalFile): Where it records what is done.
        failing (Failing): What sets messages aside.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        membership: Membership,
        completed: JournalFile,
        failing: Failing,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._completed = completed
        self._failing = failing
        self._looking = Looking(membership)
        self._begin()
        _fs.watch_forks(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._is_over = threading.Event()

    def _after_fork(self) -> None:
        """In a forked child: there is no such thread."""
        self._begin()

    def begin(self) -> None:
        """Record what comes from now on, until `end`."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._record_all, name="persistq-reports", daemon=True
                )
                self._thread.start()

    def end(self) -> None:
        """Record nothing more. What comes later is outstanding."""
        self._is_over.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_TAKE_S * 2)

    def _record_all(self) -> None:
        try:
            while not self._is_over.is_set():
                report = self._transport.take_report(_TAKE_S)
                if report is not None:
                    self._record(*report)
        except Exception as error:
            self._error = error
            logger.error("what workers report is recorded no more: %s", error)

    def _record(self, kind: str, line: bytes, why: str) -> None:
        if kind == DONE:
            self._completed.append(line + b"\n")
        elif kind == FAILED:
            self._failing.failed.append(self._failing.record(line, why) + b"\n")
        elif kind == LOST:
            logger.warning("%r was lost with its worker: %s", line, why)
            # Killed behind the count: it is outstanding, and has met this death.
            if self._failing.count_attempt(line, why):
                self._transport.put(self._transport.pack(self._codec.decode(line), line))
        else:
            logger.error("a report that is %r, of %r: expected done, failed or lost", kind, line)

    def join(self, timeout: float | None) -> bool:
        """Wait until all that was put is recorded as done, or set aside.

        Args:
            timeout (float | None): Seconds to wait; None waits for ever.

        Returns:
            bool: Whether it is.

        Raises:
            PersistqError: Nothing is recorded any more, since the carrier is lost, or the disk.
        """
        self.begin()
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while self._looking.look().outstanding:
            if self._error is not None:
                raise PersistqError(
                    "what workers report cannot be had or recorded any more "
                    f"({type(self._error).__name__}: {self._error}). Start the job again: what "
                    "was not completed is outstanding."
                ) from self._error
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return False
            self._is_over.wait(_LOOK_S)
        return True
