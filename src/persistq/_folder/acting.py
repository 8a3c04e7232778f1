"""How one process takes part in a folder queue for another: a command for the shell that calls it.

Each command is a process of its own and soon gone. What it claims must not look abandoned then,
and what it announces must be one producer from the first `put` to `close`. So its leases name the
process that calls, and their number and the producer's uuid are made from its id and start.
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

_SHELLS = {"sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "yash", "busybox"}
# What only runs a command, and ends with it.
_WRAPPERS = {"chrt", "env", "find", "flock", "ionice", "nice", "nohup", "parallel", "stdbuf"}
_WRAPPERS |= {"strace", "sudo", "taskset", "time", "timeout", "unshare", "xargs"}


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

    def claimer(self, folder: str, facts: dict[str, Any]) -> ShellClaimer:
        """Give the number by which it takes part in a folder.

        Args:
            folder (str): Path of the folder.
            facts (dict[str, Any]): What the lease says.
        """
        digits = names.claimer_of_uuid(self.uuid())
        return ShellClaimer(folder, facts, self.pid, self.key, digits)

    def ending_in(self, folder: str) -> tuple[str, bool] | None:
        """Give how messages end that it has to do with in a folder; None where no lease tells.

        Args:
            folder (str): Path of the folder.

        Returns:
            tuple[str, bool] | None: The extension, and whether it counts in other letters, too.
        """
        name = names.lease_name(self.pid, names.claimer_of_uuid(self.uuid()))
        said = _lease.read(os.path.join(folder, name))
        known = said.get("messageExtension")
        if not isinstance(known, str) or not known:
            return None
        return known, said.get("ignoreCase") is True


PRODUCER = "PERSISTQ_PRODUCER"
"""An environment variable: the id of the process for which commands put, close and fail. `persistq
work` sets it for what it runs, each of which ends long before all is put."""


def producer_of_surroundings() -> int | None:
    """Give the id of the living process that the environment names as producer, if there is one."""
    said = os.environ.get(PRODUCER, "")
    pid = int(said) if said.isdecimal() else 0
    return pid if pid and _processes.process_key(pid) is not None else None


def caller() -> int:
    """Give the id of the process that this command acts for, where nobody says.

    A shell starts many a command from a process between: `$(...)` with a redirection, a pipe, an
    `xargs`; and those end at once. So it is the outermost of the shells that led here, within one
    process group: its leader, mostly, which is the script. (An interactive shell gives each
    command a group of its own.) Where the parent is no shell, it is the parent.
    """
    return calling_shell() or _processes.ancestors()[0]


def calling_shell() -> int | None:
    """Give the id of the shell that this command acts for; None where the parent is none."""
    ancestors = _processes.ancestors()
    group = _processes.process_group(os.getpid())
    found = last = 0
    for pid in ancestors:
        own = _processes.process_group(pid)
        if own != group:
            if last != group:
                break
            group = own  # `timeout` leads a group that it has made, and ends with the command
        kind = _processes.program_of(pid)
        if kind in _SHELLS:
            found = pid
        elif kind not in _WRAPPERS:
            break
        last = pid if kind in _WRAPPERS else 0
    return found or None


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
        self._shell().announce()
        ending = f"_{self._uuid}{names.HELO}"
        if self.announce and not any(name.endswith(ending) for name in _names_in(self.path)):
            self._write_control(names.HELO)
        self._announced = True

    def _shell(self) -> ShellClaimer:
        facts = identity.facts(self._extension, self.ignore_case, "producer")
        return self._actor.claimer(self.path, facts)

    def _part(self) -> None:
        super()._part()
        self._shell().let_go()

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

    def _find_member(self) -> identity.Claimer:
        facts = identity.facts(self._extension, self.ignore_case, "consumer")
        member = self._actor.claimer(self.path, facts)
        member.hold()  # which decides the number
        return member

    # What bears the number and is not this command's is in hand of the shell.
    _hands_out_found = False

    def hand_over(self) -> None:
        """Leave what is claimed to the process for which this acts."""
        self._watch.close()
        assert isinstance(self._member, ShellClaimer)
        self._member.leave()
