"""Who may do what only one thread may do at a time; nearly free for a thread that is alone.

Taking and releasing a lock around a short write costs half as much as the write. Most processes
put from one thread and get in one, so the first thread that comes has no lock to take: it says
while it is busy, and looks whether it is still alone. Whoever comes second says that it is not
any more, waits until it is seen not to be busy, and from then on all take the lock.

Both say before they look, and the interpreter's own lock puts the four steps in one order, so they
cannot miss each other. An interpreter without that lock promises no such order: there all take
the lock from the beginning.

A signal handler may interrupt the first thread while it is busy, and come itself. So whoever waits
for that thread lets others have the lock meanwhile: the handler, in that case.

Whoever takes the lock takes it with the lock's own `with`, which no exception of a signal handler
can come between, and no method of Python's around it: an exception at the start of an `__exit__`
would leave it taken for ever.
"""

from __future__ import annotations

import sys
import threading
import time
from threading import get_ident

_NOBODY = -1
_HAS_ORDER = getattr(sys, "_is_gil_enabled", lambda: True)()
_PAUSE_S = 0.0001


class Turn:
    """Whose turn it is: `with turn.lock:`, then `turn.come()`; or as `JournalFile.append` does.

    Reentrant. A forked child must make a new one.

    Args:
        is_long (bool): Whether what is done takes so long that a lock does not count.

    Attributes:
        lock (threading.RLock): Held by whoever has the turn, but for the first thread.
        first (int): The thread that needs no lock, by its identity; 0 until one has come, and -1
            for ever once another has.
        is_alone (bool): Whether no other has come since.
        is_busy (bool): Whether the first thread has its turn and no lock. It alone sets this.
    """

    __slots__ = ("first", "is_alone", "is_busy", "lock")

    def __init__(self, is_long: bool = False) -> None:
        self.lock = threading.RLock()
        self.is_alone = _HAS_ORDER and not is_long
        self.first = 0 if self.is_alone else _NOBODY
        self.is_busy = False

    def come(self) -> None:
        """Wait until no thread goes without the lock, which the caller holds."""
        if not self.first:
            self.first = get_ident()
        if self.first == get_ident():
            return
        self.is_alone = False
        while True:
            while self.is_busy:
                try:
                    self.lock.release()
                    time.sleep(_PAUSE_S)
                finally:
                    self.lock.acquire()
            # Twice: a signal handler may have made the first thread busy behind the look.
            if self.first == _NOBODY:
                return
            self.first = _NOBODY
