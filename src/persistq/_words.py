"""How names, lengths of time, moments and numbers are told to a person."""

from __future__ import annotations

import re
import time

# Line ends and escape sequences of a terminal, what turns letters around so that a name looks like
# another one, and bytes that are no UTF-8.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]"
)


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
