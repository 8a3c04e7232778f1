"""How a file that several may want to publish gets its name, and gets it once.

Where the kernel renames without overwriting, that one step is exclusive on both names. Elsewhere
(NFS, sshfs, old C libraries) two steps are needed:

1. The file is renamed to a name that only this process gives: of all who want it, one succeeds.
   That name is one of a claimed file. Killed here: it is in the folder, claimed by a dead process,
   and reclaimed like all such.
2. Its name is linked, which refuses to overwrite, and the other one removed. Killed in between:
   the file has both names, and whoever takes it removes the other (`remove_other_name`), so that
   nobody publishes it again.
"""

from __future__ import annotations

import errno
import os
import stat

from persistq import _fs, _lease
from persistq._folder import identity, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._folder.identity import Claimer


def publish(source: str, target: str, member: Claimer, name: str | None = None) -> None:
    """Give a file its name on the queue, never over another one; of several who try, one does.

    Args:
        source (str): Path of the file.
        target (str): Its path on the queue.
        member (Claimer): By which this process takes part in the queue's folder.
        name (str | None): Its name as a message, where that is not the target's.

    Raises:
        FileExistsError: The name is taken; nothing has changed.
        FileNotFoundError: There is no source, or another process has published it.
        OSError: Whatever else the file system refuses; the file is not on the queue.
    """
    if _fs.rename_in_one_step(source, target):
        return
    # One file at a time bears this number, so its name cannot be taken.
    with member.lock:
        member.turn.come()
        os.lstat(source)
        if os.path.lexists(target) and not _fs.is_same_file(source, target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
        publisher = member.publisher()
        publisher.hold()
        extension = publisher.facts["messageExtension"]
        held = os.path.join(
            os.path.dirname(target),
            names.wip_name(name or os.path.basename(target), extension, publisher.prefix),
        )
        publisher.remember(held)
        if not _fs.claim_by_rename(source, held):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source, None, target)
        try:
            _fs.rename_by_link(held, target)
        except BaseException:
            try:
                _fs.rename_by_link(held, source)
            except OSError:
                pass  # a new file has its name: it stays claimed, and is reclaimed after our end
            raise


def is_still_a_file(claimed: str, original: str) -> bool:
    """Look at what has been claimed, where its kind or its names may have changed meanwhile.

    Args:
        claimed (str): Its path.
        original (str): The path that it had.

    Returns:
        bool: False of a folder that had taken a message's name; it is given back.
    """
    try:
        status = os.lstat(claimed)
    except OSError:
        return True
    if stat.S_ISDIR(status.st_mode):
        os.rename(claimed, original)
        return False
    if status.st_nlink > 1:
        parts = names.parse_wip(os.path.basename(claimed))
        if parts is not None:
            _remove_other_name(claimed, parts[2], status)
    return True


def _remove_other_name(claimed: str, stem: str, status: os.stat_result) -> None:
    """Remove the name that a publisher, who may have been killed, gave a file that is claimed now.

    Args:
        claimed (str): Path of the claimed file.
        stem (str): Its name as a message, without the extension.
        status (os.stat_result): What was seen of it.
    """
    folder, own = os.path.split(claimed)
    for name in os.listdir(folder):
        parts = names.parse_wip(name)
        if parts is None or parts[2] != stem or name == own:
            continue
        lease = os.path.join(folder, names.lease_name(parts[0], parts[1]))
        path = os.path.join(folder, name)
        if _fs.is_same_file(path, status) and (
            _lease.read(lease).get("role") == identity.PUBLISHER
        ):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # the publisher lives, and did it
