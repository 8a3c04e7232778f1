r"""What is new in files that grow, since the last look.

For those who ask again and again: how far is the run, has this been completed meanwhile? A file
that has not changed costs one `stat`.

Journals are appended to, and sometimes cut back a little: lines that were refused are taken off
the end of their file, and others may stand there at the next look. So the end of what was read is
remembered, and compared before the reading goes on.
"""

from __future__ import annotations

import io
import os

from persistq import _fs
from persistq._journal.codec import WITHDRAWN
from persistq._journal.reading import Block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK_BYTES = 1 << 15
# Of each file that was read, the whole lines within so many last bytes are remembered, and its
# last line in any case. A batch that is refused may be as large.
_REMEMBERED_BYTES = 1 << 15


class Shrunk(Exception):
    """A file has lost more of its end than is remembered: begin with a new `Tail`, at nothing.

    Args:
        path (str): The file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Tail:
    """Reads files as they grow. Not for several threads at once.

    Args:
        fields_before (int): How many fields stand before each message.
    """

    def __init__(self, fields_before: int = 0) -> None:
        self._fields_before = fields_before
        # By device and inode, so that a file that is renamed is not read twice, and another that
        # has taken its name is read from its start.
        self._files: dict[tuple[int, int], _Known] = {}

    def read(self, paths: Iterable[str]) -> Iterator[list[bytes]]:
        """Read what was appended to files since the last call.

        A torn end is left for the call that finds its line whole. To be iterated to its end, or
        the next call goes on where this one was left.

        Args:
            paths (Iterable[str]): Paths of journal files; they may be others each time.

        Yields:
            list[bytes]: The `line_key` of each new line, in the order of their file. DLE `-` and a
            key: such a line, of this file and yielded before, is withdrawn, be it that the file
            says so, or that it is gone from the file's end.

        Raises:
            Shrunk: All that was yielded is to be forgotten.
            FileNotFoundError: A file is not there.
            OSError: A file cannot be read.
        """
        for path in paths:
            status = os.stat(path)
            known = self._files.get((status.st_dev, status.st_ino))
            if known is None or known.stamp != (status.st_size, status.st_mtime_ns):
                with io.FileIO(path, opener=_fs.open_file) as file:
                    yield from self._read(file, path)

    def count(self, path: str) -> int:
        """Count what was appended to a file since the last look, without taking it apart.

        Args:
            path (str): Path of a journal file. Where others are counted or read with the same
                tail, what these hold is no part of the answer.

        Returns:
            int: How many lines there are more, less those that were withdrawn; below zero where
            more were withdrawn.

        Raises:
            Shrunk: What was counted of this file is to be forgotten.
            FileNotFoundError: The file is not there.
            OSError: The file cannot be read.
        """
        status = os.stat(path)
        known = self._files.get((status.st_dev, status.st_ino))
        if known is not None and known.stamp == (status.st_size, status.st_mtime_ns):
            return 0
        total = 0
        with io.FileIO(path, opener=_fs.open_file) as file:
            for data, gone in self._new_lines(file, path):
                total += data.count(b"\n")
                if WITHDRAWN in data:
                    total -= 2 * (data.startswith(WITHDRAWN) + data.count(b"\n" + WITHDRAWN))
                for key in gone:
                    total += -1 if key.startswith(WITHDRAWN) else 1
        return total

    def _read(self, file: io.FileIO, path: str) -> Iterator[list[bytes]]:
        for data, gone in self._new_lines(file, path):
            keys = Block(data[:-1], self._fields_before, path).keys if data else gone
            if keys:
                yield keys

    def _new_lines(self, file: io.FileIO, path: str) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield whole lines, or what withdraws lines that are gone."""
        status = os.fstat(file.fileno())
        known = self._files.setdefault((status.st_dev, status.st_ino), _Known())
        if known.end:
            gone = self._cut_back(known, file, path)
            if gone:
                yield b"", gone
        rest = b""
        while data := file.read(max(_BLOCK_BYTES, len(rest))):
            data = rest + data
            end = data.rfind(b"\n") + 1
            rest = data[end:]
            if end:
                known.remember(data[:end])
                yield data[:end], []
        # Of before the reading: what was appended since is a change to the next call.
        known.stamp = (status.st_size, status.st_mtime_ns)

    def _cut_back(self, known: _Known, file: io.FileIO, path: str) -> list[bytes]:
        """Go to where the reading goes on; return what withdraws lines that are gone."""
        file.seek(known.end - len(known.last))
        now = b""
        while len(now) < len(known.last):
            data = file.read(len(known.last) - len(now))
            if not data:
                break
            now += data
        if now == known.last:
            return []
        same = 0
        for line in known.last[:-1].split(b"\n"):
            if not now.startswith(line + b"\n", same):
                break
            same += len(line) + 1
        if not same and known.end > len(known.last):
            raise Shrunk(path)
        gone = [
            # A line that withdrew another is gone too: that counts again.
            key[len(WITHDRAWN) :] if key.startswith(WITHDRAWN) else WITHDRAWN + key
            for key in Block(known.last[same:-1], self._fields_before, path).keys
        ]
        known.end -= len(known.last) - same
        known.last = known.last[:same]
        file.seek(known.end)
        return gone


class _Known:
    """How far a file was read.

    Attributes:
        stamp (tuple[int, int]): Its size and its time of modification then.
        end (int): Where the reading goes on: behind the last whole line.
        last (bytes): What stands before that: at least a line.
    """

    __slots__ = ("end", "last", "stamp")

    def __init__(self) -> None:
        self.stamp = (-1, -1)
        self.end = 0
        self.last = b""

    def remember(self, lines: bytes) -> None:
        self.end += len(lines)
        last = lines if len(lines) > _REMEMBERED_BYTES else self.last + lines
        start = 0
        if len(last) > _REMEMBERED_BYTES:
            start = last.find(b"\n", len(last) - _REMEMBERED_BYTES - 1, len(last) - 1) + 1
            if not start:
                start = last.rfind(b"\n", 0, len(last) - 1) + 1
        self.last = last[start:]
