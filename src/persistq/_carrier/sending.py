"""How one process sends: a message, many, as many as a source gives, a notice, its end.

Whatever is sent goes straight to the pipe, or to the feeder where the pipe is full or earlier
records wait. A signal handler may interrupt any of this and send itself; and what it raises is
never taken for an error of the call that it interrupted, since then the record may be in the pipe.
"""

from __future__ import annotations

import os
import time
from multiprocessing import queues
from queue import Full

from persistq._carrier.backlog import Ending, Source
from persistq._carrier.pipe import RECORDS_PER_WRITE
from persistq._carrier.record import INLINE_BYTES, MARK, WAKE, pack, pack_notice
from persistq._carrier.refusal import is_of_call, is_refusal, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from persistq._carrier.board import Board
    from persistq._carrier.feeder import Entry, Feeder
    from persistq._carrier.slots import Slots
    from persistq._carrier.spill import Spill

    _JoinableQueue = queues.JoinableQueue[Any]
else:
    _JoinableQueue = queues.JoinableQueue


class Sending(_JoinableQueue):
    """The side of a `Carrier` that sends."""

    board: Board
    _slots: Slots | None
    _feeder: Feeder
    _spill: Spill
    _write_fd: int
    _count_up: Callable[..., None]
    _count_down: Callable[[], None]
    # Set by the first put, so that put asks one question instead of two.
    _open_for_put = False
    _closed: bool

    if TYPE_CHECKING:

        def _leave_parent_behind(self) -> None:
            """Drop what a fork has given this process; of `Carrier`."""

    def put_bytes(self, data: bytes, block: bool = True, timeout: float | None = None) -> None:
        """Send a message that is bytes, without pickling; `get_bytes` receives it.

        Args:
            data (bytes): What to send.
            block (bool): Whether to wait for a slot where the queue is bounded and full.
            timeout (float | None): Seconds to wait for a slot; None waits for ever.

        Raises:
            queue.Full: The queue is bounded, and no slot came free in time.
            ValueError: This process has closed the queue.
            OSError: The message is large and cannot be written to its temporary file.
            RuntimeError: The pipe is full, and no thread can be started to feed it.

        Note:
            Where `is_refusal` is false of what this raises, it comes from a signal handler, and
            the message may have been sent.
        """
        if not self._open_for_put:
            self._open()
        if self._slots is not None:
            self._slots.take(self._write_fd, self._feeder.records, block, timeout)
        if len(data) <= INLINE_BYTES:
            record = pack(data, MARK)
        else:
            try:
                record = self._own_spill().record_of(data)
            except BaseException:
                if self._slots is not None:
                    self._slots.free()
                raise
        try:
            self._count_up()
        except (OSError, ValueError) as error:
            if is_of_call(error):
                self._take_back([record], counted=0)
                refused(error)
            raise
        if not self._feeder.waiting:
            try:
                os.write(self._write_fd, record)
                return
            except OSError as error:
                if not is_of_call(error):
                    raise
                if not isinstance(error, BlockingIOError):
                    self._take_back([record], counted=1)
                    refused(error)
                    raise
        self._leave_to_feeder([record], counted=1)

    def put_bytes_many(
        self, messages: Sequence[bytes], block: bool = True, timeout: float | None = None
    ) -> int:
        """Send many messages in order, several with one write.

        Args:
            messages (Sequence[bytes]): What to send.
            block (bool): Whether to wait for slots where the queue is bounded and full.
            timeout (float | None): Seconds to wait for slots, altogether; None waits for ever.

        Returns:
            int: How many were sent, from the first on: all, unless the queue is bounded and no
            slot came free in time for the rest.

        Raises:
            ValueError: This process has closed the queue.
            OSError: A message is large and cannot be written to its temporary file; then none
                was sent.
        """
        sent, error = self.send_many(messages, block, timeout)
        if error is not None:
            raise error
        return sent

    def send_many(
        self, messages: Sequence[bytes], block: bool = True, timeout: float | None = None
    ) -> tuple[int, BaseException | None]:
        """Do the same as `put_bytes_many`, and say how many were sent where it fails half way.

        Args:
            messages (Sequence[bytes]): What to send.
            block (bool): Whether to wait for slots where the queue is bounded and full.
            timeout (float | None): Seconds to wait for slots, altogether; None waits for ever.

        Returns:
            tuple[int, BaseException | None]: How many were certainly sent, from the first on, and
            what has ended it before the last, if that was an error or an interrupt. Where
            `is_refusal` is false of that, further ones may have been sent.

        Raises:
            ValueError: This process has closed the queue.
            OSError: A message is large and cannot be written to its temporary file; then none
                was sent.
        """
        if not self._open_for_put:
            self._open()
        if not messages:
            return 0, None
        records = self._own_spill().records_of(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        sent, unsent = 0, 0
        try:
            while sent < len(records):
                unsent = sent
                batch = records[sent : sent + RECORDS_PER_WRITE]
                if self._slots is not None:
                    left = None if deadline is None else deadline - time.monotonic()
                    self._slots.take(self._write_fd, self._feeder.records, block, left)
                    batch = batch[: 1 + self._slots.take_at_once(len(batch) - 1)]
                unsent = sent + len(batch)  # should it fail, it sees to these itself
                self._send_batch(batch)
                sent = unsent
        except BaseException as error:
            # An interrupt too, while it waits for slots: what was sent stays sent.
            self._spill.discard_records(records[unsent:])
            is_full = isinstance(error, Full) and is_refusal(error)
            return sent, None if is_full else error
        return sent, None

    def _send_batch(self, batch: list[bytes]) -> None:
        try:
            self._count_up(len(batch))
        except (OSError, ValueError) as error:
            # ValueError: semaphores of macOS end at 32,767.
            if is_refusal(error):
                self._take_back(batch, counted=0)
            raise
        if not self._feeder.waiting:
            try:
                os.write(self._write_fd, b"".join(batch))
                return
            except OSError as error:
                if not is_of_call(error):
                    raise
                if not isinstance(error, BlockingIOError):
                    self._take_back(batch, counted=len(batch))
                    refused(error)
                    raise
        self._leave_to_feeder(batch, counted=len(batch))

    def send_source(
        self, count: int, source: Iterator[list[bytes]]
    ) -> tuple[int, BaseException | None]:
        """Send messages that are read only as they are needed, in order.

        A bounded queue takes them as slots come free, and this call waits for that. An unbounded
        one counts all as tasks at once, takes what the pipe has room for, and leaves the source to
        the feeder: a list is read from it, in the feeder's thread, when the one before is written.

        Args:
            count (int): How many there are.
            source (Iterator[list[bytes]]): Gives them, some at a time.

        Returns:
            tuple[int, BaseException | None]: How many were sent or will be, from the first on, and
            what has ended it before the last, as in `send_many`. What the source raises in the
            feeder's thread is logged, and what is left then is no task any more.

        Raises:
            ValueError: This process has closed the queue.
        """
        if not self._open_for_put:
            self._open()
        if self._slots is not None:
            return self._send_as_slots_come(source)
        self._count_up(count)
        entry = Source(count, source, self._own_spill(), self._count_down)
        sent = 0
        while not self._feeder.waiting:
            batch: list[bytes] = []
            try:
                batch = entry.batch(RECORDS_PER_WRITE)
                if not batch:
                    return sent, None
                os.write(self._write_fd, b"".join(batch))
                entry.drop(len(batch))
                sent += len(batch)
            except BaseException as error:
                is_ours = is_of_call(error)
                if is_ours and isinstance(error, BlockingIOError):
                    break
                if batch and not is_ours:
                    entry.drop(len(batch))  # an interrupt: these may be in the pipe
                elif batch:
                    refused(error)
                entry.give_up()
                return sent, error
        try:
            self._leave_to_feeder([entry], counted=0)
        except (RuntimeError, ValueError, OSError) as error:
            if is_refusal(error):
                entry.give_up()
            return sent, error
        return count, None

    def _send_as_slots_come(
        self, source: Iterator[list[bytes]]
    ) -> tuple[int, BaseException | None]:
        sent = 0
        try:
            for messages in source:
                number, error = self.send_many(messages)
                sent += number
                if error is not None:
                    return sent, error
        except BaseException as error:
            return sent, error
        return sent, None

    def wake(self) -> None:
        """Make one waiting `get_bytes`, or the next one, return None. Never waits.

        This is no message: it takes no slot and is no task. Where the pipe is full nobody waits for
        a record, and nothing is sent.

        Raises:
            ValueError: This process has closed the queue.
        """
        if self._closed:
            raise refused(ValueError(f"Queue {self!r} is closed"))
        try:
            os.write(self._write_fd, WAKE)
        except BlockingIOError as error:
            # The pipe is full, so no reader sleeps. Left to the feeder, it would keep this process
            # from ending where nobody is left to read: a worker whose parent has died, say.
            if not is_of_call(error):
                raise

    def put_notice(self, data: bytes) -> None:
        """Send, behind the messages, what is none: it takes no slot and is no task. Never waits.

        Where a bound counted it, those for workers that were killed would block all that follow.

        Args:
            data (bytes): What `get_bytes` is to return; at most 200 bytes.

        Raises:
            ValueError: This process has closed the queue.
        """
        if not self._open_for_put:
            self._open()
        self._send_aside(pack_notice(data))

    def end(self, kind: bytes, wakes: int, notice: bytes | None = None) -> None:
        """Post, behind all that this process has put, that it puts no more. Never waits.

        Killed half way, the others find one of these, in this order: nothing, so that the process
        has died without an end; the notice alone; what was posted, and nobody who was woken for it.

        Args:
            kind (bytes): What to post on the board, one byte.
            wakes (int): How many waiting readers to wake at most, behind that. Where the pipe is
                full none need be: those that read it are awake.
            notice (bytes | None): What one `get_bytes` is to return before that.

        Raises:
            ValueError: This process has closed the queue.
            OSError: It cannot be posted.
            RuntimeError: The pipe is full, and no thread can be started to feed it.
        """
        if not self._open_for_put:
            self._open()
        ending = Ending(kind, wakes)
        entries: list[Entry] = [ending] if notice is None else [pack_notice(notice), ending]
        if not self._feeder.waiting:
            try:
                if notice is not None:
                    os.write(self._write_fd, pack_notice(notice))
            except BlockingIOError as error:
                if not is_of_call(error):
                    raise
            else:
                ending.tell(self.board, self._write_fd)
                return
        self._leave_to_feeder(entries, counted=0)

    def _send_aside(self, record: bytes) -> None:
        if not self._feeder.waiting:
            try:
                os.write(self._write_fd, record)
                return
            except BlockingIOError as error:
                if not is_of_call(error):
                    raise
        self._leave_to_feeder([record], counted=0)

    def _open(self) -> None:
        if self._closed:
            raise refused(ValueError(f"Queue {self!r} is closed"))
        self._open_for_put = True

    def _own_spill(self) -> Spill:
        if self._spill.pid != os.getpid():
            self._leave_parent_behind()
        return self._spill

    def _leave_to_feeder(self, entries: Sequence[Entry], counted: int) -> None:
        if self._feeder.pid != os.getpid():
            # A forked child: this backlog is its parent's.
            self._leave_parent_behind()
        try:
            self._feeder.add(entries)
        except (RuntimeError, ValueError, OSError) as error:
            if counted and is_refusal(error):
                self._take_back([entry for entry in entries if isinstance(entry, bytes)], counted)
            raise

    def _take_back(self, records: list[bytes], counted: int) -> None:
        """Undo what was done for records that could not be sent."""
        if counted:
            self._count_up(-counted)
        if self._slots is not None:
            for _ in records:
                self._slots.free()
        self._spill.discard_records(records)
