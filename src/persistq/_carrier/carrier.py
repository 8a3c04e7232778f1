"""The queue between processes: a `JoinableQueue` with no lock that a killed process could keep.

A bare `JoinableQueue` is dead for everybody once one process is killed at the wrong moment: a
waiting reader sleeps with the read lock held, a writer holds the write lock while it writes, the
task counter has a condition whose lock is shared, and a message of which only a part was written
leaves the pipe out of step. `Carrier` has none of these.

- A message is one **record** of fixed size, sent with one `write` and taken with one `read`.
  POSIX makes a write of up to PIPE_BUF bytes to a pipe atomic, and since whole records are all
  that is ever written, a read of one record's size takes exactly one. So the kernel does what the
  two locks did, and SIGKILL comes before or after a record, never between.
- A reader that waits sleeps in that `read`, and the kernel wakes one for a record, not all.
- The caller writes the record itself. Only when the pipe is full, or earlier records of this
  process wait already, a feeder thread does it (`feeder`). Pickling is done in the caller too:
  what cannot be pickled raises there, and later changes of the object do not travel.
- Messages too large for a record wait in a file (`spill`); the record holds the reference.
- The number of unfinished tasks is what all threads have added, each on its own part of the board,
  less what they have finished (`tasks`). `join` looks at it from time to time. A task is added
  before its record is written, so that no `task_done` can come too early; a process killed just
  between leaves `join` waiting for a task that does not exist: too long, and never too short. (So
  does a worker killed with a message in hand. The journals know better.)
- A bounded queue has a second such number for its free slots. A slot that a killed process takes
  with it is missed, and replaced, within seconds (`slots`).

Besides `put` and `get` there is a way for messages that are bytes already (`put_bytes`,
`put_bytes_many`, `get_bytes`); a queue is used one way or the other, not both.
"""

from __future__ import annotations

import os
import time
from multiprocessing import context, get_context, util
from multiprocessing.reduction import ForkingPickler
from pickle import dumps as _plain_dumps
from pickle import loads as _loads
from struct import error as _StructError

from persistq._carrier.board import Board
from persistq._carrier.ends import own_end
from persistq._carrier.feeder import Feeder
from persistq._carrier.home import Home
from persistq._carrier.pipe import (
    RECORD_BYTES,
    RECORDS_PER_WRITE,
    open_pipe,
    read_in_time,
    records_in,
)
from persistq._carrier.record import (
    INLINE_BYTES,
    MARK,
    WAKE,
    notice_in,
    out_of_step,
    reference_in,
    unpack,
)
from persistq._carrier.refusal import is_refusal
from persistq._carrier.sending import Sending
from persistq._carrier.slots import Slots
from persistq._carrier.spill import Spill
from persistq._carrier.tasks import Tasks
from persistq._processes import occupy_standard_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

__all__ = ["Carrier", "is_refusal", "pickle_message"]

_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_NEST = frozenset({tuple, list})


def pickle_message(obj: Any) -> bytes:
    # ForkingPickler knows more types than pickle does, and takes twice as long to make. For
    # these types the result is the same.
    kind = type(obj)
    if kind in _PLAIN or (kind in _NEST and _PLAIN.issuperset(map(type, obj))):
        return _plain_dumps(obj)
    return bytes(ForkingPickler.dumps(obj))


