"""Wait until all work is done, though workers may die while it waits.

The carrier counts what is not acknowledged, and a death can leave that count too high for ever: of
a worker killed between taking a message and recording it, or between recording that it is done
and saying so. So once somebody has died, the journals are asked.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from queue import Full

from persistq import _fs
from persistq._journal import recovery
from persistq._journal.outstanding import outstanding
from persistq._journal.run_state import RunState
from persistq._queue.in_transit import are_still_taking, living_in_transit, token_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from persistq._journal.codec import Codec
    from persistq._journal.members import Membership
    from persistq._queue.desertion import Desertion
    from persistq._queue.failing import Failing
    from persistq._queue.transport import InTransit, Transport

logger = logging.getLogger("persistq")

_LOOK_S = 0.5
# A look that reads long journals takes at most this part of the time.
_PART = 0.1
# Journals of this size are read in a tenth of a second or two, by measurement.
_QUICK_BYTES = 4_000_000


class Joiner:
    """What waits until the work of one copy of a queue is done.

    Args:
        transport (Transport): What carries the messages.
        codec (Codec): What turns journal lines into messages.
        membership (Membership | None): The copy's part in the run; None without journals.
        failing (Failing | None): What sees to the dead; None where nothing is recorded for that.
        desertion (Desertion): What tells whether anybody is left.
        prefix (str): The queue's prefix.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        membership: Membership | None,
        failing: Failing | None,
        desertion: Desertion,
        prefix: str,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._membership = membership
        self._failing = failing
        self._desertion = desertion
        self._prefix = prefix
        self._missed: Counter[bytes] = Counter()  # what the looks of late missed, each of them
        self._seen: Mapping[str, InTransit] = {}  # what was on its way at the first of these
        self._to_put_back: deque[bytes] = deque()  # what the queue has had no room for
        self._unreadable: Counter[bytes] = Counter()  # what cannot be put on the queue at all
        self._next_look_s = 0.0
        self._looker: threading.Thread | None = None
        self._is_all_done = False

    def join(self, is_closed: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until all messages are done; what dead workers had in hand goes to the living.

        It is put back on the queue, unless this producer has closed it: then the workers
        themselves see to it, each before its `DONE`.

        Args:
            is_closed (() -> bool): Whether the `DONE`s are on the queue.
            timeout (float | None): Seconds to wait; None waits for ever.

        Returns:
            bool: Whether all is done.

        Raises:
            PersistqError: There are messages left, and nobody to do them. Never with a timeout.
        """
        deadline_s = None if timeout is None else time.monotonic() + timeout
        self._desertion.begin()
        while True:
            left_s = _LOOK_S if deadline_s is None else max(deadline_s - time.monotonic(), 0)
            if self._transport.join(min(left_s, _LOOK_S)):
                return True
            # Before the time is up: who waits a moment at a time must be helped, too.
            if time.monotonic() >= self._next_look_s:
                if self._look_in_time(is_closed(), deadline_s):
                    return True
                if deadline_s is None:
                    self._check_deserted()
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return False

    def _look_in_time(self, is_closed: bool, deadline_s: float | None) -> bool:
        """See to the dead, but wait for that no longer than a timeout allows.

        Reading long journals takes its time. Then a thread does it, and whoever joins next finds
        what it has found.
        """
        if deadline_s is None or (self._looker is None and self._takes_a_moment()):
            return self._look(is_closed)
        if self._looker is None:
            self._looker = threading.Thread(
                target=self._look, args=(is_closed,), name="persistq-look", daemon=True
            )
            try:
                self._looker.start()
            except RuntimeError:
                self._looker = None  # no thread to be had
                return self._look(is_closed)
        self._looker.join(max(deadline_s - time.monotonic(), 0.001))
        if self._looker.is_alive():
            return False
        self._looker = None
        return self._is_all_done

    def _takes_a_moment(self) -> bool:
        membership = self._membership
        if membership is None:
            return True
        try:
            with os.scandir(membership.directory) as entries:
                size = sum(entry.stat().st_size for entry in entries)
        except OSError:
            return True
        return size < _QUICK_BYTES

    def _look(self, is_closed: bool) -> bool:
        """See to the dead; return whether all is done."""
        self._is_all_done = self._look_now(is_closed)
        return self._is_all_done

    def _look_now(self, is_closed: bool) -> bool:
        membership, failing = self._membership, self._failing
        if membership is None or failing is None:
            return False
        began_s = time.monotonic()
        try:
            # Somebody else who has the lock may be stopped, and this has a time to keep.
            with _fs.folder_lock(membership.directory, wait=False) as is_ours:
                if not is_ours:
                    return False
                state = RunState(membership.directory, self._prefix)
                if state.run != membership.run:
                    membership.check()
                    return False
                return self._see_to_the_dead(state, membership, failing, is_closed)
        except OSError as error:
            logger.warning("cannot look for workers that died: %s", error)
        finally:
            now_s = time.monotonic()
            self._next_look_s = now_s + max(_LOOK_S, (now_s - began_s) / _PART)
        return False

    def _see_to_the_dead(
        self, state: RunState, membership: Membership, failing: Failing, is_closed: bool
    ) -> bool:
        if is_closed:
            self._to_put_back.clear()  # the workers find it outstanding, and in no hand
            # They see to the dead, each before it ends; only if none is left, nobody will.
        else:
            # First back on the queue: killed between the two, it is done twice in this run. Of
            # what has no room yet, only this process knows; should it be killed, it is outstanding
            # for the next run.
            failing.settle(state, self._put_all_back)
            if self._to_put_back:
                self._put_back()
                return False
        has_deaths = recovery.has_deaths(state) or (is_closed and _has_dead(state))
        if has_deaths and (is_closed or self._is_empty()):
            return self._ask_the_journals(membership, is_closed)
        return False

    def _is_empty(self) -> bool:
        try:
            return self._transport.empty()
        except NotImplementedError:
            return False

    def _ask_the_journals(self, membership: Membership, is_closed: bool) -> bool:
        state = RunState(membership.directory, self._prefix)
        if not (Counter(outstanding(state.own()).lines) - self._unreadable):
            return True  # what somebody is just putting stands there before it is on the queue
        if is_closed:
            return False
        if not recovery.has_unchecked_deaths(state):
            return False
        # First who is taking one, then what is missed: who has moved on has recorded it by then.
        transit = living_in_transit(self._transport, state)
        if transit is None:
            return False
        missed = recovery.lost(RunState(membership.directory, self._prefix)) - self._unreadable
        if not missed:
            self._missed = Counter()
            recovery.check_off(state)
            return False
        self._missed &= missed
        if not self._missed:
            self._begin_to_miss(missed, state)
            return False
        if are_still_taking(self._seen, transit):
            self._transport.call_the_waiting(transit)
            return False
        found, self._missed = self._missed, Counter()
        self._put_all_back(list(found.elements()))
        if found == missed and not self._to_put_back:
            recovery.check_off(state)
        return False

    def _begin_to_miss(self, missed: Counter[bytes], state: RunState) -> None:
        """Note who may have what is missed in hand without having recorded it: seen in this order.

        Missed first, then nobody just putting, then nothing in the queue: so all that is missed was
        taken by then. Who has taken it and lives is just taking a message now. When each of these
        has recorded what it took, or has come back for another, what is still missed is lost. The
        moment is kept until all have moved on, for they do not all do so between two looks.
        """
        transit = living_in_transit(self._transport, state)
        if transit is None or any(t.sending or t.backlog for t in transit.values()):
            return
        if not self._is_empty():
            return
        seen = living_in_transit(self._transport, state)
        if seen is not None:
            self._missed, self._seen = missed, seen
            self._transport.call_the_waiting(seen)

    def _put_all_back(self, lines: list[bytes]) -> None:
        self._to_put_back += lines
        self._put_back()

    def _put_back(self) -> None:
        """Put messages on the queue again, as far as there is room."""
        waiting, count = self._to_put_back, 0
        while waiting:
            line = waiting[0]
            try:
                payload = self._transport.pack(self._codec.decode(line), line)
                self._transport.put(payload, False)
                count += 1
            except Full:
                break
            except OSError as error:
                logger.warning("a message of a dead worker cannot be put back yet: %s", error)
                break
            except Exception as error:
                logger.error("%r, of a dead worker, is left outstanding: %s", line, error)
                self._unreadable[line] += 1
            waiting.popleft()
            # For the time that the dead worker took it.
            try:
                self._transport.task_done()
            except ValueError:
                pass
        if count:
            logger.warning(
                "queue %r: %d messages of workers that died are back on the queue",
                self._prefix,
                count,
            )

    # --- when nobody is left ---------------------------------------------------------------

    def _check_deserted(self) -> None:
        try:
            stuck = self._is_stuck()
            if not self._desertion.look(stuck):
                return
            raise self._desertion.error(self._what_is_left(stuck))
        except OSError as error:
            logger.warning("cannot look for workers: %s", error)

    def _is_stuck(self) -> bool:
        """Tell whether all that is left is in the hands of workers that wait for more.

        Such a worker has given its messages up, or waits until it has enough of them; and what it
        waits for, a message or the end, is to come from who waits here.
        """
        membership = self._membership
        if membership is None or not self._is_empty():
            return False
        state = RunState(membership.directory, self._prefix)
        transit = living_in_transit(self._transport, state, but=membership)
        if transit is None:
            return False
        if recovery.living_producers(state, but=membership.tag):
            return False
        found = False
        for member in state.members_of_run():
            if member.name.tag == membership.tag or member.is_dead() is True:
                continue
            held = recovery.in_hand(state, member.name.tag)
            waits = transit.get(token_of(member))
            if held and not (waits and waits.stuck):
                return False
            found |= bool(held)
        return found

    def _what_is_left(self, stuck: bool) -> str:
        membership = self._membership
        if membership is None:
            return f"queue {self._prefix!r}: there are messages left"
        state = RunState(membership.directory, self._prefix)
        left = outstanding(state.own())
        total = len(left.lines)
        given_up = recovery.given_up(state)
        dead = sum(
            len(recovery.in_hand(state, m.name.tag))
            for m in state.members_of_run()
            if m.is_dead() is True
        )
        living = sum(
            len(recovery.in_hand(state, m.name.tag))
            for m in state.members_of_run()
            if m.is_dead() is not True
        )
        parts = [
            f"{count} {what}"
            for count, what in (
                (given_up + (living if stuck else 0), "given up, without task_done()"),
                (dead, "in hand of workers that died"),
                (max(total - given_up - dead - living, 0), "never taken"),
            )
            if count
        ]
        first = left.lines[0].decode("utf-8", "replace") if left.lines else ""
        return (
            f"queue {self._prefix!r}: {total} messages are outstanding ({', '.join(parts)}; the "
            f"first: {first!r})"
        )


def _has_dead(state: RunState) -> bool:
    return any(member.is_dead() is True for member in state.members_of_run())
