"""Which runs are one job, and when a job has ended.

Each call of `run` makes a run, with a folder of its own: `root/<prefix>/run_000001` and so on. A
job is the chain of runs since the last one that ended with nothing outstanding. It stands in
`<prefix>_job.json` of each run's folder:

- `job`: an identity of the job, drawn at random.
- `runs`: the names of the folders of the runs before this one that belong to it, earliest first.
- `ended`: whether it has ended.

The file is written before the run begins. Killed before that: an empty folder, which is no run.
Killed behind it: no run has begun in the folder, so the next call passes over it. That the job has
ended is written in one step; killed before that, the next call goes on with it, finds everything
completed, and ends it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time

from persistq import _fs
from persistq._journal.names import check_prefix
from persistq._journal.run_state import RunState, write_record
from persistq._journal.runs import pickup_dirs
from persistq.exceptions import PreviousRunActiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from persistq._queue.persistent import PersistentQueue

RUN = re.compile(r"run_(\d+)")

_WAIT_S = 10.0
_LOOK_S = 0.1

# Two threads of one process do not see each other's leases as somebody else's.
_at_work: set[str] = set()
_at_work_lock = threading.Lock()


class Job:
    """A job at work: the chain of its runs, of which this process makes the last.

    Args:
        root (str | os.PathLike[str]): The directory of all jobs.
        prefix (str): The prefix of the journals.

    Attributes:
        home (str): The folder of all runs.
        prefix (str): The prefix of the journals.
        current (str): The folder of this run.
        runs (list[str]): The names of the folders of the job's earlier runs, earliest first.
    """

    def __init__(self, root: str | os.PathLike[str], prefix: str) -> None:
        self.prefix = check_prefix(prefix)
        self._root = os.path.abspath(os.fspath(root))
        self.home = os.path.join(self._root, prefix)
        self.current = ""
        self.runs: list[str] = []
        self._identity = ""

    def begin(self, make_queue: Callable[[str, str | None], PersistentQueue]) -> PersistentQueue:
        """Begin a run, as the next of the last job, or as the first of a new one.

        Args:
            make_queue ((current: str, previous: str | None) -> PersistentQueue): Makes the queue.

        Returns:
            PersistentQueue: It.

        Raises:
            PreviousRunActiveError: The job is at work already, in this process or another.
            OSError: The folder, or a file in it, cannot be made.
        """
        _fs.make_folders(self.home)
        with _at_work_lock:
            if self.home in _at_work:
                raise PreviousRunActiveError(
                    f"this process is at the job in {self.home!r} already. Expected one call of "
                    "run() at a time for a root and prefix, since its work would be done twice."
                )
            _at_work.add(self.home)
        try:
            return self._begin(make_queue)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Let this process begin the job anew."""
        with _at_work_lock:
            _at_work.discard(self.home)

    def _begin(self, make_queue: Callable[[str, str | None], PersistentQueue]) -> PersistentQueue:
        deadline_s = time.monotonic() + _WAIT_S
        while True:
            # Of two that start at once, the second finds the first one's lease.
            with _fs.folder_lock(self.home):
                living = self._living()
                if living is None:
                    return self._begin_under_lock(make_queue)
            if time.monotonic() > deadline_s:
                raise PreviousRunActiveError(
                    f"the job in {self.home!r} is at work: {living}. Expected it to have ended, "
                    "since its work would be done twice. Wait for it, or end it, and start again."
                )
            time.sleep(_LOOK_S)

    def _living(self) -> str | None:
        """Say who lives of a run that has put nothing yet; all others the queue itself finds."""
        for name in reversed(run_names(self.home)):
            state = RunState(os.path.join(self.home, name), self.prefix)
            living = state.living()
            if state.has_journals:
                return None
            if living:
                return f"process {living[0].name.pid}, in {name}"
        return None

    def _begin_under_lock(
        self, make_queue: Callable[[str, str | None], PersistentQueue]
    ) -> PersistentQueue:
        self.current, previous = pickup_dirs(self._root, self.prefix)
        try:
            self._identity = os.urandom(16).hex()
            if previous is not None:
                said = self._read(previous)
                # A run without such a file was not made by run(): of what it has completed nothing
                # is known but that it is not this job's. What it has left is carried on.
                if said and not said.get("ended"):
                    self._identity = str(said.get("job", self._identity))
                    self.runs = [*said.get("runs", ()), os.path.basename(previous)]
            self._write(ended=False)
            return make_queue(self.current, previous)
        except BaseException:
            if not RunState(self.current, self.prefix).exists:
                shutil.rmtree(self.current, ignore_errors=True)
            raise

    def end(self) -> None:
        """Record that the job has ended: all that it was given is completed or set aside.

        Raises:
            OSError: It cannot be recorded. The next call goes on with the job.
        """
        self._write(ended=True)

    def _read(self, folder: str) -> dict[str, Any]:
        try:
            path = os.path.join(folder, self._name)
            with open(path, "rb", opener=_fs.open_file) as file:
                said = json.loads(file.read())
        except FileNotFoundError:
            return {}
        return said if isinstance(said, dict) else {}

    def _write(self, ended: bool) -> None:
        said = {"job": self._identity, "runs": self.runs, "ended": ended}
        write_record(self.current, self._name, said, new=False)

    @property
    def _name(self) -> str:
        return f"{self.prefix}_job.json"


def run_names(home: str) -> list[str]:
    """Return the names of the folders of runs, in the order of their numbers.

    Args:
        home (str): The folder of all runs of a prefix.
    """
    found = [(int(m[1]), m[0]) for m in map(RUN.fullmatch, os.listdir(home)) if m]
    return [name for _, name in sorted(found) if os.path.isdir(os.path.join(home, name))]
