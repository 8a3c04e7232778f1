"""How a group of claimed files is done, released or set aside as one, whatever is killed meanwhile.

Before the first file is touched, what is to become of all is written down, in one file that
appears whole. Killed at any moment after that, whoever reclaims finishes it: the files of a group
that was done are done, and none of them ever waits again beside those of a later group. While a
group is on its way back, no consumer takes a part of it.
"""

from __future__ import annotations

import os

from persistq import _fs
from persistq._folder import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DONE, RELEASE, FAIL = "done", "release", "fail"
_LARGEST_BYTES = 1 << 24


class Intent:
    """What is to become of the files of one group.

    Args:
        path (str): Path of the file that says it.
        verb (str): DONE, RELEASE or FAIL.
        files (list[tuple[str, str]]): Of each its claimed name, and its name as a message.
        directory (str | None): Where they go.
        reason (str): Why they are set aside.
    """

    def __init__(
        self,
        path: str,
        verb: str,
        files: list[tuple[str, str]],
        directory: str | None = None,
        reason: str = "",
    ) -> None:
        self.path = path
        self.verb = verb
        self.files = files
        self.directory = directory
        self.reason = reason

    def write(self, staged: str) -> None:
        """Write it down.

        Args:
            staged (str): Path of a temporary file in the folder, which must not exist.

        Raises:
            OSError: The file system refuses; nothing is written down then.
        """
        import json

        said: dict[str, Any] = {
            "verb": self.verb,
            "files": self.files,
            "directory": self.directory,
            "reason": self.reason,
        }
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                _fs.make_readable(fd)
                _fs.write_all(fd, json.dumps(said).encode())
            finally:
                os.close(fd)
            os.rename(staged, self.path)
        except BaseException:
            _fs.remove(staged)
            raise

    def remove(self) -> None:
        """Note that all is done, or that nothing is to be."""
        _fs.remove(self.path)


def name_of(prefix: str) -> str:
    """Give a new file name for what is to become of a group.

    Args:
        prefix (str): What the names of the claimer's files begin with.
    """
    return f"{names.TEMPORARY}{prefix}{os.urandom(8).hex()}{names.INTENT}"


def read(path: str) -> Intent | None:
    """Give what is written down; None where that is gone, or nothing of ours.

    Args:
        path (str): Path of the file.
    """
    import json

    try:
        with open(path, "rb", opener=_fs.open_file) as file:
            said = json.loads(file.read(_LARGEST_BYTES))
        files = [(str(wip), str(name)) for wip, name in said["files"]]
        verb, directory, reason = said["verb"], said["directory"], said["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if verb not in (DONE, RELEASE, FAIL) or any(os.sep in part for two in files for part in two):
        return None
    return Intent(path, verb, files, directory and str(directory), str(reason))
