"""An engine that is somebody else's: whatever has the `submit` of `concurrent.futures`."""

from __future__ import annotations

import re
from concurrent.futures import BrokenExecutor, CancelledError
from queue import Empty, SimpleQueue

from persistq import PersistqError, _reasons
from persistq._run.dispatching import DONE, FAILED, LOST, NOT_BEGUN, Outcome
from persistq._run.serving import outcome_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What engines call a lost worker: KilledWorker, TerminatedWorkerError, WorkerCrashedError .
_LOST = re.compile(
    r"(Kill|Terminat|Lost|Crash|Died).*Worker|Worker.*(Kill|Terminat|Lost|Crash|Died)"
)


class Executing:
    """The engine.

    Args:
        executor (Any): What calls the function.
        function ((message) -> object): The function.
        workers (int): Half as many as the messages that may be in flight.
        wants_results (bool): Whether results are sent back.
    """

    def __init__(
        self,
        executor: Any,
        function: Callable[[Any], object],
        workers: int,
        wants_results: bool,
    ) -> None:
        self._executor = executor
        self._function = function
        self._most = 2 * workers
        self._wants_results = wants_results
        self._futures: dict[Any, Any] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()

    def begin(self) -> None:
        """Do nothing: the executor is there."""

    def has_room(self) -> bool:
        """Tell whether it takes another message now."""
        return len(self._futures) < self._most

    def in_flight(self) -> int:
        """Return how many messages it has."""
        return len(self._futures)

    def submit(self, message: Any) -> None:
        """Take a message.

        Args:
            message (Any): The message.

        Raises:
            PersistqError: The executor is broken, or has been shut down.
        """
        try:
            future = self._executor.submit(outcome_of, self._function, message, self._wants_results)
        except RuntimeError as error:  # which BrokenExecutor is, too
            raise PersistqError(
                f"the executor takes no more work ({type(error).__name__}: {error}). What is not "
                "done is outstanding: call run() again, with a new executor. A "
                "ProcessPoolExecutor is broken for good when a worker of it dies; the workers of "
                "run() itself are replaced."
            ) from error
        self._futures[future] = message
        future.add_done_callback(self._ended.put)

    def collect(self, timeout: float) -> list[Outcome]:
        """Return what has come, once anything has.

        Args:
            timeout (float): Seconds to wait for it.
        """
        outcomes: list[Outcome] = []
        try:
            future = self._ended.get(timeout=timeout) if timeout else self._ended.get_nowait()
            while True:
                if future in self._futures:
                    outcomes.append(_outcome(self._futures.pop(future), future))
                future = self._ended.get_nowait()
        except Empty:
            return outcomes

    def stop(self) -> None:
        """Begin nothing more; what was not begun is collected as such."""
        for future in list(self._futures):
            future.cancel()

    def end_now(self) -> None:
        """Wait for nothing: the executor's workers are not ours to end."""
        self._futures.clear()

    def finish(self) -> None:
        """Do nothing: the executor is its owner's to shut down."""


def _outcome(message: Any, future: Any) -> Outcome:
    try:
        is_done, value = future.result()
    except (CancelledError, KeyboardInterrupt):
        # A terminal's Ctrl-C reaches the workers of a process pool, too: nobody's fault.
        return Outcome(NOT_BEGUN, message)
    except BaseException as error:
        if _is_lost(error):
            return Outcome(LOST, message, f"its worker was lost: {_reasons.describe(error)}")
        # Of the engine's: the message cannot be sent, or the result cannot.
        return Outcome(FAILED, message, _reasons.describe(error))
    return Outcome(DONE if is_done else FAILED, message, value)


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor) or any(
        _LOST.search(kind.__name__) for kind in type(error).__mro__
    )
