"""The work that a run carries on from earlier ones: written, kept, and put anew once.

See `runs` for the steps of a start. When the work is put on the queue, its file is renamed to
`<prefix>_requested_PID<tag>_requeued.tsv`: killed before that, it is carried; behind it, it is work
that was requested in this run. Of all copies of the queue one succeeds in renaming it, and puts it.
"""

from __future__ import annotations

import os
from collections import Counter

from persistq import _fs, _lease
from persistq._journal import failures
from persistq._journal.codec import line_key
from persistq._journal.names import COMPLETED, HELD, WITHOUT_IDENTITY, is_lease_of
from persistq._journal.outstanding import Journals, outstanding
from persistq._journal.run_state import RunState, write_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from persistq._journal.members import Membership
    from persistq._journal.outstanding import Outstanding

# Met at so many deaths, a message is put behind all others: one that takes the whole job with it
# must not keep the rest from being done.
SUSPECT_AT = 2


def write_first_files(
    here: RunState, sources: Sequence[RunState], run: str, max_attempts: int | None
) -> None:
    """Write what a new run begins with, under names that count only once the run does.

    Args:
        here (RunState): What the new run's directory holds.
        sources (Sequence[RunState]): The runs whose work is carried on, in the order of that.
        run (str): The new run's identity.
        max_attempts (int | None): At how many deaths a message is set aside; None for no limit.

    Raises:
        OSError: A file cannot be read or written. Nothing has changed.
    """
    lines: list[bytes] = []
    deaths: Counter[bytes] = Counter()
    failed: list[bytes] = []
    for source in sources:
        lines += outstanding(source.chain()).lines
        deaths += _deaths_of(source)
        records = failures.undecided(source.failed, source.resolved)
        failed += [record.text for record in records]
    if deaths:
        lines, aside = _sort_out(lines, deaths, max_attempts)
        failed += aside
    names = here.names
    attempts = [failures.attempts_line(n, key) for key, n in deaths.items()] if lines else []
    written: list[str] = []
    try:
        # An empty list of work is written, too: it says that the runs before have been dealt with.
        for name, content in (
            (names.carried, lines),
            (names.attempts, attempts),
            (names.failed, failed),
        ):
            if content or name == names.carried:
                path = os.path.join(here.directory, names.temporary(name, run))
                written.append(path)
                _write(path, content)
    except BaseException:
        for path in written:
            _remove(path)
        raise
    _fs.sync_folder(here.directory)


def _write(path: str, lines: Sequence[bytes]) -> None:
    with open(path, "xb") as file:
        file.writelines(line + b"\n" for line in lines)
        file.flush()
        _fs.sync_file(file.fileno())


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _deaths_of(source: RunState) -> Counter[bytes]:
    """Return how often messages met a death in a run, those that nobody has settled included."""
    found = failures.deaths(source.attempts)
    completed: dict[str, list[str]] = {}
    for path in source.completed + source.failed:
        name = source.names.parse(os.path.basename(path))
        if name is not None:
            completed.setdefault(name.tag, []).append(path)
    # Not those of copies that have given them up, nor of this process's own, which lives.
    settled = {
        member.name.tag
        for member in source.members
        if is_lease_of(member.name, source.run)
        and (member.name.state != HELD or _lease.is_mine(member.path))
    }
    for path in source.started:
        name = source.names.parse(os.path.basename(path))
        if name is not None and name.tag not in settled:
            own = completed.get(name.tag, [])
            done = [p for p in own if f"_{COMPLETED}_" in os.path.basename(p)]
            aside = [p for p in own if p not in done]
            found.update(map(line_key, outstanding(Journals([path], done, aside)).lines))
    return found


def _sort_out(
    lines: list[bytes], deaths: Counter[bytes], max_attempts: int | None
) -> tuple[list[bytes], list[bytes]]:
    """Put what has met several deaths behind the rest, and set aside what has met too many."""
    first, suspects, aside = [], [], []
    for line in lines:
        count = deaths.get(line_key(line), 0)
        if max_attempts is not None and count >= max_attempts:
            aside.append(failures.failed_line(line, count, failures.died_reason(count)))
        elif count >= SUSPECT_AT:
            suspects.append(line)
        else:
            first.append(line)
    keys = set(map(line_key, first + suspects))
    for key in list(deaths):
        if key not in keys:
            del deaths[key]  # done since, or set aside: then its record says how often it was begun
    return first + suspects, aside


