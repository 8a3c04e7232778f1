"""How a folder gets back in order: reset, purge, and what dead processes left claimed."""

from __future__ import annotations

import logging
import os
import stat
import time

from persistq import _fs
from persistq._folder import control, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_log = logging.getLogger("persistq")


def purge_control_messages(folder: str) -> None:
    """Remove all control files, whoever wrote them; folders of such names stay."""
    for name in os.listdir(folder):
        if control.is_control(name):
            path = os.path.join(folder, name)
            try:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    os.unlink(path)  # of a link the link itself
            except FileNotFoundError:
                pass  # another producer resets too


def reset_processing_files(folder: str, extension: str) -> list[str]:
    """Give all claimed files their own names back, whoever claimed them.

    One whose own name is taken by now keeps the other, and that is logged. Killed in between,
    some are reset and the next call resets the rest.

    Args:
        folder (str): Path of the queue's folder.
        extension (str): The message extension with its leading dot.

    Returns:
        list[str]: Paths of the files that are waiting again, in order.
    """
    restored = []
    for name, _, _, stem in _claimed(folder):
        path = restore(folder, name, stem + extension)
        if path is not None:
            restored.append(path)
    remove_temporaries(folder)
    return restored


def restore(folder: str, wip: str, original: str) -> str | None:
    """Give one claimed file its own name back; None, and a warning, when that is not possible."""
    source, target = os.path.join(folder, wip), os.path.join(folder, original)
    try:
        _fs.rename_new(source, target)
    except FileNotFoundError:
        return None  # finished, or restored by another process, meanwhile
    except FileExistsError:
        if _same_file(source, target):
            # Killed between link and unlink (see _fs.rename_new): one file with both names.
            os.unlink(source)
            return target
        _log.warning(
            "%s keeps this name: a file named %s is waiting already. Move one of the two away, "
            "then reset again.",
            source,
            original,
        )
        return None
    return target


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _claimed(folder: str) -> Iterator[tuple[str, int, str, str]]:
    """Give name, process id, host and stem of each claimed file, in order of their names."""
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if entry.name.endswith(names.WIP))
    for name in found:
        parts = names.parse_wip(name)
        if parts is None:
            continue
        try:
            mode = os.lstat(os.path.join(folder, name)).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield name, *parts


def remove_temporaries(folder: str) -> None:
    """Remove what processes of this host left half written when they died.

    Nothing is lost with it: until the whole is published, the source is untouched.
    """
    host = names.host_digits(_fs.machine_fqdn(), _fs.pid_namespace())
    for name in os.listdir(folder):
        owner = names.parse_temporary(name)
        if owner is None or owner[1] != host or owner[0] == os.getpid():
            continue
        if _fs.process_start_s(owner[0]) is None:
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                pass


def purge(folder: str) -> None:
    """Remove everything in the folder, for ever; a link goes, what it points to stays."""
    import shutil

    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                # rmtree follows no link, also when one takes a folder's place meanwhile.
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass  # consumers are at work, or another purge


def reclaim_abandoned(folder: str, extension: str, inherited: Collection[str]) -> list[str]:
    """Give the files that dead processes of this host had claimed their own names back.

    Args:
        folder (str): Path of the queue's folder.
        extension (str): The message extension with its leading dot.
        inherited (Collection[str]): Claimed files with this process's id that it did not claim.

    Returns:
        list[str]: Paths of the files that are waiting again, in order.
    """
    host = names.host_digits(_fs.machine_fqdn(), _fs.pid_namespace())
    starts_s: dict[int, float | None] = {}
    ahead_s: float | None = None
    restored = []
    for name, pid, where, stem in _claimed(folder):
        if where != host:
            continue
        if pid == os.getpid():
            abandoned = name in inherited
        else:
            # The file first: were it claimed and finished between the two looks, there would be
            # nothing to restore; the other way round a new owner of the id would look too young.
            try:
                claimed_s = os.lstat(os.path.join(folder, name)).st_ctime
            except OSError:
                continue
            if pid not in starts_s:
                starts_s[pid] = _fs.process_start_s(pid)
            start_s = starts_s[pid]
            abandoned = start_s is None
            if start_s is not None and start_s > claimed_s + _fs.YOUNGER_S:
                if ahead_s is None:
                    ahead_s = _clock_ahead_s(folder)
                abandoned = start_s > claimed_s - ahead_s + _fs.YOUNGER_S
        if abandoned:
            path = restore(folder, name, stem + extension)
            if path is not None:
                restored.append(path)
    remove_temporaries(folder)
    return restored


def _clock_ahead_s(folder: str) -> float:
    """Measure how far the clock that dates files is ahead of this machine's: a file server's."""
    import uuid

    host = names.host_digits(_fs.machine_fqdn(), _fs.pid_namespace())
    prefix = names.wip_prefix(os.getpid(), host)
    path = os.path.join(folder, f"{names.TEMPORARY}{prefix}{uuid.uuid4().hex}.tmp")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return os.fstat(fd).st_ctime - time.time()
    finally:
        os.close(fd)
        os.unlink(path)
