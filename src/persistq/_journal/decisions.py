"""What a person decides of work set aside, while nobody works on it: done again, or given up.

A run of which nobody lives takes such a decision as it would have taken it itself, from a process
that is none of its own. Under the directory's lock, so that no run begins meanwhile, and with a
lease, so that its files are nobody else's, and all of it synced:

1. What is to be done again is requested anew. Killed behind this: it is outstanding, and still to
   be decided; so it is done, and decided once more.
2. Its attempts begin anew. Killed behind this: the same.
3. The decision is recorded. Behind this it is what the next run finds.
"""

from __future__ import annotations

import os

from persistq import _fs, _lease
from persistq._journal import failures
from persistq._journal.journal_file import JournalFile
from persistq._journal.members import Membership
from persistq._journal.names import ATTEMPTS, REQUESTED, RESOLVED
from persistq._journal.run_state import RunState
from persistq.exceptions import PersistqError, PreviousRunActiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from persistq._journal.failures import FailedLine
    from persistq._journal.run_state import Member, Seal

    Choice = Callable[[list[FailedLine]], list[FailedLine]]

_SHOWN = 10


def where_work_is(directory: str, prefix: str) -> RunState:
    """Follow the seals to the run that holds a run's work by now: itself, if nobody carried it on.

    Args:
        directory (str): The run's directory.
        prefix (str): The queue's prefix.

    Returns:
        RunState: The run.

    Raises:
        PersistqError: The directory that a seal names is gone, or holds something else.
        OSError: The directory cannot be listed.
    """
    state = RunState(directory, prefix)
    seen: set[tuple[str, str]] = set()
    while (seal := state.seal) is not None:
        there = _holder(seal, prefix)
        if there is None or (there.directory, there.run) in seen:
            raise PersistqError(
                f"the work of {prefix!r} in {state.directory} was carried on by another run, in "
                f"{seal.directory}, and is not there any more. Expected that directory where it "
                "was: bring it back, or name the one that holds the work now."
            )
        seen.add((there.directory, there.run))
        state = there
    return state


def is_elsewhere(state: RunState) -> bool:
    """Tell whether another run holds a run's work by now, and is there."""
    if state.seal is None:
        return False
    try:
        where_work_is(state.directory, state.names.prefix)
    except PersistqError:
        return False
    return True


def _holder(seal: Seal, prefix: str) -> RunState | None:
    try:
        there = RunState(seal.directory, prefix)
    except OSError:
        return None
    # Or a later run goes on with it in the same place, or it waits there for one.
    is_there = there.run == seal.by or seal.by in there.record.get("continues", ())
    return there if is_there or there.earlier else None


def undecided(state: RunState) -> list[FailedLine]:
    """Return what a run holds of work that was set aside, and that nobody has decided."""
    return failures.undecided(state.failed, state.resolved)


def decide(
    directory: str, prefix: str, choose: Choice, begin_anew: bool
) -> tuple[str, list[FailedLine]]:
    """Decide of work set aside, for the run that holds it by now, and of which nobody lives.

    Args:
        directory (str): The run's directory.
        prefix (str): The queue's prefix.
        choose ((records) -> records): Says of which; called under the directory's lock.
        begin_anew (bool): Whether it is to be done again, its attempts from 0 on; or given up.

    Returns:
        tuple[str, list[FailedLine]]: The directory of the run, and what was decided.

    Raises:
        PreviousRunActiveError: The run lives; its own processes decide.
        PersistqError: Its work is not where its seal says.
        OSError: A file cannot be read or written. What is set aside is so still.
    """
    while True:
        found = where_work_is(directory, prefix)
        with _fs.folder_lock(found.directory):
            state = RunState(found.directory, prefix)
            if state.run != found.run or state.seal is not None:
                continue  # another run has begun meanwhile
            if living := state.living():
                raise _still_alive(living, prefix)
            records = choose(undecided(state))
            if records:
                _record(state, records, begin_anew)
            return state.directory, records


def _record(state: RunState, records: Sequence[FailedLine], begin_anew: bool) -> None:
    membership = Membership(state.directory, state.names.prefix, state.run)
    membership.facts = lambda: {"for": "an operator"}
    membership.join_under_lock("copy")
    files = {
        kind: JournalFile(membership, kind, fsync=True) for kind in (REQUESTED, ATTEMPTS, RESOLVED)
    }
    lines = [record.line for record in records]
    requested: list[bytes] = []
    try:
        if begin_anew:
            files[REQUESTED].append(_text(lines))
            requested = lines
            deaths = failures.deaths(state.attempts, {record.key for record in records})
            anew = [
                failures.attempts_line(-deaths.pop(record.key), record.line)
                for record in records
                if record.key in deaths
            ]
            if anew:
                files[ATTEMPTS].append(_text(anew))
        files[RESOLVED].append(_text(lines))
    except OSError:
        if requested:
            # The disk is full: it was not decided, so it is not to be done either.
            files[REQUESTED].withdraw(requested)
        raise
    finally:
        for file in files.values():
            file.close()
        membership.leave(owes=False)


def _text(lines: Sequence[bytes]) -> bytes:
    return b"".join([line + b"\n" for line in lines])


def _still_alive(living: Sequence[Member], prefix: str) -> PreviousRunActiveError:
    who = []
    for member in living[:_SHOWN]:
        host = _lease.read(member.path).get("host", "?")
        who.append(f"process {member.name.pid} on {host} ({member.name.role})")
    if len(living) > len(who):
        who.append(f"{len(living) - len(who)} more")
    return PreviousRunActiveError(
        f"the run of {prefix!r} in {os.path.dirname(living[0].path)} is alive: {', '.join(who)}. "
        "It would not see what is decided now. Expected it to have ended: wait for it, and say "
        "this again; or let its script call requeue_failed_work() or discard_failed_work()."
    )
