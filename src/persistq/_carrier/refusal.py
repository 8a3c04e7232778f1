"""Which errors say for certain that nothing was sent.

A signal handler may raise anything at any moment, also a TimeoutError, which is an OSError: where
one comes out of a put, nobody can say whether the record was written before. So what may be taken
for a refusal carries a mark, which only the carrier sets, and only where it knows.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Error = TypeVar("_Error", bound=BaseException)

_MARK = "is_refusal_of_the_carrier"


def refused(error: _Error) -> _Error:
    """Mark an error as one before which nothing was sent, and return it."""
    setattr(error, _MARK, True)
    return error


def is_refusal(error: BaseException) -> bool:
    """Return whether a message whose put raised this was certainly not sent.

    Args:
        error (BaseException): What `put_bytes` raised, or `send_many` returned.

    Returns:
        bool: False for what a signal handler has raised: then it may have been sent.
    """
    return getattr(error, _MARK, False)


def is_of_call(error: BaseException) -> bool:
    """Return whether an error comes from the C function that the caller's own `try` calls.

    Only for use in the `except` block itself: what a signal handler raised there has the handler's
    frame behind it.
    """
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None
