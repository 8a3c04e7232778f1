"""Which queue carries messages where none is given: a `Carrier`, if this platform allows one.

`carrier` cannot be imported where it does not, and builds on private names of multiprocessing.
"""

from __future__ import annotations

import logging
import select
from multiprocessing import connection, context, get_context, queues, util

from persistq._carrier import counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

_log = logging.getLogger("persistq")


def _what_is_missing() -> str | None:
    """Return what this platform or interpreter lacks for a `Carrier`, None where all is there."""
    names = [
        (connection, "Pipe"),
        (context, "assert_spawning"),
        (util, "Finalize"),
        (util, "register_after_fork"),
        (queues.JoinableQueue, "task_done"),
        (select, "poll"),
        (select, "PIPE_BUF"),
    ]
    for owner, name in names:
        if not hasattr(owner, name):
            return f"{getattr(owner, '__name__', owner)}.{name}"
    try:
        from fcntl import flock, ioctl  # noqa: F401
        from termios import FIONREAD  # noqa: F401

        if counter.Counter is counter.EventCounter:
            return None  # no semaphore is needed, so neither is /dev/shm
        from _multiprocessing import SemLock  # type: ignore[import-not-found]
    except ImportError as error:
        return str(error)
    if not hasattr(SemLock, "_is_zero"):
        return "_multiprocessing.SemLock._is_zero"
    return None


_MISSING = _what_is_missing()


def new_carrier(maxsize: int = 0, ctx: BaseContext | None = None) -> queues.JoinableQueue[Any]:
    """Make a `Carrier`, or the plain `JoinableQueue` where this platform allows no carrier.

    Args:
        maxsize (int): How many messages may wait; 0 or less for any number.
        ctx (multiprocessing.context.BaseContext | None): Whose processes will share it; None for
            the default context.

    Returns:
        multiprocessing.queues.JoinableQueue: The queue.
    """
    if _MISSING is None:
        from persistq._carrier.carrier import Carrier

        return Carrier(maxsize, ctx=ctx)
    _log.warning(
        "%s is missing here, so messages travel on a plain multiprocessing.JoinableQueue: a "
        "killed process can stop the others. The journals are not affected.",
        _MISSING,
    )
    return (ctx or get_context()).JoinableQueue(maxsize)
