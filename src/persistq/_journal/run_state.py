"""Which run a directory holds, and which files are that run's.

A run has an identity, drawn at random, which stands in `<prefix>_run.json`. That file is written in
one step, and says all that must change in one step when one run follows another in a directory:

- `run`: the identity; with it, the run's first files count, which were written before under names
  that hold it (`Names.temporary`), until they get the names that a person looks for.
- `setAside`: names of files that were carried on, and count no more; they are moved to
  `<prefix>_earlier` when that can be done.
- `earlier`: names of files of runs before this one that nobody has carried on, run by run: they
  wait here for a restart that is told of this directory.
- `carries`: the runs, each with its directory, whose work this one has carried on.

`<prefix>_seal.json` says which run has carried on the one that is here. A seal that names another
run than the directory holds is an older one's, and says nothing.

Journals without an identity (of version 0.1, or of the library that persistq replaces) are one run,
whose identity is the empty text; a seal on it lists the files that were carried.
"""

from __future__ import annotations

import json
import os

from persistq import _fs, _lease
from persistq._journal import names as _names
from persistq._journal.names import HELD, LeaseName, Names, is_lease_of
from persistq._journal.outstanding import Journals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_TRIES = 50


class Seal:
    """What says that a run was carried on.

    Attributes:
        run (str): The run that was carried on.
        by (str): The run that did so.
        directory (str): Where that one is.
        files (list[str] | None): The files that were carried, of a run without an identity.
    """

    def __init__(self, said: dict[str, Any]) -> None:
        self.run = str(said.get("run", ""))
        self.by = str(said.get("by", ""))
        self.directory = str(said.get("directory", ""))
        self.files: list[str] | None = said.get("files")


class Member:
    """A lease in a directory, as it was when that was listed.

    Attributes:
        path (str): Its path.
        name (LeaseName): Its name, taken apart.
    """

    def __init__(self, path: str, name: LeaseName) -> None:
        self.path = path
        self.name = name

    def is_dead(self) -> bool | None:
        """Tell whether its process has died; see `_lease.is_dead`."""
        return _lease.is_dead(self.path)


