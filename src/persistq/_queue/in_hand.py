"""Which messages this process has in hand, and as what they were taken."""

from __future__ import annotations

import threading

from persistq._journal.codec import line_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class InHand:
    """The messages that one copy of a queue has handed out and that are not completed.

    A message is known as the very object that was handed out, however it was changed since; any
    other object by the line that it would have in the journal. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_key: dict[bytes, list[tuple[Any, bytes]]] = {}
        self._key_of: dict[int, bytes] = {}  # by the identity of what was handed out
        self.count = 0

    def add(self, message: Any, line: bytes) -> None:
        """Note that a message is handed out, with its journal line."""
        key = line_key(line)
        with self._lock:
            self._by_key.setdefault(key, []).append((message, line))
            self._key_of[id(message)] = key
            self.count += 1

    def line_of(self, message: Any) -> bytes | None:
        """Return the line of a message that was handed out as this object; None for another."""
        with self._lock:
            key = self._key_of.get(id(message))
            if key is not None:
                for taken, line in self._by_key[key]:
                    if taken is message:
                        return line
        return None

    def has(self, line: bytes) -> bool:
        """Tell whether a message equal to that of a line is in hand."""
        return line_key(line) in self._by_key

    def how_many(self, key: bytes) -> int:
        """Return how many messages with a line of this key are in hand."""
        return len(self._by_key.get(key, ()))

    def remove(self, message: Any, line: bytes) -> None:
        """Note that a message is not in hand any more; nothing where it never was."""
        key = line_key(line)
        with self._lock:
            taken = self._by_key.get(key)
            if not taken:
                return
            index = next((n for n, pair in enumerate(taken) if pair[0] is message), 0)
            gone, _ = taken.pop(index)
            if all(other is not gone for other, _ in taken):
                self._key_of.pop(id(gone), None)
            if not taken:
                del self._by_key[key]
            self.count -= 1

    def some(self, count: int) -> list[Any]:
        """Return some of the messages, to be named."""
        with self._lock:
            return [pair[0] for taken in list(self._by_key.values())[:count] for pair in taken][
                :count
            ]
