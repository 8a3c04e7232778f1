"""Which requests are left when completions have cancelled theirs: three ways to keep the books.

Each is told blocks of requests, in order, and blocks of completions, whichever has been read first.
They differ in what they can deal with, and in what that costs: `SimpleMatcher` and
`CountingMatcher` raise `NotSimple` where only `GeneralMatcher` knows what to do.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque

from persistq._journal.codec import WITHDRAWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from persistq._journal.reading import Block

    class Matcher(Protocol):
        """What the reading loop asks of each of them.

        Attributes:
            place (int): How many lines of requested files it has been told.
        """

        place: int

        def open_count(self) -> int:
            """Return how many requests are open."""

        def request(self, block: Block) -> None:
            """Take lines of a requested file."""

        def complete(self, block: Block) -> int:
            """Cancel the earliest request of each line; return how many were not read yet."""

        def end_run(self) -> None:
            """Forget completions without a request: they never cancel one of a later run."""


class NotSimple(Exception):
    """There are repeated or withdrawn lines, which only `GeneralMatcher` knows."""


class UsedCompletionWithdrawn(Exception):
    """A completion was withdrawn after its request had been cancelled."""


class SimpleMatcher:
    """The requests that are left, in order, where no line is open twice or withdrawn.

    Each request has its place: a number that counts the lines of all requested files. One dict
    holds all, so that a line costs one look into what may be larger than the processor's cache.
    """

    def __init__(self) -> None:
        self.place = 0
        # The key of a line to its place where it is open. To -1 where its completion has come to
        # light before it.
        self._state: dict[bytes, int] = {}
        self._ahead = 0
        self._written: dict[int, bytes] = {}  # place to line, where that is not its key

    def open_count(self) -> int:
        """Return how many requests are open."""
        return len(self._state) - self._ahead

    def request(self, block: Block) -> None:
        """Take lines of a requested file."""
        if block.withdrawn:
            raise NotSimple
        state, keys, first = self._state, block.keys, self.place
        self.place += len(keys)
        for index in block.unlike:
            self._written[first + index] = block.lines[index]
        if not self._ahead:
            count = len(state) + len(keys)
            state.update(zip(keys, range(first, self.place)))
            if len(state) != count:
                raise NotSimple
            return
        get = state.get
        for place, key in enumerate(keys, first):
            value = get(key)
            if value is None:
                state[key] = place
            elif value == -1:
                del state[key]
                self._ahead -= 1
                if self._written:
                    self._written.pop(place, None)
            else:
                raise NotSimple

    def complete(self, block: Block) -> int:
        """Cancel the request of each line; return how many were not read yet."""
        if block.withdrawn:
            raise NotSimple
        keys = block.keys
        # One call for a whole block: the loop over ten million lines is not Python's then.
        places = list(map(self._state.pop, keys, itertools.repeat(None)))
        if -1 in places:
            raise NotSimple
        if self._written:
            for place in places:
                if place is not None:
                    self._written.pop(place, None)
        missed = places.count(None)
        if missed:
            count = len(self._state)
            if missed == len(keys):
                self._state.update(zip(keys, itertools.repeat(-1)))
            else:
                news = [key for key, place in zip(keys, places) if place is None]
                self._state.update(zip(news, itertools.repeat(-1)))
            if len(self._state) - count != missed:
                raise NotSimple
            self._ahead += missed
        return missed

    def end_run(self) -> None:
        """Forget completions without a request: they never cancel one of a later run."""
        if self._ahead:
            self._state = {key: place for key, place in self._state.items() if place >= 0}
            self._ahead = 0

    def result(self) -> tuple[list[bytes], list[int]]:
        """Return the lines that are open, as they were written, and their places, in order."""
        places = list(self._state.values())
        if not self._written:
            return list(self._state), places
        return [self._written.get(place, key) for key, place in self._state.items()], places


class GeneralMatcher:
    """The requests that are left, in order, whatever the lines are."""

    def __init__(self) -> None:
        self.place = 0
        self._open: dict[bytes, int] = {}  # key to place, of lines that are open once
        self._repeats: dict[bytes, deque[int]] = {}  # key to places, of all others
        self._ahead: dict[bytes, int] = {}  # completions whose requests were not read yet
        self._written: dict[int, bytes] = {}  # place to line, where that is not its key

    def open_count(self) -> int:
        """Return how many requests are open."""
        return len(self._open) + len(self._repeats)

    def request(self, block: Block) -> None:
        """Take lines of a requested file."""
        is_open, repeats, ahead = self._open, self._repeats, self._ahead
        withdrawn = block.withdrawn
        for index in block.unlike:
            self._written[self.place + index] = block.lines[index]
        for place, key in enumerate(block.keys, self.place):
            if key in ahead:
                _take_one(ahead, key)
                self._forget(place)
            elif key in is_open:
                repeats[key] = deque((is_open.pop(key), place))
            elif key in repeats:
                repeats[key].append(place)
            elif withdrawn and key.startswith(WITHDRAWN):
                line = block.lines[place - self.place]
                self._withdraw_request(key[len(WITHDRAWN) :], line[len(WITHDRAWN) :])
            else:
                is_open[key] = place
        self.place += len(block.keys)

    def _withdraw_request(self, key: bytes, line: bytes) -> None:
        place = self._open.pop(key, None)
        if place is None and key in self._repeats:
            places = self._repeats[key]
            if self._written:
                # Equal messages may differ in what was written. Of those that are written like
                # this it is the last that was refused. Where a completion has cancelled it
                # already, that was meant for the next one.
                same = [place for place in places if self._written.get(place, key) == line]
                place = same[-1] if same else places[0]
                places.remove(place)
            else:
                place = places.pop()
            if not places:
                del self._repeats[key]
        if place is None:
            # A completion, meant for an equal request, has cancelled it: so it is free again.
            self._ahead[key] = self._ahead.get(key, 0) + 1
        else:
            self._forget(place)

    def _forget(self, place: int) -> None:
        if self._written:
            self._written.pop(place, None)

    def complete(self, block: Block) -> int:
        """Cancel the earliest request of each line; return how many were not read yet.

        Raises:
            UsedCompletionWithdrawn: A completion that has cancelled a request is taken back.
        """
        pop, repeats, ahead, written = self._open.pop, self._repeats, self._ahead, self._written
        withdrawn, missed = block.withdrawn, 0
        for key in block.keys:
            place = pop(key, None)
            if place is not None:
                if written:
                    written.pop(place, None)
            elif key in repeats:
                self._cancel_repeat(key)
            elif withdrawn and key.startswith(WITHDRAWN):
                key = key[len(WITHDRAWN) :]
                if key not in ahead:
                    raise UsedCompletionWithdrawn
                _take_one(ahead, key)
            else:
                ahead[key] = ahead.get(key, 0) + 1
                missed += 1
        return missed

    def settle(self, completions: Counter[bytes]) -> None:
        """Take all completions of a run at once, less those that were withdrawn."""
        for key, count in completions.items():
            place = self._open.pop(key, None) if count > 0 else None
            if place is not None:
                self._forget(place)
                count -= 1
            while count > 0 and key in self._repeats:
                self._cancel_repeat(key)
                count -= 1
            if count > 0:
                self._ahead[key] = self._ahead.get(key, 0) + count

    def _cancel_repeat(self, key: bytes) -> None:
        places = self._repeats[key]
        self._forget(places.popleft())
        if not places:
            del self._repeats[key]

    def end_run(self) -> None:
        """Forget completions without a request: they never cancel one of a later run."""
        self._ahead = {}

    def result(self) -> tuple[list[bytes], list[int]]:
        """Return the lines that are open, as they were written, and their places, in order."""
        both = [(place, key) for key, place in self._open.items()]
        both += [(place, key) for key, places in self._repeats.items() for place in places]
        both.sort()
        return [self._written.get(place, key) for place, key in both], [p for p, _ in both]

    def keys(self) -> list[bytes]:
        """Return the keys of the lines that are open, in no order, repeats included."""
        repeats = itertools.chain.from_iterable(
            itertools.repeat(key, len(places)) for key, places in self._repeats.items()
        )
        return [*self._open, *repeats]


class CountingMatcher:
    """The requests that are left, in no order, where no line is open twice or withdrawn.

    In a fraction of the time: whole blocks of lines go into a set and out of it again.
    """

    def __init__(self) -> None:
        self.place = 0
        self.open: set[bytes] = set()
        self._ahead: set[bytes] = set()  # completions whose requests were not read yet

    def open_count(self) -> int:
        """Return how many requests are open."""
        return len(self.open)

    def request(self, block: Block) -> None:
        """Take lines of a requested file."""
        is_open, keys = self.open, block.keys
        self.place += len(keys)
        count = len(is_open)
        is_open.update(keys)
        if len(is_open) - count != len(keys) or block.withdrawn:
            raise NotSimple  # requested twice
        if self._ahead:
            met = self._ahead.intersection(keys)
            self._ahead -= met
            is_open -= met

    def complete(self, block: Block) -> int:
        """Cancel the request of each line; return how many were not read yet."""
        if block.withdrawn:
            raise NotSimple
        is_open, ahead, keys = self.open, self._ahead, block.keys
        if is_open.issuperset(keys):
            count = len(is_open)
            is_open.difference_update(keys)
            if count - len(is_open) != len(keys):
                raise NotSimple  # completed twice
            return 0
        missed = [*itertools.filterfalse(is_open.__contains__, keys)]
        count = len(is_open) + len(ahead)
        is_open.difference_update(keys)
        ahead.update(missed)
        if count - len(is_open) - len(ahead) != len(keys) - 2 * len(missed):
            raise NotSimple
        return len(missed)

    def end_run(self) -> None:
        """Forget completions without a request: they never cancel one of a later run."""
        self._ahead.clear()


def _take_one(counts: dict[bytes, int], key: bytes) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1
