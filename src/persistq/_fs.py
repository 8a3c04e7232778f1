"""What differs between operating systems and file systems, behind names with one meaning each."""

from __future__ import annotations

import os
import sys

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
