"""What a PersistentQueue asks of whatever carries its messages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from persistq._sentinels import Sentinel

    class UsersQueue(Protocol):
        """A carrier that a user gives: a queue of `multiprocessing`, of threads, or any other.

        Of `task_done`, `join`, `qsize`, `empty`, `full` and `close` is used what it has. One with
        `put_report` and `get_report` too carries journal lines to workers that keep no journal, and
        back what came of them: see `UsersReportingQueue`.
        """

        def put(self, obj: Any, block: bool, timeout: float | None, /) -> Any:
            """Put a message; `queue.Full` where there is no room within so many seconds."""

        def get(self, block: bool, timeout: float | None, /) -> Any:
            """Take a message; `queue.Empty` where there is none within so many seconds."""

    class UsersReportingQueue(UsersQueue, Protocol):
        """A carrier whose workers need no folder of ours: what they say travels back on it.

        What is put, besides DONE and FAILED, is `bytes`: the journal line of a message.
        """

        def put_report(self, report: tuple[str, bytes, str], /) -> Any:
            """Carry back what came of a message that was taken: a kind, its line, and why.

            Of one that is not in hand of who says so any more, nothing is carried back: somebody
            else does it, and two reports of one message would complete another that equals it.
            """

        def get_report(self, block: bool, timeout: float | None, /) -> tuple[str, bytes, str]:
            """Take the next; `queue.Empty` where there is none within so many seconds.

            Of a message that was in hand of a worker that is gone, the kind is `"lost"`.
            """

    class InTransit(Protocol):
        """What one process is just putting or taking, as others see it."""

        @property
        def taking(self) -> tuple[int, ...]:
            """A number for each thread that may have taken what is not recorded yet.

            It is gone at a later look when that has been recorded meanwhile.
            """

        @property
        def sending(self) -> bool:
            """Whether it may have recorded what is not on its way yet."""

        @property
        def backlog(self) -> bool:
            """Whether messages wait in it for room."""

        @property
        def stuck(self) -> bool:
            """Whether it waits for ever, with messages in hand and nobody to do them meanwhile."""

    class Transport(Protocol):
        """Carries messages from those who put to those who get; times in seconds."""

        number_of_workers: int
        number_of_producers: int
        # Whether a sentinel that is taken stands behind all that its producer has put before.
        is_first_in_first_out: bool
        # Whether messages come from other processes, so that none come when these are dead.
        crosses_processes: bool
        # How many messages it holds at most; 0 for any number.
        is_bounded: int
        # Whether check_put() has more to say than that this producer has closed.
        is_watchful: bool
        # Whether put_source() is there.
        takes_sources: bool
        # What `pack` puts before a journal line, where it returns nothing else; else None.
        line_mark: bytes | None
        # Whether what came of a message travels back, to be recorded by a copy that puts. Then
        # a worker needs no journal, and none that it has is written.
        reports_back: bool
        # Lines longer than this had better travel as their place, where can_refer() says so.
        longest_inline: float

        @property
        def carrier(self) -> Any:
            """The user's queue, or the default one, or None."""

        def waker(self) -> Callable[[], None] | None:
            """Return what makes a waiting `get` return None; None where it does so by itself."""

        def look_around_yourself(self) -> None:
            """Let a waiting `get` return None from time to time, since nobody wakes it."""

        def leave_unread_at_exit(self, is_read: Callable[[], bool]) -> None:
            """Let this process end though nobody takes what is left."""

        # --- putting

        def check_put(self) -> None:
            """Raise ValueError where no message can be taken any more."""

        def can_refer(self, message: Any, line: bytes, longest_place: int) -> bool:
            """Tell whether the place of its journal line may travel for a message."""

        def pack_place(self, place: bytes) -> Any:
            """Return what is put for a message whose line is at a place of a journal."""

        def pack(self, message: Any, line: bytes | None) -> Any:
            """Return what is put: the message as it is now. TypeError where that cannot be.

            `line` is its journal line, where there is one: then a worker gets what a restart would
            give it.
            """

        def put(self, payload: Any, block: bool = True, timeout: float | None = None) -> None:
            """Put what `pack` returned; queue.Full where there is no room."""

        def put_many(
            self, payloads: Sequence[Any], block: bool = True, timeout: float | None = None
        ) -> tuple[int, BaseException | None]:
            """Put several; return how many were taken, and the error that ended it."""

        def put_source(
            self, count: int, source: Iterator[list[Any]]
        ) -> tuple[int, BaseException | None]:
            """Put so many, which are read only as they are needed."""

        def is_refusal(self, error: BaseException) -> bool:
            """Tell whether what has raised an error was certainly not put."""

        def put_sentinel(
            self, sentinel: Sentinel, block: bool = True, timeout: float | None = None
        ) -> None:
            """Put a sentinel, which is no task; queue.Full where there is no room."""

        def number_of_ends(self, sentinel: Sentinel) -> int:
            """Return how often `end` is to be called by a producer that ends."""

        def end(self, sentinel: Sentinel, block: bool = True) -> None:
            """Say, behind its messages, that this producer has closed or failed."""

        # --- taking

        def get(
            self, block: bool = True, timeout: float | None = None
        ) -> tuple[Any, bytes | None] | None:
            """Take the next message or sentinel, and its journal line where it is known.

            None: nothing came yet, but it is time to look around. queue.Empty where nothing is.
            """

        def task_done(self) -> None:
            """Acknowledge one message; ValueError where there were not as many."""

        def report(self, kind: str, line: bytes, why: str) -> None:
            """Let who records be told what came of a message; where `reports_back`."""

        def take_report(self, timeout: float) -> tuple[str, bytes, str] | None:
            """Return the next such: kind, line, and why; None where none came in time."""

        def join(self, timeout: float | None = None) -> bool:
            """Wait until all messages are acknowledged; return whether they are."""

        def qsize(self) -> int:
            """Return the number of messages that wait."""

        def empty(self) -> bool:
            """Tell whether none waits."""

        def full(self) -> bool:
            """Tell whether there is no room."""

        # --- what processes know of one another

        def has_ended(self) -> bool:
            """Tell whether all producers have closed, or one has failed."""

        def number_closed(self) -> int:
            """Return how many producers have closed or failed."""

        def tell_failed(self) -> None:
            """Let everybody be told FAILED from now on."""

        def token(self) -> str:
            """Return what this process is called in `in_transit`."""

        def flags(self) -> Any:
            """Return the bytes by which this thread tells others what it is just doing.

            [0] is not 0 while it may have taken what is not recorded yet, and another number each
            time; [1] is 1 while it may have recorded what is not on its way yet; [2] is 1 where it
            waits for ever, with messages in hand and nobody to do them.
            """

        def numbers(self) -> Any:
            """Return two numbers of this thread: of tasks that it has added, and finished.

            None where only the carrier counts; else whoever has a message in hand may count it as
            finished in [1], in place of `task_done`.
            """

        def in_transit(self) -> Mapping[str, InTransit] | None:
            """Return what each process is just doing; None where that cannot be seen."""

        def call_the_waiting(self, transit: Mapping[str, InTransit]) -> None:
            """Make those who wait for messages come back once, so that they are seen to wait."""
