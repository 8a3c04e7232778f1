"""A queue that can be looked at only, where the system has nothing to carry messages with."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NoCarrier:
    """Stands for a carrier that could not be made; whoever uses it is told why.

    Args:
        error (OSError): Why.
    """

    def __init__(self, error: OSError) -> None:
        self._error = error

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Raise the error."""
        raise self._error

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Raise the error."""
        raise self._error
