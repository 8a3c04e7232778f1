"""Who takes part in a folder: which numbers its files bear, and whether it still lives.

Ten digits, drawn at random, number each claimer, and stand in the names of what it claims; the
uuids of this process's producers end with the same digits. A lease of that number, which the
process holds locked, says that it lives (see `persistq._lease`). A shell script, for which one
short command after the other acts, can hold no lock: its lease names the process instead.

Files without a lease are those of persistq 0.1 and of the original, whose ten digits stand for
a host. They are judged by process id, where the host is certainly this one.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time

from persistq import _fs, _lease, _processes
from persistq._folder import names
from persistq._turn import Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_log = logging.getLogger("persistq")

# Seconds between two tries to make a lease where the file system refuses it.
_REFUSED_PAUSE_S = 1.0
# So many claims are remembered before those are forgotten that others have finished.
_REMEMBERED = 1000
# What a reclaimer must not take back, for it is the other name of a file that waits.
PUBLISHER = "publisher"
# What it must put back as one.
GROUPS = "group consumer"


class Claimer:
    """One number by which files are claimed, and its lease, made when it is first needed.

    Args:
        folder (str): Path of the queue's folder.
        facts (dict[str, Any]): What the lease says besides who holds it.

    Attributes:
        digits (str): The ten digits.
        prefix (str): What the names of its claimed files begin with.
        lease (_lease.Lease | None): None until something is claimed or announced.
        claimed (set[str]): Paths of what this process has claimed and not finished itself.
        turn (Turn): Of whichever queue of this process does something by this number.
        lock (threading.RLock): Its lock.
        producers (set[str]): The uuids of producers that are announced and not closed.
    """

    def __init__(self, folder: str, facts: dict[str, Any], pid: int | None = None) -> None:
        self.folder = folder
        self.facts = facts
        self.lease: _lease.Lease | None = None
        self.claimed: set[str] = set()
        self.producers: set[str] = set()
        self.turn = Turn()
        self.lock = self.turn.lock
        self._pid = os.getpid() if pid is None else pid
        self._next_try_s = 0.0
        self._remembered = _REMEMBERED
        self._publisher: Claimer | None = None
        self.number(f"{int.from_bytes(os.urandom(8), 'big') % 10**10:010d}")

    def number(self, digits: str) -> None:
        """Take other digits; only before anything bears those that were drawn."""
        self.digits = digits
        self.prefix = names.wip_prefix(self._pid, digits)
        self.path = os.path.join(self.folder, names.lease_name(self._pid, digits))

    def hold(self) -> None:
        """Have a lease from here on, before anything bears this number.

        Where none can be made (a full disk, no descriptor left), that is logged, and things go on
        without: consumers are what empties a full disk. Nobody takes their work for a dead one's,
        and only a reset puts it back.
        """
        if self.lease is not None:
            return
        with self.lock:
            self.turn.come()
            if self.lease is not None or time.monotonic() < self._next_try_s:
                return
            try:
                self.lease = _lease.Lease(self.path, self.facts)
            except OSError as error:
                self._next_try_s = time.monotonic() + _REFUSED_PAUSE_S
                if error.errno != errno.ENOENT:
                    _log.warning(
                        "%s: no lease can be made (%s): if this process dies, only a reset puts "
                        "back what it has claimed",
                        self.folder,
                        error,
                    )

    def staged(self, folder: str) -> str:
        """Give the path of a new temporary file in a folder, whose owner can be told."""
        self.hold()
        own = names.TEMPORARY + self.prefix + os.urandom(16).hex()
        return os.path.join(folder, f"{own}.tmp")

    def publisher(self) -> Claimer:
        """Give the number under which files are held for a moment on their way to their name."""
        if self._publisher is None:
            # Of this very process, for whomever it acts.
            said = {**self.facts, "role": PUBLISHER, "publishesFor": self.facts.get("role")}
            self._publisher = Claimer(self.folder, _without_actor(said))
        return self._publisher

    def remember(self, path: str) -> None:
        """Note that a file is about to be claimed."""
        self.claimed.add(path)

    def _forget_the_finished(self) -> None:
        # In place, for a claim that is under way in another thread has the set in hand.
        gone = [path for path in [*self.claimed] if not os.path.lexists(path)]
        self.claimed.difference_update(gone)
        self._remembered = max(_REMEMBERED, 2 * len(self.claimed))

    def end(self) -> None:
        """Give the lease back at the end of the process, unless something still refers to it."""
        if self.producers:
            # What others have purged, or closed, is nobody's any more.
            there = [name for name in os.listdir(self.folder) if name.endswith(names.CONTROL)]
            self.producers = {
                uuid
                for uuid in self.producers
                if any(name.endswith(uuid + names.HELO) for name in there)
                and not any(name.endswith(uuid + names.DONE) for name in there)
            }
        self.let_go()

    def let_go(self) -> None:
        """Give the lease back, unless something still refers to it."""
        with self.lock:
            self.turn.come()
            if self._publisher is not None:
                self._publisher.let_go()
            if self.lease is None or self.producers:
                return
            self._forget_the_finished()
            if not self.claimed:
                self.lease.release()
                self.lease = None

    def renew(self) -> None:
        """Make the lease anew, if it has been taken from the folder while this process lives."""
        if len(self.claimed) > self._remembered:
            self._forget_the_finished()  # by other processes
        with self.lock:
            self.turn.come()
            if self.lease is not None and not os.path.lexists(self.path):
                self.lease.abandon()
                self.lease = None
                self._forget_the_finished()
                if self.claimed or self.producers:
                    self.hold()


class ShellClaimer(Claimer):
    """The number of a process for which commands act, one after the other.

    Its lease names that process, and is locked only while a command claims by it: so of two
    commands at once, the second draws a number of its own, and they never share a claim.

    Args:
        folder (str): Path of the queue's folder.
        facts (dict[str, Any]): What the lease says.
        pid (int): The process for which is acted.
        key (str): What tells it from all others (`_processes.process_key`).
        digits (str): Its ten digits, the same for each command.
    """

    def __init__(self, folder: str, facts: dict[str, Any], pid: int, key: str, digits: str) -> None:
        acting = {"pid": pid, "key": key, "kernel": _processes.kernel_key()}
        super().__init__(folder, {**facts, "for": acting}, pid)
        self._drawn = self.digits
        self._adopted = -1
        self.number(digits)

    def hold(self) -> None:
        """Have the lease locked, or one of another number; before anything bears it."""
        with self.lock:
            self.turn.come()
            if self._adopted >= 0 or self.lease is not None:
                return
            if not os.path.lexists(self.path):
                super().hold()
            if self.lease is None and self.digits != self._drawn:
                self._adopted = _lease.lock(self.path)
                if self._adopted < 0:
                    self.number(self._drawn)
                    super().hold()

    def announce(self) -> None:
        """Have the lease in the folder, locked by nobody."""
        if not os.path.lexists(self.path):
            super().hold()
            self.leave()

    def leave(self) -> None:
        """Leave the lease to the process for which is acted: locked by nobody."""
        with self.lock:
            self.turn.come()
            if self.lease is not None:
                self.lease.abandon()
                self.lease = None
            if self._adopted >= 0:
                os.close(self._adopted)
                self._adopted = -1

    def let_go(self) -> None:
        """Remove the lease, unless something in the folder still refers to it; else leave it."""
        with self.lock:
            self.turn.come()
            if not self._is_needed():
                try:
                    os.unlink(self.path)
                except OSError:
                    pass
            self.leave()
            if self._publisher is not None:
                self._publisher.let_go()

    def _is_needed(self) -> bool:
        try:
            there = os.listdir(self.folder)
        except OSError:
            return True
        open_ones = set()
        for name in there:
            if name.startswith(self.prefix) and name.endswith(names.WIP):
                return True
            control = names.parse_control(name)
            if control is not None and names.claimer_of_uuid(control[1]) == self.digits:
                if name.endswith(names.DONE):
                    return False
                open_ones.add(control)
        return bool(open_ones)


# This process's numbers, by folder and extension: queues of one process share their claims.
_members: dict[tuple[str, str, bool, bool], Claimer] = {}
_members_lock = threading.Lock()
_ends_watched = False


def _forget_the_parents() -> None:
    global _members_lock, _ends_watched
    _members_lock = threading.Lock()
    _members.clear()
    _ends_watched = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents)


def member(folder: str, extension: str, ignore_case: bool, role: str) -> Claimer:
    """Give the number by which this process takes part in a folder.

    Args:
        folder (str): Absolute path of the folder.
        extension (str): The message extension with its leading dot.
        ignore_case (bool): Whether the extension counts in other letters, too.
        role (str): What a lease that is made here says that its holder is.
    """
    key = (folder, extension, ignore_case, role == GROUPS)
    found = _members.get(key)
    if found is None:
        with _members_lock:
            found = _members.get(key)
            if found is None:
                found = _members[key] = Claimer(folder, facts(extension, ignore_case, role))
                _watch_the_end()
    return found


def facts(extension: str, ignore_case: bool, role: str) -> dict[str, Any]:
    """Give what a lease says of the queue it is for."""
    said: dict[str, Any] = {"role": role, "messageExtension": extension}
    return {**said, "ignoreCase": True} if ignore_case else said


def has_groups(said: dict[str, Any]) -> bool:
    """Tell whether what a claimer has is to be put back as one, by what its lease says."""
    return said.get("role") == GROUPS or (
        said.get("role") == PUBLISHER and said.get("publishesFor") == GROUPS
    )


def _without_actor(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key != "for"}


def _watch_the_end() -> None:
    """Give leases back at a clean end, so that nobody need look whether they are a dead one's."""
    global _ends_watched
    if _ends_watched:
        return
    _ends_watched = True
    import atexit
    import sys

    atexit.register(_let_all_go, os.getpid())
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # Children of multiprocessing end without what atexit has.
        util.Finalize(None, _let_all_go, (os.getpid(),), exitpriority=-100)