class Carrier(Sending):
    """A `multiprocessing.JoinableQueue` that outlives the kill of any process that uses it.

    Args:
        maxsize (int): How many messages may wait; 0 or less for any number.
        ctx (multiprocessing.context.BaseContext | None): Whose processes will share it; None for
            the default context.

    Attributes:
        board (Board): What its processes know of one another.
        wait_fd (int): What gives the next record to who waits for one with `read`; -1 where
            `get_bytes` has to be asked: the system has no such end, or this process has closed.
    """

    is_refusal = staticmethod(is_refusal)

    def __init__(self, maxsize: int = 0, *, ctx: BaseContext | None = None) -> None:
        # Before the first descriptor: none of ours must be what a C library takes for stderr.
        occupy_standard_streams()
        ctx = ctx or get_context()
        self._maxsize = max(maxsize, 0)
        self._reader, self._waiter, self._writer = open_pipe()
        self._slots = Slots(maxsize, ctx) if maxsize > 0 else None
        self.board = Board()
        self.tasks = Tasks(self.board)
        self._spill = Spill(Home())
        self._opid = os.getpid()
        self._reset()

    def __getstate__(self) -> Any:
        context.assert_spawning(self)
        return (
            self._maxsize,
            self._reader,
            self._waiter,
            self._writer,
            self._slots,
            self.board,
            self._spill.home,
            self._opid,
        )

    def __setstate__(self, state: Any) -> None:
        occupy_standard_streams()
        (
            self._maxsize,
            reader,
            waiter,
            writer,
            self._slots,
            self.board,
            home,
            self._opid,
        ) = state
        self._reader, self._writer = own_end(reader), own_end(writer)
        self._waiter = None if waiter is None else own_end(waiter)
        self._spill = Spill(home)
        self.tasks = Tasks(self.board)
        self._reset()

    def _reset(self, after_fork: bool = False) -> None:
        """Set up what belongs to one process: at creation, unpickling, and in a forked child."""
        self._closed = False
        self._open_for_put = False
        self._join_cancelled = False
        self._read_fd = -1 if self._reader.closed else self._reader.fileno()
        self.wait_fd = -1 if self._waiter is None or self._waiter.closed else self._waiter.fileno()
        self._write_fd = -1 if self._writer.closed else self._writer.fileno()
        self._count_up = self.tasks.add
        self._count_down = self.tasks.finish
        if after_fork:
            self._leave_parent_behind()
        else:
            self._feeder = Feeder(self._writer, RECORDS_PER_WRITE, self.board)
            util.register_after_fork(self, Carrier._after_fork)

    def _after_fork(self) -> None:
        self._reset(after_fork=True)

    def _leave_parent_behind(self) -> None:
        """Drop the backlog and the descriptors that a fork gave this process."""
        if self._feeder.pid != os.getpid():
            self._feeder = Feeder(self._writer, RECORDS_PER_WRITE, self.board)
            if self._join_cancelled:
                self._feeder.leave_at_exit()
        if self._spill.pid != os.getpid():
            home = self._spill.home
            self._spill.close()
            self._spill = Spill(home)

    # -- putting

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Send a message.

        Args:
            obj (object): What to send. It is pickled here and now.
            block (bool): Whether to wait for a slot where the queue is bounded and full.
            timeout (float | None): Seconds to wait for a slot; None waits for ever.

        Raises:
            queue.Full: The queue is bounded, and no slot came free in time.
            ValueError: This process has closed the queue.
            OSError: The message is large and cannot be written to its temporary file.
            Exception: Whatever pickling the message raises. Nothing is sent then.
        """
        if not self._open_for_put:
            self._open()
        self.put_bytes(pickle_message(obj), block, timeout)

    # -- getting

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next message.

        Args:
            block (bool): Whether to wait for one.
            timeout (float | None): Seconds to wait; None waits for ever.

        Returns:
            object: The message.

        Raises:
            queue.Empty: None came in time.
            ValueError: This process has closed the queue.
            PersistqError: A message was damaged on its way; restart the job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            data = self.get_bytes(block, timeout)
            if data is not None:
                return _loads(data)
            if deadline is not None:
                timeout = deadline - time.monotonic()

    def get_bytes(self, block: bool = True, timeout: float | None = None) -> bytes | None:
        """Take the next message that `put_bytes` or `put_bytes_many` sent.

        Args:
            block (bool): Whether to wait for one.
            timeout (float | None): Seconds to wait; None waits for ever.

        Returns:
            bytes | None: The message, or what `put_notice` sent; None when `wake` was called.

        Raises:
            queue.Empty: None came in time.
            ValueError: This process has closed the queue.
            PersistqError: A message was damaged on its way; restart the job.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        if block and timeout is None and self.wait_fd >= 0:
            record = os.read(self.wait_fd, RECORD_BYTES)
        else:
            record = read_in_time(self._read_fd, block, timeout)
        return self.open_record(record)

    def open_record(self, record: bytes) -> bytes | None:
        """Return what `get_bytes` returns for a record that was read.

        Args:
            record (bytes): What one `read` of `wait_fd` has given.

        Returns:
            bytes | None: The message, or a notice; None for a wake-up.

        Raises:
            PersistqError: It is no record.
        """
        try:
            data, mark = unpack(record)
        except _StructError:
            raise out_of_step(record) from None
        if mark != MARK:
            raise out_of_step(record)
        if record[0] <= INLINE_BYTES:
            self.tasks.took(None)
            if self._slots is not None:
                # As soon as can be: a kill before this line costs a slot until it is missed.
                self._slots.free()
            return data  # type: ignore[no-any-return]
        if record == WAKE:
            return None
        notice = notice_in(record)
        if notice is not None:
            return notice
        self.tasks.took(None)
        if self._slots is not None:
            self._slots.free()
        reference = reference_in(record)
        if reference is None:
            raise out_of_step(record)
        return self._own_spill().read(reference)

    # -- counting

    def task_done(self) -> None:
        """Say that the work for one message taken is finished.

        Raises:
            ValueError: Called more often than messages were put.
        """
        self._count_down()

    def join(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Wait until the work for every message put is finished.

        Args:
            timeout (float | None): Seconds to wait; None waits for ever.

        Returns:
            bool: Whether all is finished.
        """
        # Looking costs a few microseconds, and a condition would need a lock.
        nothing_left = self.tasks.none_left
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = 0.0005
        while not nothing_left():
            if deadline is not None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                pause_s = min(pause_s, left_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.01)
        return True

    def qsize(self) -> int:
        """Return about how many messages wait.

        Those that other processes' feeders hold are not counted, and each `wake` is.
        """
        held = len(self._feeder.records) if self._feeder.pid == os.getpid() else 0
        return records_in(self._reader.fileno()) + held

    def empty(self) -> bool:
        """Return whether a `get` would find nothing now."""
        return records_in(self._reader.fileno()) == 0

    def full(self) -> bool:
        """Return whether a `put` would find no slot now; never so for an unbounded queue."""
        return self._slots is not None and self._slots.none_free()

    # -- ending

    def close(self) -> None:
        """Say that this process will neither put nor get any more. What was put is still sent."""
        if self._closed:
            return
        self._closed = True
        self.wait_fd = -1  # so that who reads for himself asks get_bytes, which says it
        if self._open_for_put:
            self._open_for_put = False
            # A thread that is just putting must not write to whatever gets these numbers next.
            self._read_fd = self._write_fd = -1
            # Not closed where nothing was put, as a Queue: empty() stays a question.
            self._leave_parent_behind()
            also = (self._reader,) if self._waiter is None else (self._reader, self._waiter)
            self._feeder.close(also)

    def join_thread(self) -> None:
        """Wait until all that this process has put is in the pipe; only after `close`."""
        assert self._closed, f"Queue {self!r} not closed"
        if not self._join_cancelled and self._feeder.pid == os.getpid():
            self._feeder.finish()

    def cancel_join_thread(self) -> None:
        """Let this process end without waiting; messages not in the pipe by then are lost."""
        self._join_cancelled = True
        if self._feeder.pid == os.getpid():
            self._feeder.leave_at_exit()

    def _terminate_broken(self) -> None:
        """Close both ends at once, as `Queue` does for an executor that broke."""
        self._reader.close()
        if self._waiter is not None:
            self._waiter.close()
        self.close()
        self.join_thread()
