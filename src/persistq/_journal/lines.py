"""Large messages that travel as the place of their line in the journal of who put them.

The line is with the operating system before the message is on the queue, and nobody moves it: a
process's journal file is only ever appended to, and keeps its name while the run lasts. What is
cut off its end was never referred to, or was refused by the queue for certain (see
`JournalFile.withdraw`). So a message is not written a second time for its way, and it is still
there when the process that put it was killed.
"""

from __future__ import annotations

import os
import struct
import threading

from persistq import _fs
from persistq.exceptions import PersistqError

OPEN_FILES = 8

_PLACE = struct.Struct("<QQ")


def place_of(path: bytes, where: int, length: int) -> bytes:
    """Return what `LineReader.read` needs.

    Args:
        path (bytes): Path of the journal file.
        where (int): Where in it the line begins.
        length (int): The line's length, without its end.

    Returns:
        bytes: The place; as long as the path, and a little.
    """
    return _PLACE.pack(where, length) + path


class LineReader:
    """Reads lines, and keeps the files open that it needs again and again.

    Safe to use from several threads. After a fork the child's copy opens files of its own.
    """

    def __init__(self) -> None:
        self._forget()
        _fs.watch_forks(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[bytes, int] = {}

    def _after_fork(self) -> None:
        """In a forked child: a thread that is not there may hold the lock."""
        self.close()
        self._forget()

    def read(self, place: bytes) -> bytes:
        """Return a line.

        Args:
            place (bytes): From `place_of`, possibly in another process.

        Returns:
            bytes: The line, without its line end.

        Raises:
            PersistqError: It is not there any more.
        """
        where, length = _PLACE.unpack_from(place)
        path = place[_PLACE.size :]
        try:
            with self._lock:
                fd = self._files.get(path) or self._open(path)
                data = os.pread(fd, length + 1, where)
                if len(data) <= length:
                    data = _read_on(fd, length + 1, where, data)
        except OSError as error:
            raise _lost(path, where, str(error)) from error
        if data.find(b"\n") != length:
            raise _lost(path, where, "the file has been changed")
        return data[:-1]

    def _open(self, path: bytes) -> int:
        fd = _fs.open_file(path, os.O_RDONLY)
        if len(self._files) >= OPEN_FILES:
            os.close(self._files.pop(next(iter(self._files))))
        self._files[path] = fd
        return fd

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        try:
            self.close()
        except (OSError, AttributeError, TypeError):
            pass  # never opened, or the interpreter half ended


def _read_on(fd: int, length: int, where: int, data: bytes) -> bytes:
    while len(data) < length:  # beyond 2 GiB one call is not enough
        more = os.pread(fd, length - len(data), where + len(data))
        if not more:
            break
        data += more
    return data


def _lost(path: bytes, where: int, why: str) -> PersistqError:
    return PersistqError(
        f"a message cannot be read from byte {where} of {os.fsdecode(path)} ({why}). The journal "
        "files of a running job must stay as they are. Restart the job; what the journals hold as "
        "outstanding is put again."
    )