def _let_all_go(pid: int) -> None:
    if pid == os.getpid():
        for number in [*_members.values()]:
            try:
                number.end()
            except OSError:
                pass  # the folder cannot be reached: others see to the lease


def is_dead(path: str) -> bool | None:
    """Tell whether the process that a lease stands for has died.

    Args:
        path (str): The lease's path.

    Returns:
        bool | None: True is proof of death; None where nothing is proved; False of one that
        lives, or whose lease is gone.
    """
    verdict = _lease.is_dead(path)
    if verdict is False:
        return False
    acting = _lease.read(path).get("for")
    if not isinstance(acting, dict):
        return verdict
    pid = acting.get("pid")
    if not isinstance(pid, int) or acting.get("kernel") != _processes.kernel_key():
        # Of another boot of this machine `_lease` knows; of another machine or container, nobody.
        return True if _is_of_an_earlier_boot(acting) else None
    return _processes.process_key(pid) != acting.get("key")


def _is_of_an_earlier_boot(acting: dict[str, Any]) -> bool:
    there = str(acting.get("kernel")).split(" ")
    here = _processes.kernel_key().split(" ")
    if len(there) < 3 or len(here) < 3 or not (here[1] and here[2] and there[2]):
        return False
    return there[:2] == here[:2] and there[2] != here[2]


