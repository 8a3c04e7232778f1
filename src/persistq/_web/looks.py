"""One look at all queues at a time, shared by all who ask.

A page that many have open, or a file system that hangs, must not pile up looks: a single thread
looks, not more often than it has to, and whoever asks meanwhile gets what was seen last.
"""

from __future__ import annotations

import threading
import time

from persistq._survey import under
from persistq._web.history import History
from persistq._web.summary import Summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._survey.under import Surveyor, Unreadable

# A look is good for so long, and at least for so many times what it took: looking must not disturb.
_GOOD_S = 1.0
_REST = 5
# Nobody may ask for hours, and the chart is to show them all the same.
_EVERY_S = 10.0
# So long one who asks waits for a look that is going on.
_PATIENCE_S = 3.0


class Seen:
    """What one look has seen.

    Attributes:
        queues (list[Summary]): All queues, in the order in which they were found.
        unreadable (list[Unreadable]): What could not be looked at.
        at_s (float): When it began, in seconds since the epoch.
        took_s (float): How long it took, in seconds.
    """

    def __init__(
        self, queues: list[Summary], unreadable: list[Unreadable], at_s: float, took_s: float
    ) -> None:
        self.queues = queues
        self.unreadable = unreadable
        self.at_s = at_s
        self.took_s = took_s


def look(surveyor: Surveyor, history: History | None) -> Seen:
    """Look once.

    Args:
        surveyor (Surveyor): Who looks.
        history (History | None): What was seen before; it is added to.
    """
    at_s, began_s = time.time(), time.monotonic()
    found, unreadable = surveyor.look()
    queues = []
    for queue in found:
        past = history.of(queue.key, at_s) if history is not None else None
        queues.append(Summary(queue, past, at_s))
    if history is not None:
        history.forget(at_s)
    return Seen(queues, unreadable, at_s, time.monotonic() - began_s)


class Looks:
    """Looks in a thread of its own, which ends with the process.

    Args:
        surveyor (Surveyor): Who looks; nobody else may use it.
    """

    def __init__(self, surveyor: Surveyor) -> None:
        self._surveyor = surveyor
        self._history = History()
        self._changed = threading.Condition()
        self._seen: Seen | None = None
        self._rest_s = 0.0
        self._good_until_s = 0.0
        self._is_wanted = True
        self._looking_since_s: float | None = None
        # A daemon: one that hangs in a file system would keep the process from ending.
        self._thread = threading.Thread(target=self._look_for_ever, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def latest(self) -> tuple[Seen | None, float]:
        """Give what is true now, or was when a look last ended.

        Returns:
            tuple[Seen | None, float]: What was seen, None if no look has ended yet; and for how
            many seconds the look that is going on has been, 0.0 when none is.
        """
        with self._changed:
            if time.monotonic() >= self._good_until_s:
                before = self._seen
                self._is_wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._seen is not before, _PATIENCE_S)
            since_s = self._looking_since_s
            return self._seen, 0.0 if since_s is None else time.monotonic() - since_s

    def _look_for_ever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_wanted, max(_EVERY_S, self._rest_s))
                self._is_wanted = False
                self._looking_since_s = time.monotonic()
            try:
                seen = look(self._surveyor, self._history)
            except Exception as error:  # a page that stands still would look as if all were well
                text = f"looking failed: {type(error).__name__}: {error}"
                seen = Seen([], [under.Unreadable("", text)], time.time(), 0.0)
            with self._changed:
                self._seen = seen
                self._looking_since_s = None
                self._rest_s = max(_GOOD_S, _REST * seen.took_s)
                self._good_until_s = time.monotonic() + self._rest_s
                self._is_wanted = False  # who asked meanwhile has been answered
                self._changed.notify_all()
