"""Which messages this process has in hand, and as what they were taken."""

from __future__ import annotations

import itertools
import threading

from persistq._journal.codec import line_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of a hand's `numbers`.
FINISHED = 1


class Hand:
    """What one thread has taken last, if it has it still: the common case, and the fast one.

    Attributes:
        flags (Any): The bytes by which this thread tells others what it is just doing.
        numbers (Any): What it counts its finished tasks in, None where only the carrier does. What
            is in hand has a task, so that nobody has to be asked.
        last (tuple[Any, bytes] | None): A message and its journal line.
        next_generation (() -> int): Returns the number that this thread takes a message by, from 1
            to 255: another one each time.
        thread (threading.Thread): Whose it is.
    """

    __slots__ = ("flags", "last", "next_generation", "numbers", "thread")

    def __init__(self, flags: Any, numbers: Any) -> None:
        self.flags = flags
        self.numbers = numbers
        self.next_generation = itertools.cycle(range(1, 256)).__next__
        self.thread = threading.current_thread()
        self.last: tuple[Any, bytes] | None = None


class InHand:
    """The messages that one copy of a queue has handed out and that are not completed.

    A message is known as the very object that was handed out, however it was changed since; any
    other object by the line that it would have in the journal. Safe to use from several threads:
    each changes its own `Hand` alone, and all else under a lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._hands: list[Hand] = []
        self._by_key: dict[bytes, list[tuple[Any, bytes]]] = {}
        self._key_of: dict[int, bytes] = {}  # by the identity of what was handed out
        self.others = 0  # how many are in no thread's `last`

    def new_hand(self, flags: Any, numbers: Any = None) -> Hand:
        """Return what a thread keeps what it takes in."""
        hand = Hand(flags, numbers)
        with self._lock:
            # A new list, for those that look without the lock. Of threads that have ended, what
            # they had taken is still in hand.
            kept = [h for h in self._hands if h.last is not None or h.thread.is_alive()]
            self._hands = [*kept, hand]
        return hand

    @property
    def count(self) -> int:
        """How many messages are in hand."""
        return self.others + sum(hand.last is not None for hand in self._hands)

    def is_anybody_taking(self) -> bool:
        """Tell whether a thread of this process waits for a message, or is just taking one."""
        return any(hand.flags[0] for hand in self._hands)

    def take(self, hand: Hand, message: Any, line: bytes) -> None:
        """Note that a thread is handed a message, with its journal line."""
        with self._lock:
            # Looked at under the lock: another thread may just have completed it.
            before = hand.last
            if before is not None:
                self.keep(*before)
            hand.last = (message, line)

    def keep(self, message: Any, line: bytes) -> None:
        """Note a message that is in no thread's `last`."""
        key = line_key(line)
        with self._lock:
            self._by_key.setdefault(key, []).append((message, line))
            self._key_of[id(message)] = key
            self.others += 1

    def line_of(self, message: Any) -> bytes | None:
        """Return the line of a message that was handed out as this object; None for another."""
        with self._lock:
            for last in [hand.last for hand in self._hands]:
                if last is not None and last[0] is message:
                    return last[1]
            key = self._key_of.get(id(message))
            if key is not None:
                for taken, line in self._by_key[key]:
                    if taken is message:
                        return line
        return None

    def has(self, line: bytes) -> bool:
        """Tell whether a message equal to that of a line is in hand."""
        return self.how_many(line_key(line)) > 0

    def how_many(self, key: bytes) -> int:
        """Return how many messages with a line of this key are in hand."""
        lasts = [hand.last for hand in self._hands]
        count = sum(last is not None and line_key(last[1]) == key for last in lasts)
        return count + len(self._by_key.get(key, ()))

    def ask_the_carrier(self) -> None:
        """Let no thread count what it finishes by itself any more."""
        with self._lock:
            for hand in self._hands:
                hand.numbers = None

    def remove(self, message: Any, line: bytes) -> bool:
        """Note that a message is not in hand any more; return whether it was."""
        key = line_key(line)
        with self._lock:
            for same in (True, False):  # the object itself, before one that equals it
                for hand in self._hands:
                    last = hand.last
                    if last is not None and (
                        last[0] is message if same else line_key(last[1]) == key
                    ):
                        hand.last = None
                        return True
                taken = self._by_key.get(key, [])
                for index, (other, _) in enumerate(taken):
                    if other is message or not same:
                        self._drop(key, taken, index)
                        return True
        return False

    def _drop(self, key: bytes, taken: list[tuple[Any, bytes]], index: int) -> None:
        gone, _ = taken.pop(index)
        if all(other is not gone for other, _ in taken):
            self._key_of.pop(id(gone), None)
        if not taken:
            del self._by_key[key]
        self.others -= 1

    def some(self, count: int) -> list[Any]:
        """Return some of the messages, to be named."""
        with self._lock:
            found = [hand.last[0] for hand in self._hands if hand.last is not None]
            found += [pair[0] for taken in self._by_key.values() for pair in taken[:count]]
            return found[:count]
