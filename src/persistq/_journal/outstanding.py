"""What a set of journal files holds as outstanding: requested and not completed, in order.

The files are read side by side, and a completion cancels its request as soon as both have been
read. So memory grows with what is outstanding, and with how far the work was completed out of
order, but not with the length of the journals.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import os
from collections import deque

from persistq._journal.codec import WITHDRAWN, canonical
from persistq.exceptions import JournalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any

    from persistq._journal.codec import Codec

logger = logging.getLogger("persistq")

# Small enough that the lines of a block, and of the lead, stay in the processor's cache: larger
# blocks take twice the time.
_BLOCK_BYTES = 1 << 15
# So many requests are read ahead of the completions, that completions which are a little out of
# order find their requests; where many do not, the lead doubles, up to the most.
_LEAD_LINES = 4_000
_MOST_LEAD_LINES = 128_000
_QUOTED_BYTES = 200


class Outstanding:
    """Lines that were requested and not completed, in the order in which they were requested.

    Attributes:
        lines (list[bytes]): The lines, without line ends, as the codec writes them.
        requested (int): How many lines requested work, less those that were withdrawn.
        completed (int): How many lines completed work, less those that were withdrawn.
        torn (int): How many torn lines were skipped.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.requested = 0
        self.completed = 0
        self.torn = 0
        self._places: list[int] = []
        self._files: list[tuple[int, str]] = []

    def where(self, index: int) -> tuple[str, int]:
        """Return where a line stands.

        Args:
            index (int): Index into `lines`.

        Returns:
            tuple[str, int]: The path of the file, and the number of the line, from 1.
        """
        place = self._places[index]
        first, path = self._files[bisect.bisect_right(self._files, (place, "\U0010ffff")) - 1]
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
            path, number = self.where(len(messages))
            text = self.lines[len(messages)].decode("utf-8", "surrogateescape")
            raise JournalError(
                f"{path}, line {number}: {text!r} cannot be turned back into a message "
                f"({type(error).__name__}: {error}); expected text written by this queue's "
                "formatters. Pass the converter_list that matches, or delete the line to give "
                "that message up."
            ) from error
        return messages


