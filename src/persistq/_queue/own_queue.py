"""Messages on the default carrier: as journal lines where these say all, pickled else.

A long line that is in a journal already is not sent: its place is (`lines`).
"""

from __future__ import annotations

import logging
import pickle
import time
from multiprocessing import util
from os import read
from queue import Empty, Full
from struct import error as StructError

from persistq._carrier.carrier import pickle_message
from persistq._carrier.pipe import RECORD_BYTES
from persistq._carrier.record import INLINE_BYTES, MARK, out_of_step, unpack
from persistq._carrier.refusal import refused
from persistq._journal.codec import Codec
from persistq._journal.lines import LineReader
from persistq._queue.orphans import is_worker
from persistq._sentinels import DONE, FAILED, Sentinel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from persistq._carrier.carrier import Carrier
    from persistq._carrier.feeder import Feeder
    from persistq._queue.transport import InTransit

logger = logging.getLogger("persistq")

_LOOK_S = 0.2
_LOOK_AROUND_S = 1.0
# What a woken process needs to look around and sleep again; and for how long all are called.
_FALL_ASLEEP_S = 0.0005
_CALLING_S = 0.3

_STR = frozenset({str})
_WIRE = Codec()
_decode = _WIRE.decode

# In front of a journal line, or of the place of one. Else it is a pickle, which begins with another
# byte: also of what a user puts on `joinable_queue` himself.
_LINE, _PLACE = b"L", b"P"
_LINE_BYTE, _PLACE_BYTE = _LINE[0], _PLACE[0]
_CLOSED, _FAILED = b"D", b"F"


