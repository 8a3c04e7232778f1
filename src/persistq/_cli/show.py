"""How things are printed: lines, names, and tables; what is wrong, and warnings."""

from __future__ import annotations

import os
import sys

from persistq._words import amount, count_of, moment, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "amount",
    "complain",
    "count_of",
    "log_to_stderr",
    "moment",
    "name_out",
    "safe",
    "say",
    "table",
    "write",
]


def say(text: str = "") -> None:
    """Print a line."""
    write(os.fsencode(f"{text}\n"))


def write(data: bytes) -> None:
    """Print bytes as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def name_out(text: str, end: bytes) -> bytes:
    """Give a name as it is printed for a script; for a terminal it is made safe.

    Args:
        text (str): A path or message.
        end (bytes): What ends it, a line end or NUL.
    """
    if end == b"\n" and sys.stdout.isatty():
        text = safe(text)
    return os.fsencode(text) + end


def complain(text: str) -> None:
    """Tell on standard error what is wrong."""
    try:
        sys.stderr.write(f"persistq: {safe(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass


_LOOKING = ("status", "watch", "outstanding", "failed", "serve", "report")


def log_to_stderr(command: Sequence[str]) -> None:
    """Have the library's warnings told on standard error, but for those of a mere look.

    Args:
        command (Sequence[str]): The command's name, if there is one.
    """
    import logging

    handler: logging.Handler = logging.NullHandler()
    if command and command[0] not in _LOOKING:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("persistq: %(message)s"))
    logging.getLogger("persistq").addHandler(handler)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows of cells, numbers to the right; the first row is the heading.

    Args:
        rows (Sequence[Sequence[str]]): As many cells in each.

    Returns:
        list[str]: One line a row.
    """
    lines = [""] * len(rows)
    for column in zip(*rows):
        cells = [safe(cell) for cell in column]
        width = max(map(len, cells))
        is_number = all(cell.replace(",", "").isdigit() or cell == "-" for cell in cells[1:])
        for number, cell in enumerate(cells):
            lines[number] += f"{cell:>{width}}  " if is_number else f"{cell:<{width}}  "
    return [line.rstrip() for line in lines]
