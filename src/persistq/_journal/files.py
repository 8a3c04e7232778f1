"""The journal files: their names, and the one that this process appends to.

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
import threading
import weakref

from persistq import _fs
from persistq._journal import locks
from persistq._journal.codec import WITHDRAWN
from persistq._journal.lines import place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("persistq")

REQUESTED = "requested"
COMPLETED = "completed"
STARTED = "started"


def carried_name(prefix: str) -> str:
    """Return the name of the file that holds work carried from the previous run.

    Args:
        prefix (str): The queue's prefix.

    Returns:
        str: `<prefix>_carried.tsv`
    """
    return f"{prefix}_carried.tsv"


class JournalNames:
    """The journal files of one prefix in a directory, as they were when it was listed.

    Args:
        directory (str): The directory to list.
        prefix (str): The queue's prefix.

    Attributes:
        directory (str): The directory.
        requested (list[str]): Paths of what was requested, in the order in which its work is
            outstanding: carried and requeued work first, then by time of last modification and
            name.
        completed (list[str]): Paths of what was completed.
        carried (list[str]): Those of `requested` that hold carried work, not yet requeued.
        requeued (list[str]): Those of `requested` that hold carried work that was requeued.

    Raises:
        OSError: The directory cannot be listed.
    """

    def __init__(self, directory: str, prefix: str) -> None:
        self.directory = directory
        # Carried work may be renamed (it is being requeued) while the directory is listed.
        while not self._list(directory, prefix):
            pass

    def _list(self, directory: str, prefix: str) -> bool:
        pattern = re.compile(
            re.escape(prefix)
            + r"_(?:requested_PID\d+(?:-\d+)?(?P<requeued>_requeued)?"
            + r"|(?P<completed>completed_PID\d+(?:-\d+)?)|(?P<carried>carried))\.tsv"
        )
        requested: list[tuple[bool, int, str]] = []
        self.completed: list[str] = []
        self.carried: list[str] = []
        self.requeued: list[str] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                match = pattern.fullmatch(entry.name)
                if match is None:
                    continue
                if match["completed"]:
                    self.completed.append(entry.path)
                    continue
                try:
                    modified_ns = entry.stat().st_mtime_ns
                except FileNotFoundError:
                    return False
                is_new = match.lastgroup is None
                requested.append((is_new, modified_ns, entry.path))
                if not is_new:
                    (self.carried if match["carried"] else self.requeued).append(entry.path)
        self.requested = [path for _, _, path in sorted(requested)]
        self.completed.sort()
        return True

    def __bool__(self) -> bool:
        return bool(self.requested or self.completed)


class RunFiles:
    """The journal files of one run, in a directory that may hold those of earlier ones, too.

    Args:
        requested (list[str]): Paths of all that was put, or requeued, in this run.
        completed (list[str]): Paths of what was completed of that.
        begun (list[str]): Those of `completed` that were made in this run, so that a process id
            in their names is that of one of its processes.
    """

    def __init__(self, requested: list[str], completed: list[str], begun: list[str]) -> None:
        self.requested = requested
        self.completed = completed
        self.begun = begun


class JournalFile:
    """The file of one kind that this process appends to: made when it is first needed.

    Safe to use from several threads. After a fork the child's copy makes a file of its own.

    Args:
        directory (str): The directory that holds the file.
        prefix (str): The queue's prefix.
        kind (str): REQUESTED, COMPLETED or STARTED.
        fsync (bool): Whether `append` returns only when the lines are on stable storage.
    """

    def __init__(self, directory: str, prefix: str, kind: str, fsync: bool) -> None:
        self._stem = os.path.join(directory, f"{prefix}_{kind}_PID")
        self._fsync = fsync
        # Ids and numbers have a few digits, and .tsv comes behind them.
        self._longest_place = len(place_of(os.fsencode(self._stem), 0, 0)) + 32
        self._forget()
        _journals.add(self)
        _fs.watch_forks(self)

    def _forget(self) -> None:
        # A lock of its own: in a forked child, a thread that is not there may hold the old one.
        # Reentrant, so that a signal handler that uses the queue cannot block its own thread.
        self._lock = threading.RLock()
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
        with self._lock:
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
        locks.hold(file.fileno())
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) == self._identity and status.st_size == self._size:
            return file
        file.close()
        return None

    def _create(self) -> io.FileIO:
        # Process ids come round again (in a container the script is always number 1), so a
        # file of this name may be an earlier run's: then it stays, and a number is added.
        for number in itertools.count(1):
            suffix = f"-{number}" if number > 1 else ""
            path = f"{self._stem}{os.getpid()}{suffix}.tsv"
            try:
                # Killed behind this: an empty file, which no reader minds.
                file = io.FileIO(path, "a+", opener=lambda p, f: os.open(p, f | os.O_EXCL, 0o666))
            except FileExistsError:
                continue
            try:
                locks.hold(file.fileno())
                status = os.fstat(file.fileno())
                if self._fsync:
                    _fs.sync_folder(os.path.dirname(path))
            except BaseException:
                file.close()
                raise
            # Until it was locked it looked like a dead process's, and may have been put aside.
            if os.path.lexists(path) and os.path.samestat(os.lstat(path), status):
                break
            file.close()
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
        with self._lock:
            file = self._file
            if file is None or self._is_damaged or file.closed:
                file = self._ready()
            try:
                written = file.write(data)
                if written != len(data) or self._fsync:
                    while written < len(data):
                        # Short: the disk is about to be full, which the next write says with its
                        # reason, or there is more than the system takes at once.
                        written += file.write(memoryview(data)[written:])
                    if self._fsync:
                        _fs.sync_file(file.fileno())
                self._size += len(data)
            except BaseException:  # KeyboardInterrupt too: the caller is told that it failed
                self._is_damaged = True
                try:
                    self._cut_back(file)
                except OSError as error:
                    logger.error("%s: cannot cut back a failed write: %s", self._path, error)
                raise

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
        with self._lock:
            data = b"\n".join(lines) + b"\n"
            self.append(data)
            where = self._size - len(data)
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
        with self._lock:
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
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def remove(self) -> None:
        """Delete the file, for it says nothing that matters any more."""
        with self._lock:
            if self._file is not None:
                # While it is locked: unlocked, it would look like a dead process's.
                try:
                    if os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                        os.unlink(self._path)
                except (OSError, ValueError):
                    pass  # it is gone already
                self.close()

    def is_open(self) -> bool:
        """Tell whether the file is open."""
        return self._file is not None and not self._file.closed

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()


_journals: weakref.WeakSet[JournalFile] = weakref.WeakSet()


def is_own(path: str) -> bool:
    """Tell whether this process has the journal file open.

    Args:
        path (str): Path of a journal file.

    Returns:
        bool: True if so, whichever name the file had when it was opened.
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    identity = (status.st_dev, status.st_ino)
    return any(journal._identity == identity and journal.is_open() for journal in list(_journals))


