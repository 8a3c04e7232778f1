"""How files get on a folder queue."""

from __future__ import annotations

import errno
import logging
import os
import stat

from persistq import _fs
from persistq._folder import control, names, recovery
from persistq._folder.base import _FolderQueue, process_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_log = logging.getLogger("persistq")


class WritableFolderQueue(_FolderQueue):
    """A queue whose messages are files in a folder, as its producers see it.

    Creating one announces a producer, with a `.helo` file; consumers stop when each announced
    producer has closed. A copy in another process is a producer of its own, announced at its
    first `put` or `close`. So make all producers before any of them closes.

    Args:
        path (str | os.PathLike[str]): The queue's folder; made if missing. The consumers' too.
        message_extension (str): Files with this extension are messages; with or without its dot.
        task_done_directory (str | os.PathLike[str] | None): Where consumers put finished files.
        fsync (bool): Whether `put`, `close` and `fail` return only when all is on stable
            storage, safe against power loss.

    As a context manager it closes on success and fails on an exception.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        *,
        fsync: bool = False,
    ) -> None:
        super().__init__(path, message_extension, task_done_directory)
        self.fsync = fsync
        self._closed = False
        self._announce()

    def _start_here(self) -> None:
        super()._start_here()
        self._uuid = self._new_uuid()
        self._announced = False
        self._failed = False

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "fsync": self.fsync, "_closed": self._closed}

    def _announce(self) -> None:
        if not self._announced:
            with self._lock:
                if not self._announced:
                    self._write_control(names.HELO)
                    self._announced = True

    def _write_control(self, kind: str) -> None:
        pid, prefix = self._process_id(), process_prefix()
        control.write(self.path, kind, self._uuid, pid, prefix, sync=self.fsync)

    def put(self, msg: str | os.PathLike[str], copy: bool = False) -> str:
        """Put a file on the queue, under its own name.

        A consumer sees the whole file or none. Killed at any moment, this leaves the source or
        the file on the queue, never neither. Never overwrites: while a file of the same name is
        being worked on, this one may be put, and waits.

        Args:
            msg (str | os.PathLike[str]): Path of the file. It is moved, also from another file
                system.
            copy (bool): Whether to leave the source in place.

        Returns:
            str: Path of the file on the queue.

        Raises:
            ValueError: The queue is closed, or consumers would never see a file of this name, or
                it is not a regular file.
            FileExistsError: A file of this name waits already.
            FileNotFoundError: There is no such file, or a link that points to none.
            IsADirectoryError: It is a folder.
            OSError: The file system refuses, for instance because the disk is full; then nothing
                has changed.
        """
        if self._pid != os.getpid():
            self._own()
        if self._closed:
            raise ValueError(
                f"put on a closed queue ({self.path}): consumers may have stopped. Put before "
                "close(), or start the next run with reset()."
            )
        source = msg if type(msg) is str else os.fsdecode(msg)
        # What os.path.basename does takes three times as long.
        name = source.rpartition("/")[2] if os.sep == "/" else os.path.basename(source)
        extension = self._extension
        if not name.endswith(extension) or name.startswith("."):
            self._refuse(source, name)
        if len(name) > 50 and not names.fits_when_claimed(name, extension):
            raise ValueError(
                f"the name {name!r} is too long: claimed by a consumer it would exceed "
                f"{names.LONGEST_NAME_BYTES} bytes. Put it under a shorter one."
            )
        mode = os.lstat(source).st_mode
        if not stat.S_ISREG(mode):
            mode = self._kind_of_odd_source(source, mode)
        if not self._announced:
            self._announce()
        target = f"{self.path}{os.sep}{name}"
        if copy:
            self._put_copy(source, target, keep_times=False)
        elif stat.S_ISLNK(mode):
            self._put_link(source, target)
        else:
            self._put_move(source, target)
        if self.fsync:
            _fs.sync_folder(self.path)
            if not copy:
                _fs.sync_folder(os.path.dirname(os.path.abspath(source)))
        return target

    def _refuse(self, source: str, name: str) -> None:
        """Say what is wrong with a file that cannot be a message: first of all its absence."""
        if stat.S_ISDIR(os.lstat(source).st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder cannot be put on a queue", source)
        self._check_name(name)

    def _kind_of_odd_source(self, source: str, mode: int) -> int:
        """Check what is no regular file; a link counts when it points to one."""
        target_mode = os.stat(source).st_mode
        if stat.S_ISDIR(target_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder cannot be put on a queue", source)
        if not stat.S_ISREG(target_mode):
            raise ValueError(
                f"{source} is neither a regular file nor a link to one, so consumers would never "
                "see it. Write its content to a file, and put that."
            )
        return mode

    def _put_move(self, source: str, target: str) -> None:
        if self.fsync:
            fd = os.open(source, os.O_RDWR)
            try:
                _fs.sync_file(fd)
            finally:
                os.close(fd)
        try:
            _fs.rename_new(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Across file systems: published first, so that a kill before the last step leaves
            # both, and any other leaves the source.
            self._put_copy(source, target, keep_times=True)
            if self.fsync:
                _fs.sync_folder(self.path)
            os.unlink(source)

    def _put_link(self, source: str, target: str) -> None:
        """Move a link; a relative one would point to nothing from the queue's folder."""
        points_to = os.path.join(os.path.dirname(os.path.abspath(source)), os.readlink(source))
        os.symlink(points_to, target)  # refuses to overwrite
        os.unlink(source)

    def _put_copy(self, source: str, target: str, *, keep_times: bool) -> None:
        """Copy under a name that no consumer sees, then give the whole copy its own."""
        import uuid

        if os.path.lexists(target):
            # Rather than after a long copy; the rename below is what decides.
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
        staged = os.path.join(
            self.path, f"{names.TEMPORARY}{process_prefix()}{uuid.uuid4().hex}.tmp"
        )
        _fs.stage_copy(source, staged, sync=self.fsync, keep_times=keep_times)
        try:
            _fs.rename_new(staged, target)
        except BaseException:
            os.unlink(staged)
            raise

    def close(self) -> None:
        """Tell the consumers that this producer puts no more. A second call does nothing.

        Raises:
            OSError: The file system refuses; the queue is still open then.
        """
        self._own()
        with self._lock:
            if not self._closed:
                self._announce()
                self._write_control(names.DONE)
                self._closed = True

    def fail(self) -> None:
        """Tell the consumers that this producer failed: they meet FAILED, before waiting files.

        A second call does nothing; one after `close` tells them all the same.

        Raises:
            OSError: The file system refuses.
        """
        self._own()
        with self._lock:
            if not self._failed:
                self._write_control(names.FAILED)
                self._failed = self._closed = True

    def __enter__(self) -> WritableFolderQueue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.fail()

    def purge_control_messages(self) -> None:
        """Remove all control files: what producers of earlier runs announced."""
        recovery.purge_control_messages(self.path)

    def reset_processing_files(self) -> None:
        """Give all claimed files their own names back, whichever process claimed them.

        A file whose name is taken by now keeps the claimed one, and that is logged.
        """
        recovery.reset_processing_files(self.path, self._extension)

    def reset(self) -> None:
        """Prepare the folder for a new run, when nobody works on it; the queue is open again.

        Removes the control files of earlier runs, gives claimed files their names back, and
        announces this producer again.
        """
        self._own()
        with self._lock:
            self.purge_control_messages()
            self.reset_processing_files()
            self._start_anew()
            self._announce()

    def purge(self) -> None:
        """Remove all files and folders in the queue's folder, for ever; the queue is open again.

        Links are removed, never followed. The producer announces itself again at the next put.
        """
        self._own()
        with self._lock:
            recovery.purge(self.path)
            self._start_anew()

    def _start_anew(self) -> None:
        """Become a producer of its own, whom nothing that is still in the folder speaks of."""
        self._uuid = self._new_uuid()
        self._announced = self._closed = self._failed = False

    def _new_uuid(self) -> str:
        """Give the uuid of a producer that is not known yet."""
        import uuid

        return str(uuid.uuid4())
