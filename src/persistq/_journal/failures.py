"""Work that is set aside: what its records say, and which of them nobody has decided yet.

A record is one line of `<prefix>_failed_PID<tag>.tsv`: when, after how many attempts, and why, and
then the message's own line (last, for it may hold tabs). It completes the message, so that the run
goes on without it. What somebody decides later is a line of `<prefix>_resolved_PID<tag>.tsv`: the
message's, which is done again (then it is requested anew, before that) or given up.

How often a message was in hand of a process that died stands in `<prefix>_attempts...tsv`, as lines
of a number and the message's line, which are added up: below zero where its attempts begin anew.
"""

from __future__ import annotations

import logging
from collections import Counter

from persistq import _reasons
from persistq._generic import Generic, Message
from persistq._journal.codec import line_key
from persistq._journal.reading import lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Collection, Iterable
    from typing import Any, ClassVar

    from persistq._journal.codec import Codec

logger = logging.getLogger("persistq")

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class FailedWork(Generic[Message]):
    """A message that was set aside.

    Attributes:
        message (Message): The message; its text as it stands in the journal, where that cannot be
            turned back into one.
        reason (str): Why, in one line.
        attempts (int): How often it was begun.
        failed_at (datetime.datetime): When, with a time zone (UTC).
    """

    __slots__ = ("attempts", "failed_at", "message", "reason")

    def __init__(
        self, message: Message, reason: str, attempts: int, failed_at: datetime.datetime
    ) -> None:
        self.message: Message = message
        self.reason: str = reason
        self.attempts: int = attempts
        self.failed_at: datetime.datetime = failed_at

    def _fields(self) -> tuple[Any, ...]:
        return self.message, self.reason, self.attempts, self.failed_at

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailedWork) and self._fields() == other._fields()

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"FailedWork(message={self.message!r}, reason={self.reason!r}, "
            f"attempts={self.attempts!r}, failed_at={self.failed_at!r})"
        )


class FailedLine:
    """One record, taken apart.

    Attributes:
        text (bytes): The whole record, without its line end.
        line (bytes): The message's line.
        key (bytes): What it shares with equal messages.
    """

    __slots__ = ("_fields", "key", "line", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        *self._fields, self.line = text.split(b"\t", 3)
        self.key = line_key(self.line)

    def work(self, codec: Codec) -> FailedWork[Any]:
        """Return it as a user is to see it."""
        import datetime

        when, attempts, reason = (field.decode("utf-8", "replace") for field in self._fields)
        try:
            message = codec.decode(self.line)
        except Exception:
            message = self.line.decode("utf-8", "surrogateescape")
        try:
            failed_at = datetime.datetime.strptime(when, _TIME)
        except ValueError:
            failed_at = datetime.datetime.fromtimestamp(0)
        return FailedWork(
            message,
            reason,
            int(attempts) if attempts.isdecimal() else 0,
            failed_at.replace(tzinfo=datetime.timezone.utc),
        )


def failed_line(line: bytes, attempts: int, reason: str | BaseException) -> bytes:
    """Return the record that sets a message aside.

    Args:
        line (bytes): The message's line.
        attempts (int): How often it was begun.
        reason (str | BaseException): Why.

    Returns:
        bytes: One line, without its end.

    Raises:
        TypeError: The reason is neither.
    """
    import datetime

    # Read by a person only: nothing is decided by this clock.
    when = datetime.datetime.now(datetime.timezone.utc).strftime(_TIME)
    why = _reasons.describe(reason).encode("utf-8", "surrogateescape")
    return b"\t".join((when.encode(), b"%d" % attempts, why, line))


def died_reason(deaths: int, how: str = "") -> str:
    """Return why a message is set aside that was in hand at too many deaths."""
    last = f" (last: {how})" if how else ""
    return f"began {deaths} times, and each time its process died{last}"


def undecided(failed: Iterable[str], resolved: Iterable[str]) -> list[FailedLine]:
    """Return the records of which nobody has decided yet.

    Args:
        failed (Iterable[str]): Paths of files with records.
        resolved (Iterable[str]): Paths of files that say what was decided.

    Returns:
        list[FailedLine]: In the order in which they were set aside.

    Raises:
        OSError: A file cannot be read.
    """
    # Read first: what is set aside meanwhile is there, what is decided meanwhile may be missed.
    decided = Counter(line_key(line) for path in resolved for line in lines_of(path))
    found = []
    for path in failed:
        for text in lines_of(path):
            if text.count(b"\t") < 3:
                logger.warning("%s: not a record of work set aside: %r", path, text[:200])
                continue
            found.append(FailedLine(text))
    found.sort(key=lambda record: record.text)  # each begins with its time
    left = []
    for record in found:
        # A decision is about the earliest: behind it, the message may have failed again.
        if decided[record.key] > 0:
            decided[record.key] -= 1
        else:
            left.append(record)
    return left


def deaths(paths: Iterable[str], keys: Collection[bytes] | None = None) -> Counter[bytes]:
    """Return how often messages were in hand of processes that died.

    Args:
        paths (Iterable[str]): Files of attempts.
        keys (Collection[bytes] | None): The messages asked for, None for all.

    Returns:
        Counter[bytes]: By the message's key; only what is above zero.

    Raises:
        OSError: A file cannot be read.
    """
    found: Counter[bytes] = Counter()
    for path in paths:
        for text in lines_of(path):
            number, _, line = text.partition(b"\t")
            key = line_key(line)
            if keys is None or key in keys:
                try:
                    found[key] += int(number)
                except ValueError:
                    logger.warning("%s: not a number of attempts: %r", path, text[:200])
    return +found


def attempts_line(number: int, line: bytes) -> bytes:
    """Return the line that adds to a message's attempts."""
    return b"%d\t%b" % (number, line)
