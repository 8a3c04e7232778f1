"""What a new queue begins: a run of its own, with the work that earlier runs have left.

There is one kind of restart, whatever the directories: the outstanding work of the run in the
previous directory, and of one that the current directory still holds, is published in the current
one, and what it was taken from counts no more. What is on disk at each step, and so what the run
after it sees if it is killed there:

1. The carried work, what was set aside, and how often messages have met a death, under temporary
   names that hold the new run's identity. Killed: nobody knows that identity, so nothing has
   happened; these files are removed by the next start.
2. `<prefix>_run.json` with the new identity, in one step. From here on the new run holds the work;
   what the directory held before is listed there, and counts no more. Killed: the next start finds
   a run that has carried the previous one on, though that is not sealed: it seals it first.
3. The previous run is sealed. Of two that carry it at once, which only happens where the file
   system has no locks, one alone gets its seal there, and the other takes its own run back.
4. What was listed is moved out of the way, and the carried work gets the name that a person looks
   for. Killed: `RunState` finds all of it under either name.

All of it happens under the locks of both directories, and only when nobody of those runs lives.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import ExitStack

from persistq import _fs
from persistq._journal import carrying
from persistq._journal.members import Membership, a_run_was_sealed
from persistq._journal.names import MAIN, UNLABELED_PREFIX, check_prefix, prefix_of, prefix_of_whole
from persistq._journal.run_state import RunState, write_record
from persistq.exceptions import PersistqError, PreviousRunActiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from persistq._journal.run_state import Member, Seal

    _Result = TypeVar("_Result")

logger = logging.getLogger("persistq")

# How long, and how often, to look whether the previous run has ended: its workers may need a
# moment to notice that their parent is gone.
_WAIT_S = 10.0
_LOOK_S = 0.1

_RUN = re.compile(r"run_(\d+)")


def pickup_dirs(root: str | os.PathLike[str], prefix: str | None = None) -> tuple[str, str | None]:
    """Make the directory for a new run of a job, and find that of the run before it.

    The directories are `root/<prefix>/run_000001`, `run_000002` and so on. A number is taken by
    making its directory exclusively, so no clock is trusted, and two scripts that start at once
    get two of them.

    Args:
        root (str | os.PathLike[str]): Directory of all jobs; made if missing.
        prefix (str | None): The queue's prefix, as given to `PersistentQueue`. None means
            `unlabeled_queue`, as it does there.

    Returns:
        tuple[str, str | None]: The current directory, new and empty, and the previous one: that of
        the latest earlier run that holds journal files of this prefix, or None. A run that was
        killed before its directory held anything is skipped, so the work of the one before it is
        not forgotten. Where only other prefixes have journals there, a warning names them; without
        a prefix their latest run is the previous one, since the queue may be given that prefix.

    Raises:
        ValueError: The prefix cannot start a file name.
        OSError: The directory cannot be made or listed.
    """
    is_labeled = prefix is not None
    prefix = check_prefix(UNLABELED_PREFIX if prefix is None else prefix)
    home = os.path.join(os.fspath(root), prefix)
    home = os.path.abspath(home)
    _fs.make_folders(home)
    while True:
        runs = [(int(m[1]), m[0]) for m in map(_RUN.fullmatch, os.listdir(home)) if m]
        number = max(runs)[0] + 1 if runs else 1
        current = os.path.join(home, f"run_{number:06d}")
        try:
            os.mkdir(current)
        except FileExistsError:
            continue  # another script was faster
        _fs.sync_folder(home)
        break
    strangers: set[str] = set()
    found = None
    for _, name in sorted(runs, reverse=True):
        previous = os.path.join(home, name)
        if not os.path.isdir(previous):
            continue
        if RunState(previous, prefix).has_journals:
            return current, previous
        others = _prefixes_in(previous)
        strangers |= others
        if others and not is_labeled and found is None:
            found = previous  # which prefix the queue will have, nobody has said
    if strangers:
        logger.warning(
            "pickup_dirs(%r%s): no earlier run holds journals of %r, but some hold those of %s, so "
            "%s. Expected the prefix that the queue is given: pass it to pickup_dirs, too.",
            os.fspath(root),
            f", {prefix!r}" if is_labeled else "",
            prefix,
            ", ".join(map(repr, sorted(strangers))),
            "there is no previous directory, and their outstanding work is not requeued"
            if found is None
            else f"{found!r} is the previous directory",
        )
    return current, found


def _prefixes_in(directory: str) -> set[str]:
    found = {prefix_of(name) or prefix_of_whole(name) for name in os.listdir(directory)}
    return {prefix for prefix in found if prefix}


class Beginning:
    """What a new queue begins with.

    Attributes:
        membership (Membership): The queue's part in its run, with its lease.
        has_carried (bool): Whether work of earlier runs was looked for, so that what stands in the
            run's carried file is what was outstanding.
    """

    def __init__(self, membership: Membership, has_carried: bool) -> None:
        self.membership = membership
        self.has_carried = has_carried


def begin(
    prefix: str,
    current: str,
    previous: str | None,
    max_attempts: int | None = None,
    facts: Callable[[], dict[str, Any]] = dict,
) -> Beginning:
    """Begin a run in a directory, or take part in the one that lives there.

    Args:
        prefix (str): The queue's prefix.
        current (str): Directory of the new run; it is there.
        previous (str | None): Directory of the run to carry work from, None where there is none;
            it may be the current one.
        max_attempts (int | None): At how many deaths a message is set aside.
        facts (() -> dict[str, Any]): Gives what leases are to say besides.

    Returns:
        Beginning: The new queue's part in the run.

    Raises:
        FileNotFoundError: The previous directory does not exist.
        PreviousRunActiveError: A run whose work was to be carried is alive, and was so for ten
            seconds.
        PersistqError: The previous run's work was carried on by another one.
        OSError: A file cannot be read or written. Nothing is carried then.
    """
    if previous is not None and not os.path.isdir(previous):
        raise FileNotFoundError(
            f"previous_pickup_dir {previous!r} is no directory; expected the one that holds "
            "the journals of the run before, or None if there was none. Starting without it "
            "would forget that run's outstanding work."
        )
    start = _Start(prefix, current, previous, max_attempts, facts)
    return _when_over(start.try_to_begin, prefix)


def wait_until_over(directory: str, prefix: str) -> None:
    """Wait until nobody lives of the run that a directory holds, at most ten seconds.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Raises:
        PreviousRunActiveError: Somebody does: its work would be done twice.
        PersistqError: Its work was carried on by another run.
        OSError: The directory cannot be listed.
    """

    def is_over() -> bool | list[Member]:
        state = RunState(directory, prefix)
        if state.seal is not None:
            return _carried_elsewhere(state, state.seal, prefix)
        return state.living() or True

    _when_over(is_over, prefix)


def _when_over(attempt: Callable[[], _Result | list[Member]], prefix: str) -> _Result:
    """Repeat what gives a list of the living until it gives something else."""
    deadline_s = time.monotonic() + _WAIT_S
    while True:
        result = attempt()
        if not isinstance(result, list):
            return result
        if time.monotonic() > deadline_s:
            raise _still_alive(result, prefix) if result else _is_locked(prefix)
        time.sleep(_LOOK_S)


def _still_alive(living: Sequence[Member], prefix: str) -> PreviousRunActiveError:
    from persistq import _lease

    who = []
    for member in living[:10]:
        said = _lease.read(member.path)
        who.append(f"process {member.name.pid} on {said.get('host', '?')} ({member.name.role})")
    if len(living) > len(who):
        who.append(f"{len(living) - len(who)} more")
    return PreviousRunActiveError(
        f"the run of {prefix!r} in {os.path.dirname(living[0].path)!r} is still alive: "
        f"{', '.join(who)}. Expected it to have ended, since its work would be done twice. Wait "
        "for it, or end these processes, and start again."
    )


def _is_locked(prefix: str) -> PreviousRunActiveError:
    return PreviousRunActiveError(
        f"another process has locked the directory of {prefix!r} for {_WAIT_S:.0f} seconds: "
        "another start of the same job, or one that was stopped. Expected one start at a time: "
        "wait for it, or end it, and start again."
    )


def _carried_elsewhere(state: RunState, seal: Seal, prefix: str) -> list[Member]:
    """Return who lives of the run that has carried another one on; raise where nobody does."""
    seen = {os.path.realpath(state.directory)}
    while True:
        try:
            there = RunState(seal.directory, prefix)
        except OSError:
            break
        if there.run == seal.by and (living := there.living()):
            return living
        if there.seal is None or os.path.realpath(seal.directory) in seen:
            break
        seen.add(os.path.realpath(seal.directory))
        seal = there.seal
    gone = "" if os.path.isdir(seal.directory) else " (which is gone)"
    raise PersistqError(
        f"the work of {state.directory!r} was carried on by another run, in "
        f"{seal.directory!r}{gone}, so it is not taken from here again. Expected that directory as "
        "previous_pickup_dir: give it, and start again."
    )


class _Start:
    """One attempt after the other to begin a run."""

    def __init__(
        self,
        prefix: str,
        current: str,
        previous: str | None,
        max_attempts: int | None,
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self.prefix = prefix
        self.current = current
        self.is_restart = previous is not None
        is_same = previous is not None and os.path.samefile(previous, current)
        self.previous = None if is_same else previous
        self.max_attempts = max_attempts
        self.facts = facts

    def try_to_begin(self) -> Beginning | list[Member]:
        """Begin, or return who has to end first."""
        folders = {os.path.realpath(self.current): self.current}
        if self.previous is not None:
            folders[os.path.realpath(self.previous)] = self.previous
        with ExitStack() as locks:
            for real in sorted(folders):  # in one order, or two that swap them wait for ever
                # Somebody who has it may be stopped, or be another start: no reason to hang.
                if not locks.enter_context(_fs.folder_lock(real, wait=not self.is_restart)):
                    return RunState(folders[real], self.prefix).living()
            here = RunState(self.current, self.prefix)
            if not self.is_restart:
                return self._join_or_begin(here)
            there = RunState(self.previous, self.prefix) if self.previous is not None else None
            if there is not None:
                self._seal_what_was_carried(here, there)
                self._seal_what_was_carried(there, here)
            living = here.living() + (there.living() if there is not None else [])
            if living:
                return living
            if there is not None and there.seal is not None:
                # What the current run has carried may have gone on from there meanwhile.
                if here.seal is not None or not self._is_pair(here, there.seal):
                    return _carried_elsewhere(there, there.seal, self.prefix)
                sources = []
            else:
                sources = [there] if there is not None and there.exists else []
            if here.exists and here.seal is None:
                sources.insert(0, here)
            return Beginning(self._begin(here, sources, there), has_carried=True)

    def _seal_what_was_carried(self, by: RunState, state: RunState) -> None:
        """Do what a start that was killed between its steps 2 and 3 has left to do."""
        if state.seal is not None or not state.exists:
            return
        for carried in by.carries:
            if carried.get("run") == state.run and _is_same_folder(
                carried.get("directory", ""), state.directory
            ):
                _seal(state, by.run, by.directory)
                state.__init__(state.directory, self.prefix)  # type: ignore[misc]
                return

    def _is_pair(self, here: RunState, seal: Seal) -> bool:
        """Tell whether the run in the current directory is the one that the seal names."""
        if not _is_same_folder(seal.directory, here.directory):
            return False
        # Or it goes on with that one's work, in the same directory.
        return here.run == seal.by or seal.by in here.record.get("continues", ())

    def _join_or_begin(self, here: RunState) -> Beginning:
        membership = Membership(self.current, self.prefix, here.run)
        membership.facts = self.facts
        living = [member for member in here.members_of_run() if member.is_dead() is not True]
        if here.run and here.seal is None and living:
            membership.join_under_lock(MAIN)
            return Beginning(membership, has_carried=False)
        return Beginning(self._begin(here, [], None), has_carried=False)

    def _begin(self, here: RunState, sources: list[RunState], there: RunState | None) -> Membership:
        membership = Membership(self.current, self.prefix, os.urandom(16).hex())
        membership.facts = self.facts
        record: dict[str, Any] = {"run": membership.run, "directory": self.current}
        _remove_what_never_counted(here)
        if sources:
            carrying.write_first_files(here, sources, membership.run, self.max_attempts)
        if here.exists:
            if self.is_restart or here.seal is not None:
                record["setAside"] = here.all
                record["continues"] = [*here.record.get("continues", ())[-20:], here.run]
            else:
                # Nobody has asked for this run's work, so it waits for a restart that does.
                before = here.record.get("earlier", [])
                known = {name for group in before for name in group}
                record["earlier"] = [*before, [name for name in here.all if name not in known]]
        record["carries"] = [
            {"run": source.run, "directory": source.directory}
            for source in sources
            if source is not here
        ]
        membership.join_under_lock(MAIN)
        try:
            write_record(self.current, here.names.run, record, new=False)
            if there is not None and there in sources:
                self._seal_or_take_back(here, there, membership)
            elif there is not None and there.seal is not None:
                _seal(there, membership.run, self.current, again=True)
        except BaseException:
            membership.leave(owes=False)
            raise
        a_run_was_sealed()
        carrying.tidy(self.current, self.prefix, here.run)
        return membership

    def _seal_or_take_back(self, here: RunState, there: RunState, membership: Membership) -> None:
        if _seal(there, membership.run, self.current):
            return
        # Another start was faster, where no lock could keep the two apart.
        if here.run or here.has_journals:
            write_record(self.current, here.names.run, here.record, new=False)
        else:
            os.unlink(os.path.join(self.current, here.names.run))
        raise PreviousRunActiveError(
            f"the work of {there.directory!r} has just been carried on by another start of the "
            "same job. Expected one at a time: leave it to that one."
        )


def _seal(state: RunState, by: str, directory: str, again: bool = False) -> bool:
    """Say in a run's directory that it was carried on; return whether this is what it says."""
    said: dict[str, Any] = {"run": state.run, "by": by, "directory": directory}
    if not state.run:
        said["files"] = state.all
    try:
        old = os.path.join(state.directory, state.names.seal)
        if state.seal is None and os.path.lexists(old):
            os.unlink(old)  # that of a run which was here before
        write_record(state.directory, state.names.seal, said, new=not again)
    except FileExistsError:
        return False
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s), so nothing there says that its work was carried on to %s. "
            "Do not give it as previous_pickup_dir again with another current one: its work would "
            "be done twice.",
            state.directory,
            error,
            directory,
        )
    return True


def _is_same_folder(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _remove_what_never_counted(here: RunState) -> None:
    """Remove the files of a start that was killed before its run counted, and stray leases."""
    from persistq import _lease

    names = here.names
    first = (names.carried, names.attempts, names.failed)
    own = {names.temporary(name, here.run) for name in first}
    starts = tuple(f".{name}." for name in (*first, names.run, names.seal))
    with os.scandir(here.directory) as entries:
        for entry in entries:
            is_stray = entry.name.startswith(starts) and entry.name not in own
            if _lease.is_temporary(entry.name) and entry.name.startswith(f".{names.prefix}_"):
                is_stray = _lease.is_dead(entry.path) is True
            if is_stray:
                try:
                    os.unlink(entry.path)
                except OSError:
                    pass
