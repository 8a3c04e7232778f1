"""Whether anything will still come, for a process that waits for messages."""

from __future__ import annotations

import logging
import time

from persistq._journal import recovery
from persistq._journal.run_state import RunState
from persistq._queue import orphans
from persistq._sentinels import FAILED, Sentinel
from persistq.exceptions import UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from persistq._journal.members import Membership
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")

# How often to look whether the producers live.
_PRODUCERS_S = 1.0


class Lookout:
    """Knows of parents and producers that have died, and of a run that was carried on.

    Args:
        membership (Membership | None): The copy's part in the run; None without journals.
        transport (Transport): What carries the messages.
        prefix (str): The queue's prefix.
        is_anybody_taking (() -> bool): Whether a thread of this process waits for a message.

    Attributes:
        is_orphaned (bool): Whether a process that this one comes from is known to have died.
    """

    def __init__(
        self,
        membership: Membership | None,
        transport: Transport,
        prefix: str,
        is_anybody_taking: Callable[[], bool],
    ) -> None:
        self._membership = membership
        self._transport = transport
        self._prefix = prefix
        self._is_anybody_taking = is_anybody_taking
        self.is_orphaned = False
        self._watch: orphans.Watch | None = None
        self._next_producers_s = 0.0
        self._suspects_producers = False

    def begin(self) -> None:
        """Let a thread look once a second, if this is a worker, and there is none."""
        if (
            orphans.is_worker()
            and self._transport.crosses_processes
            and (self._watch is None or not self._watch.is_alive())
        ):
            try:
                self._watch = orphans.Watch(self._has_reason_to_wake, self._transport.waker())
            except RuntimeError as error:
                self._watch = None
                self._transport.look_around_yourself()
                logger.warning("no thread can be started that watches the run: %s", error)

    def _has_reason_to_wake(self) -> bool:
        if not self.is_orphaned:
            self.is_orphaned = self._is_orphan()
        if not self._is_anybody_taking():
            return False  # nobody sleeps here: what is to be seen is seen at the next get()
        if self.is_orphaned:
            return True
        membership = self._membership
        if membership is not None and membership.sealed_by(look=True) is not None:
            return True
        if self._transport.has_ended():
            return True
        if self._has_failed_producers():
            self._suspects_producers = True  # who is woken looks at once, though we have just done
        return self._suspects_producers

    def _is_orphan(self) -> bool:
        answer = None if self._membership is None else self._membership.is_orphan()
        return orphans.has_lost_parent() if answer is None else answer

    def look_around(self) -> Sentinel | None:
        """Nothing came: see whether something will.

        Returns:
            Sentinel | None: FAILED where a producer is known to have died without closing.

        Raises:
            UpstreamFailureError: The parent has died, or the run was carried on by another one.
        """
        if self._transport.crosses_processes and orphans.is_worker():
            if not self.is_orphaned and self._watch is None:
                self.is_orphaned = self._is_orphan()
            if self.is_orphaned:
                raise self.orphaned()
        if self._membership is not None:
            self._membership.check()
        if self._has_failed_producers():
            self._transport.tell_failed()
            return FAILED
        return None

    def _has_failed_producers(self) -> bool:
        """Tell whether so many producers have died that the end will never come."""
        membership, now_s = self._membership, time.monotonic()
        is_due = now_s >= self._next_producers_s or self._suspects_producers
        if membership is None or not is_due or not self._is_quiet():
            return False
        self._suspects_producers = False
        try:
            state = RunState(membership.directory, self._prefix)
            dead = recovery.dead_producers(state)
            if not dead:
                return False
            closed = self._transport.number_closed()
            alive = len(recovery.living_producers(state))
            wanted = self._transport.number_of_producers
            if closed + alive >= wanted or closed + len(dead) < wanted:
                return False
        except OSError:
            return False
        finally:
            took_s = time.monotonic() - now_s
            self._next_producers_s = now_s + max(_PRODUCERS_S, took_s * 50)
        if not self._is_quiet():
            return False
        who = ", ".join(f"process {member.name.pid}" for member in dead)
        logger.error("queue %r: a producer has died without closing: %s", self._prefix, who)
        return True

    def _is_quiet(self) -> bool:
        try:
            return self._transport.empty()
        except NotImplementedError:
            return True

    def orphaned(self) -> UpstreamFailureError:
        """Return the error of a worker whose parent has died, which may end then."""
        orphans.let_other_queues_go()
        return UpstreamFailureError(
            f"queue {self._prefix!r}: the process that started this worker has died, so nobody "
            "waits for its work. Start the job again: what was not completed is outstanding."
        )
