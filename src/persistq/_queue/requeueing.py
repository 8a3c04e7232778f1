"""Putting again what earlier runs have left, or what was set aside."""

from __future__ import annotations

import itertools
import logging

from persistq import _fs
from persistq._journal.lines import place_of
from persistq._journal.reading import lines_of
from persistq.exceptions import JournalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from persistq._journal.carrying import CarriedWork
    from persistq._journal.codec import Codec
    from persistq._journal.members import Membership
    from persistq._queue.failing import Failing
    from persistq._queue.producer import Producer
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

# How many messages of a file are put at a time: what is held in memory of them.
_BATCH = 1000


class Requeueing:
    """What one copy of a queue puts again.

    Args:
        producer (Producer): This copy's side that puts.
        transport (Transport): What carries the messages.
        codec (Codec): What turns messages into journal lines, and back.
        membership (Membership | None): The copy's part in the run; None without journals.
        prefix (str): The queue's prefix.
        carried (CarriedWork): What the runs before have left.
        failing (Failing | None): What sets messages aside; None without journals.
    """

    def __init__(
        self,
        producer: Producer,
        transport: Transport,
        codec: Codec,
        membership: Membership | None,
        prefix: str,
        carried: CarriedWork,
        failing: Failing | None,
    ) -> None:
        self._producer = producer
        self._transport = transport
        self._codec = codec
        self._membership = membership
        self._prefix = prefix
        self._carried = carried
        self._failing = failing
        self._after_fork()
        _fs.watch_forks(self)

    def _after_fork(self) -> None:
        """In a forked child: nothing has been put again by it."""
        self._batches: Iterator[list[Any]] | None = None
        self._refused: list[Any] = []
        self._requeued: tuple[str, set[int]] = ("", set())

    def requeue(self, skip_unreadable: bool, pass_over: bool = True) -> int:
        """Put what the runs before have left. See `PersistentQueue.requeue_unprocessed_work`."""
        with self._producer.lock:
            if self._batches is None:
                if self._membership is not None:
                    self._producer.announce()
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
            count, error = self._producer.send_many(self._refused, True, None)
            total += count
            del self._refused[:count]
            if error is not None:
                raise error

    def _prepare_from_elsewhere(self) -> None:
        """Get ready to put the work of a directory in which nothing is written."""
        work = self._carried.look()
        messages = work.messages(self._codec)
        self._check_end(len(messages))
        self._producer.known.add_lines(work.lines)
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
            self._producer.known.add_lines(record.line for record in self._failing.undecided())
        if pass_over and path is not None:
            self._producer.known.add_file(path)
        self._batches = iter(())
        if path and count:
            self._requeued = path, unreadable
            self._batches = self._read_batches(path, unreadable)
        return count

    def _check_end(self, count: int) -> None:
        if count and self._producer.is_closed:
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
        with self._producer.lock:
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
                known, self._producer.known.is_any = self._producer.known.is_any, False
                try:
                    # Killed behind this: it is on the queue, and still to be decided.
                    self._producer.put(message)
                finally:
                    self._producer.known.is_any = known
                failing.decide([record], begin_anew=True)
                count += 1
        return count
