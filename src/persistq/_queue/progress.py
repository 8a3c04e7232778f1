"""How far a run is: counted in its journals, of which each look reads only what is new."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from persistq._journal.names import COMPLETED, FAILED, STARTED
from persistq._journal.run_state import RunState
from persistq._journal.tail import Shrunk, Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from persistq._journal.members import Membership

# The rate is that of this last part of the time: long enough for work of uneven size, short enough
# to show that something has changed.
_RATE_S = 60.0
# Looks that follow one another more closely are one for the rate.
_STEP_S = 0.5
_TRIES = 20


class Progress:
    """How far a run is.

    Attributes:
        requested (int): Messages put, and those carried over from earlier runs.
        completed (int): Messages completed in this run.
        failed (int): Messages set aside, in this run or an earlier one, and not decided.
        outstanding (int): Messages that are neither completed nor set aside.
        in_progress (int): How many of these are in hand of a process that lives.
        rate_per_s (float): How many messages were completed or set aside a second, over the last
            minute or as long as somebody has looked here; 0.0 at the first look.
        seconds_left (float | None): Seconds until nothing is outstanding, at that rate; None while
            that is unknown. Of what is still to be put, nobody knows here.
    """

    __slots__ = (
        "completed",
        "failed",
        "in_progress",
        "outstanding",
        "rate_per_s",
        "requested",
        "seconds_left",
    )

    def __init__(
        self, requested: int, completed: int, failed: int, outstanding: int, in_progress: int
    ) -> None:
        self.requested: int = requested
        self.completed: int = completed
        self.failed: int = failed
        self.outstanding: int = outstanding
        self.in_progress: int = in_progress
        self.rate_per_s: float = 0.0
        self.seconds_left: float | None = None

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"Progress({said})"


class Looking:
    """Looks at one run again and again. Safe to use from several threads.

    Args:
        membership (Membership): The copy's part in the run.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}
        # When, and how many messages were completed or set aside by then.
        self._samples: deque[tuple[float, int]] = deque()

    def look(self) -> Progress:
        """Return how far the run is.

        Raises:
            OSError: A journal cannot be read.
        """
        with self._lock:
            for number in range(_TRIES):
                try:
                    progress, ended = self._look()
                    break
                except FileNotFoundError:
                    # A worker has ended, or carried work has got its other name, just now.
                    if number == _TRIES - 1:
                        raise
            self._judge_the_rate(progress, ended)
            return progress

    def _look(self) -> tuple[Progress, int]:
        membership = self._membership
        state = RunState(membership.directory, membership.names.prefix)
        # Who lives, and what is done, before what is requested: what is completed meanwhile was
        # requested before, so nothing is counted as done that was not asked for.
        living = {m.name.tag for m in state.members_of_run() if m.is_dead() is not True}
        listed = {*state.requested, *state.completed, *state.failed, *state.resolved}
        started = {state.names.journal(STARTED, tag): tag for tag in living}
        paths = {path: started.get(os.path.basename(path)) for path in state.started}
        listed.update(path for path, tag in paths.items() if tag is not None)
        for path in self._counts.keys() - listed:
            del self._counts[path]  # gone; and its inode may be another file's by now
        in_progress = 0
        for path, tag in paths.items():
            if tag is None:
                continue
            folder = os.path.dirname(path)
            ended = [
                os.path.join(folder, state.names.journal(kind, tag)) for kind in (COMPLETED, FAILED)
            ]
            done = self._sum(p for p in ended if p in listed)
            in_progress += max(self._sum([path]) - done, 0)
        completed = self._sum(state.completed)
        set_aside = self._sum(state.failed_here)
        failed = self._sum(state.failed) - self._sum(state.resolved)
        requested = self._sum(state.requested)
        outstanding = max(requested - completed - set_aside, 0)
        progress = Progress(
            requested, completed, max(failed, 0), outstanding, min(in_progress, outstanding)
        )
        return progress, completed + set_aside

    def _sum(self, paths: Iterable[str]) -> int:
        total = 0
        for path in paths:
            count = self._counts.get(path)
            if count is None:
                count = self._counts[path] = _Count()
            total += count.look(path)
        return total

    def _judge_the_rate(self, progress: Progress, ended: int) -> None:
        now_s, samples = time.monotonic(), self._samples
        while len(samples) > 1 and samples[1][0] <= now_s - _RATE_S:
            samples.popleft()
        if samples:
            since_s, before = samples[0]
            if now_s > since_s:
                progress.rate_per_s = max(ended - before, 0) / (now_s - since_s)
        if not samples or now_s - samples[-1][0] >= _STEP_S:
            samples.append((now_s, ended))
        if not progress.outstanding:
            progress.seconds_left = 0.0
        elif progress.rate_per_s > 0:
            progress.seconds_left = progress.outstanding / progress.rate_per_s


class _Count:
    """How many lines a file holds, less those that were withdrawn."""

    __slots__ = ("_tail", "_total")

    def __init__(self) -> None:
        self._tail = Tail()
        self._total = 0

    def look(self, path: str) -> int:
        try:
            self._total += self._tail.count(path)
        except Shrunk:
            self._tail = Tail()
            self._total = self._tail.count(path)
        return self._total
