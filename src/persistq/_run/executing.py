"""An engine that is somebody else's: whatever has the `submit` of `concurrent.futures`.

What the function does comes back as a value, whatever it raises. So an exception in a future is
the engine's: a worker was lost, or the engine is, or something cannot be sent. No engine is
imported to tell these apart, and what they call their errors says little; what they do says more:

- It cancels what this process has not cancelled, or takes no more: the engine is lost. The job
  ends, and what is not done is outstanding.
- It has answered nothing but errors yet: no worker of it can do this function. Some in a row end
  the job likewise, and nothing is held against the messages.
- It has answered before: an attempt at the message is lost. It is tried again, and set aside where
  that happens too often. Should nothing else come for very long, that ends the job, too.
"""

from __future__ import annotations

import itertools
import os
import pickle
import re
import sys
from concurrent.futures import BrokenExecutor, CancelledError
from queue import Empty, SimpleQueue

from persistq import PersistqError, _reasons
from persistq._run import sending
from persistq._run.dispatching import DONE, FAILED, LOST, NOT_BEGUN, Outcome
from persistq._run.serving import outcome_of, pickled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What engines call a lost worker: KilledWorker, TerminatedWorkerError, WorkerCrashedError. Of such
# an error it is known that it is not the function's fault that nothing has been answered yet.
_LOST = re.compile(
    r"(Kill|Terminat|Lost|Crash|Died).*Worker|Worker.*(Kill|Terminat|Lost|Crash|Died)"
)
# So many other errors in a row, or as many as messages may be in flight, where nothing else has
# ever come; and so many times that, where something has: enough for each message to be set aside.
_ERRORS_AT_START = 3
_TIMES_LATER = 10
_AGAIN = "What is not done is outstanding: call run() again"


class Call:
    """What an engine calls with each message, wherever its workers are.

    In another process it pickles what came of it, for engines differ in what they do with a result
    that they cannot send: some never say a word.

    Args:
        function ((message) -> object): Does the work of one message.
        wants_result (bool): Whether anybody asks for the result.
    """

    def __init__(self, function: Callable[[Any], object], wants_result: bool) -> None:
        self._function = function
        self._wants_result = wants_result
        self._has_travelled = False
        # What an engine shows of its work is told apart by this.
        self.__name__ = sending.name_of(function) or "call"

    def __call__(self, message: Any, number: str) -> tuple[bool, Any] | bytes:
        """Return whether it was done, and the result or the reason why not; pickled where needed.

        Args:
            message (Any): The message.
            number (str): Another one each time. Some engines remember what came of a call, and
                would answer one with equal arguments without making it: an equal message, or one
                that is tried again, and met a death the last time.
        """
        said = outcome_of(self._function, message, self._wants_result)
        if not self._has_travelled:
            return said
        # Engines that take a script's own functions bring this along, which takes its classes too.
        by_value = sys.modules.get("cloudpickle")
        picklers = [pickle.dumps] if by_value is None else [pickle.dumps, by_value.dumps]
        return pickled(said, *picklers)

    def __reduce__(self) -> Any:
        return _arrive, (self._function, self._wants_result)


def _arrive(function: Callable[[Any], object], wants_result: bool) -> Call:
    call = Call(function, wants_result)
    call._has_travelled = True
    return call


