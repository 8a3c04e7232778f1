"""How a copy of a queue takes part in a run: its lease, its tag, and where its files are.

Killed at any moment: the lease is there and free, so whoever asks knows that the process has died,
and the tag says which files were its own. The lease is removed when the copy ends and owes nothing.
"""

from __future__ import annotations

import os
import threading
import time
import weakref

from persistq import _fs
from persistq._journal.names import (
    CLOSED,
    COPY,
    LEFT,
    PRODUCER,
    WORKER,
    Names,
    next_free_tag,
)
from persistq._journal.run_state import RunState, Seal
from persistq._lease import Lease, is_dead
from persistq.exceptions import UpstreamFailureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# How often a process that is busy looks whether its run has been carried on.
_LOOK_S = 0.05

# In front of what has ended a process, in its lease.
ENDED = "ended by "

_memberships: weakref.WeakSet[Membership] = weakref.WeakSet()


def a_run_was_sealed() -> None:
    """Let this process's copies of any run look at once whether it is theirs."""
    while True:
        try:
            for membership in list(_memberships):
                membership.next_look_s = 0.0
            return
        except RuntimeError:
            pass  # another thread makes one just now


class Membership:
    """One copy's part in a run.

    Args:
        directory (str): The run's directory.
        prefix (str): The queue's prefix.
        run (str): The run's identity.
        ancestors (tuple[str, ...]): Paths of the leases of the processes that this copy comes
            from: it is an orphan when one of these has died.

    Attributes:
        run (str): The run's identity.
        names (Names): The names of its files.
        facts (() -> dict[str, Any]): Gives what its lease says besides.
        on_join (() -> None): Called when it has taken a lease.
        next_look_s (float): From when on, by the monotonic clock, `check` is to be called.
    """

    def __init__(
        self, directory: str, prefix: str, run: str, ancestors: tuple[str, ...] = ()
    ) -> None:
        self.directory = directory
        self.names = Names(prefix)
        self.run = run
        self.facts: Callable[[], dict[str, Any]] = dict
        self.on_join: Callable[[], object] = lambda: None
        self._ancestors = ancestors
        self._forget()
        _fs.watch_forks(self)
        _memberships.add(self)

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self.lease: Lease | None = None
        self._tag = ""
        self._role = COPY
        self._sealed_by: Seal | None = None
        self.next_look_s = 0.0
        self._seen: tuple[object, object] = (None, None)

    def _after_fork(self) -> None:
        """In a forked child: be a copy of its own, which joins when it is first used."""
        if self.lease is not None:
            self._ancestors = self.ancestors()
        self._forget()

    def ancestors(self) -> tuple[str, ...]:
        """Return the leases that a copy of this copy depends on."""
        if self.lease is None or self.lease.path in self._ancestors:
            return self._ancestors
        return (*self._ancestors, self.lease.path)

    @property
    def is_in(self) -> bool:
        """Whether this copy holds a lease."""
        return self.lease is not None

    def join(self, role: str = COPY) -> None:
        """Take a lease, if this copy has none, and say what it is.

        A copy that first gets is a worker, one that first puts a producer, and stays that.

        Args:
            role (str): COPY, MAIN, WORKER or PRODUCER.

        Raises:
            OSError: The lease cannot be made, or the run's directory is gone.
        """
        with self._lock:
            if self.lease is None:
                with _fs.folder_lock(self.directory):
                    self.join_under_lock(role)
            elif self._role == COPY and role in (WORKER, PRODUCER):
                self._become(role)

    def close(self) -> None:
        """Say that this copy will put no more, so that its death is not that of a producer."""
        with self._lock:
            if self.lease is not None and self._role == PRODUCER:
                self._become(CLOSED)
            elif self.lease is not None:
                # The main process's lease keeps its name, by which others know it.
                self.lease.note(CLOSED)

    def _become(self, role: str) -> None:
        name = self.names.lease(role, self.run, self._tag)
        self.lease.rename(os.path.join(self.directory, name))  # type: ignore[union-attr]
        self._role = role

    @property
    def role(self) -> str:
        """What this copy is by now: one of `names.ROLES`."""
        return self._role

    def join_under_lock(self, role: str) -> None:
        """Do the same; the caller holds the directory's lock, so that no two take one tag."""
        with self._lock:
            state = RunState(self.directory, self.names.prefix)
            tag = self._tag  # it has disposed of the queue, and uses it again
            if not tag or any(member.name.tag == tag for member in state.members):
                tag = next_free_tag(state.tags, os.getpid())
            name = self.names.lease(role, self.run, tag)
            said = {"run": self.run, "role": role, **self.facts()}
            self.lease = Lease(os.path.join(self.directory, name), said)
            self._tag, self._role = tag, role
            self.on_join()

    @property
    def tag(self) -> str:
        """The tag of this copy's files; it joins where it has not yet."""
        if not self._tag:
            self.join()
        return self._tag

    def path_of(self, kind: str) -> str:
        """Return where this copy's file of a kind is to be made.

        A process of a run that was carried on records in that run's own folder, and only there.

        Args:
            kind (str): One of `names.KINDS`.

        Returns:
            str: A path.

        Raises:
            OSError: It cannot be told.
        """
        folder = self.directory
        if self.sealed_by(look=True) is not None:
            folder = os.path.join(self.directory, self.names.earlier, self.run)
            _fs.make_folders(folder)
        return os.path.join(folder, self.names.journal(kind, self.tag))

    def leave(self, owes: bool, gives_up: bool = False, why: str = "") -> None:
        """End this copy's part in the run.

        Args:
            why (str): What ends it, if it owes something.
            owes (bool): Whether something is left for others to see to: a message in hand, or the
                end that a producer never gave. Then the lease stays, as that of a dead process.
            gives_up (bool): Whether messages in hand are given up: left to the next run. Then the
                lease stays under a name that says so.
        """
        with self._lock:
            lease, self.lease = self.lease, None
            role, self._role = self._role, COPY
            if lease is None or not lease.is_mine:
                return
            if gives_up and not owes:
                try:
                    name = self.names.lease(role, self.run, self._tag, LEFT)
                    lease.rename(os.path.join(self.directory, name))
                    owes = True
                except OSError:
                    pass  # it is gone, with its directory perhaps
            if owes:
                if why:
                    lease.note(ENDED + why)
                lease.abandon()
            else:
                lease.release()

    def is_orphan(self) -> bool | None:
        """Tell whether a process that this copy comes from has died.

        Returns:
            bool | None: None where the file system does not tell.
        """
        answers = [is_dead(path) for path in self._ancestors]
        return True if True in answers else None if None in answers else False

    # --- the seal -------------------------------------------------------------------------

    def check(self) -> None:
        """Raise where another run has carried this one on.

        Asked before each message, so it looks at the disk only now and then: more often than a
        process could be stopped, its run carried on, and it go on without having been stopped for
        as long as that.

        Raises:
            UpstreamFailureError: It has been carried on.
        """
        if time.monotonic() < self.next_look_s and self._sealed_by is None:
            return
        seal = self.sealed_by(look=True)
        if seal is not None:
            raise UpstreamFailureError(
                f"queue {self.names.prefix!r}: the work of this run was carried on by run "
                f"{seal.by} in {seal.directory}, so it is not this process's any more. Expected to "
                "end here: stop, and leave the rest to that run."
            )

    def sealed_by(self, look: bool = False) -> Seal | None:
        """Return who has carried this run on, if somebody has.

        Args:
            look (bool): Whether to look at the disk now.
        """
        if self._sealed_by is None and look:
            self.next_look_s = time.monotonic() + _LOOK_S
            seen = (self._stamp(self.names.run), self._stamp(self.names.seal))
            if seen != self._seen:
                self._sealed_by = self._look_for_seal()
                self._seen = seen
            if self._sealed_by is not None:
                self.next_look_s = 0.0  # nothing is done here any more without being asked
        return self._sealed_by

    def _stamp(self, name: str) -> object:
        try:
            status = os.stat(os.path.join(self.directory, name))
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _look_for_seal(self) -> Seal | None:
        try:
            state = RunState(self.directory, self.names.prefix)
        except OSError:
            return None  # its directory is gone: whatever is recorded will say so
        if state.run == self.run:
            return state.seal
        if state.run:
            # Another run is here now: that one has carried on what this one left.
            return Seal({"run": self.run, "by": state.run, "directory": self.directory})
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "prefix": self.names.prefix,
            "run": self.run,
            "ancestors": self.ancestors(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        Membership.__init__(self, **state)
