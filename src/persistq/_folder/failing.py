"""What becomes of files that cannot be done: set aside with their reason, tried again, given up.

What is on disk at each step, and so what a kill leaves:

1. The reason, under the name that the file will have, which is free, with `.reason.txt` behind.
   Killed here: a reason without a file, which nobody lists.
2. The file, under its own name in the folder for such, or with `.rejected` behind where it was.
"""

from __future__ import annotations

import errno
import os

from persistq import _fs
from persistq._folder import identity, names
from persistq._folder.moving import move_away, moved_already
from persistq._folder.publish import publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Collection

_ATTEMPTS, _WHEN = "attempts: ", "failed at: "
_LARGEST_BYTES = 64 * 1024


class FailedFile:
    """A file that was set aside.

    Attributes:
        path (str): Where it is.
        message (str): Its own name, as on the queue.
        reason (str): Why, in one line; empty where nobody said.
        attempts (int): How often it was begun.
        failed_at (datetime.datetime | None): When, with its time zone; None where that is not
            written down.
    """

    def __init__(
        self,
        path: str,
        message: str,
        reason: str,
        attempts: int,
        failed_at: datetime.datetime | None,
    ) -> None:
        self.path = path
        self.message = message
        self.reason = reason
        self.attempts = attempts
        self.failed_at = failed_at

    def __repr__(self) -> str:
        return f"FailedFile({self.path!r}, {self.reason!r}, attempts={self.attempts})"


def set_aside(
    path: str,
    name: str,
    extension: str,
    directory: str | None,
    reason: str,
    attempts: int,
    stage: Callable[[str], str],
) -> str:
    """Move a claimed file away, never over another, with its reason beside it.

    Args:
        path (str): Path of the claimed file.
        name (str): Its name as a message.
        extension (str): The message extension with its leading dot.
        directory (str | None): Where it goes; None: it stays, with a name that is no message's.
        reason (str): Why, in one line.
        attempts (int): How often it was begun.
        stage ((folder: str) -> str): Gives the path of a new temporary file in a folder.

    Returns:
        str: Its path from now on.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file system refuses; the file stays claimed.
    """
    folder = os.path.dirname(path) if directory is None else directory
    ending = names.REJECTED if directory is None else ""
    # Before anything is written about what is not there, or is set aside already.
    there = moved_already(path, folder, name, extension, ending)
    if there is not None:
        _fs.remove(path)
        return there
    text = _text(reason, attempts)
    number = 0
    while True:
        own = names.numbered(name, extension, number)
        target = os.path.join(folder, own + ending)
        beside = _reason_path(folder, own, extension, directory is None)
        number += 1
        if os.path.lexists(target) or not _write_reason(beside, text, stage(folder)):
            continue  # taken; or a reason is there of a file that another process is moving
        try:
            move_away(path, target, stage)
            return target
        except FileExistsError:
            _fs.remove(beside)
        except BaseException:
            _fs.remove(beside)
            raise


def _reason_path(folder: str, name: str, extension: str, is_queue: bool) -> str:
    path = os.path.join(folder, name + names.REASON)
    if is_queue and names.is_message(path, extension, True):
        # The queue's messages are .txt files, and a reason must not be one.
        path = path[: -len(".txt")]
    return path


def _text(reason: str, attempts: int) -> str:
    import datetime

    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return f"{reason}\n{_ATTEMPTS}{attempts}\n{_WHEN}{now}\n"


