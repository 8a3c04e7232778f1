"""Who still produces: the `.helo`, `.done` and `.failed` files in the folder."""

from __future__ import annotations

import logging
import os
import stat
from functools import partial

from persistq import _fs, _processes
from persistq._folder import identity, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Producer = tuple[str, str, str]

_log = logging.getLogger("persistq")

LARGEST_BYTES = 64 * 1024
"""A control file is a few hundred bytes; a larger one was made by something else."""


def write(
    folder: str,
    kind: str,
    producer: Producer,
    extension: str,
    staged: str,
    *,
    ignore_case: bool,
    sync: bool,
) -> str:
    """Publish a control file; a kill before the rename leaves a temporary file and no announcement.

    Args:
        folder (str): Path of the queue's folder.
        kind (str): `names.HELO`, `names.DONE` or `names.FAILED`.
        producer (tuple[str, str, str]): Machine, process id and uuid of the producer.
        extension (str): The message extension with its leading dot.
        staged (str): Path of a temporary file in the folder, which must not exist.
        ignore_case (bool): Whether that counts in other letters, too.
        sync (bool): Whether to return only when file and entry are on stable storage.

    Returns:
        str: Path of the control file.
    """
    # Slow to import, and only processes that produce need them.
    import datetime
    import json

    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d_%H%M%S_%f")
    machine, pid, identity = producer
    digits = pid.zfill(6)
    header: dict[str, Any] = {
        "type": kind[1:],
        "createdUTCTimestamp": now,
        "uuid": identity,
        "createdBy": _processes.user_name(),
        "hostName": _processes.host_name(),
        "machineFQDN": machine,
        "pid": digits,
        "messageExtension": extension[1:],
    }
    if ignore_case:
        header["ignoreCase"] = True
    content = json.dumps({"header": header}).encode()
    target = os.path.join(folder, f"{now}__{digits}_{identity}{kind}")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            _fs.make_readable(fd)  # for consumers that are other users, whatever the umask
            _fs.write_all(fd, content)
            if sync:
                _fs.sync_file(fd)
        finally:
            os.close(fd)
        # The name holds a uuid: nobody else makes it, so there is nothing to overwrite.
        os.rename(staged, target)
    except BaseException:
        os.unlink(staged)
        raise
    if sync:
        _fs.sync_folder(folder)
    return target


def is_control(name: str) -> bool:
    """Tell whether a file of this name is a control file."""
    return name.endswith(names.CONTROL) and not name.startswith(".")


