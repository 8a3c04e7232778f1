"""What processes of this run that died had in hand, for the living to take over.

A worker writes each message to its started file before it is handed out. A lease that is free is
a dead process's; what that had started, and what the run has not completed, is taken over by
exactly one of the living, under the directory's lock:

1. How often each of these messages has met a death is counted in the taker's attempts file. Killed
   behind this: the death is settled anew, and counted twice. That is at most an attempt too few.
2. The lines go to the taker's own started file, or back on the queue; what has met too many
   deaths is set aside. Killed behind this: both files name them, so they may be done twice.
3. The dead one's lease is renamed: the death is settled. Killed behind this: they are in the
   taker's hand, or on the queue.

A worker may also die between taking a message off the queue and recording that. Such a message is
in no living process's hand, and not on its way either; see `lost`.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

from persistq import _lease
from persistq._journal import failures
from persistq._journal.codec import line_key
from persistq._journal.members import ENDED
from persistq._journal.names import (
    CHECKED,
    CLOSED,
    HELD,
    LEFT,
    MAIN,
    PRODUCER,
    SETTLED,
    is_lease_of,
)
from persistq._journal.outstanding import Journals, outstanding
from persistq._journal.reading import FIELDS_BEFORE_FAILED, scan
from persistq._journal.run_state import RunState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from persistq._journal.run_state import Member


class Casualties:
    """The processes of a run that died, and are not settled.

    To be made under the directory's lock, and used before that is given back.

    Args:
        state (RunState): The run.
        max_attempts (int | None): At how many deaths a message is set aside; None for no limit.

    Attributes:
        dead (list[Member]): The leases of those who died.
        lines (list[bytes]): What they had started, and nobody has completed: to be taken over.
        too_often (list[tuple[bytes, int, Member]]): What is to be set aside instead, its deaths,
            and the last of the dead that had it in hand.
        counted (list[bytes]): Lines for an attempts file.
    """

    def __init__(self, state: RunState, max_attempts: int | None) -> None:
        self.dead = [member for member in state.members_of_run() if member.is_dead() is True]
        # Listed anew: one that was alive at the first look may have made a file before it died.
        self._state = RunState(state.directory, state.names.prefix) if self.dead else state
        self.lines: list[bytes] = []
        self.too_often: list[tuple[bytes, int, Member]] = []
        self.counted: list[bytes] = []
        if not self.dead:
            return
        started: list[tuple[bytes, Member]] = []
        for member in self.dead:
            started += [(line, member) for line in in_hand(self._state, member.name.tag)]
        if started:
            self._sort_out(started, max_attempts)

    def _sort_out(self, started: Sequence[tuple[bytes, Member]], max_attempts: int | None) -> None:
        state = self._state
        keys = {line_key(line) for line, _ in started}
        own = state.own()
        # A dispatcher may have completed what a worker took; and killed while it took over, a
        # worker leaves a message in two files. Done twice, it would be acknowledged too often.
        left = scan(own.requested, keys)
        left.subtract(scan(own.completed, keys))
        left.subtract(scan(own.failed, keys, FIELDS_BEFORE_FAILED))
        deaths = failures.deaths(state.attempts, keys)
        for line, member in started:
            key = line_key(line)
            self.counted.append(failures.attempts_line(1, line))
            deaths[key] += 1
            if left[key] <= 0:
                continue
            left[key] -= 1
            if max_attempts is not None and deaths[key] >= max_attempts:
                self.too_often.append((line, deaths[key], member))
            else:
                self.lines.append(line)

    def settle(self) -> None:
        """Record that these deaths have been seen to."""
        for member in self.dead:
            name = member.name
            path = self._state.names.lease(name.role, self._state.run, name.tag, SETTLED)
            try:
                os.rename(member.path, os.path.join(self._state.directory, path))
            except FileNotFoundError:
                pass  # its directory was tidied by hand
        self.dead = []


def in_hand(state: RunState, tag: str) -> list[bytes]:
    """Return what a process has started, and neither completed nor set aside itself.

    Args:
        state (RunState): The run.
        tag (str): The tag of its files.

    Returns:
        list[bytes]: Lines, in the order in which they were started.

    Raises:
        OSError: A file cannot be read.
    """
    names = state.names
    path = os.path.join(state.directory, names.journal("started", tag))
    if path not in state.started:
        return []
    completed = os.path.join(state.directory, names.journal("completed", tag))
    failed = os.path.join(state.directory, names.journal("failed", tag))
    try:
        return outstanding(
            Journals(
                [path],
                [completed] if completed in state.completed else [],
                [failed] if failed in state.failed else [],
            )
        ).lines
    except FileNotFoundError:
        return []  # it has ended since, with nothing in hand


def lost(state: RunState) -> Counter[bytes]:
    """Return messages that are outstanding, in no living process's hand, and not given up.

    Once all work has been taken off the queue, and nothing is on its way, these were in the hand of
    a process that died before it could record that, or has recorded it.

    Args:
        state (RunState): The run, listed behind the moment at which all that was so.

    Returns:
        Counter[bytes]: Their lines.

    Raises:
        OSError: A journal cannot be read.
    """
    left = outstanding(state.own()).lines
    if not left:
        return Counter()
    held: Counter[bytes] = Counter()
    for member in state.members_of_run((HELD, LEFT)):
        held.update(map(line_key, in_hand(state, member.name.tag)))
    found: Counter[bytes] = Counter()
    for line in left:
        key = line_key(line)
        if held[key] > 0:
            held[key] -= 1
        else:
            found[line] += 1
    return found


def given_up(state: RunState) -> int:
    """Return how many messages copies have given up that have ended since."""
    return sum(len(in_hand(state, member.name.tag)) for member in state.members_of_run((LEFT,)))


def has_deaths(state: RunState, states: Iterable[str] = (SETTLED, CHECKED)) -> bool:
    """Tell whether a process of the run has died, and that was settled."""
    return bool(state.members_of_run(states))


def has_unchecked_deaths(state: RunState) -> bool:
    """Tell whether a message may have been lost with a process that died."""
    return has_deaths(state, (SETTLED,))


def check_off(state: RunState) -> None:
    """Record that nothing was lost with those who died, or that it is found."""
    for member in state.members_of_run((SETTLED,)):
        name = member.name
        if is_lease_of(name, state.run):
            path = state.names.lease(name.role, state.run, name.tag, CHECKED)
            try:
                os.rename(member.path, os.path.join(state.directory, path))
            except FileNotFoundError:
                pass


def dead_producers(state: RunState) -> list[Member]:
    """Return the producers that have died without closing, settled or not."""
    found = [
        member
        for member in state.members_of_run((HELD, SETTLED, CHECKED))
        if member.name.role == PRODUCER
    ]
    return [m for m in found if m.name.state != HELD or m.is_dead() is True]


def living_producers(state: RunState, but: str = "") -> list[Member]:
    """Return the producers that live, and have not closed: the main process if it has put.

    Args:
        state (RunState): The run.
        but (str): The tag of one to be left out.
    """
    found = []
    for member in state.members_of_run():
        tag = member.name.tag
        if tag == but:
            continue
        has_put = any(
            name is not None and name.tag == tag
            for name in (state.names.parse(os.path.basename(path)) for path in state.requested)
        )
        if (
            (member.name.role == PRODUCER or (member.name.role == MAIN and has_put))
            and member.is_dead() is not True
            and CLOSED not in _lease.notes(member.path)
        ):
            found.append(member)
    return found


def tell_how_it_ended(state: RunState, pid: int, how: str) -> None:
    """Say in the lease of a process what has ended it, or is about to.

    Args:
        state (RunState): The run.
        pid (int): The id of a process of this machine, which this one has started.
        how (str): One line.
    """
    for member in state.members_of_run():
        if member.name.pid == pid:
            _lease.add_note(member.path, ENDED + how)


def describe_exit(exit_status: int | None) -> str:
    """Return what an exit status says, as `multiprocessing` gives it; empty for None."""
    if exit_status is None:
        return ""
    if exit_status < 0:
        try:
            return f"killed by {signal.Signals(-exit_status).name}"
        except ValueError:
            return f"killed by signal {-exit_status}"
    return f"exit status {exit_status}"


def how_it_ended(member: Member, exit_status: int | None) -> str:
    """Return what has ended a process, as far as it is known.

    Args:
        member (Member): Its lease.
        exit_status (int | None): As `multiprocessing` gives it, where this process is its parent.

    Returns:
        str: Empty where nothing is known.
    """
    for note in _lease.notes(member.path):
        if note.startswith(ENDED):
            return note[len(ENDED) :]
    return describe_exit(exit_status)
