"""How records that the pipe has no room for get into it later, and in order.

One `Feeder` belongs to one process and one pipe. It keeps a record in its backlog until that
record *is* in the pipe: "the backlog is empty" therefore means that the caller may write to the
pipe itself without overtaking an earlier record of its own, and asking takes no lock.

Whoever adds may be interrupted at any moment by a signal handler that adds, ends, closes or waits
for the end, in the same thread. So no lock is ever waited for that the interrupted call could
hold: the backlog is a deque, whose operations are one step each; who feeds is whoever gets
`_running` without waiting; and whoever lets it go looks at the backlog once more. A thread is
started by the one call that takes no lock of `threading`'s.

The thread runs only while there is something to feed, and one idle second more: a process that
is about to fork is better off without threads. A fork needs no hook: the child finds that the
feeder's process id is not its own and makes a new one, so neither a lock that was held at the
fork nor the parent's backlog reaches it.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import threading
import time
from collections import deque
from multiprocessing import util

from persistq._carrier.backlog import Ending, Source
from persistq._carrier.pipe import rest_s
from persistq._carrier.refusal import is_of_call, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from typing import Union

    from persistq._carrier.board import Board

    Entry = Union[bytes, Source, Ending]

_log = logging.getLogger("persistq")

# A thread that has nothing to feed ends after this time; sooner would start one for each burst.
LINGER_S = 1.0
# How long the thread waits for one who is just adding. Only a signal handler can make that long.
_PATIENCE_S = 1.0
_LONGEST_PAUSE_S = 0.005


class Records:
    """The backlog as others see it: how many messages and notices wait, and whether anything."""

    def __init__(self) -> None:
        self.waiting: deque[Entry] = deque()
        self.special: list[Source | Ending] = []

    def __len__(self) -> int:
        # A source counts as what is left of it, an end as nothing.
        more = sum(entry.left - 1 for entry in tuple(self.special))
        return max(len(self.waiting) + more, 0)

    def __bool__(self) -> bool:
        return bool(self.waiting)


class Feeder:
    """The backlog of one process for one pipe, and the thread that works it off.

    Args:
        writer (Connection): The pipe's write end, in non-blocking mode.
        records_per_write (int): As many records as one atomic write can hold.
        board (Board): Where others see whether there is a backlog.
    """

    def __init__(self, writer: Connection, records_per_write: int, board: Board) -> None:
        self.pid = os.getpid()
        self.records = Records()
        # The same, for those who ask with each message.
        self.waiting = self.records.waiting
        self._writer = writer
        self._records_per_write = records_per_write
        self._board = board
        self._running = threading.Lock()  # held by whoever writes
        self._coming = False  # a thread was started, and has not begun
        self._bell = threading.Lock()  # released to wake the thread
        self._bell.acquire()
        # What others see of the backlog changes together with it.
        self._telling = threading.RLock()
        self._at_exit: util.Finalize | None = None
        self._exit_waits = True
        self._closing = False
        self._to_close: tuple[Connection, ...] = ()
        self._is_closed = threading.Lock()
        self._writes_itself = -1  # the thread that writes for want of one to do it

    def add(self, entries: Sequence[Entry]) -> None:
        """Leave records to the thread.

        Args:
            entries (Sequence[bytes | Source | Ending]): Whole records, in order, and at most one
                that is none, as the last.

        Raises:
            RuntimeError: No thread can be started (too many, or the interpreter is ending);
                then none of the records is kept.
            ValueError: The pipe was closed meanwhile; neither then.
            OSError: Others cannot be told of the backlog; neither then.
        """
        # Set before the records are kept, so that whatever interrupts us cannot lose them; and
        # again, since a thread that was just ending may have let go of it in between.
        if self._at_exit is None:
            self._hold_exit()
        last = entries[-1]  # what is no record is always the last
        with self._telling:
            try:
                self._board.set_backlog(True)
            except OSError as error:
                if error.errno is not None:  # else a signal handler's
                    refused(error)
                raise
            if not isinstance(last, bytes):
                self.records.special.append(last)
            self.waiting.extend(entries)
        if self._at_exit is None:
            self._hold_exit()
        if self._is_closed.locked() and self._withdraw(entries):
            # By a signal handler, say, since the caller has looked.
            raise refused(ValueError("the queue was closed in the midst of a put"))
        try:
            self._call_thread()
        except RuntimeError as error:
            if not self._withdraw(entries):
                return  # another thread, or finish(), has found them meanwhile
            raise refused(error) from None

    def _withdraw(self, entries: Sequence[Entry]) -> bool:
        if self._running.locked():
            return False
        for entry in entries:
            try:
                self.waiting.remove(entry)
            except ValueError:
                return False
            self._forget(entry)
        self._tell_empty()
        return True

    def _hold_exit(self) -> None:
        if self._at_exit is None and self._exit_waits:
            # As multiprocessing.Queue does: the interpreter's exit waits for the pipe.
            self._at_exit = util.Finalize(None, self.finish, exitpriority=-5)

    def _release_exit(self) -> None:
        at_exit, self._at_exit = self._at_exit, None
        if at_exit is not None:
            at_exit.cancel()

    def _call_thread(self) -> None:
        """Wake the thread, or start it."""
        if self._running.locked() or self._coming:
            self._ring()
            return
        try:
            self._coming = True
            # Thread.start() takes a lock on the way, which a handler that interrupts any start of
            # a thread, also the user's, could not take. This takes none.
            _thread.start_new_thread(self._feed, ())
        except BaseException:
            self._coming = False
            raise

    def _ring(self) -> None:
        if self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:
                pass  # another has, meanwhile

    def close(self, also: tuple[Connection, ...]) -> None:
        """Close the pipe in this process as soon as the backlog is in it; do not wait.

        Args:
            also (tuple[Connection, ...]): What to close together with the write end.
        """
        self._to_close = also
        self._closing = True
        if self.waiting or self._running.locked() or self._coming:
            # Whoever lets go of the backlog after this sees what is to be closed.
            try:
                self._call_thread()
            except RuntimeError:
                pass  # finish() writes them
        else:
            self._close_pipe()

    def finish(self) -> None:
        """Wait until the backlog is in the pipe and the thread has ended."""
        if self.pid != os.getpid() or self._writes_itself == _thread.get_ident():
            # The second: we are in a signal handler, and what it interrupted writes the rest.
            return
        self._closing = True
        pause_s = 0.0002
        while self.waiting or self._running.locked() or self._coming:
            try:
                self._call_thread()
            except RuntimeError:
                self._write_here()
            else:
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        self._release_exit()
        if self._to_close:
            self._close_pipe()

    def _write_here(self) -> None:
        """Write the backlog: threads cannot be started any more when the interpreter ends."""
        before, self._writes_itself = self._writes_itself, _thread.get_ident()
        try:
            if self._running.acquire(False):
                try:
                    self._write_until_empty()
                    self._tell_empty()
                finally:
                    self._running.release()
        finally:
            self._writes_itself = before

    def leave_at_exit(self) -> None:
        """Let the interpreter end without waiting; what is in the backlog then is lost."""
        self._exit_waits = False
        self._release_exit()

    def _close_pipe(self) -> None:
        if self._is_closed.acquire(False):  # never released: once is enough
            self._writer.close()
            for connection in self._to_close:
                connection.close()

    def _feed(self) -> None:
        while self._running.acquire(False):
            self._coming = False
            try:
                self._hold_exit()
                self._write_until_idle()
            finally:
                self._running.release()
            # Who has added something before the release has only rung.
            if not self.waiting:
                if self._to_close:
                    self._close_pipe()
                return
        self._coming = False

    def _write_until_idle(self) -> None:
        while True:
            self._write_until_empty()
            self._tell_empty()
            if self._closing or not self._bell.acquire(timeout=LINGER_S):
                break
        self._release_exit()

    def _tell_empty(self) -> None:
        # Without it the byte stays set until the next time: who looks waits, and misses nothing.
        if self._telling.acquire(timeout=_PATIENCE_S):
            try:
                if not self.waiting:
                    self._board.set_backlog(False)
            finally:
                self._telling.release()

    def _forget(self, entry: Entry) -> None:
        if not isinstance(entry, bytes):
            self.records.special.remove(entry)

    def _write_until_empty(self) -> None:
        waiting = self.waiting
        try:
            fd = self._writer.fileno()
            room = select.poll()
            room.register(fd, select.POLLOUT)
            rest = rest_s(fd)
            while waiting:
                entry = waiting[0]
                if isinstance(entry, bytes):
                    batch = self._records_ahead()
                elif isinstance(entry, Source):
                    batch = _batch_of(entry, self._records_per_write)
                else:
                    batch = []
                    self._tell_end(entry, fd)
                if batch:
                    try:
                        os.write(fd, b"".join(batch))
                    except BlockingIOError as error:
                        if not is_of_call(error):
                            raise
                        time.sleep(rest)
                        room.poll()
                        continue
                    if isinstance(entry, Source):
                        entry.drop(len(batch))
                        continue
                for _ in batch or (entry,):
                    self._forget(waiting.popleft())
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise  # a signal handler's, at the interpreter's exit
            # The pipe has no reader left in any process, or was closed under us: nobody can
            # ever receive these.
            _log.warning(
                "%d messages could not be sent, since no process is left to receive them (%s)",
                len(self.records),
                error,
            )
            self._drop_all()

    def _tell_end(self, end: Ending, fd: int) -> None:
        try:
            end.tell(self._board, fd)
        except OSError as error:
            _log.error(
                "it cannot be told that this process has put all it will (%s): the others take "
                "it for dead when it has ended",
                error,
            )

    def _records_ahead(self) -> list[bytes]:
        """Return the records at the head, as many as fit in one write."""
        batch: list[bytes] = []
        for index in range(min(len(self.waiting), self._records_per_write)):
            entry = self.waiting[index]
            if not isinstance(entry, bytes):
                break
            batch.append(entry)
        return batch

    def _drop_all(self) -> None:
        while self.waiting:
            self._forget(self.waiting.popleft())


def _batch_of(source: Source, largest: int) -> list[bytes]:
    try:
        return source.batch(largest)
    except BaseException as error:
        _log.error(
            "%d messages that were to be put are not, since reading them failed: %s: %s. They are "
            "not done in this run, and stay outstanding for the next; what was put behind them "
            "goes on.",
            source.left,
            type(error).__name__,
            error,
        )
        source.give_up()
        return []
