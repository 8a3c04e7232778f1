"""How descriptors arrive in a child: as its own, and never as one of the standard streams."""

from __future__ import annotations

import os
from multiprocessing import connection

try:
    import fcntl
except ImportError:  # Windows: no carrier there, so no descriptors that travel
    pass

from persistq._processes import occupy_standard_streams


def own_end(end: connection.Connection) -> connection.Connection:
    """Return a connection that a child was given, so that it can be kept.

    Args:
        end (Connection): As `multiprocessing` has rebuilt it.

    Returns:
        Connection: It, or where it has the number of a standard stream (the child was started with
        that closed, and whatever a C library prints there would land in it) another one for the
        same. What this process starts does not inherit it.
    """
    fd = end.fileno()
    if fd <= 2:
        moved = connection.Connection(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        end.close()
        occupy_standard_streams()
        return moved
    os.set_inheritable(fd, False)
    return end
