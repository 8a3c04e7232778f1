"""The names of all files of a journal: made and parsed, pure strings.

A *tag* is what the files of one copy of a queue have in common: its process id, and a number where
that id has been here before (ids come round again; in a container the script is always 1). A copy
reserves its tag with its lease, so a tag belongs to one lease and one lease to one tag.
"""

from __future__ import annotations

import os
import re

REQUESTED = "requested"
COMPLETED = "completed"
STARTED = "started"
FAILED = "failed"
RESOLVED = "resolved"  # work set aside of which somebody has decided: it is done again, or given up
ATTEMPTS = "attempts"
KINDS = (REQUESTED, COMPLETED, STARTED, FAILED, RESOLVED, ATTEMPTS)

COPY, MAIN, WORKER, PRODUCER = "copy", "main", "worker", "producer"
CLOSED = "closed"  # a producer that will put no more
ROLES = (COPY, MAIN, WORKER, PRODUCER, CLOSED)
HELD, SETTLED, CHECKED, LEFT = "lease", "settled", "checked", "left"

UNLABELED_PREFIX = "unlabeled_queue"
WITHOUT_IDENTITY = "without-identity"  # the folder of what a run without one has left
# So many characters of a run's identity stand in the names of its leases.
_SHORT = 8


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


class JournalName:
    """The name of a file that one process writes, or wrote, taken apart.

    Attributes:
        kind (str): One of KINDS.
        tag (str): Whose it is: `4711` or `4711-2`.
        is_requeued (bool): Whether it holds work carried from the run before, put anew.
    """

    def __init__(self, kind: str, tag: str, is_requeued: bool) -> None:
        self.kind = kind
        self.tag = tag
        self.is_requeued = is_requeued


class LeaseName:
    """The name of a lease, taken apart.

    Attributes:
        role (str): One of ROLES.
        run (str): The first characters of its run's identity.
        tag (str): Whose it is.
        state (str): HELD; SETTLED once the living have seen to what its process had in hand;
            CHECKED once they have also made sure that nothing else was lost with it; LEFT by a
            copy that has disposed of the queue and given up what it had in hand.
    """

    def __init__(self, role: str, run: str, tag: str, state: str) -> None:
        self.role = role
        self.run = run
        self.tag = tag
        self.state = state

    @property
    def pid(self) -> int:
        """The process id in the tag."""
        return int(self.tag.partition("-")[0])


class Names:
    """The names of the files of one prefix.

    Args:
        prefix (str): The queue's prefix; it may hold anything that a file's name may.

    Attributes:
        carried (str): What was carried from the run before, and is not requeued yet.
        attempts (str): How often messages were in hand of processes that died in earlier runs.
        failed (str): What was set aside in earlier runs.
        run (str): The identity of the run that the directory holds.
        seal (str): Which run has carried on its work.
        earlier (str): The folder with the files of runs that were carried on.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.carried = f"{prefix}_carried.tsv"
        self.attempts = f"{prefix}_attempts.tsv"
        self.failed = f"{prefix}_failed.tsv"
        self.run = f"{prefix}_run.json"
        self.seal = f"{prefix}_seal.json"
        self.earlier = f"{prefix}_earlier"
        start = re.escape(prefix)
        kinds, roles, states = map("|".join, (KINDS, ROLES, (HELD, SETTLED, CHECKED, LEFT)))
        self._journal = re.compile(rf"{start}_({kinds})_PID(\d+(?:-\d+)?)(_requeued)?\.tsv")
        self._lease = re.compile(
            rf"\.{start}_({roles})_([0-9a-f]{{{_SHORT}}})_PID(\d+(?:-\d+)?)\.({states})"
        )

    def journal(self, kind: str, tag: str) -> str:
        """Return the name of a process's file of a kind."""
        return f"{self.prefix}_{kind}_PID{tag}.tsv"

    def requeued(self, tag: str) -> str:
        """Return the name of carried work that the process of a tag has put anew."""
        return f"{self.prefix}_{REQUESTED}_PID{tag}_requeued.tsv"

    def lease(self, role: str, run: str, tag: str, state: str = HELD) -> str:
        """Return the name of a lease; see `LeaseName`."""
        return f".{self.prefix}_{role}_{run[:_SHORT]}_PID{tag}.{state}"

    def temporary(self, name: str, run: str) -> str:
        """Return the name under which a run's own first file is made, before it counts."""
        return f".{name}.{run}"

    def parse(self, name: str) -> JournalName | None:
        """Take a journal's name apart; None for any other."""
        match = self._journal.fullmatch(name)
        return JournalName(match[1], match[2], bool(match[3])) if match else None

    def parse_lease(self, name: str) -> LeaseName | None:
        """Take a lease's name apart; None for any other."""
        match = self._lease.fullmatch(name) if name.startswith(".") else None
        return LeaseName(match[1], match[2], match[3], match[4]) if match else None


def is_lease_of(lease: LeaseName, run: str) -> bool:
    """Tell whether a lease belongs to a run, given the run's identity."""
    return lease.run == run[:_SHORT]


_JOURNAL = re.compile(
    rf"(?P<prefix>.+)_(?:{'|'.join(KINDS)})_PID\d+(?:-\d+)?"
    r"(?:_requeued|_recovered(?:-\d+)?)?\.tsv",
    re.DOTALL,
)
_WHOLE = re.compile(r"(?P<prefix>.+)_(?:carried\.tsv|run\.json)", re.DOTALL)


def prefix_of(name: str) -> str | None:
    """Return the prefix of a journal that some process wrote, whatever the prefix; None else."""
    match = _JOURNAL.fullmatch(name) if "_PID" in name else None
    return match["prefix"] if match else None


def prefix_of_whole(name: str) -> str | None:
    """Return the prefix of a file that stands for a whole run; any file may be called so."""
    match = _WHOLE.fullmatch(name)
    return match["prefix"] if match else None


def next_free_tag(taken: set[str], pid: int) -> str:
    """Return the tag for a process's next copy.

    Args:
        taken (set[str]): Tags that are in use, or were.
        pid (int): The process's id.

    Returns:
        str: `4711`, `4711-2`, `4711-3` ...
    """
    tag, number = str(pid), 1
    while tag in taken:
        number += 1
        tag = f"{pid}-{number}"
    return tag
