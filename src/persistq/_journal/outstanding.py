"""What a set of journal files holds as outstanding: requested and not completed, in order.

The files are read side by side, and a completion cancels its request as soon as both have been
read. So memory grows with what is outstanding, and with how far the work was completed out of
order, but not with the length of the journals; and a bounded number of files is open, however many
there are.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter

from persistq._journal.codec import WITHDRAWN
from persistq._journal.matching import (
    CountingMatcher,
    GeneralMatcher,
    NotSimple,
    SimpleMatcher,
    UsedCompletionWithdrawn,
)
from persistq._journal.reading import FIELDS_BEFORE_FAILED, Reader
from persistq.exceptions import JournalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence
    from typing import Any

    from persistq._journal.codec import Codec
    from persistq._journal.matching import Matcher
    from persistq._journal.reading import Block

# So many requests are read ahead of the completions, that completions which are a little out of
# order find their requests; where many do not, the lead doubles, up to the most.
_LEAD_LINES = 4_000
_MOST_LEAD_LINES = 128_000
# So many files of completions stay open while they are read side by side. Of more than these, each
# is opened anew for each block: a process may have as few as 256 files open.
_OPEN_FILES = 60


class Journals:
    """The journal files of one run.

    Args:
        requested (Sequence[str]): Paths of requested files, in the order of their work.
        completed (Sequence[str]): Paths of completed files, in any order.
        failed (Sequence[str]): Paths of failed files, in any order. What is set aside is no more
            outstanding than what is completed.
    """

    def __init__(
        self,
        requested: Sequence[str],
        completed: Sequence[str],
        failed: Sequence[str] = (),
    ) -> None:
        self.requested = requested
        self.completed = completed
        self.failed = failed


class Totals:
    """How many lines of each kind there are in a set of journal files.

    Attributes:
        requested (int): How many lines requested work, less those that were withdrawn.
        completed (int): How many lines completed work, less those that were withdrawn.
        failed (int): How many lines set work aside, less those that were withdrawn.
        torn (int): How many torn lines were skipped.
        paths (list[tuple[int, str]]): The requested files, each behind the number of the lines in
            those before it.
    """

    def __init__(self) -> None:
        self.paths: list[tuple[int, str]] = []
        self.requested = 0
        self.completed = 0
        self.failed = 0
        self.torn = 0


class Tally(Totals):
    """How many lines there are of each kind, and which are outstanding.

    Attributes:
        lines (Collection[bytes]): The `line_key` of all that is outstanding, in no order, repeats
            included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: Collection[bytes] = ()


