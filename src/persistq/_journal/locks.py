"""Who lives: a journal file is held locked while its process has it open.

The kernel frees the lock when the process dies, however it dies. So a lock that is held proves
life, also between containers and where process ids come round again; and a lock that can be had
proves that nobody has the file open. Where the file system refuses locks nothing is proved, and
nothing is assumed dead.
"""

from __future__ import annotations

import errno
import os

from persistq import _fs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# What a lock that another process has is refused with.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}

if os.name == "nt":
    # Locks on Windows stop readers, so the one that is locked is a byte that no journal reaches.
    _FAR = 1 << 62

    def _call(fd: int, mode: str) -> None:
        import msvcrt

        place = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            getattr(msvcrt, "locking")(fd, getattr(msvcrt, mode), 1)  # noqa: B009
        finally:
            os.lseek(fd, place, os.SEEK_SET)

    def _lock(fd: int, wait: bool, shared: bool = False) -> None:
        _call(fd, "LK_LOCK" if wait else "LK_NBLCK")

    def _unlock(fd: int) -> None:
        _call(fd, "LK_UNLCK")

else:

    def _lock(fd: int, wait: bool, shared: bool = False) -> None:
        import fcntl

        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(fd, mode | (0 if wait else fcntl.LOCK_NB))

    def _unlock(fd: int) -> None:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)


def hold(fd: int) -> None:
    """Hold the file locked for as long as this descriptor is open.

    Waits while somebody looks whether it is held, which takes a moment. Where the file system
    has no locks, nothing happens.

    Args:
        fd (int): An open, writable descriptor.
    """
    try:
        _lock(fd, wait=True)
    except OSError:
        pass


def is_held(path: str) -> bool | None:
    """Tell whether a process has the file open.

    Args:
        path (str): Path of a journal file.

    Returns:
        bool | None: True is proof that a process lives which has it open, False that none does.
        None where nothing is proved: the file system refuses locks, or this file, or it is gone.
    """
    try:
        fd = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    except OSError:
        return None
    try:
        # Shared, so that two who look at once do not take each other for a holder.
        _lock(fd, wait=False, shared=True)
    except OSError as error:
        return True if error.errno in _HELD else None
    else:
        # Closing is not enough: a child forked just now by another thread has the descriptor too.
        _unlock(fd)
        return False
    finally:
        os.close(fd)


class Looker:
    """Tells which files are held, as they were at its creation, and locks none where it can.

    Linux lists the locks in /proc/locks. What stands there is held. What does not is free, if
    the list is complete: not so inside a container, nor where device numbers are made up (btrfs,
    overlay). Then, and on other systems, a shared lock is asked for, which takes a moment.
    """

    def __init__(self) -> None:
        self._held: set[tuple[int, int]] = set()
        self._is_complete = False
        try:
            with open("/proc/locks", "rb") as file:
                for line in file:
                    # 1: FLOCK  ADVISORY  WRITE 12724 fe:00:2195810 0 EOF
                    fields = line.split()
                    if fields[1:2] == [b"FLOCK"] and fields[3] == b"WRITE":
                        major, minor, inode = fields[5].split(b":")
                        self._held.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
            self._is_complete = not _fs.pid_namespace()
        except (OSError, ValueError, IndexError):
            pass

    def is_held(self, path: str) -> bool | None:
        """Tell whether a process has the file open, or may have.

        Args:
            path (str): Path of a journal file.

        Returns:
            bool | None: As `is_held` does.

        Raises:
            FileNotFoundError: There is no such file any more.
        """
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in self._held:
            return True
        # Only what is on a device of its own is sure to be listed under the number that stat has.
        if self._is_complete and os.major(status.st_dev) != 0:
            return False
        return is_held(path)


def _proc_parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name, in brackets, may hold anything, brackets included.
        return int(file.read().rpartition(b")")[2].split()[1])


def _ps_parent(pid: int) -> int:
    import subprocess

    command = ["ps", "-o", "ppid=", "-p", str(pid)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


_parent: Callable[[int], int] = _proc_parent if os.path.exists("/proc/self/stat") else _ps_parent


def is_relative(pid: int) -> bool:
    """Tell whether a process is this one, an ancestor or a descendant of it.

    Args:
        pid (int): The process's id.

    Returns:
        bool: False also where the system does not tell.
    """
    return _has_ancestor(os.getpid(), pid) or _has_ancestor(pid, os.getpid())


def _has_ancestor(pid: int, ancestor: int) -> bool:
    for _ in range(1000):  # a chain that changes while it is followed must end, too
        if pid == ancestor:
            return True
        try:
            pid = _parent(pid)
        except Exception:  # no such process (any more), or a system that does not tell
            return False
        if pid <= 0:
            return False
    return False