class OwnQueue:
    """The default carrier, whose users may be killed at any moment.

    The end of the work is not a message, for that could be lost with who takes it: who closes says
    so on the carrier's board, behind all messages of its own, and whoever finds the carrier empty
    then has met the end, however many they are.

    Args:
        carrier (Carrier): The carrier.
        is_plain (bool): Whether journal lines say exactly what messages are: not so where
            formatters or converters are given.
        has_journal (bool): Whether messages have journal lines.
    """

    is_first_in_first_out = True
    crosses_processes = True
    is_watchful = False
    takes_sources = True
    reports_back = False

    def __init__(self, carrier: Carrier, is_plain: bool, has_journal: bool) -> None:
        self.carrier = carrier
        self.number_of_workers = 1
        self.number_of_producers = 1
        self.is_bounded = carrier._maxsize
        self._is_plain = is_plain
        self._has_journal = has_journal
        self.line_mark = _LINE if is_plain and has_journal else None
        self.longest_inline: float = INLINE_BYTES - len(_LINE) if has_journal else float("inf")
        self._lines = LineReader()
        board = carrier.board
        # A call less for each message.
        self._has_news = board.has_news
        self._news = board.news
        self._count_taken = carrier.tasks.took
        if has_journal:
            carrier.tasks.trust_the_taker()
        self.put = carrier.put_bytes
        self.task_done = carrier.tasks.finish
        self._get_bytes = carrier.get_bytes
        self.join = carrier.join
        self.token = board.token
        self.flags = board.flags
        self.in_transit = board.in_transit
        self.tell_failed = board.tell_failed
        self.is_refusal = carrier.is_refusal
        self._look_around(not is_worker())

    def numbers(self) -> Any:
        """Return what this thread has added and finished, of messages with journal lines."""
        return self.carrier.board.numbers() if self._has_journal else None

    def _look_around(self, does: bool) -> None:
        self._looks_around = does
        # Whether a `get` is one `read`, and nothing else is to be seen to.
        self._is_quick = not does and not self.is_bounded

    def waker(self) -> Callable[[], None]:
        """Return what makes a waiting `get` return None."""
        self._look_around(False)
        return self.carrier.wake

    def look_around_yourself(self) -> None:
        """Let a waiting `get` return None from time to time."""
        self._look_around(True)

    # --- putting --------------------------------------------------------------------------

    def check_put(self) -> None:
        """Refuse messages that nobody would take.

        Raises:
            ValueError: All producers have closed.
        """
        if self._has_news() and self.has_ended():
            raise ValueError(
                "put() behind the end: all producers have closed, and workers stop there. Expected "
                "follow-up work before close(): let the script join() before it closes."
            )

    def pack(self, message: Any, line: bytes | None) -> bytes:
        """Return what travels: the message as it is at this moment.

        Args:
            message (Any): A message.
            line (bytes | None): Its journal line, where there is one.

        Returns:
            bytes: What `put` takes.

        Raises:
            TypeError: The message cannot be pickled.
        """
        if self._is_plain:
            if line is not None and self._has_journal:
                return _LINE + line
            if _is_said_by_line(message):
                return _LINE + (_WIRE.encode(message) if line is None else line)
        try:
            return pickle_message(message)
        except Exception as error:
            kind = type(message)
            name = f"{kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
            raise TypeError(
                f"the message is a {name} that cannot be pickled ({error}); expected one that can "
                "be sent to another process. Put what it is made from (a path, a key) and make "
                "it in the worker, or use queue.Queue() and threads."
            ) from error

    def can_refer(self, message: Any, line: bytes, longest_place: int) -> bool:
        """Tell whether the place of its journal line had better travel for a message.

        Args:
            message (Any): A message.
            line (bytes): Its journal line.
            longest_place (int): How long its place may be.

        Returns:
            bool: False where the line is short enough to travel, or the place too long.
        """
        return self._is_plain and len(line) > self.longest_inline >= longest_place

    def pack_place(self, place: bytes) -> bytes:
        """Return what travels for a message whose line is at a place of a journal.

        Args:
            place (bytes): From `lines.place_of`.

        Returns:
            bytes: What `put` takes.
        """
        return _PLACE + place

    def put_sentinel(
        self, sentinel: Sentinel, block: bool = True, timeout: float | None = None
    ) -> None:
        """Put a sentinel, which is no task, and for which there is always room."""
        self.carrier.put_notice(pickle.dumps(sentinel))

    def put_many(
        self, payloads: Sequence[Any], block: bool = True, timeout: float | None = None
    ) -> tuple[int, BaseException | None]:
        """Put several; timeout in seconds, for all of them.

        Returns:
            tuple[int, BaseException | None]: How many the carrier took, from the first on, and
            why it took no more.
        """
        try:
            count, error = self.carrier.send_many(payloads, block, timeout)
        except BaseException as error:
            return 0, error
        return count, error if error is not None or count == len(payloads) else refused(Full())

    def put_source(
        self, count: int, source: Iterator[list[Any]]
    ) -> tuple[int, BaseException | None]:
        """Put so many, which are read only as they are needed."""
        try:
            return self.carrier.send_source(count, source)
        except BaseException as error:
            return 0, error

    # --- the end --------------------------------------------------------------------------

    def number_of_ends(self, sentinel: Sentinel) -> int:
        """Return 1: however many workers there are, each finds what is said once."""
        return 1

    def end(self, sentinel: Sentinel, block: bool = True) -> None:
        """Say, behind its messages, that this producer has closed or failed."""
        if sentinel is FAILED:
            self.carrier.end(_FAILED, self.number_of_workers, pickle.dumps(sentinel))
        else:
            self.carrier.end(_CLOSED, self.number_of_workers)

    def number_closed(self) -> int:
        """Return how many producers have closed or failed."""
        board = self.carrier.board
        return board.count(_CLOSED) + board.count(_FAILED)

    def has_ended(self) -> bool:
        """Tell whether all producers have closed, or one has failed."""
        return self._sentinel_when_empty() is not None

    def _sentinel_when_empty(self) -> Sentinel | None:
        board = self.carrier.board
        if board.is_failed_told() or board.count(_FAILED):
            return FAILED
        return DONE if board.count(_CLOSED) >= self.number_of_producers else None

    # --- taking ---------------------------------------------------------------------------

    def get(
        self, block: bool = True, timeout: float | None = None
    ) -> tuple[Any, bytes | None] | None:
        """Take the next message or sentinel; timeout in seconds.

        Returns:
            tuple[Any, bytes | None] | None: The message, and its journal line where that is what
            travelled; None when this process was woken to look around.

        Raises:
            queue.Empty: Nothing came within the time.
        """
        if self._news[0]:
            # Asked before the carrier is found empty, so all that stands before the end is taken.
            sentinel = self._sentinel_when_empty()
            if sentinel is not None:
                return self._get_before(sentinel)
        wait_fd = self.carrier.wait_fd
        if self._is_quick and block and timeout is None and wait_fd >= 0:
            # As in Carrier.get_bytes, _unpack and Codec.decode, without a call.
            record = read(wait_fd, RECORD_BYTES)
            try:
                data, mark = unpack(record)
            except StructError:
                raise out_of_step(record) from None
            if mark == MARK and record[0] <= INLINE_BYTES and record[1] == _LINE_BYTE:
                if not self._has_journal:
                    self._count_taken(None)
                line = data[1:]
                try:
                    text = line.decode()
                except UnicodeDecodeError:
                    return _decode(line), line
                return (_decode(line) if "\t" in text or "\x10" in text else text), line
            data = self.carrier.open_record(record)
        elif timeout is None and self._looks_around and block:
            try:
                data = self._get_bytes(True, _LOOK_AROUND_S)
            except Empty:
                return None
        else:
            data = self._get_bytes(block, timeout)
        if data is None:
            return None
        return self._unpack(data)

    def _get_before(self, sentinel: Sentinel) -> tuple[Any, bytes | None]:
        """Take a message that still waits, or the sentinel where none does."""
        carrier, was_woken = self.carrier, 0
        if sentinel is FAILED and carrier.board.is_failed_told():
            return FAILED, None
        try:
            while True:
                try:
                    data = carrier.get_bytes(False)
                except Empty:
                    if carrier.board.has_backlog():
                        time.sleep(0.001)  # what this process itself has still to send
                        continue
                    return sentinel, None
                if data is not None:
                    return self._unpack(data)
                was_woken += 1
        finally:
            # Each was for one of those who wait. Were one alone given back for several, the others
            # would sleep until the next look around, a second later.
            for _ in range(was_woken):
                carrier.wake()

    def _unpack(self, data: bytes) -> tuple[Any, bytes | None]:
        kind = data[0]
        if kind == _LINE_BYTE:
            line = data[1:]
            return _decode(line), line
        if kind == _PLACE_BYTE:
            line = self._lines.read(data[1:])
            return _decode(line), line
        message = pickle.loads(data)
        if message is FAILED:
            self.tell_failed()
        return message, None

    def leave_unread_at_exit(self, is_read: Callable[[], bool]) -> None:
        """Let this process end though nobody takes what is left; the journal has it.

        A multiprocessing queue waits at the interpreter's exit until all is in the pipe: for ever,
        where the workers have died and more was put than the pipe holds.

        Args:
            is_read (() -> bool): Whether somebody lives who may take messages. It is kept as long
                as the carrier is, so it must not hold that.
        """
        _leave_unread_at_exit(self.carrier, self.carrier._feeder, is_read)

    def report(self, kind: str, line: bytes, why: str) -> None:
        """Is never asked."""
        raise AssertionError("a report on a carrier that carries none")

    def take_report(self, timeout: float) -> tuple[str, bytes, str] | None:
        """Is never asked."""
        raise AssertionError("a report on a carrier that carries none")

    def qsize(self) -> int:
        """Return the number of messages that wait."""
        return self.carrier.qsize()

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        return self.carrier.empty()

    def full(self) -> bool:
        """Tell whether a put would have to wait."""
        return self.carrier.full()

    def call_the_waiting(self, transit: Mapping[str, InTransit]) -> None:
        """Make those who wait for messages come back once, so that they are seen to wait."""
        # One by one: of those that sleep, the kernel wakes who has slept longest, but one that is
        # awake takes whatever it finds, also what is there for others.
        deadline_s = time.monotonic() + _CALLING_S
        for _ in range(sum(len(t.taking) for t in transit.values())):
            self.carrier.wake()
            while True:
                time.sleep(_FALL_ASLEEP_S)
                if self.carrier.empty():
                    break
                if time.monotonic() > deadline_s:
                    return  # they are at work: those that come next find it

    def __getstate__(self) -> dict[str, Any]:
        return {
            "arguments": (self.carrier, self._is_plain, self._has_journal),
            "numbers": (self.number_of_workers, self.number_of_producers),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        OwnQueue.__init__(self, *state["arguments"])
        self.number_of_workers, self.number_of_producers = state["numbers"]


def _is_said_by_line(message: Any) -> bool:
    # A line brings back a str, but not a subclass of one.
    kind = type(message)
    return kind is str or (kind is tuple and _STR.issuperset(map(type, message)))


def _leave_unread_at_exit(
    carrier: Carrier | None, feeder: Feeder, is_read: Callable[[], bool]
) -> None:
    # Behind the moment (0) at which multiprocessing has joined this process's children, and
    # before the one (-5) at which the carrier waits.
    util.Finalize(carrier, _leave_unread, args=(feeder, is_read), exitpriority=-4)


def _leave_unread(feeder: Feeder, is_read: Callable[[], bool]) -> None:
    if not util.is_exiting():
        # The queue is garbage, as at the end of a script's main function. What it has still to
        # send is sent all the same, by this feeder; and its end is to be waited for no longer.
        if feeder.records:
            _leave_unread_at_exit(None, feeder, is_read)
        return
    try:
        while feeder.records and is_read():
            time.sleep(_LOOK_S)
    except OSError as error:
        # Without its directory nobody can tell; and a process must be able to end.
        logger.warning("cannot look for workers: %s", error)
    if feeder.records:
        logger.warning(
            "%d messages are left that nobody takes: they are outstanding for the next run",
            len(feeder.records),
        )
        feeder.leave_at_exit()
