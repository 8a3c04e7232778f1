"""Where large messages wait, and who removes that folder: nobody while any process may read them.

A home is a folder in the temporary directory, whose name no user would choose, with a marker file
in it. Every process that has a copy of the carrier holds the marker locked (flock, shared), from
the moment it has that copy: the kernel lets go of the lock however the process dies, so a marker
that can be locked exclusively is proof that nobody is left. Whoever ends tries that, and removes
the home; a home whose users were all killed goes with the next home that is made. Nothing is
removed that lacks the name or the marker, or belongs to another user.

Most carriers never need a home, and none is made before the first large message. The lock is held
before that all the same: the marker exists from the beginning, without a name (Linux, O_TMPFILE),
and is given one when its folder is made. So a writer may end, or be killed, before the reader of
what it has written has ever heard of the home. Where the system cannot do that, the home is made
together with the carrier.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from multiprocessing import connection, util

from persistq._carrier.ends import own_end
from persistq._carrier.refusal import is_of_call, refused
from persistq._fs import watch_forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "persistq-spill-"
MARKER = "persistq-spill.lock"
_NAME = re.compile(re.escape(PREFIX) + "[0-9a-f]{32}")


class Home:
    """The folder of one carrier, as one process uses it."""

    def __init__(self) -> None:
        self.path = ""
        self._end: connection.Connection | None = None
        self._why = ""
        try:
            folder = tempfile.gettempdir()
            self.path = os.path.join(folder, PREFIX + os.urandom(16).hex())
            self._end = _unnamed_marker(folder) or self._make_at_once()
        except OSError as error:
            self._why = str(error)
        self._stay()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.path, self._end, self._why

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.path, self._end, self._why = state
        if self._end is not None:
            # Whatever this process starts itself is no user of the home: it does not inherit it.
            self._end = own_end(self._end)
        self._stay()

    def _stay(self) -> None:
        self._is_made = False
        self._held = [] if self._end is None else [self._end]
        self._after_fork()
        watch_forks(self)
        # multiprocessing forgets, in a child that it has forked, what is to be done at the end.
        util.register_after_fork(self, Home._after_fork)

    def _after_fork(self) -> None:
        """See to it that this process lets go at its end, or when nothing needs the home."""
        if self._end is not None:
            # After the children have been joined (priority 0) and the feeders (-5).
            util.Finalize(self, _leave, args=(self.path, self._held), exitpriority=-100)

    def make(self) -> str:
        """Return the folder's path; it is there from now on.

        Raises:
            OSError: It cannot be made.
        """
        if self._is_made:
            return self.path
        if self._end is None:
            raise refused(
                OSError(
                    "a large message needs a temporary file, and no directory for it could be made "
                    f"({self._why}). Make room in {self._folder()}, or set TMPDIR to another "
                    "place, and start again."
                )
            )
        self._make(self._end.fileno())
        self._keep_cleaners_out()
        self._is_made = True
        return self.path

    def _keep_cleaners_out(self) -> None:
        # systemd's cleaner of /tmp leaves a directory alone that is locked.
        try:
            folder = connection.Connection(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if not is_of_call(error):
                raise
            return  # too many open files, say: the next message will tell
        self._held.append(folder)
        _lock_shared(folder)

    def _folder(self) -> str:
        return os.path.dirname(self.path) or "the temporary directory"

    def _make(self, marker: int) -> None:
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass  # another process of this carrier has, or is just doing the same
        except OSError as error:
            if is_of_call(error):
                raise self._no_room(error) from error
            raise
        else:
            _remove_homes_of_the_dead(os.path.dirname(self.path))
        try:
            # The directory's descriptor is not used, as the path is absolute; without one the
            # call would link the link. Killed before this, an empty folder stays.
            os.link(f"/proc/self/fd/{marker}", os.path.join(self.path, MARKER), src_dir_fd=0)
        except FileExistsError:
            pass
        except OSError as error:
            if is_of_call(error):
                raise self._no_room(error) from error
            raise

    def _no_room(self, error: OSError) -> OSError:
        return refused(
            OSError(
                error.errno,
                "a large message needs a temporary file, and its directory cannot be made: "
                f"{error}. Make room in {self._folder()}, or set TMPDIR to another place",
            )
        )

    def _make_at_once(self) -> connection.Connection:
        os.mkdir(self.path, 0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        end = connection.Connection(os.open(os.path.join(self.path, MARKER), flags, 0o600))
        _lock_shared(end)
        _remove_homes_of_the_dead(os.path.dirname(self.path))
        return end


def _unnamed_marker(folder: str) -> connection.Connection | None:
    if not (hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")):
        return None
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # a file system that has no such files
    end = connection.Connection(fd)
    _lock_shared(end)
    return end


def _lock_shared(end: connection.Connection) -> None:
    try:
        fcntl.flock(end.fileno(), fcntl.LOCK_SH)
    except OSError:
        pass  # no locks here: then nobody can be proved dead either, and no home is removed


def _leave(path: str, held: list[connection.Connection]) -> None:
    # Closed and not unlocked: a forked child has the same open file, and still is a user.
    for end in held:
        end.close()
    _remove_if_nobody_uses(path)


def _remove_homes_of_the_dead(folder: str) -> None:
    try:
        names = os.listdir(folder)
    except OSError:
        return  # a folder that can be written and not be listed
    for name in names:
        if _NAME.fullmatch(name):
            _remove_if_nobody_uses(os.path.join(folder, name))


def _remove_if_nobody_uses(path: str) -> None:
    marker = os.path.join(path, MARKER)
    try:
        # Before anything is opened: not through a link that another user has put there.
        home = os.lstat(path)
        if not stat.S_ISDIR(home.st_mode) or home.st_uid != os.getuid():
            return
        fd = os.open(marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # none, or not ours
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another may have removed it between the two calls.
        if os.path.samestat(os.fstat(fd), os.lstat(marker)):
            _remove(path)
    except OSError as error:
        if error.errno is None:
            raise  # of a signal handler; else held: there is a user; or no locks: nothing is proved
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    # The marker last: killed half way, what is left is still a home, and goes with the next.
    for name in os.listdir(path):
        if name != MARKER:
            os.unlink(os.path.join(path, name))
    os.unlink(os.path.join(path, MARKER))
    os.rmdir(path)
