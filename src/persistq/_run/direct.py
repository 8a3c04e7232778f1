"""A job whose workers take messages off the queue themselves: where nobody asks for results."""

from __future__ import annotations

import logging
import threading
import time
from multiprocessing.connection import wait
from queue import Full

from persistq._journal.recovery import tell_how_it_ended
from persistq._journal.run_state import RunState
from persistq._run.serving import work
from persistq._run.stopping import Held
from persistq._run.workers import GRACE_S, Crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.context import BaseContext
    from typing import Any

    from persistq import PersistentQueue
    from persistq._run.workers import Worker

logger = logging.getLogger("persistq")

# So many messages may wait. Of those, the last are kept free for two batches on their way.
MAXSIZE = 4000
_BATCH = 100
_ROOM = MAXSIZE - 3 * _BATCH
# So long a message may wait for others that are recorded with the same write.
_STALE_S = 0.05
_PAUSE_S = 0.002
_TICK_S = 0.1
# More than the half second after which join() looks for those who died.
_JOIN_S = 0.6
# What workers may take to end once there is no more work (what a user's module does at exit).
_EXIT_S = 30.0


class Direct:
    """A job at work.

    A thread watches the workers, so that one who dies is replaced also while the iterable, or
    `put`, is waited for.

    Args:
        queue (PersistentQueue): The queue, bounded to `MAXSIZE`.
        folder (str): The folder of the run.
        context (BaseContext): Starts the processes.
        number (int): How many workers.
        name (str): What they are called.
        function ((message) -> object): Does the work of one message.
        time_limit (float | None): Seconds that one may take.
        tick (() -> None): Called about ten times a second, from that thread.
    """

    def __init__(
        self,
        queue: PersistentQueue,
        folder: str,
        context: BaseContext,
        number: int,
        name: str,
        function: Callable[[Any], object],
        time_limit: float | None,
        tick: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._folder = folder
        self._name = name
        self._function = function
        self._time_limit = time_limit
        self._tick = tick
        self._crew = Crew(
            context, number, name, self._make, time_limit, self._on_end, self._on_limit
        )
        self._keeper: threading.Thread | None = None
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._batch: list[Any] = []
        self._lock = threading.Lock()
        self._put_at_s = 0.0

    def _make(self, place: Any) -> tuple[Callable[..., None], tuple[Any, ...], Any, Any]:
        is_timed = self._time_limit is not None
        return work, (self._queue, self._function, place, is_timed), None, None

    def _on_end(self, worker: Worker) -> None:
        how = worker.how_it_ended()
        if how and worker.process.exitcode != 0:
            self._tell(worker, how)

    def _on_limit(self, worker: Worker) -> None:
        self._tell(worker, worker.how)

    def _tell(self, worker: Worker, how: str) -> None:
        # Before it is known to have died: so whoever takes its message over knows why.
        try:
            state = RunState(self._folder, self._name)
            tell_how_it_ended(state, worker.process.pid or 0, how)
        except OSError as error:
            logger.warning("cannot tell how worker %s has ended: %s", worker.process.pid, error)

    def _begin(self) -> None:
        """Start the workers, now that there is something to do."""
        if self._keeper is None:
            self._crew.start()
            self._keeper = threading.Thread(target=self._keep, name="persistq-run", daemon=True)
            with Held():  # signals are the calling thread's
                self._keeper.start()

    def _keep(self) -> None:
        try:
            while not self._is_over.is_set():
                sentinels = self._crew.sentinels()
                if sentinels:
                    wait(sentinels, _TICK_S)
                else:
                    self._is_over.wait(_TICK_S)
                self._crew.watch()
                self._put_what_is_stale()
                self._tick()
        except BaseException as error:
            self._error = error

    def _check(self) -> None:
        self._crew.raise_error()
        if self._error is not None:
            raise self._error

    # --- the work -------------------------------------------------------------------------

    def requeue(self, retry_failed: bool, is_any: bool) -> int:
        """Put what is set aside, if that is asked for, and what earlier runs have left.

        Args:
            retry_failed (bool): Whether what is set aside is tried again.
            is_any (bool): Whether earlier runs have left anything.

        Returns:
            int: How many messages were put.
        """
        failed = self._queue.get_list_of_failed_work() if retry_failed else []
        if failed or is_any:
            self._begin()
        count = self._queue.requeue_failed_work() if failed else 0
        return count + self._queue.requeue_unprocessed_work(pass_over=False)

    def do(self, messages: Iterable[Any]) -> None:
        """Put messages, as they come, and wait until all is done or set aside.

        Args:
            messages (Iterable[Any]): What is to be put.
        """
        for message in messages:
            self._batch.append(message)
            if (
                len(self._batch) >= _BATCH
                or time.monotonic() - self._put_at_s >= _STALE_S
                or self._error is not None
            ):
                self._put_batch()
        self._put_batch()
        if self._keeper is not None:
            while not self._queue.join(_JOIN_S):
                self._check()

    def _put_batch(self) -> None:
        self._begin()
        self._check()
        while not self._has_room():
            time.sleep(_PAUSE_S)
            self._check()
        with self._lock:
            self._put_it(None)

    def _has_room(self) -> bool:
        try:
            return self._queue.qsize() < _ROOM
        except NotImplementedError:
            return True  # the carrier cannot tell: its put waits

    def _put_it(self, timeout: float | None) -> None:
        batch = self._batch
        count = len(batch)
        if count:
            # An exception in here leaves the batch: rather put twice than never.
            self._queue.put_many(batch[:count], timeout=timeout)
            del batch[:count]
        self._put_at_s = time.monotonic()

    def _put_what_is_stale(self) -> None:
        """Put what was taken from an iterable that makes the calling thread wait for the next."""
        if not self._batch or time.monotonic() - self._put_at_s < _STALE_S or not self._has_room():
            return
        if self._lock.acquire(blocking=False):
            try:
                self._put_it(_TICK_S)
            except Full:
                pass
            finally:
                self._lock.release()

    # --- the end --------------------------------------------------------------------------

    def finish(self) -> None:
        """Let the workers go: all is done."""
        self._queue.close()
        self._let_go()
        if not self._crew.wait(_EXIT_S):
            logger.warning("workers that have no more work do not end: they are ended")
            self._crew.end_now()
            self._crew.wait()

    def stop(self) -> None:
        """Let the workers finish what they have in hand, and begin nothing more."""
        self._let_go()  # nobody is replaced any more
        self._crew.stop()
        logger.warning("%s stops: what is in hand is finished, nothing more is begun", self._name)
        try:
            with self._lock:
                self._put_it(1.0)  # what the iterable has given is recorded
        except Exception as error:
            logger.warning("%d messages given could not be put: %s", len(self._batch), error)
        self._queue.fail()
        self._crew.wait()

    def end_now(self) -> None:
        """End the workers, whatever they have in hand."""
        self._let_go()
        self._crew.end_now()
        self._queue.fail()
        if not self._crew.wait(GRACE_S * 2):
            for worker in self._crew.workers:
                worker.process.kill()
            self._crew.wait()

    def _let_go(self) -> None:
        self._is_over.set()
        self._crew.is_ending = True
        if self._keeper is not None:
            self._keeper.join()

    def release(self) -> None:
        """Let go of the queue, which ends this process's part in the run."""
        del self._queue
