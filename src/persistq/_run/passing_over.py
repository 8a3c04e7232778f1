"""Which of the messages given need not be put: they are done, set aside, or put already.

A job's script gives its whole list each time. As many equal messages are passed over as the job
has completed, set aside or requeued: a multiset. With `once`, whatever was ever completed is passed
over, and each message is put once. A message takes about 80 bytes of memory here.
"""

from __future__ import annotations

from persistq._journal import failures
from persistq._journal.codec import Codec, line_key
from persistq._journal.reading import lines_of
from persistq._journal.run_state import RunState
from persistq._run.history import History, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from persistq._run.chain import Job


class PassingOver:
    """What one call of `run` passes over. To be made before anything is requeued.

    Args:
        job (Job): The job.
        once (bool): Whether whatever was ever completed is passed over.

    Attributes:
        count (int): How many messages were passed over.
        requeued (int): How many messages earlier runs have left to be done.

    Raises:
        OSError: A journal cannot be read.
    """

    def __init__(self, job: Job, once: bool) -> None:
        self.count = 0
        self.requeued = 0
        self._once = once
        self._encode = Codec().encode
        self._known: set[int] = set()
        self._repeats: dict[int, int] = {}
        history = History(job.home, job.prefix)
        for name in history.names() if once else job.runs:
            self._add(history.completed(name))
        state = RunState(job.current, job.prefix)
        self._add(digest(record.key) for record in failures.undecided(state.failed, state.resolved))
        for path in filter(None, [state.carried]):
            self._add(self._requeued(path))

    def _requeued(self, path: str) -> Iterator[int]:
        for line in lines_of(path):
            self.requeued += 1
            yield digest(line_key(line))

    def _add(self, digests: Iterable[int]) -> None:
        known, repeats, once = self._known, self._repeats, self._once
        for number in digests:
            if number not in known:
                known.add(number)
            elif not once:
                repeats[number] = repeats.get(number, 0) + 1

    def what_is_left(self, messages: Iterable[Any]) -> Iterator[Any]:
        """Yield the messages that are to be put, as they come.

        Args:
            messages (Iterable[Any]): The messages given.

        Raises:
            TypeError: One cannot be journalled.
        """
        known = self._known
        for message in messages:
            if (known or self._once) and self._passes_over(message):
                self.count += 1
            else:
                yield message

    def _passes_over(self, message: Any) -> bool:
        number = digest(line_key(self._encode(message)))
        if number not in self._known:
            if self._once:
                self._known.add(number)
            return False
        if self._once:
            return True
        left = self._repeats.get(number, 0)
        if left > 1:
            self._repeats[number] = left - 1
        elif left:
            del self._repeats[number]
        else:
            self._known.discard(number)
        return True
