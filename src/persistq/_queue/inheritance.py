"""What the dead leave to a worker that has met the end: what they had in hand, what was lost."""

from __future__ import annotations

import logging

from persistq import _fs
from persistq._journal import recovery
from persistq._journal.run_state import RunState
from persistq._queue.in_transit import living_in_transit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._journal.journal_file import JournalFile
    from persistq._journal.members import Membership
    from persistq._queue.failing import Failing
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")


class Inheritance:
    """Takes over what workers of the run had in hand when they died, each message once.

    Args:
        transport (Transport): What carries the messages.
        membership (Membership): The part of the copy that takes over in the run.
        prefix (str): The queue's prefix.
        started (JournalFile): Where it records what it has begun.
        failing (Failing): What settles deaths.
    """

    def __init__(
        self,
        transport: Transport,
        membership: Membership,
        prefix: str,
        started: JournalFile,
        failing: Failing,
    ) -> None:
        self._transport = transport
        self._membership = membership
        self._prefix = prefix
        self._started = started
        self._failing = failing

    def take(self) -> list[bytes]:
        """Return the lines of what this copy has to do now; once all producers have ended."""
        membership = self._membership
        try:
            with _fs.folder_lock(membership.directory):
                state = RunState(membership.directory, self._prefix)
                if state.run != membership.run:
                    return []
                lines = self._failing.settle(state, self._begin_all)
                lines += self._find_lost()
            return lines
        except OSError as error:
            logger.warning("cannot look for workers that died: %s", error)
            return []

    def _begin_all(self, lines: list[bytes]) -> None:
        if not lines:
            return
        logger.warning(
            "queue %r: %d messages taken over from workers that died", self._prefix, len(lines)
        )
        try:
            self._started.append(b"".join([line + b"\n" for line in lines]))
        except OSError as error:
            logger.warning("cannot record what was taken over: %s", error)

    def _find_lost(self) -> list[bytes]:
        """Look for what was lost with the dead, if nothing can be in a living hand unseen."""
        membership, transport = self._membership, self._transport
        state = RunState(membership.directory, self._prefix)
        if not recovery.has_unchecked_deaths(state) or not transport.is_first_in_first_out:
            return []
        # The end is reached, so all was taken. Whoever is about to record what it took would make
        # that look lost; then it is for the next who ends to ask.
        transit = living_in_transit(transport, state, but=membership)
        if transit is None or any(t.taking or t.sending or t.backlog for t in transit.values()):
            return []
        lines = list(recovery.lost(RunState(membership.directory, self._prefix)).elements())
        self._begin_all(lines)
        recovery.check_off(state)
        return lines
