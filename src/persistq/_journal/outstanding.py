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


class _Matcher:
    """Cancel requests against completions, in whichever order they come to light.

    Each request has its place: a number that counts the lines of all requested files.
    """

    def __init__(self) -> None:
        self.place = 0
        self.requested = 0
        self.completed = 0
        self._open: dict[bytes, int] = {}  # line to place, of lines that are open once
        self._repeats: dict[bytes, deque[int]] = {}  # line to places, of all others
        self._ahead: dict[bytes, int] = {}  # completions whose requests were not read yet

    def open_count(self) -> int:
        return len(self._open)

    def request(self, lines: list[bytes], has_withdrawals: bool) -> None:
        """Take lines of a requested file."""
        fresh = dict(zip(lines, range(self.place, self.place + len(lines))))
        keys = fresh.keys()
        if (
            len(fresh) == len(lines)
            and self._open.keys().isdisjoint(keys)
            and self._ahead.keys().isdisjoint(keys)
            and self._repeats.keys().isdisjoint(keys)
            and not has_withdrawals
        ):
            self._open.update(fresh)
            self.requested += len(lines)
        else:
            self._request_one_by_one(lines, has_withdrawals)
        self.place += len(lines)

    def _request_one_by_one(self, lines: list[bytes], has_withdrawals: bool) -> None:
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

    def _withdraw_request(self, line: bytes) -> None:
        if line in self._repeats:
            self._repeats[line].pop()
            if not self._repeats[line]:
                del self._repeats[line]
        elif self._open.pop(line, None) is None:
            # A completion, meant for an equal request, has cancelled it: so it is free again.
            self._ahead[line] = self._ahead.get(line, 0) + 1

    def complete(self, lines: list[bytes]) -> int:
        """Cancel the earliest request of each line; return how many were not read yet."""
        # One call for a whole block: the loop over ten million lines is not Python's then.
        places = list(map(self._open.pop, lines, itertools.repeat(-1)))
        missed = 0
        if -1 in places:
            missed = self._complete_one_by_one(
                [line for line, place in zip(lines, places) if place < 0]
            )
        self.completed += len(lines)
        return missed

    def _complete_one_by_one(self, lines: list[bytes]) -> int:
        repeats, ahead = self._repeats, self._ahead
        missed = 0
        for line in lines:
            if line in repeats:
                repeats[line].popleft()
                if not repeats[line]:
                    del repeats[line]
            elif line.startswith(WITHDRAWN):
                line = line[len(WITHDRAWN) :]
                if line not in ahead:
                    raise _UsedCompletionWithdrawn
                _take_one(ahead, line)
                self.completed -= 2
            else:
                ahead[line] = ahead.get(line, 0) + 1
                missed += 1
        return missed

    def result(self) -> tuple[list[bytes], list[int]]:
        if not self._repeats:
            return list(self._open), list(self._open.values())
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
        return _outstanding(requested, completed, completed_first=False)
    except _UsedCompletionWithdrawn:
        # Rare: task_done() was called too often, while other threads called it too. Read first,
        # all completions have settled before the first is used; it takes memory for them all.
        return _outstanding(requested, completed, completed_first=True)


def _outstanding(
    requested: Sequence[str], completed: Sequence[str], completed_first: bool
) -> Outstanding:
    result, matcher = Outstanding(), _Matcher()
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
                missed = matcher.complete(lines)
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
    paths: Sequence[str], matcher: _Matcher, result: Outstanding
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
