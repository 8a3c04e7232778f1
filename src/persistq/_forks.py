"""Who is told when this process forks."""

from __future__ import annotations

import os
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Forkable(Protocol):
        """What `watch_forks` takes."""

        def _after_fork(self) -> None:
            """In a forked child: let go of what belongs to the parent."""


# Not a WeakSet: one that is iterated while another thread adds to it, or drops an object, fails.
_forkables: dict[int, weakref.ref[Forkable]] = {}
# Reentrant, for a weak reference may die while this thread holds it.
_forkables_lock = threading.RLock()


def watch_forks(obj: Forkable) -> None:
    """Call the object's `_after_fork()` in every child that this process forks while it lives.

    Where the system has no fork there is nothing to watch. Safe from several threads.

    Args:
        obj (Forkable): Any object that can be referenced weakly.
    """
    key = id(obj)

    def forget(reference: weakref.ref[Forkable]) -> None:
        # Its id may be another object's by now.
        with _forkables_lock:
            if _forkables.get(key) is reference:
                del _forkables[key]

    with _forkables_lock:
        _forkables[key] = weakref.ref(obj, forget)


def _before_fork() -> None:
    # No thread is half way through a change when the child gets its copy.
    _forkables_lock.acquire()


def _after_fork_in_parent() -> None:
    _forkables_lock.release()


def _after_fork_in_child() -> None:
    global _forkables_lock
    _forkables_lock = threading.RLock()
    for reference in [*_forkables.values()]:
        obj = reference()
        if obj is not None:
            obj._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
