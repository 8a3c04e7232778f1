r"""The whole lines of a journal file, a block at a time.

Read forward only, with as much memory as a block. A last line without its line end is a torn
write, as a crash leaves it: it is skipped, and a warning quotes it.
"""

from __future__ import annotations

import io
import logging
import os
from collections import Counter

from persistq import _fs
from persistq._journal.codec import WITHDRAWN, line_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

logger = logging.getLogger("persistq")

# How many fields stand before the message in a line of a failed file: time, attempts, reason.
FIELDS_BEFORE_FAILED = 3

# Small enough that the lines of a block, and of the lead, stay in the processor's cache: larger
# blocks take twice the time.
_BLOCK_BYTES = 1 << 15
_QUOTED_BYTES = 200


class Block:
    r"""Lines that follow one another in a file.

    Args:
        data (bytes): The file's bytes from the start of a line to before the `\n` of another.
        fields_before (int): How many fields stand before each message.
        path (str): Path of the file, for warnings.

    Attributes:
        lines (list[bytes]): The lines as they were written, without their line ends and without
            the fields before the message. One that withdraws another begins with DLE `-`.
        keys (list[bytes]): For each line its `line_key`; for one that withdraws another, DLE `-`
            and the key of that. The same list as `lines`, where no line holds a DLE.
        withdrawn (int): How many of the lines withdraw another.
        unlike (Sequence[int]): The indexes of all others that are not their own key.
    """

    __slots__ = ("keys", "lines", "unlike", "withdrawn")

    def __init__(self, data: bytes, fields_before: int = 0, path: str = "") -> None:
        if b"\r" in data:
            data = (data + b"\n").replace(b"\r\n", b"\n")[:-1]
        self.lines = self.keys = data.split(b"\n")
        self.withdrawn = 0
        self.unlike: Sequence[int] = ()
        if fields_before:
            self.lines = self.keys = _without_fields(self.lines, fields_before, path)
        if b"\x10" in data:
            self.keys, unlike = [*self.lines], []
            for index, line in enumerate(self.lines):
                if b"\x10" not in line:
                    continue
                if line.startswith(WITHDRAWN):
                    self.withdrawn += 1
                    self.keys[index] = WITHDRAWN + line_key(line[len(WITHDRAWN) :])
                else:
                    key = line_key(line)
                    if key is not line:
                        self.keys[index] = key
                        unlike.append(index)
            self.unlike = unlike


def _without_fields(lines: list[bytes], fields_before: int, path: str) -> list[bytes]:
    messages: list[bytes] = []
    for line in lines:
        parts = line.split(b"\t", fields_before)
        if len(parts) <= fields_before:
            logger.warning(
                "%s: skipped a line of %d fields, %r; expected %d fields and a message",
                path,
                len(parts),
                line[:_QUOTED_BYTES].decode("utf-8", "backslashreplace"),
                fields_before,
            )
        elif line.startswith(WITHDRAWN):
            messages.append(WITHDRAWN + parts[-1])
        else:
            messages.append(parts[-1])
    return messages


class Reader:
    """One journal file, read from its start to its end. It is opened at the first `read`.

    Args:
        path (str): Path of the file.
        fields_before (int): How many fields stand before each message.
        stays_open (bool): Whether the file is kept open between two reads. A process may have
            a few hundred files open, and a run may have had more workers.

    Attributes:
        path (str): Path of the file.
        torn (int): 1 where a torn last line was skipped, from when the end has been read.
        fraction (float): How much of the file has been read, from 0 to 1.
    """

    def __init__(self, path: str, fields_before: int = 0, stays_open: bool = True) -> None:
        self.path = path
        self.torn = 0
        self.fraction = 0.0
        self._fields_before = fields_before
        self._stays_open = stays_open
        self._file: io.FileIO | None = None
        self._identity: tuple[int, int] | None = None
        self._size = 1
        self._offset = 0
        self._rest = b""
        self._block_bytes = _BLOCK_BYTES

    def read(self) -> Block | None:
        """Return the next lines.

        Returns:
            Block | None: At least one line; None at the file's end.

        Raises:
            FileNotFoundError: The file is gone, or another has its name by now.
            OSError: The file cannot be read.
        """
        file = self._file
        if file is None:
            file = self._file = self._open()
        try:
            while True:
                data = file.read(self._block_bytes)
                if not data:
                    self._end()
                    return None
                self._offset += len(data)
                block = self._rest + data
                end = block.rfind(b"\n")
                if end >= 0:
                    break
                self._rest = block
                self._block_bytes = len(block) * 2  # a long line is not copied block by block
        finally:
            if not self._stays_open:
                self.close()
        self.fraction = self._offset / self._size
        self._rest = block[end + 1 :]
        self._block_bytes = _BLOCK_BYTES
        return Block(block[:end], self._fields_before, self.path)

    def _open(self) -> io.FileIO:
        file = io.FileIO(self.path, opener=_fs.open_file)
        try:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino)
            if self._identity is None:
                self._identity = identity
                self._size = status.st_size or 1
            elif self._identity != identity:
                raise FileNotFoundError(f"{self.path}: another file has taken its name")
            if self._offset:
                file.seek(self._offset)
        except BaseException:
            file.close()
            raise
        return file

    def _end(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self.torn += 1
            logger.warning(
                "%s: skipped a torn last line of %d bytes, as a crash leaves it: %r",
                self.path,
                len(rest),
                rest.strip(b"\0")[:_QUOTED_BYTES].decode("utf-8", "backslashreplace"),
            )

    def close(self) -> None:
        """Close the file; a later `read` goes on where this one was."""
        if self._file is not None:
            self._file.close()
            self._file = None


def lines_of(path: str) -> Iterator[bytes]:
    """Yield the whole lines of a file, as they were written.

    Args:
        path (str): Path of a journal file.

    Yields:
        bytes: A line, without its line end.

    Raises:
        OSError: The file cannot be read.
    """
    reader = Reader(path)
    try:
        while (block := reader.read()) is not None:
            yield from block.lines
    finally:
        reader.close()


def scan(paths: Iterable[str], keys: Collection[bytes], fields_before: int = 0) -> Counter[bytes]:
    """Count how often some lines stand in files, whatever else these hold.

    Args:
        paths (Iterable[str]): Paths of journal files.
        keys (Collection[bytes]): The lines to look for, each by its `line_key`.
        fields_before (int): How many fields stand before each message.

    Returns:
        Counter[bytes]: How often each key that is there at all stands in the files, less those
        lines that were withdrawn.

    Raises:
        OSError: A file cannot be read.
    """
    wanted = frozenset(keys)
    found: Counter[bytes] = Counter()
    for path in paths:
        if not wanted:
            break
        reader = Reader(path, fields_before)
        try:
            while (block := reader.read()) is not None:
                if not wanted.isdisjoint(block.keys):
                    found.update(filter(wanted.__contains__, block.keys))
                if block.withdrawn:
                    taken_back = [k[len(WITHDRAWN) :] for k in block.keys if k[:2] == WITHDRAWN]
                    found.subtract(filter(wanted.__contains__, taken_back))
        finally:
            reader.close()
    return +found
