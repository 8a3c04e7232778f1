"""What the tests' child processes run: importable under every start method."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persistq._journal.files import JournalFile


def append_in_fork(talk: Any, journal: JournalFile, inherited_fd: int, path: str) -> str:
    try:
        is_open = os.path.sameopenfile(inherited_fd, os.open(path, os.O_RDONLY))
    except OSError:
        is_open = False
    journal.append(b"child\n")
    return "the parent's file is open" if is_open else "the parent's file is closed"
