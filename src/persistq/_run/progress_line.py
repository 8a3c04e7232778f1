"""One line that says how far a job is: on a terminal always the same, in a log one a minute."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from persistq._queue.progress import Progress

_TERMINAL_S = 1.0
_LOG_S = 60.0
_COLUMNS = 79


class ProgressLine:
    """Shows progress on standard error, or nothing.

    Args:
        name (str): What the job is called.
        wanted (bool | None): True shows it in any case; None on a terminal only; False never.
        progress (() -> Progress): Tells how far the run is.
        still_to_come (() -> int | None): How many messages are still to be put; None if unknown.
    """

    def __init__(
        self,
        name: str,
        wanted: bool | None,
        progress: Callable[[], Progress],
        still_to_come: Callable[[], int | None],
    ) -> None:
        stream: TextIO | None = sys.stderr
        try:
            self._is_terminal = stream is not None and stream.isatty()
        except ValueError:  # it is closed
            stream, self._is_terminal = None, False
        self._stream = stream if wanted or (wanted is None and self._is_terminal) else None
        self._name = name
        self._progress = progress
        self._still_to_come = still_to_come
        self._period_s = _TERMINAL_S if self._is_terminal else _LOG_S
        self._next_s = time.monotonic() + self._period_s
        self._shown = 0

    def show(self) -> None:
        """Show it, if it is time to."""
        if self._stream is None or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + self._period_s
        try:
            self._write(text_of(self._name, self._progress(), self._still_to_come()))
        except (OSError, ValueError):
            self._next_s += self._period_s  # a journal that is busy, a terminal that is gone

    def _write(self, text: str) -> None:
        assert self._stream is not None
        if self._is_terminal:
            text = text[:_COLUMNS]
            self._stream.write("\r" + text.ljust(self._shown))
            self._shown = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Take the line off the terminal: what is printed next begins where it began."""
        if self._stream is not None and self._shown:
            try:
                self._stream.write("\r" + " " * self._shown + "\r")
                self._stream.flush()
            except (OSError, ValueError):
                pass

    def release(self) -> None:
        """Let go of what tells the progress."""
        self._stream = None
        del self._progress


def text_of(name: str, progress: Progress, still_to_come: int | None) -> str:
    """Return the line.

    Args:
        name (str): What the job is called.
        progress (Progress): How far it is.
        still_to_come (int | None): How many messages are still to be put; None if unknown.
    """
    left = progress.outstanding + (still_to_come or 0)
    more = "" if still_to_come is not None else " or more"
    text = f"{name}: {progress.completed} done, {progress.failed} failed, {left}{more} left"
    if progress.rate_per_s > 0:
        text += f", {progress.rate_per_s:.3g}/s"
        if still_to_come is not None:
            text += f", {_duration(left / progress.rate_per_s)} to go"
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