class Executing:
    """The engine.

    Args:
        executor (Any): What calls the function.
        function ((message) -> object): The function.
        workers (int): Half as many as the messages that may be in flight.
        wants_results (bool): Whether results are sent back.
    """

    knows_whose_death = False

    def __init__(
        self,
        executor: Any,
        function: Callable[[Any], object],
        workers: int,
        wants_results: bool,
    ) -> None:
        self._executor = executor
        self._call = Call(function, wants_results)
        self._name = os.urandom(8).hex()
        self._count = itertools.count()
        self._most = 2 * workers
        self._futures: dict[Any, Any] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._has_answered = False
        self._errors_in_a_row = 0
        self._is_stopping = False
        self._error: PersistqError | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it takes no more, or does nothing that it is given."""
        return self._error is not None

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
            PersistqError: The executor is lost, or does nothing that it is given.
        """
        self._check()
        try:
            future = self._executor.submit(self._call, message, f"{self._name}-{next(self._count)}")
        except Exception as error:  # of many kinds: BrokenExecutor, RuntimeError, the engine's own
            self._error = PersistqError(
                f"the executor takes no more work ({_reasons.describe(error)}). {_AGAIN}, with a "
                "new executor. A ProcessPoolExecutor is broken for good when a worker of it dies; "
                "the workers of run() itself are replaced."
            )
            raise self._error from error
        self._futures[future] = message
        future.add_done_callback(self._ended.put)

    def collect(self, timeout: float) -> list[Outcome]:
        """Return what has come, once anything has.

        Args:
            timeout (float): Seconds to wait for it.

        Raises:
            PersistqError: The executor is lost, or does nothing that it is given. What has come
                before was returned by the call before.
        """
        self._check()
        outcomes: list[Outcome] = []
        try:
            future = self._ended.get(timeout=timeout) if timeout else self._ended.get_nowait()
            while True:
                if future in self._futures:
                    outcomes.append(self._outcome(self._futures.pop(future), future))
                future = self._ended.get_nowait()
        except Empty:
            return outcomes

    def _check(self) -> None:
        if self._error is not None and not self._is_stopping:
            raise self._error

    def _outcome(self, message: Any, future: Any) -> Outcome:
        try:
            said = future.result()
        except KeyboardInterrupt:
            # A terminal's Ctrl-C reaches the workers of a process pool, too: nobody's fault.
            return Outcome(NOT_BEGUN, message)
        except CancelledError:
            if not self._is_stopping:
                self._error = PersistqError(
                    "the executor has cancelled a message that it was given: it was shut down, or "
                    f"what hands out its work was lost. {_AGAIN}, with a new executor."
                )
            return Outcome(NOT_BEGUN, message)
        except BaseException as error:
            return self._outcome_of_error(message, error)
        self._has_answered, self._errors_in_a_row = True, 0
        try:
            is_done, value = pickle.loads(said) if isinstance(said, bytes) else said
        except Exception as error:
            how = f"{type(error).__name__}: {error}"
            return Outcome(FAILED, message, f"the result cannot be unpickled here ({how})")
        return Outcome(DONE if is_done else FAILED, message, value)

    def _outcome_of_error(self, message: Any, error: BaseException) -> Outcome:
        what = _reasons.describe(error)
        if isinstance(error, BrokenExecutor) or any(
            _LOST.search(kind.__name__) for kind in type(error).__mro__
        ):
            return Outcome(LOST, message, f"its worker was lost: {what}")
        if not isinstance(error, Exception):
            return Outcome(FAILED, message, what)  # the function has raised SystemExit
        self._errors_in_a_row += 1
        limit = max(_ERRORS_AT_START, self._most) * (_TIMES_LATER if self._has_answered else 1)
        if self._errors_in_a_row >= limit:
            self._error = PersistqError(
                f"the executor has answered {self._errors_in_a_row} times in a row with an error "
                f"of its own (the last: {what}). Expected a function, and persistq, that its "
                f"workers can import. {_AGAIN}, when it is mended."
            )
        if self._has_answered:
            return Outcome(LOST, message, f"the executor has failed: {what}")
        return Outcome(NOT_BEGUN, message)

    def stop(self) -> None:
        """Begin nothing more; what was not begun is collected as such."""
        self._is_stopping = True
        # Some engines do not say what they have begun, and would cancel also that: then all that
        # is in flight is finished. But from one that is lost nothing will come any more.
        if self._error is not None or any(future.running() for future in self._futures):
            self._cancel()

    def end_now(self) -> None:
        """Wait for nothing: the executor's workers are not ours to end."""
        self._cancel()
        self._futures.clear()

    def _cancel(self) -> None:
        for future in list(self._futures):
            future.cancel()

    def finish(self) -> None:
        """Do nothing: the executor is its owner's to shut down."""
