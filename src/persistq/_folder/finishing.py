"""What becomes of claimed files: done, set aside, or put back."""

from __future__ import annotations

import logging
import os

from persistq._attempts import Attempt
from persistq._folder import failing, names, notes
from persistq._folder.base import _FolderQueue
from persistq._folder.moving import move_to
from persistq._folder.publish import publish
from persistq._generic import Claim, Generic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Union

    from persistq._reasons import Reason

    # What names a claimed file: its path, a UUID in its name or a header with that; or a list of
    # these.
    Claimed = Union[str, bytes, os.PathLike[str], uuid.UUID, dict[str, Any], Sequence["Claimed"]]

_log = logging.getLogger("persistq")


class Finishing(_FolderQueue, Generic[Claim]):
    """The side of a consumer that has claimed something: base of the queues that hand out."""

    task_failed_directory: str | None = None

    def _start_here(self) -> None:
        super()._start_here()
        self._folder_prefix = self.path + os.sep
        # The path that was claimed last, and is mostly done next; first, what no caller has.
        self._latest: object = object()
        # Names of messages of which something is written down, as far as this queue has looked.
        self._noted: set[str] = set()

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "task_failed_directory": self.task_failed_directory}

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
        if type(obj) is str and (obj is self._latest or self._is_path_of_wip(obj)):
            if self.task_done_directory is None and not self._noted:
                # As below; most come this way.
                try:
                    os.unlink(obj)
                except FileNotFoundError:
                    pass
                self._member.claimed.discard(obj)
            else:
                self._finish(obj)
            return
        self._for_all(self._resolve(obj), self._finish)

    def _is_path_of_wip(self, text: str) -> bool:
        # As get() returns it, of any process: anything else takes the longer way.
        prefix = self._folder_prefix
        return text.startswith(prefix) and names.parse_wip(text[len(prefix) :]) is not None

    def _for_all(self, paths: list[str], act: Any) -> None:
        """Do what can be done, and then raise what stopped the first that could not."""
        failure: OSError | None = None
        for path in paths:
            try:
                act(path)
            except OSError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _finish(self, path: str) -> None:
        if self.task_done_directory is None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # the caller has moved it, as a queue without a directory asks of him
        else:
            name = os.path.basename(self.original_filename_from_wip(path))
            # A note is written when the dead one's claim is put back, who may have moved it half.
            again = name in self._noted
            directory = self.task_done_directory
            move_to(path, directory, name, self._extension, self._staged, again)
        self._member.claimed.discard(path)
        if self._noted:
            self._forget_note(path)

    def _forget_note(self, path: str) -> None:
        name = os.path.basename(self.original_filename_from_wip(path))
        if name in self._noted:
            notes.forget(self.path, name)
            self._noted.discard(name)

    def task_failed(self, obj: Claimed, reason: Reason = "") -> None:
        """Set a claimed file aside: it could not be done, and trying again would not help.

        It goes to `task_failed_directory`, under its own name and never over another file, with
        the reason beside it in `<name>.reason.txt`. Without such a directory it stays in the
        queue's folder as `<name>.rejected`, which nobody takes for a message.

        Args:
            obj (Any): As for `task_done`.
            reason (str | BaseException): A text; or an exception, of which type, message and
                place are kept.

        Raises:
            ValueError: It names no claimed file of this queue.
            FileNotFoundError: The claimed file is gone.
            OSError: The file system refuses; the file stays claimed then.
        """
        from persistq._reasons import describe

        self._own()
        text = describe(reason)
        self._for_all(self._resolve(obj), lambda path: self._set_aside(path, text))

    def _set_aside(self, path: str, reason: str, attempts: int | None = None) -> None:
        name = os.path.basename(self.original_filename_from_wip(path))
        if attempts is None:
            note = notes.read(self.path, name, path)
            attempts = 1 + (note.attempts if note else 0)
        failing.set_aside(
            path,
            name,
            self._extension,
            self.task_failed_directory,
            reason,
            attempts,
            self._staged,
        )
        self._member.claimed.discard(path)
        self._noted.discard(name)
        notes.forget(self.path, name)

    def release(self, obj: Claimed, delay: float = 0) -> None:
        """Put a claimed file back on the queue, under its own name.

        Args:
            obj (Any): As for `task_done`.
            delay (float): Milliseconds in which nobody is handed the file: one that fails again
                and again must not come first for ever.

        Raises:
            ValueError: It names no claimed file of this queue, or `delay` is less than 0.
            FileExistsError: A file of its name waits already; the claimed one stays.
            FileNotFoundError: The claimed file is gone.
        """
        self._own()
        self._check_delay(delay)
        self._for_all(self._resolve(obj), lambda path: self._put_back(path, delay))

    def _check_delay(self, delay: float) -> None:
        if not isinstance(delay, (int, float)) or not 0 <= delay < float("inf"):
            raise ValueError(f"delay is {delay!r}; expected milliseconds, 0 or more")

    def _put_back(self, path: str, delay: float = 0) -> None:
        original = self.original_filename_from_wip(path)
        if delay:
            self._write_delay(path, os.path.basename(original), delay)
        publish(path, original, self._member)
        self._member.claimed.discard(path)

    def _write_delay(self, path: str, name: str, delay: float) -> None:
        """Write down when a file is due, before anybody can see it."""
        if os.path.lexists(os.path.join(self.path, name)):
            return  # it cannot be put back, and the note would be the other file's
        note = notes.read(self.path, name, path)
        said = {"attempts": note.attempts, "counted": note.counted} if note else {}
        self._noted.add(name)
        staged = self._staged(self.path)
        notes.write(self.path, name, path, staged, {**said, **notes.due_in(delay)})

    def attempt(self, obj: Claimed) -> Attempt:
        """Work on a claimed file in a `with` block: done at its end, set aside if it raises.

        An `Exception` is logged with its traceback, and not raised again: the loop goes on.
        KeyboardInterrupt and SystemExit pass through, and the file stays claimed.

        Args:
            obj (Any): As for `task_done`.
        """
        return Attempt(self, obj)

    def work(self, function: Callable[[Claim], object]) -> int:
        """Call a function with each file until all are done; set aside those for which it raises.

        Args:
            function ((message: str) -> object): Does the work; what it returns is not looked at.

        Returns:
            int: How many files (or groups) were done.

        Raises:
            UpstreamFailureError: A producer failed.
        """
        done = 0
        for message in self:
            with self.attempt(message) as attempt:
                function(message)
            done += not attempt.failed
        return done

    if TYPE_CHECKING:  # the queue that claims iterates

        def __iter__(self) -> Iterator[Claim]:
            """Yield what is claimed until DONE."""

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
        own = self._member.prefix
        return self._folder_prefix + min(found, key=lambda name: (not name.startswith(own), name))