class Producers:
    """What the control files of one folder say, each of them read once, and few at all.

    A file that is no JSON object with a header was made by hand: such a `.done` ends the queue
    once nothing waits, such a `.helo` fails it, as does any `.failed`. A name with a uuid says
    by itself whose the file is.

    Args:
        folder (str): Path of the queue's folder.

    Attributes:
        failed (bool): Whether a producer says that it failed, or a file made by hand does.
        done (bool): Whether all that were announced are done.
        open (dict[tuple[str, str, str], str]): Who was announced and is not done, and the name
            of the control file that says so.
        finished (dict[tuple[str, str, str], list[str]]): Who is done, and the names that say so.
        told (set[tuple[str, str, str]]): Who has died, as the log knows.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, Producer] = {}
        self.failed = False
        self.done = False
        self.open: dict[Producer, str] = {}
        self.finished: dict[Producer, list[str]] = {}
        self.told: set[Producer] = set()

    def look(self, control_names: Iterable[str]) -> None:
        """Bring `failed`, `done` and `open` up to date.

        Args:
            control_names (Iterable[str]): Names of control files that were there a moment ago.
        """
        announced: dict[Producer, list[str]] = {}
        finished: dict[Producer, list[str]] = {}
        failed = by_hand = False
        known: dict[str, Producer] = {}
        for name in sorted(control_names):
            path = os.path.join(self._folder, name)
            if name.endswith(names.FAILED):
                failed = failed or _is_file(path)
                continue
            producer = self._known.get(name)
            if producer is None:
                found, producer = whose(path)
                if not found:
                    continue
            elif not _is_file(path):
                continue
            if producer is None:
                if name.endswith(names.HELO):
                    failed = True
                else:
                    by_hand = True
                continue
            known[name] = producer
            side = announced if name.endswith(names.HELO) else finished
            side.setdefault(producer, []).append(name)
        self._known = known
        self.open = {
            producer: found[0]
            for producer, found in announced.items()
            if producer not in finished and not any(map(partial(_may_be, producer), finished))
        }
        for producer in announced.keys() & finished.keys():
            finished[producer] = announced[producer] + finished[producer]
        self.finished = finished
        self.failed = failed
        self.done = by_hand or (bool(finished) and not self.open)

    def dead(self, verdicts: identity.Verdicts) -> list[Producer]:
        """Give those who have died before they were done: on proof, which only a lease gives.

        Args:
            verdicts (identity.Verdicts): Who lives.
        """
        found = []
        for producer in self.open:
            digits = names.claimer_of_uuid(producer[2])
            if digits and producer[1].isdecimal():
                dead, said = verdicts.of(int(producer[1]), digits)
                if dead and said is not None:
                    found.append(producer)
        return found

    @property
    def died(self) -> bool:
        """Whether one of those who are open is known to have died."""
        return not self.told.isdisjoint(self.open)

    def has_died(self) -> bool:
        """Find out whether a producer has died before it was done, and log once who it was."""
        found = self.dead(identity.Verdicts(self._folder))
        for producer in found:
            if producer not in self.told:
                self.told.add(producer)
                said = header_of(os.path.join(self._folder, self.open[producer]))
                _log.error(
                    "%s: a producer died without close() or fail(): process %s of %s on %s (see "
                    "%s). It counts as failed. Start it again, and have that call "
                    "close(dead=True), or reset the folder.",
                    self._folder,
                    producer[1],
                    said.get("createdBy", "an unknown user"),
                    said.get("hostName", "an unknown host"),
                    self.open[producer],
                )
        return bool(found)


def _may_be(one: Producer, other: Producer) -> bool:
    """Tell whether two are one, of which a file could not be read: then it lacks some parts."""
    if all(one) and all(other):
        return one == other
    return all(a == b or not a or not b for a, b in zip(one, other))


def whose(path: str) -> tuple[bool, Producer | None]:
    """Tell whose a control file is, by its name where that says it.

    Args:
        path (str): Path of a file with the name of one.

    Returns:
        tuple[bool, tuple[str, str, str] | None]: As of `read`; the machine is empty where the
        name alone was asked.
    """
    by_name = names.parse_control(os.path.basename(path))
    if by_name is not None and by_name[1]:
        return _is_file(path), ("", *by_name)
    return read(path)


def header_of(path: str) -> dict[str, Any]:
    """Give what the header of a control file says; nothing where it has none."""
    content = _content(path)
    if not content:
        return {}
    import json

    try:
        header = json.loads(content)["header"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read(path: str) -> tuple[bool, Producer | None]:
    """Read a control file.

    Args:
        path (str): Path of a file with the name of one.

    Returns:
        tuple[bool, tuple[str, str, str] | None]: Whether it is one, for it may be gone or a
        folder; and whose: machine, process id and uuid, or None when it was made by hand.
    """
    content = _content(path)
    if content is None:
        return False, None
    if content is _UNREADABLE:
        by_name = names.parse_control(os.path.basename(path))
        if by_name is None:
            _log.warning("%s cannot be read; it is taken as made by hand", path)
        return True, ("", *by_name) if by_name else None
    if len(content) > LARGEST_BYTES:
        return True, None
    import json  # a consumer needs it once a producer has shown itself

    try:
        message = json.loads(content)
        header = message["header"]
        parts = [header[key] for key in ("machineFQDN", "pid", "uuid")]
    except (ValueError, TypeError, KeyError, RecursionError):
        # Not JSON, not UTF-8, not an object, without header, nested too deeply.
        return True, None
    if not all(isinstance(part, (str, int)) for part in parts):
        return True, None
    fqdn, pid, uuid = (str(part) for part in parts)
    # The original writes the pid with leading zeros; by its value, however many.
    return True, (fqdn, pid.strip().lstrip("0"), uuid.lower())


_UNREADABLE = b"unreadable"


def _content(path: str) -> bytes | None:
    """Read a file; None where there is none, _UNREADABLE where this user may not."""
    try:
        # Without O_NONBLOCK a pipe that takes this name after the look would stop us for ever.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except PermissionError:
        return _UNREADABLE if _is_file(path) else None
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = b""
        while len(content) <= LARGEST_BYTES:
            block = os.read(fd, LARGEST_BYTES + 1 - len(content))
            if not block:
                break
            content += block
    finally:
        os.close(fd)
    return content
