"""What differs between operating systems and file systems, behind names with one meaning each."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Forkable(Protocol):
        """What `watch_forks` takes."""

        def _after_fork(self) -> None:
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


def occupy_standard_streams() -> None:
    """Open the null device on those of descriptors 0, 1 and 2 that are closed.

    Else the next file or pipe that is opened becomes standard output, say, and gets whatever a C
    library prints there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, which is this one, unless another thread was faster.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened > 2:
                os.close(opened)
            else:
                os.set_inheritable(opened, True)  # as standard streams are


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


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


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


# Not a WeakSet: one that is iterated while another thread adds to it, or drops an object, fails.
_forkables: dict[int, weakref.ref[Forkable]] = {}
# Reentrant, for a weak reference may die while this thread holds it.
_forkables_lock = threading.RLock()


def watch_forks(obj: Forkable) -> None:
    """Call the object's `_after_fork()` in every child that this process forks while it lives.

    Where the system has no fork there is nothing to watch. Safe from several threads.

    Args:
        obj (Forkable): Any object that can be referenced weakly.
    """
    key = id(obj)

    def forget(reference: weakref.ref[Forkable]) -> None:
        # Its id may be another object's by now.
        with _forkables_lock:
            if _forkables.get(key) is reference:
                del _forkables[key]

    with _forkables_lock:
        _forkables[key] = weakref.ref(obj, forget)


def _before_fork() -> None:
    # No thread is half way through a change when the child gets its copy.
    _forkables_lock.acquire()


def _after_fork_in_parent() -> None:
    _forkables_lock.release()


def _after_fork_in_child() -> None:
    global _forkables_lock
    _forkables_lock = threading.RLock()
    for reference in [*_forkables.values()]:
        obj = reference()
        if obj is not None:
            obj._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


# What a kernel or file system says that has no rename of the kind asked for. EPERM is not among
# these: it is a refusal (a sticky folder, a file that may not be changed).
_UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP")
    if hasattr(errno, name)
)
# What one says that has no links; FAT says EPERM (link(2)).
_NO_LINKS = _UNSUPPORTED | {errno.EPERM, errno.EMLINK}
NO_KERNEL_RENAME = "PERSISTQ_NO_KERNEL_RENAME"
"""An environment variable; set, it has this and all child processes do without the kernel's rename
that refuses to overwrite, as on a file system that has none. For tests, and to compare."""
_rename_lock = threading.Lock()


def _renew_lock() -> None:
    # A thread of the parent may have held it during the fork; nobody would release it here.
    global _rename_lock
    _rename_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _no_kernel_rename(source: str, target: str) -> int:
    return errno.ENOSYS


def _find_kernel_rename(source: str, target: str) -> int:
    """Find the system call that renames and refuses to overwrite; from then on use it.

    Other threads wait until it is found: one that took the way of systems without it, while
    others take this one, would be no safer than no lock at all.
    """
    global _kernel_rename
    with _rename_lock:
        if _kernel_rename is _find_kernel_rename:
            _kernel_rename = _look_for_kernel_rename()
    return _kernel_rename(source, target)


def _look_for_kernel_rename() -> Callable[[str, str], int]:
    if os.environ.get(NO_KERNEL_RENAME):
        return _no_kernel_rename
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            rename, here, flag = libc.renameat2, -100, 1  # AT_FDCWD, RENAME_NOREPLACE
        elif sys.platform == "darwin":
            rename, here, flag = libc.renameatx_np, -2, 4  # AT_FDCWD, RENAME_EXCL
        else:
            return _no_kernel_rename
    except (ImportError, OSError, AttributeError, TypeError):
        return _no_kernel_rename
    get_errno = ctypes.get_errno
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

    # Without argtypes: small integers and bytes are what C wants here already, and each argument
    # with a declared type costs an object.
    # (A descriptor of the folder would be quicker still, and keep the kernel from reporting that
    # the folder is removed.)
    def kernel_rename(source: str, target: str) -> int:
        first, second = source.encode(encoding, errors), target.encode(encoding, errors)
        return get_errno() if rename(here, first, here, second, flag) else 0

    return kernel_rename


# Renames without overwriting in one step; gives errno, and ENOSYS where there is no such step.
# What C sees of a path ends at a null character: callers see to it that there is none.
_kernel_rename: Callable[[str, str], int] = _find_kernel_rename


def rename_new(source: str, target: str) -> None:
    """Rename a file that no other process wants, never over another one.

    One step of the kernel where it has one (Linux, macOS, Windows). Elsewhere (NFS) the new name
    is linked, then the old one removed: killed in between, the file has both names. A file
    system with neither (FAT) leaves a look before the rename, under a lock on the folder that
    all who come this way take.

    Args:
        source (str): Path of the file.
        target (str): Its new path, on the same file system.

    Raises:
        FileExistsError: The target exists, or came into being meanwhile; nothing has changed.
        FileNotFoundError: There is no source, or no folder for the target.
        OSError: Whatever else the file system refuses, such as EXDEV; nothing has changed.
    """
    if not rename_in_one_step(source, target):
        rename_by_link(source, target)


