"""How a consumer gets files off a folder queue, and what it is told when none is there."""

from __future__ import annotations

import os
import threading
import time
from queue import Empty
from threading import get_ident

from persistq._folder import recovery
from persistq._folder.base import generation, same_name
from persistq._folder.claiming import Claiming
from persistq._folder.control import Producers
from persistq._generic import Claim
from persistq._sentinels import DONE, FAILED
from persistq.exceptions import UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from persistq._sentinels import Sentinel

# Seconds between two looks whether a producer has died, and how many times its own cost such
# a look must stay away.
_PRODUCERS_S, _PRODUCERS_SHARE = 0.5, 20


class ReadableFolderQueue(Claiming[Claim]):
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
        self.min_age: float = min_age
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
        self._producers = Producers(self.path)
        self._next_producers_s = 0.0
        self._watching = threading.Lock()

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
            watch, turn = self._watch, self._member.turn
            try:
                before = watch.changes
                if turn.first == get_ident():
                    was_busy = turn.is_busy
                    try:
                        turn.is_busy = True
                        if (turn.is_alone or was_busy) and not self._producers.failed:
                            claim: Claim | None = self._take_quickly(taking)
                            if claim is not None:
                                return claim
                    finally:
                        turn.is_busy = was_busy
                with self._lock:
                    self._come()
                    self._taking = taking
                    message = self._look()
                    seen = watch.changes
                if seen != before and self._watching.locked():
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
            watching = self._watching
            if watching.acquire(blocking=False):
                try:
                    if watch.changes == seen:  # else another thread read reports meanwhile
                        watch.wait(pause_s)
                finally:
                    watching.release()
            elif watching.acquire(timeout=pause_s):
                watching.release()

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
            self._come()
            restored = recovery.reclaim_abandoned(self, max_attempts)
            if restored:
                self._watch.distrust()
            return restored

    def mark_all_work_done(self) -> None:
        """Finish all files that wait, as `task_done` does, without handing them out."""
        self._own()
        with self._lock:
            self._come()
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

    def dispose(self) -> None:
        """Stop using the queue, as a consumer: stop watching the folder. It can be used again."""
        self._own()
        with self._lock:
            self._come()
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
