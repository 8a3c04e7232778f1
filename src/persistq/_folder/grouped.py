"""How whole groups of files get off a folder queue, once all parts of one are there."""

from __future__ import annotations

import contextlib
import errno
import logging
import os

from persistq import _fs
from persistq._folder import half_way, identity, together
from persistq._folder.base import same_name
from persistq._folder.claiming import HELD_PAUSE_S
from persistq._folder.groups import Groups, Locator, alone
from persistq._folder.publish import publish
from persistq._folder.readable import ReadableFolderQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from persistq._folder.finishing import Claimed
    from persistq._reasons import Reason
    from persistq._sentinels import Sentinel

_log = logging.getLogger("persistq")


class ReadableGroupedFileFolderQueue(ReadableFolderQueue[list[str]]):
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
        task_failed_directory, min_age, ignore_case, forever: As of `ReadableFolderQueue`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        grouping_function: Callable[[str], Any] = same_name,
        item_function: Callable[[str], Any] = same_name,
        list_of_items_in_group: Iterable[str] | None = None,
        *,
        task_failed_directory: str | os.PathLike[str] | None = None,
        min_age: float = 0,
        ignore_case: bool = False,
        forever: bool = False,
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
        self.list_of_items_in_group: list[str] | None = (
            None if list_of_items_in_group is None else [*list_of_items_in_group]
        )
        if self.list_of_items_in_group == []:
            raise ValueError(
                "list_of_items_in_group is empty, so no group could ever be complete; name the "
                "items, or pass None to make each file a group of its own"
            )
        super().__init__(
            path,
            message_extension,
            task_done_directory,
            task_failed_directory=task_failed_directory,
            min_age=min_age,
            ignore_case=ignore_case,
            forever=forever,
        )

    # Whoever reclaims what its claimer had puts it back as one.
    _role = identity.GROUPS

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

    def _start_here(self) -> None:
        super()._start_here()
        self._is_quick = False  # a group is claimed as one

    def _make_watch(self) -> None:
        # Files of a claim that failed half way and whose own names were taken meanwhile.
        self._to_undo: list[tuple[str, str]] = []
        super()._make_watch()

    def _make_index(self) -> Any:
        items = self.list_of_items_in_group
        if items is None:
            self._groups = Groups(alone, frozenset([None]))
        else:
            locate = Locator(self.path, self.grouping_function, self.item_function, items)
            self._groups = Groups(locate, locate.items, self._prefix, locate.peek)
        return self._groups

    def get(self, timeout: float | None = None) -> list[str] | Sentinel:
        """Claim the next complete group, by renaming its files in their folder.

        Args:
            timeout (float | None): Milliseconds to wait for a group; None waits for ever, 0 looks
                once.

        Returns:
            list[str] | Sentinel: The paths of the claimed files, sorted; FAILED while a `.failed`
            is there; DONE when no complete group waits and all announced producers are done.
            Parts that remain then are logged as a warning, with what they miss.

        Raises:
            queue.Empty: No group was complete within `timeout`.
            OSError: The folder is gone, or the file system refuses the claim.
        """
        return super().get(timeout)

    def _claim_next(self) -> list[str] | None:
        groups, watch, room = self._groups, self._watch, self._waiting_room
        self._held = False
        self._pause_s = None
        if self._to_hand_out:
            return self._hand_out_group()
        self._undo(self._to_undo)
        for name in room.due() if room.waiting else ():
            groups.add(name)
        set_aside: list[str] = []
        claimed: list[tuple[str, str]] = []
        while True:
            on_their_way = self._on_their_way() if watch.intents else frozenset()
            wanted = groups.first()
            if wanted is None:
                break
            odd = [
                name
                for name in wanted
                if (name in watch.unsure and not watch.is_file(name))
                or ((room.asks or name in watch.noted) and room.withhold(name, watch.noted))
            ]
            late = [name for name in wanted if name in on_their_way]
            if not odd and not late and groups.follows:
                late, odd = half_way.anothers(
                    wanted, groups, self._watch, self._member, self._extension
                )
            set_aside += late
            for name in odd + late:
                groups.discard(name)
            if odd or late:
                continue
            groups.begin()
            # All consumers claim in the order of names, so of those who want the same files one
            # gets them all; the others give back what they took.
            for name in wanted:
                try:
                    path = self._claim(name)
                except FileExistsError:
                    set_aside.append(name)
                    groups.discard(name)
                    path = None
                except OSError as error:
                    self._undo(claimed)
                    self._pass_over(name, error)
                    path = None
                else:
                    watch.forget(name)
                if path is None:
                    break
                claimed.append((path, name))
                # With the first of a group one has the right to all: who sees the claim leaves
                # the others, and who has not seen it meets a later file here, or none.
                if (
                    len(claimed) == 1
                    and not self._is_what_was_seen(name)
                    and self._gave_back(claimed)
                ):
                    break
            else:
                break
            self._undo(claimed)
            claimed = []
            watch.refresh()
        if watch.odd:
            self._log_odd()
        if set_aside:
            self._held = True
            self._pause_s = HELD_PAUSE_S
            for name in set_aside:
                groups.add(name)
        if room.waiting:
            self._pause_s = min(room.seconds_left(), self._pause_s or 3600.0)
        self._noted = watch.noted
        return sorted(path for path, _ in claimed) or None

    def _is_what_was_seen(self, name: str) -> bool:
        """Tell whether a file just claimed is the one that waited when this was last looked at.

        Meanwhile another may have claimed that, and a producer put the next of its name. Where
        not everything is reported, nobody can tell.
        """
        groups, watch = self._groups, self._watch
        if not groups.follows or not watch.sees_all:
            return True
        return watch.is_sure_of_claims() and name not in groups.changed

    def _gave_back(self, claimed: list[tuple[str, str]]) -> bool:
        """Give the first file of a group back; False where a later one has its name already.

        Then it is the older, and the rest belongs to it.
        """
        path, name = claimed[0]
        try:
            publish(path, self._folder_prefix + name, self._member)
        except FileExistsError:
            return False
        except FileNotFoundError:
            pass  # reset by a producer
        else:
            self._groups.add(name)
        claimed.clear()
        return True

    def _hand_out_group(self) -> list[str]:
        """Hand out what an interrupted get could not put back: with the rest of its group."""
        paths = sorted(self._to_hand_out)
        self._to_hand_out.clear()
        self._taking += paths
        _log.warning("%s: claimed by a get() that was interrupted: handed out", ", ".join(paths))
        return paths

    def _on_their_way(self) -> frozenset[str]:
        """Give the names of messages whose group is being put back, and is not whole yet."""
        found: set[str] = set()
        left = {*self._watch.intents}
        while left:
            name = left.pop()
            intent = together.read(os.path.join(self.path, name))
            if intent is None:
                # Whoever finishes it for one that has died gives it a name of his own.
                known = {*self._watch.intents}
                self._watch.intents.discard(name)
                self._watch.refresh()
                left |= self._watch.intents - known
            elif intent.verb == together.RELEASE:
                found.update(original for _, original in intent.files)
        return frozenset(found)

    def task_done(self, obj: Claimed) -> None:
        """Finish a group, as one: killed half way, whoever reclaims finishes the rest of it.

        Args:
            obj (Any): The list that `get` returned; or as of `ReadableFolderQueue.task_done`.

        Raises:
            ValueError: It names no claimed file of this queue.
            FileNotFoundError: There is a `task_done_directory`, and a claimed file is gone.
            OSError: The file system refuses; the files that it is about stay claimed.
        """
        paths = self._resolve(obj)
        with self._as_one(together.DONE, paths, self.task_done_directory):
            self._for_all(paths, self._finish)

    def task_failed(self, obj: Claimed, reason: Reason = "") -> None:
        """Set a group aside, as one; see `ReadableFolderQueue.task_failed`."""
        from persistq._reasons import describe

        self._own()
        paths, text = self._resolve(obj), describe(reason)
        with self._as_one(together.FAIL, paths, self.task_failed_directory, text):
            self._for_all(paths, lambda path: self._set_aside(path, text))

    def release(self, obj: Claimed, delay: float = 0) -> None:
        """Put a group back, as one: no consumer is handed a part of it beside another's.

        Args:
            obj (Any): The list that `get` returned; or as of `ReadableFolderQueue.task_done`.
            delay (float): Milliseconds in which nobody is handed the files.

        Raises:
            ValueError: It names no claimed file of this queue, or `delay` is less than 0.
            FileExistsError: A file of one of the names waits already; the whole group stays.
            FileNotFoundError: A claimed file is gone; the others stay.
        """
        self._own()
        self._check_delay(delay)
        paths = self._resolve(obj)
        originals = {path: self.original_filename_from_wip(path) for path in paths}
        for path, original in originals.items():
            os.lstat(path)
            if os.path.lexists(original) and not _fs.is_same_file(path, original):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path, None, original)
        put_back: list[str] = []
        with self._as_one(together.RELEASE, paths):
            try:
                for path in paths:
                    self._put_back(path, delay)
                    put_back.append(path)
            except OSError:
                # Its name was taken this moment. The others come back: while what is to become
                # of the group is written down, no consumer takes them.
                for path in put_back:
                    self._member.remember(path)
                    _fs.claim(originals[path], path)
                raise

    @contextlib.contextmanager
    def _as_one(
        self, verb: str, paths: list[str], directory: str | None = None, reason: str = ""
    ) -> Iterator[None]:
        """Have it written down what becomes of some files, while it is done.

        An OSError takes it back, for the caller is told; a kill leaves it to whoever reclaims.
        """
        if len(paths) < 2:
            yield
            return
        self._own()
        self._member.hold()
        files = [
            (os.path.basename(path), os.path.basename(self.original_filename_from_wip(path)))
            for path in paths
        ]
        path = os.path.join(self.path, together.name_of(self._member.prefix))
        intent = together.Intent(path, verb, files, directory, reason)
        intent.write(self._staged(self.path))
        try:
            yield
        except OSError:
            intent.remove()
            raise
        intent.remove()

    def _undo(self, claimed: list[tuple[str, str]]) -> None:
        """Give back files of a group that could not be claimed whole; empties the list."""
        again: list[tuple[str, str]] = []
        for path, name in claimed:
            try:
                publish(path, self._folder_prefix + name, self._member)
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
