"""An engine of our own, for results: each worker has a pipe, by which messages go and results come.

A worker has at most two messages: the one that it is at, and a small one that waits in its pipe. It
never waits in the pipe while the worker sends, and this process sends nothing large to one that is
busy, so neither waits for the other.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from multiprocessing.connection import wait

from persistq._run.dispatching import DONE, FAILED, LOST, NOT_BEGUN, Outcome
from persistq._run.serving import BEGUN, answer
from persistq._run.workers import GRACE_S, Crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from typing import Any

    from persistq._run.workers import Worker

logger = logging.getLogger("persistq")

# What waits in a pipe while its worker is busy; every system's pipes hold more.
_SMALL_BYTES = 2048
_EXIT_S = 30.0
# How often to look for those who take too long.
_WATCH_S = 0.05


class _Line:
    """The pipe to one worker.

    Attributes:
        messages (deque[Any]): What was sent, and not answered; the first is what it is at.
        sent (int): How many were sent.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.messages: deque[Any] = deque()
        self.sent = 0


class Piping:
    """The engine.

    Args:
        context (BaseContext): Starts the processes.
        number (int): How many workers.
        name (str): What they are called.
        function ((message) -> object): Does the work of one message.
        time_limit (float | None): Seconds that one may take.
    """

    knows_whose_death = True
    is_lost = False  # its workers are replaced

    def __init__(
        self,
        context: BaseContext,
        number: int,
        name: str,
        function: Callable[[Any], object],
        time_limit: float | None,
    ) -> None:
        self._context = context
        self._function = function
        self._crew = Crew(
            context, number, name, self._make, time_limit, self._on_end, lambda worker: None
        )
        self._outcomes: list[Outcome] = []
        self._held: deque[tuple[Any, bytes]] = deque()  # what waits for an idle worker
        self._has_begun = False
        self._next_watch_s = 0.0

    def _make(self, place: Any) -> tuple[Callable[..., None], tuple[Any, ...], Any, Any]:
        ours, theirs = self._context.Pipe()
        # Ours alone, once the worker has it: so its end is seen when the worker dies.
        return answer, (theirs, self._function, place), _Line(ours), theirs.close

    def begin(self) -> None:
        """Start the workers, before the first message."""
        if not self._has_begun:
            self._has_begun = True
            self._crew.start()

    def has_room(self) -> bool:
        """Tell whether it takes another message now."""
        if not self._has_begun:
            return True
        return not self._held and any(len(w.extra.messages) < 2 for w in self._crew.workers)

    def in_flight(self) -> int:
        """Return how many messages it has."""
        sent = sum(len(worker.extra.messages) for worker in self._crew.workers)
        return sent + len(self._held) + len(self._outcomes)

    def submit(self, message: Any) -> None:
        """Take a message.

        Args:
            message (Any): The message.
        """
        self._held.append((message, pickle.dumps(message)))
        self._send()

    def _send(self) -> None:
        while self._held and self._crew.workers:
            message, data = self._held[0]
            worker = min(self._crew.workers, key=lambda w: len(w.extra.messages))
            line = worker.extra
            if len(line.messages) > (1 if len(data) <= _SMALL_BYTES else 0):
                return
            if len(line.messages) > 1:
                return
            self._held.popleft()
            line.messages.append(message)
            line.sent += 1
            try:
                line.connection.send_bytes(data)
            except OSError:
                return  # it has just died, and is seen to next

    def collect(self, timeout: float) -> list[Outcome]:
        """Return what has come, once anything has.

        Args:
            timeout (float): Seconds to wait for it.

        Raises:
            PersistqError: Workers die before they begin a message.
        """
        crew = self._crew
        lines = {worker.extra.connection: worker.extra for worker in crew.workers}
        somebody_has_ended = not lines
        if lines and not self._outcomes:
            for ready in wait([*lines, *crew.sentinels()], timeout):
                line = lines.get(ready)
                if line is None:
                    somebody_has_ended = True
                else:
                    self._receive(line)
        now_s = time.monotonic()
        if somebody_has_ended or now_s >= self._next_watch_s:
            self._next_watch_s = now_s + _WATCH_S
            crew.watch()
        crew.raise_error()
        self._send()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _receive(self, line: _Line) -> bool:
        try:
            data = line.connection.recv_bytes()
        except (EOFError, OSError):
            return False  # it has died, perhaps half way: that is seen to with its process
        message = line.messages.popleft()
        try:
            is_done, value = pickle.loads(data)
        except Exception as error:
            is_done = False
            value = f"the result cannot be unpickled here ({type(error).__name__}: {error})"
        self._outcomes.append(Outcome(DONE if is_done else FAILED, message, value))
        return True

    def _on_end(self, worker: Worker) -> None:
        line = worker.extra
        # What it had sent before it died is here, and counts.
        while line.messages and self._receive(line):
            pass
        line.connection.close()
        begun = int(worker.place[BEGUN]) - (line.sent - len(line.messages))
        for number, message in enumerate(line.messages):
            if number < begun:
                self._outcomes.append(Outcome(LOST, message, worker.how_it_ended()))
            else:
                self._outcomes.append(Outcome(NOT_BEGUN, message))
        line.messages.clear()

    def stop(self) -> None:
        """Begin nothing more; what was not begun is collected as such."""
        self._outcomes += [Outcome(NOT_BEGUN, message) for message, _ in self._held]
        self._held.clear()
        self._crew.stop()
        self._tell_the_end()

    def _tell_the_end(self) -> None:
        for worker in self._crew.workers:
            try:
                worker.extra.connection.send_bytes(b"")
            except OSError:
                pass

    def end_now(self) -> None:
        """End at once, whatever is in flight."""
        self._held.clear()
        self._crew.end_now()
        if not self._crew.wait(GRACE_S * 2):
            for worker in self._crew.workers:
                worker.process.kill()
            self._crew.wait()
        self._outcomes.clear()

    def finish(self) -> None:
        """Let the workers go."""
        self._crew.is_ending = True
        self._tell_the_end()
        if not self._crew.wait(_EXIT_S):
            logger.warning("workers that have no more work do not end: they are ended")
            self.end_now()
