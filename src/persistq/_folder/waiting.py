"""Which files are there, and must wait all the same: too young, or released with a delay."""

from __future__ import annotations

import os
import time
from heapq import heappop, heappush

from persistq._folder import notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class WaitingRoom:
    """Names that are not to be handed out yet, and when to look at them again.

    A file is old enough when nothing about it has changed for so long: as this process has seen
    it, by the clock that nobody sets; or, at first sight, by the clock of the file system alone.

    Args:
        folder (str): Path of the queue's folder.
        min_age_s (float): Seconds for which a file must have stood still.
        stage ((folder: str) -> str): Gives the path of a new temporary file in a folder.

    Attributes:
        asks (bool): Whether every file must be asked about, and not only those with a note.
        waiting (list[tuple[float, str]]): Who is in it, by when to look again: a heap.
    """

    def __init__(self, folder: str, min_age_s: float, stage: Callable[[str], str]) -> None:
        self.asks = min_age_s > 0
        self._folder = folder
        self._min_age_s = min_age_s
        self._stage = stage
        self.waiting: list[tuple[float, str]] = []
        self._names: set[str] = set()
        # How a file was when it was looked at last, and since when it has stood still, in seconds
        # of the monotonic clock; None where it is gone.
        self._seen: dict[str, tuple[tuple[int, int, int], float]] = {}

    def due(self) -> list[str]:
        """Give the names that are to be looked at again; they leave the room."""
        now_s = time.monotonic()
        found = []
        while self.waiting and self.waiting[0][0] <= now_s:
            found.append(heappop(self.waiting)[1])
        self._names.difference_update(found)
        return [name for name in found if os.path.lexists(os.path.join(self._folder, name))]

    def seconds_left(self) -> float:
        """Tell in how many seconds the first of them is to be looked at again."""
        return max(self.waiting[0][0] - time.monotonic(), 0.0) if self.waiting else 3600.0

    def withhold(self, name: str, noted: set[str]) -> bool:
        """Tell whether a file must wait; if so, it is in the room from here on.

        Args:
            name (str): The message's name.
            noted (set[str]): Names of which something is written down; corrected here.
        """
        left_s = 0.0
        path = os.path.join(self._folder, name)
        if name in noted:
            note = notes.read(self._folder, name, path)
            if note is not None:
                staged = self._stage(self._folder)
                left_s = notes.seconds_left(self._folder, name, note, staged)
        if self.asks:
            left_s = max(left_s, self._too_young_for_s(name, path))
        if left_s <= 0:
            self._seen.pop(name, None)
            return False
        if name not in self._names:
            self._names.add(name)
            heappush(self.waiting, (time.monotonic() + left_s, name))
        return True

    def _too_young_for_s(self, name: str, path: str) -> float:
        mark = _mark(path)
        if mark is None:
            return 0.0  # gone, or none of ours to look at: the claim will tell
        now_s = time.monotonic()
        known = self._seen.get(name)
        if known is not None and known[0] == mark:
            return known[1] + self._min_age_s - now_s
        since_s = now_s
        if known is None:
            age_s = (notes.file_system_now_ns(self._stage(self._folder)) - max(mark[1:])) / 1e9
            since_s -= min(max(age_s, 0.0), self._min_age_s)
        self._seen[name] = (mark, since_s)
        return since_s + self._min_age_s - now_s


def _mark(path: str) -> tuple[int, int, int] | None:
    """Say how a file is: size, times of modification and change; opened, for NFS then asks anew."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError:
        try:
            status = os.stat(path)
        except OSError:
            return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
