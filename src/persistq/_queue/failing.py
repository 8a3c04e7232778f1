"""Setting messages aside, and what is decided of them later.

On disk, one step after the other: a message set aside has its record before the queue is told.
Killed between: the record completes it, and the carrier's count is mended as after any death.
Requeued, it is requested anew before the decision is recorded. Killed between: it is both on the
queue and set aside, and so done once and still to be decided.
"""

from __future__ import annotations

import logging
import multiprocessing.process as _process
from collections import Counter

from persistq._journal import failures, recovery
from persistq._journal.codec import line_key
from persistq._journal.journal_file import JournalFile
from persistq._journal.names import ATTEMPTS, FAILED, RESOLVED
from persistq._journal.run_state import RunState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.failures import FailedLine, FailedWork
    from persistq._journal.members import Membership
    from persistq._journal.run_state import Member
    from persistq._queue.transport import Transport

logger = logging.getLogger("persistq")


class Failing:
    """What one copy of a queue sets aside, and decides.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns journal lines into messages.
        membership (Membership): The copy's part in the run.
        fsync (bool): Whether a record is to survive a power cut.
        max_attempts (int | None): At how many deaths a message is set aside; None for no limit.

    Attributes:
        failed (JournalFile): The records of this process.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        membership: Membership,
        fsync: bool,
        max_attempts: int | None,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._membership = membership
        self.max_attempts = max_attempts
        self.failed = JournalFile(membership, FAILED, fsync)
        self._resolved = JournalFile(membership, RESOLVED, fsync)
        self._attempts = JournalFile(membership, ATTEMPTS, False)

    @property
    def prefix(self) -> str:
        """The queue's prefix."""
        return self._membership.names.prefix

    def _state(self) -> RunState:
        return RunState(self._membership.directory, self.prefix)

    def record(self, line: bytes, reason: str | BaseException) -> bytes:
        """Return the record that sets aside a message that is in hand.

        Args:
            line (bytes): The message's line.
            reason (str | BaseException): Why.

        Returns:
            bytes: One line, without its end.
        """
        attempts = 1
        try:
            key = line_key(line)
            attempts += failures.deaths(self._state().attempts, {key})[key]
        except OSError as error:
            logger.warning("cannot tell how often %r was begun: %s", line, error)
        return failures.failed_line(line, attempts, reason)

    # --- deaths ---------------------------------------------------------------------------

    def settle(self, state: RunState, keep: Callable[[list[bytes]], object]) -> list[bytes]:
        """See to the dead of the run; the caller holds the directory's lock.

        Args:
            state (RunState): The run.
            keep ((lines: list[bytes]) -> object): Takes what they had in hand, and records that.

        Returns:
            list[bytes]: What they had in hand. Usually nothing, since nobody died.

        Raises:
            OSError: A file cannot be read or written. The deaths are not settled then.
        """
        casualties = recovery.Casualties(state, self.max_attempts)
        if not casualties.dead:
            return []
        how = _how_it_ended(casualties.dead[-1])
        logger.warning(
            "queue %r: %d processes of this run have died: %s%s",
            self.prefix,
            len(casualties.dead),
            ", ".join(f"{m.name.pid} ({m.name.role})" for m in casualties.dead[:10]),
            f"; the last: {how}" if how else "",
        )
        if casualties.counted:
            self._attempts.append(b"".join([line + b"\n" for line in casualties.counted]))
        for line, deaths, member in casualties.too_often:
            reason = failures.died_reason(deaths, _how_it_ended(member))
            logger.error("queue %r: %r is set aside: %s", self.prefix, line, reason)
            self.failed.append(failures.failed_line(line, deaths, reason) + b"\n")
            self._acknowledge()
        keep(casualties.lines)
        casualties.settle()
        return casualties.lines

    def _acknowledge(self) -> None:
        try:
            self._transport.task_done()
        except ValueError:
            pass  # its process had told the queue already

    def count_attempt(self, line: bytes, how: str) -> bool:
        """Count an attempt at a message in hand that was lost with who made it.

        Args:
            line (bytes): The message's line.
            how (str): What has ended it.

        Returns:
            bool: Whether it is to be tried again; else its record stands, and the queue is still
            to be told.
        """
        key = line_key(line)
        deaths = failures.deaths(self._state().attempts, {key})[key] + 1
        # Killed behind this: it was in hand of this process, which counts as another attempt.
        self._attempts.append(failures.attempts_line(1, line) + b"\n")
        if self.max_attempts is None or deaths < self.max_attempts:
            return True
        reason = failures.died_reason(deaths, how)
        logger.error("queue %r: %r is set aside: %s", self.prefix, line, reason)
        self.failed.append(failures.failed_line(line, deaths, reason) + b"\n")
        return False

    # --- decisions ------------------------------------------------------------------------

    def undecided(self) -> list[FailedLine]:
        """Return the records of which nobody has decided yet."""
        state = self._state()
        return failures.undecided(state.failed, state.resolved)

    def list_work(self) -> list[FailedWork[Any]]:
        """Return what is set aside, as a user is to see it."""
        return [record.work(self._codec) for record in self.undecided()]

    def choose(self, messages: Iterable[Any] | None) -> list[FailedLine]:
        """Return the records of some messages, or of all."""
        records = self.undecided()
        if messages is None:
            return records
        wanted: Counter[bytes] = Counter()
        # By when, since a message that cannot be read has no line of its own.
        works: dict[Any, list[FailedWork]] = {}
        for message in messages:
            if isinstance(message, failures.FailedWork):
                works.setdefault(message.failed_at, []).append(message)
            else:
                wanted[line_key(self._codec.encode(message))] += 1
        chosen = []
        for record in records:
            if wanted[record.key] > 0:
                wanted[record.key] -= 1
                chosen.append(record)
            elif works:
                work = record.work(self._codec)
                if work in works.get(work.failed_at, ()):
                    works[work.failed_at].remove(work)
                    chosen.append(record)
        return chosen

    def decide(self, records: list[FailedLine], begin_anew: bool) -> None:
        """Record that somebody has decided of messages set aside.

        Args:
            records (list[FailedLine]): Which.
            begin_anew (bool): Whether they are done again, their attempts from 0 on.
        """
        if not records:
            return
        if begin_anew:
            deaths = failures.deaths(self._state().attempts, {record.key for record in records})
            lines = [
                failures.attempts_line(-deaths.pop(record.key), record.line) + b"\n"
                for record in records
                if record.key in deaths
            ]
            if lines:
                self._attempts.append(b"".join(lines))
        self._resolved.append(b"".join([record.line + b"\n" for record in records]))

    def set_aside_line(self, line: bytes, reason: str | BaseException) -> None:
        """Set aside a line of the journal that nobody has in hand, and that is not on the queue."""
        self.failed.append(failures.failed_line(line, 0, reason) + b"\n")

    def close(self) -> None:
        """Close the files; they are opened again when they are needed."""
        for file in (self.failed, self._resolved, self._attempts):
            file.close()


def _how_it_ended(member: Member) -> str:
    return recovery.how_it_ended(member, _exit_status(member.name.pid))


def _exit_status(pid: int) -> int | None:
    """Return how a child of this process has ended; None where it is none, or not told."""
    for child in list(_process._children):  # type: ignore[attr-defined]
        if child.pid == pid:
            return child.exitcode  # type: ignore[no-any-return]
    return None
