"""Whole scripts, as a user writes them: each runs in a process group of its own, and is watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import persistq

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = os.path.dirname(os.path.dirname(persistq.__file__))
LIMIT_S = 25


class Script:
    """A script that runs; nothing of it outlives the `with` block."""

    def __init__(self, folder: Path, body: str, *arguments: str) -> None:
        self.folder = folder
        path = folder / "script.py"
        path.write_text(textwrap.dedent(body))
        environment = {**os.environ, "PYTHONPATH": SOURCE, "TMPDIR": str(folder)}
        self.log = folder / "log"
        self._errors = open(folder / "errors", "a+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(path), *arguments],
            cwd=folder,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stderr=self._errors,
        )
        self.pid = self.process.pid

    def wait(self) -> int:
        """Wait for it to end; return its exit status, or None if it hangs."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs; it said {self.errors!r}") from None

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def said(self) -> list[str]:
        """Return the lines of its log."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_until_said(self, line: str, count: int = 1) -> None:
        """Wait until its log has a line so often."""
        deadline_s = time.monotonic() + LIMIT_S
        while self.said().count(line) < count:
            if time.monotonic() > deadline_s:
                raise AssertionError(f"it never said {line!r}: {self.said()}, {self.errors}")
            time.sleep(0.02)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._errors.close()


def run(folder: Path, body: str, *arguments: str) -> tuple[int, list[str], str]:
    """Run a script to its end; return its exit status, its log, and what it said of errors."""
    with Script(folder, body, *arguments) as script:
        status = script.wait()
        return status, script.said(), script.errors
