"""What the processes of one carrier know of one another, in memory that any kill leaves whole.

The board is a file without a name (a memfd on Linux, else a temporary file that is removed as soon
as it is open), shared like the pipe. It holds records of 128 bytes, and they are only ever
appended, with one write each: the kernel does these one after the other, so a record is there
whole or not at all, and nobody needs a lock. There are three kinds:

- record 0, the header: bytes for all to see at once;
- an event, one byte of kind, such as "this process has put all it will";
- a block, which one process owns. It maps the page with it into its memory (the append has
  allocated it) and from then on tells the others what it is doing with single stores, which cost
  nothing. Others read it from the file. A killed process leaves its block as it was: who looks at
  it has to know from elsewhere who lives (a `token` names the block's owner).

The bytes of a block belong to the threads of its process, four of flags and two numbers to each,
and one byte to the feeder. A process with more threads appends further blocks.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import tempfile
import threading
from collections import deque
from functools import partial
from itertools import count
from multiprocessing import connection
from operator import getitem
from typing import NamedTuple

from persistq._carrier.ends import own_end
from persistq._fs import watch_forks

try:
    import fcntl
except ImportError:  # Windows: no board there, nor a carrier
    pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RECORD_BYTES = 128
_TOKEN = slice(1, 9)
# Of the header.
_NEWS, _FAILED = 1, 2
# Of a block: behind its kind and its owner's token the feeder's byte, the number that it has among
# its owner's, and the bytes of threads.
_BLOCK, _HEADER = b"P", b"H"
_BACKLOG, _NUMBER = 9, slice(10, 12)
_FIRST_THREAD, _THREAD_BYTES = 12, 4
_THREADS = 5
# Behind all that, for each thread: how many tasks it has added, and how many finished.
_FIRST_NUMBER = _FIRST_THREAD + _THREADS * _THREAD_BYTES
_NUMBERS = struct.Struct(
    f"={_FIRST_NUMBER}x{2 * _THREADS}Q{RECORD_BYTES - _FIRST_NUMBER - 16 * _THREADS}x"
)
ADDED, FINISHED = 0, 1
TAKING, SENDING, STUCK = 0, 1, 2


class InTransit(NamedTuple):
    """What one process had between two places when it was looked at.

    Attributes:
        taking (tuple[int, ...]): For each thread between "about to read the pipe" and "what it read
            is recorded" its number among the process's threads, times 256, plus its generation:
            one that is no longer among these at a later look has come to its end meanwhile.
        sending (bool): Whether a thread is between "about to record a message" and "it is in the
            pipe or in the feeder's backlog".
        backlog (bool): Whether messages wait in the process's feeder.
        stuck (bool): Whether a thread waits for ever, with messages in hand and nobody to do them.
    """

    taking: tuple[int, ...]
    sending: bool
    backlog: bool
    stuck: bool = False


class _Slot:
    """The bytes of one thread; they are another's once this one has ended."""

    def __init__(
        self, flags: memoryview, numbers: memoryview, free: deque[tuple[memoryview, memoryview]]
    ) -> None:
        self.flags = flags
        self.numbers = numbers
        self._free = free
        self._pid = os.getpid()

    def __del__(self) -> None:
        if getattr(self, "_pid", -1) != os.getpid():
            # A forked child: the thread lives on in its parent. Or a signal handler has raised
            # while this was made.
            return
        # A thread's locals go with it. One that has ended is between nothing any more; its other
        # bytes stay, so that its successor can go on counting where it stopped.
        self.flags[TAKING] = self.flags[SENDING] = self.flags[STUCK] = 0
        self._free.append((self.flags, self.numbers))


