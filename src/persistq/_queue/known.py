"""Which messages need not be put, since they are known already: requeued, or set aside.

A restart script may put all its inputs anew. As many equal messages are passed over as were
requeued, each as long as it is not completed, and not in hand of this process (a worker may put its
own message again for later). With ten million of them, what is kept of each here is 16 bytes: where
in the file of requeued work it stands, found by the hash of its line, and compared with what stands
there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from array import array
from collections import Counter

from persistq import _fs
from persistq._journal.codec import line_key
from persistq._journal.reading import FIELDS_BEFORE_FAILED
from persistq._journal.run_state import RunState
from persistq._journal.tail import Shrunk, Tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from persistq._journal.members import Membership

logger = logging.getLogger("persistq")

_LOOK_BYTES = 512
_STEP_NS = 2_000_000_000


class _Table:
    """The lines of a file, by their hash: open addressing, with places in the file as values."""

    def __init__(self, path: str) -> None:
        self._file = _fs.open_file(path, os.O_RDONLY)
        places = array("q")
        hashes = array("q")
        where = 0
        with open(path, "rb", opener=_fs.open_file) as file:
            for line in file:
                if line.endswith(b"\n"):
                    places.append(where)
                    hashes.append(hash(line_key(line.rstrip(b"\r\n"))))
                where += len(line)
        self._size = 1 << max(len(places) * 2 - 1, 1).bit_length()
        self._slots = array("q", bytes(8 * self._size))
        slots, mask = self._slots, self._size - 1
        for place, number in zip(places, hashes):
            index = number & mask
            while slots[index]:
                index = (index + 1) & mask
            slots[index] = place + 1
        self.left = len(places)

    def slots_of(self, key: bytes) -> list[int]:
        """Return where in the table lines with a key are that are not used up."""
        found, slots, mask = [], self._slots, self._size - 1
        index = hash(key) & mask
        while slots[index]:
            place = slots[index] - 1
            if place >= 0 and self._key_at(place, len(key)) == key:
                found.append(index)
            index = (index + 1) & mask
        return found

    def _key_at(self, place: int, length: int) -> bytes:
        data = os.pread(self._file, length + _LOOK_BYTES, place)
        while b"\n" not in data:
            more = os.pread(self._file, len(data), place + len(data))
            if not more:
                break
            data += more
        return line_key(data.partition(b"\n")[0].rstrip(b"\r"))

    def use_up(self, index: int) -> None:
        """Take a line out: it was passed over, or completed."""
        self._slots[index] = -1  # never 0, or what was put behind it would not be found
        self.left -= 1

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        try:
            self.close()
        except (OSError, AttributeError):
            pass


class Known:
    """What one copy of a queue passes over when it is put again.

    Args:
        membership (Membership | None): The copy's part in the run; None without journals.
        how_many_in_hand ((key: bytes) -> int): How many messages with a line of this key are in
            hand of this process.
    """

    def __init__(
        self, membership: Membership | None, how_many_in_hand: Callable[[bytes], int]
    ) -> None:
        self._membership = membership
        self._how_many_in_hand = how_many_in_hand
        self._forget()
        _fs.watch_forks(self)

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._path = ""
        self._table: _Table | None = None
        self._lines: Counter[bytes] = Counter()
        self._completed = Tail()
        self._failed = Tail(FIELDS_BEFORE_FAILED)
        self._files: tuple[list[str], list[str]] = ([], [])
        self._listed: object = None
        self.is_any = False

    def _after_fork(self) -> None:
        """In a forked child: it has requeued nothing."""
        self._forget()

    def add_file(self, path: str) -> None:
        """Pass over, from now on, what stands in a file of requeued work."""
        with self._lock:
            self._path, self.is_any = path, True

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Pass over lines, from now on."""
        with self._lock:
            self._lines.update(map(line_key, lines))
            self.is_any = self.is_any or bool(self._lines)

    def passes_over(self, line: bytes) -> bool:
        """Tell whether a message is known already, and count it as passed over if so.

        Args:
            line (bytes): Its journal line.
        """
        key = line_key(line)
        with self._lock:
            if self._path and self._table is None:
                self._table = _Table(self._path)
            if self._count(key) == 0:
                return False
            self._look_for_completions()
            if self._count(key) <= self._how_many_in_hand(key):
                return False
            self._take(key)
            return True

    def _count(self, key: bytes) -> int:
        count = self._lines.get(key, 0)
        if self._table is not None:
            count += len(self._table.slots_of(key))
        return count

    def _take(self, key: bytes) -> bool:
        slots = self._table.slots_of(key) if self._table is not None else []
        if slots:
            self._table.use_up(slots[0])  # type: ignore[union-attr]
        elif key in self._lines:
            self._lines[key] -= 1
            if self._lines[key] <= 0:
                del self._lines[key]
        else:
            return False
        return True

    def _look_for_completions(self) -> None:
        membership = self._membership
        if membership is None:
            return
        # The time of a folder's last change moves in steps: within one, there may be another.
        listed = os.stat(membership.directory).st_mtime_ns
        if listed != self._listed or time.time_ns() - listed < _STEP_NS:
            self._listed = listed
            state = RunState(membership.directory, membership.names.prefix)
            if state.run == membership.run:
                self._files = state.completed, state.failed_here
        for keys in self._read(self._completed, self._files[0]):
            for key in keys:
                self._take(key)
        for keys in self._read(self._failed, self._files[1]):
            for key in keys:
                # Set aside in this run: it waits for a decision, and is still not to be put.
                if self._take(key):
                    self._lines[key] += 1

    def _read(self, tail: Tail, paths: list[str]) -> Iterator[list[bytes]]:
        try:
            yield from tail.read(paths)
        except FileNotFoundError:
            self._listed = None  # moved away: looked for again at the next call
        except Shrunk:
            # A refused completion was cut off, with much behind it: then what has been counted
            # stays so, and an equal message is put again rather than passed over.
            logger.warning("a journal has been cut back while it was read: %s", paths)
