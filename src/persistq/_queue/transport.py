"""What a PersistentQueue asks of whatever carries its messages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from persistq._sentinels import Sentinel

    class Transport(Protocol):
        """Carries messages from those who put to those who get; times in seconds."""

        number_of_workers: int
        # Whether a sentinel that is taken stands behind all that its producer has put before.
        is_first_in_first_out: bool
        # Whether messages come from other processes, so that none come when these are dead.
        crosses_processes: bool

        @property
        def carrier(self) -> Any:
            """The user's queue, or the default one, or None."""

        def watch_for_orphans(self) -> None:
            """Make a waiting `get` return None when this worker's parent has died."""

        def leave_unread_at_exit(self, is_read: Callable[[], bool]) -> None:
            """Let this process end though nobody takes what is left."""

        def check_put(self) -> None:
            """Raise ValueError where no message can be taken any more."""

        def pack(self, message: Any, line: bytes | None) -> Any:
            """Return what is put: the message as it is now. TypeError where that cannot be.

            `line` is its journal line, where that is known.
            """

        def put(self, payload: Any, block: bool = True, timeout: float | None = None) -> None:
            """Put what `pack` returned; queue.Full where there is no room."""

        def put_sentinel(
            self, sentinel: Sentinel, block: bool = True, timeout: float | None = None
        ) -> None:
            """Put a sentinel, which is no task; queue.Full where there is no room."""

        def put_many(
            self, payloads: Sequence[Any], block: bool = True, timeout: float | None = None
        ) -> tuple[int, BaseException | None]:
            """Put several; return how many were taken, and the error that ended it."""

        def get(
            self, block: bool = True, timeout: float | None = None
        ) -> tuple[Any, bytes | None] | None:
            """Take the next message or sentinel, and its journal line where it is known.

            None: nothing came yet, but it is time to look around. queue.Empty where nothing is.
            """

        def task_done(self) -> None:
            """Acknowledge one message; ValueError where there were not as many."""

        def join(self, timeout: float | None = None) -> bool:
            """Wait until all messages are acknowledged; return whether they are."""

        def qsize(self) -> int:
            """Return the number of messages that wait."""

        def empty(self) -> bool:
            """Tell whether none waits."""

        def full(self) -> bool:
            """Tell whether there is no room."""
