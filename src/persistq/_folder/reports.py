"""What the kernel reports of a folder: inotify, which only Linux has."""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import threading

# Loaded here and not where it is used: that takes longer than a first look at a folder.
from persistq import _libc

HEADER = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, length of the name
_CREATE, MOVED_TO, _DELETE_SELF, _MOVE_SELF = 0x100, 0x80, 0x400, 0x800
_UNMOUNT, OVERFLOW, _IGNORED, IS_FOLDER = 0x2000, 0x4000, 0x8000, 0x40000000
_ONLY_FOLDERS = 0x01000000
GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED

_init, _add = _libc.function("inotify_init1"), _libc.function("inotify_add_watch")


class Reports:
    """An inotify descriptor on one folder.

    Args:
        folder (str): Path of the folder.

    Attributes:
        fd (int): What reports are read from, without waiting; -1 once it is closed.

    Raises:
        OSError: The system has no inotify, or gives no more of it.
    """

    def __init__(self, folder: str) -> None:
        self.fd = -1
        self._alarm: tuple[int, int] | None = None  # a pipe, once there are several threads
        if sys.platform != "linux" or _init is None or _add is None:
            raise OSError(errno.ENOSYS, "only Linux has inotify, and ctypes calls it")
        self.fd = _init(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _libc.failure()
        mask = _CREATE | MOVED_TO | _DELETE_SELF | _MOVE_SELF | _ONLY_FOLDERS
        if _add(self.fd, os.fsencode(folder), mask) < 0:
            failure = _libc.failure(folder)
            self.close()
            raise failure
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Sleep until there is a report, or another thread's `wake`, or for so many seconds."""
        if self._alarm is None and threading.active_count() > 1:
            self._alarm = os.pipe()
            for fd in self._alarm:
                os.set_blocking(fd, False)
            self._poll.register(self._alarm[0], select.POLLIN)
        # poll counts milliseconds, and a rest of half of one must not become a busy loop.
        ready = self._poll.poll(max(1, int(seconds * 1000)))
        alarm = self._alarm
        if alarm is not None and any(fd == alarm[0] for fd, _ in ready):
            try:
                os.read(alarm[0], 4096)
            except OSError:
                pass  # disposed of by another thread meanwhile

    def wake(self) -> None:
        """End the `wait` of another thread."""
        alarm = self._alarm
        if alarm is not None:
            try:
                os.write(alarm[1], b"!")
            except OSError:
                pass  # there are plenty in it; or it has just been disposed of

    def close(self) -> None:
        """Give the descriptors back: a user has 128 of inotify."""
        fds, self.fd, self._alarm = (self.fd, *(self._alarm or ())), -1, None
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()
