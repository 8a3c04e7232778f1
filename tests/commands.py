"""Commands as an operator types them, and what they say."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "persistq"]
LIMIT_S = 25


def text(*arguments: str | Path, status: int = 0, folder: Path | None = None) -> str:
    """Run a command that is to end with a status; return all that it printed.

    Args:
        *arguments (str | Path): What follows `persistq`.
        status (int): Its exit status.
        folder (Path | None): Where it runs.
    """
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        timeout=LIMIT_S,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == status, (result.stdout, result.stderr)
    return result.stdout + result.stderr


def write(folder: Path, *names: str) -> list[Path]:
    """Write a file of each name; return their paths."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return [folder / name for name in names]
