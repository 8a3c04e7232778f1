"""Who still produces: the `.helo`, `.done` and `.failed` files in the folder."""

from __future__ import annotations

import logging
import os
import stat

from persistq import _fs
from persistq._folder import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Producer = tuple[str, str, str]

_log = logging.getLogger("persistq")

LARGEST_BYTES = 64 * 1024
"""A control file is a few hundred bytes; a larger one was made by something else."""


def write(folder: str, kind: str, identity: str, pid: int, prefix: str, *, sync: bool) -> str:
    """Publish a control file; a kill before the rename leaves a temporary file and no announcement.

    Args:
        folder (str): Path of the queue's folder.
        kind (str): `names.HELO`, `names.DONE` or `names.FAILED`.
        identity (str): The producer's uuid.
        pid (int): The producer's process id.
        prefix (str): The beginning of this process's file names, as of claimed files.
        sync (bool): Whether to return only when file and entry are on stable storage.

    Returns:
        str: Path of the control file.
    """
    # Slow to import, and only processes that produce need them.
    import datetime
    import json
    import socket
    import uuid

    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d_%H%M%S_%f")
    digits = f"{pid:06d}"
    header = {
        "type": kind[1:].upper(),
        "createdUTCTimestamp": now,
        "uuid": identity,
        "createdBy": _fs.user_name(),
        "hostName": socket.gethostname(),
        "machineFQDN": _fs.machine_fqdn(),
        "pid": digits,
    }
    content = json.dumps({"header": header}).encode()
    staged = os.path.join(folder, f"{names.TEMPORARY}{prefix}{uuid.uuid4().hex}.tmp")
    target = os.path.join(folder, f"{now}__{digits}_{identity}{kind}")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
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
    """What the control files of one folder say, each of them read once.

    A file that is no JSON object with a header was made by hand: such a `.done` ends the queue
    once nothing waits, such a `.helo` fails it, as does any `.failed`.

    Args:
        folder (str): Path of the queue's folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, Producer] = {}
        self.failed = False
        self.done = False

    def look(self, control_names: Iterable[str]) -> None:
        """Bring `failed` and `done` up to date.

        Args:
            control_names (Iterable[str]): Names of control files that were there a moment ago.
        """
        announced: set[Producer] = set()
        finished: set[Producer] = set()
        failed = by_hand = False
        known: dict[str, Producer] = {}
        for name in control_names:
            path = os.path.join(self._folder, name)
            if name.endswith(names.FAILED):
                failed = failed or _is_file(path)
                continue
            producer = self._known.get(name)
            if producer is None:
                found, producer = read(path)
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
            (announced if name.endswith(names.HELO) else finished).add(producer)
        self._known = known
        self.failed = failed
        self.done = by_hand or (bool(finished) and announced <= finished)


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
    try:
        # Without O_NONBLOCK a pipe that takes this name after the look would stop us for ever.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except PermissionError:
        if _is_file(path):
            _log.warning("%s cannot be read; it is taken as made by hand", path)
            return True, None
        return False, None
    except OSError:
        return False, None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False, None
        content = b""
        while len(content) <= LARGEST_BYTES:
            block = os.read(fd, LARGEST_BYTES + 1 - len(content))
            if not block:
                break
            content += block
    finally:
        os.close(fd)
    if len(content) > LARGEST_BYTES:
        return True, None
    import json  # a consumer needs it once a producer has shown itself

    try:
        message = json.loads(content)
        header = message["header"]
        identity = [header[key] for key in ("machineFQDN", "pid", "uuid")]
    except (ValueError, TypeError, KeyError, RecursionError):
        # Not JSON, not UTF-8, not an object, without header, nested too deeply.
        return True, None
    if not all(isinstance(part, (str, int)) for part in identity):
        return True, None
    fqdn, pid, uuid = (str(part) for part in identity)
    # The original writes the pid with leading zeros; by its value, however many.
    return True, (fqdn, pid.strip().lstrip("0"), uuid.lower())
