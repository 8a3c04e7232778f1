"""What is written down of one message that comes again: how often it failed, when it is due.

A note is a hidden file beside the message, `.persistq_note_<name>`. Most messages have none, and
cost nothing. It speaks of one file, by size and time of change: of a later file of the same name it
says nothing.

When a delay ends is a question of clocks. A process of the kernel that wrote the note asks that
clock of it which nobody sets. All others ask the file system alone: how much later than the note
it dates a file that is made now. So clocks of two hosts are never compared, and nobody waits
longer than the delay from when it first saw the note.
"""

from __future__ import annotations

import os
import time

from persistq import _fs, _processes
from persistq._folder import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LARGEST_BYTES = 64 * 1024


class Note:
    """What is known of one message.

    Args:
        said (dict[str, Any]): As it is written down.

    Attributes:
        attempts (int): How often it was in hand of a process that died.
        counted (str): The claimed name for which that was counted last.
        reason (str): Why it was released last.
    """

    def __init__(self, said: dict[str, Any]) -> None:
        attempts = said.get("attempts")
        self.attempts = attempts if isinstance(attempts, int) and attempts > 0 else 0
        self.counted = str(said.get("counted", ""))
        self.said = said


def path_of(folder: str, name: str) -> str:
    """Give the path of the note of a message."""
    return os.path.join(folder, names.NOTE + name)


def read(folder: str, name: str, file: str) -> Note | None:
    """Give what is written down of a message.

    Args:
        folder (str): Path of the queue's folder.
        name (str): The message's name.
        file (str): Path of the file, under whichever name.

    Returns:
        Note | None: None where nothing is, or of an earlier file of that name.
    """
    import json

    try:
        with open(path_of(folder, name), "rb", opener=_fs.open_file) as note:
            said = json.loads(note.read(_LARGEST_BYTES))
        mark = _mark(file)
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict) or said.get("file") != mark:
        return None
    return Note(said)


def _mark(file: str) -> list[int]:
    try:
        status = os.stat(file)
    except OSError:
        status = os.lstat(file)
    return [status.st_size, status.st_mtime_ns]


def write(folder: str, name: str, file: str, staged: str, said: dict[str, Any]) -> None:
    """Write a note, in place of the one before.

    Args:
        folder (str): Path of the queue's folder.
        name (str): The message's name.
        file (str): Path of the file, under whichever name.
        staged (str): Path of a temporary file in the folder.
        said (dict[str, Any]): What it says.

    Raises:
        OSError: The file is gone, or the file system refuses.
    """
    import json

    content = json.dumps({**said, "file": _mark(file)}).encode()
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            _fs.make_readable(fd)
            _fs.write_all(fd, content)
        finally:
            os.close(fd)
        os.replace(staged, path_of(folder, name))
    except BaseException:
        _fs.remove(staged)
        raise


def forget(folder: str, name: str) -> None:
    """Remove the note of a message that is finished."""
    try:
        os.unlink(path_of(folder, name))
    except OSError:
        pass  # there is none; or it is another user's, and says nothing of a later file


def due_in(delay_ms: float) -> dict[str, Any]:
    """Give what a note says of a message that is not to be handed out before a delay is over."""
    return {
        "delayMs": delay_ms,
        "kernel": _processes.kernel_key(),
        "dueNs": _clock_ns() + int(delay_ms * 1e6),
    }


def seconds_left(folder: str, name: str, note: Note, staged: str) -> float:
    """Tell how long a message is not to be handed out yet.

    Args:
        folder (str): Path of the queue's folder.
        name (str): The message's name.
        note (Note): Its note.
        staged (str): Path of a temporary file in the folder, which must not exist.

    Returns:
        float: Seconds; 0 or less of one that is due.
    """
    delay_ms, due_ns = note.said.get("delayMs"), note.said.get("dueNs")
    if not isinstance(delay_ms, (int, float)) or not isinstance(due_ns, int):
        return 0.0
    if _processes.boot_id() and note.said.get("kernel") == _processes.kernel_key():
        left_s = (due_ns - _clock_ns()) / 1e9
    else:
        try:
            written_ns = os.stat(path_of(folder, name)).st_mtime_ns
        except OSError:
            return 0.0
        left_s = delay_ms / 1e3 - (file_system_now_ns(staged) - written_ns) / 1e9
    return min(left_s, delay_ms / 1e3)


def _clock_ns() -> int:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)


def file_system_now_ns(staged: str) -> int:
    """Tell what time it is by the clock that dates files there: a file server's, perhaps.

    Args:
        staged (str): Path of a temporary file, which must not exist.

    Returns:
        int: Nanoseconds since the epoch.
    """
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)
        _fs.remove(staged)
