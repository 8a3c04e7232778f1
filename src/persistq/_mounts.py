"""On which kind of file system a path is, and what that kind is good for."""

from __future__ import annotations

import os
import re
import sys

# Kinds of file systems of which no other machine changes anything: how the table of mounts calls
# them, and the number of each in statfs(2).
_LOCAL = {
    "bcachefs": 0xCA451A4E,
    "btrfs": 0x9123683E,
    "ext2": 0xEF53,
    "ext3": 0xEF53,
    "ext4": 0xEF53,
    "f2fs": 0xF2F52010,
    "jfs": 0x3153464A,
    "overlay": 0x794C7630,
    "ramfs": 0x858458F6,
    "reiserfs": 0x52654973,
    "tmpfs": 0x01021994,
    "vfat": 0x4D44,
    "xfs": 0x58465342,
    "zfs": 0x2FC12FC1,
}
_LOCAL_MAGIC = frozenset(_LOCAL.values())
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
    if device not in _lock_domains:
        _kind_of(path, device)
    return _lock_domains[device]


def reports_every_change(path: str, device: int) -> bool:
    """Tell whether the kernel sees every change of a folder: no other machine can make one.

    Args:
        path (str): Path of a folder.
        device (int): The number of the device that it is on (`st_dev`).

    Returns:
        bool: False on a network or unknown file system, and outside Linux.
    """
    # The kernel's own word is twenty times as quick as the table; only of what is not local does
    # the table say more.
    libc = sys.modules.get("persistq._libc")
    if libc is not None and libc.file_system_magic(path) in _LOCAL_MAGIC:
        _lock_domains[device] = "local"
        return True
    return _kind_of(path, device) in _LOCAL


def _kind_of(path: str, device: int) -> str:
    """Return the kind of file system, and note what that says of locks."""
    kind, options = _mount_of(path, device)
    domain = "local" if kind in _LOCAL else ""
    if kind in ("nfs", "nfs4"):
        local = re.search(r"local_lock=(\w+)", options)
        if "nolock" not in options.split(",") and (local is None or local[1] == "none"):
            domain = "nfs"
    _lock_domains[device] = domain
    return kind


def _mount_of(path: str, device: int) -> tuple[str, str]:
    """Return the kind of the file system that a path is on, and its options; empty where unknown.

    All mounts of one device are one file system. Some give files a number that no mount has, as
    btrfs does for each of its volumes; then it is the last mount above the path.
    """
    try:
        with open("/proc/self/mountinfo", "rb", buffering=0) as file:
            data = file.readall()
        number = b"%d:%d" % (os.major(device), os.minor(device))
        # By its device first: that is quicker than to compare all mount points, and holds in a
        # chroot, too, where no line may be of a mount above the path.
        place = data.find(b" %b " % number)
        while place >= 0:
            line = data[data.rfind(b"\n", 0, place) + 1 : data.find(b"\n", place)]
            if line.split(b" ", 3)[2] == number:
                return _kind_and_options(line)
            place = data.find(b" %b " % number, place + 1)
        return _mount_above(os.fsencode(os.path.realpath(path)), data.splitlines())
    except (OSError, ValueError, IndexError):
        return "", ""


def _kind_and_options(line: bytes) -> tuple[str, str]:
    fields = os.fsdecode(line).split(" ")
    rest = fields[fields.index("-") + 1 :]
    return rest[0], rest[2].strip()


def _mount_above(path: bytes, lines: list[bytes]) -> tuple[str, str]:
    found, shown = b"", b""
    for line in lines:
        point = line.split(b" ", 5)[4]
        if b"\\" in point:
            point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), point)
        inside = path == point or path.startswith(point.rstrip(b"/") + b"/")
        # Of mounts on one point, the last is the one that shows.
        if inside and len(point) >= len(found):
            found, shown = point, line
    return _kind_and_options(shown) if shown else ("", "")