class RunState:
    """The run of one prefix that a directory holds, as it was when it was listed.

    Args:
        directory (str): The directory.
        prefix (str): The queue's prefix.

    Attributes:
        run (str): The run's identity; empty of one without, and where there is none.
        seal (Seal | None): Who has carried it on, if somebody has.
        carries (list[dict[str, str]]): What it has carried on itself: `run` and `directory` of
            each.
        carried (str | None): Path of the work carried from earlier runs, not yet requeued.
        requeued (list[str]): Paths of carried work that was put anew.
        requested, completed, failed, resolved, started, attempts (list[str]): Paths of the run's
            files; `requested` in the order of its work: carried work first, then by time of last
            modification and name. `failed` and `attempts` begin with what was carried.
        earlier (list[Journals]): Runs before this one that nobody has carried on.
        others (list[str]): Names of all files here of this prefix that count no more, or say
            nothing about work.
        tags (set[str]): Tags that are in use, or were.

    Raises:
        OSError: The directory cannot be listed.
    """

    def __init__(self, directory: str, prefix: str) -> None:
        self.directory = directory
        self.names = Names(prefix)
        for number in range(_TRIES):
            try:
                self._look()
                break
            except FileNotFoundError:
                # A file has got another name, or is gone, while the directory was listed.
                if number == _TRIES - 1 or not os.path.isdir(directory):
                    raise

    def _look(self) -> None:
        record = self._read(self.names.run)
        self.record = record
        self.run = str(record.get("run", ""))
        self.carries: list[dict[str, str]] = list(record.get("carries", ()))
        seal = self._read(self.names.seal)
        self.seal = Seal(seal) if seal and str(seal.get("run", "")) == self.run else None
        gone = set(record.get("setAside", ()))
        if self.seal is not None and self.seal.files is not None:
            # What has come since has not been carried: it is a run without identity of its own.
            listed = set(self.seal.files)
            if any(self._is_journal(name) and name not in listed for name in self._list()):
                gone |= listed
                self.seal = None
        groups = [set(group) for group in record.get("earlier", ())]
        self._sort(gone, groups)
        if self._read(self.names.run).get("run", "") != self.run:
            raise FileNotFoundError(self.names.run)  # another run has begun meanwhile

    def _read(self, name: str) -> dict[str, Any]:
        try:
            with open(os.path.join(self.directory, name), "rb", opener=_fs.open_file) as file:
                said = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def _list(self) -> list[str]:
        return os.listdir(self.directory)

    def _is_journal(self, name: str) -> bool:
        return self.names.parse(name) is not None or name == self.names.carried

    def _sort(self, gone: set[str], groups: list[set[str]]) -> None:
        names = self.names
        found: dict[str, list[str]] = {kind: [] for kind in _names.KINDS}
        requested: list[list[tuple[bool, int, str]]] = [[] for _ in range(len(groups) + 1)]
        completed: list[list[str]] = [[] for _ in requested]
        failed: list[list[str]] = [[] for _ in requested]
        firsts: dict[str, str | None] = dict.fromkeys((names.carried, names.attempts, names.failed))
        mine = {names.temporary(name, self.run): name for name in firsts} if self.run else {}
        self.members: list[Member] = []
        self.others: list[str] = []
        self.tags: set[str] = set()
        self.requeued: list[str] = []
        self.all: list[str] = []  # names of all that a run which follows sets aside
        with os.scandir(self.directory) as entries:
            for entry in entries:
                name = entry.name
                if name in mine:
                    firsts[mine[name]] = entry.path
                    self.all.append(name)
                    continue
                lease = names.parse_lease(name)
                if lease is not None:
                    self.tags.add(lease.tag)
                    self.members.append(Member(entry.path, lease))
                    continue
                parsed = names.parse(name)
                if parsed is None:
                    if name in firsts:
                        self.all.append(name)
                        if name not in gone and firsts[name] is None:
                            firsts[name] = entry.path
                    elif _names.prefix_of(name) == names.prefix:
                        self.all.append(name)  # what version 0.1 has put aside
                    continue
                self.tags.add(parsed.tag)
                self.all.append(name)
                if name in gone:
                    self.others.append(name)
                    continue
                if not entry.is_file():
                    continue  # a link to nothing, a folder: nobody's journal
                group = next((n for n, names_ in enumerate(groups) if name in names_), -1)
                if parsed.kind == _names.REQUESTED:
                    modified_ns = entry.stat().st_mtime_ns
                    requested[group].append((not parsed.is_requeued, modified_ns, entry.path))
                    if parsed.is_requeued and group < 0:
                        self.requeued.append(entry.path)
                elif parsed.kind == _names.COMPLETED:
                    completed[group].append(entry.path)
                else:
                    # Of runs that wait here too: what they set aside is still to be decided.
                    found[parsed.kind].append(entry.path)
                    if parsed.kind == _names.FAILED:
                        failed[group].append(entry.path)
        self.members.sort(key=lambda member: (member.name.pid, member.name.tag))
        self.carried = firsts[names.carried]
        own = [path for _, _, path in sorted(requested[-1])]
        self.requested = [self.carried, *own] if self.carried else own
        self.completed = sorted(completed[-1])
        self.started = sorted(found[_names.STARTED])
        self.resolved = sorted(found[_names.RESOLVED])
        self.failed_here = sorted(failed[-1])
        self.failed = [*filter(None, [firsts[names.failed]]), *sorted(found[_names.FAILED])]
        self.attempts = [*filter(None, [firsts[names.attempts]]), *sorted(found[_names.ATTEMPTS])]
        self.earlier = [
            Journals([p for _, _, p in sorted(requested[n])], sorted(completed[n]), failed[n])
            for n in range(len(groups))
        ]

    @property
    def has_journals(self) -> bool:
        """Whether there is work of this run, or of runs before it that wait here, done or not."""
        waiting = any(journals.requested or journals.completed for journals in self.earlier)
        return bool(self.requested or self.completed or self.failed or waiting)

    @property
    def exists(self) -> bool:
        """Whether the directory holds a run at all."""
        return bool(self.run or self.has_journals or self.started)

    def chain(self, with_carried: bool = True) -> list[Journals]:
        """Return what holds this run's outstanding work, and that of those waiting before it.

        Args:
            with_carried (bool): Whether work counts that was carried and is not requeued.
        """
        requested = self.requested
        if not with_carried and self.carried is not None:
            requested = requested[1:]
        return [*self.earlier, Journals(requested, self.completed, self.failed_here)]

    def own(self) -> Journals:
        """Return what was put or requeued in this run, and completed of that."""
        return self.chain(with_carried=False)[-1]

    def members_of_run(self, states: Iterable[str] = (HELD,)) -> list[Member]:
        """Return the leases of the run that the directory holds, in the states named."""
        wanted = set(states)
        return [
            member
            for member in self.members
            if member.name.state in wanted and is_lease_of(member.name, self.run)
        ]

    def living(self) -> list[Member]:
        """Return who of the run lives, this process's own copies left out.

        Where the file system refuses locks nobody is known to live, nor to have died.
        """
        return [
            member
            for member in self.members_of_run()
            if not _lease.is_mine(member.path) and member.is_dead() is False
        ]


def write_record(directory: str, name: str, said: dict[str, Any], *, new: bool) -> None:
    """Write what a directory's run is, or who carried it on, in one step, to stable storage.

    Killed inside of this: nothing has changed, but for a temporary file that nobody reads.

    Args:
        directory (str): The directory.
        name (str): `Names.run` or `Names.seal`.
        said (dict[str, Any]): What it is to say.
        new (bool): Whether it must not be there yet.

    Raises:
        FileExistsError: It is there, and `new` was asked for.
        OSError: It cannot be written.
    """
    temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0))
    try:
        try:
            _fs.make_readable(fd)
            text = json.dumps({**said, **_lease.facts_of_this_process()}) + "\n"
            _fs.write_all(fd, text.encode())
            _fs.sync_file(fd)
        finally:
            os.close(fd)
        if new:
            _fs.publish_new(temporary, os.path.join(directory, name))
        else:
            os.replace(temporary, os.path.join(directory, name))
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    _fs.sync_folder(directory)