class Reader:
    """Whole lines of one journal file, a block at a time.

    Args:
        path (str): Path of the file.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed in close())
        self._size = os.fstat(self._file.fileno()).st_size or 1
        self._rest = b""
        self._block_bytes = _BLOCK_BYTES
        self.read_bytes = 0
        self.torn = 0
        self.has_withdrawals = False  # among the lines returned last

    def fraction(self) -> float:
        """Return how much of the file has been read, from 0 to 1."""
        return self.read_bytes / self._size

    def lines(self) -> list[bytes] | None:
        """Return the next lines, as the codec writes them; None at the file's end."""
        while True:
            data = self._file.read(self._block_bytes)
            if not data:
                self._end()
                return None
            self.read_bytes += len(data)
            block = self._rest + data
            end = block.rfind(b"\n")
            if end < 0:
                self._rest = block
                self._block_bytes = len(block) * 2  # a long line is not copied block by block
                continue
            self._rest = block[end + 1 :]
            self._block_bytes = _BLOCK_BYTES
            block = block[:end]
            if b"\r" in block:
                block = (block + b"\n").replace(b"\r\n", b"\n")[:-1]
            lines = block.split(b"\n")
            self.has_withdrawals = False
            if b"\x10" in block:
                for index, line in enumerate(lines):
                    if b"\x10" in line:
                        is_withdrawn = line.startswith(WITHDRAWN)
                        self.has_withdrawals |= is_withdrawn
                        head = WITHDRAWN if is_withdrawn else b""
                        lines[index] = head + canonical(line[len(head) :])
            return lines

    def _end(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self.torn += 1
            shown = rest.strip(b"\0")[:_QUOTED_BYTES].decode("utf-8", "backslashreplace")
            logger.warning(
                "%s: skipped a torn last line of %d bytes, as a crash leaves it: %r",
                self._path,
                len(rest),
                shown,
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _UsedCompletionWithdrawn(Exception):
    """A completion was withdrawn after its request had been cancelled."""


class _NotSimple(Exception):
    """There are repeated or withdrawn lines, which `_SimpleMatcher` does not know."""


class _SimpleMatcher:
    """Cancel requests against completions, where no line is requested twice or withdrawn.

    Each request has its place: a number that counts the lines of all requested files. One dict
    holds all, so that a line costs one look into what may be larger than the processor's cache.
    """

    def __init__(self) -> None:
        self.place = 0
        self.requested = 0
        self.completed = 0
        # A line to its place where it is open. To minus the number of its completions where these
        # have come to light before it.
        self._state: dict[bytes, int] = {}
        self._ahead = 0

    def open_count(self) -> int:
        return len(self._state) - self._ahead

    def request(self, lines: list[bytes], has_withdrawals: bool) -> None:
        """Take lines of a requested file."""
        if has_withdrawals:
            raise _NotSimple
        state, first = self._state, self.place
        self.place += len(lines)
        self.requested += len(lines)
        if not self._ahead:
            count = len(state) + len(lines)
            state.update(zip(lines, range(first, self.place)))
            if len(state) != count:
                raise _NotSimple
            return
        get = state.get
        for place, line in enumerate(lines, first):
            value = get(line)
            if value is None:
                state[line] = place
            elif value == -1:
                del state[line]
                self._ahead -= 1
            else:
                raise _NotSimple

    def complete(self, lines: list[bytes], has_withdrawals: bool) -> int:
        """Cancel the requests of lines; return how many of these were not read yet."""
        if has_withdrawals:
            raise _NotSimple
        self.completed += len(lines)
        # One call for a whole block: the loop over ten million lines is not Python's then.
        places = list(map(self._state.pop, lines, itertools.repeat(None)))
        if -1 in places:
            raise _NotSimple
        missed = places.count(None)
        if missed:
            count = len(self._state)
            if missed == len(lines):
                self._state.update(zip(lines, itertools.repeat(-1)))
            else:
                news = [line for line, place in zip(lines, places) if place is None]
                self._state.update(zip(news, itertools.repeat(-1)))
            if len(self._state) - count != missed:
                raise _NotSimple
            self._ahead += missed
        return missed

    def result(self) -> tuple[list[bytes], list[int]]:
        """Return the lines that are open, and their places, in order."""
        if not self._ahead:
            return list(self._state), list(self._state.values())
        both = [(line, place) for line, place in self._state.items() if place >= 0]
        return [line for line, _ in both], [place for _, place in both]


class _Matcher:
    """Do the same whatever the lines are."""

    def __init__(self) -> None:
        self.place = 0
        self.requested = 0
        self.completed = 0
        self._open: dict[bytes, int] = {}  # line to place, of lines that are open once
        self._repeats: dict[bytes, deque[int]] = {}  # line to places, of all others
        self._ahead: dict[bytes, int] = {}  # completions whose requests were not read yet

    def open_count(self) -> int:
        return len(self._open) + len(self._repeats)

    def request(self, lines: list[bytes], has_withdrawals: bool) -> None:
        """Take lines of a requested file."""
        is_open, repeats, ahead = self._open, self._repeats, self._ahead
        for place, line in enumerate(lines, self.place):
            if line in ahead:
                _take_one(ahead, line)
            elif line in is_open:
                repeats[line] = deque((is_open.pop(line), place))
            elif line in repeats:
                repeats[line].append(place)
            elif has_withdrawals and line.startswith(WITHDRAWN):
                self._withdraw_request(line[len(WITHDRAWN) :])
                self.requested -= 2  # this line, and the one that it withdraws
            else:
                is_open[line] = place
        self.requested += len(lines)
        self.place += len(lines)

    def _withdraw_request(self, line: bytes) -> None:
        if line in self._repeats:
            self._repeats[line].pop()
            if not self._repeats[line]:
                del self._repeats[line]
        elif self._open.pop(line, None) is None:
            # A completion, meant for an equal request, has cancelled it: so it is free again.
            self._ahead[line] = self._ahead.get(line, 0) + 1

    def complete(self, lines: list[bytes], has_withdrawals: bool) -> int:
        """Cancel the earliest request of each line; return how many were not read yet."""
        pop, repeats, ahead = self._open.pop, self._repeats, self._ahead
        missed = 0
        for line in lines:
            if pop(line, None) is None:
                if line in repeats:
                    repeats[line].popleft()
                    if not repeats[line]:
                        del repeats[line]
                elif has_withdrawals and line.startswith(WITHDRAWN):
                    line = line[len(WITHDRAWN) :]
                    if line not in ahead:
                        raise _UsedCompletionWithdrawn
                    _take_one(ahead, line)
                    self.completed -= 2
                else:
                    ahead[line] = ahead.get(line, 0) + 1
                    missed += 1
        self.completed += len(lines)
        return missed

    def result(self) -> tuple[list[bytes], list[int]]:
        """Return the lines that are open, and their places, in order."""
        both = [(place, line) for line, place in self._open.items()]
        both += [(place, line) for line, places in self._repeats.items() for place in places]
        both.sort()
        return [line for _, line in both], [place for place, _ in both]


def _take_one(counts: dict[bytes, int], line: bytes) -> None:
    if counts[line] == 1:
        del counts[line]
    else:
        counts[line] -= 1


def outstanding(requested: Sequence[str], completed: Sequence[str]) -> Outstanding:
    """Return what is requested in some files and not completed in others.

    As a multiset: a message requested twice and completed once is outstanding once, where it was
    requested last, since a completion takes the earliest equal request.

    Args:
        requested (Sequence[str]): Paths of requested files, in the order of their work.
        completed (Sequence[str]): Paths of completed files, in any order.

    Returns:
        Outstanding: The lines, and where they stand.

    Raises:
        OSError: A file cannot be read.
    """
    try:
        return _outstanding(requested, completed, _SimpleMatcher())
    except _NotSimple:
        pass  # begin anew: usually this shows early, or not at all
    try:
        return _outstanding(requested, completed, _Matcher())
    except _UsedCompletionWithdrawn:
        # Rare: task_done() was called too often, while other threads called it too. Read first,
        # all completions have settled before the first is used; it takes memory for them all.
        return _outstanding(requested, completed, _Matcher(), completed_first=True)


def _outstanding(
    requested: Sequence[str],
    completed: Sequence[str],
    matcher: _SimpleMatcher | _Matcher,
    completed_first: bool = False,
) -> Outstanding:
    result = Outstanding()
    readers = [Reader(path) for path in completed]
    requests = _requests(requested, matcher, result)
    try:
        more_requests, is_starved = True, not completed_first
        lead = _LEAD_LINES
        while more_requests or readers:
            wants_requests = (is_starved or matcher.open_count() < lead) and not (
                completed_first and readers
            )
            if more_requests and (wants_requests or not readers):
                more_requests = next(requests, None) is not None
                is_starved = False
                continue
            # The workers' files cover the same time, so they are read at the same pace.
            reader = min(readers, key=Reader.fraction)
            lines = reader.lines()
            if lines is None:
                result.torn += reader.torn
                reader.close()
                readers.remove(reader)
            else:
                missed = matcher.complete(lines, reader.has_withdrawals)
                is_starved = missed * 2 > len(lines)
                if missed * 8 > len(lines):
                    lead = min(lead * 2, _MOST_LEAD_LINES)
    finally:
        requests.close()
        for reader in readers:
            reader.close()
    result.requested, result.completed = matcher.requested, matcher.completed
    result.lines, result._places = matcher.result()
    return result


def _requests(
    paths: Sequence[str], matcher: _SimpleMatcher | _Matcher, result: Outstanding
) -> Generator[bool, None, None]:
    """Hand the requests to the matcher, a block for each step."""
    for path in paths:
        result._files.append((matcher.place, path))
        reader = Reader(path)
        try:
            while True:
                lines = reader.lines()
                if lines is None:
                    break
                matcher.request(lines, reader.has_withdrawals)
                yield True
            result.torn += reader.torn
        finally:
            reader.close()
