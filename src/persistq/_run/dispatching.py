"""A job whose messages this process hands out itself: for results, and for executors.

It takes messages off the queue, gives them to an engine, and completes each when what came of it is
here. Killed at any moment: what was in flight was in hand of this process, and is outstanding.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from queue import Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    from persistq import PersistentQueue
    from persistq._run.suspects import Suspects

    class Engine(Protocol):
        """What calls the function, somewhere else."""

        # Whether a message is LOST only if it was begun by the very worker that has died.
        knows_whose_death: bool

        @property
        def is_lost(self) -> bool:
            """Whether it takes no more, so that the job stops for that."""

        def begin(self) -> None:
            """Get ready for the first message."""

        def has_room(self) -> bool:
            """Tell whether it takes another message now."""

        def submit(self, message: Any) -> None:
            """Take a message."""

        def collect(self, timeout: float) -> list[Outcome]:
            """Return what has come, once anything has; timeout in seconds."""

        def in_flight(self) -> int:
            """Return how many messages it has."""

        def stop(self) -> None:
            """Begin nothing more; what was not begun is collected as such."""

        def end_now(self) -> None:
            """End at once, whatever is in flight."""

        def finish(self) -> None:
            """Let the workers go."""


logger = logging.getLogger("persistq")

_COLLECT_S = 0.2
# How long what has come may wait, where messages come quickly.
_STALE_S = 0.01
# How long a message that was put may be on its way through the carrier.
_GET_S = 1.0

DONE, FAILED, LOST, NOT_BEGUN = "done", "failed", "lost", "not begun"


class Outcome:
    """What came of a message.

    Args:
        kind (str): DONE, with the result; FAILED, with the reason; LOST with who did it, with what
            has ended that; NOT_BEGUN.
        message (Any): The message, as it was submitted.
        value (Any): What belongs to the kind.
    """

    __slots__ = ("kind", "message", "value")

    def __init__(self, kind: str, message: Any, value: Any = None) -> None:
        self.kind = kind
        self.message = message
        self.value = value


class Dispatching:
    """A job at work.

    Args:
        queue (PersistentQueue): The queue; not bounded, for this process takes what it puts.
        engine (Engine): What calls the function.
        on_result ((message, result) -> object | None): Is given each result.
        tick (() -> None): Called several times a second, where nothing else is waited for.
        suspects (Suspects): Which messages are done alone, if the engine does not know whose
            death it was.
    """

    def __init__(
        self,
        queue: PersistentQueue,
        engine: Engine,
        on_result: Callable[[Any, Any], object] | None,
        tick: Callable[[], None],
        suspects: Suspects,
    ) -> None:
        self._queue = queue
        self._suspects = suspects
        self._engine = engine
        self._on_result = on_result
        self._tick = tick
        self._is_stopping = False
        self._collected_s = 0.0
        self._waiting = 0  # on the queue
        self._again: deque[Any] = deque()  # in hand, and to be submitted anew
        self._alone: deque[Any] = deque()  # in hand, and to be submitted when nothing else is

    def requeue(self, retry_failed: bool, is_any: bool) -> int:
        """Put what is set aside, if that is asked for, and what earlier runs have left.

        Args:
            retry_failed (bool): Whether what is set aside is tried again.
            is_any (bool): Whether earlier runs have left anything.

        Returns:
            int: How many messages were put.
        """
        count = self._queue.requeue_failed_work() if retry_failed else 0
        count += self._queue.requeue_unprocessed_work(pass_over=False)
        self._waiting = count
        if count:
            self._engine.begin()
        return count

    def do(self, messages: Iterable[Any]) -> None:
        """Put messages, as they come, and hand them out until all is done or set aside.

        Args:
            messages (Iterable[Any]): What is to be put.
        """
        engine, fresh, is_more = self._engine, iter(messages), True
        while True:
            while engine.has_room():
                if self._again:
                    engine.submit(self._again[0])
                    self._again.popleft()
                elif self._waiting:
                    if not self._hand_one_out():
                        break
                elif is_more:
                    is_more = self._put_one(fresh)
                    if time.monotonic() - self._collected_s > _STALE_S:
                        self._take_in(0)  # the next message may be long in coming
                else:
                    if self._alone and not engine.in_flight():
                        engine.submit(self._alone[0])
                        self._alone.popleft()
                    break
            if engine.in_flight():
                self._take_in(_COLLECT_S)
            elif not (self._waiting or self._again or self._alone or is_more):
                return

    def _put_one(self, fresh: Iterator[Any]) -> bool:
        try:
            message = next(fresh)
        except StopIteration:
            return False
        self._engine.begin()
        self._queue.put(message)
        self._waiting += 1
        return True

    def _hand_one_out(self) -> bool:
        try:
            message = self._queue.get(timeout=_GET_S)
        except Empty:
            return False
        self._waiting -= 1
        if self._is_suspect(message):
            self._alone.append(message)
            return True
        self._again.append(message)  # in hand: until the engine has it, it is not lost from sight
        self._engine.submit(message)
        self._again.pop()
        return True

    def _is_suspect(self, message: Any) -> bool:
        return not self._engine.knows_whose_death and self._suspects.have(message)

    def _take_in(self, timeout: float) -> None:
        for outcome in self._engine.collect(timeout):
            self._settle(outcome)
        self._collected_s = time.monotonic()
        self._tick()

    def _settle(self, outcome: Outcome) -> None:
        message, queue = outcome.message, self._queue
        if outcome.kind == DONE:
            if self._on_result is not None:
                try:
                    # Killed in here: the message is outstanding, and comes again.
                    self._on_result(message, outcome.value)
                except Exception as error:
                    logger.error("on_result has failed for %r", message, exc_info=error)
                    queue.task_failed(message, error)
                    return
            queue.task_done(message)
        elif outcome.kind == FAILED:
            queue.task_failed(message, outcome.value)
        elif outcome.kind == LOST and (self._engine.is_lost or not self._is_stopping):
            logger.warning("%r was lost with its worker: %s", message, outcome.value)
            self._suspects.add_death(message)
            if queue.task_lost(message, outcome.value):
                (self._alone if self._is_suspect(message) else self._again).append(message)
        else:
            self._again.append(message)

    # --- the end --------------------------------------------------------------------------

    def finish(self) -> None:
        """Let the workers go: all is done."""
        self._queue.close()
        self._engine.finish()

    def stop(self) -> None:
        """Finish what is in flight, and begin nothing more."""
        self._is_stopping = True
        self._engine.stop()
        logger.warning("the job stops: what is in hand is finished, nothing more is begun")
        while self._engine.in_flight():
            self._take_in(_COLLECT_S)
        self._give_up()
        self._engine.finish()

    def end_now(self) -> None:
        """End what is in flight."""
        self._engine.end_now()
        self._give_up()

    def _give_up(self) -> None:
        # What is in hand is outstanding, and this process goes on without it.
        self._queue.fail()
        self._queue.dispose(give_up=True)

    def release(self) -> None:
        """Let go of the queue, which ends this process's part in the run."""
        del self._queue
