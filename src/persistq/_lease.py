"""Who lives: each process holds a file of its own locked, for as long as it lives.

The kernel frees a lock when its holder dies, however it dies. So a lock that is held proves life,
also between containers and over a reused process id; and a lock that can be had proves death,
wherever the file system carries locks between all that use it. Nothing else is asked: no process
id, no clock, no name server.

What is on disk at each step, and so what others see of a process that is killed there:

1. A file under a temporary name, then locked. Killed: `is_temporary` knows the name, and nobody
   asks it.
2. Its facts are written, and it is linked to its own name. So whoever sees a lease sees it whole,
   and locked from its first moment on. Killed: the lease is there, and free: its process is dead.
3. It is renamed where its process takes another role: the lock is the file's, not the name's.
4. At a clean end it is removed, and only then unlocked. Killed before: free, so dead.
"""

from __future__ import annotations

import errno
import json
import os
import threading

from persistq import _fs, _processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a lock that another process has is refused with.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_TEMPORARY = ".new-"

if os.name == "nt":
    import msvcrt

    # Locks on Windows stop readers, so the one that is locked is a byte that no lease reaches.
    _FAR = 1 << 62

    def _call(fd: int, mode: str) -> None:
        place = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            getattr(msvcrt, "locking")(fd, getattr(msvcrt, mode), 1)  # noqa: B009
        finally:
            os.lseek(fd, place, os.SEEK_SET)

    def _lock(fd: int) -> None:
        _call(fd, "LK_NBLCK")

    def _look(fd: int) -> None:
        _call(fd, "LK_NBLCK")

    def _unlock(fd: int) -> None:
        _call(fd, "LK_UNLCK")

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _look(fd: int) -> None:
        # Shared, so that two who look at once do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


# The leases that this process holds, by device and inode; held while one is made, and while this
# process forks, so that no child inherits a lock that it does not know of.
_mine: dict[tuple[int, int], int] = {}
_mine_lock = threading.RLock()


def _before_fork() -> None:
    _mine_lock.acquire()


def _after_fork_in_parent() -> None:
    _mine_lock.release()


def _after_fork_in_child() -> None:
    global _mine_lock
    # The parent's lock would outlive the parent in this process.
    for fd in _mine.values():
        try:
            os.close(fd)
        except OSError:
            pass
    _mine.clear()
    _mine_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def facts_of_this_process() -> dict[str, Any]:
    """Say who this is, for a person to read, and for `is_dead` where a lock is no proof.

    Returns:
        dict[str, Any]: `host`, `machine`, `boot`, `pid`, `started`, `pidNamespace`, `createdBy`.
    """
    pid = os.getpid()
    return {
        "host": _processes.host_name(),
        "machine": _processes.machine_id(),
        "boot": _processes.boot_id(),
        "pid": pid,
        "started": _processes.start_ticks(pid),
        "pidNamespace": _processes.pid_namespace(),
        "createdBy": _processes.user_name(),
    }


class Lease:
    """A file that this process holds locked.

    Safe to use from several threads. In a forked child it is nobody's: the child takes its own.

    Args:
        path (str): Path of the file; it must not exist.
        facts (dict[str, Any]): What it says besides who holds it; what JSON can say.

    Raises:
        FileExistsError: The name is taken.
        OSError: The file cannot be made.
    """

    def __init__(self, path: str, facts: dict[str, Any]) -> None:
        self.path = path
        self.pid = os.getpid()
        temporary = f"{path}{_TEMPORARY}{os.urandom(6).hex()}"
        with _mine_lock:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOEXEC, 0o644)
            try:
                status = os.fstat(fd)
                self._identity = (status.st_dev, status.st_ino)
                _mine[self._identity] = fd
                _fs.make_readable(fd)
                try:
                    _lock(fd)
                except OSError:
                    pass  # no locks here: then nobody holds this process for dead
                domain = _fs.lock_domain(temporary, status.st_dev)
                place = {"device": status.st_dev, "locks": domain}
                said = {**facts, **facts_of_this_process(), **place}
                _fs.write_all(fd, json.dumps(said).encode() + b"\n")
                if domain:
                    _fs.publish_new(temporary, path)
                else:
                    # FUSE may take a name that is linked for another file, which is not locked.
                    _rename(temporary, path)
            except BaseException:
                _mine.pop(self._identity, None)
                os.close(fd)
                _remove(temporary)
                raise

    @property
    def is_mine(self) -> bool:
        """Whether this process holds it, rather than the one that has forked this one."""
        return self.pid == os.getpid() and self._identity in _mine

    def fileno(self) -> int:
        """Give its descriptor, for children that are to hold it, too: it is held by the last.

        Raises:
            ValueError: This process does not hold it.
        """
        fd = _mine.get(self._identity) if self.is_mine else None
        if fd is None:
            raise ValueError(f"{self.path}: this process does not hold this lease")
        return fd

    def rename(self, path: str) -> None:
        """Give the file another name, which must be free; it stays locked.

        Args:
            path (str): The new path, in the same folder.

        Raises:
            OSError: It cannot be renamed, or is gone.
        """
        with _mine_lock:
            os.rename(self.path, path)
            self.path = path

    def note(self, text: str) -> None:
        """Say one thing more, for `notes`; where it cannot be written it is not said.

        Args:
            text (str): One line.
        """
        fd = _mine.get(self._identity)
        if fd is not None and self.is_mine:
            try:
                os.lseek(fd, 0, os.SEEK_END)
                os.write(fd, text.encode("utf-8", "surrogateescape") + b"\n")
            except OSError:
                pass

    def release(self) -> None:
        """Remove the file: this process has ended its part, and owes nothing."""
        self._end(remove=True)

    def abandon(self) -> None:
        """Unlock the file and leave it, as a kill would: for others to see to what it owes."""
        self._end(remove=False)

    def _end(self, remove: bool) -> None:
        if not self.is_mine:
            return
        with _mine_lock:
            fd = _mine.pop(self._identity, None)
            if fd is None:
                return
            if remove and is_same_file(self.path, fd):
                _remove(self.path)
            try:
                _unlock(fd)  # closing is not enough where a child has the descriptor, too
            except OSError:
                pass
            os.close(fd)

    def __del__(self) -> None:
        try:
            self.abandon()
        except (AttributeError, OSError, TypeError):
            pass  # half made, or the interpreter half ended


