"""What wakes a worker that sleeps in `get` although nothing more will come."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import weakref
from multiprocessing import process, queues, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("persistq")

_LOOK_S = 1.0
# Threads of ours do nobody's work.
OUR_THREADS = ("persistq-", "QueueFeederThread")


def is_worker() -> bool:
    """Tell whether `multiprocessing` has started this process.

    Returns:
        bool: True if so.
    """
    return process.parent_process() is not None


def is_importing_main() -> bool:
    """Tell whether this is a spawned child that just imports its parent's main script."""
    return bool(getattr(process.current_process(), "_inheriting", False))


def has_lost_parent() -> bool:
    """Tell whether this is a worker, and the process that started it has died.

    For where no lease tells: without a journal, or on a file system without locks.

    Returns:
        bool: True if so.
    """
    parent = process.parent_process()
    if parent is None or os.getppid() == parent.pid:
        return False
    if not parent.is_alive():
        return True
    if os.name == "nt":
        return False  # there, kill() with 0 is no question
    # A worker of the fork server never was its child. Of a forked one, siblings hold the pipe open
    # by which multiprocessing would notice that the parent has died.
    try:
        os.kill(parent.pid or 0, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def living_children() -> list[int]:
    """Return the ids of the processes that this one has started and that live."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def is_alone() -> bool:
    """Tell whether no other thread of this process could do any work."""
    here = threading.current_thread()
    return all(
        thread is here or thread.name.startswith(OUR_THREADS) for thread in threading.enumerate()
    )


def let_other_queues_go() -> None:
    """Let this process end though its results on other queues are read by nobody any more.

    At the interpreter's exit, a multiprocessing queue waits until all that was put on it is in its
    pipe: for ever, where the parent that was to read it has died.
    """
    for finalizer in list(util._finalizer_registry.values()):  # type: ignore[attr-defined]
        if getattr(finalizer, "_callback", None) is queues.Queue._finalize_join:  # type: ignore[attr-defined]
            finalizer.cancel()


def on_exit_status(tell: Callable[[int], object]) -> None:
    """Have a child's exit status told while it ends, where its error is not to be seen by then.

    From Python 3.13 on, what a child does at its exit is done when the exception that has ended it
    is forgotten. The exit status is still in the frame of `multiprocessing` that ends its threads.

    Args:
        tell ((status: int) -> object): A method; it is not kept alive.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is None or sys.version_info < (3, 13):
        return  # (A spawned child that just unpickles a queue does not look like one yet.)
    method = weakref.WeakMethod(tell)
    ends = process.BaseProcess._bootstrap.__code__

    def look() -> None:
        call, frame = method(), sys._getframe()
        while call is not None and frame is not None:
            if frame.f_code is ends and isinstance(frame.f_locals.get("exitcode"), int):
                call(frame.f_locals["exitcode"])
                return
            frame = frame.f_back

    try:
        register(look)
    except RuntimeError:
        pass  # it is ending already


class Watch:
    """A thread that looks once a second whether there is a reason to wake this process.

    Args:
        look (() -> bool): Whether there is one.
        wake ((() -> None) | None): Makes a sleeping `get` look around. Whoever it wakes does, and
            another process may be the first, so this goes on until the reason is gone. None where
            it looks by itself.

    Raises:
        RuntimeError: No thread can be started.
    """

    def __init__(self, look: Callable[[], bool], wake: Callable[[], None] | None) -> None:
        self._look = weakref.WeakMethod(look)
        self._wake = weakref.WeakMethod(wake) if wake is not None else None
        self._thread = threading.Thread(target=self._run, name="persistq-watch", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Tell whether the thread runs: not so in a forked child."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_LOOK_S)
            look, wake = self._look(), self._wake() if self._wake is not None else None
            if look is None or (wake is None and self._wake is not None):
                return
            try:
                if look() and wake is not None:
                    wake()
            except (OSError, ValueError):
                return  # the queue is closed
            del look, wake
