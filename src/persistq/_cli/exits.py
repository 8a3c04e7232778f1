"""What the command exits with: each status, what it means, which error and signal gives which."""

from __future__ import annotations

import errno
import os

FINE, OUTSTANDING, ERROR, QUEUE_DONE, QUEUE_FAILED, NOTHING, TAKEN, NO_ROOM, REFUSED = range(9)

MEANINGS = {
    FINE: "fine; 'status': nothing is outstanding or set aside; 'status --alert': nobody need look",
    OUTSTANDING: "'status': something is outstanding or set aside, or a producer failed or died; "
    "'status --alert': a person must look; 'work': something was set aside",
    ERROR: "wrong use, or what is named is not there or not what it should be; nobody said yes",
    QUEUE_DONE: "'get': all producers are done, and no file waits",
    QUEUE_FAILED: "'get', 'watch', 'work': a producer failed",
    NOTHING: "'get', 'work': no file came within the time",
    TAKEN: "a file of that name is there already, and was not overwritten",
    NO_ROOM: "no room: the disk is full, or the quota is used up",
    REFUSED: "the system refuses: no permission, read-only, an error of the disk",
}
"""For help and the reference page, which says the same."""

# A limit that the user has set for files (ulimit -f) is one of room, too.
_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
# What is named cannot be meant: it is not there, or is of another kind.
_WRONG_NAME = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_WRONG_NAME |= {errno.ESRCH, errno.EBADF, errno.EINVAL}


def status_of(error: Exception) -> int:
    """Give what a command exits with that an error has ended, or kept from something.

    Args:
        error (Exception): The error.
    """
    if isinstance(error, FileExistsError):
        return TAKEN
    if not isinstance(error, OSError) or error.errno is None or error.errno in _WRONG_NAME:
        return ERROR  # such as a ValueError
    return NO_ROOM if error.errno in _NO_ROOM else REFUSED


def end_by_signal(name: str) -> int:
    """End as a signal would have ended us, which is what tells a shell to stop its loop.

    Args:
        name (str): The signal's name.

    Returns:
        int: What a shell would say of that, where nothing can end by a signal.
    """
    import signal

    number = getattr(signal, name, None)
    if number is None:
        return ERROR
    if os.name != "nt":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 128 + int(number)
