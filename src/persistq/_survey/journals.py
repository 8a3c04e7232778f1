"""What is true of the journals of one prefix in a folder right now."""

from __future__ import annotations

import os

from persistq import _fs
from persistq._journal.run_state import RunState
from persistq._survey.hand import ALIVE, DEAD, SHOWN, TRIES, InHand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from persistq._journal.run_state import Member


class JournalSurvey:
    """The journals of one prefix in a directory.

    Args:
        path (str): The directory.
        prefix (str): The queue's prefix.

    Attributes:
        requested (int): Messages put, carried ones included.
        completed (int): Messages completed.
        failed (int): Messages set aside, of which nobody has decided.
        outstanding (int): Messages requested, and neither completed nor set aside.
        carried_on (str | None): The directory of the run that has carried on this one's work. What
            is outstanding and set aside is there then, and none of it here; but if that is gone,
            it is only here.
        in_progress (list[InHand]): What processes have in hand, by process.
        carried (int): How many of the requested ones were carried over from the run before.
        torn (int): Torn last lines, as a crash leaves them.
        last_activity_s (float): When a journal was last written to, in seconds since the epoch.
        alive (list[int]): Ids of the processes that take part in the run, and live.

    Raises:
        OSError: The directory or a journal cannot be read.
    """

    kind = "journals"

    def __init__(self, path: str, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        for number in range(TRIES):
            try:
                self._look()
            except FileNotFoundError:
                # A worker has ended, or carried work is being requeued, and a file has gone.
                if number == TRIES - 1 or not os.path.isdir(path):
                    raise
            else:
                break

    def _look(self) -> None:
        from persistq._journal import failures
        from persistq._journal.decisions import is_elsewhere
        from persistq._journal.outstanding import count

        state = RunState(self.path, self.prefix)
        # Who lives, before the reading: a message that is completed meanwhile is just not shown.
        members = [(member, member.is_dead()) for member in state.members_of_run()]
        self.alive = sorted({member.name.pid for member, dead in members if dead is False})
        files = [*state.requested, *state.completed, *state.failed, *state.started]
        self.last_activity_s = max((os.stat(file).st_mtime for file in files), default=0.0)
        self.carried = sum(map(_count_lines, filter(None, [state.carried, *state.requeued])))
        totals = count(state.chain())
        self.requested, self.completed = totals.requested, totals.completed
        self.torn, self.outstanding = totals.torn, len(totals.lines)
        self.failed = len(failures.undecided(state.failed, state.resolved))
        self.carried_on = state.seal.directory if state.seal is not None else None
        left = totals.lines
        self._look_at_hands(state, dict(members), left if isinstance(left, set) else set(left))
        if is_elsewhere(state):
            self.outstanding = self.failed = 0

    def _look_at_hands(
        self, state: RunState, members: dict[Member, bool | None], left: set[bytes]
    ) -> None:
        from persistq._journal.codec import line_key
        from persistq._journal.recovery import in_hand

        dead_of = {member.name.tag: dead for member, dead in members.items()}
        settled = {m.name.tag for m in state.members if m.name.tag not in dead_of}
        self.in_progress: list[InHand] = []
        for path in state.started:
            name = state.names.parse(os.path.basename(path))
            if name is None or name.tag in settled:
                continue
            lines = [line for line in in_hand(state, name.tag) if line_key(line) in left]
            if lines:
                hand = DEAD if dead_of.get(name.tag, True) else ALIVE
                if hand == DEAD and state.seal is not None:
                    continue  # the run that has carried it on does it
                pid = int(name.tag.partition("-")[0])
                since_s = os.stat(path).st_mtime
                self.in_progress.append(InHand(pid, "", hand, len(lines), since_s, lines[:SHOWN]))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is outstanding."""
        return self.outstanding == 0

    @property
    def needs_attention(self) -> bool:
        """Whether a person must look: work is set aside, or is left and nobody lives to do it."""
        return bool(self.failed or (self.outstanding and not self.alive))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "kind": self.kind,
            **vars(self),
            "in_progress": [hand.as_dict() for hand in self.in_progress],
        }


def stamp(path: str, prefix: str) -> Hashable:
    """Give what changes whenever a survey of the same journals would find something else.

    It costs a listing and the locks of the leases, and reads no journal.

    Args:
        path (str): The directory.
        prefix (str): The queue's prefix.

    Raises:
        OSError: The directory cannot be listed.
    """
    from persistq._journal.decisions import is_elsewhere

    state = RunState(path, prefix)
    living = [(member.name.tag, member.is_dead()) for member in state.members_of_run()]
    files = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith((prefix, "." + prefix)):
                status = entry.stat()
                files.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return state.run, is_elsewhere(state), tuple(living), tuple(sorted(files))


def _count_lines(path: str) -> int:
    count = 0
    with open(path, "rb", buffering=0, opener=_fs.open_file) as file:
        while block := file.read(1 << 16):
            count += block.count(b"\n")
    return count