def _write_reason(path: str, text: str, staged: str) -> bool:
    """Write a reason whole, never over another; whether that was possible."""
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            _fs.make_readable(fd)
            _fs.write_all(fd, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
        _fs.publish_new(staged, path)
    except FileExistsError:
        _fs.remove(staged)
        return False
    except BaseException:
        _fs.remove(staged)
        raise
    return True


def list_failed(
    folder: str, extension: str, directory: str | None = None, ignore_case: bool = False
) -> list[FailedFile]:
    """List what was set aside.

    Args:
        folder (str): Path of the queue's folder.
        extension (str): The message extension with its leading dot.
        directory (str | None): The queue's `task_failed_directory`; looked at besides the folder.
        ignore_case (bool): Whether the extension counts in other letters, too.

    Returns:
        list[FailedFile]: By name; first those in the folder itself.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = []
    for place, ending in ((folder, names.REJECTED), (directory, "")):
        if place is None:
            continue
        for entry in sorted(os.listdir(place)):
            name = entry[: len(entry) - len(ending)]
            if entry.endswith(ending) and names.is_message(name, extension, ignore_case):
                path = os.path.join(place, entry)
                if os.path.isfile(path):
                    found.append(_read(place, path, name, extension, bool(ending)))
    return found


def _read(place: str, path: str, name: str, extension: str, is_queue: bool) -> FailedFile:
    import datetime

    reason, attempts, failed_at = "", 1, None
    try:
        reason_path = _reason_path(place, name, extension, is_queue)
        with open(reason_path, "rb", opener=_fs.open_file) as file:
            lines = file.read(_LARGEST_BYTES).decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        lines = []
    reason = lines[0] if lines else ""
    for line in lines[1:]:
        try:
            if line.startswith(_ATTEMPTS):
                attempts = int(line[len(_ATTEMPTS) :])
            elif line.startswith(_WHEN):
                failed_at = datetime.datetime.fromisoformat(line[len(_WHEN) :])
        except ValueError:
            pass  # somebody has written into it
    return FailedFile(path, name, reason, attempts, failed_at)


def retry_failed(
    folder: str,
    extension: str,
    directory: str | None = None,
    wanted: Collection[str] | None = None,
    ignore_case: bool = False,
) -> list[str]:
    """Put what was set aside on the queue again, with its attempts at none.

    One whose name waits already stays where it is.

    Args:
        folder (str): Path of the queue's folder.
        extension (str): The message extension with its leading dot.
        directory (str | None): The queue's `task_failed_directory`.
        wanted (Collection[str] | None): Names, as of `FailedFile.message`; None: all.
        ignore_case (bool): Whether the extension counts in other letters, too.

    Returns:
        list[str]: Paths of the files that wait again.

    Raises:
        OSError: The file system refuses; the rest stays set aside.
    """
    member = identity.member(os.path.abspath(folder), extension, ignore_case, "operator")
    restored = []
    for failed in _chosen(list_failed(folder, extension, directory, ignore_case), wanted):
        target = os.path.join(member.folder, failed.message)
        try:
            _put_again(failed.path, target, member)
        except (FileExistsError, FileNotFoundError):
            continue  # it waits already; or somebody else retries, too
        restored.append(target)
        _remove_reason(failed, folder, extension)
    member.let_go()
    return restored


def _put_again(path: str, target: str, member: identity.Claimer) -> None:
    try:
        publish(path, target, member)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with _fs.file_lock(path) as still_there:
            if not still_there:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
            move_away(path, target, member.staged)


def discard_failed(
    folder: str,
    extension: str,
    directory: str | None = None,
    wanted: Collection[str] | None = None,
    ignore_case: bool = False,
) -> list[str]:
    """Give up what was set aside: remove it, and its reason.

    Args:
        folder (str): Path of the queue's folder.
        extension (str): The message extension with its leading dot.
        directory (str | None): The queue's `task_failed_directory`.
        wanted (Collection[str] | None): Names, as of `FailedFile.message`; None: all.
        ignore_case (bool): Whether the extension counts in other letters, too.

    Returns:
        list[str]: The names of what was removed.
    """
    removed = []
    for failed in _chosen(list_failed(folder, extension, directory, ignore_case), wanted):
        _fs.remove(failed.path)
        _remove_reason(failed, folder, extension)
        removed.append(failed.message)
    return removed


def _chosen(found: list[FailedFile], wanted: Collection[str] | None) -> list[FailedFile]:
    return [failed for failed in found if wanted is None or failed.message in wanted]


def _remove_reason(failed: FailedFile, folder: str, extension: str) -> None:
    place = os.path.dirname(failed.path)
    is_queue = os.path.samefile(place, folder)
    _fs.remove(_reason_path(place, failed.message, extension, is_queue))
