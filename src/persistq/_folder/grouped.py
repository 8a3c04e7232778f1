"""How whole groups of files get off a folder queue, once all parts of one are there."""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from heapq import heappop, heappush

from persistq import _fs
from persistq._folder.base import same_name
from persistq._folder.readable import ReadableFolderQueue
from persistq._folder.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any

_log = logging.getLogger("persistq")


class Groups:
    """The files that wait, by group and item; what is complete, by first file name.

    Args:
        locate (Callable[[str], tuple[Hashable, Hashable] | None]): Gives a name's group and
            item; None when the file belongs to none.
        items (frozenset[Hashable]): What makes a group complete.
    """

    def __init__(
        self,
        locate: Callable[[str], tuple[Hashable, Hashable] | None],
        items: frozenset[Hashable],
    ) -> None:
        self._locate = locate
        self._items = items
        self._groups: dict[Hashable, dict[Hashable, list[str]]] = {}
        self._places: dict[str, tuple[Hashable, Hashable]] = {}
        self._ignored: set[str] = set()
        # First names of groups that were complete; checked when their turn comes.
        self._complete: list[str] = []

    def add(self, name: str) -> None:
        """Take up a file that appeared."""
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

    def reconcile(self, found: set[str]) -> None:
        """Make these names, and no others, the files that wait."""
        self._ignored &= found
        for name in self._places.keys() - found:
            self.discard(name)
        for name in found - self._places.keys():
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


def _alone(name: str) -> tuple[Hashable, Hashable]:
    return name, None


class _Locator:
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
        try:
            place = self._group_of(name), self._item_of(name)
            hash(place)
        except Exception as error:
            reason = f"its grouping or item function raised {error!r}"
        else:
            if place[1] in self.items:
                return place
            reason = f"its item {place[1]!r} is not in the list of items"
        if name not in self._logged:
            self._logged.add(name)
            _log.warning("%s in %s is ignored: %s", name, self._folder, reason)
        return None


class ReadableGroupedFileFolderQueue(ReadableFolderQueue):
    """A folder queue that hands out sets of files: each when all its parts are there.

    A group is complete when each item of the list has a file in it; a second file for the same
    item waits for the next group. Groups come in the order of their first file names, and each
    goes to one consumer, whole.

    Args:
        path (str | os.PathLike[str]): The queue's folder; made if missing. The producers' too.
        message_extension (str): Files with this extension are messages; with or without its dot.
        task_done_directory (str | os.PathLike[str] | None): Where `task_done` moves finished
            files; made if missing. None: it removes them.
        grouping_function ((filename: str) -> str): Gives the group that a file belongs to.
        item_function ((filename: str) -> str): Gives the item of the group that a file is. A
            file for which one of the two raises, or whose item is not in the list, is ignored.
        list_of_items_in_group (list[str] | None): The items that make a group complete. None:
            each file is a group of its own, and the functions are not asked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        grouping_function: Callable[[str], Any] = same_name,
        item_function: Callable[[str], Any] = same_name,
        list_of_items_in_group: Iterable[str] | None = None,
    ) -> None:
        for name, function in (
            ("grouping_function", grouping_function),
            ("item_function", item_function),
        ):
            if not callable(function):
                raise TypeError(f"{name} is {function!r}; expected a function of a file name")
        if isinstance(list_of_items_in_group, str):
            raise TypeError(
                f"list_of_items_in_group is the str {list_of_items_in_group!r}; expected a list "
                "of str, or None"
            )
        self.grouping_function = grouping_function
        self.item_function = item_function
        self.list_of_items_in_group = (
            None if list_of_items_in_group is None else [*list_of_items_in_group]
        )
        if self.list_of_items_in_group == []:
            raise ValueError(
                "list_of_items_in_group is empty, so no group could ever be complete; name the "
                "items, or pass None to make each file a group of its own"
            )
        super().__init__(path, message_extension, task_done_directory)

    def _functions(self) -> dict[str, Callable[..., Any]]:
        return {
            "grouping_function": self.grouping_function,
            "item_function": self.item_function,
        }

    def _settings(self) -> dict[str, Any]:
        return {
            **super()._settings(),
            **self._functions(),
            "list_of_items_in_group": self.list_of_items_in_group,
        }

    def _make_watch(self) -> None:
        # Files of a claim that failed half way and whose own names were taken meanwhile.
        self._to_undo: list[tuple[str, str]] = []
        items = self.list_of_items_in_group
        if items is None:
            self._groups = Groups(_alone, frozenset([None]))
        else:
            locate = _Locator(self.path, self.grouping_function, self.item_function, items)
            self._groups = Groups(locate, locate.items)
        self._watch = Watch(self.path, self._extension, self._prefix, self._groups)

    def get(self, timeout: float | None = None) -> Any:
        """Claim the next complete group, by renaming its files in their folder.

        Args:
            timeout (float | None): Milliseconds to wait for a group; None waits for ever, 0 looks
                once.

        Returns:
            list[str] | int: The paths of the claimed files, sorted; FAILED while a `.failed` is
            there; DONE when no complete group waits and all announced producers are done. Parts
            that remain then are logged as a warning, with what they miss.

        Raises:
            queue.Empty: No group was complete within `timeout`.
            OSError: The folder is gone, or the file system refuses the claim.
        """
        return super().get(timeout)

    def _claim_next(self) -> list[str] | None:
        groups, watch = self._groups, self._watch
        self._held = False
        self._undo(self._to_undo)
        set_aside: list[str] = []
        claimed: list[tuple[str, str]] = []
        while True:
            wanted = groups.first()
            if wanted is None:
                break
            odd = [name for name in wanted if name in watch.unsure and not watch.is_file(name)]
            for name in odd:
                groups.discard(name)
            if odd:
                continue
            # All consumers claim in the order of names, so of those who want the same files one
            # gets them all; the others give back what they took.
            for name in wanted:
                try:
                    path = self._claim(name)
                except FileExistsError:
                    set_aside.append(name)
                    groups.discard(name)
                    path = None
                except OSError:
                    self._undo(claimed)
                    raise
                else:
                    watch.forget(name)
                if path is None:
                    self._undo(claimed)
                    claimed = []
                    break
                claimed.append((path, name))
            else:
                break
        if set_aside:
            self._held = True
            for name in set_aside:
                groups.add(name)
        return sorted(path for path, _ in claimed) or None

    def _undo(self, claimed: list[tuple[str, str]]) -> None:
        """Give back files of a group that could not be claimed whole; empties the list."""
        again: list[tuple[str, str]] = []
        for path, name in claimed:
            try:
                _fs.rename_new(path, self._folder_prefix + name)
            except FileNotFoundError:
                pass  # reset by a producer
            except FileExistsError:
                if (path, name) not in self._to_undo:
                    _log.warning("%s keeps this name until the file %s is taken", path, name)
                again.append((path, name))
            else:
                self._groups.add(name)
        claimed.clear()
        self._to_undo.extend(entry for entry in again if entry not in self._to_undo)

    def _waiting(self) -> list[str]:
        return self._groups.all()

    def _report_end(self) -> None:
        for group, missing in self._groups.parts().items():
            _log.warning(
                "%s: the producers are done, and group %r stays behind, without %s",
                self.path,
                group,
                ", ".join(sorted(map(str, missing))) or "a file that could be claimed",
            )
