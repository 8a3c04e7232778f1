"""The worker's side of a PersistentQueue: what one process takes, begins, and completes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from queue import Empty
from time import monotonic

from persistq import _fs, _reasons
from persistq._journal import recovery
from persistq._journal.journal_file import JournalFile
from persistq._journal.names import COMPLETED, STARTED, WORKER
from persistq._journal.run_state import RunState
from persistq._queue import orphans
from persistq._queue.in_hand import FINISHED, Hand, InHand
from persistq._queue.inheritance import Inheritance
from persistq._queue.lookout import Lookout
from persistq._queue.reports import DONE as DONE_REPORT
from persistq._queue.reports import FAILED as FAILED_REPORT
from persistq._sentinels import DONE, FAILED, Sentinel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.members import Membership
    from persistq._queue.failing import Failing
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

# How long a message may be on its way from another process, before what the queue counts as
# waiting is taken to be lost with that process.
_IN_FLIGHT_S = 1.0
_SHOWN = 3


class Consumer:
    """What one copy of a queue takes off it.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns messages into journal lines, and back.
        membership (Membership | None): The copy's part in the run; None without journals.
        prefix (str): The queue's prefix.
        fsync (bool): Whether a completion is to survive a power cut.
        record_started (bool): Whether to record what is begun, for the living to take over.
        failing (Failing | None): What sets messages aside; None without journals.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        membership: Membership | None,
        prefix: str,
        fsync: bool,
        record_started: bool,
        failing: Failing | None,
    ) -> None:
        self._transport = transport
        self._reports_back = transport.reports_back
        self._codec = codec
        self._membership = membership
        self._prefix = prefix
        self._failing = failing
        # Whether it is known here which line each message in hand has.
        self._keeps_lines = membership is not None or transport.reports_back
        self.completed: JournalFile | None = None
        self._started: JournalFile | None = None
        if membership is not None:
            self.completed = JournalFile(membership, COMPLETED, fsync)
            if record_started and not transport.reports_back:
                # Not synced: after a power cut there is nobody to take over.
                self._started = JournalFile(membership, STARTED, False)
        self._inheritance: Inheritance | None = None
        if membership is not None and self._started is not None and failing is not None:
            self._inheritance = Inheritance(transport, membership, prefix, self._started, failing)
        self._records_only_ends = membership is not None and self._started is None
        self._begin()
        _fs.watch_forks(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._taken_over: deque[bytes] = deque()
        self._ends_owed = 0  # DONEs that were met, and not yet handed out
        self._has_adopted = False  # whether something of a dead worker was handed out here
        self.in_hand = InHand()
        self._lookout = Lookout(
            self._membership, self._transport, self._prefix, self.in_hand.is_anybody_taking
        )
        # The threads that have taken messages here.
        self.threads: set[threading.Thread] = set()
        self._local = threading.local()

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
        try:
            hand = self._local.hand
        except AttributeError:
            hand = self._announce()
        flags, membership = hand.flags, self._membership
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._lookout.is_orphaned:
                raise self._lookout.orphaned()
            if membership is not None and not membership.next_look_s:
                membership.check()  # somebody knows already that the run was carried on
            is_stuck = False
            if hand.last is not None or self.in_hand.others:
                is_stuck = flags[2] = block and timeout is None and orphans.is_alone()
            flags[0] = hand.next_generation()
            try:
                # From here until it is recorded, what this thread may have taken is its own.
                taken = self._transport.get(block, timeout)
                if taken is not None and type(taken[0]) is not Sentinel:
                    # Stopped for long, it may have woken up in a run that was carried on.
                    if membership is not None and monotonic() >= membership.next_look_s:
                        membership.check()
                    if self._records_only_ends and hand.last is None and taken[1] is not None:
                        hand.last = taken  # as in _record, without a call
                    elif self._keeps_lines:
                        self._record(hand, taken)
                    return taken[0]
            except Empty:
                self._lookout.look_around()
                raise
            finally:
                flags[0] = 0
                if is_stuck:
                    flags[2] = 0
            if taken is None:
                sentinel = self._lookout.look_around()
                if sentinel is not None:
                    return sentinel
            elif taken[0] is FAILED:
                return FAILED
            else:
                with self._lock:
                    self._ends_owed += 1
                message = self._get_at_the_end()
                if message is not None:
                    return message[0]
            if deadline_s is not None:
                timeout = max(deadline_s - time.monotonic(), 0)

    def _announce(self) -> Hand:
        """Before a thread's first message: be seen to live, and watch that the parent does."""
        with self._lock:
            if self._membership is not None:
                self._membership.join(WORKER)
            self._lookout.begin()
            self.threads = {t for t in self.threads if t.is_alive()} | {threading.current_thread()}
            numbers = None if self._has_adopted else self._transport.numbers()
            hand = self.in_hand.new_hand(self._transport.flags(), numbers)
        self._local.hand = hand
        return hand

    def _record(self, hand: Hand, taken: tuple[Any, bytes | None]) -> None:
        message, line = taken
        try:
            if line is None:
                line = self._codec.encode(message)
            # In hand first: a thread that meets the end removes the record of what was begun where
            # nothing is in hand.
            if hand.last is None:
                hand.last = (message, line)
            else:
                self.in_hand.take(hand, message, line)
            if self._started is not None:
                # Killed before this: the message was taken, and is in no living worker's hand.
                self._started.append(line + b"\n")
        except Exception as error:
            # Whatever it is, the message is here, and its work can be done.
            logger.warning("cannot record that %r was begun: %s", message, error)

    # --- the end --------------------------------------------------------------------------

    def _get_at_the_end(self) -> tuple[Any] | None:
        """Return what dead workers had in hand, then DONE; None where no DONE is owed."""
        with self._lock:
            while True:
                message = self._next_taken_over()
                if message is not None or not self._ends_owed:
                    return message
                if self._inheritance is not None:
                    self._taken_over.extend(self._inheritance.take())
                if not self._taken_over:
                    self._ends_owed -= 1
                    self.forget_started()
                    return (DONE,)

    def _next_taken_over(self) -> tuple[Any] | None:
        with self._lock:
            while self._taken_over:
                line = self._taken_over.popleft()
                try:
                    message = self._codec.decode(line)
                except Exception as error:
                    logger.error("%r, of a dead worker, is left outstanding: %s", line, error)
                    continue
                try:
                    hand = self._local.hand
                except AttributeError:
                    hand = self._announce()
                # What has died before it was on its way has no task: from now on that is asked.
                self._has_adopted = True
                self.in_hand.ask_the_carrier()
                self.in_hand.take(hand, message, line)
                return (message,)
        return None

    # --- completing -----------------------------------------------------------------------

    def line_to_complete(self, obj: Any) -> bytes:
        """Return the journal line of a message that is done, or set aside."""
        line = self.in_hand.line_of(obj)
        if line is None:
            line = self._codec.encode(obj)
            if self.in_hand.count and not self.in_hand.has(line):
                logger.warning(
                    "queue %r: task_done(%r), which is none of the messages in hand here (%s); it "
                    "is recorded as it was said. Expected the message itself: a path in place of "
                    "the name, or one column of the row, does not complete it.",
                    self._prefix,
                    obj,
                    ", ".join(map(repr, self.in_hand.some(_SHOWN))),
                )
        return line

    def task_done(self, obj: Any) -> None:
        """Record that a message is done, and tell the queue. See `PersistentQueue.task_done`."""
        try:
            hand = self._local.hand
            last = hand.last
        except AttributeError:  # this thread has taken nothing
            last = None
        if last is None or last[0] is not obj or self._reports_back:
            if self._keeps_lines or obj is DONE or obj is FAILED:
                self.task_done_many([obj])
            else:
                self._transport.task_done()
            return
        # Killed before this: the work is done again by the next run. Behind it: it is not.
        self.completed.append(last[1] + b"\n")  # type: ignore[union-attr]
        numbers = hand.numbers  # once: another thread may take it away
        if numbers is not None:
            numbers[FINISHED] += 1
        else:
            try:
                self._transport.task_done()
            except ValueError:
                if not self._has_deaths():
                    self.completed.withdraw([last[1]])  # type: ignore[union-attr]
                    raise
        hand.last = None

    def task_done_many(self, objs: Iterable[Any]) -> None:
        """Do the same for a batch, with one write. See `PersistentQueue.task_done_many`."""
        messages = [obj for obj in objs if obj is not DONE and obj is not FAILED]
        if self._transport.reports_back:
            for message in messages:
                self._report(message, DONE_REPORT)
        elif self.completed is None:
            for _ in messages:
                self._transport.task_done()
        elif messages:
            lines = [self.line_to_complete(obj) for obj in messages]
            self.completed.append(b"\n".join(lines) + b"\n")
            self.tell_done(list(zip(messages, lines)), self.completed, lines)

    def task_failed(self, obj: Any, reason: str | BaseException) -> None:
        """Set a message aside. See `PersistentQueue.task_failed`."""
        if obj is DONE or obj is FAILED:
            return
        if self._transport.reports_back:
            self._report(obj, FAILED_REPORT, _reasons.describe(reason))
            return
        assert self._failing is not None
        line = self.line_to_complete(obj)
        record = self._failing.record(line, reason)
        # Killed before this: it is outstanding. Behind it: it is set aside.
        self._failing.failed.append(record + b"\n")
        self.tell_done([(obj, line)], self._failing.failed, [record])

    def _report(self, obj: Any, kind: str, why: str = "") -> None:
        """Let the copy that records know what came of a message."""
        line = self.line_to_complete(obj)
        # Killed before this: the carrier finds the message in a dead worker's hand.
        self._transport.report(kind, line, why)
        self.in_hand.remove(obj, line)

    def task_lost(self, obj: Any, how: str) -> bool:
        """Count a failed attempt at a message in hand. See `PersistentQueue.task_lost`."""
        assert self._failing is not None
        line = self.line_to_complete(obj)
        if self._failing.count_attempt(line, how):
            return True
        self.tell_done([(obj, line)], self._failing.failed, [])
        return False

    def tell_done(
        self, done: list[tuple[Any, bytes]], file: JournalFile, records: list[bytes]
    ) -> None:
        """Tell the queue of messages whose end stands in a file; undo what it refuses."""
        for number, (obj, line) in enumerate(done):
            numbers = None if self._has_adopted else self._transport.numbers()
            if numbers is not None and self.in_hand.remove(obj, line):
                numbers[FINISHED] += 1
                continue
            try:
                self._transport.task_done()
            except ValueError:
                if records and not self._has_deaths():
                    file.withdraw(records[number:])
                    raise
            self.in_hand.remove(obj, line)

    def _has_deaths(self) -> bool:
        # The count of a carrier is too high or too low once somebody has died between a record
        # and its count. That is nothing to fail for: the journals are right.
        membership = self._membership
        if membership is None:
            return False
        try:
            return recovery.has_deaths(RunState(membership.directory, self._prefix))
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
                    if self._transport.has_ended():
                        break  # it stays said, however often it is asked
                    sentinels.append(taken[0])
                else:
                    if self._keeps_lines:
                        self.in_hand.keep(taken[0], taken[1] or self._codec.encode(taken[0]))
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

    # --- leaving --------------------------------------------------------------------------

    def in_hand_count(self, key: bytes) -> int:
        """Return how many messages with a line of this key are in hand of this process."""
        return self.in_hand.how_many(key)

    @property
    def has_work(self) -> bool:
        """Whether something is in hand, or waits to be handed out here."""
        return bool(self.in_hand.count or self._taken_over)

    def dispose(self, give_up: bool = False) -> bool:
        """Close the files; return False where other threads of this process are still at it."""
        here = threading.current_thread()
        if any(t is not here and t.is_alive() for t in self.threads):
            return False
        if self.has_work and not give_up and not orphans.is_alone():
            return False  # another thread may be about to complete it
        if not self.forget_started() and self._started is not None:
            self._started.close()
        if self.completed is not None:
            self.completed.close()
        self._local = threading.local()
        return True

    def forget_started(self) -> bool:
        """Remove the record of what was begun where nothing is in hand, so that it says nothing."""
        return self._started is not None and self._started.remove(unless=lambda: self.has_work)

    def close_files(self) -> None:
        """Close the files; they are opened again when they are needed."""
        for file in (self.completed, self._started):
            if file is not None:
                file.close()

    def give_up(self) -> bool:
        """Let go of what is in hand; return whether there was anything."""
        had_work = self.has_work
        self._taken_over.clear()
        self.in_hand = InHand()
        return had_work