def rename_in_one_step(source: str, target: str) -> bool:
    """Rename a file in a step that is exclusive on both names.

    Args:
        source (str): Path of the file, which others may want to rename, too.
        target (str): Its new path.

    Returns:
        bool: False, with nothing done, where kernel or file system have no such step.

    Raises:
        OSError: As of `rename_new`.
    """
    if os.name == "nt":
        os.rename(source, target)
        return True
    if "\0" in source or "\0" in target:
        raise ValueError(f"a path holds a null character: {source!r} or {target!r}")
    code = _kernel_rename(source, target)
    if code in _UNSUPPORTED:
        return False
    if code:
        raise OSError(code, os.strerror(code), source, None, target)
    return True


def rename_by_link(source: str, target: str) -> None:
    """Rename a file that no other process wants where there is no single step for it.

    Args:
        source (str): Path of the file.
        target (str): Its new path.

    Raises:
        OSError: As of `rename_new`.
    """
    before = os.lstat(source)
    refuse_removal(source, before)
    try:
        if os.link in os.supports_follow_symlinks:
            os.link(source, target, follow_symlinks=False)
        else:
            os.link(source, target)
    except FileExistsError:
        # A request that is repeated since its answer was lost finds its own work (NFS).
        if not is_same_file(source, target):
            raise
    except FileNotFoundError:
        # FUSE looks the new name up once it is linked, and somebody was quicker to take it.
        if not (is_same_file(source, before) and os.path.isdir(os.path.dirname(target) or ".")):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_under_lock(source, target)
        return
    try:
        os.unlink(source)
    except FileNotFoundError:
        pass  # whoever took the file has seen to its other name


def refuse_removal(path: str, status: os.stat_result) -> None:
    """Refuse what could be linked elsewhere and then not be removed here.

    Raises:
        PermissionError: This user may not remove the file from its folder.
    """
    folder = os.path.dirname(path) or "."
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    there = os.stat(folder)
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    if there.st_mode & stat.S_ISVTX and user not in (0, status.st_uid, there.st_uid):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)


def is_same_file(path: str, other: str | os.stat_result) -> bool:
    """Tell whether two names lead to one file; no link is followed.

    Args:
        path (str): A path.
        other (str | os.stat_result): Another one, or what was seen of it.

    Returns:
        bool: False also where there is no such path.
    """
    try:
        status = os.lstat(other) if isinstance(other, str) else other
        return os.path.samestat(os.lstat(path), status)
    except (OSError, ValueError):
        return False


def _rename_under_lock(source: str, target: str) -> None:
    import fcntl

    with _rename_lock:
        fd = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError:
                pass  # no locks either: the look below is all the protection there is
            if os.path.lexists(target):
                code = errno.EEXIST
                raise OSError(code, os.strerror(code), source, None, target)
            os.rename(source, target)
        finally:
            os.close(fd)


def claim(source: str, target: str) -> bool:
    """Rename a file to a name that only this process gives, never over another one.

    Args:
        source (str): Path of the file, wanted by several processes; as the system gave it.
        target (str): Its path once it belongs to this process.

    Returns:
        bool: False when the source is gone, which is to say that another process has it.

    Raises:
        FileExistsError: This process has a file of that name already.
        OSError: Whatever else the file system refuses.
    """
    code = _kernel_rename(source, target)
    if code == 0:
        return True
    if code == errno.ENOENT:
        return False
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), source, None, target)
    return claim_by_rename(source, target)


def claim_by_rename(source: str, target: str) -> bool:
    """Claim where no rename refuses to overwrite; as `claim`."""
    # Nobody outside this process makes the target, so a look under a lock is as good as one step.
    with _rename_lock:
        if os.path.lexists(target):
            if not os.path.lexists(source):
                return False  # another thread of this process has claimed it
            code = errno.EEXIST
            raise OSError(code, os.strerror(code), source, None, target)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            # A network file system that repeats a request whose answer was lost finds the
            # source gone, because the first one worked (rename(2), BUGS).
            return os.path.lexists(target)
    return True


def has_kernel_rename() -> bool:
    """Tell whether this system has a rename that refuses to overwrite, on some file systems."""
    if _kernel_rename is _find_kernel_rename:
        _find_kernel_rename("", "")
    return os.name == "nt" or _kernel_rename is not _no_kernel_rename


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


def publish_new(temporary: str, path: str) -> None:
    """Give a finished file its name, never over another file.

    Killed in the midst of it: the file has both names, or the temporary one.

    Args:
        temporary (str): Its path until now.
        path (str): Its path from now on, in the same folder.

    Raises:
        FileExistsError: The name is taken.
        OSError: Whatever else the file system refuses.
    """
    # Not rename_new() where links will do: it loads ctypes, which takes longer than all the rest.
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        rename_new(temporary, path)
    else:
        os.unlink(temporary)


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
                fields = line.split(" ")
                point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
                inside = real == point or real.startswith(point.rstrip("/") + "/")
                # Of mounts on one point, the last is the one that shows.
                if inside and len(point) >= len(found):
                    rest = fields[fields.index("-") + 1 :]
                    found, kind, options = point, rest[0], rest[2].strip()
    except (OSError, ValueError, IndexError):
        return "", ""
    return kind, options
