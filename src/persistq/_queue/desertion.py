"""Whether anybody is left who could do the work that somebody waits for."""

from __future__ import annotations

import threading
import time

from persistq import _lease
from persistq._journal.names import COPY, MAIN, WORKER
from persistq._journal.run_state import RunState
from persistq._queue import orphans
from persistq.exceptions import PersistqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from persistq._journal.members import Membership
    from persistq._journal.run_state import Member
    from persistq._queue.consumer import Consumer

# A supervisor has this long to replace workers, before they are taken to be gone for good.
_REPLACEMENT_S = 10.0
# A child that has not begun to take may still be loading what it needs; after this long it is taken
# for something else than a worker.
_LOADING_S = 60.0


def is_desertion(error: BaseException | None) -> bool:
    """Tell whether an error says that nobody is left to wait for."""
    return getattr(error, "is_desertion", False)


class _Takers:
    """Tells whether somebody takes messages, or may begin to."""

    def __init__(self) -> None:
        # Processes that have not begun to take, and since when they have been seen.
        self._loading: dict[int, float] = {}
        # What was there before the queue, such as the server of a multiprocessing manager, is none
        # of its workers; where it is handed a copy all the same, that has a lease.
        self._older = set(orphans.living_children())

    def are_among(self, living: Iterable[Member]) -> bool:
        """Tell whether one of these is a worker, or may become one, or a child may."""
        now_s = time.monotonic()
        children = set(orphans.living_children())
        self._older &= children  # ids come round again
        loading = children - self._older
        for member in living:
            if member.name.role in (WORKER, MAIN):
                return True
            if member.name.role == COPY:
                loading.add(member.name.pid)
        self._loading = {pid: self._loading.get(pid, now_s) for pid in loading}
        return any(now_s - since_s < _LOADING_S for since_s in self._loading.values())


class OtherProcesses:
    """Tells at a process's end whether another one takes messages, or may begin to.

    Holds nothing of the queue, which may be garbage by then.

    Args:
        directory (str): The run's directory.
        prefix (str): The queue's prefix.
        run (str): The run's identity.
    """

    def __init__(self, directory: str, prefix: str, run: str) -> None:
        self._place = (directory, prefix)
        self._run = run
        self._takers = _Takers()

    def take(self) -> bool:
        """Tell whether somebody lives who takes messages, or may begin to.

        Raises:
            OSError: The run's directory cannot be looked at.
        """
        state = RunState(*self._place)
        if state.run != self._run:
            return False  # carried on: what is left here is done there
        living = [
            member
            for member in state.members_of_run()
            if not _lease.is_mine(member.path) and member.is_dead() is not True
        ]
        return self._takers.are_among(living)


class Desertion:
    """Tells since when nobody is there who takes messages, or may begin to.

    Args:
        membership (Membership | None): This copy's part in the run; None without journals.
        consumer (Consumer): This copy's side that takes.
    """

    def __init__(self, membership: Membership | None, consumer: Consumer) -> None:
        self._membership = membership
        self._consumer = consumer
        self._since_s: float | None = None
        self._takers = _Takers()

    def begin(self) -> None:
        """Begin to wait anew."""
        self._since_s = None

    def look(self, stuck: bool = False) -> bool:
        """Tell whether all has been deserted for so long that nobody is to be waited for.

        Args:
            stuck (bool): Whether whoever lives is known to wait for this process in turn.

        Raises:
            OSError: The run's directory cannot be looked at.
        """
        now_s = time.monotonic()
        if not stuck and self.is_anybody_there():
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s >= _REPLACEMENT_S

    def is_anybody_there(self) -> bool:
        """Tell whether somebody takes messages, or may begin to.

        Raises:
            OSError: The run's directory cannot be looked at.
        """
        here = threading.current_thread()
        if any(t is not here and t.is_alive() for t in self._consumer.threads):
            return True
        return self._takers.are_among(self.living())

    def living(self) -> list[Member]:
        """Return who else of the run lives, or may."""
        membership = self._membership
        if membership is None:
            return []
        state = RunState(membership.directory, membership.names.prefix)
        own = membership.lease.path if membership.lease is not None else ""
        return [m for m in state.members_of_run() if m.path != own and m.is_dead() is not True]

    def error(self, what: str) -> PersistqError:
        """Return the error that ends the waiting.

        Args:
            what (str): What is left, and why.
        """
        error = PersistqError(
            f"{what}, and nobody is left to do it: every worker has ended or died, and none has "
            f"come for {_REPLACEMENT_S:.0f} seconds. Start the job again: what was not completed "
            "is outstanding."
        )
        error.is_desertion = True  # type: ignore[attr-defined]
        return error
