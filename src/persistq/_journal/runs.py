"""From one run of a job to the next: its folders, and the work that is carried over.

What is on disk at each step of a restart, and so what the run after it sees if it is killed
there:

1. `carry` writes the outstanding work to a temporary name. Killed: the new directory holds no
   journal, so the next run takes the work from the previous one again.
2. It renames that to `<prefix>_carried.tsv`, synced. Killed: the next run finds it, as requested
   work of this directory.
3. `PreviousWork.claim` renames it to `<prefix>_requested_PID<pid>_requeued.tsv`: likewise.
4. The messages go on the queue. Nothing more is written: their record is that file.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from persistq import _fs
from persistq._journal import locks
from persistq._journal.files import (
    COMPLETED,
    REQUESTED,
    STARTED,
    JournalNames,
    RunFiles,
    carried_name,
    is_own,
    process_files,
)
from persistq._journal.outstanding import Journals, Outstanding, outstanding
from persistq._journal.recovery import remove_started_files
from persistq.exceptions import PreviousRunActiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# How long, and how often, to look whether the previous run has ended: its workers may need a
# moment to notice that their parent is gone.
_WAIT_S = 10.0
_LOOK_S = 0.1

UNLABELED_PREFIX = "unlabeled_queue"

_RUN = re.compile(r"run_(\d+)")


def check_prefix(prefix: str) -> str:
    """Return the prefix if files can be named after it.

    Args:
        prefix (str): The prefix of a queue's files.

    Returns:
        str: The same prefix.

    Raises:
        ValueError: It is empty, or holds a path separator or a NUL.
        TypeError: It is no `str`.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"the prefix is {prefix!r}; expected a str")
    separators = {os.sep, os.altsep or os.sep, "\0"}
    if not prefix or separators & set(prefix):
        raise ValueError(
            f"the prefix {prefix!r} cannot start a file name; expected a name without path "
            "separators. Say which directory in current_pickup_dir."
        )
    return prefix


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
        not forgotten.

    Raises:
        ValueError: The prefix cannot start a file name.
        OSError: The directory cannot be made or listed.
    """
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
    for _, name in sorted(runs, reverse=True):
        previous = os.path.join(home, name)
        if os.path.isdir(previous) and JournalNames(previous, prefix):
            return current, previous
    return current, None


class PreviousWork:
    """The work that a queue found outstanding when it was created.

    Pickles: a copy of the queue in another process means the same work, and only one of them
    may claim it.

    Args:
        prefix (str): The queue's prefix.
        current (str | None): Directory of this run's journals; None keeps none.
        previous (str | None): Directory of the run to carry work from; None where there is none.

    Raises:
        FileNotFoundError: The previous directory does not exist.
        PreviousRunActiveError: That run is still alive, and was so for ten seconds.
        OSError: A file cannot be read or written. Nothing is carried then.
    """

    def __init__(self, prefix: str, current: str | None, previous: str | None) -> None:
        self._prefix = prefix
        self._current = current
        self._looked_at: str | None = None  # a directory to read anew at each look
        self._requested: list[str] = []
        self._completed: list[str] = []
        self._token = ""
        self._not_ours: set[str] = set()  # files of earlier runs, which nobody is to requeue
        if previous is None:
            if current is not None:
                self._leave_alone(JournalNames(current, prefix))
            return
        if not os.path.isdir(previous):
            raise FileNotFoundError(
                f"previous_pickup_dir {previous!r} is no directory; expected the one that holds "
                "the journals of the run before, or None if there was none. Starting without it "
                "would forget that run's outstanding work."
            )
        if current is None:
            self._looked_at = previous
            return
        wait_until_over(previous, prefix)
        with _fs.folder_lock(current):
            names = JournalNames(current, prefix)
            if os.path.samefile(previous, current) or names.carried or names.requeued:
                wait_until_over(current, prefix)
                # A restart with the same directories: the files that are here are the previous
                # run, and whatever the run before that left has become part of them.
                self._requested, self._completed = names.requested, names.completed
                self._token = os.urandom(16).hex()
                self._remove_markers(current)
                remove_started_files(current, prefix)
            else:
                self._leave_alone(names)
                self._requested = [self._carry(current, previous)]

    def _leave_alone(self, names: JournalNames) -> None:
        # What is held is another copy's, so this run's.
        here = [*names.requested, *names.completed]
        self._not_ours = {path for path in here if locks.is_held(path) is False}

    def _carry(self, current: str, previous: str) -> str:
        """Publish the outstanding work of the previous run in the current directory."""
        names = JournalNames(previous, self._prefix)
        work = outstanding(Journals(names.requested, names.completed))
        target = os.path.join(current, carried_name(self._prefix))
        temporary = os.path.join(current, f".{carried_name(self._prefix)}.tmp")
        # Killed inside of this: the temporary file stays, and the next try overwrites it. An
        # empty list is published too: it says that the previous run has been dealt with.
        try:
            with open(temporary, "wb") as file:
                file.writelines(line + b"\n" for line in work.lines)
                file.flush()
                _fs.sync_file(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _fs.sync_folder(current)
        return target

    def _marker(self, token: str) -> str:
        return f".{self._prefix}_requeued_{token}"

    def _remove_markers(self, current: str) -> None:
        start = self._marker("")
        for name in os.listdir(current):
            if re.fullmatch(re.escape(start) + "[0-9a-f]{32}", name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(current, name))

    def look(self) -> Outstanding:
        """Return the work, whether or not it has been requeued.

        Returns:
            Outstanding: Its lines.

        Raises:
            OSError: A file cannot be read.
        """
        if self._looked_at is not None:
            names = JournalNames(self._looked_at, self._prefix)
            return outstanding(Journals(names.requested, names.completed))
        while True:
            try:
                here = self._where_they_are(self._requested)
                return outstanding(Journals(here, self._completed))
            except FileNotFoundError:
                # Another copy may have claimed the carried work between the two steps.
                if self._where_they_are(self._requested) == self._requested:
                    raise

    def _where_they_are(self, requested: Iterable[str]) -> list[str]:
        """Follow carried work to the name that its claim has given it."""
        paths: list[str] = []
        for path in requested:
            if os.path.basename(path) == carried_name(self._prefix) and not os.path.exists(path):
                here = JournalNames(os.path.dirname(path), self._prefix)
                paths += [p for p in here.requeued if p not in self._requested]
            else:
                paths.append(path)
        return paths

    def claim(self) -> bool:
        """Take the work for requeueing: of all copies of the queue, exactly one succeeds.

        Returns:
            bool: Whether this copy is the one that puts the work on the queue.

        Raises:
            PreviousRunActiveError: The run whose work it is, is still alive.
            OSError: The claim cannot be recorded, so the work is still to be claimed.
        """
        if self._looked_at is not None:
            wait_until_over(self._looked_at, self._prefix)
            return True  # nothing is written here: each copy answers for itself
        if self._current is None or not self._requested:
            return False
        with _fs.folder_lock(self._current):
            carried = os.path.join(self._current, carried_name(self._prefix))
            try:
                if carried in self._requested:
                    self._rename_requeued(carried)
            except FileNotFoundError:
                if not self._token:
                    return False
            if not self._token:
                return True
            # There may be nothing to rename, so a file of its own is the claim. Killed before
            # it: the run is over, and the next one makes a claim of its own.
            marker = os.path.join(self._current, self._marker(self._token))
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                return False
            return True

    def files_of_this_run(self) -> RunFiles:
        """Return the files of all that was put, requeued and completed in this run.

        Returns:
            RunFiles: Paths, those of requests in the order of their work.

        Raises:
            OSError: The directory cannot be listed.
        """
        if self._current is None:
            return RunFiles([], [], [])
        names = JournalNames(self._current, self._prefix)
        earlier = self._not_ours.union(self._completed)
        left_out = self._not_ours.union(names.carried)
        is_requeued = os.path.lexists(os.path.join(self._current, self._marker(self._token)))
        if self._token and not is_requeued:
            # The previous run's, which nobody has requeued.
            left_out.update(self._requested, self._completed)
        return RunFiles(
            [path for path in names.requested if path not in left_out],
            [path for path in names.completed if path not in left_out],
            [path for path in names.completed if path not in earlier],
        )

    def _rename_requeued(self, carried: str) -> None:
        stem = os.path.join(os.path.dirname(carried), f"{self._prefix}_requested_PID{os.getpid()}")
        target, number = f"{stem}_requeued.tsv", 1
        while os.path.lexists(target):  # under the folder's lock, so nobody takes it now
            number += 1
            target = f"{stem}-{number}_requeued.tsv"
        os.rename(carried, target)
        try:
            _fs.sync_folder(os.path.dirname(carried))
        except OSError:
            os.rename(target, carried)  # else the next call would find it claimed by somebody
            raise


def outstanding_in(directory: str, prefix: str) -> Outstanding:
    """Return what a directory's journals hold as outstanding, carried work left out.

    Work that is carried counts once it is requeued.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Returns:
        Outstanding: Its lines.

    Raises:
        OSError: A file cannot be read.
    """
    names = JournalNames(directory, prefix)
    requested = [path for path in names.requested if path not in names.carried]
    return outstanding(Journals(requested, names.completed))


def wait_until_over(directory: str, prefix: str) -> None:
    """Wait until no stranger holds a journal in a directory, at most ten seconds.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Raises:
        PreviousRunActiveError: A process that is neither this one, nor an ancestor or descendant
            of it, is alive and has a journal open: its work would be done twice.
        OSError: The directory cannot be listed.
    """
    deadline_s = time.monotonic() + _WAIT_S
    while True:
        strangers = sorted(
            {
                pid
                for kind in (REQUESTED, COMPLETED, STARTED)
                for pid, path in process_files(directory, prefix, kind)
                if locks.is_held(path) and not is_own(path) and not _is_family(pid)
            }
        )
        if not strangers:
            return
        if time.monotonic() > deadline_s:
            pids = ", ".join(map(str, strangers))
            raise PreviousRunActiveError(
                f"the run in {directory!r} is still alive: process {pids} "
                f"has journals of {prefix!r} open. Expected it to have ended, since its work would "
                "be done twice. Wait for it, or end these processes, and start again."
            )
        time.sleep(_LOOK_S)


def _is_family(pid: int) -> bool:
    # A file of this id that this process does not hold is another's: of another container, say.
    return pid != os.getpid() and locks.is_relative(pid)
