"""In which order names come: the lowest first, whatever came and went since."""

from __future__ import annotations

from heapq import heappop, heappush

from persistq._folder.base import sorting_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _is_number(value: Any) -> bool:
    """Tell whether a value has a place among the numbers: neither a NaN nor a complex one has."""
    import decimal
    import numbers

    real = isinstance(value, (numbers.Real, decimal.Decimal))
    return real and value == value


def sorting_key(function: Callable[[str], Any], name: str) -> tuple[int, Any]:
    """Give the place that a user's sorting function gives a name: numbers, then text."""
    value = sorting_value(function, name)
    if type(value) is str:
        return 1, value
    if isinstance(value, (int, float)) and value == value:
        return 0, value
    try:
        if _is_number(value):
            return 0, value
        return 1, str(value)
    except Exception:
        return 1, ""


class Ordered:
    """Names in the order of their sorting keys: the lowest costs O(1), an arrival O(log n).

    Args:
        key (Callable[[str], tuple[Any, ...]] | None): What a name sorts by; None for the name.
    """

    follows = False

    def follow(self, name: str, claimer: str) -> None:
        """Note a claim; nothing does here, for each file is handed out alone."""

    def forget_all(self) -> None:
        """Forget claims, of which nothing is noted."""

    def __init__(self, key: Callable[[str], tuple[Any, ...]] | None) -> None:
        self._key = key
        self._names: set[str] = set()
        # Both hold entries of names that are gone; they are skipped when their turn comes.
        self._backlog: list[Any] = []  # descending, so that the lowest is popped
        self._arrived: list[Any] = []  # a heap

    def _entry(self, name: str) -> Any:
        return name if self._key is None else (*self._key(name), name)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Take up a file that appeared."""
        if name not in self._names:
            heappush(self._arrived, self._entry(name))
            self._names.add(name)

    def discard(self, name: str) -> None:
        """Forget a file that is gone."""
        self._names.discard(name)

    def reconcile(self, found: list[str]) -> None:
        """Make these names, and no others, the files that wait; the list belongs to this then."""
        present = set(found)
        new = present - self._names if self._names else present
        if len(new) > min(1000, len(self._names)):
            # Sorting is cheaper than so many pushes; the others are kept, with their keys. The
            # list and not the set is sorted: its names lie in memory one behind the other.
            if self._key is None:
                self._backlog = found
            else:
                entries = {entry[-1]: entry for entry in (*self._backlog, *self._arrived)}
                self._backlog = [entries.get(name) or self._entry(name) for name in found]
            self._backlog.sort(reverse=True)
            self._arrived = []
            self._names = present
        else:
            self._names &= present
            for name in new:
                self.add(name)

    def first(self) -> str | None:
        """Give the lowest name; it stays until it is discarded."""
        backlog, arrived, present = self._backlog, self._arrived, self._names
        while True:
            if backlog and not (arrived and arrived[0] < backlog[-1]):
                entry = backlog[-1]
                name: str = entry if self._key is None else entry[-1]
                if name in present:
                    return name
                backlog.pop()
            elif arrived:
                name = arrived[0] if self._key is None else arrived[0][-1]
                if name in present:
                    return name
                heappop(arrived)
            else:
                return None

    def take(self) -> str | None:
        """Give the lowest name, and forget it; None also where that takes more than one step."""
        if self._arrived or self._key is not None:
            return None
        backlog, present = self._backlog, self._names
        while backlog:
            name: str = backlog.pop()
            if name in present:
                present.remove(name)
                return name
        return None

    def all(self) -> list[str]:
        """Give all names that wait, in order."""
        return sorted(self._names, key=self._entry)
