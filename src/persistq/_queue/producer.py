"""The side of a PersistentQueue that puts: what one process records and queues, and requeues."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from queue import Full

from persistq import _fs
from persistq._journal.journal_file import JournalFile
from persistq._journal.lines import place_of
from persistq._journal.names import PRODUCER, REQUESTED
from persistq._journal.reading import lines_of
from persistq._queue.desertion import is_desertion
from persistq._queue.known import Known
from persistq._sentinels import FAILED, Sentinel
from persistq.exceptions import JournalError, PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from persistq._journal.carrying import CarriedWork
    from persistq._journal.codec import Codec
    from persistq._journal.members import Membership
    from persistq._queue.consumer import Consumer
    from persistq._queue.desertion import Desertion
    from persistq._queue.failing import Failing
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

# How many messages of an iterator are recorded with one write, and how many of a file are put at a
# time: what is held in memory of them.
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
        carried (CarriedWork): What the runs before have left.
        consumer (Consumer): This copy's side that takes.
        failing (Failing | None): What sets messages aside; None without journals.
        desertion (Desertion): What tells whether anybody is left to make room.

    Attributes:
        requested (JournalFile | None): Records what is put.
        is_closed (bool): Whether this producer will put no more.
        has_put (bool): Whether it has put anything, or requeued.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        membership: Membership | None,
        prefix: str,
        fsync: bool,
        carried: CarriedWork,
        consumer: Consumer,
        failing: Failing | None,
        desertion: Desertion,
    ) -> None:
        self.is_closed = False
        self.requested: JournalFile | None = None
        if membership is not None:
            self.requested = JournalFile(membership, REQUESTED, fsync)
        self._transport = transport
        self._codec = codec
        self._membership = membership
        self._prefix = prefix
        self._carried = carried
        self._failing = failing
        self._desertion = desertion
        self._known = Known(membership, consumer.in_hand_count)
        self._begin()
        _fs.watch_forks(self)

    def _begin(self) -> None:
        self.has_put = False
        self._batches: Iterator[list[Any]] | None = None
        self._requeued: tuple[str, set[int]] = ("", set())
        self._refused: list[Any] = []
        # How this producer ends, once it is to: as what, and what has still to be put for that.
        self._end: dict[str, tuple[Sentinel, deque[Sentinel]]] = {}
        self._lock = threading.RLock()
        self._local = threading.local()

    def _after_fork(self) -> None:
        """In a forked child: be a producer of its own."""
        self._begin()

    def _announce(self) -> Any:
        """Before a thread's first message: be seen to live, as a producer."""
        if self._membership is not None:
            self._membership.join(PRODUCER)
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
        if self._known.is_any and line is not None and self._known.passes_over(line):
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
            flags = self._announce()
        if time.monotonic() >= self._membership.next_look_s:  # type: ignore[union-attr]
            self._membership.check()  # type: ignore[union-attr]
        if len(line) > transport.longest_inline and transport.can_refer(
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
        if self._known.is_any:
            pairs = [
                (message, line)
                for message, line in zip(messages, lines)
                if line is None or not self._known.passes_over(line)
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
            _, error = self._send_many(payloads, block, timeout)
            if error is not None:
                raise error
            return
        recorded = [line for line in lines if line is not None]
        payloads = self._pack_all(messages, recorded, requested)
        try:
            flags = self._local.flags
        except AttributeError:
            flags = self._announce()
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
            count, error = self._send_many(payloads, block, timeout)
            if error is not None:
                if is_desertion(error) or transport.is_refusal(error):
                    requested.withdraw(recorded[count:])
                raise error
        finally:
            flags[1] = 0

    def _send_many(
        self, payloads: Sequence[Any], block: bool, timeout: float | None
    ) -> tuple[int, BaseException | None]:
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
            if not self._known.is_any:
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

    def requeue(self, skip_unreadable: bool, pass_over: bool = True) -> int:
        """Put what the runs before have left. See `PersistentQueue.requeue_unprocessed_work`."""
        with self._lock:
            if self._batches is None:
                if self._membership is not None:
                    self._announce()
                    self._membership.check()
                if self._carried.looked_at is not None:
                    self._prepare_from_elsewhere()
                else:
                    count = self._prepare(skip_unreadable, pass_over)
                    if count and not self._transport.is_bounded and self._transport.takes_sources:
                        return self._put_source(count)
            return self._put_batches()

    def _put_source(self, count: int) -> int:
        """Put so many at once, to be read as they are needed."""
        batches, self._batches = self._batches or iter(()), iter(())
        sent, error = self._transport.put_source(count, batches)
        if error is None:
            return sent
        if self._transport.is_refusal(error):
            # What is behind the last that was sent is for the next call.
            path, unreadable = self._requeued
            payloads = itertools.chain.from_iterable(self._read_batches(path, unreadable))
            rest = itertools.islice(payloads, sent, None)
            self._batches = iter(lambda: list(itertools.islice(rest, _BATCH)), [])
        raise error

    def _put_batches(self) -> int:
        """Put what is left; if the carrier refuses some, that is for the next call."""
        total = 0
        while True:
            batch = self._refused
            if not batch:
                batch = next(self._batches, []) if self._batches is not None else []
            if not batch:
                return total
            self._refused = list(batch)
            count, error = self._send_many(self._refused, True, None)
            total += count
            del self._refused[:count]
            if error is not None:
                raise error

    def _prepare_from_elsewhere(self) -> None:
        """Get ready to put the work of a directory in which nothing is written."""
        work = self._carried.look()
        messages = work.messages(self._codec)
        self._check_end(len(messages))
        self._known.add_lines(work.lines)
        payloads = list(map(self._transport.pack, messages, work.lines))
        self._batches = iter([payloads] if payloads else [])

    def _prepare(self, skip_unreadable: bool, pass_over: bool) -> int:
        """Get ready to put the carried work, and claim it; return how many messages that is."""
        unreadable: set[int] = set()
        while True:
            path, count = self._carried.path(), 0
            if path is None:
                break
            try:
                count = self._check_lines(path, unreadable, skip_unreadable)
                self._check_end(count)
                claimed = self._carried.claim()
            except FileNotFoundError:
                if path == self._carried.path():
                    raise
                continue  # another copy has just claimed it, under another name
            if claimed is None:
                count, path = 0, self._carried.path()  # another copy puts it
            else:
                path = claimed
            break
        if pass_over and self._failing is not None:
            self._known.add_lines(record.line for record in self._failing.undecided())
        if pass_over and path is not None:
            self._known.add_file(path)
        self._batches = iter(())
        if path and count:
            self._requeued = path, unreadable
            self._batches = self._read_batches(path, unreadable)
        return count

    def _check_end(self, count: int) -> None:
        if count and self.is_closed:
            raise ValueError(
                "requeue_unprocessed_work() after close() or fail(): expected it before, "
                "since workers stop there. The work is still outstanding."
            )

    def _check_lines(self, path: str, unreadable: set[int], skip_unreadable: bool) -> int:
        """Read all lines once, so that what cannot be read is known before anything is put."""
        count, decode, warned = 0, self._codec.decode, self._codec.is_plain()
        for number, line in enumerate(lines_of(path), 1):
            try:
                if not warned:
                    warned = self._warn_of_one_way_functions(decode(line), line)
                elif b"\x10" in line or not self._codec.is_plain():
                    decode(line)
            except Exception as error:
                text = line.decode("utf-8", "surrogateescape")
                problem = JournalError(
                    f"{path}, line {number}: {text!r} cannot be turned back into a message "
                    f"({type(error).__name__}: {error}); expected text written by this queue's "
                    "formatters. Pass the converter_list that matches, or "
                    "skip_unreadable=True, which sets such messages aside."
                )
                if not skip_unreadable or self._failing is None:
                    raise problem from error
                # Killed behind this: it is set aside, and completed with that.
                self._failing.set_aside_line(line, problem)
                unreadable.add(number)
            else:
                count += 1
        return count

    def _read_batches(self, path: str, unreadable: set[int]) -> Iterator[list[Any]]:
        """Yield what travels for each line of a file, some at a time."""
        codec, transport = self._codec, self._transport
        encoded, batch, where = path.encode("utf-8", "surrogateescape"), [], 0
        longest = len(place_of(encoded, 0, 0))
        for number, line in enumerate(lines_of(path), 1):
            if number not in unreadable:
                message = codec.decode(line)
                if len(line) > transport.longest_inline and transport.can_refer(
                    message, line, longest
                ):
                    batch.append(transport.pack_place(place_of(encoded, where, len(line))))
                else:
                    batch.append(transport.pack(message, line))
                if len(batch) >= _BATCH:
                    yield batch
                    batch = []
            where += len(line) + 1
        if batch:
            yield batch

    def _warn_of_one_way_functions(self, message: Any, line: bytes) -> bool:
        try:
            if self._codec.encode(message) == line:
                return False
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
        return True

    def requeue_failed(self, messages: Iterable[Any] | None) -> int:
        """Put what was set aside again. See `PersistentQueue.requeue_failed_work`."""
        failing = self._failing
        if failing is None:
            return 0
        count = 0
        with self._lock:
            for record in failing.choose(messages):
                try:
                    message = self._codec.decode(record.line)
                except Exception as error:
                    raise JournalError(
                        f"{record.line.decode('utf-8', 'surrogateescape')!r}, which is set aside, "
                        f"cannot be turned back into a message ({type(error).__name__}: {error}); "
                        "expected text written by this queue's formatters. Pass the converter_list "
                        "that matches, or give it up with discard_failed_work()."
                    ) from error
                known, self._known.is_any = self._known.is_any, False
                try:
                    # Killed behind this: it is on the queue, and still to be decided.
                    self.put(message)
                finally:
                    self._known.is_any = known
                failing.decide([record], begin_anew=True)
                count += 1
        return count

    # --- ending ---------------------------------------------------------------------------

    def close_files(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self.requested is not None:
            self.requested.close()

    def finish(self, sentinel: Sentinel, block: bool = True) -> None:
        """Put DONE or FAILED for each worker. See `PersistentQueue.close` and `fail`.

        Args:
            sentinel (Sentinel): DONE or FAILED.
            block (bool): Whether to wait for room, on a queue of the user's that is full.
        """
        with self._lock:
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
