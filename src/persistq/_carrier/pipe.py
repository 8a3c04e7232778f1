"""A pipe that holds records of one size: how to open, read and count them.

POSIX makes a write of up to PIPE_BUF bytes to a pipe atomic. As whole records are all that is
ever written, a read of one record's size takes exactly one, whoever else reads and writes.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
import time
from multiprocessing import connection
from queue import Empty

# By measurement: 256 bytes hold nearly every path, key or row of an ETL job; records of 512
# or 1,024 bytes cost a quarter to a third of the speed with one worker.
RECORD_BYTES = 256
RECORDS_PER_WRITE = select.PIPE_BUF // RECORD_BYTES  # POSIX: at least 512 // 256

# The most that Linux gives to any user, and by measurement twice as fast as the 64 KiB that a pipe
# has: the feeder thread is needed less often. Who has many pipes may not get that much.
_PIPE_BYTES = (1 << 20, 1 << 18)
_LEAST_PIPE_BYTES = 1 << 14
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032  # fcntl has the names only from Python 3.10 on

# Seconds for each record of a full pipe, of which the quickest readers take one in 0.002 ms.
_REST_S = 0.0005 / 1000

_LONGEST_POLL_MS = 3_600_000.0


def open_pipe() -> tuple[
    connection.Connection, connection.Connection | None, connection.Connection
]:
    """Open a pipe.

    Whether a read of an empty pipe waits is a property of the open end, not of the call, so
    there are two ends to read from.

    Returns:
        tuple: A read end on which `os.read` never waits; one on which it waits, where the kernel
        wakes one reader for one record (None where the system cannot open an end twice: /dev/fd
        of macOS gives the same open file again); and a write end that never waits.
    """
    reader, writer = connection.Pipe(duplex=False)
    waiter = None
    try:
        waiter = connection.Connection(
            os.open(f"/proc/self/fd/{reader.fileno()}", os.O_RDONLY | os.O_CLOEXEC), writable=False
        )
    except OSError:
        pass
    for size in _PIPE_BYTES:
        try:
            fcntl.fcntl(writer.fileno(), _F_SETPIPE_SZ, size)
            break
        except OSError:
            pass  # not Linux, or this user's pipes are large enough altogether
    os.set_blocking(writer.fileno(), False)
    os.set_blocking(reader.fileno(), False)
    if waiter is not None and not os.get_blocking(waiter.fileno()):
        waiter.close()
        waiter = None
    return reader, waiter, writer


def read_in_time(fd: int, block: bool, timeout: float | None) -> bytes:
    """Read one record.

    Args:
        fd (int): The read end that never waits: between poll() and read another reader may be
            faster.
        block (bool): Whether to wait for a record.
        timeout (float | None): Seconds to wait; None waits for ever.

    Returns:
        bytes: The record.

    Raises:
        queue.Empty: None came in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    arrival = None
    while True:
        try:
            return os.read(fd, RECORD_BYTES)
        except BlockingIOError:
            pass
        if not block:
            raise Empty
        wait_ms = _LONGEST_POLL_MS
        if deadline is not None:
            wait_ms = min(wait_ms, (deadline - time.monotonic()) * 1000)
            if wait_ms <= 0:
                raise Empty
        if arrival is None:
            arrival = select.poll()
            arrival.register(fd, select.POLLIN)
        arrival.poll(int(wait_ms) + 1)


def records_in(fd: int) -> int:
    """Return how many records are in the pipe, given either end."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder) // RECORD_BYTES


def rest_s(fd: int) -> float:
    """Return for how long a full pipe is surely not empty, in seconds, given either end.

    A writer that tries again as soon as there is room for anything would do so for every few
    records, and wake up for each.
    """
    try:
        size = fcntl.fcntl(fd, _F_GETPIPE_SZ)
    except OSError:
        size = _LEAST_PIPE_BYTES  # not Linux
    return size // RECORD_BYTES * _REST_S


def has_room(fd: int) -> bool:
    """Return whether a write to this end would find room."""
    room = select.poll()
    room.register(fd, select.POLLOUT)
    return bool(room.poll(0))
