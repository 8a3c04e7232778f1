"""What differs between operating systems and file systems, behind names with one meaning each.

Here: renames that never overwrite, and claims. Of its neighbours it hands on the rest: how content
is stored (`_storing`), kinds of file systems (`_mounts`), forks (`_forks`).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading

from persistq._forks import watch_forks
from persistq._mounts import carries_locks, lock_domain, reports_every_change
from persistq._storing import (
    file_lock,
    folder_lock,
    make_folders,
    make_readable,
    open_file,
    stage_copy,
    sync_file,
    sync_folder,
    sync_path,
    write_all,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "carries_locks",
    "claim",
    "claim_by_rename",
    "file_lock",
    "folder_lock",
    "has_kernel_rename",
    "is_same_file",
    "lock_domain",
    "make_folders",
    "make_readable",
    "open_file",
    "publish_new",
    "refuse_removal",
    "remove",
    "rename_by_link",
    "rename_in_one_step",
    "rename_new",
    "reports_every_change",
    "stage_copy",
    "sync_file",
    "sync_folder",
    "sync_path",
    "watch_forks",
    "write_all",
]


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


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
    from persistq import _libc

    if sys.platform == "linux":
        rename, here, flag = _libc.function("renameat2"), -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    elif sys.platform == "darwin":
        rename, here, flag = _libc.function("renameatx_np"), -2, 4  # AT_FDCWD, RENAME_EXCL
    else:
        return _no_kernel_rename
    if rename is None:
        return _no_kernel_rename
    get_errno = _libc.get_errno
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
