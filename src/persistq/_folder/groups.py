"""Which groups of waiting files are complete, and which comes first."""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any

_log = logging.getLogger("persistq")


class Groups:
    """The files that wait, by group and item; what is complete, by first file name.

    Args:
        locate (Callable[[str], tuple[Hashable, Hashable] | None]): Gives a name's group and
            item; None when the file belongs to none.
        items (frozenset[Hashable]): What makes a group complete.
        own (str): What the names begin with that this process claims.
        peek (Callable[[str], tuple[Hashable, Hashable] | None] | None): As `locate`, of names that
            need not be of this queue; None: `locate`.

    Attributes:
        follows (bool): Whether claims are of interest: a group has several files.
        changed (set[str]): Names of which, since `begin`, another file was claimed here than the
            one that waited then.
    """

    def __init__(
        self,
        locate: Callable[[str], tuple[Hashable, Hashable] | None],
        items: frozenset[Hashable],
        own: str = "",
        peek: Callable[[str], tuple[Hashable, Hashable] | None] | None = None,
    ) -> None:
        self._locate = locate
        self._peek = peek or locate
        self._items = items
        self._own = own
        self.follows = len(items) > 1
        self.changed: set[str] = set()
        self._came: set[str] = set()
        # What others have claimed of a group as long as it is not all: by group and claimer.
        self._parts: dict[Hashable, dict[str, dict[Hashable, str]]] = {}
        self._groups: dict[Hashable, dict[Hashable, list[str]]] = {}
        self._places: dict[str, tuple[Hashable, Hashable]] = {}
        self._ignored: set[str] = set()
        # First names of groups that were complete; checked when their turn comes.
        self._complete: list[str] = []

    def add(self, name: str) -> None:
        """Take up a file that appeared."""
        self._came.add(name)
        if name in self._places or name in self._ignored:
            return
        place = self._locate(name)
        if place is None:
            self._ignored.add(name)
            return
        self._places[name] = place
        group = self._groups.setdefault(place[0], {})
        insort(group.setdefault(place[1], []), name)
        if len(group) == len(self._items):
            heappush(self._complete, _first_of(group))

    def discard(self, name: str) -> None:
        """Forget a file that is gone."""
        self._ignored.discard(name)
        place = self._places.pop(name, None)
        if place is None:
            return
        group = self._groups[place[0]]
        files = group[place[1]]
        del files[bisect_left(files, name)]
        if not files:
            del group[place[1]]
            if not group:
                del self._groups[place[0]]
        if group and len(group) == len(self._items):
            heappush(self._complete, _first_of(group))

    def begin(self) -> None:
        """Begin to see whether what is claimed is what waits now."""
        self._came.clear()
        self.changed.clear()

    def follow(self, name: str, claimer: str) -> None:
        """Note that a file was claimed, before it is discarded, in the order of what happened.

        Args:
            name (str): Its name as a message.
            claimer (str): What the name of the claimed file begins with.
        """
        if claimer == self._own:
            if name in self._came:
                self.changed.add(name)
            return
        self._came.add(name)
        place = self._places.get(name) or self._peek(name)
        if place is None:
            return
        claimers = self._parts.setdefault(place[0], {})
        parts = claimers.setdefault(claimer, {})
        parts[place[1]] = name
        if len(parts) == len(self._items):
            self.forget(place[0], claimer)

    def forget(self, group: Hashable, claimer: str) -> None:
        """Forget what another has claimed of a group: all of it, or nothing any more."""
        claimers = self._parts.get(group, {})
        claimers.pop(claimer, None)
        if not claimers:
            self._parts.pop(group, None)

    def forget_all(self) -> None:
        """Forget what others have claimed, for it is told anew."""
        self._parts.clear()

    def item_of(self, name: str) -> Hashable:
        """Give the item of its group that a file is which waits."""
        return self._places[name][1]

    def others_parts(self, wanted: list[str]) -> list[tuple[Hashable, str, dict[Hashable, str]]]:
        """Tell which others have claimed files of a group, and had not claimed all.

        Args:
            wanted (list[str]): The files of a complete group, in order.

        Returns:
            list[tuple[Hashable, str, dict[Hashable, str]]]: The group; what the names begin with
            that this one claims; and what he has claimed, by item, and may have given back.
        """
        group = self._places[wanted[0]][0]
        return [
            (group, claimer, {**parts}) for claimer, parts in self._parts.get(group, {}).items()
        ]

    def reconcile(self, found: list[str]) -> None:
        """Make these names, and no others, the files that wait."""
        present = set(found)
        self._ignored &= present
        for name in self._places.keys() - present:
            self.discard(name)
        for name in present - self._places.keys():
            self.add(name)

    def first(self) -> list[str] | None:
        """Give the files of the complete group that comes first, in order; None without one."""
        while self._complete:
            name = self._complete[0]
            place = self._places.get(name)
            group = self._groups[place[0]] if place else {}
            if len(group) == len(self._items):
                return sorted(files[0] for files in group.values())
            # Gone, or its group is no longer complete. (A complete group always has the entry of
            # its first file, so what is lowest here is the first file of its group.)
            heappop(self._complete)
        return None

    def all(self) -> list[str]:
        """Give the names of all files that wait, complete or not, in order."""
        return sorted(self._places)

    def parts(self) -> dict[Hashable, list[Hashable]]:
        """Give, for each group of which parts wait, the items that are missing."""
        return {
            group: [item for item in self._items if item not in files]
            for group, files in self._groups.items()
        }


def _first_of(group: dict[Hashable, list[str]]) -> str:
    return min(files[0] for files in group.values())


def alone(name: str) -> tuple[Hashable, Hashable]:
    """Locate a file that is a group of its own."""
    return name, None


class Locator:
    """Finds the group and item of a file with the user's functions, and logs those without."""

    def __init__(
        self,
        folder: str,
        group_of: Callable[[str], Any],
        item_of: Callable[[str], Any],
        items: Iterable[Hashable],
    ) -> None:
        self.items = frozenset(items)
        self._folder = folder
        self._group_of = group_of
        self._item_of = item_of
        self._logged: set[str] = set()

    def __call__(self, name: str) -> tuple[Hashable, Hashable] | None:
        """Give a file's group and item; None, logged once a name, when it has none."""
        place, reason = self._find(name)
        if place is None and name not in self._logged:
            self._logged.add(name)
            _log.warning("%s in %s is ignored: %s", name, self._folder, reason)
        return place

    def peek(self, name: str) -> tuple[Hashable, Hashable] | None:
        """Give the same, and log nothing."""
        return self._find(name)[0]

    def _find(self, name: str) -> tuple[tuple[Hashable, Hashable] | None, str]:
        try:
            place = self._group_of(name), self._item_of(name)
            hash(place)
        except Exception as error:
            return None, f"its grouping or item function raised {error!r}"
        if place[1] in self.items:
            return place, ""
        return None, f"its item {place[1]!r} is not in the list of items"
