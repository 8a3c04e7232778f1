"""A number that processes share: no kill leaves it locked, and no resource tracker knows of it.

On Linux it is an eventfd: a number in the kernel that a process can raise by any amount, or lower
by one if it is not zero, with one system call each. It has no name, so that nothing of it is left
behind by any kill and none of it is in /dev/shm, and it travels to children as a descriptor does.
Elsewhere it is a semaphore of multiprocessing, whose resource tracker removes its name.
"""

from __future__ import annotations

import os
import select
import sys
import time
from functools import partial
from multiprocessing import connection

from persistq._carrier.ends import own_end
from persistq._carrier.refusal import is_of_call, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from multiprocessing.synchronize import Semaphore

_ONE = (1).to_bytes(8, sys.byteorder)
_SEMAPHORE_MODE = 1
_LONGEST_POLL_MS = 3_600_000.0


def _find_eventfd() -> Callable[[int, int], int] | None:
    """Return what opens an eventfd, None where there is none."""
    found: Callable[[int, int], int] | None = getattr(os, "eventfd", None)
    if found is None and sys.platform == "linux":  # Python 3.9
        from persistq import _libc

        call = _libc.function("eventfd")
        if call is None:
            return None

        def found(value: int, flags: int) -> int:
            fd = call(value, flags)
            if fd < 0:
                raise _libc.failure()
            return fd

    if found is not None:
        try:
            os.close(found(0, os.O_CLOEXEC | os.O_NONBLOCK | _SEMAPHORE_MODE))
        except OSError:
            return None  # a sandbox that forbids the call
    return found


_eventfd = _find_eventfd()


class EventCounter:
    """The number as an eventfd.

    Args:
        value (int): What it begins with.
        ctx (multiprocessing.context.BaseContext): Whose processes share it; any can.
    """

    def __init__(self, value: int, ctx: BaseContext) -> None:
        assert _eventfd is not None
        fd = _eventfd(0, os.O_CLOEXEC | os.O_NONBLOCK | _SEMAPHORE_MODE)
        self._keep(connection.Connection(fd))
        if value:
            self.up(value)

    def __getstate__(self) -> connection.Connection:
        return self._end

    def __setstate__(self, end: connection.Connection) -> None:
        self._keep(own_end(end))

    def _keep(self, end: connection.Connection) -> None:
        # A Connection knows how to travel to a child, and closes itself.
        self._end = end
        self._fd = end.fileno()
        # Raises it by one: what each put does, and without a call in Python.
        self.up_by_one = partial(os.write, self._fd, _ONE)

    def up(self, n: int = 1) -> None:
        """Raise the number, in one step."""
        try:
            os.write(self._fd, _ONE if n == 1 else n.to_bytes(8, sys.byteorder))
        except OSError as error:
            if is_of_call(error):
                refused(error)
            raise

    def down(self) -> bool:
        """Lower it by one, if it is not zero, and return whether it was lowered. Never waits."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        return True

    def down_in_time(self, timeout_s: float | None) -> bool:
        """Lower it by one as soon as it is not zero.

        Args:
            timeout_s (float | None): Seconds to wait; None waits for ever.

        Returns:
            bool: Whether it was lowered.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.down():
            wait_ms = _LONGEST_POLL_MS
            if deadline is not None:
                wait_ms = min(wait_ms, (deadline - time.monotonic()) * 1000)
                if wait_ms <= 0:
                    return False
            self._poll(int(wait_ms) + 1)
        return True

    def is_zero(self) -> bool:
        """Return whether it is zero now."""
        return not self._poll(0)

    def _poll(self, wait_ms: int) -> bool:
        # One of its own for each call: two threads cannot poll with the same.
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(wait_ms))


class SemaphoreCounter:
    """The number as a semaphore.

    Args:
        value (int): What it begins with.
        ctx (multiprocessing.context.BaseContext): Whose processes share it.
    """

    def __init__(self, value: int, ctx: BaseContext) -> None:
        self.__setstate__(ctx.Semaphore(value))

    def __getstate__(self) -> Semaphore:
        return self._semaphore

    def __setstate__(self, semaphore: Semaphore) -> None:
        self._semaphore = semaphore
        self.up_by_one = semaphore.release

    def up(self, n: int = 1) -> None:
        """Raise the number; by more than one in as many steps.

        Raises:
            ValueError: It is as high as a semaphore goes (32,767 on macOS); nothing is changed.
        """
        raised = 0
        try:
            for _ in range(n):
                self._semaphore.release()
                raised += 1
        except ValueError as error:
            for _ in range(raised):
                self.down()
            if is_of_call(error):
                refused(error)
            raise

    def down(self) -> bool:
        """Lower it by one, if it is not zero, and return whether it was lowered. Never waits."""
        return self._semaphore.acquire(False)

    def down_in_time(self, timeout_s: float | None) -> bool:
        """Lower it by one as soon as it is not zero.

        Args:
            timeout_s (float | None): Seconds to wait; None waits for ever.

        Returns:
            bool: Whether it was lowered.
        """
        return self._semaphore.acquire(True, timeout_s)

    def is_zero(self) -> bool:
        """Return whether it is zero now."""
        return bool(self._semaphore._semlock._is_zero())  # type: ignore[attr-defined]


Counter = EventCounter if _eventfd is not None else SemaphoreCounter
