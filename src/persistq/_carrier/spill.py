"""Where a message waits that is too large for a record of the pipe.

The record then carries a reference, and the message lies in a file of the carrier's `home`, a
directory under the temporary directory. (Not under /dev/shm: it was not faster, containers give it
64 MiB, and systemd empties it of a user's files when that user logs out.)

Two kinds of file, by measurement: creating and removing a file for each message costs ten times
as much as writing it over one that was read (80 against 4 microseconds for 1 KB, 110 against 19
for 100 KB, and up to 600 on an ext4 that has just seen many deletions).

- An **arena** belongs to one writing process. Each message has a slot: a mark that says whether
  the slot is taken, the slot's size, the message. The one reader that gets the reference clears
  the mark after copying the message; the writer looks at the marks of its oldest slots when it
  needs one. There is no lock and no shared count, so there is nothing that a killed process
  leaves wrong: a reader that dies before clearing the mark leaves one slot taken.
- A file of its own, removed by its reader, for what the arena has no room for.

An arena whose writer has ended goes when every message in it was read, by the next process that
makes an arena there; its lock, which the kernel drops however the writer dies, tells.

A signal handler may put a message while the thread it interrupts is just looking for a slot, or
reading. So who finds the lock held does without: the message gets a file of its own.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections import deque
from itertools import count

from persistq._carrier.record import INLINE_BYTES, MARK, pack, pack_reference, reference_in
from persistq._carrier.refusal import is_of_call, refused
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from persistq._carrier.home import Home

ARENA_BYTES = 32 << 20
# Larger messages have files of their own: copying them costs more than making the file.
LARGEST_SLOT = ARENA_BYTES // 8
OPEN_ARENAS = 8

_SLOT = struct.Struct("<BQ")
_REFERENCE = struct.Struct("<qQ")  # where in the arena, -1 for a file of its own; the length
_TAKEN, _FREE = 1, 0


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # goes with the home


def _write_at(fd: int, parts: list[bytes], where: int) -> None:
    """Write all of it, or raise the OSError that stopped it."""
    size = sum(map(len, parts))
    try:
        written = os.pwritev(fd, parts, where) if hasattr(os, "pwritev") else 0
        if written < size:
            rest = memoryview(b"".join(parts))
            while written < size:
                written += os.pwrite(fd, rest[written:], where + written)
    except OSError as error:
        if is_of_call(error):
            refused(error)
        raise


class _Cut:
    """How an arena is cut into slots. Of an interrupted change a slot is lost, and none doubled."""

    def __init__(self) -> None:
        self.end = self.slots = 0
        self.free: dict[int, list[int]] = {}
        self.taken: deque[tuple[int, int]] = deque()


class Spill:
    """The large messages of one carrier, as one process writes and reads them.

    Args:
        home (Home): Where their files are.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._arena: tuple[bytes, int] | None = None
        self._cut = _Cut()
        self._readable: dict[bytes, int] = {}

    def record_of(self, data: bytes) -> bytes:
        """Return the record for a message: with the message, or with a reference to it.

        Raises:
            OSError: The message is large and cannot be written. Nothing is left of it.
        """
        if len(data) <= INLINE_BYTES:
            return pack(data, MARK)
        return pack_reference(self.write(data))

    def records_of(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return a record for each message, or raise and leave nothing of any.

        Raises:
            OSError: A message is large and cannot be written.
        """
        if max(map(len, messages), default=0) <= INLINE_BYTES:
            return [pack(data, MARK) for data in messages]
        records: list[bytes] = []
        try:
            for data in messages:
                records.append(self.record_of(data))
        except BaseException:
            self.discard_records(records)
            raise
        return records

    def discard_records(self, records: Sequence[bytes]) -> None:
        """Free the places of the large messages among records that were not sent after all."""
        for record in records:
            reference = reference_in(record)
            if reference is not None:
                self.discard(reference)

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
            if self._arena is not None and self.pid == os.getpid():
                name, fd = self._arena
                if _all_read(fd):
                    os.unlink(self._path(name))
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
        folder = self.home.make()
        size = len(data) + _SLOT.size
        if size <= LARGEST_SLOT:
            # Four sizes to a doubling: a slot is taken again by messages of about its length.
            step = 1 << max(size.bit_length() - 3, 6)
            size = -(-size // step) * step
            where = -1
            if not self._lock.locked():
                with self._lock:
                    where = self._take_slot(folder, size)
                    cut = self._cut
            if where >= 0 and self._arena is not None:
                name, fd = self._arena
                try:
                    _write_at(fd, [_SLOT.pack(_TAKEN, size), data], where)
                except OSError:
                    cut.free.setdefault(size, []).append(where)
                    raise
                # Only now: until the mark is written, the slot looks like one that was read.
                cut.taken.append((where, size))
                return _REFERENCE.pack(where, len(data)) + name
        name = b"%d-%s-%d" % (self.pid, os.urandom(4).hex().encode(), next(self._numbers))
        path = self._path(name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            if is_of_call(error):
                refused(error)
            raise
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
        cut = self._cut
        fitting = cut.free.setdefault(size, [])
        # One that its reader never read goes round for ever, and stops none behind it.
        for _ in range(len(cut.taken)):
            if fitting:
                break
            slot = cut.taken.popleft()
            if os.pread(fd, 1, slot[0]) == b"\0":
                cut.free.setdefault(slot[1], []).append(slot[0])
            else:
                cut.taken.append(slot)
                break
        if fitting:
            return fitting.pop()
        if cut.slots and cut.slots == sum(map(len, list(cut.free.values()))):
            # All are free, but none of this size: cut the arena anew, and give the memory back.
            os.ftruncate(fd, 0)
            cut = self._cut = _Cut()
        if cut.end + size > ARENA_BYTES:
            return -1
        # In this order: one more that seems taken is never given out, one less could be twice.
        cut.slots += 1
        where = cut.end
        cut.end += size
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
                data = self._read_slot(name, where, length)
        except (OSError, struct.error) as error:
            if isinstance(error, OSError) and error.errno is None:
                raise  # no system call's: a signal handler's TimeoutError
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

    def _read_slot(self, name: bytes, where: int, length: int) -> bytes:
        # The lock keeps other threads from closing the descriptor.
        if not self._lock.locked():
            with self._lock:
                fd = self._readable.get(name) or self._open_arena(name)
                return _take_out(fd, where, length)
        fd = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
        try:
            return _take_out(fd, where, length)
        finally:
            os.close(fd)

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
        return os.path.join(self.home.path, os.fsdecode(name))


def _take_out(fd: int, where: int, length: int) -> bytes:
    data = _read_at(fd, length, where + _SLOT.size)
    # After the copy, and by nobody but us: the writer may use the slot again.
    _free_slot(fd, where)
    return data


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
