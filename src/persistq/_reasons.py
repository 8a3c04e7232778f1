"""Why a message was set aside, in one line that a person reads in the morning."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Union

    Reason = Union[str, BaseException]

LONGEST = 2000
"""How many characters of a reason are kept: some exceptions quote all the data that they met."""

# What ends a line for somebody (str.splitlines), a tab, and what a terminal would obey.
_BLANKS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ")

# Frames from here on down are not where a user looks for his mistake.
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = {"site-packages", "dist-packages"}


def describe(reason: Reason) -> str:
    """Give a reason as one line of text, without tabs, line ends or control characters.

    Args:
        reason (str | BaseException): A text, or an exception: its type, its message, and the last
            place in the user's own code that it came through.

    Returns:
        str: What UTF-8 with `surrogateescape` can write, at most a little over `LONGEST`
        characters; blanks where there were tabs and line ends.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(reason, BaseException):
        return _one_line(_of_exception(reason)) + _place(reason)
    if not isinstance(reason, str):
        raise TypeError(
            f"reason is a {type(reason).__name__}; expected a str, or the exception itself"
        )
    return _one_line(reason)


def _of_exception(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        message = str(error)
    except Exception as other:  # a user's class whose __str__ fails must not hide the first error
        message = f"(its text cannot be had: {type(other).__name__})"
    return f"{name}: {message}" if message else name


def _place(error: BaseException) -> str:
    """Say where it came from: behind the last step of the user's, there are only libraries."""
    trace = error.__traceback__
    last: TracebackType | None = None
    last_of_user: TracebackType | None = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_OURS):
            last = trace
            if _is_of_user(file):
                last_of_user = trace
        trace = trace.tb_next
    found = last_of_user or last
    if found is None:
        return ""
    code = found.tb_frame.f_code
    return _one_line(f" ({code.co_filename}, line {found.tb_lineno}, in {code.co_name})", False)


def _is_of_user(file: str) -> bool:
    if file.startswith("<frozen"):
        return False
    if not _INSTALLED.isdisjoint(file.split(os.sep)):
        return False
    return not file.startswith(_LIBRARY)


def _one_line(text: str, strip: bool = True) -> str:
    text = text.translate(_BLANKS)
    if strip:
        text = text.strip()
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ... ({len(text):,} characters)"
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return text
