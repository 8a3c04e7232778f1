"""How files get on a folder queue."""

from __future__ import annotations

import errno
import logging
import os
import stat

from persistq import _fs, _processes
from persistq._folder import control, identity, names, recovery
from persistq._folder.base import _FolderQueue, generation
from persistq._folder.publish import publish

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
        ignore_case (bool): Whether `A.TSV` is a message where the extension is `.tsv`. The
            consumers' too.
        announce (bool): Whether this is a producer that consumers wait for. Not where files come
            from jobs that come and go, and consumers go on for ever (`ReadableFolderQueue`, with
            `forever=True`): then no producer is announced, and `close` says nothing.

    As a context manager it closes on success and fails on an exception.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        message_extension: str = ".tsv",
        task_done_directory: str | os.PathLike[str] | None = None,
        *,
        fsync: bool = False,
        ignore_case: bool = False,
        announce: bool = True,
    ) -> None:
        self.fsync = fsync
        self.announce = announce
        self._closed = False
        super().__init__(
            path, message_extension, task_done_directory, ignore_case=ignore_case, sync=fsync
        )
        self._announce()

    _role = "producer"

    def _start_here(self) -> None:
        super()._start_here()
        self._uuid = self._new_uuid()
        self._announced = False
        self._failed = False

    def _settings(self) -> dict[str, Any]:
        settings = {"fsync": self.fsync, "announce": self.announce, "_closed": self._closed}
        return {**super()._settings(), **settings}

    def _announce(self) -> None:
        if not self._announced:
            with self._lock:
                self._come()
                if not self._announced:
                    # The lease first: a producer that others see is one that can be seen to live.
                    self._member.hold()
                    if self.announce:
                        self._member.producers.add(self._uuid)
                        self._write_control(names.HELO)
                    self._announced = True

    def _process_id(self) -> int:
        """Give the id of the process that produces: this one."""
        return os.getpid()

    def _write_control(self, kind: str, producer: control.Producer | None = None) -> None:
        if producer is None:
            machine = _processes.machine_fqdn()
            producer = (machine, f"{self._process_id():06d}", self._uuid)
        staged = self._staged(self.path)
        control.write(
            self.path,
            kind,
            producer,
            self._extension,
            staged,
            ignore_case=self.ignore_case,
            sync=self.fsync,
        )

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
        if self._generation != generation[0]:
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
        if not name.endswith(extension) or name.startswith(".") or self.ignore_case:
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
            _fs.sync_path(source)
        try:
            publish(source, target, self._member)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._put_across(source, target)

    def _put_across(self, source: str, target: str) -> None:
        """Move to another file system."""
        # Published first, so that a kill before the last step leaves both, and any other leaves
        # the source.
        with _fs.file_lock(source) as still_there:
            if not still_there:  # another putter of this file was quicker, and has just ended
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
            status = os.lstat(source)
            _fs.refuse_removal(source, status)
            self._put_copy(source, target, keep_times=True)
            if self.fsync:
                _fs.sync_folder(self.path)
            self._remove(source, target)

    def _remove(self, source: str, target: str) -> None:
        """Remove a source whose file has been published; where that is refused, take that back."""
        try:
            os.unlink(source)
        except FileNotFoundError:
            pass
        except OSError:
            taken_back = self._staged(self.path)
            try:
                os.rename(target, taken_back)
            except OSError:
                # A consumer was quicker: then it is put, and to say otherwise would be to have it
                # put again.
                _log.warning("%s is on the queue, and its source cannot be removed", source)
                return
            os.unlink(taken_back)
            raise

    def _put_link(self, source: str, target: str) -> None:
        """Move a link; a relative one would point to nothing from the queue's folder."""
        points_to = os.readlink(source)
        if os.path.isabs(points_to):
            try:
                publish(source, target, self._member)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        _fs.refuse_removal(source, os.lstat(source))
        # Of two who move one link, one has this name; it goes with its process.
        points_to = os.path.join(os.path.dirname(os.path.abspath(source)), points_to)
        os.symlink(points_to, target)  # refuses to overwrite
        self._remove(source, target)

    def _put_copy(self, source: str, target: str, *, keep_times: bool) -> None:
        """Copy under a name that no consumer sees, then give the whole copy its own."""
        if os.path.lexists(target):
            # Rather than after a long copy; the rename below is what decides.
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
        staged = self._staged(self.path)
        _fs.stage_copy(source, staged, sync=self.fsync, keep_times=keep_times)
        try:
            _fs.rename_new(staged, target)
        except BaseException:
            _fs.remove(staged)
            raise

    def close(self, dead: bool = False) -> None:
        """Tell the consumers that this producer puts no more. A second call does nothing.

        Args:
            dead (bool): Whether to close for those, too, that died before they had: because this
                producer was started again, and has put what they had not. Until then consumers
                meet FAILED once no file waits.

        Raises:
            OSError: The file system refuses; the queue is still open then.
        """
        self._own()
        with self._lock:
            self._come()
            if dead:
                # Before this one's own: killed in between, the rest is still a failure.
                self._close_for_the_dead()
            if not self._closed:
                self._announce()
                if self.announce:
                    self._write_control(names.DONE)
                self._closed = True
                self._part()

    def _close_for_the_dead(self) -> None:
        producers = control.Producers(self.path)
        producers.look([name for name in os.listdir(self.path) if control.is_control(name)])
        for producer in producers.dead(identity.Verdicts(self.path)):
            said = control.header_of(os.path.join(self.path, producers.open[producer]))
            machine = str(said.get("machineFQDN", producer[0]))
            self._write_control(names.DONE, (machine, *producer[1:]))

    def _part(self) -> None:
        """Stop being a producer: nobody need ask any more whether this one lives."""
        self._member.producers.discard(self._uuid)
        self._member.let_go()

    def fail(self) -> None:
        """Tell the consumers that this producer failed: they meet FAILED, before waiting files.

        A second call does nothing; one after `close` tells them all the same.

        Raises:
            OSError: The file system refuses.
        """
        self._own()
        with self._lock:
            self._come()
            if not self._failed:
                self._write_control(names.FAILED)
                self._failed = self._closed = True
                self._part()

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
        """Remove all control files: what producers of earlier runs announced.

        Where this one was announced, it announces itself anew at the next put or close.
        """
        self._own()
        with self._lock:
            self._come()
            recovery.purge_control_messages(self.path)
            self._member.producers.discard(self._uuid)
            self._announced = False

    def reset_processing_files(self) -> None:
        """Give all claimed files their own names back, whichever process claimed them.

        A file whose name is taken by now keeps the claimed one, and that is logged.
        """
        recovery.reset_processing_files(self._member, self.task_done_directory)

    def reset(self) -> None:
        """Prepare the folder for a new run, when nobody works on it; the queue is open again.

        Removes the control files of earlier runs, gives claimed files their names back, and
        announces this producer again.
        """
        self._own()
        with self._lock:
            self._come()
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
            self._come()
            recovery.purge(self.path)
            self._start_anew()
            self._member.let_go()

    def _start_anew(self) -> None:
        """Become a producer of its own, whom nothing that is still in the folder speaks of."""
        self._member.producers.discard(self._uuid)
        self._uuid = self._new_uuid()
        self._announced = self._closed = self._failed = False

    def _new_uuid(self) -> str:
        """Give the uuid of a producer that is not known yet, and whose lease is this process's."""
        return names.uuid_of_claimer(self._member.digits)
