"""The transport without a queue: the journal is all there is (`use_queue=False`)."""

from __future__ import annotations

import queue
import threading
from collections import deque

from persistq import _fs
from persistq._journal.outstanding import outstanding
from persistq._journal.run_state import RunState
from persistq._sentinels import DONE, Sentinel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.outstanding import Outstanding
    from persistq._queue.transport import InTransit


class JournalOnly:
    """Hands out what a directory's journals hold as outstanding.

    Nothing is kept of a message that is put: it is in the journal by then. So all work must be
    put before any is taken. Pickles anywhere; a copy makes a list of work of its own.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.
        codec (Codec): What turns journal lines into messages.
    """

    carrier = None
    is_first_in_first_out = True
    crosses_processes = False
    is_bounded = 0
    is_watchful = True
    takes_sources = False
    line_mark: bytes | None = None
    reports_back = False
    longest_inline = float("inf")

    def __init__(self, directory: str, prefix: str, codec: Codec) -> None:
        self._directory = directory
        self._prefix = prefix
        self._codec = codec
        self.number_of_workers = 1
        self.number_of_producers = 1
        self._end: Sentinel = DONE
        self._start()

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._waiting: deque[Any] | None = None
        _fs.watch_forks(self)

    def _after_fork(self) -> None:
        """In a forked child: be a copy of its own."""
        self._start()

    def _left(self) -> Outstanding:
        # Work that is carried counts once it is requeued.
        state = RunState(self._directory, self._prefix)
        return outstanding(state.chain(with_carried=False))

    def waker(self) -> None:
        """Return None: `get` never waits."""

    def look_around_yourself(self) -> None:
        """Do nothing: `get` never waits."""

    def leave_unread_at_exit(self, is_read: Callable[[], bool]) -> None:
        """Do nothing: nothing waits here for this process to end."""

    def check_put(self) -> None:
        """Refuse messages that nobody would be handed.

        Raises:
            ValueError: The list of work has been made.
        """
        if self._waiting is not None:
            raise ValueError(
                "put() after get() with use_queue=False: expected all messages before the first "
                "get(), since the list of work is made then"
            )

    def pack(self, message: Any, line: bytes | None) -> Any:
        """Return the message: its journal line is the copy."""
        return message

    def can_refer(self, message: Any, line: bytes, longest_place: int) -> bool:
        """Return False: nothing travels."""
        return False

    def pack_place(self, place: bytes) -> Any:
        """Is never asked."""
        raise AssertionError("a place where nothing travels")

    def put_source(
        self, count: int, source: Iterator[list[Any]]
    ) -> tuple[int, BaseException | None]:
        """Is never asked."""
        raise AssertionError("a source where nothing travels")

    def is_refusal(self, error: BaseException) -> bool:
        """Return False: nothing is ever refused."""
        return False

    def number_of_ends(self, sentinel: Sentinel) -> int:
        """Return 1: it is said once."""
        return 1

    def end(self, sentinel: Sentinel, block: bool = True) -> None:
        """Take note of the sentinel that ends the work."""
        self.put_sentinel(sentinel, block)

    def number_closed(self) -> int:
        """Return 0: nobody waits for others here."""
        return 0

    def has_ended(self) -> bool:
        """Return False: the sentinels stand behind the work."""
        return False

    def tell_failed(self) -> None:
        """Do nothing: nobody waits here."""

    def token(self) -> str:
        """Return no name."""
        return ""

    def flags(self) -> Any:
        """Return bytes that nobody looks at."""
        return bytearray(4)

    def numbers(self) -> Any:
        """Return None: nothing is counted here."""

    def in_transit(self) -> Mapping[str, InTransit] | None:
        """Return None: nothing is ever on its way."""
        return None

    def call_the_waiting(self, transit: Mapping[str, InTransit]) -> None:
        """Do nothing: nobody waits."""

    def put(self, payload: Any, block: bool = True, timeout: float | None = None) -> None:
        """Do nothing: a message is in the journal already."""

    def put_sentinel(
        self, sentinel: Sentinel, block: bool = True, timeout: float | None = None
    ) -> None:
        """Take note of the sentinel that ends the work."""
        with self._lock:
            self._end = sentinel
            if self._waiting is not None:
                # The list is made: there stay as many as there are workers, all of this kind.
                work = [message for message in self._waiting if not isinstance(message, Sentinel)]
                ends = min(len(self._waiting) - len(work) + 1, self.number_of_workers)
                self._waiting = deque(work + [sentinel] * ends)

    def put_many(
        self, payloads: Sequence[Any], block: bool = True, timeout: float | None = None
    ) -> tuple[int, BaseException | None]:
        """Do nothing: messages are in the journal already."""
        return len(payloads), None

    def get(self, block: bool = True, timeout: float | None = None) -> tuple[Any, bytes | None]:
        """Return the next outstanding message; behind the last, a sentinel for each worker.

        Raises:
            queue.Empty: There is nothing more: nobody else can put anything.
            JournalError: A journal line cannot be turned back into a message.
            OSError: A journal cannot be read.
        """
        with self._lock:
            if self._waiting is None:
                messages = self._left().messages(self._codec)
                messages += [self._end] * self.number_of_workers
                self._waiting = deque(messages)
            if not self._waiting:
                raise queue.Empty
            return self._waiting.popleft(), None

    def task_done(self) -> None:
        """Do nothing: the journal does not count."""

    def join(self, timeout: float | None = None) -> bool:
        """Tell whether nothing is outstanding. Nobody else works on it, so this never waits."""
        return not self._left().lines

    def report(self, kind: str, line: bytes, why: str) -> None:
        """Is never asked."""
        raise AssertionError("a report on a carrier that carries none")

    def take_report(self, timeout: float) -> tuple[str, bytes, str] | None:
        """Is never asked."""
        raise AssertionError("a report on a carrier that carries none")

    def qsize(self) -> int:
        """Return how much is left to hand out."""
        if self._waiting is not None:
            return len(self._waiting)
        return len(self._left().lines)

    def empty(self) -> bool:
        """Tell whether nothing is left."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Return False: the journal has room."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_waiting")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
