"""How the page gets into a file, whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat

from persistq import _fs
from persistq._web import looks, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from persistq._survey.under import Surveyor


def make(surveyor: Surveyor, roots: Sequence[str]) -> bytes:
    """Look once, and make the page.

    Args:
        surveyor (Surveyor): Who looks.
        roots (Sequence[str]): The folders that are looked at.

    Returns:
        bytes: A page that needs nothing else.
    """
    seen = looks.look(surveyor, None)
    return page.report(seen, roots, secrets.token_urlsafe(16)).encode("utf-8")


def write(path: str, data: bytes) -> None:
    """Write a file, which replaces the one that has its name in one step.

    Killed before the last step, or on a full disk: the old file is there, unchanged. What a kill
    leaves beside it, `.<name>.persistq-report`, the next one replaces.

    Args:
        path (str): Path of the file; what a link leads to, if it is one.
        data (bytes): What it is to hold.

    Raises:
        ValueError: The path is that of something else than a file.
        OSError: The folder is not there or cannot be written, or the disk is full.
    """
    target = os.path.realpath(path)
    try:
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise ValueError(
                f"{path} is no file. Expected the name of one as -o FILE, or - to print the page."
            )
    except FileNotFoundError:
        pass
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.persistq-report")
    # Two at once: one waits for the other. Where there are no locks they may take each other's
    # temporary file away; then they fail, and the old file stays.
    with _fs.folder_lock(folder):
        _fs.remove(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(temporary, flags, 0o666)
        try:
            try:
                _fs.write_all(fd, data)
                _fs.sync_file(fd)
            finally:
                os.close(fd)
            os.replace(temporary, target)
        except BaseException:
            _fs.remove(temporary)
            raise
        _fs.sync_folder(folder)
