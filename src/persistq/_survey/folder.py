"""What is true of a folder queue right now."""

from __future__ import annotations

import errno
import os

from persistq._journal.names import prefix_of
from persistq._survey.hand import ALIVE, DEAD, ELSEWHERE, SHOWN, InHand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable
    from typing import Any

    from persistq._folder.identity import Verdicts


# So many leases and control files are asked at most for what they say of the extension.
_ASKED = 100
# So many kinds of files that are none of the queue's are told.
_KINDS = 10
_DEFAULT = ".tsv"


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
        self.last_activity_s = os.stat(path).st_mtime
        listing = Listing(path, extension, ignore_case)
        waiting = [name for name in listing.messages if not (holds_journals and prefix_of(name))]
        self.others = listing.others
        self.other_kinds = _kinds(path, extension) if listing.others else {}
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
        self.done = None if done_folder is None else _count_messages(done_folder, extension)
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


def _kinds(folder: str, extension: str) -> dict[str, int]:
    """Count the files of a folder that are none of a queue's by how they end."""
    from collections import Counter

    from persistq._folder import names

    ours = (extension, names.WIP, names.REJECTED, *names.CONTROL)
    with os.scandir(folder) as entries:
        found = Counter(
            os.path.splitext(entry.name)[1]
            for entry in entries
            if not entry.name.startswith(".") and not entry.name.endswith(ours)
        )
    return dict(found.most_common(_KINDS))


def _count_messages(folder: str, extension: str) -> int:
    with os.scandir(folder) as entries:
        return sum(
            entry.name.endswith(extension) and not entry.name.startswith(".") for entry in entries
        )


def extensions_in(folder: str) -> list[str]:
    """Give the message extensions of those who use a folder, by their leases and control files.

    Args:
        folder (str): Path of the folder.

    Returns:
        list[str]: With their leading dots, sorted; none where nobody says.
    """
    from persistq import _lease
    from persistq._folder import control, names

    try:
        there = os.listdir(folder)
    except OSError:
        return []
    leases = [name for name in there if names.parse_lease(name)]
    # The latest of each: a folder may have been used for years.
    controls = sorted(name for name in there if name.endswith((names.HELO, names.DONE)))
    said = [_lease.read(os.path.join(folder, name)) for name in leases[-_ASKED:]]
    said += [control.header_of(os.path.join(folder, name)) for name in controls[-_ASKED:]]
    found = set()
    for facts in said:
        extension = facts.get("messageExtension")
        if isinstance(extension, str) and extension:
            found.add("." + extension.lstrip("."))
    if not found:
        # Of what was set aside: it was a message, and keeps its name.
        rejected = [name[: -len(names.REJECTED)] for name in there if name.endswith(names.REJECTED)]
        found = {ending for name in rejected if (ending := os.path.splitext(name)[1])}
    return sorted(found)


def extension_of(folder: str, named: str | None) -> str:
    """Give the message extension of a queue.

    Args:
        folder (str): Path of its folder.
        named (str | None): What the user says; None: what those who use the folder say.

    Returns:
        str: With its leading dot; `.tsv` where nobody says.

    Raises:
        ValueError: There are several.
    """
    from persistq._folder.names import dotted

    if named is not None:
        return dotted(named)
    found = extensions_in(folder)
    if len(found) > 1:
        raise ValueError(
            f"{folder} is the folder of queues of several extensions ({', '.join(found)}); say "
            "which with --extension"
        )
    return found[0] if found else _DEFAULT


def is_guessed(folder: str, named: str | None) -> bool:
    """Tell whether a queue's extension is a mere guess, and the files of its folder speak against.

    Args:
        folder (str): Path of the folder.
        named (str | None): What the user says.
    """
    if named is not None or extensions_in(folder):
        return False
    queue = FolderSurvey(folder, _DEFAULT)
    return any(queue.other_kinds) and not queue.waiting  # not by a README or the like


def against_the_guess(folder: str) -> str:
    """Say what speaks against the extension that is guessed for a folder."""
    kinds = ", ".join(filter(None, FolderSurvey(folder, _DEFAULT).other_kinds))
    return (
        f"{folder}: nothing waits that ends with {_DEFAULT}, and nobody says how messages end, but "
        f"there are files of other kinds ({kinds}); --extension says how messages end"
    )


def extension_for_renames(folder: str, named: str | None) -> str:
    """Give the message extension of a queue whose files are to get it; else as `extension_of`.

    Raises:
        ValueError: There are several; or nobody says, and the files speak against a guess.
    """
    found = extension_of(folder, named)
    if is_guessed(folder, named):
        raise ValueError(f"{against_the_guess(folder)}. Nothing has been changed.")
    return found


def extension_of_existing(folder: str, named: str | None) -> str:
    """Give the message extension of a queue whose folder must be there; else as `extension_of`.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    from persistq._folder.names import dotted

    if named is not None:
        dotted(named)  # what is wrong with it comes first
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    return extension_of(folder, named)


def extension_of_claim(path: str, named: str | None, renames: bool = True) -> tuple[str, bool]:
    """Give the message extension of a claimed file, as its lease knows it.

    Args:
        path (str): Path of the claimed file.
        named (str | None): What the user says; None: what is known.
        renames (bool): Whether the file is to get its own name, so that no guess will do.

    Returns:
        tuple[str, bool]: With its leading dot; and whether it counts in other letters, too.
    """
    from persistq import _lease
    from persistq._folder.names import dotted, lease_name, parse_wip

    folder, name = os.path.split(os.path.abspath(path))
    parts = parse_wip(name)
    said = _lease.read(os.path.join(folder, lease_name(parts[0], parts[1]))) if parts else {}
    ignore_case = said.get("ignoreCase") is True
    if named is not None:
        return dotted(named), ignore_case
    known = said.get("messageExtension")
    if isinstance(known, str) and known:
        return dotted(known), ignore_case
    find = extension_for_renames if renames else extension_of
    return find(folder, None), False