class Verdicts:
    """Who of a folder lives, each asked once.

    Args:
        folder (str): Path of the queue's folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[tuple[int, str], tuple[bool | None, dict[str, Any] | None]] = {}
        self._digits_here: frozenset[str] | None = None

    def of(self, pid: int, digits: str) -> tuple[bool | None, dict[str, Any] | None]:
        """Tell whether a claimer has died.

        Args:
            pid (int): Its process id, as in the names of its files.
            digits (str): Its ten digits.

        Returns:
            tuple[bool | None, dict[str, Any] | None]: Whether it has died (None: nothing is
            proved), and what its lease says; None where it has none.
        """
        key = (pid, digits)
        if key not in self._known:
            path = os.path.join(self._folder, names.lease_name(pid, digits))
            if os.path.lexists(path):
                said = _lease.read(path)
                self._known[key] = is_dead(path), said
            else:
                self._known[key] = self._without_lease(pid, digits), None
        return self._known[key]

    def _without_lease(self, pid: int, digits: str) -> bool | None:
        if digits not in self._of_this_host():
            return None
        # This process draws its digits: what bears those of its host is another's of its id.
        return pid == os.getpid() or _processes.process_start_s(pid) is None

    def _of_this_host(self) -> frozenset[str]:
        """Give the ten digits under which persistq 0.1 claims on this host."""
        if self._digits_here is None:
            # Several hosts may have a name that says nothing; on a disk of its own there is one.
            alone = _fs.reports_every_change(self._folder, os.stat(self._folder).st_dev)
            namespace = _processes.pid_namespace()
            self._digits_here = frozenset(
                names.host_digits(name, namespace)
                for name in _processes.names_of_this_host()
                if alone or not _processes.is_anybodys(name)
            )
        return self._digits_here

    def is_of_this_host(self, digits: str) -> bool:
        """Tell whether ten digits are those under which persistq 0.1 claims on this host."""
        return digits in self._of_this_host()
