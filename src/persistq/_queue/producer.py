"""The side of a PersistentQueue that puts: what one process records and queues."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from queue import Full

from persistq import _fs
from persistq._journal.journal_file import JournalFile
from persistq._journal.names import PRODUCER, REQUESTED
from persistq._queue.desertion import is_desertion
from persistq._queue.known import Known
from persistq._sentinels import FAILED, Sentinel
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.members import Membership
    from persistq._queue.consumer import Consumer
    from persistq._queue.desertion import Desertion
    from persistq._queue.reports import Reports
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

# How many messages of an iterator are recorded with one write: what is held in memory of them.
_BATCH = 1000
# How often a put that waits for room looks whether anybody is left to make some.
_LOOK_S = 1.0


class Producer:
    """What one copy of a queue puts on it.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns messages into journal lines, and back.
        membership (Membership | None): The copy's part in the run; None without journals.
        prefix (str): The queue's prefix.
        fsync (bool): Whether what is put is to survive a power cut.
        consumer (Consumer): This copy's side that takes.
        desertion (Desertion): What tells whether anybody is left to make room.

    Attributes:
        requested (JournalFile | None): Records what is put.
        is_closed (bool): Whether this producer will put no more.
        has_put (bool): Whether it has put anything, or requeued.
        reports (Reports | None): What is to record what workers say of it; None where they do.
        known (Known): What is passed over when it is put.
        lock (RLock): Held by who does several things that belong together.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        membership: Membership | None,
        prefix: str,
        fsync: bool,
        consumer: Consumer,
        desertion: Desertion,
    ) -> None:
        self.is_closed = False
        self.reports: Reports | None = None
        self.requested: JournalFile | None = None
        if membership is not None:
            self.requested = JournalFile(membership, REQUESTED, fsync)
        self._transport = transport
        self._codec = codec
        self._membership = membership
        self._prefix = prefix
        self._desertion = desertion
        self.known = Known(membership, consumer.in_hand_count)
        self._begin()
        _fs.watch_forks(self)

    def _begin(self) -> None:
        self.has_put = False
        # How this producer ends, once it is to: as what, and what has still to be put for that.
        self._end: dict[str, tuple[Sentinel, deque[Sentinel]]] = {}
        self.lock = threading.RLock()
        self._local = threading.local()

    def _after_fork(self) -> None:
        """In a forked child: be a producer of its own."""
        self._begin()

    def announce(self) -> Any:
        """Before a thread's first message: be seen to live, as a producer."""
        if self._membership is not None:
            self._membership.join(PRODUCER)
        if self.reports is not None:
            self.reports.begin()
        self.has_put = True
        self._local.flags = flags = self._transport.flags()
        return flags

    # --- putting --------------------------------------------------------------------------

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Record a message and put it; timeout in seconds. See `PersistentQueue.put`."""
        if type(obj) is Sentinel:
            self._transport.put_sentinel(obj, block, timeout)
            return
        requested, transport = self.requested, self._transport
        line = self._line(obj) if requested is None else self._codec.encode(obj)
        if self.known.is_any and line is not None and self.known.passes_over(line):
            logger.info("not put again, since it is requeued or set aside already: %r", obj)
            return
        if requested is None or line is None:
            payload = transport.pack(obj, line)
            self._check_open()
            self._send(payload, block, timeout)
            return
        if self.is_closed or transport.is_watchful:
            self._check_open()
        try:
            flags = self._local.flags
        except AttributeError:
            flags = self.announce()
        if time.monotonic() >= self._membership.next_look_s:  # type: ignore[union-attr]
            self._membership.check()  # type: ignore[union-attr]
        mark = transport.line_mark
        if mark is not None and len(line) <= transport.longest_inline:
            payload = mark + line  # as transport.pack does, without a call
        elif len(line) > transport.longest_inline and transport.can_refer(
            obj, line, requested.longest_place()
        ):
            payload = None
        else:
            payload = transport.pack(obj, line)
        flags[1] = 1  # until it is on its way, it looks as if it had been lost
        try:
            # Killed behind this, before the message is queued: it is outstanding, though put() has
            # not returned, and the next run does it.
            if payload is None:
                payload = transport.pack_place(requested.append_in_place([line])[0])
            else:
                requested.append(line + b"\n")
            try:
                if timeout is None and block and transport.is_bounded:
                    self._send_patiently(payload)
                else:
                    transport.put(payload, block, timeout)
            except BaseException as error:
                # Whatever else it is, the message may have been sent: its line stays.
                if is_desertion(error) or transport.is_refusal(error):
                    requested.withdraw([line])
                raise
        finally:
            flags[1] = 0

    def _send(self, payload: Any, block: bool, timeout: float | None) -> None:
        if timeout is None and block and self._transport.is_bounded:
            self._send_patiently(payload)
        else:
            self._transport.put(payload, block, timeout)

    def _send_patiently(self, payload: Any) -> None:
        """Wait for room as long as anybody is left who may make some."""
        self._desertion.begin()
        while True:
            try:
                self._transport.put(payload, True, _LOOK_S)
                return
            except Full:
                self._check_deserted(1)

    def _check_deserted(self, count: int) -> None:
        if self._membership is not None and self._desertion.look():
            raise self._desertion.error(
                f"queue {self._prefix!r}: there is no room for {count} more messages"
            )

    def put_many(
        self, iterable: Iterable[Any], block: bool = True, timeout: float | None = None
    ) -> None:
        """Put messages and record them with one write. See `PersistentQueue.put_many`."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        is_sized = isinstance(iterable, (list, tuple, set, frozenset))
        size = len(iterable) if is_sized else _BATCH  # type: ignore[arg-type]
        if self._transport.is_bounded:
            size = min(size, max(self._transport.is_bounded, 1), _BATCH)
        iterator = iter(iterable)
        while batch := list(itertools.islice(iterator, max(size, 1))):
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0)
            self._put_batch(batch, block, left_s)

    def _put_batch(self, messages: list[Any], block: bool, timeout: float | None) -> None:
        if any(type(message) is Sentinel for message in messages):
            raise TypeError("DONE or FAILED among the messages; expected close() or fail() instead")
        requested, transport = self.requested, self._transport
        lines = [self._line(message) for message in messages]
        if self.known.is_any:
            pairs = [
                (message, line)
                for message, line in zip(messages, lines)
                if line is None or not self.known.passes_over(line)
            ]
            if len(pairs) < len(messages):
                logger.info(
                    "%d messages not put again: requeued or set aside already",
                    len(messages) - len(pairs),
                )
            messages, lines = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self._check_open()
        if not messages:
            return
        if requested is None:
            payloads = list(map(transport.pack, messages, lines))
            _, error = self.send_many(payloads, block, timeout)
            if error is not None:
                raise error
            return
        recorded = [line for line in lines if line is not None]
        payloads = self._pack_all(messages, recorded, requested)
        try:
            flags = self._local.flags
        except AttributeError:
            flags = self.announce()
        self._membership.check()  # type: ignore[union-attr]
        flags[1] = 1
        try:
            if None in payloads:
                places = requested.append_in_place(recorded)
                payloads = [
                    transport.pack_place(place) if payload is None else payload
                    for payload, place in zip(payloads, places)
                ]
            else:
                requested.append(b"\n".join(recorded) + b"\n")
            count, error = self.send_many(payloads, block, timeout)
            if error is not None:
                if is_desertion(error) or transport.is_refusal(error):
                    requested.withdraw(recorded[count:])
                raise error
        finally:
            flags[1] = 0

    def send_many(
        self, payloads: Sequence[Any], block: bool, timeout: float | None
    ) -> tuple[int, BaseException | None]:
        """Put what travels for several messages; wait as long as anybody is left to make room.

        Args:
            payloads (Sequence[Any]): From `Transport.pack`.
            block (bool): Whether to wait for room.
            timeout (float | None): Seconds to wait for it; None waits for ever.

        Returns:
            tuple[int, BaseException | None]: How many were taken, and what has ended it.
        """
        transport = self._transport
        if not (block and timeout is None and transport.is_bounded):
            return transport.put_many(payloads, block, timeout)
        self._desertion.begin()
        sent = 0
        while True:
            count, error = transport.put_many(payloads[sent:], True, _LOOK_S)
            sent += count
            if not isinstance(error, Full):
                return sent, error
            try:
                self._check_deserted(len(payloads) - sent)
            except PersistqError as deserted:
                return sent, deserted

    def _pack_all(
        self, messages: Sequence[Any], lines: Sequence[bytes], requested: JournalFile
    ) -> list[Any]:
        """Return what travels for each message; None where that is to be the place of its line."""
        transport, pack = self._transport, self._transport.pack
        if max(map(len, lines), default=0) <= transport.longest_inline:
            return list(map(pack, messages, lines))
        longest = requested.longest_place()
        return [
            None if transport.can_refer(message, line, longest) else pack(message, line)
            for message, line in zip(messages, lines)
        ]

    def _line(self, message: Any) -> bytes | None:
        """Return the line to record, or to compare; None where neither is needed."""
        if self.requested is None:
            if not self.known.is_any:
                return None
            try:
                return self._codec.encode(message)
            except TypeError:
                return None  # no journal could have held it, so it cannot have been requeued
        return self._codec.encode(message)

    def _check_open(self) -> None:
        if self.is_closed:
            raise ValueError("put() after close() or fail(): expected messages before that only")
        self._transport.check_put()

    # --- ending ---------------------------------------------------------------------------

    def close_files(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self.reports is not None:
            self.reports.end()
        if self.requested is not None:
            self.requested.close()

    def finish(self, sentinel: Sentinel, block: bool = True) -> None:
        """Put DONE or FAILED for each worker. See `PersistentQueue.close` and `fail`.

        Args:
            sentinel (Sentinel): DONE or FAILED.
            block (bool): Whether to wait for room, on a queue of the user's that is full.
        """
        with self.lock:
            if self._end or not self.is_closed:
                self._put_ends(sentinel, block)
            if self._membership is not None:
                self._membership.close()

    def _put_ends(self, sentinel: Sentinel, block: bool) -> None:
        # Decided, and taken one by one, in single steps: a signal handler that ends the queue, too,
        # goes on where this one stands, and this one goes on behind it.
        count = self._transport.number_of_ends(sentinel)
        decided, left = self._end.setdefault("end", (sentinel, deque([sentinel] * count)))
        self.is_closed = True
        if sentinel is FAILED and decided is not FAILED:
            logger.warning("queue %r: fail() after close() ignored", self._prefix)
        while True:
            try:
                left.pop()
            except IndexError:
                return
            try:
                self._transport.end(decided, block)
            except BaseException:
                left.append(decided)
                raise
