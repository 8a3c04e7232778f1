"""How fast a queue's work gets done, from looks that follow one another."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._survey.folder import FolderSurvey


class Rate:
    """How fast work gets done, over the last minute or so."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def add(self, done: int) -> None:
        """Note how much is done by now."""
        now_s = time.monotonic()
        self._points.append((now_s, done))
        while len(self._points) > 2 and now_s - self._points[1][0] > 60:
            del self._points[0]

    def per_second(self) -> float:
        """Give messages a second; 0 while nothing is known."""
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


class Done:
    """How much of a folder queue is done, which the folder itself does not remember."""

    def __init__(self) -> None:
        self._present: frozenset[str] = frozenset()
        self._gone = 0

    def look(self, survey: FolderSurvey) -> int:
        """Give how many messages are done.

        Args:
            survey (FolderSurvey): What is true of the folder now.

        Returns:
            int: Those in its `done_folder`; without one, those that were there at one look here
            and gone at the next. What comes and goes between two looks nobody sees.
        """
        # By name, for as many may have come meanwhile.
        self._gone += len(self._present - survey.present)
        self._present = survey.present
        return self._gone if survey.done is None else survey.done
