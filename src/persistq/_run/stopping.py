"""What Ctrl-C and SIGTERM do while a job runs: they end it well, and then do what they always do.

Ctrl-C needs no handler: `KeyboardInterrupt` comes out of whatever the calling thread is at. A
handler of SIGTERM raises `Terminated` there in the same way. Whoever catches either lets the
workers finish what they have in hand. Then `KeyboardInterrupt` goes on to the caller, and SIGTERM
is sent again, to whoever handled it before.
"""

from __future__ import annotations

import os
import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any


class Terminated(BaseException):
    """This process was sent SIGTERM."""


class Signals:
    """A block in which SIGTERM raises `Terminated`; at its end what was there before is back.

    Outside of the main thread, where Python allows no handlers, and where SIGTERM is ignored,
    nothing changes.

    Attributes:
        is_terminated (bool): Whether SIGTERM has come.
    """

    def __init__(self) -> None:
        self.is_terminated = False
        self._pid = os.getpid()
        self._before: Any = None
        self._is_set = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGTERM)
            # None: not set from Python, so nobody could put it back.
            if before is not None and before is not signal.SIG_IGN:
                self._before = before
                signal.signal(signal.SIGTERM, self._handle)
                self._is_set = True
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            end_as_before(self._before)  # a child that was forked meanwhile, by an executor say
            return
        self.is_terminated = True
        raise Terminated

    def __exit__(self, *rest: object) -> None:
        if self._is_set:
            signal.signal(signal.SIGTERM, self._before)
            self._is_set = False

    def pass_on(self) -> None:
        """Let SIGTERM do what it would have done without us, now that all is tidy."""
        if self.is_terminated:
            os.kill(os.getpid(), signal.SIGTERM)


def end_as_before(before: Any) -> None:
    """In a forked child, which has a handler that was not for it: let SIGTERM do what it did.

    Args:
        before (Any): The handler of before.
    """
    signal.signal(signal.SIGTERM, before)
    os.kill(os.getpid(), signal.SIGTERM)


if hasattr(signal, "pthread_sigmask"):

    class Held:
        """A block in which this thread gets no Ctrl-C and no SIGTERM, nor what it starts there.

        A child begins so, until it has said itself what they are to do: else Ctrl-C at a terminal,
        which goes to all processes, would end it by a traceback.
        """

        def __enter__(self) -> None:
            both = {signal.SIGINT, signal.SIGTERM}
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, both)

        def __exit__(self, *rest: object) -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def let_signals_in() -> None:
        """In a child: get signals again, now that it is said what they do."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})

else:

    class Held:  # type: ignore[no-redef]
        """Nothing: this system cannot hold signals back."""

        def __enter__(self) -> None:
            pass

        def __exit__(self, *rest: object) -> None:
            pass

    def let_signals_in() -> None:
        """Do nothing: none is held back."""
