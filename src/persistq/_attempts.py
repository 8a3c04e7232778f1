"""One attempt at a message's work: done at its end, set aside where it raises.

For messages and for files alike.
"""

from __future__ import annotations

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Protocol

    class CanFail(Protocol):
        """What `Attempt` takes."""

        def task_done(self, obj: Any) -> None:
            """Record that a message's work is done."""

        def task_failed(self, obj: Any, reason: str | BaseException = "") -> None:
            """Set a message aside."""


logger = logging.getLogger("persistq")


class Attempt:
    """A block in which the work of one message is tried.

    Args:
        queue (CanFail): Where the message comes from.
        message (Any): The message.

    Attributes:
        failed (bool): Whether the block has raised an `Exception`.
    """

    def __init__(self, queue: CanFail, message: Any) -> None:
        self._queue = queue
        self._message = message
        self.failed: bool = False

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            self._queue.task_done(self._message)
            return False
        if not isinstance(error, Exception):
            return False  # Ctrl-C and the like: the message stays outstanding
        self.failed = True
        logger.error("%r is set aside: it has failed", self._message, exc_info=error)
        self._queue.task_failed(self._message, error)
        return True
