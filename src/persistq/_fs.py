"""What differs between operating systems and file systems, behind names with one meaning each."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Forkable(Protocol):
        """What `watch_forks` takes."""

        def after_fork(self) -> None:
            """In a forked child: let go of what belongs to the parent."""


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
        fd = os.open(folder, os.O_RDONLY)
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


@contextlib.contextmanager
def folder_lock(folder: str) -> Iterator[None]:
    """Keep other processes of this machine out of the same block for the same folder.

    The kernel frees the lock when its holder dies. Where the system or the file system has no
    such locks, the block runs without one: whoever uses this stays safe then too, and only two
    processes that do the same at the same moment may do it twice.

    Args:
        folder (str): Path of the folder.

    Yields:
        None: While the lock is held.

    Raises:
        OSError: The folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
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


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch_forks(obj: Forkable) -> None:
    """Call the object's `after_fork()` in every child that this process forks while it lives.

    Where the system has no fork there is nothing to watch.

    Args:
        obj (Forkable): Any object that can be referenced weakly.
    """
    _forkables.add(obj)


def _after_fork_in_child() -> None:
    for obj in list(_forkables):
        obj.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
