"""How files get off a folder queue: claim, work, finish."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from functools import partial
from queue import Empty

from persistq import _fs
from persistq._folder import names, recovery
from persistq._folder.base import _FolderQueue, process_prefix, same_name, sorting_value
from persistq._folder.control import Producers
from persistq._folder.ordered import Ordered
from persistq._folder.watch import Watch
from persistq._sentinels import DONE, FAILED
from persistq.exceptions import UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Union

    # What names a claimed file: its path, a UUID in its name, or a list of these.
    Claimed = Any
    Message = Union[str, list[str], int]

_log = logging.getLogger("persistq")

# Seconds between two tries for a file whose claimed name this process still
# holds: that it finished the other is nothing that the folder reports.
_HELD_PAUSE_S = 0.02


def _is_number(value: Any) -> bool:
    """Tell whether a value has a place among the numbers: neither a NaN nor a complex one has."""
    import decimal
    import numbers

    real = isinstance(value, (numbers.Real, decimal.Decimal))
    return real and value == value


def _sorting_key(function: Callable[[str], Any], name: str) -> tuple[int, Any]:
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


class ReadableFolderQueue(_FolderQueue):
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
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        sorting_function: Callable[[str], Any] = same_name,
    ) -> None:
        super().__init__(path, message_extension, task_done_directory, sorting_function)

    def _start_here(self) -> None:
        super()._start_here()
        self._extension_length = len(self._extension)
        self._folder_prefix = self.path + os.sep
        # A path as get() returns it, of any process: anything else takes the longer way.
        self._is_wip = re.compile(
            re.escape(self._folder_prefix) + r"\d{6,}_\d{10}_[^/\0]+\.wip", re.ASCII
        ).fullmatch
        self._producers = Producers(self.path)
        self._held = False
        # The path that was claimed last, and is mostly done next; first, what no caller has.
        self._latest: object = object()
        self._turn = threading.Lock()
        self._make_watch()

    def _make_watch(self) -> None:
        # Nothing that the queue holds refers back to it, so one that is dropped gives its
        # descriptors back at once.
        function = self._sorting_function
        self._index = Ordered(None if function is same_name else partial(_sorting_key, function))
        self._watch = Watch(self.path, self._extension, self._prefix, self._index)

    def get(self, timeout: float | None = None) -> Any:
        """Claim the next file, by renaming it in its folder.

        Args:
            timeout (float | None): Milliseconds to wait for a file; None waits for ever, 0 looks
                once. `PersistentQueue.get` uses seconds.

        Returns:
            str | int: The path of the claimed file; FAILED while a `.failed` is there, before
            waiting files; DONE when no file waits and all announced producers are done.

        Raises:
            queue.Empty: No file came within `timeout`.
            OSError: The folder is gone, or the file system refuses the claim.

        Note:
            Killed at any moment, this leaves each file waiting or claimed; `reclaim_abandoned`
            and `reset` find the claimed ones.
        """
        deadline_s = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            if self._pid != os.getpid():
                self._own()
            watch = self._watch
            before = watch.changes
            with self._lock:
                message = self._look()
                seen = watch.changes
            if seen != before and self._turn.locked():
                watch.wake()  # this look read the reports that the waiting thread is waiting for
            if message is not None:
                return message
            pause_s = _HELD_PAUSE_S if self._held else 3600.0
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

    def _look(self) -> Message | None:
        """Give what there is for this consumer now, or None."""
        watch, producers = self._watch, self._producers
        watch.refresh()
        while True:
            if watch.controls_changed or producers.failed:
                watch.controls_changed = False
                producers.look(watch.controls)
                if producers.failed:
                    return FAILED
            message = self._claim_next()
            if message is None and producers.done and not watch.controls_changed:
                # The producers before the last look for files: what one of them put came before
                # its .done, so a look that begins after that was seen finds it.
                watch.look()
                message = self._claim_next()
                if message is None and not watch.controls_changed and not self._held:
                    self._report_end()
                    return DONE
            # A control file may have shown itself meanwhile, in a report that nothing repeats.
            if message is not None or not watch.controls_changed:
                return message

    def _claim_next(self) -> str | list[str] | None:
        """Claim the first file that can be had; None when there is none."""
        index, watch = self._index, self._watch
        self._held = False
        held: list[str] = []
        path: str | None = None
        while (name := index.first()) is not None:
            if name in watch.unsure and not watch.is_file(name):
                index.discard(name)
                continue
            try:
                path = self._claim(name)
            except FileExistsError:
                held.append(name)
                index.discard(name)
                continue
            watch.forget(name)
            if path is not None:
                break
            # Others are at work here: what they have taken by now need not be tried.
            watch.refresh()
        if held:
            self._held = True
            for name in held:
                index.add(name)
        return path

    def _claim(self, name: str) -> str | None:
        """Claim one file; None when another process has it.

        Raises:
            FileExistsError: This process holds a claimed file of that name.
        """
        folder_prefix = self._folder_prefix
        wip = f"{self._prefix}{name[: -self._extension_length]}.wip"
        path = folder_prefix + wip
        try:
            if not _fs.claim(folder_prefix + name, path):
                return None
        except FileExistsError:
            if wip not in self._watch.inherited:
                raise
            # Left by a dead process that had our id, and its own name is taken by a new file, so
            # it cannot be put back: but under this name it is claimed by us already.
            self._watch.inherited.discard(wip)
            self._watch.distrust()  # the new file still waits
            _log.warning("%s was left claimed by a process that died: it is handed out", path)
            return path
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                error.strerror = f"claimed, the name of {name!r} is too long; rename the file"
            raise
        if self._watch.inherited:
            self._watch.inherited.discard(wip)
        self._latest = path
        return path

    def _report_end(self) -> None:
        """Say what stays behind when the queue ends; nothing does here."""

    def task_done(self, obj: Claimed) -> None:
        """Finish a claimed file: move it to `task_done_directory`, or remove it.

        Never overwrites: where the directory holds the name, the file becomes `name.1.tsv`.

        Args:
            obj (Any): What `get` returned; or a dict with `uuid` or `header.uuid`, a uuid.UUID
                or its string, with which the file's name ends.

        Raises:
            ValueError: It names no claimed file of this queue.
            FileNotFoundError: There is a `task_done_directory`, and the claimed file is gone.
            OSError: The file system refuses; the file stays claimed then.
        """
        if type(obj) is str and (obj is self._latest or self._is_wip(obj)):
            if self.task_done_directory is None:
                try:
                    os.unlink(obj)
                except FileNotFoundError:
                    pass  # the caller has moved it, as a queue without a directory asks of him
            else:
                self._finish(obj)
            return
        paths = self._resolve(obj)  # all of them, before anything is touched
        failure: OSError | None = None
        for path in paths:
            try:
                self._finish(path)
            except OSError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _finish(self, path: str) -> None:
        if self.task_done_directory is None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # moved by the caller
            return
        name = os.path.basename(self.original_filename_from_wip(path))
        number = 0
        while True:
            target = os.path.join(
                self.task_done_directory, names.numbered(name, self._extension, number)
            )
            try:
                self._move_away(path, target)
                return
            except FileExistsError:
                number += 1

    def _move_away(self, path: str, target: str) -> None:
        try:
            _fs.rename_new(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            import uuid

            # To another file system: whole under its name before the claimed one goes. Killed in
            # between there are both, and the work is done again after a reset.
            staged = os.path.join(
                os.path.dirname(target),
                f"{names.TEMPORARY}{process_prefix()}{uuid.uuid4().hex}.tmp",
            )
            _fs.stage_copy(path, staged, sync=False, keep_times=True)
            try:
                _fs.rename_new(staged, target)
            except BaseException:
                os.unlink(staged)
                raise
            os.unlink(path)

    def _resolve(self, obj: Claimed) -> list[str]:
        """Give the paths of the claimed files that something names.

        Raises:
            ValueError: It names none of this queue.
        """
        if isinstance(obj, (list, tuple)):
            if not obj:
                raise ValueError(
                    "an empty list names no claimed file; expected what get() returned"
                )
            return [path for part in obj for path in self._resolve(part)]
        if isinstance(obj, dict):
            header = obj.get("header")
            identity = obj.get("uuid", header.get("uuid") if isinstance(header, dict) else None)
            if identity is None:
                raise ValueError(f"{obj!r} has neither 'uuid' nor 'header' with 'uuid'")
            return [self._find_by_uuid(str(identity))]
        if isinstance(obj, (str, bytes, os.PathLike)):
            text = os.fsdecode(obj)
            if names.parse_wip(os.path.basename(text)) is not None:
                return [self._path_in_folder(text)]
            if names.uuid_endings(text):
                return [self._find_by_uuid(text)]
        elif type(obj).__name__ == "UUID":
            return [self._find_by_uuid(str(obj))]
        raise ValueError(
            f"{obj!r} names no claimed file of {self.path}; expected what get() returned, or a UUID"
        )

    def _path_in_folder(self, text: str) -> str:
        folder, name = os.path.split(text)
        if folder and os.path.abspath(folder) != self.path:
            try:
                inside = os.path.samefile(folder, self.path)
            except OSError:
                inside = False
            if not inside:
                raise ValueError(
                    f"{text!r} is not in this queue's folder {self.path}; expected what get() "
                    "returned"
                )
        return self._folder_prefix + name

    def _find_by_uuid(self, text: str) -> str:
        endings = names.uuid_endings(text)
        if endings is None:
            raise ValueError(f"{text!r} is no UUID")
        found = []
        for name in os.listdir(self.path):
            parts = names.parse_wip(name)
            if parts and parts[2].lower().endswith(endings):
                found.append(name)
        if not found:
            raise ValueError(f"no claimed file in {self.path} has a name that ends with {text}")
        # Should there be several, one of this process is meant.
        own = process_prefix()
        return self._folder_prefix + min(found, key=lambda name: (not name.startswith(own), name))

    def release(self, obj: Claimed) -> None:
        """Put a claimed file back on the queue, under its own name.

        Args:
            obj (Any): As for `task_done`.

        Raises:
            ValueError: It names no claimed file of this queue.
            FileExistsError: A file of its name waits already; the claimed one stays.
            FileNotFoundError: The claimed file is gone.
        """
        failure: OSError | None = None
        for path in self._resolve(obj):
            try:
                _fs.rename_new(path, self.original_filename_from_wip(path))
            except OSError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def reclaim_abandoned(self) -> list[str]:
        """Put back the files that dead processes of this host had claimed.

        Returns:
            list[str]: Paths of the files that wait again.
        """
        self._own()
        with self._lock:
            self._watch.look()  # which also tells what bears our id and is not ours
            inherited = self._watch.inherited
            restored = recovery.reclaim_abandoned(self.path, self._extension, inherited)
            for wip in [*inherited]:
                if not os.path.lexists(self._folder_prefix + wip):
                    inherited.discard(wip)
            return restored

    def mark_all_work_done(self) -> None:
        """Finish all files that wait, as `task_done` does, without handing them out."""
        self._own()
        with self._lock:
            self._watch.look()
            for name in self._waiting():
                if name in self._watch.unsure and not self._watch.is_file(name):
                    continue
                try:
                    path = self._claim(name)
                except FileExistsError:
                    continue  # one of this name is being worked on here
                self._watch.forget(name)
                if path is not None:
                    self._finish(path)

    def _waiting(self) -> list[str]:
        return self._index.all()

    def dispose(self) -> None:
        """Stop using the queue, as a consumer: stop watching the folder. It can be used again."""
        self._own()
        with self._lock:
            self._watch.close()

    def __iter__(self) -> Iterator[Any]:
        try:
            while True:
                message = self.get()
                if message is DONE:
                    return
                if message is FAILED:
                    raise UpstreamFailureError(
                        f"a producer of {self.path} failed: there is a .failed file, or a .helo "
                        "that is none. Find out why, then start the next run with reset()."
                    )
                yield message
        finally:
            self.dispose()