class Board:
    """A board that processes share.

    Raises:
        OSError: There is neither memory nor a temporary folder for it.
    """

    # Whether anything was posted: one look at memory, without a call in Python.
    has_news: Callable[[], bool]
    # The same as its one item, without even a call.
    news: memoryview[bool]
    # What each thread has of its own: `flags` and `numbers`, once it has asked for them. A forked
    # child has another one.
    local: threading.local
    # Whether `tell_failed` was called, in any process, ever.
    is_failed_told: Callable[[], bool]

    def __init__(self) -> None:
        self._keep(connection.Connection(_open()))

    def __getstate__(self) -> connection.Connection:
        return self._end

    def __setstate__(self, end: connection.Connection) -> None:
        self._keep(own_end(end))

    def _keep(self, end: connection.Connection) -> None:
        self._end = end
        self._fd = end.fileno()
        self._head = memoryview(_map(self._fd, RECORD_BYTES, 0))
        self.news = self._head.cast("?")[_NEWS : _NEWS + 1]
        look: Any = partial(partial, getitem, self._head.cast("?"))
        self.has_news = look(_NEWS)
        self.is_failed_told = look(_FAILED)
        self._after_fork()
        watch_forks(self)

    def _after_fork(self) -> None:
        """Begin without blocks: those that a fork has given this process are its parent's."""
        self._name = os.urandom(8)
        self._blocks: list[memoryview] = []
        self._numbers = count()
        self._free: deque[tuple[memoryview, memoryview]] = deque()
        self.local = threading.local()
        # What was read of the file so far: up to where, how often each kind of event was there.
        self._read: tuple[int, dict[bytes, int]] = (RECORD_BYTES, {})

    # -- for all to see

    def post(self, kind: bytes) -> None:
        """Append an event.

        Args:
            kind (bytes): One byte, neither "P" nor "H".

        Raises:
            OSError: There is no memory for it; nothing was posted.
        """
        # In this order: who sees no news has missed nothing. Killed in between, there is news that
        # nobody finds; whoever looks for it looks in vain, now and then.
        self._head[_NEWS] = 1
        self._append(kind + self._name)

    def count(self, kind: bytes) -> int:
        """Return how many events of this kind were posted, by all processes."""
        # Events never change, so each process reads each once. Two threads that do so at once
        # come to the same result, and whichever is kept is right.
        where, counts = self._read
        data = os.pread(self._fd, os.fstat(self._fd).st_size - where, where)
        whole = len(data) // RECORD_BYTES * RECORD_BYTES
        if whole:
            counts = dict(counts)
            for at in range(0, whole, RECORD_BYTES):
                found = data[at : at + 1]
                counts[found] = counts.get(found, 0) + 1
            self._read = (where + whole, counts)
        return counts.get(kind, 0)

    def tell_failed(self) -> None:
        """Make `is_failed_told` true for ever, in all processes."""
        self._head[_FAILED] = 1

    # -- of this process

    def token(self) -> str:
        """Return the name of this process's copy, in hexadecimal; a forked child gets another."""
        if not self._blocks:
            self._add_block()
        return self._name.hex()

    def flags(self) -> memoryview:
        """Return this thread's own four bytes, for all to read in `in_transit`.

        Byte 0 is to be 1 to 255 while the thread is between "about to read the pipe" and "what it
        read is recorded", another number than the time before, and 0 else; byte 1 is to be 1
        between "about to record a message" and "it is in the pipe or the feeder's backlog"; byte 2
        1 while it waits for ever, with messages in hand that nobody does meanwhile. The last one
        means nothing here.
        """
        try:
            return self.local.flags  # type: ignore[no-any-return]
        except AttributeError:
            return self._take_slot()

    def numbers(self) -> memoryview:
        """Return this thread's own two numbers, which only grow: tasks added, tasks finished."""
        try:
            return self.local.numbers  # type: ignore[no-any-return]
        except AttributeError:
            self._take_slot()
            return self.local.numbers  # type: ignore[no-any-return]

    def set_backlog(self, waits: bool) -> None:
        """Say whether messages wait in this process's feeder."""
        if not self._blocks:
            self._add_block()
        self._blocks[0][_BACKLOG] = waits

    def has_backlog(self) -> bool:
        """Tell whether messages wait in this process's feeder."""
        return bool(self._blocks and self._blocks[0][_BACKLOG])

    def _take_slot(self) -> memoryview:
        # Without a lock, which a signal handler in this thread could not take a second time: two
        # that find no slot free append a block each.
        while True:
            try:
                flags, numbers = self._free.popleft()
                break
            except IndexError:
                self._add_block()
        self.local.slot = _Slot(flags, numbers, self._free)
        self.local.numbers = numbers
        self.local.flags = flags
        return flags

    def _add_block(self) -> None:
        number = (next(self._numbers) % 0x10000).to_bytes(2, "little")
        record = _BLOCK + self._name + b"\0" + number
        where = os.fstat(self._fd).st_size
        self._append(record)
        # No call tells where an append went that others do as well; and nobody else writes this.
        while os.pread(self._fd, len(record), where) != record:
            where += RECORD_BYTES
        page = where // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        memory = _map(self._fd, where + RECORD_BYTES - page, page)
        block = memoryview(memory)[where - page :]
        self._blocks.append(block)
        for thread in range(_THREADS):
            at, behind = _FIRST_THREAD + thread * _THREAD_BYTES, _FIRST_NUMBER + thread * 16
            numbers = block[behind : behind + 16].cast("Q")
            self._free.append((block[at : at + _THREAD_BYTES], numbers))

    def _append(self, record: bytes) -> None:
        _write(self._fd, record)

    # -- of all processes

    def unfinished(self) -> int:
        """Return how many tasks were added and not finished, by all processes, dead ones included.

        Never too few: each task is added before it can be finished, and what is finished is counted
        here before what is added.
        """
        finished = self._sum(FINISHED)
        return self._sum(ADDED) - finished

    def _sum(self, which: int) -> int:
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        total = 0
        for at in range(RECORD_BYTES, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
            if data[at] == _BLOCK[0]:
                total += sum(_NUMBERS.unpack_from(data, at)[which::2])
        return total

    def in_transit(self) -> dict[str, InTransit]:
        """Return for each process, by its token, what it has between two places now.

        Also for those that have died: they stay as they were.
        """
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        found: dict[str, InTransit] = {}
        for at in range(RECORD_BYTES, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
            block = data[at : at + RECORD_BYTES]
            if block[:1] != _BLOCK:
                continue
            token = block[_TOKEN].hex()
            before = found.get(token, _NOTHING)
            threads = block[_FIRST_THREAD:_FIRST_NUMBER]
            first = int.from_bytes(block[_NUMBER], "little") * _THREADS
            taking = [
                (first + index) * 256 + generation
                for index, generation in enumerate(threads[TAKING::_THREAD_BYTES])
                if generation
            ]
            found[token] = InTransit(
                tuple(sorted([*before.taking, *taking])),
                before.sending or any(threads[SENDING::_THREAD_BYTES]),
                before.backlog or bool(block[_BACKLOG]),
                before.stuck or any(threads[STUCK::_THREAD_BYTES]),
            )
        return found


_NOTHING = InTransit((), False, False)


def _write(fd: int, record: bytes) -> None:
    """Append a record, or nothing."""
    written = os.write(fd, record.ljust(RECORD_BYTES, b"\0"))
    if written < RECORD_BYTES:
        # Records fill pages exactly, so nothing but this process's limit on the size of files does
        # that. Left there, the piece would put all records behind it out of step.
        os.ftruncate(fd, os.fstat(fd).st_size - written)
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _map(fd: int, length: int, offset: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        # Without a duplicate of the descriptor for each.
        return mmap.mmap(fd, length, offset=offset, trackfd=False)
    return mmap.mmap(fd, length, offset=offset)


def _open() -> int:
    """Open the file, with its header."""
    if hasattr(os, "memfd_create"):
        try:
            fd = os.memfd_create("persistq", os.MFD_CLOEXEC)
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
            _write(fd, _HEADER)
            return fd
        except OSError:
            pass  # a sandbox that forbids it
    try:
        named, path = tempfile.mkstemp(prefix="persistq-board-")
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        finally:
            os.unlink(path)
            os.close(named)
        _write(fd, _HEADER)
    except OSError as error:
        raise OSError(
            error.errno,
            f"a queue between processes needs {RECORD_BYTES} bytes that they share, and there is "
            f"neither memory nor a temporary file for these ({error}). Set TMPDIR to a folder that "
            "can be written, or pass queue=queue.Queue() and use threads",
        ) from error
    return fd
