"""Messages on a queue that the user gives: of `multiprocessing`, of threads, or any other."""

from __future__ import annotations

import pickle
import queue
import threading
import time

from persistq import _fs
from persistq._queue import orphans
from persistq._sentinels import DONE, Sentinel
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._queue.transport import InTransit

# In front of a pickled message, to tell it from whatever else may be on a user's queue.
_PICKLED = b"\x10persistq\x10"
_LOOK_AROUND_S = 1.0
_TOLD_S = 0.05
# What says that a queue has not taken it: full, or closed (which has a name from 3.13 on).
_REFUSALS = (queue.Full, ValueError, getattr(queue, "ShutDown", queue.Full))
_UNBOUNDED = 1 << 15  # a multiprocessing queue without bound has as many slots as semaphores count
_NEVER_CHANGE = (str, int, float, bool, type(None), bytes, Sentinel)


class UserQueue:
    """A queue of the user's, such as a `multiprocessing.JoinableQueue`.

    Args:
        carrier (Any): Anything with `put(obj, block, timeout)` and `get(block, timeout)`.
        codec (Codec): What turns journal lines into messages.

    Raises:
        TypeError: It has no such methods.
    """

    is_watchful = False
    takes_sources = False
    line_mark: bytes | None = None
    longest_inline = float("inf")

    def __init__(self, carrier: Any, codec: Codec) -> None:
        import inspect  # here, since it is slow to import

        for name in ("put", "get"):
            if not callable(getattr(carrier, name, None)):
                raise TypeError(
                    f"queue= is {carrier!r}, which has no {name}(); expected a queue such as "
                    "multiprocessing.JoinableQueue() or queue.Queue()"
                )
        try:
            inspect.signature(carrier.put).bind("a message", True, None)
        except ValueError:
            pass  # written in C, and does not tell
        except TypeError as error:
            raise TypeError(
                f"queue= is a {type(carrier).__qualname__}, whose put() takes no (obj, block, "
                "timeout); expected a queue such as multiprocessing.JoinableQueue() or "
                "queue.Queue()"
            ) from error
        self.carrier = carrier
        self._codec = codec
        self.number_of_workers = 1
        self.number_of_producers = 1
        self.is_bounded = _bound_of(carrier)
        self.crosses_processes = not isinstance(carrier, (queue.Queue, queue.SimpleQueue))
        self.reports_back = all(
            callable(getattr(carrier, name, None)) for name in ("put_report", "get_report")
        )
        self._task_done: Callable[[], None] | None = getattr(carrier, "task_done", None)
        self._begin()
        # Not so for stacks and priority queues, and nobody knows of somebody else's.
        self.is_first_in_first_out = type(carrier) in (queue.Queue, queue.SimpleQueue) or (
            type(carrier).__module__ == "multiprocessing.queues"
        )

    def _begin(self) -> None:
        # Of whoever's own class nobody knows how it waits; a worker must notice all the same.
        self._looks_around = self.crosses_processes and (
            orphans.is_worker() or type(self.carrier).__module__ == "multiprocessing.queues"
        )
        self._waiting: threading.Thread | None = None
        self._dones_met = 0
        self._lock = threading.RLock()
        _fs.watch_forks(self)

    def _after_fork(self) -> None:
        """In a forked child: meet the `DONE`s anew."""
        self._begin()

    def waker(self) -> None:
        """Return None: `get` looks around by itself."""

    def look_around_yourself(self) -> None:
        """Do nothing: `get` does so."""

    def leave_unread_at_exit(self, is_read: Callable[[], bool]) -> None:
        """Do nothing: nothing waits here for this process to end."""

    def check_put(self) -> None:
        """Do nothing: a queue of its own takes messages at any time."""

    def pack(self, message: Any, line: bytes | None) -> Any:
        """Return what is put on the carrier: the message as it is at this moment.

        Args:
            message (Any): A message.
            line (bytes | None): Its journal line, where there is one: then a worker gets what a
                restart would give it.

        Returns:
            Any: Something that later changes to the message do not reach.

        Raises:
            TypeError: The message cannot be pickled, and the carrier crosses processes.
        """
        if self.reports_back and type(message) is not Sentinel:
            return self._codec.encode(message) if line is None else line
        if type(message) is str or type(message) is Sentinel:
            return message
        if line is not None:
            message = self._codec.comes_back_as(message, line)
        if not self.crosses_processes:
            return self._copy(message)
        try:
            return _PICKLED + pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            kind = f"{type(message).__module__}.{type(message).__qualname__}"
            raise TypeError(
                f"the message is a {kind.replace('builtins.', '')} that cannot be pickled "
                f"({error}); expected one that can be sent to another process. Put what it is "
                "made from (a path, a key) and make it in the worker, or use queue.Queue() and "
                "threads."
            ) from error

    def _copy(self, message: Any) -> Any:
        if type(message) in _NEVER_CHANGE:
            return message
        try:
            return pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except Exception:
            # An open file, a lock: threads may share it, and nobody can copy it.
            return message

    def put(self, payload: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put what `pack` returned; timeout in seconds.

        Raises:
            queue.Full: No room within the time.
        """
        self.carrier.put(payload, block, timeout)

    def can_refer(self, message: Any, line: bytes, longest_place: int) -> bool:
        """Return False: a queue of the user's knows no places."""
        return False

    def pack_place(self, place: bytes) -> Any:
        """Is never asked."""
        raise AssertionError("a place on a queue of the user's")

    def put_source(
        self, count: int, source: Iterator[list[Any]]
    ) -> tuple[int, BaseException | None]:
        """Is never asked."""
        raise AssertionError("a source on a queue of the user's")

    def is_refusal(self, error: BaseException) -> bool:
        """Tell whether what has raised an error was certainly not put."""
        return isinstance(error, _REFUSALS)

    def number_of_ends(self, sentinel: Sentinel) -> int:
        """Return how many workers there are: each takes a sentinel off the queue."""
        return self.number_of_workers

    def end(self, sentinel: Sentinel, block: bool = True) -> None:
        """Put the sentinel of this producer for one worker."""
        self.put_sentinel(sentinel, block)

    def number_closed(self) -> int:
        """Return how many producers have closed, as far as this process has met it."""
        return self._dones_met

    def has_ended(self) -> bool:
        """Return False: what a sentinel says is for the one who takes it."""
        return False

    def tell_failed(self) -> None:
        """Do nothing: each finds out by itself."""

    def token(self) -> str:
        """Return no name: nobody sees what others are just doing."""
        return ""

    def flags(self) -> Any:
        """Return bytes that nobody looks at."""
        return bytearray(4)

    def numbers(self) -> Any:
        """Return None: it counts by itself."""

    def in_transit(self) -> Mapping[str, InTransit] | None:
        """Return None: it cannot be seen."""
        return None

    def call_the_waiting(self, transit: Mapping[str, InTransit]) -> None:
        """Do nothing."""

    def put_sentinel(
        self, sentinel: Sentinel, block: bool = True, timeout: float | None = None
    ) -> None:
        """Put a sentinel; timeout in seconds.

        Raises:
            queue.Full: No room within the time.
        """
        self.carrier.put(sentinel, block, timeout)
        # It is no task. Acknowledged by who takes it, it would be missed by join() where the
        # worker for which it was meant has died.
        self.task_done()

    def put_many(
        self, payloads: Sequence[Any], block: bool = True, timeout: float | None = None
    ) -> tuple[int, BaseException | None]:
        """Put several; timeout in seconds, for each of them.

        Returns:
            tuple[int, BaseException | None]: How many the carrier took, from the first on, and
            why it took no more.
        """
        put, count = self.carrier.put, 0
        try:
            for payload in payloads:
                put(payload, block, timeout)
                count += 1
        except BaseException as error:
            return count, error
        return count, None

    def get(
        self, block: bool = True, timeout: float | None = None
    ) -> tuple[Any, bytes | None] | None:
        """Take the next message or sentinel; timeout in seconds.

        Returns:
            tuple[Any, bytes | None] | None: The message, and its journal line where that travels.
            None from time to time, to look around, and for a `DONE` that is not the last.

        Raises:
            queue.Empty: Nothing came within the time.
        """
        if block and timeout is None and self._looks_around:
            try:
                payload = self.carrier.get(True, _LOOK_AROUND_S)
            except queue.Empty:
                return None
        else:
            payload = self.carrier.get(block, timeout)
        if self.reports_back and type(payload) is bytes:
            return self._codec.decode(payload), payload
        if type(payload) is bytes and payload.startswith(_PICKLED):
            return pickle.loads(memoryview(payload)[len(_PICKLED) :]), None
        if payload is DONE and not self._is_last_done():
            return None
        return payload, None

    def _is_last_done(self) -> bool:
        # Each producer puts a DONE for each worker, behind its own work. Whichever workers take
        # them, the last one that is taken stands behind all work of all producers.
        with self._lock:
            self._dones_met += 1
            if self._dones_met < self.number_of_producers:
                return False
            self._dones_met = 0
            return True

    def task_done(self) -> None:
        """Acknowledge one message, where the carrier counts them.

        Raises:
            ValueError: Called more often than there were messages.
        """
        if self._task_done is not None:
            self._task_done()

    def report(self, kind: str, line: bytes, why: str) -> None:
        """Put what came of a message on its way back."""
        self.carrier.put_report((kind, line, why))

    def take_report(self, timeout: float) -> tuple[str, bytes, str] | None:
        """Take the next one; timeout in seconds.

        Returns:
            tuple[str, bytes, str] | None: Its kind, the message's line, and why; None where
            none came within the time.
        """
        try:
            kind, line, why = self.carrier.get_report(True, timeout)
        except queue.Empty:
            return None
        return kind, line, why

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all messages are acknowledged, or `timeout` seconds.

        Returns:
            bool: Whether they are.

        Raises:
            PersistqError: The carrier cannot tell.
        """
        carrier = self.carrier
        join = getattr(carrier, "join", None)
        if join is None:
            raise PersistqError(
                f"join() needs a carrier that has one; {type(self.carrier).__qualname__}, given "
                "as queue=, has none. Use multiprocessing.JoinableQueue() or queue.Queue()."
            )
        if timeout is None:
            join()
            return True
        unfinished = getattr(carrier, "all_tasks_done", None)
        if isinstance(unfinished, threading.Condition):
            # Of queue.Queue: documented in its source for those who build on it, and exact.
            with unfinished:
                return unfinished.wait_for(lambda: not carrier.unfinished_tasks, max(timeout, 0))
        if hasattr(carrier, "_cond") and hasattr(carrier, "_unfinished_tasks"):
            return _join_in_time(carrier, max(timeout, 0))
        # No join() has a timeout, so a thread waits, and is waited for; one that is left behind is
        # there for the next call.
        with self._lock:
            waiting = self._waiting
            if waiting is None or not waiting.is_alive():
                try:
                    waiting = threading.Thread(target=join, name="persistq-join", daemon=True)
                    waiting.start()
                except RuntimeError as error:
                    raise PersistqError(
                        f"join(timeout) over a {type(carrier).__qualname__} needs a daemon thread, "
                        f"which cannot be started here ({error}). Use join() without a timeout, or "
                        "the default carrier."
                    ) from error
                self._waiting = waiting
        # Where all is done that takes a moment to be told, also of those who have no time.
        waiting.join(max(timeout, _TOLD_S))
        return not waiting.is_alive()

    def qsize(self) -> int:
        """Return the number of messages and sentinels that wait, where the carrier knows it.

        Raises:
            NotImplementedError: It does not.
        """
        qsize = getattr(self.carrier, "qsize", None)
        if qsize is None:
            raise NotImplementedError(f"{type(self.carrier).__qualname__} has no qsize()")
        return int(qsize())

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        empty = getattr(self.carrier, "empty", None)
        return bool(empty()) if empty is not None else self.qsize() == 0

    def full(self) -> bool:
        """Tell whether a put would have to wait; False where the carrier cannot tell."""
        full = getattr(self.carrier, "full", None)
        return bool(full()) if full is not None else False

    def __getstate__(self) -> dict[str, Any]:
        own = ("_waiting", "_lock", "_dones_met")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def _join_in_time(carrier: Any, timeout_s: float) -> bool:
    """Do what `join` of a multiprocessing.JoinableQueue does, for no longer than this."""
    deadline_s = time.monotonic() + timeout_s
    # Whoever was killed with the lock in hand keeps it for ever.
    if not carrier._cond.acquire(True, timeout_s):
        return False
    try:
        while not carrier._unfinished_tasks._semlock._is_zero():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            carrier._cond.wait(left_s)
        return True
    finally:
        carrier._cond.release()


def _bound_of(carrier: Any) -> int:
    """Return how many messages a queue of the standard library holds; 0 where nobody knows."""
    # Of the standard library's own classes only: they wait as long as they are told to.
    kind, size = type(carrier), 0
    if kind.__module__ == "multiprocessing.queues":
        size = getattr(carrier, "_maxsize", 0)
    elif kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue):
        size = carrier.maxsize
    return size if isinstance(size, int) and 0 < size < _UNBOUNDED else 0
