"""How content gets to stable storage, and to other file systems; and locks on that way."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def open_file(path: str | bytes, flags: int) -> int:
    """Open what should be a file, for `open(opener=...)`: a pipe of its name makes nobody wait.

    Args:
        path (str | bytes): Its path.
        flags (int): As of `os.open`.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    more = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    fd = os.open(path, flags | sum(more))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "no regular file", path)
    return fd


if os.name == "nt":

    def sync_folder(folder: str) -> None:
        """Do nothing: a directory cannot be opened on Windows, and NTFS journals its entries."""

else:

    def sync_folder(folder: str) -> None:
        """Flush the folder's entries to stable storage, so that a rename outlives a power cut.

        Args:
            folder (str): Path of the folder.

        Raises:
            OSError: The folder cannot be opened, or the disk reports an error.
        """
        try:
            fd = os.open(folder, os.O_RDONLY)
        except PermissionError:
            # A drop box, which one may write and not read: no descriptor, so all is flushed.
            os.sync()
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


if sys.platform == "darwin":

    def sync_file(fd: int) -> None:
        """Flush the file's content to stable storage.

        On macOS fsync() stops at the drive's cache, F_FULLFSYNC does not (fsync(2)); some file
        systems refuse it.

        Args:
            fd (int): An open file descriptor.

        Raises:
            OSError: The disk reports an error.
        """
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError:
            os.fsync(fd)

elif hasattr(os, "fdatasync"):

    def sync_file(fd: int) -> None:
        """Flush the file's content, and what is needed to read it back, to stable storage.

        Args:
            fd (int): An open file descriptor.

        Raises:
            OSError: The disk reports an error.
        """
        os.fdatasync(fd)

else:

    def sync_file(fd: int) -> None:
        """Flush the file's content to stable storage.

        Args:
            fd (int): An open file descriptor.

        Raises:
            OSError: The disk reports an error.
        """
        os.fsync(fd)


def sync_path(path: str) -> None:
    """Flush a file's content to stable storage, also one that may not be written or not be read.

    Args:
        path (str): Path of a regular file.

    Raises:
        OSError: There is none, or the disk reports an error.
    """
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    if os.name == "nt":
        flags |= os.O_RDWR  # what Windows flushes must be open for writing
    try:
        fd = os.open(path, os.O_RDONLY | flags)
    except PermissionError:
        try:
            fd = os.open(path, os.O_WRONLY | flags)
        except PermissionError:
            if not hasattr(os, "sync"):
                raise
            os.sync()
            return
    try:
        sync_file(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def folder_lock(folder: str, wait: bool = True) -> Iterator[bool]:
    """Keep other processes of this machine out of the same block for the same folder.

    The kernel frees the lock when its holder dies. Where the system or the file system has no
    such locks, the block runs without one: whoever uses this stays safe then too, and only two
    processes that do the same at the same moment may do it twice.

    Args:
        folder (str): Path of the folder.
        wait (bool): Whether to wait for another process that has it, which may be a stopped one.

    Yields:
        bool: While the lock is held; False where another has it, and is not waited for.

    Raises:
        OSError: The folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # no locks here
        yield True
    finally:
        # Closing is not enough: a child that another thread has forked meanwhile has the
        # descriptor too, and the lock would be held until that ends.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


@contextlib.contextmanager
def file_lock(path: str) -> Iterator[bool]:
    """Keep others who use this out of the same block for the same file, while it has this name.

    Args:
        path (str): Path of a file. One that may not be opened, or where there are no locks, is
            not locked: the block runs all the same.

    Yields:
        bool: Whether the path still led to the file once the lock was had.
    """
    try:
        import fcntl

        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except (ImportError, OSError):
        yield True
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            still_there = os.path.samestat(os.stat(path), os.fstat(fd))
        except FileNotFoundError:
            still_there = False
        yield still_there
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def make_folders(folder: str) -> None:
    """Make a folder, and its parents where they are missing, and flush their entries.

    Args:
        folder (str): Path of the folder; one that is there already is fine.

    Raises:
        FileExistsError: Something that is no folder has this name.
        OSError: The folder cannot be made.
    """
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(os.path.abspath(folder))
    make_folders(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    sync_folder(parent)


def stage_copy(source: str, staged: str, *, sync: bool, keep_times: bool) -> None:
    """Copy a file's content and mode to a new file, which is removed again if that fails.

    Args:
        source (str): Path of the file to read; it is not changed.
        staged (str): Path of the file to make; it must not exist.
        sync (bool): Whether to return only when the copy is on stable storage.
        keep_times (bool): Whether the copy has the source's times of access and modification.

    Raises:
        FileExistsError: The staged file exists.
        OSError: The source cannot be read, or the disk is full.
    """
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    reading = os.open(source, os.O_RDONLY | flags)
    try:
        status = os.fstat(reading)
        writing = os.open(
            staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, status.st_mode & 0o777
        )
        try:
            try:
                _copy_content(reading, writing)
                _keep_owner_and_mode(writing, status)
                if keep_times:
                    if os.utime in os.supports_fd:
                        os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
                    else:
                        os.utime(staged, ns=(status.st_atime_ns, status.st_mtime_ns))
                if sync:
                    sync_file(writing)
            finally:
                os.close(writing)
        except BaseException:
            os.unlink(staged)
            raise
    finally:
        os.close(reading)


def _keep_owner_and_mode(fd: int, status: os.stat_result) -> None:
    """Give a new file the mode of another one, whatever the umask, and its owner where allowed."""
    mode = status.st_mode & 0o777
    if hasattr(os, "fchown"):
        own = os.fstat(fd)
        if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
            for owner, group in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
                try:
                    os.fchown(fd, owner, group)
                    break
                except OSError:
                    pass  # only root may give files away
    if hasattr(os, "fchmod"):
        try:
            os.fchmod(fd, mode)
        except OSError:
            pass  # a file system without modes


def _copy_content(reading: int, writing: int) -> None:
    copied = 0
    if hasattr(os, "copy_file_range"):
        try:
            while True:
                count = os.copy_file_range(reading, writing, 1 << 30)
                if count == 0:
                    break
                copied += count
        except OSError as error:
            # Across file systems on older kernels, and on some file systems, there is no such
            # call; a full disk is an error that the loop below would only meet again.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
    # Also after a count of zero: files in /proc and the like seem empty to copy_file_range.
    if copied:
        os.lseek(reading, copied, os.SEEK_SET)
    while True:
        block = os.read(reading, 1 << 20)
        if not block:
            return
        view = memoryview(block)
        while view:
            view = view[os.write(writing, view) :]


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, or raise the OSError that stopped it.

    Args:
        fd (int): A descriptor.
        data (bytes): What to write.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def make_readable(fd: int) -> None:
    """Let all read a file who may read its folder, whatever this process's umask.

    Args:
        fd (int): A descriptor of the file, which is this user's.
    """
    if hasattr(os, "fchmod"):
        try:
            os.fchmod(fd, 0o644)
        except OSError:
            pass  # a file system without modes