class Outstanding(Totals):
    """Lines that were requested and not completed, in the order in which they were requested.

    Attributes:
        lines (list[bytes]): The lines as they were written, without line ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []
        self._places: list[int] = []

    def where(self, index: int) -> tuple[str, int]:
        """Return where a line stands.

        Args:
            index (int): Index into `lines`.

        Returns:
            tuple[str, int]: The path of the file, and the number of the line, from 1, as an
            editor counts.
        """
        place = self._places[index]
        first, path = self.paths[bisect.bisect_right(self.paths, (place, "\U0010ffff")) - 1]
        return path, place - first + 1

    def messages(self, codec: Codec) -> list[Any]:
        """Return the messages of the lines.

        Args:
            codec (Codec): What wrote the lines.

        Returns:
            list[Any]: One message a line, in order.

        Raises:
            JournalError: A line cannot be turned back into a message.
        """
        messages: list[Any] = []
        try:
            messages.extend(map(codec.decode, self.lines))
        except Exception as error:
            # extend() has kept what came before the line at fault.
            raise self._rejection(len(messages), error) from error
        return messages

    def unreadable(self, codec: Codec) -> Iterator[tuple[int, JournalError]]:
        """Find the lines that cannot be turned back into messages: all of them, in order.

        Args:
            codec (Codec): What wrote the lines.

        Yields:
            tuple[int, JournalError]: The index of a line in `lines`, and what is wrong with it:
            the error that `messages` would raise, were it the first.
        """
        for index, line in enumerate(self.lines):
            try:
                codec.decode(line)
            except Exception as error:
                rejection = self._rejection(index, error)
                rejection.__cause__ = error
                yield index, rejection

    def _rejection(self, index: int, error: Exception) -> JournalError:
        path, number = self.where(index)
        text = self.lines[index].decode("utf-8", "surrogateescape")
        return JournalError(
            f"{path}, line {number}: {text!r} cannot be turned back into a message "
            f"({type(error).__name__}: {error}); expected text written by this queue's "
            "formatters. Pass the converter_list that matches, or delete the line to give "
            "that message up."
        )


def outstanding(journals: Journals | Sequence[Journals]) -> Outstanding:
    """Return what is requested in some files and not completed in others.

    As a multiset: a message requested twice and completed once is outstanding once, where it was
    requested last, since a completion takes the earliest equal request; and never one of a later
    run: what is completed once too often in one run is outstanding when the next one requests it.

    Args:
        journals (Journals | Sequence[Journals]): The files of a run; or of several, earliest
            first, of which each goes on with what those before it have left.

    Returns:
        Outstanding: The lines, and where they stand.

    Raises:
        FileNotFoundError: A file has gone, or was renamed, since it was listed.
        OSError: A file cannot be read.
    """
    runs = [journals] if isinstance(journals, Journals) else journals
    matcher: SimpleMatcher | GeneralMatcher = SimpleMatcher()
    result = Outstanding()
    try:
        _match(runs, matcher, result)
    except NotSimple:
        # Begin anew: usually this shows early, or not at all.
        matcher, result = GeneralMatcher(), Outstanding()
        try:
            _match(runs, matcher, result)
        except UsedCompletionWithdrawn:
            # Rare: task_done() was called too often, while other threads called it too. Counted
            # first, all completions have settled before one is used; it takes memory for them all.
            matcher, result = GeneralMatcher(), Outstanding()
            _match_settled(runs, matcher, result)
    result.lines, result._places = matcher.result()
    return result


def count(journals: Journals | Sequence[Journals]) -> Tally:
    """Return the same as `outstanding`, when its order does not matter, in less time.

    Args:
        journals (Journals | Sequence[Journals]): As there.

    Returns:
        Tally: How many there are of each, and what is outstanding.

    Raises:
        FileNotFoundError: A file has gone, or was renamed, since it was listed.
        OSError: A file cannot be read.
    """
    runs = [journals] if isinstance(journals, Journals) else journals
    matcher, tally = CountingMatcher(), Tally()
    try:
        _match(runs, matcher, tally)
    except NotSimple:
        exact = GeneralMatcher()
        tally = Tally()
        try:
            _match(runs, exact, tally)
        except UsedCompletionWithdrawn:
            exact, tally = GeneralMatcher(), Tally()
            _match_settled(runs, exact, tally)
        tally.lines = exact.keys()
    else:
        tally.lines = matcher.open
    return tally


def _match(runs: Sequence[Journals], matcher: Matcher, totals: Totals) -> None:
    """Read the files of all runs, and hand their lines to the matcher."""
    for run in runs:
        done = _Completions(run, totals)
        requests = _requests(run, matcher, totals)
        try:
            more_requests, is_starved = True, True
            lead = _LEAD_LINES
            while more_requests or done.is_left():
                if more_requests and (
                    is_starved or matcher.open_count() < lead or not done.is_left()
                ):
                    more_requests = next(requests, None) is not None
                    is_starved = False
                    continue
                block = done.read()
                if block is not None:
                    missed, of = matcher.complete(block), len(block.keys)
                    is_starved = missed * 2 > of
                    if missed * 8 > of:
                        lead = min(lead * 2, _MOST_LEAD_LINES)
        finally:
            requests.close()
            done.close()
        matcher.end_run()


def _match_settled(runs: Sequence[Journals], matcher: GeneralMatcher, totals: Totals) -> None:
    """Do the same, but count the completions of a run before any of its requests is read."""
    for run in runs:
        done = _Completions(run, totals)
        counts: Counter[bytes] = Counter()
        try:
            while done.is_left():
                block = done.read()
                if block is not None:
                    counts.update(block.keys)
        finally:
            done.close()
        for key in [key for key in counts if key.startswith(WITHDRAWN)]:
            counts[key[len(WITHDRAWN) :]] -= counts.pop(key)
        matcher.settle(counts)
        for _ in _requests(run, matcher, totals):
            pass
        matcher.end_run()


class _Completions:
    """The completed and failed files of a run, read at the same pace, for they cover one time."""

    def __init__(self, run: Journals, totals: Totals) -> None:
        self._totals = totals
        paths = [*run.completed, *run.failed]
        self._first_failed = len(run.completed)
        self._readers = [
            Reader(
                path,
                FIELDS_BEFORE_FAILED if number >= self._first_failed else 0,
                stays_open=number < _OPEN_FILES,
            )
            for number, path in enumerate(paths)
        ]
        # How much of each has been read, and its number: the least is the next to read.
        self._left = [(0.0, number) for number in range(len(paths))]

    def is_left(self) -> bool:
        return bool(self._left)

    def read(self) -> Block | None:
        """Return the next lines; None where this time a file has come to its end."""
        number = self._left[0][1]
        reader = self._readers[number]
        block = reader.read()
        if block is None:
            heapq.heappop(self._left)
            self._totals.torn += reader.torn
            reader.close()
            return None
        heapq.heapreplace(self._left, (reader.fraction, number))
        net = len(block.keys) - 2 * block.withdrawn
        if number < self._first_failed:
            self._totals.completed += net
        else:
            self._totals.failed += net
        return block

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def _requests(run: Journals, matcher: Matcher, totals: Totals) -> Generator[bool, None, None]:
    """Hand the requests of a run to the matcher, a block for each step."""
    for path in run.requested:
        totals.paths.append((matcher.place, path))
        reader = Reader(path)
        try:
            while (block := reader.read()) is not None:
                matcher.request(block)
                totals.requested += len(block.keys) - 2 * block.withdrawn
                yield True
            totals.torn += reader.torn
        finally:
            reader.close()