def tidy(directory: str, prefix: str, before: str) -> None:
    """Move what counts no more out of the way, and give the run's first files their names.

    Under the directory's lock, by the run that the directory holds, before anybody else knows of
    it. Killed anywhere in it, or refused: `RunState` finds everything all the same.

    Args:
        directory (str): The run's directory.
        prefix (str): The queue's prefix.
        before (str): The identity of the run that was here before; it may be empty.
    """
    state = RunState(directory, prefix)
    names = state.names
    gone = list(state.record.get("setAside", ()))
    if gone or before:
        aside = os.path.join(directory, names.earlier, before or WITHOUT_IDENTITY)
        left = []
        try:
            _fs.make_folders(aside)
            for name in [*gone, names.seal]:
                if not _move(os.path.join(directory, name), os.path.join(aside, name)):
                    left.append(name)
        except OSError:
            left = gone
        if not state.record.get("earlier"):
            for member in state.members:
                is_ours = is_lease_of(member.name, state.run) or _lease.is_mine(member.path)
                if not is_ours and (member.name.state != HELD or member.is_dead() is True):
                    _remove(member.path)
        if gone:
            record = {**state.record, "setAside": [name for name in left if name in gone]}
            write_record(directory, names.run, record, new=False)
            gone = record["setAside"]
    for name in (names.carried, names.attempts, names.failed):
        if name not in gone:
            path = os.path.join(directory, names.temporary(name, state.run))
            try:
                os.rename(path, os.path.join(directory, name))
            except OSError:
                pass  # there is none; or it keeps this name, under which it counts, too
    _fs.sync_folder(directory)


def _move(source: str, target: str) -> bool:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        pass
    except OSError:
        return False  # another user's, say: it stays listed as gone
    return True


class CarriedWork:
    """The work that a queue found outstanding when it was created.

    Pickles: a copy of the queue in another process means the same work, and only one of them
    may claim it.

    Args:
        membership (Membership | None): The queue's part in the run that carries it; None where
            no journal is kept.
        prefix (str): The queue's prefix.
        looked_at (str | None): A directory to read anew at each look, where no journal is kept.
        is_there (bool): Whether work of earlier runs was looked for.
    """

    def __init__(
        self,
        membership: Membership | None,
        prefix: str,
        looked_at: str | None,
        is_there: bool,
    ) -> None:
        self._membership = membership
        self._prefix = prefix
        self.looked_at = looked_at
        self._is_there = is_there

    def look(self) -> Outstanding:
        """Return the work, whether or not it has been requeued.

        Returns:
            Outstanding: Its lines.

        Raises:
            OSError: A file cannot be read.
        """
        if self.looked_at is not None:
            return outstanding(RunState(self.looked_at, self._prefix).chain())
        while True:
            path = self.path()
            try:
                return outstanding(Journals([path] if path else [], [], []))
            except FileNotFoundError:
                # Another copy may have claimed the work between the two steps.
                if self.path() == path:
                    raise

    def path(self) -> str | None:
        """Return the path of the file that holds the work, whichever name it has by now."""
        membership = self._membership
        if membership is None or not self._is_there:
            return None
        state = RunState(membership.directory, self._prefix)
        if state.run == membership.run:
            found = [*filter(None, [state.carried]), *state.requeued]
        else:
            folder = os.path.join(membership.directory, membership.names.earlier, membership.run)
            found = [
                os.path.join(folder, name)
                for name in sorted(os.listdir(folder) if os.path.isdir(folder) else [])
                if name in (membership.names.carried,) or "_requeued.tsv" in name
            ]
        return found[0] if found else None

    def claim(self) -> str | None:
        """Take the work for requeueing: of all copies of the queue, exactly one succeeds.

        Returns:
            str | None: The path of its file, for the one copy that puts it on the queue.

        Raises:
            OSError: The claim cannot be recorded, so the work is still to be claimed.
        """
        membership = self._membership
        if membership is None or not self._is_there:
            return None
        tag = membership.tag  # it may have to join, which takes the same lock
        with _fs.folder_lock(membership.directory):
            state = RunState(membership.directory, self._prefix)
            if state.run != membership.run or state.carried is None:
                return None
            target = os.path.join(membership.directory, membership.names.requeued(tag))
            os.rename(state.carried, target)
            try:
                _fs.sync_folder(membership.directory)
            except OSError:
                os.rename(target, state.carried)  # else the next call would find it claimed
                raise
            return target
