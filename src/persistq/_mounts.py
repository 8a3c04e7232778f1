"""On which kind of file system a path is, and what that kind is good for."""

from __future__ import annotations

import os
import re
import sys

_LOCAL = frozenset(
    [
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "vfat",
        "xfs",
        "zfs",
    ]
)
_lock_domains: dict[int, str] = {}


def carries_locks(path: str, device: int) -> bool:
    """Tell whether a lock on a file binds all who use the file in the same way, on any host.

    Args:
        path (str): Path of a file.
        device (int): The number of the device that it is on (`st_dev`).

    Returns:
        bool: True of local file systems, and of NFS that is not told to keep locks to itself
        (nfs(5), local_lock); False of others, such as FUSE and SMB.
    """
    return bool(lock_domain(path, device))


def lock_domain(path: str, device: int) -> str:
    """Say among whom a lock on a file is known.

    Args:
        path (str): Path of a file.
        device (int): The number of the device that it is on (`st_dev`).

    Returns:
        str: `local` of local file systems, `nfs` of NFS that is not told to keep locks to itself:
        all of one word see one another's locks (a flock of NFS is no flock on the server, nfs(5)).
        Empty of others, such as FUSE and SMB, whose locks this kernel alone may know.
    """
    if sys.platform != "linux":
        return "local"  # nothing tells, and a local disk is the rule
    known = _lock_domains.get(device)
    if known is None:
        kind, options = _mount_of(path)
        known = "local" if kind in _LOCAL else ""
        if kind in ("nfs", "nfs4"):
            local = re.search(r"local_lock=(\w+)", options)
            if "nolock" not in options.split(",") and (local is None or local[1] == "none"):
                known = "nfs"
        _lock_domains[device] = known
    return known


def reports_every_change(path: str) -> bool:
    """Tell whether the kernel sees every change of a folder: no other machine can make one.

    Args:
        path (str): Path of a folder.

    Returns:
        bool: False on a network or unknown file system, and outside Linux.
    """
    return _mount_of(path)[0] in _LOCAL


def _mount_of(path: str) -> tuple[str, str]:
    """Return the kind and the options of the mount that a path is on; empty where unknown."""
    real = os.path.realpath(path)
    found, kind, options = "", "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                point = line.split(" ", 5)[4]
                if "\\" in point:
                    point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
                inside = real == point or real.startswith(point.rstrip("/") + "/")
                # Of mounts on one point, the last is the one that shows.
                if inside and len(point) >= len(found):
                    fields = line.split(" ")
                    rest = fields[fields.index("-") + 1 :]
                    found, kind, options = point, rest[0], rest[2].strip()
    except (OSError, ValueError, IndexError):
        return "", ""
    return kind, options
