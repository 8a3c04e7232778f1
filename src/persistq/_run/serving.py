"""What a worker process of `run` does: take messages, call the function, and end when it is told.

A worker and the process that started it share a few numbers, its *place*: how far it is, and what
it is told. They are written by one side each, and a killed worker leaves no lock behind.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time

from persistq import DONE, FAILED, UpstreamFailureError, _reasons
from persistq._queue.orphans import has_lost_parent
from persistq._run.stopping import end_as_before, let_signals_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence
    from multiprocessing.connection import Connection
    from types import FrameType
    from typing import Any

    from persistq import PersistentQueue

    Place = MutableSequence[float]

logger = logging.getLogger("persistq")

# The numbers of a place, and what they say.
STATE, BEGAN, BEGUN, ORDER, LIMIT_OF = range(5)
PLACE_SIZE = 5
# STATE
STARTING, AT_WORK, BROKEN = 0, 1, 2
# ORDER: finish what is in hand; end at once; the message begun at LIMIT_OF took too long.
GO_ON, STOP, END_NOW, TIME_IS_UP = 0, 1, 2, 3

_LOOK_S = 1.0


class _End(BaseException):
    """This worker is to end at once."""


class _Ordered:
    """How a worker hears what it is told.

    Args:
        place (MutableSequence[float]): Its place.

    Attributes:
        is_leaving (bool): Whether somebody else has asked this process to end (SIGTERM of a whole
            group, say): it finishes what it has.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._pid = os.getpid()
        self.is_leaving = False
        # Of a terminal's Ctrl-C all processes hear; the one that started this worker sees to it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        let_signals_in()
        place[STATE] = AT_WORK

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            end_as_before(signal.SIG_DFL)  # a child that the function has forked
            return
        place = self._place
        if place[ORDER] == END_NOW:
            raise _End
        if place[ORDER] == TIME_IS_UP:
            if place[BEGAN] == place[LIMIT_OF]:
                raise _End  # what the function has open is closed on the way
            return  # it has just been finished
        self.is_leaving = True

    def is_time_up(self) -> bool:
        """Tell whether this worker ends since its message took too long."""
        return self._place[ORDER] == TIME_IS_UP


def work(
    queue: PersistentQueue, function: Callable[[Any], object], place: Place, is_timed: bool
) -> None:
    """Do messages of a queue until it ends, or this worker is told to.

    Args:
        queue (PersistentQueue): The queue.
        function ((message) -> object): Does the work of one message.
        place (MutableSequence[float]): This worker's place.
        is_timed (bool): Whether somebody asks since when it is at a message.
    """
    ordered = _Ordered(place)
    get, task_done = queue.get, queue.task_done
    try:
        while not ordered.is_leaving:
            message = get()
            if message is DONE or message is FAILED:
                break
            if place[ORDER] and place[ORDER] != TIME_IS_UP:
                break  # not begun: it is given up, and outstanding
            place[BEGUN] = 1
            if is_timed:
                place[BEGAN] = time.monotonic()
            try:  # as queue.attempt() does, in less time
                function(message)
            except Exception as error:
                logger.error("%r is set aside: it has failed", message, exc_info=error)
                queue.task_failed(message, error)
            else:
                task_done(message)
            if is_timed:
                place[BEGAN] = 0.0
        queue.dispose()
    except UpstreamFailureError as error:
        logger.warning("a worker ends: %s", error)
    except _End:
        if ordered.is_time_up():
            end_as_before(signal.SIG_DFL)  # the message in hand has met a death
        queue.dispose()
    except Exception:
        # The queue's, not the function's: the disk is full, the folder is gone.
        place[STATE] = BROKEN
        raise


def answer(connection: Connection, function: Callable[[Any], object], place: Place) -> None:
    """Do messages that come through a pipe, and send back what came of each.

    Args:
        connection (Connection): The pipe; each message comes pickled, None is the end. The answer
            is `(True, result)` or `(False, reason)`, pickled.
        function ((message) -> object): Does the work of one message.
        place (MutableSequence[float]): This worker's place.
    """
    from multiprocessing.reduction import ForkingPickler

    ordered = _Ordered(place)
    try:
        while place[ORDER] in (GO_ON, TIME_IS_UP) and not ordered.is_leaving:
            has_come = connection.poll(_LOOK_S)
            if has_lost_parent():
                return  # nobody would take what comes of it: it is outstanding
            if not has_come:
                continue
            task = connection.recv_bytes()
            if not task or place[ORDER] in (STOP, END_NOW):
                return
            place[BEGAN] = time.monotonic()
            place[BEGUN] += 1
            said = outcome_of(function, pickle.loads(task))
            data = pickled(said, ForkingPickler.dumps)
            place[BEGAN] = 0.0
            connection.send_bytes(data)
    except (EOFError, ConnectionError):
        return  # who would read it has died
    except _End:
        if ordered.is_time_up():
            end_as_before(signal.SIG_DFL)


def outcome_of(
    function: Callable[[Any], object], message: Any, wants_result: bool = True
) -> tuple[bool, Any]:
    """Call a function, and return what came of it in a form that can be sent.

    Args:
        function ((message) -> object): The function.
        message (Any): Its argument.
        wants_result (bool): Whether anybody asks for the result.

    Returns:
        tuple[bool, Any]: True and the result; or False and the reason, as one line of text, since
        many an exception cannot be sent, and none takes its place in the code along.
    """
    try:
        result = function(message)
    except Exception as error:
        logger.error("%r has failed", message, exc_info=error)
        return False, _reasons.describe(error)
    return True, result if wants_result else None


def pickled(said: tuple[bool, Any], *picklers: Callable[[Any], Any]) -> bytes:
    """Return what came of a message as bytes; in place of a result that cannot be sent, why.

    Args:
        said (tuple[bool, Any]): From `outcome_of`.
        picklers ((value) -> bytes-like): Ways to pickle it, of which the first that can is taken.
    """
    first: Exception | None = None
    for dumps in picklers:
        try:
            return bytes(dumps(said))
        except Exception as error:
            first = first or error
    kind = type(said[1]).__name__
    reason = (
        f"the result, a {kind}, cannot be sent to the process that called run() "
        f"({type(first).__name__}: {first}); expected one that can be pickled, or None"
    )
    return pickle.dumps((False, _reasons.describe(reason)))
