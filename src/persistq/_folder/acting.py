"""How one process takes part in a folder queue for another: a command for the shell that calls it.

Each command is a process of its own and soon gone. What it claims must not look abandoned then,
and what it announces must be one producer from the first `put` to `close`. So its leases name the
process that calls, and the producer's uuid is made from that process's id and start. Each command
that claims draws a number of its own: two of one shell never share a claim.
"""

from __future__ import annotations

import os

from persistq import _lease, _processes
from persistq._folder import control, identity, names
from persistq._folder.identity import ShellClaimer
from persistq._folder.readable import ReadableFolderQueue
from persistq._folder.writable import WritableFolderQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What makes a process group of its own for the command that it runs, and ends with it.
_WRAPPERS = {"timeout"}


class Actor:
    """A living process of this machine, for which another acts.

    Args:
        pid (int): Its id.

    Attributes:
        pid (int): Its id.
        key (str): What tells it from all others.

    Raises:
        ProcessLookupError: No such process lives.
    """

    def __init__(self, pid: int) -> None:
        key = _processes.process_key(pid)
        if key is None:
            raise ProcessLookupError(
                f"no process {pid} lives on this machine; expected the id of the process that "
                "takes part in the queue"
            )
        self.pid = pid
        self.key = key

    def lives(self) -> bool:
        """Tell whether it still lives, and its id is not another's by now."""
        return _processes.process_key(self.pid) == self.key

    def uuid(self) -> str:
        """Give the uuid of the producer that it is: the same at each call."""
        import hashlib
        import uuid

        digest = hashlib.sha256(self.key.encode("utf-8", "surrogateescape")).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


def caller() -> int:
    """Give the id of the process that this command acts for, where nobody says.

    A shell starts many a command from a process between: `$(...)` with a redirection, a pipe, an
    `xargs`. What they have in common is the process group, whose leader is the script; where that
    is none of those that led here (an interactive shell gives each command a group of its own),
    it is the parent.
    """
    ancestors = _processes.ancestors()
    parent = ancestors[0] if ancestors else os.getppid()
    group = _processes.process_group(os.getpid())
    rest = ancestors
    while group in rest:
        above = rest[rest.index(group) + 1 :]
        if _processes.command_of(group) not in _WRAPPERS or not above:
            return group
        rest, parent = above, above[0]
        group = _processes.process_group(parent)
    return parent


class ActingWriter(WritableFolderQueue):
    """A producer whose calls come from several processes, for one that outlives them.

    What earlier calls announced, or closed, is found in the folder.

    Args:
        actor (Actor): The producer.
        path (str): The queue's folder.
        message_extension (str): As for any folder queue.
        **options (Any): As for any folder queue.
    """

    def __init__(self, actor: Actor, path: str, message_extension: str, **options: Any) -> None:
        self._actor = actor
        super().__init__(path, message_extension, **options)
        ending = f"_{actor.uuid()}"
        kinds = {
            os.path.splitext(name)[1]
            for name in _names_in(self.path)
            if control.is_control(name) and os.path.splitext(name)[0].endswith(ending)
        }
        self._closed = bool(kinds & {names.DONE, names.FAILED})
        self._failed = names.FAILED in kinds

    def _announce(self) -> None:
        if self._announced:
            return
        # Two calls at once may both announce: of one producer, so nobody minds.
        self._hold_for_the_actor()
        ending = f"_{self._uuid}{names.HELO}"
        if self.announce and not any(name.endswith(ending) for name in _names_in(self.path)):
            self._write_control(names.HELO)
        self._announced = True

    def _hold_for_the_actor(self) -> None:
        facts = identity.facts(self._extension, self.ignore_case, "producer")
        lease = ShellClaimer(self.path, facts, self._actor.pid, self._actor.key)
        lease.number(names.claimer_of_uuid(self._uuid))
        if self.announce and not os.path.lexists(lease.path):
            lease.hold()
            lease.leave()

    def _process_id(self) -> int:
        return self._actor.pid

    def _new_uuid(self) -> str:
        return self._actor.uuid()


def has_announced(pid: int, folder: str) -> bool:
    """Tell whether a process is a producer of a folder, by way of earlier commands.

    Args:
        pid (int): Its id.
        folder (str): Path of the queue's folder.
    """
    try:
        ending = f"_{Actor(pid).uuid()}{names.HELO}"
    except ProcessLookupError:
        return False
    return any(name.endswith(ending) for name in _names_in(folder))


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # a drop box, which one may write and not read


class ActingReader(ReadableFolderQueue):
    """A consumer whose calls come from several processes, for one that outlives them.

    Args:
        actor (Actor): The consumer.
        path (str): The queue's folder.
        message_extension (str): As for any folder queue.
        **options (Any): As for any folder queue.
    """

    def __init__(self, actor: Actor, path: str, message_extension: str, **options: Any) -> None:
        self._actor = actor
        super().__init__(path, message_extension, **options)

    def _process_id(self) -> int:
        return self._actor.pid

    def _find_member(self) -> identity.Claimer:
        facts = identity.facts(self._extension, self.ignore_case, "consumer")
        return ShellClaimer(self.path, facts, self._actor.pid, self._actor.key)

    def hand_over(self) -> None:
        """Leave what is claimed to the process for which this acts."""
        self._watch.close()
        assert isinstance(self._member, ShellClaimer)
        self._member.leave()


def clear_lease(claimed: str) -> None:
    """Remove the lease of a claim that a command made and that is finished now.

    Args:
        claimed (str): Path that the claimed file had. It was the only one of its number.
    """
    folder, name = os.path.split(claimed)
    parts = names.parse_wip(name)
    if parts is not None and not os.path.lexists(claimed):
        lease = os.path.join(folder, names.lease_name(parts[0], parts[1]))
        if "for" in _lease.read(lease):
            try:
                os.unlink(lease)
            except OSError:
                pass  # gone by now, or another user's in a sticky folder
