"""The one file of a kind that this process appends to.

One process writes a file, and never overwrites one: it creates it exclusively and appends. A
line, or a batch of lines, is one `write` in append mode, so a process that is killed leaves whole
lines behind, and at the very worst (killed inside of a long write) one torn line at the file's
end, which readers skip.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
from threading import get_ident

from persistq import _fs
from persistq._journal.codec import WITHDRAWN
from persistq._journal.lines import place_of
from persistq._turn import Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from persistq._journal.members import Membership

logger = logging.getLogger("persistq")

# Numbers that no tag has: so many copies of one queue has no process.
_FIRST_SPARE = 1_000_000


class JournalFile:
    """The file of one kind that this process appends to: made when it is first needed.

    Safe to use from several threads. After a fork the child's copy makes a file of its own.

    Args:
        membership (Membership): The copy of the queue whose file it is; it says where.
        kind (str): One of `names.KINDS`.
        fsync (bool): Whether `append` returns only when the lines are on stable storage.
    """

    def __init__(self, membership: Membership, kind: str, fsync: bool) -> None:
        self._membership = membership
        self._kind = kind
        self._fsync = fsync
        # Ids and numbers have a few digits.
        name = membership.names.journal(kind, "")
        stem = os.path.join(membership.directory, name)
        self._longest_place = len(place_of(os.fsencode(stem), 0, 0)) + 32
        self._forget()
        _fs.watch_forks(self)

    def _forget(self) -> None:
        # One of its own: in a forked child, a thread that is not there may have the old one.
        self._turn = Turn(is_long=self._fsync)
        self._file: io.FileIO | None = None
        self._identity: tuple[int, int] | None = None
        self._path, self._encoded_path = "", b""
        self._size = 0  # what counts of the file: all that was appended successfully
        self._is_damaged = False  # it is longer than that, and cutting it back has failed

    def _after_fork(self) -> None:
        """In a forked child: let go of the parent's file, which is the parent's alone."""
        if self._file is not None:
            self._file.close()
        self._forget()

    def open(self) -> io.FileIO:
        """Return the open file, making it first where it isn't there.

        Returns:
            io.FileIO: The file, unbuffered and in append mode; its `name` is the path.

        Raises:
            OSError: The file cannot be made.
        """
        with self._turn.lock:
            self._turn.come()
            file = self._file
            if file is None or file.closed:
                file = self._file = self._reopen() or self._create()
            return file

    def _reopen(self) -> io.FileIO | None:
        # Closed and needed again: this process made the file, so nobody else writes it.
        if self._identity is None:
            return None
        try:
            file = io.FileIO(self._path, "a+", opener=lambda p, f: os.open(p, f & ~os.O_CREAT))
        except FileNotFoundError:
            return None
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) == self._identity and status.st_size == self._size:
            return file
        file.close()
        return None

    def _create(self) -> io.FileIO:
        # The tag in its name is this copy's alone, so nobody else has made or makes this file.
        # Where its own was moved away, and something else stands there, that is not touched.
        path = self._membership.path_of(self._kind)
        stem = re.sub(r"(?:-\d+)?\.tsv$", "", path)
        for number in itertools.count(_FIRST_SPARE):
            try:
                # Killed behind this: an empty file, which no reader minds.
                file = io.FileIO(path, "a+", opener=lambda p, f: os.open(p, f | os.O_EXCL, 0o666))
                break
            except FileExistsError:
                path = f"{stem}-{number}.tsv"
        try:
            status = os.fstat(file.fileno())
            if self._fsync:
                _fs.sync_folder(os.path.dirname(path))
        except BaseException:
            file.close()
            raise
        self._path, self._encoded_path = path, os.fsencode(path)
        self._size, self._is_damaged = 0, False
        self._identity = (status.st_dev, status.st_ino)
        return file

    def append(self, data: bytes) -> None:
        r"""Append whole lines, all of them or none.

        Killed inside of this: the file ends with all of the lines, none, or (only where the
        system does not take them in one go) some whole lines and a torn one.

        Args:
            data (bytes): One or more lines, each ended by `\n`.

        Raises:
            OSError: The disk is full, or fails. The file is cut back to where it was.
        """
        turn = self._turn
        if turn.first == get_ident():
            was_busy, file = turn.is_busy, None
            try:
                turn.is_busy = True
                if turn.is_alone or was_busy:
                    # As in _append, without a call.
                    file = self._file
                    if file is None or self._is_damaged or file.closed:
                        file = self._ready()
                    written = file.write(data)
                    if written != len(data):
                        self._write_rest(file, data, written)
                    self._size += len(data)
                    return
            except BaseException:
                self._undo(file)
                raise
            finally:
                turn.is_busy = was_busy
        with turn.lock:
            turn.come()
            self._append(data)

    def _append(self, data: bytes) -> None:
        file = None
        try:
            file = self._file
            if file is None or self._is_damaged or file.closed:
                file = self._ready()
            written = file.write(data)
            if written != len(data):
                self._write_rest(file, data, written)
            if self._fsync:
                _fs.sync_file(file.fileno())
            self._size += len(data)
        except BaseException:
            self._undo(file)
            raise

    def _write_rest(self, file: io.FileIO, data: bytes, written: int) -> None:
        while written < len(data):
            # Short: the disk is about to be full, which the next write says with its reason, or
            # there is more than the system takes at once.
            written += file.write(memoryview(data)[written:])

    def _undo(self, file: io.FileIO | None) -> None:
        """Cut off what was written for an append that failed; or that a signal has interrupted."""
        if file is None:
            return  # it could not be opened
        self._is_damaged = True
        try:
            self._cut_back(file)
        except OSError as error:
            logger.error("%s: cannot cut back a failed write: %s", self._path, error)

    def append_in_place(self, lines: Sequence[bytes]) -> list[bytes]:
        """Append lines, and return where each of them is.

        Args:
            lines (Sequence[bytes]): Lines without line ends.

        Returns:
            list[bytes]: The place of each, for `lines.LineReader`. It stays there as long as it is
            not withdrawn; see `withdraw`.

        Raises:
            OSError: As for `append`.
        """
        with self._turn.lock:
            self._turn.come()
            data = b"\n".join(lines) + b"\n"
            start = self._size
            self.append(data)
            where = start
            if self._size != start + len(data):
                # A signal handler in this very thread has appended, too: before these, or behind.
                written = os.pread(self.open().fileno(), self._size - start, start)
                where += written.find(data)
            path, places = self._encoded_path, []
            for line in lines:
                places.append(place_of(path, where, len(line)))
                where += len(line) + 1
            return places

    def longest_place(self) -> int:
        """Return how long a place in this file may be, whichever name the file will get."""
        return self._longest_place

    def _ready(self) -> io.FileIO:
        file = self.open()
        if self._is_damaged:
            self._cut_back(file)
        return file

    def _cut_back(self, file: io.FileIO) -> None:
        os.ftruncate(file.fileno(), self._size)
        if self._fsync:
            _fs.sync_file(file.fileno())
        self._is_damaged = False

    def withdraw(self, lines: Sequence[bytes], may_cut: bool = True) -> None:
        """Take back lines that `append` has written: what they record did not happen.

        Where they still are the file's last lines they are cut off, which a full disk cannot
        hinder. Behind them, where other threads have written since, lines say so.

        Killed before this: the lines count, though their caller has not been told so.

        Args:
            lines (Sequence[bytes]): Lines without line ends, in the order in which they were
                appended.
            may_cut (bool): False where somebody may read them at their place all the same, since
                an interrupt leaves open whether their message has been sent. Were they cut off,
                other lines would come to stand there.
        """
        data = b"\n".join(lines) + b"\n"
        with self._turn.lock:
            self._turn.come()
            file = self.open()
            start = self._size - len(data)
            try:
                if may_cut and start >= 0 and self._tail(file, start) == b"\n" + data:
                    self._size = start
                    self._is_damaged = True
                    self._cut_back(file)
                else:
                    self.append(b"".join([WITHDRAWN + line + b"\n" for line in lines]))
            except OSError as error:
                logger.error(
                    "%s: cannot withdraw %d lines that the queue has refused, from %r on: %s",
                    self._path,
                    len(lines),
                    lines[0],
                    error,
                )

    def _tail(self, file: io.FileIO, start: int) -> bytes:
        """Return what follows `start`, and the line end before it (there is one at the top)."""
        if start == 0:
            file.seek(0)
            return b"\n" + file.readall()
        file.seek(start - 1)
        return file.readall()

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        with self._turn.lock:
            self._turn.come()
            if self._file is not None:
                self._file.close()
                self._file = None

    def remove(self, unless: Callable[[], bool] = lambda: False) -> bool:
        """Delete the file, for it says nothing that matters any more.

        Args:
            unless (() -> bool): Whether it does. Asked while no other thread can append.

        Returns:
            bool: False where it does.
        """
        with self._turn.lock:
            self._turn.come()
            if unless():
                return False
            if self._identity is not None:  # it was made, be it open or closed by now
                try:
                    status = os.stat(self._path)
                    if (status.st_dev, status.st_ino) == self._identity:
                        os.unlink(self._path)
                except OSError:
                    pass  # it is gone already
                self.close()
                self._identity = None
            return True

    @property
    def path(self) -> str:
        """Its path; empty until it is made."""
        return self._path

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
