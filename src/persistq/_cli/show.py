"""How things are printed: names that hold anything, tables, moments and amounts."""

from __future__ import annotations

import os
import re
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Line ends and escape sequences of a terminal, and bytes that are no UTF-8.
_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2028\\u2029]")


def safe(text: str) -> str:
    r"""Make a name fit for a line on a terminal: what does not print becomes `\x0a`.

    Args:
        text (str): Any text, such as a path.
    """
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # a byte that is no UTF-8
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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


def log_to_stderr(command: Sequence[str]) -> None:
    """Have the library's warnings told on standard error, but for those of a mere look.

    Args:
        command (Sequence[str]): The command's name, if there is one.
    """
    import logging

    handler: logging.Handler = logging.NullHandler()
    if command and command[0] not in ("status", "watch", "outstanding", "failed"):
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


def amount(seconds: float) -> str:
    """Give a length of time in the unit that suits it.

    Args:
        seconds (float): Any length.
    """
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def moment(seconds: float) -> str:
    """Give a moment by the local clock, and how long ago it was.

    Args:
        seconds (float): Seconds since the epoch; 0 when there was none.
    """
    if not seconds:
        return "-"
    ago_s = max(time.time() - seconds, 0.0)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{stamp} ({amount(ago_s)} ago)"


def count_of(number: int, noun: str) -> str:
    """Give a number with its noun: `1 file`, `2 files`."""
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")
