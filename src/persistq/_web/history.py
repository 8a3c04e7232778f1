"""How much of each queue was done when, over the last hours: in memory, and bounded."""

from __future__ import annotations

from collections import deque

from persistq._survey.rate import Done, Rate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    from persistq._survey.folder import FolderSurvey

MINUTES = 240
_MOST_QUEUES = 1000


class Point:
    """What was true at the end of a minute.

    Attributes:
        minute (int): Minutes since the epoch.
        ended (int): How many messages were done or set aside.
        left (int): How many waited or were in progress.
    """

    __slots__ = ("ended", "left", "minute")

    def __init__(self, minute: int, ended: int, left: int) -> None:
        self.minute = minute
        self.ended = ended
        self.left = left


class Past:
    """What is known of one queue's past.

    Attributes:
        points (deque[Point]): One for each minute in which somebody looked, the last hours'.
        since_s (float): When the first look was, in seconds since the epoch.
        last_s (float): When the last look was.
        rate_per_s (float | None): Messages done or set aside a second, over the last minute or so;
            None before the second look.
    """

    def __init__(self, now_s: float) -> None:
        self.points: deque[Point] = deque(maxlen=MINUTES)
        self.since_s = self.last_s = now_s
        self._rate = Rate()
        self._done = Done()
        self._first_set_aside: int | None = None
        self._was_looked_at = False
        self.rate_per_s: float | None = None

    def add(self, now_s: float, ended: int, left: int) -> None:
        """Note what is true now."""
        minute = int(now_s // 60)
        points = self.points
        if points and points[-1].minute >= minute:  # or the clock has been set back
            points.pop()
        points.append(Point(minute, ended, left))
        self._rate.add(ended)
        if self._was_looked_at:
            # Work that was set aside and is to be done again would make it less than nothing.
            self.rate_per_s = max(self._rate.per_second(), 0.0)
        self._was_looked_at = True

    def done(self, survey: FolderSurvey) -> tuple[int, int]:
        """Give how many messages of a folder queue have ended, and how many of these are done.

        Without a folder for those that are done, both are counted since the first look.
        """
        ended = self._done.look(survey)
        if self._first_set_aside is None:
            self._first_set_aside = survey.set_aside
        if survey.done is not None:
            return ended, ended
        return ended, max(ended - max(survey.set_aside - self._first_set_aside, 0), 0)

    def seconds_left(self, left: int) -> float | None:
        """Give how long it takes until nothing is left, at the present rate; None: unknown."""
        if not left:
            return 0.0
        return left / self.rate_per_s if self.rate_per_s else None


class History:
    """The past of all queues: of a thousand at most, and of the last four hours."""

    def __init__(self) -> None:
        self._pasts: dict[Hashable, Past] = {}

    def of(self, key: Hashable, now_s: float) -> Past:
        """Give the past of a queue that is looked at, which begins now if it is new."""
        past = self._pasts.get(key)
        if past is None:
            past = Past(now_s)
            if len(self._pasts) < _MOST_QUEUES:
                self._pasts[key] = past
        past.last_s = now_s
        return past

    def forget(self, now_s: float) -> None:
        """Forget queues of which nothing was seen for hours; one may be unreadable for a while."""
        over = [key for key, past in self._pasts.items() if past.last_s < now_s - 60 * MINUTES]
        for key in over:
            del self._pasts[key]
