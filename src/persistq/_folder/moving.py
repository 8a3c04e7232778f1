"""How a claimed file gets into another folder: whole, and under the first name that is free."""

from __future__ import annotations

import errno
import os

from persistq import _fs
from persistq._folder import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def move_to(
    path: str,
    directory: str,
    name: str,
    extension: str,
    stage: Callable[[str], str],
    again: bool = False,
) -> str:
    """Move a file into a folder under a name, or the first that is free after it.

    Args:
        path (str): Path of the file, which no other process moves.
        directory (str): The folder.
        name (str): The name: where it is taken, `a.1.tsv` and so on for `a.tsv`.
        extension (str): The message extension with its leading dot.
        stage ((folder: str) -> str): Gives the path of a new temporary file in a folder.
        again (bool): Whether another process may have been killed while it moved it.

    Returns:
        str: Its path from now on.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file system refuses; the file stays.
    """
    if again and (there := moved_already(path, directory, name, extension)) is not None:
        _fs.remove(path)
        return there
    number = 0
    while True:
        target = os.path.join(directory, names.numbered(name, extension, number))
        try:
            move_away(path, target, stage)
            return target
        except FileExistsError:
            number = _free_number(directory, name, extension, number + 1)


def moved_already(
    path: str, directory: str, name: str, extension: str, ending: str = ""
) -> str | None:
    """Find the other name of a file whose move was killed half way, so that it does not get two.

    Where a move takes two steps (NFS, sshfs), the file has both names in between.

    Args:
        path (str): Path of the file.
        directory (str): The folder that it was moved to.
        name (str): As of `move_to`.
        extension (str): As of `move_to`.
        ending (str): What stands behind the extension there.

    Returns:
        str | None: That path; None where there is none.

    Raises:
        FileNotFoundError: There is no such file.
    """
    status = os.lstat(path)
    if status.st_nlink < 2:
        return None
    with os.scandir(directory) as entries:
        for entry in entries:
            own = entry.name[: len(entry.name) - len(ending)]
            if (
                entry.name.endswith(ending)
                and names.is_numbered(own, name, extension)
                and _fs.is_same_file(entry.path, status)
            ):
                return entry.path
    return None


def _free_number(directory: str, name: str, extension: str, number: int) -> int:
    """Find a number from which a name is free: in few looks, however many there are.

    What others take meanwhile does no harm, for a move never overwrites.
    """

    def is_taken(number: int) -> bool:
        return os.path.lexists(os.path.join(directory, names.numbered(name, extension, number)))

    taken, step = number - 1, 1
    while is_taken(taken + step):
        taken, step = taken + step, step * 2
    free = taken + step
    while free - taken > 1:
        middle = (free + taken) // 2
        if is_taken(middle):
            taken = middle
        else:
            free = middle
    return free


def move_away(path: str, target: str, stage: Callable[[str], str]) -> None:
    """Move a file that no other process moves, also to another file system, never over another.

    Args:
        path (str): Path of the file.
        target (str): Its path from now on.
        stage ((folder: str) -> str): Gives the path of a new temporary file in a folder.

    Raises:
        FileExistsError: The name is taken.
        OSError: The file system refuses; the file stays.
    """
    try:
        _fs.rename_new(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # To another file system: whole under its name before the claimed one goes. Killed in
        # between there are both, and the work is done again after a reset.
        staged = stage(os.path.dirname(target))
        _fs.stage_copy(path, staged, sync=False, keep_times=True)
        try:
            _fs.rename_new(staged, target)
        except BaseException:
            _fs.remove(staged)
            raise
        os.unlink(path)
