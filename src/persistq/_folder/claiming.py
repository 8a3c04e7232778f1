"""How files are claimed: the lowest that can be had, each by one consumer."""

from __future__ import annotations

import errno
import logging
import os
from functools import partial

from persistq import _fs
from persistq._folder import names
from persistq._folder.base import same_name
from persistq._folder.finishing import Finishing
from persistq._folder.ordered import Ordered, sorting_key
from persistq._folder.publish import is_still_a_file, publish
from persistq._folder.waiting import WaitingRoom
from persistq._folder.watch import Watch
from persistq._generic import Claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_log = logging.getLogger("persistq")

# Seconds between two tries for a file whose claimed name this process still
# holds: that it finished the other is nothing that the folder reports.
HELD_PAUSE_S = 0.02
# What is wrong with one file, and keeps no other from being claimed: another user's in a sticky
# folder, one that may not be changed, a claimed name that would be too long, a mount point.
_OF_ONE_FILE = {errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.EXDEV}


class Claiming(Finishing[Claim]):
    """The side of a consumer that claims: base of the queues that hand out."""

    min_age: float

    def _start_here(self) -> None:
        super()._start_here()
        self._extension_length = len(self._extension)
        self._one_case = not self.ignore_case
        self._claim_prefix = self._folder_prefix + self._prefix
        self._is_quick = self._one_case and not self.min_age
        # Seconds until what is withheld may be had; None while nothing is.
        self._pause_s: float | None = None
        self._waiting_room = WaitingRoom(self.path, self.min_age / 1000, self._member.staged)
        self._held = False
        self._logged: set[str] = set()
        # What the get that is under way has claimed, or is about to.
        self._taking: list[str] = []
        # What could not be put back when a get was interrupted: handed out by the next.
        self._to_hand_out: list[str] = []
        self._make_watch()

    def _make_watch(self) -> None:
        # Nothing that the queue holds refers back to it, so one that is dropped gives its
        # descriptors back at once.
        self._index = self._make_index()
        self._watch = Watch(self.path, self._extension, self._member, self._index, self.ignore_case)

    def _make_index(self) -> Any:
        function = self._sorting_function
        return Ordered(None if function is same_name else partial(sorting_key, function))

    def _undo_get(self, taking: list[str]) -> None:
        """Put back what an interrupted get had claimed; look at the folder anew afterwards."""
        with self._lock:
            self._come()
            # Whatever of it stays claimed, should this be interrupted, too.
            self._to_hand_out += taking
            self._renew_index()
            for path in taking:
                try:
                    publish(path, self.original_filename_from_wip(path), self._member)
                except FileNotFoundError:
                    pass  # it had not been claimed yet
                except OSError:
                    continue  # its name is taken, or the folder cannot be reached
                self._to_hand_out.remove(path)

    def _renew_index(self) -> None:
        # A report may have been read, and not been applied.
        self._watch.index = self._index = self._make_index()
        self._watch.distrust()

    def _take_quickly(self, taking: list[str]) -> Any:
        """Claim the first file, where nothing else is to be considered: what most calls come to.

        As `_look` and all that it calls, in one step after the other; None, with nothing claimed,
        wherever it would do more. The caller has the turn.
        """
        member, index = self._member, self._index
        if (
            not self._is_quick
            or member.lease is None
            or self._to_hand_out
            or self._waiting_room.waiting
        ):
            return None
        claimed = member.claimed
        while self._watch.is_quiet() and (name := index.take()) is not None:
            path = f"{self._claim_prefix}{name[: -self._extension_length]}.wip"
            if path in claimed:
                index.add(name)
                return None
            claimed.add(path)
            taking.append(path)
            try:
                if _fs.claim(self._folder_prefix + name, path):
                    self._latest = path
                    return path
            except OSError:
                index.add(name)  # the longer way meets it again, and knows what to do
            taking.clear()
            claimed.discard(path)
        return None

    def _claim_next(self) -> Any:
        """Claim the first file that can be had; None when there is none."""
        index, watch, room = self._index, self._watch, self._waiting_room
        self._held = False
        self._pause_s = None
        if self._to_hand_out and (path := self._hand_out()) is not None:
            return path
        if room.waiting:
            for name in room.due():
                index.add(name)
        noted = watch.noted
        held: list[str] = []
        path = None
        while (name := index.first()) is not None:
            if name in watch.unsure and not watch.is_file(name):
                index.discard(name)
                continue
            if (room.asks or name in noted) and room.withhold(name, noted):
                index.discard(name)
                continue
            try:
                path = self._claim(name)
            except FileExistsError:
                held.append(name)
                index.discard(name)
                continue
            except OSError as error:
                self._pass_over(name, error)
                continue
            watch.forget(name)
            if path is not None:
                break
            # Others are at work here: what they have taken by now need not be tried.
            watch.refresh()
        if watch.odd:
            self._log_odd()
        if held:
            self._held = True
            self._pause_s = HELD_PAUSE_S
            for name in held:
                index.add(name)
        if room.waiting:
            self._pause_s = min(room.seconds_left(), self._pause_s or 3600.0)
        self._noted = noted
        return path

    def _hand_out(self) -> str | None:
        while self._to_hand_out:
            path = self._to_hand_out.pop()
            if os.path.lexists(path):
                self._taking.append(path)
                _log.warning("%s was claimed by a get() that was interrupted: handed out", path)
                return path
        return None

    def _pass_over(self, name: str, error: OSError) -> None:
        """Leave a file that cannot be claimed, so that the others are handed out.

        Raises:
            OSError: It is not about this one file.
        """
        if error.errno not in _OF_ONE_FILE:
            raise error
        self._index.discard(name)
        self._watch.pass_over(name, error.strerror or str(error))

    def _log_odd(self) -> None:
        for name, reason in self._watch.odd.items():
            if name not in self._logged:
                self._logged.add(name)
                _log.warning("%s in %s is passed over: %s", name, self.path, reason)

    # Whether what bears this process's number, and it has not claimed, is handed out.
    _hands_out_found = True

    def _claim(self, name: str) -> str | None:
        """Claim one file; None when another process has it.

        Raises:
            FileExistsError: This process holds a claimed file of that name.
        """
        folder_prefix, member = self._folder_prefix, self._member
        if self._one_case or name.endswith(self._extension):
            path = f"{folder_prefix}{self._prefix}{name[: -self._extension_length]}.wip"
        else:
            path = folder_prefix + names.wip_name(name, self._extension, self._prefix)
        if member.lease is None:
            member.hold()  # before anything bears this process's number
        claimed, taking = member.claimed, self._taking
        known = path in claimed
        claimed.add(path)
        taking.append(path)
        try:
            if not _fs.claim(folder_prefix + name, path):
                taking.pop()
                if not known:
                    claimed.discard(path)
                return None
        except FileExistsError:
            if known or not self._hands_out_found:
                taking.pop()
                raise
            # Nobody else gives such names, and no caller has it: so it is claimed by us
            # already.
            self._watch.distrust()  # the new file still waits
            _log.warning("%s was left claimed, and nobody has it: it is handed out", path)
            return path
        except OSError:
            taking.pop()
            if not known:
                claimed.discard(path)
            raise
        if self._watch.careful and not is_still_a_file(path, folder_prefix + name):
            taking.pop()
            claimed.discard(path)
            return None
        if member.lease is None or path not in claimed:
            # Another queue of this process has disposed this moment, and seen nothing claimed.
            claimed.add(path)
            member.hold()
        self._latest = path
        return path

    def _waiting(self) -> list[str]:
        waiting: list[str] = self._index.all()
        return waiting
