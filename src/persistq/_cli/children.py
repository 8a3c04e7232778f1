"""How a command is run for one file: started, heard, waited for and ended, by events alone."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL_BYTES = 8192
_TAIL_LINES = 10
_READ_BYTES = 1 << 16
# More than a pipe holds: what a command has written before its end is read, and of one that it
# leaves running behind it no more than that.
_LEFT_BYTES = 1 << 20


class Child:
    """A command that runs, in a session of its own.

    So no key at a terminal (Ctrl-C, Ctrl-Z) and no hang-up reaches it, it cannot wait for input
    there, and all that it starts is ended with it. Its standard input is empty. What it says on
    standard error is passed on, and the last of it kept.

    Args:
        arguments (Sequence[str]): The command; no shell is in between.
        environment (dict[str, str]): Its whole environment.
        lease (int | None): A descriptor that it is to hold, too.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], lease: int | None
    ) -> None:
        self._tail = b""
        self._is_whole = True
        self._process: subprocess.Popen[bytes] | None = None
        # Its end is an event of its own: what it leaves running may keep the pipe open. All that
        # may be refused comes before its start, behind which there is no way back.
        self._ended, self._at_end = os.pipe()
        self._is_started = threading.Event()
        self._waiter = threading.Thread(target=self._wait_and_close, daemon=True)
        try:
            self._waiter.start()
        except RuntimeError as error:
            os.close(self._at_end)
            os.close(self._ended)
            raise OSError(errno.EAGAIN, str(error)) from error
        try:
            self._process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                pass_fds=() if lease is None else (lease,),
            )
        except BaseException:
            os.close(self._ended)
            raise
        finally:
            self._is_started.set()

    def _wait_and_close(self) -> None:
        self._is_started.wait()
        if self._process is not None:
            self._process.wait()
        os.close(self._at_end)

    def wait(self) -> int:
        """Wait for its end.

        Returns:
            int: Its exit status; less than 0: the number of the signal that killed it.
        """
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            self._listen(errors.fileno())
        os.close(self._ended)
        self._waiter.join()
        return self._process.returncode

    def _listen(self, errors: int) -> None:
        poll = select.poll()
        poll.register(errors, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._ended in ready:
                break
            data = os.read(errors, _READ_BYTES)
            if data:
                self._hear(data)
            else:
                poll.unregister(errors)
        os.set_blocking(errors, False)
        left = _LEFT_BYTES
        while left > 0:
            try:
                data = os.read(errors, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._hear(data)
            left -= len(data)

    def _hear(self, data: bytes) -> None:
        tail = self._tail + data
        self._is_whole = self._is_whole and len(tail) <= _TAIL_BYTES
        self._tail = tail[-_TAIL_BYTES:]
        try:
            while data:
                data = data[os.write(sys.stderr.fileno(), data) :]
        except OSError:
            pass  # nobody reads it, or the disk is full: no reason to fail what is being done

    def last_lines(self) -> str:
        """Give the last lines of what it said on standard error, in one; of any bytes."""
        lines = self._tail.decode("utf-8", "backslashreplace").splitlines()
        if not self._is_whole and len(lines) > 1:
            del lines[0]  # the end of a longer one
        said = [line.strip() for line in lines if line.strip()]
        return " | ".join(said[-_TAIL_LINES:])

    def end(self, number: signal.Signals) -> None:
        """Send a signal to it and to what it has started.

        Args:
            number (signal.Signals): The signal.
        """
        if self._process is not None and self._process.returncode is None:
            try:
                os.killpg(self._process.pid, number)
            except OSError:
                pass  # it has just ended; or it is another user's now


def is_unread(fd: int) -> bool:
    """Tell whether a descriptor is of a pipe, or a connection, at whose other end nobody is.

    Args:
        fd (int): The descriptor.
    """
    poll = select.poll()
    poll.register(fd, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
