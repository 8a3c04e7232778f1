"""What the C library has and the standard library does not hand on.

This loads ctypes, which takes longer than most of what one would call: so it is not loaded for
what can be told without.
"""

from __future__ import annotations

import os
import sys

try:
    import ctypes
    from ctypes import get_errno as get_errno

    _library: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True)
    _Answer = ctypes.c_char * 512  # more than statfs(2) says on any machine
except (ImportError, OSError, TypeError):  # a Python that was built without it; Windows
    _library = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def function(name: str) -> Callable[..., int] | None:
    """Give a function of the C library; None where there is none of that name."""
    return getattr(_library, name, None)


def failure(path: str | None = None) -> OSError:
    """Give the exception for the function that this thread called last."""
    code = get_errno()
    return OSError(code, os.strerror(code), path)


def file_system_magic(path: str) -> int:
    """Give the number of the kind of file system that a path is on, statfs(2).

    Args:
        path (str): A path.

    Returns:
        int: 0 where it is not told: on systems other than Linux, and some processors.
    """
    statfs = function("statfs") if sys.platform == "linux" else None
    if statfs is None:
        return 0
    answer = _Answer()
    if statfs(os.fsencode(path), answer):
        return 0
    # The field has four bytes on some processors and eight on others: these four are the number
    # on all but the big-endian ones among the latter, where they are 0.
    return int.from_bytes(answer.raw[:4], sys.byteorder)
