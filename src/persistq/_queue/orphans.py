"""Notice that the parent of this worker process has died."""

from __future__ import annotations

import os
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LOOK_S = 1.0


def _parent() -> Any:
    import multiprocessing

    return multiprocessing.parent_process()


def is_worker() -> bool:
    """Tell whether `multiprocessing` has started this process.

    Returns:
        bool: True if so.
    """
    return _parent() is not None


def is_orphan() -> bool:
    """Tell whether this is a worker, and the process that started it has died.

    Returns:
        bool: True if so.
    """
    parent = _parent()
    if parent is None or os.getppid() == parent.pid:
        return False
    if not parent.is_alive():
        return True
    if os.name == "nt":
        return False  # there, kill() with 0 is no question
    # A worker of the fork server never was its child. Of a forked one, siblings hold the pipe open
    # by which multiprocessing would notice that the parent has died.
    try:
        os.kill(parent.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


class OrphanWatch:
    """A thread that wakes a worker which sleeps in `get` when its parent has died.

    Args:
        wake (() -> None): Makes a sleeping `get` look around.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = weakref.WeakMethod(wake)
        self._thread = threading.Thread(target=self._run, name="persistq-orphan", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Tell whether the thread runs: not so in a forked child."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_LOOK_S)
            wake = self._wake()
            if wake is None:
                return
            if is_orphan():
                # Whoever it wakes looks around, and another of its siblings may be the first, so
                # this goes on until this process has ended.
                try:
                    wake()
                except (OSError, ValueError):
                    return  # the queue is closed
            del wake
