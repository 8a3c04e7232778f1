"""The worker processes of `run`: started, watched, replaced, and ended."""

from __future__ import annotations

import logging
import signal
import threading
import time

from persistq._journal.recovery import describe_exit
from persistq._run.serving import (
    AT_WORK,
    BEGAN,
    BEGUN,
    BROKEN,
    END_NOW,
    LIMIT_OF,
    ORDER,
    PLACE_SIZE,
    STATE,
    STOP,
    TIME_IS_UP,
)
from persistq._run.stopping import Held
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from typing import Any

logger = logging.getLogger("persistq")

# How long a worker that is told to end may take, before it is killed.
GRACE_S = 5.0
# So many workers in a row, and as many as there are to be, may die without beginning a message.
_START_FAILURES = 3
# So many workers in a row may end by an error of the queue's.
_QUEUE_FAILURES = 3


class Worker:
    """One worker process.

    Attributes:
        process (BaseProcess): The process.
        place (Any): What it shares with this one.
        extra (Any): What was made for it by who asked for it.
        killed_at_s (float | None): When it is to be killed, after it was told to end.
        how (str): What ends it, where this process does.
    """

    def __init__(self, process: BaseProcess, place: Any, extra: Any) -> None:
        self.process = process
        self.place = place
        self.extra = extra
        self.killed_at_s: float | None = None
        self.how = ""

    def how_it_ended(self) -> str:
        """Return what has ended it, once it has."""
        return self.how or describe_exit(self.process.exitcode)


class Crew:
    """As many workers as there are to be: who dies is replaced.

    Not for several threads at once, but for `is_ending` and `raise_error`.

    Args:
        context (BaseContext): Starts the processes.
        number (int): How many workers.
        name (str): What they are called.
        make ((place) -> tuple[target, args, extra, started]): What a new worker is to run, what is
            to be remembered of it, and what is called once it has been started.
        time_limit (float | None): Seconds that a message may take; None for any.
        on_end ((worker: Worker) -> None): Called when one has ended.
        on_limit ((worker: Worker) -> None): Called before one is ended for taking too long.

    Attributes:
        is_ending (bool): Whether nobody is replaced any more.
        workers (list[Worker]): Who has been started, and has not been seen to end.
    """

    def __init__(
        self,
        context: BaseContext,
        number: int,
        name: str,
        make: Callable[[Any], tuple[Callable[..., None], tuple[Any, ...], Any, Any]],
        time_limit: float | None,
        on_end: Callable[[Worker], object],
        on_limit: Callable[[Worker], object],
    ) -> None:
        self._context: Any = context
        self._number = number
        self._name = name
        self._make = make
        self._time_limit = time_limit
        self._on_end = on_end
        self._on_limit = on_limit
        self._started = 0
        self._start_failures = 0
        self._queue_failures = 0
        self._error: PersistqError | None = None
        self._lock = threading.Lock()
        self.is_ending = False
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Start all workers."""
        if self._context.get_start_method() == "forkserver":
            from multiprocessing import forkserver

            forkserver.ensure_running()  # not with signals held back: it starts others, too
        while len(self.workers) < self._number:
            self._start_one()

    def _start_one(self) -> None:
        place = self._context.RawArray("d", PLACE_SIZE)
        target, args, extra, started = self._make(place)
        self._started += 1
        process = self._context.Process(
            target=target, args=args, name=f"{self._name}-{self._started}", daemon=False
        )
        with Held():
            process.start()
        self.workers.append(Worker(process, place, extra))
        if started is not None:
            started()

    def sentinels(self) -> list[int]:
        """Return what to wait for: ready when a worker has ended."""
        return [worker.process.sentinel for worker in self.workers]

    def watch(self) -> None:
        """See to those who have ended, and to those who take too long."""
        for worker in list(self.workers):
            if worker.process.exitcode is not None:
                self._see_to(worker)
            elif worker.killed_at_s is not None or self._time_limit is not None:
                self._see_to_time(worker)
        while not self.is_ending and self._error is None and len(self.workers) < self._number:
            self._start_one()

    def _see_to(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self._on_end(worker)
        worker.process.join()
        if self.is_ending:
            return
        how = worker.how_it_ended()
        if worker.place[STATE] == BROKEN:
            self._queue_failures += 1
            if self._queue_failures >= _QUEUE_FAILURES:
                self._give_up(
                    f"{self._queue_failures} workers in a row could not use the queue (the disk "
                    "is full, or the folder of the run is gone: see what they have printed)"
                )
        elif worker.place[BEGUN]:
            self._start_failures = self._queue_failures = 0
        elif worker.process.exitcode or worker.place[STATE] != AT_WORK:
            self._start_failures += 1
            if self._start_failures >= max(_START_FAILURES, self._number):
                self._give_up(
                    f"{self._start_failures} workers in a row have ended before they began a "
                    f"message (the last: {how}); see what they have printed. Expected a function "
                    "that a new process can import"
                )
        if self._error is None:
            logger.info("worker %s has ended: %s; it is replaced", worker.process.pid, how)

    def _give_up(self, what: str) -> None:
        self._error = PersistqError(
            f"{what}. What is not done is outstanding: mend it, and call run() again."
        )

    def raise_error(self) -> None:
        """Raise what makes it pointless to go on, if anything does.

        Raises:
            PersistqError: Workers die before they begin, or cannot use the queue.
        """
        if self._error is not None:
            raise self._error

    def _see_to_time(self, worker: Worker) -> None:
        now_s, place = time.monotonic(), worker.place
        began_s = place[BEGAN]
        if worker.killed_at_s is None:
            limit_s = self._time_limit
            if limit_s is not None and began_s and now_s - began_s > limit_s and not place[ORDER]:
                worker.how = f"it took longer than the time limit of {limit_s:g} s"
                self._on_limit(worker)
                place[LIMIT_OF] = began_s
                place[ORDER] = TIME_IS_UP
                self._terminate(worker)
        elif place[ORDER] == TIME_IS_UP and began_s != place[LIMIT_OF]:
            # It was done in the last moment.
            worker.killed_at_s, worker.how = None, ""
            place[ORDER] = 0
        elif now_s >= worker.killed_at_s:
            worker.process.kill()

    def _terminate(self, worker: Worker) -> None:
        worker.killed_at_s = time.monotonic() + GRACE_S
        if hasattr(signal, "SIGTERM"):
            worker.process.terminate()

    def stop(self) -> None:
        """Tell all workers to finish what they have in hand, and to begin nothing more."""
        self.is_ending = True
        for worker in list(self.workers):
            if not worker.place[ORDER]:
                worker.place[ORDER] = STOP

    def end_now(self) -> None:
        """Tell all workers to end at once."""
        self.is_ending = True
        for worker in list(self.workers):
            worker.place[ORDER] = END_NOW
            self._terminate(worker)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all workers have ended, and nobody is replaced any more.

        Args:
            timeout (float | None): Seconds to wait; None for ever.

        Returns:
            bool: Whether they have.
        """
        from multiprocessing.connection import wait

        self.is_ending = True
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while True:
            self.watch()
            if not self.workers:
                return True
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return False
            wait(self.sentinels(), 0.1)