def lock(path: str) -> int:
    """Lock a lease that another process has made, and has left.

    Args:
        path (str): Its path.

    Returns:
        int: A descriptor: the lock is held until it is closed. -1 where the lease is gone, or the
        lock is another's, or refused.
    """
    try:
        fd = _fs.open_file(path, os.O_RDWR)
    except OSError:
        return -1
    try:
        _lock(fd)
        if is_same_file(path, fd):
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1


def is_same_file(path: str, fd: int) -> bool:
    """Tell whether a path leads to an open file.

    Args:
        path (str): A path.
        fd (int): A descriptor.

    Returns:
        bool: False also where there is no such path.
    """
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except (OSError, ValueError):
        return False


def _rename(temporary: str, path: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), temporary, None, path)
    os.rename(temporary, path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def is_temporary(name: str) -> bool:
    """Tell whether a name is that of a lease which is just being made, or never was finished.

    Args:
        name (str): A file's name.
    """
    return _TEMPORARY in name


def read(path: str) -> dict[str, Any]:
    """Return what a lease says; nothing where it cannot be read.

    Args:
        path (str): Path of a lease.

    Returns:
        dict[str, Any]: The facts that it was made with, and those of `facts_of_this_process`.
    """
    try:
        with open(path, "rb", opener=_fs.open_file) as file:
            said = json.loads(file.read(1 << 16).partition(b"\n")[0])
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def add_note(path: str, text: str) -> None:
    """Say one thing more in a lease of another process; where it cannot be written it is not said.

    Args:
        path (str): Path of a lease.
        text (str): One line.
    """
    try:
        fd = _fs.open_file(path, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return  # its process has ended well, and it is gone
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape") + b"\n")
    except OSError:
        pass
    finally:
        os.close(fd)


def notes(path: str) -> list[str]:
    """Return what the holder of a lease has said since it was made.

    Args:
        path (str): Path of a lease.

    Returns:
        list[str]: A text for each call of `Lease.note`; none where it cannot be read.
    """
    try:
        with open(path, "rb", opener=_fs.open_file) as file:
            lines = file.read(1 << 16).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    return lines[1:]


def is_mine(path: str) -> bool:
    """Tell whether this process holds a lease.

    Args:
        path (str): Its path.

    Returns:
        bool: True if so, whichever name the file had when it was made.
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in _mine


def is_dead(path: str) -> bool | None:
    """Tell whether the process that held a lease has died.

    Args:
        path (str): The lease's path.

    Returns:
        bool | None: True is proof of death, False of life. None where nothing is proved: the file
        system refuses locks, or does not carry them between all who use it; nobody is assumed dead
        then. False too of a file that is gone: its process has ended, owing nothing.
    """
    try:
        fd = _fs.open_file(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) in _mine:
            return False
        try:
            _look(fd)
        except OSError as error:
            if error.errno in _HELD:
                return False
            return True if _is_of_an_earlier_boot(read(path)) else None
        # Closing is not enough: a child forked just now by another thread has the descriptor too.
        _unlock(fd)
        if not is_same_file(path, fd):
            return False  # it was removed while we looked: a clean end
        said = read(path)
        # Whoever holds it may have the file by another way, as a server's disk is had by NFS and
        # by FUSE: locks of the one are nothing to the other.
        domain = _fs.lock_domain(path, status.st_dev)
        if _fs.carries_locks(path, status.st_dev) and said.get("locks", domain) == domain:
            return True
        # Here a lock binds those who have the file by the same mount of the same kernel.
        boot = _processes.boot_id()
        if boot and said.get("boot") == boot and said.get("device") == status.st_dev:
            return True
        return True if _is_of_an_earlier_boot(said) else None
    finally:
        os.close(fd)


def _is_of_an_earlier_boot(said: dict[str, Any]) -> bool:
    machine, boot = _processes.machine_id(), _processes.boot_id()
    return bool(
        machine
        and boot
        and said.get("machine") == machine
        and said.get("host") == _processes.host_name()
        and said.get("boot")
        and said["boot"] != boot
    )