def process_files(directory: str, prefix: str, kind: str) -> list[tuple[int, str]]:
    """Return the files of one kind that processes write, or wrote.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.
        kind (str): REQUESTED, COMPLETED or STARTED.

    Returns:
        list[tuple[int, str]]: Process id and path, in the order of the paths. Neither carried nor
        requeued nor recovered work is among them.

    Raises:
        OSError: The directory cannot be listed.
    """
    pattern = re.compile(re.escape(f"{prefix}_{kind}_PID") + r"(\d+)(?:-\d+)?\.tsv")
    found = [(pattern.fullmatch(name), name) for name in sorted(os.listdir(directory))]
    return [(int(match[1]), os.path.join(directory, name)) for match, name in found if match]


def process_id(path: str) -> int:
    """Return the id of the process that writes a file, or wrote it.

    Args:
        path (str): Path of a file that a process has made.

    Returns:
        int: The id; -1 where the name holds none.
    """
    match = re.search(r"_PID(\d+)(?:-\d+)?\.tsv$", path)
    return int(match[1]) if match else -1


def has_recovered_files(directory: str, prefix: str) -> bool:
    """Tell whether the work of a dead process has been taken over here.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Returns:
        bool: True if so.

    Raises:
        OSError: The directory cannot be listed.
    """
    return bool(recovered_files(directory, prefix))


def recovered_files(directory: str, prefix: str) -> list[str]:
    """Return the started files of dead processes whose work has been taken over here.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Returns:
        list[str]: Paths.

    Raises:
        OSError: The directory cannot be listed.
    """
    pattern = re.compile(
        re.escape(f"{prefix}_{STARTED}_PID") + r"\d+(?:-\d+)?_recovered(?:-\d+)?\.tsv"
    )
    return [os.path.join(directory, n) for n in os.listdir(directory) if pattern.fullmatch(n)]
