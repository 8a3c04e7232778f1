"""How files get off a folder queue: claim, work, finish."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from functools import partial
from queue import Empty
from threading import get_ident

from persistq import _fs
from persistq._folder import names, recovery
from persistq._folder.base import generation, same_name
from persistq._folder.control import Producers
from persistq._folder.finishing import Finishing
from persistq._folder.ordered import Ordered, sorting_key
from persistq._folder.publish import is_still_a_file, publish
from persistq._folder.waiting import WaitingRoom
from persistq._folder.watch import Watch
from persistq._generic import Claim
from persistq._sentinels import DONE, FAILED
from persistq.exceptions import UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from persistq._sentinels import Sentinel

_log = logging.getLogger("persistq")

# Seconds between two tries for a file whose claimed name this process still
# holds: that it finished the other is nothing that the folder reports.
_HELD_PAUSE_S = 0.02
# Seconds between two looks whether a producer has died, and how many times its own cost such
# a look must stay away.
_PRODUCERS_S, _PRODUCERS_SHARE = 0.5, 20
# What is wrong with one file, and keeps no other from being claimed: another user's in a sticky
# folder, one that may not be changed, a claimed name that would be too long, a mount point.
_OF_ONE_FILE = {errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.EXDEV}


class ReadableFolderQueue(Finishing[Claim]):
    """A queue whose messages are files in a folder, as its consumers see it.

    Each file goes to one consumer, lowest first by `sorting_function` among those that are there
    at the call. Iterating yields the paths of claimed files, stops at DONE, and raises
    UpstreamFailureError at FAILED.

    Args:
        path (str | os.PathLike[str]): The queue's folder; made if missing. The producers' too.
        message_extension (str): Files with this extension are messages; with or without its dot.
        task_done_directory (str | os.PathLike[str] | None): Where `task_done` moves finished
            files; made if missing. None: it removes them.
        sorting_function ((filename: str) -> str): Gives what a file is sorted by; called once
            for each file that appears. Numbers come before strings, by value; one that raises or
            returns None counts as `""`. Equals come by name.
        task_failed_directory (str | os.PathLike[str] | None): Where `task_failed` moves files;
            made if missing. None: they stay in the queue's folder, as `<name>.rejected`.
        min_age (float): Milliseconds for which a file's size and time of change must have stood
            still before it counts: for uploads that cannot be made to rename.
        ignore_case (bool): Whether `A.TSV` is a message where the extension is `.tsv`. The
            producers' too.
        forever (bool): Whether to wait for more when all producers are done.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        sorting_function: Callable[[str], Any] = same_name,
        *,
        task_failed_directory: str | os.PathLike[str] | None = None,
        min_age: float = 0,
        ignore_case: bool = False,
        forever: bool = False,
    ) -> None:
        if not isinstance(min_age, (int, float)) or not 0 <= min_age < float("inf"):
            raise ValueError(f"min_age is {min_age!r}; expected milliseconds, 0 or more")
        self.min_age = min_age
        self.forever = forever
        super().__init__(
            path, message_extension, task_done_directory, sorting_function, ignore_case=ignore_case
        )
        self.task_failed_directory: str | None = self._other_folder(
            "task_failed_directory", task_failed_directory
        )

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "min_age": self.min_age, "forever": self.forever}

    def _start_here(self) -> None:
        super()._start_here()
        self._extension_length = len(self._extension)
        self._one_case = not self.ignore_case
        self._claim_prefix = self._folder_prefix + self._prefix
        self._is_quick = self._one_case and not self.min_age
        self._producers = Producers(self.path)
        # Seconds until what is withheld may be had; None while nothing is.
        self._pause_s: float | None = None
        self._waiting_room = WaitingRoom(self.path, self.min_age / 1000, self._member.staged)
        self._next_producers_s = 0.0
        self._logged: set[str] = set()
        # What the get that is under way has claimed, or is about to.
        self._taking: list[str] = []
        # What could not be put back when a get was interrupted: handed out by the next.
        self._to_hand_out: list[str] = []
        self._turn = threading.Lock()
        self._make_watch()

    def _make_watch(self) -> None:
        # Nothing that the queue holds refers back to it, so one that is dropped gives its
        # descriptors back at once.
        self._index = self._make_index()
        self._watch = Watch(self.path, self._extension, self._member, self._index, self.ignore_case)

    def _make_index(self) -> Any:
        function = self._sorting_function
        return Ordered(None if function is same_name else partial(sorting_key, function))

    def get(self, timeout: float | None = None) -> Claim | Sentinel:
        """Claim the next file, by renaming it in its folder.

        Args:
            timeout (float | None): Milliseconds to wait for a file; None waits for ever, 0 looks
                once. `PersistentQueue.get` uses seconds.

        Returns:
            str | Sentinel: The path of the claimed file; FAILED while a `.failed` is there, before
            waiting files; DONE when no file waits and all announced producers are done.

        Raises:
            queue.Empty: No file came within `timeout`.
            OSError: The folder is gone, or the file system refuses the claim.

        Note:
            Killed at any moment, this leaves each file waiting or claimed; `reclaim_abandoned`
            and `reset` find the claimed ones.
        """
        deadline_s = None if timeout is None else time.monotonic() + timeout / 1000
        taking: list[str] = []
        while True:
            if self._generation != generation[0]:
                self._own()
            watch, lock = self._watch, self._lock
            try:
                before = watch.changes
                if lock.first == get_ident():
                    was_busy = lock.is_busy
                    try:
                        lock.is_busy = True
                        if lock.is_alone or was_busy:
                            claim: Claim | None = self._take_quickly(taking)
                            if claim is not None:
                                return claim
                    finally:
                        lock.is_busy = was_busy
                with lock:
                    self._taking = taking
                    message = self._look()
                    seen = watch.changes
                if seen != before and self._turn.locked():
                    watch.wake()  # this look read the reports that the waiting thread waits for
                if message is not None:
                    return message
            except BaseException:
                # Ctrl-C, a time limit's signal: whatever was claimed, nobody has.
                self._undo_get(taking)
                raise
            pause_s = 3600.0 if self._pause_s is None else self._pause_s
            if deadline_s is not None:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise Empty
                pause_s = min(pause_s, left_s)
            # One thread of a queue watches; the others wait for their turn, and look again after
            # it, for the reports that it read may have told of more than it took.
            turn = self._turn
            if turn.acquire(blocking=False):
                try:
                    if watch.changes == seen:  # else another thread read reports meanwhile
                        watch.wait(pause_s)
                finally:
                    turn.release()
            elif turn.acquire(timeout=pause_s):
                turn.release()

    def _undo_get(self, taking: list[str]) -> None:
        """Put back what an interrupted get had claimed; look at the folder anew afterwards."""
        with self._lock:
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
            or self._producers.failed
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

    def _look(self) -> Claim | Sentinel | None:
        """Give what there is for this consumer now, or None."""
        watch, producers = self._watch, self._producers
        watch.refresh()
        while True:
            if watch.controls_changed or producers.failed:
                watch.controls_changed = False
                producers.look(watch.controls)
                if producers.failed:
                    return FAILED
            message: Claim | None = self._claim_next()
            if message is None and watch.is_elsewhere():
                watch.look()
                message = self._claim_next()
            if message is None and producers.done and not watch.controls_changed:
                # The producers before the last look for files: what one of them put came before
                # its .done, so a look that begins after that was seen finds it.
                watch.look()
                message = self._claim_next()
                if message is None and not watch.controls_changed and self._pause_s is None:
                    self._report_end()
                    if not self.forever:
                        return DONE
            # A control file may have shown itself meanwhile, in a report that nothing repeats.
            if message is None and watch.controls_changed:
                continue
            if message is None and producers.open and self._has_a_producer_died():
                # It may have put something between the last look for files and its death.
                watch.look()
                message = self._claim_next()
                if message is None and not self._waits_for_something():
                    return FAILED
            return message

    def _has_a_producer_died(self) -> bool:
        """Tell whether a producer died before it was done.

        Nothing reports a death: while this queue waits, it looks at least every `_PRODUCERS_S`.
        """
        now_s = time.monotonic()
        self._pause_s = min(_PRODUCERS_S, 3600.0 if self._pause_s is None else self._pause_s)
        if self._waits_for_something():
            return False
        if self._producers.died or now_s < self._next_producers_s:
            return self._producers.died
        died = self._producers.has_died()
        # However many there are, this takes little of the time.
        self._next_producers_s = now_s + _PRODUCERS_SHARE * (time.monotonic() - now_s)
        return died

    def _waits_for_something(self) -> bool:
        """Whether files wait that this consumer may not have yet."""
        return bool(self._waiting_room.waiting) or self._held

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
            self._pause_s = _HELD_PAUSE_S
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

    def _report_end(self) -> None:
        """Say what stays behind when the queue ends; nothing does here."""

    def reclaim_abandoned(self, max_attempts: int | None = 5) -> list[str]:
        """Put back the files that dead processes had claimed, of whichever host or container.

        Each is put back once, by one of however many consumers call this; the living keep theirs,
        and so do those of whom nothing is proved. What the dead left beside that and nothing
        refers to any more (leases, control files, half written files) is cleared away.

        Args:
            max_attempts (int | None): A file with which so many processes have died is set aside
                as by `task_failed`; None: no limit.

        Returns:
            list[str]: Paths of the files that wait again.

        Raises:
            ValueError: `max_attempts` is less than 1.
        """
        if max_attempts is not None and max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}; expected 1 or more, or None")
        self._own()
        with self._lock:
            restored = recovery.reclaim_abandoned(self, max_attempts)
            if restored:
                self._watch.distrust()
            return restored

    def mark_all_work_done(self) -> None:
        """Finish all files that wait, as `task_done` does, without handing them out."""
        self._own()
        with self._lock:
            self._taking = []
            self._watch.look()
            for name in self._waiting():
                if name in self._watch.unsure and not self._watch.is_file(name):
                    continue
                try:
                    path = self._claim(name)
                except FileExistsError:
                    continue  # one of this name is being worked on here
                except OSError as error:
                    self._pass_over(name, error)
                    continue
                self._watch.forget(name)
                if path is not None:
                    self._noted = self._watch.noted
                    self._finish(path)

    def _waiting(self) -> list[str]:
        waiting: list[str] = self._index.all()
        return waiting

    def dispose(self) -> None:
        """Stop using the queue, as a consumer: stop watching the folder. It can be used again."""
        self._own()
        with self._lock:
            self._watch.close()
            self._member.let_go()

    def __iter__(self) -> Iterator[Claim]:
        try:
            while True:
                message = self.get()
                if message is DONE:
                    return
                if message is FAILED:
                    raise UpstreamFailureError(
                        f"a producer of {self.path} failed: there is a .failed file, or a .helo "
                        "that is none, or a producer died before it had closed (the log says "
                        "which). Find out why, then start the next run with reset(), or the "
                        "producer again, with close(dead=True)."
                    )
                yield message
        finally:
            self.dispose()
