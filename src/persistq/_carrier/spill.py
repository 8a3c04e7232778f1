"""Where a message waits that is too large for a record of the pipe.

The record then carries a reference, and the message lies in a file. The files of all carriers
made by one process lie in that process's *home*, a directory under the temporary directory. (Not
under /dev/shm: it was not faster, containers give it 64 MiB, and systemd empties it of a user's
files when that user logs out. systemd's cleaner of /tmp leaves a directory alone that is locked as
a home is.)

Two kinds of file, by measurement: creating and removing a file for each message costs ten times
as much as writing it over one that was read (80 against 4 microseconds for 1 KB, 110 against 19
for 100 KB, and up to 600 on an ext4 that has just seen many deletions).

- An **arena** belongs to one writing process. Each message has a slot: a mark that says whether
  the slot is taken, the slot's size, the message. The one reader that gets the reference clears
  the mark after copying the message; the writer looks at the marks of its oldest slots when it
  needs one. There is no lock and no shared count, so there is nothing that a killed process
  leaves wrong: a reader that dies before clearing the mark leaves one slot taken.
- A file of its own, removed by its reader, for what the arena has no room for.

What remains, and who removes it: the home's creator removes the home when it ends. While it
lives it holds a lock (flock) on the directory; a home that nobody holds belongs to a process that
was killed, and the next process that makes a home removes it. The kernel drops the lock however
the holder dies, so this is proof of death. An
arena whose writer has ended goes when every message in it was read, by the next process that makes
an arena there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import threading
from collections import deque
from itertools import count
from multiprocessing import util

from persistq.exceptions import PersistqError

PREFIX = "persistq-"
ARENA_BYTES = 32 << 20
# Larger messages have files of their own: copying them costs more than making the file.
LARGEST_SLOT = ARENA_BYTES // 8
OPEN_ARENAS = 8

_SLOT = struct.Struct("<BQ")
_REFERENCE = struct.Struct("<qQ")  # where in the arena, -1 for a file of its own; the length
_TAKEN, _FREE = 1, 0

_home: tuple[int, str, int] | None = None


def home() -> str:
    """Return this process's home, made at the first call and removed when the process ends.

    Raises:
        OSError: It cannot be made.
    """
    global _home
    if _home is not None and _home[0] == os.getpid():
        return _home[1]
    folder = tempfile.gettempdir()
    _remove_homes_of_the_dead(folder)
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=folder)
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Between mkdtemp and flock it looked like a dead process's, and may be gone.
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                break
        except (BlockingIOError, FileNotFoundError):
            os.close(fd)
        except OSError:
            # No locks here: nothing can be proved dead either, so homes are safe without.
            break
    _home = (os.getpid(), path, fd)
    # After the children have been joined (priority 0) and the feeders (-5).
    util.Finalize(None, shutil.rmtree, (path, True), exitpriority=-100)
    return path


def _remove_homes_of_the_dead(folder: str) -> None:
    try:
        names = [name for name in os.listdir(folder) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_uid == os.getuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # held: its process lives; or no locks here: nothing is proved
        finally:
            os.close(fd)


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # goes with the home


def _write_at(fd: int, parts: list[bytes], where: int) -> None:
    """Write all of it, or raise the OSError that stopped it."""
    size = sum(map(len, parts))
    written = os.pwritev(fd, parts, where) if hasattr(os, "pwritev") else 0
    if written < size:
        rest = memoryview(b"".join(parts))
        while written < size:
            written += os.pwrite(fd, rest[written:], where + written)


class Spill:
    """The large messages of one carrier, as one process writes and reads them.

    Args:
        path (str | None): The home of the process that made the carrier; None where none could
            be made.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._arena: tuple[bytes, int] | None = None
        self._end = self._slots = 0
        self._free: dict[int, list[int]] = {}
        self._taken: deque[tuple[int, int]] = deque()
        self._readable: dict[bytes, int] = {}

    def close(self) -> None:
        """Close this process's descriptors, also those that a fork gave it."""
        descriptors = list(self._readable.values())
        self._readable.clear()
        if self._arena is not None:
            descriptors.append(self._arena[1])
            self._arena = None
        for fd in descriptors:
            os.close(fd)

    def __del__(self) -> None:
        try:
            if self._arena is not None and self.path is not None and self.pid == os.getpid():
                name, fd = self._arena
                if _all_read(fd):
                    os.unlink(os.path.join(self.path, os.fsdecode(name)))
            self.close()
        except (OSError, AttributeError, TypeError):
            pass  # the home is gone already, or the interpreter half ended

    def write(self, data: bytes) -> bytes:
        """Keep a message, and return the reference to it.

        Args:
            data (bytes): The message.

        Returns:
            bytes: What `read` needs, at most 64 bytes.

        Raises:
            OSError: The message cannot be written (disk full, say). Nothing is left of it.
        """
        if self.path is None:
            raise OSError(
                f"a message of {len(data)} bytes needs a temporary file, and no directory for it "
                f"could be made under {tempfile.gettempdir()}. Make room there, or set TMPDIR to "
                "another place, and start again."
            )
        size = len(data) + _SLOT.size
        if size <= LARGEST_SLOT:
            # Four sizes to a doubling: a slot is taken again by messages of about its length.
            step = 1 << max(size.bit_length() - 3, 6)
            size = -(-size // step) * step
            with self._lock:
                where = self._take_slot(self.path, size)
            if where >= 0 and self._arena is not None:
                name, fd = self._arena
                try:
                    _write_at(fd, [_SLOT.pack(_TAKEN, size), data], where)
                except OSError:
                    self._free.setdefault(size, []).append(where)
                    raise
                # Only now: until the mark is written, the slot looks like one that was read.
                self._taken.append((where, size))
                return _REFERENCE.pack(where, len(data)) + name
        name = b"%d-%s-%d" % (self.pid, os.urandom(4).hex().encode(), next(self._numbers))
        path = os.path.join(self.path, os.fsdecode(name))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_at(fd, [data], 0)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return _REFERENCE.pack(-1, len(data)) + name

    def _take_slot(self, folder: str, size: int) -> int:
        """Return where a free slot of this size is, -1 where there is none."""
        if self._arena is None:
            self._arena = self._make_arena(folder)
        fd = self._arena[1]
        fitting = self._free.setdefault(size, [])
        # One that its reader never read goes round for ever, and stops none behind it.
        for _ in range(len(self._taken)):
            if fitting:
                break
            slot = self._taken.popleft()
            if os.pread(fd, 1, slot[0]) == b"\0":
                self._free.setdefault(slot[1], []).append(slot[0])
            else:
                self._taken.append(slot)
                break
        if fitting:
            return fitting.pop()
        if self._slots and self._slots == sum(map(len, self._free.values())):
            # All are free, but none of this size: cut the arena anew, and give the memory back.
            os.ftruncate(fd, 0)
            self._free.clear()
            self._slots = self._end = 0
        if self._end + size > ARENA_BYTES:
            return -1
        where = self._end
        self._end += size
        self._slots += 1
        return where

    def _make_arena(self, folder: str) -> tuple[bytes, int]:
        _remove_arenas_of_the_dead(folder)
        while True:
            name = b"arena-%d-%s" % (self.pid, os.urandom(8).hex().encode())
            fd = os.open(
                os.path.join(folder, os.fsdecode(name)), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)  # another process takes it for a dead one's, and removes it
                continue
            except OSError:
                pass  # no locks here: no arena can be proved dead either
            if os.fstat(fd).st_nlink:
                return name, fd
            os.close(fd)

    def read(self, reference: bytes) -> bytes:
        """Return the message that a reference stands for, and free its place.

        Args:
            reference (bytes): From `write`, possibly in another process. Each is read once.

        Returns:
            bytes: The message.

        Raises:
            PersistqError: It is not there, or not whole.
        """
        try:
            where, length = _REFERENCE.unpack_from(reference)
            name = reference[_REFERENCE.size :]
            if where < 0:
                path = self._path(name)
                fd = os.open(path, os.O_RDONLY)
                try:
                    data = _read_at(fd, length, 0)
                finally:
                    os.close(fd)
                _remove_file(path)
            else:
                with self._lock:
                    fd = self._readable.get(name) or self._open_arena(name)
                    data = _read_at(fd, length, where + _SLOT.size)
                    # After the copy, and by nobody but us: the writer may use the slot again.
                    _free_slot(fd, where)
        except (OSError, struct.error) as error:
            raise PersistqError(
                f"a message is lost: the temporary file that holds it cannot be read ({error}). "
                "Files in there belong to the running job and must not be removed. "
                "Restart the job; what the journals hold as outstanding is put again."
            ) from error
        if len(data) != length:
            raise PersistqError(
                f"a message is lost: {self._path(name)} holds {len(data)} of its {length} bytes. "
                "Restart the job; what the journals hold as outstanding is put again."
            )
        return data

    def discard(self, reference: bytes) -> None:
        """Free the place of a message that this process wrote and could not send after all.

        Args:
            reference (bytes): From `write`.
        """
        where, _ = _REFERENCE.unpack_from(reference)
        try:
            if where < 0:
                os.unlink(self._path(reference[_REFERENCE.size :]))
            elif self._arena is not None:
                _free_slot(self._arena[1], where)
        except OSError:
            pass  # goes with the home

    def _open_arena(self, name: bytes) -> int:
        fd = os.open(self._path(name), os.O_RDWR)
        if len(self._readable) >= OPEN_ARENAS:
            os.close(self._readable.pop(next(iter(self._readable))))
        self._readable[name] = fd
        return fd

    def _path(self, name: bytes) -> str:
        return os.path.join(self.path or "", os.fsdecode(name))


def _free_slot(fd: int, where: int) -> None:
    try:
        os.pwrite(fd, b"\0", where)
    except OSError:
        # A full disk that copies on write: the slot stays taken, and the message was read.
        pass


def _read_at(fd: int, length: int, where: int) -> bytes:
    data = os.pread(fd, length, where)
    if len(data) == length:
        return data
    parts = [data]  # beyond 2 GiB one call is not enough
    while data:
        where += len(data)
        data = os.pread(fd, length - sum(map(len, parts)), where)
        parts.append(data)
    return b"".join(parts)


def _all_read(fd: int) -> bool:
    where = 0
    while True:
        head = os.pread(fd, _SLOT.size, where)
        if not head:
            return True
        if len(head) < _SLOT.size:
            return False
        mark, size = _SLOT.unpack(head)
        if mark != _FREE or size < _SLOT.size:
            return False
        where += size


def _remove_arenas_of_the_dead(folder: str) -> None:
    for name in os.listdir(folder):
        if not name.startswith("arena-"):
            continue
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            # The lock proves that the writer has ended, so no further slot can be taken.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _all_read(fd):
                os.unlink(path)
        except OSError:
            pass
        finally:
            os.close(fd)
