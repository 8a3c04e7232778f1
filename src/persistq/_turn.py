"""Who may do what only one thread may do at a time; nearly free for a thread that is alone.

Taking and releasing a lock around a short write costs half as much as the write. Most processes
put from one thread and get in one, so the first thread that comes has no lock to take: it says
while it is busy, and looks whether it is still alone. Whoever comes second says that it is not
any more, waits until it is seen not to be busy, and from then on all take the lock.

Both say before they look, and the interpreter's own lock puts the four steps in one order, so they
cannot miss each other. An interpreter without that lock promises no such order: there all take
the lock from the beginning.

A signal handler may interrupt the first thread while it is busy, and come itself. It must not wait
for the lock, whose holder may wait for the thread that it has interrupted; and it need not, since
the turn is that thread's.
"""

from __future__ import annotations

import sys
import threading
import time
from threading import get_ident

_HAS_ORDER = getattr(sys, "_is_gil_enabled", lambda: True)()
_PAUSE_S = 0.0001


class Turn:
    """One thread's turn: `with turn:`, or, where every call counts, as in `JournalFile.append`.

    Reentrant. A forked child must make a new one.

    Args:
        is_long (bool): Whether what is done takes so long that a lock does not count.

    Attributes:
        first (int): The first thread, by its identity; 0 until one has come.
        is_alone (bool): Whether no other has come since.
        is_busy (bool): Whether the first thread has its turn and no lock. It alone sets this.
    """

    __slots__ = ("first", "is_alone", "is_busy", "lock")

    def __init__(self, is_long: bool = False) -> None:
        self.lock = threading.RLock()
        self.first = 0
        self.is_alone = _HAS_ORDER and not is_long
        self.is_busy = False

    def __enter__(self) -> None:
        if self._is_interrupted():
            return
        self.lock.acquire()
        try:
            if not self.first:
                self.first = get_ident()
            elif self.first != get_ident():
                self.is_alone = False
                while self.is_busy:
                    time.sleep(_PAUSE_S)
        except BaseException:
            self.lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        if not self._is_interrupted():
            self.lock.release()

    def _is_interrupted(self) -> bool:
        """Tell whether this is a signal handler, in the first thread, which is busy without it."""
        return self.is_busy and self.first == get_ident()
