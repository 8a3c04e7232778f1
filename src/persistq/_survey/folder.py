"""What is true of a folder queue right now."""

from __future__ import annotations

import os

from persistq._journal.names import prefix_of
from persistq._survey.hand import ALIVE, DEAD, ELSEWHERE, SHOWN, InHand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable
    from typing import Any

    from persistq._folder.identity import Verdicts


# So many kinds of files that are none of the queue's are told.
_KINDS = 10


class Producers:
    """The producers of a folder queue, by what their control files say.

    Attributes:
        open (int): Announced, not closed, and not known to be dead.
        closed (int): Put all that they had.
        dead (int): Announced and not closed, by a process that no longer lives.
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
        failed_folder (str | None): Where files go that are set aside, besides the folder itself.
        ignore_case (bool): Whether the extension counts in other letters, too.

    Attributes:
        waiting (int): Messages that nobody has taken.
        in_progress (list[InHand]): Claimed files, by process and host.
        done (int | None): Messages in `done_folder`.
        producers (Producers): Who still puts.
        failed (bool): Whether consumers meet FAILED.
        ended (bool): Whether consumers meet DONE once no message waits.
        incomplete (dict[str, list[str]]): What each incomplete group misses.
        odd (dict[str, str]): Names that end like a message's, and why none can have them.
        set_aside (int): Files that could not be done.
        others (int): Files that are none of the queue's: of another extension, for instance.
        other_kinds (dict[str, int]): How these end, the most frequent first, and how many.
        present (frozenset[str]): The names of messages that wait or are in progress, as on the
            queue. For who looks again; JSON does not say them.
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
        failed_folder: str | None = None,
        ignore_case: bool = False,
    ) -> None:
        from persistq._folder import failing, identity, names
        from persistq._folder.listing import Listing

        self.path = path
        self.extension = extension
        self.ignore_case = ignore_case
        self.last_activity_s = os.stat(path).st_mtime
        listing = Listing(path, extension, ignore_case)
        waiting = [name for name in listing.messages if not (holds_journals and prefix_of(name))]
        self.others = listing.others
        self.other_kinds = _kinds(path, extension, ignore_case) if listing.others else {}
        self.odd = dict(sorted(listing.odd.items()))
        for name in [*waiting]:
            if not names.fits_when_claimed(name, extension):
                waiting.remove(name)
                self.odd[name] = "its name is too long for a claim"
        self.set_aside = len(
            failing.list_failed(path, extension, failed_folder, ignore_case)
            if failed_folder is not None
            else listing.rejected
        )
        parsed = [(name, names.parse_wip(name)) for name in listing.claims]
        claims = [(name, *parts) for name, parts in parsed if parts is not None]
        verdicts = identity.Verdicts(path)
        self.waiting = len(waiting)
        self.in_progress = self._look_at_claims(claims, verdicts)
        self.present = frozenset(waiting).union(
            names.original_name(stem, extension, ignore_case) for _, _, _, stem in claims
        )
        self._look_at_producers(listing.controls, verdicts)
        self.done = (
            None if done_folder is None else _count_messages(done_folder, extension, ignore_case)
        )
        self.incomplete: dict[str, list[str]] = {}
        if items is not None and locate is not None:
            self._look_at_groups(waiting, frozenset(items), locate)

    def _look_at_claims(
        self, claims: list[tuple[str, int, str, str]], verdicts: Verdicts
    ) -> list[InHand]:
        hands: dict[tuple[str, int, str], InHand] = {}
        for name, pid, claimer, _ in sorted(claims):
            try:
                since_s = os.lstat(os.path.join(self.path, name)).st_ctime
            except FileNotFoundError:
                continue  # finished meanwhile
            dead, said = verdicts.of(pid, claimer)
            state = DEAD if dead else ELSEWHERE if dead is None else ALIVE
            if said is not None and "for" in said:
                # Of a shell script, each claim of which has a number of its own.
                claimer = ""
            key = (claimer, pid, state)
            hand = hands.get(key)
            if hand is None:
                host = str(said.get("host", "")) if said else claimer
                hand = hands[key] = InHand(pid, host, state, 0, since_s, [])
            hand.count += 1
            hand.since_s = min(hand.since_s, since_s)
            if len(hand.messages) < SHOWN:
                hand.messages.append(os.fsencode(name))
        return [hands[key] for key in sorted(hands)]

    def _look_at_producers(self, controls: Collection[str], verdicts: Verdicts) -> None:
        from persistq._folder import control

        found = control.Producers(self.path)
        found.look(controls)
        self.failed, self.ended = found.failed, found.done
        dead = len(found.dead(verdicts))
        self.producers = Producers(len(found.open) - dead, len(found.finished), dead)

    def _look_at_groups(
        self,
        waiting: list[str],
        items: frozenset[str],
        locate: Callable[[str], tuple[Hashable, Hashable] | None],
    ) -> None:
        from persistq._folder.groups import Groups

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
            or self.set_aside
            or self.producers.dead
            or any(hand.state == DEAD for hand in hands)
            or (self.outstanding and not is_anybody_there)
        )

    @property
    def is_queue(self) -> bool:
        """Whether there is anything of a folder queue at all."""
        counts = vars(self.producers).values()
        return bool(self.outstanding or self.set_aside or self.failed or self.ended or any(counts))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can say."""
        said = {**vars(self)}
        del said["present"]
        return {
            "kind": self.kind,
            **said,
            "outstanding": self.outstanding,
            "in_progress": [hand.as_dict() for hand in self.in_progress],
            "producers": vars(self.producers),
        }


def _kinds(folder: str, extension: str, ignore_case: bool) -> dict[str, int]:
    """Count the files of a folder that are none of a queue's by how they end."""
    from collections import Counter

    from persistq._folder import names

    ours = (names.WIP, names.REJECTED, *names.CONTROL)
    with os.scandir(folder) as entries:
        found = Counter(
            os.path.splitext(entry.name)[1]
            for entry in entries
            if not entry.name.startswith(".")
            and not entry.name.endswith(ours)
            and not names.is_message(entry.name, extension, ignore_case)
        )
    return dict(found.most_common(_KINDS))


def _count_messages(folder: str, extension: str, ignore_case: bool) -> int:
    from persistq._folder import names

    with os.scandir(folder) as entries:
        return sum(names.is_message(entry.name, extension, ignore_case) for entry in entries)
