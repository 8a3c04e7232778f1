"""What is true of a folder queue right now."""

from __future__ import annotations

import os

from persistq import _processes
from persistq._journal.names import prefix_of
from persistq._survey.hand import ALIVE, DEAD, ELSEWHERE, SHOWN, InHand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable
    from typing import Any


class Producers:
    """The producers of a folder queue, by what their control files say.

    Attributes:
        open (int): Announced, not closed, and alive or on a host that cannot be asked.
        closed (int): Put all that they had.
        dead (int): Announced and not closed, by a process of this host that no longer lives.
    """

    def __init__(self, open: int = 0, closed: int = 0, dead: int = 0) -> None:
        self.open = open
        self.closed = closed
        self.dead = dead


class FolderSurvey:
    """A folder queue.

    Args:
        path (str): The queue's folder.
        extension (str): The message extension with its leading dot.
        done_folder (str | None): Where finished files go, if they are to be counted.
        items (Collection[str] | None): What makes a group complete, where groups are looked at.
        locate (((name: str) -> tuple[str, str] | None) | None): Gives a name's group and item.
        holds_journals (bool): Whether journals live here too, whose files are no messages.

    Attributes:
        waiting (int): Messages that nobody has taken.
        in_progress (list[InHand]): Claimed files, by process and host.
        done (int | None): Messages in `done_folder`.
        producers (Producers): Who still puts.
        failed (bool): Whether consumers meet FAILED.
        ended (bool): Whether consumers meet DONE once no message waits.
        incomplete (dict[str, list[str]]): What each incomplete group misses.
        others (int): Files that are none of the queue's: of another extension, for instance.
        last_activity_s (float): When the folder last changed, in seconds since the epoch.

    Raises:
        OSError: The folder cannot be read.
    """

    kind = "folder"

    def __init__(
        self,
        path: str,
        extension: str = ".tsv",
        done_folder: str | None = None,
        items: Collection[str] | None = None,
        locate: Callable[[str], tuple[str, str] | None] | None = None,
        holds_journals: bool = False,
    ) -> None:
        from persistq._folder import names

        self.path = path
        self.others = 0
        self.last_activity_s = os.stat(path).st_mtime
        waiting: list[str] = []
        claims: list[tuple[str, int, str]] = []
        controls: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if name.endswith(extension):
                    if entry.is_file() and not (holds_journals and prefix_of(name)):
                        waiting.append(name)
                elif name.endswith(names.WIP) and (parts := names.parse_wip(name)):
                    claims.append((name, parts[0], parts[1]))
                elif name.endswith(names.CONTROL):
                    controls.append(name)
                else:
                    self.others += 1
        self.waiting = len(waiting)
        self.in_progress = self._look_at_claims(claims)
        self._look_at_producers(controls)
        self.done = None if done_folder is None else _count_messages(done_folder, extension)
        self.incomplete: dict[str, list[str]] = {}
        if items is not None and locate is not None:
            self._look_at_groups(waiting, frozenset(items), locate)

    def _look_at_claims(self, claims: list[tuple[str, int, str]]) -> list[InHand]:
        from persistq._folder import names

        if not claims:
            return []
        here = names.host_digits(_processes.machine_fqdn(), _processes.pid_namespace())
        starts_s: dict[int, float | None] = {}
        hands: dict[tuple[str, int, str], InHand] = {}
        for name, pid, host in sorted(claims):
            try:
                since_s = os.lstat(os.path.join(self.path, name)).st_ctime
            except FileNotFoundError:
                continue  # finished meanwhile
            state = ELSEWHERE
            if host == here:
                if pid not in starts_s:
                    starts_s[pid] = _processes.process_start_s(pid)
                state = _state(starts_s[pid], since_s)
            key = (host, pid, state)
            hand = hands.get(key)
            if hand is None:
                hand = hands[key] = InHand(pid, host, state, 0, since_s, [])
            hand.count += 1
            hand.since_s = min(hand.since_s, since_s)
            if len(hand.messages) < SHOWN:
                hand.messages.append(os.fsencode(name))
        return [hands[key] for key in sorted(hands)]

    def _look_at_producers(self, controls: list[str]) -> None:
        from persistq._folder import control, names

        announced: dict[tuple[str, str, str], float] = {}
        finished = set()
        self.failed = by_hand = False
        for name in controls:
            path = os.path.join(self.path, name)
            found, producer = control.read(path)
            if not found:
                continue
            if name.endswith(names.FAILED) or (producer is None and name.endswith(names.HELO)):
                self.failed = True
            if producer is None:
                by_hand |= name.endswith(names.DONE)
            elif name.endswith(names.HELO):
                try:
                    announced[producer] = os.stat(path).st_mtime
                except FileNotFoundError:
                    continue
            else:
                finished.add(producer)
        self.producers = Producers(closed=len(finished))
        self.ended = by_hand or (bool(finished) and announced.keys() <= finished)
        fqdn = _processes.machine_fqdn() if announced.keys() - finished else ""
        for producer in announced.keys() - finished:
            start_s: float | None = float("-inf")
            if producer[0] == fqdn and producer[1].isdecimal():
                start_s = _processes.process_start_s(int(producer[1]))
            if _state(start_s, announced[producer]) == ALIVE:
                self.producers.open += 1
            else:
                self.producers.dead += 1

    def _look_at_groups(
        self,
        waiting: list[str],
        items: frozenset[str],
        locate: Callable[[str], tuple[Hashable, Hashable] | None],
    ) -> None:
        from persistq._folder.grouped import Groups

        groups = Groups(locate, items)
        for name in waiting:
            groups.add(name)
        self.incomplete = {
            str(group): sorted(map(str, missing))
            for group, missing in groups.parts().items()
            if missing
        }

    @property
    def outstanding(self) -> int:
        """How many messages wait or are in progress."""
        return self.waiting + sum(hand.count for hand in self.in_progress)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is outstanding, and no producer failed, died or may put more."""
        producers = self.producers
        return not (
            self.outstanding
            or self.failed
            or ((producers.open or producers.dead) and not self.ended)
        )

    @property
    def needs_attention(self) -> bool:
        """Whether a person must look: a failure, or what is left of the dead, or with nobody."""
        hands = self.in_progress
        is_anybody_there = self.producers.open or any(hand.state != DEAD for hand in hands)
        return bool(
            self.failed
            or self.producers.dead
            or any(hand.state == DEAD for hand in hands)
            or (self.outstanding and not is_anybody_there)
        )

    @property
    def is_queue(self) -> bool:
        """Whether there is anything of a folder queue at all."""
        counts = vars(self.producers).values()
        return bool(self.outstanding or self.failed or self.ended or any(counts))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "kind": self.kind,
            **vars(self),
            "outstanding": self.outstanding,
            "in_progress": [hand.as_dict() for hand in self.in_progress],
            "producers": vars(self.producers),
        }


def _state(start_s: float | None, since_s: float) -> str:
    if start_s is None or start_s > since_s + _processes.YOUNGER_S:
        return DEAD
    return ALIVE


def _count_messages(folder: str, extension: str) -> int:
    with os.scandir(folder) as entries:
        return sum(
            entry.name.endswith(extension) and not entry.name.startswith(".") for entry in entries
        )
