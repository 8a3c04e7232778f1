"""What DONE and FAILED are: the two control messages that a queue's consumers meet."""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class Sentinel(IntEnum):
    """A control message: it travels on a queue like a message, and is none.

    The values are those that existing scripts compare with (`msg == DONE`). A member stays
    the same object through pickling, so persistq itself asks `msg is DONE`, and a plain `0` or
    `-1` that a user puts is work like any other.
    """

    DONE = 0
    FAILED = -1


# Final, so that a type checker knows that what is not one of these is a message.
DONE: Final = Sentinel.DONE
FAILED: Final = Sentinel.FAILED
