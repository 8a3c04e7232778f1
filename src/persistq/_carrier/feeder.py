"""How records that the pipe has no room for get into it later, and in order.

One `Feeder` belongs to one process and one pipe. It keeps a record in its backlog until that
record *is* in the pipe: "the backlog is empty" therefore means that the caller may write to the
pipe itself without overtaking an earlier record of its own, and asking takes no lock.

The thread runs only while there is something to feed, and one idle second more: a process that
is about to fork is better off without threads. A fork needs no hook: the child finds that the
feeder's process id is not its own and makes a new one, so neither a lock that was held at the
fork nor the parent's backlog reaches it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from multiprocessing import util

from persistq._carrier.pipe import rest_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# A thread that has nothing to feed ends after this time; sooner would start one for each burst.
LINGER_S = 1.0


class Feeder:
    """The backlog of one process for one pipe, and the thread that works it off.

    Args:
        writer (Connection): The pipe's write end, in non-blocking mode.
        records_per_write (int): As many records as one atomic write can hold.
    """

    def __init__(self, writer: Connection, records_per_write: int) -> None:
        self.pid = os.getpid()
        self.records: deque[bytes] = deque()
        self._writer = writer
        self._records_per_write = records_per_write
        self._changed = threading.Condition(threading.Lock())
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._at_exit: util.Finalize | None = None
        self._closing = False
        self._to_close: tuple[Connection, ...] = ()
        self._exit_waits = True

    def add(self, records: list[bytes]) -> None:
        """Leave records to the thread.

        Args:
            records (list[bytes]): Whole records, in order.

        Raises:
            RuntimeError: No thread can be started (too many, or the interpreter is ending);
                then none of the records is kept.
        """
        with self._changed:
            if self._at_exit is None and self._exit_waits:
                # As multiprocessing.Queue does: the interpreter's exit waits for the pipe. Set
                # before the records are kept, so that whatever interrupts us cannot lose them.
                self._at_exit = util.Finalize(None, self.finish, exitpriority=-5)
            self.records.extend(records)
            if self._thread is not None:
                self._changed.notify()
                return
            try:
                self._start()
            except RuntimeError:
                for _ in records:
                    self.records.pop()
                raise

    def _start(self) -> None:
        thread = threading.Thread(target=self._feed, name="QueueFeederThread", daemon=True)
        thread.start()
        self._thread = thread  # an interrupt just before this: the thread says so itself

    def close(self, also: tuple[Connection, ...]) -> None:
        """Close the pipe in this process as soon as the backlog is in it; do not wait.

        Args:
            also (tuple[Connection, ...]): What to close together with the write end.
        """
        with self._changed:
            self._to_close = also
            self._closing = True
            if self._thread is not None:
                self._changed.notify()
            elif not self.records:
                self._close_pipe()
            else:
                try:
                    self._start()
                except RuntimeError:
                    pass  # finish() writes them

    def finish(self) -> None:
        """Wait until the backlog is in the pipe and the thread has ended."""
        if self.pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        # Records without a thread: an interrupt hit add() half way. Threads cannot be started
        # any more when the interpreter ends, so this one writes them.
        self._write_all()

    def leave_at_exit(self) -> None:
        """Let the interpreter end without waiting; what is in the backlog then is lost."""
        self._exit_waits = False
        if self._at_exit is not None:
            self._at_exit.cancel()

    def _close_pipe(self) -> None:
        self._writer.close()
        for connection in self._to_close:
            connection.close()

    def _feed(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.current_thread()
        while True:
            self._write_all()
            with self._changed:
                if not self.records and not self._closing:
                    self._changed.wait(LINGER_S)
                if self.records:
                    continue
                # Under the lock: whoever adds a record after this finds no thread and starts one.
                self._thread = None
                if self._at_exit is not None:
                    self._at_exit.cancel()
                    self._at_exit = None
                if self._to_close:
                    self._close_pipe()
                return

    def _write_all(self) -> None:
        if self.records:
            # One at a time, or the same record would be written twice.
            with self._writing:
                self._write_until_empty()

    def _write_until_empty(self) -> None:
        records = self.records
        try:
            fd = self._writer.fileno()
            room = select.poll()
            room.register(fd, select.POLLOUT)
            rest = rest_s(fd)
            while records:
                batch = [records[i] for i in range(min(len(records), self._records_per_write))]
                try:
                    os.write(fd, b"".join(batch))
                except BlockingIOError:
                    time.sleep(rest)
                    room.poll()
                    continue
                for _ in batch:
                    records.popleft()
        except OSError as error:
            # The pipe has no reader left in any process, or was closed under us: nobody can
            # ever receive these.
            import logging

            logging.getLogger("persistq").warning(
                "%d messages could not be sent, since no process is left to receive them (%s)",
                len(records),
                error,
            )
            records.clear()
