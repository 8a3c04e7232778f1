"""The side of a PersistentQueue that puts: what one process records and queues, and requeues."""

from __future__ import annotations

import logging
import threading
from queue import Full

from persistq import _fs
from persistq._journal.codec import line_key
from persistq._journal.files import REQUESTED, JournalFile
from persistq._sentinels import FAILED, Sentinel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.runs import PreviousWork
    from persistq._queue.own_queue import OwnQueue
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")


class Producer:
    """What one copy of a queue puts on it.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns messages into journal lines, and back.
        own_queue (OwnQueue | None): The transport, where a message may travel as the place of
            its line in the journal.
        directory (str | None): Directory of the journals; None keeps none.
        prefix (str): The queue's prefix.
        fsync (bool): Whether what is put is to survive a power cut.
        previous (PreviousWork): What the run before has left.

    Attributes:
        requested (JournalFile | None): Records what is put.
        is_closed (bool): Whether this producer will put no more.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        own_queue: OwnQueue | None,
        directory: str | None,
        prefix: str,
        fsync: bool,
        previous: PreviousWork,
    ) -> None:
        self.is_closed = False
        self.requested: JournalFile | None = None
        if directory is not None:
            self.requested = JournalFile(directory, prefix, REQUESTED, fsync)
        self._transport = transport
        self._codec = codec
        self._own_queue = own_queue
        self._prefix = prefix
        self._previous = previous
        self._begin()
        _fs.watch_forks(self)

    def _begin(self) -> None:
        self._requeued_lines: set[bytes] = set()
        self._to_requeue: list[Any] | None = None
        self._sentinels_to_put: list[Sentinel] = []
        self._lock = threading.RLock()

    def _after_fork(self) -> None:
        """In a forked child: be a producer of its own."""
        self._begin()

    # --- putting --------------------------------------------------------------------------

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Record a message and put it; timeout in seconds. See `PersistentQueue.put`."""
        if type(obj) is Sentinel:
            self._transport.put_sentinel(obj, block, timeout)
            return
        line = self._line(obj) if self.requested is None else self._codec.encode(obj)
        if self._requeued_lines and line is not None and line_key(line) in self._requeued_lines:
            logger.info("not put again, since it has been requeued: %r", obj)
            return
        requested = self.requested
        if requested is None or line is None:
            payload = self._transport.pack(obj, line)
            self._check_open()
            self._transport.put(payload, block, timeout)
            return
        own_queue = self._own_queue
        if (
            own_queue is not None
            and len(line) > own_queue.largest_line
            and own_queue.can_refer(obj, line, requested.longest_place())
        ):
            self._put_place(own_queue, requested, line, block, timeout)
            return
        payload = self._transport.pack(obj, line)
        if self.is_closed or own_queue is None:
            self._check_open()  # a call less for each message of the default carrier
        # Killed behind this, before the message is queued: it is outstanding, though put() has
        # not returned, and the next run does it.
        requested.append(line + b"\n")
        try:
            self._transport.put(payload, block, timeout)
        except BaseException:
            requested.withdraw([line])
            raise

    def _put_place(
        self,
        own_queue: OwnQueue,
        requested: JournalFile,
        line: bytes,
        block: bool,
        timeout: float | None,
    ) -> None:
        """Do the same for a message that is too large to travel itself."""
        if self.is_closed:
            self._check_open()
        place = requested.append_in_place([line])[0]
        try:
            own_queue.put(own_queue.pack_place(place), block, timeout)
        except BaseException as error:
            requested.withdraw([line], may_cut=isinstance(error, Full))
            raise

    def put_many(
        self, iterable: Iterable[Any], block: bool = True, timeout: float | None = None
    ) -> None:
        """Put messages and record them with one write. See `PersistentQueue.put_many`."""
        messages = list(iterable)
        if any(type(message) is Sentinel for message in messages):
            raise TypeError("DONE or FAILED among the messages; expected close() or fail() instead")
        lines = [self._line(message) for message in messages]
        if self._requeued_lines:
            requeued = self._requeued_lines
            new = [
                (message, line)
                for message, line in zip(messages, lines)
                if line is None or line_key(line) not in requeued
            ]
            if len(new) < len(messages):
                logger.info("%d messages not put again: requeued", len(messages) - len(new))
            messages, lines = [pair[0] for pair in new], [pair[1] for pair in new]
        requested = self.requested
        if requested is None:
            payloads = list(map(self._transport.pack, messages, lines))
            self._check_open()
            _, error = self._transport.put_many(payloads, block, timeout)
        else:
            recorded = [line for line in lines if line is not None]
            payloads = self._pack_all(messages, recorded, requested)
            self._check_open()
            if not payloads:
                return
            has_places = None in payloads
            if self._own_queue is not None and has_places:
                places = requested.append_in_place(recorded)
                payloads = [
                    self._own_queue.pack_place(place) if payload is None else payload
                    for payload, place in zip(payloads, places)
                ]
            else:
                requested.append(b"\n".join(recorded) + b"\n")
            count, error = self._transport.put_many(payloads, block, timeout)
            if error is not None:
                requested.withdraw(recorded[count:], not has_places or isinstance(error, Full))
        if error is not None:
            raise error

    def _pack_all(
        self, messages: Sequence[Any], lines: Sequence[bytes], requested: JournalFile
    ) -> list[Any]:
        """Return what travels for each message; None where that is to be the place of its line."""
        own_queue, pack = self._own_queue, self._transport.pack
        if own_queue is None or max(map(len, lines), default=0) <= own_queue.largest_line:
            return list(map(pack, messages, lines))
        longest = requested.longest_place()
        return [
            None if own_queue.can_refer(message, line, longest) else pack(message, line)
            for message, line in zip(messages, lines)
        ]

    def _line(self, message: Any) -> bytes | None:
        """Return the line to record, or to compare; None where neither is needed."""
        if self.requested is None:
            if not self._requeued_lines:
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

    # --- requeueing -----------------------------------------------------------------------

    def requeue(self) -> int:
        """Put what the run before has left. See `PersistentQueue.requeue_unprocessed_work`."""
        with self._lock:
            if self._to_requeue is None:
                work = self._previous.look()
                messages = work.messages(self._codec)
                if not self._codec.is_plain():
                    self._warn_of_one_way_functions(messages, work.lines)
                payloads = list(map(self._transport.pack, messages, work.lines))
                if payloads and self.is_closed:
                    raise ValueError(
                        "requeue_unprocessed_work() after close() or fail(): expected it before, "
                        "since workers stop there. The work is still outstanding."
                    )
                if not self._previous.claim():
                    payloads = []
                self._requeued_lines = set(map(line_key, work.lines))
                self._to_requeue = payloads
            count, error = self._transport.put_many(self._to_requeue)
            # What is left, if the carrier has refused, is for the next call.
            del self._to_requeue[:count]
            if error is not None:
                raise error
            return count

    def _warn_of_one_way_functions(self, messages: Sequence[Any], lines: Sequence[bytes]) -> None:
        for message, line in zip(messages, lines):
            try:
                if line_key(self._codec.encode(message)) == line_key(line):
                    continue
                problem = "gives another line"
            except Exception as error:
                problem = f"fails: {error}"
            logger.warning(
                "queue %r: %r was journalled as %r, but to journal it again %s. So its completion "
                "will not be recognised, and it will be requeued at each restart. Give "
                "formatter_list and converter_list functions that undo each other.",
                self._prefix,
                message,
                line,
                problem,
            )
            return

    # --- ending ---------------------------------------------------------------------------

    def finish(self, sentinel: Sentinel) -> None:
        """Put DONE or FAILED for each worker. See `PersistentQueue.close` and `fail`."""
        with self._lock:
            if not self.is_closed:
                self.is_closed = True
                self._sentinels_to_put = [sentinel] * self._transport.number_of_workers
            elif sentinel is FAILED:
                logger.warning("queue %r: fail() after close() or fail() ignored", self._prefix)
            while self._sentinels_to_put:
                self._transport.put_sentinel(self._sentinels_to_put[-1])
                self._sentinels_to_put.pop()
