"""Queues for ETL jobs that remember their work when a process, or the whole server, is killed.

Rooms of the house, and the one question each answers:

- `queuing`, `exceptions`: names, as the library that persistq replaces has them.
- `_sentinels`: what DONE and FAILED are.
- `_fs`: what differs between operating systems and file systems.
- `_journal/`: what a queue writes down.
- `_folder/`: the queues whose messages are files in a folder.
- `_queue/`, `_carrier/`: `PersistentQueue`, and what carries its messages.
- `_run/`: a whole job in one call.
- `_survey`: what is true of a queue on disk right now.
- `_cli/`, `__main__`: how an operator or a shell script uses queues.

Each name is loaded when it is first used: a job that hands files between folders need not wait
for multiprocessing to be imported, nor `persistq --version` for any queue at all.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from persistq._folder.grouped import ReadableGroupedFileFolderQueue
    from persistq._folder.readable import ReadableFolderQueue
    from persistq._folder.writable import WritableFolderQueue
    from persistq._journal.failures import FailedWork
    from persistq._journal.runs import pickup_dirs
    from persistq._queue.persistent import PersistentQueue
    from persistq._run.job import run
    from persistq._run.summary import Summary
    from persistq._sentinels import DONE, FAILED
    from persistq.exceptions import (
        JournalError,
        PersistqError,
        PreviousRunActiveError,
        UpstreamFailureError,
    )

__version__ = "1.0.0"

__all__ = [
    "DONE",
    "FAILED",
    "FailedWork",
    "JournalError",
    "PersistentQueue",
    "PersistqError",
    "PreviousRunActiveError",
    "ReadableFolderQueue",
    "ReadableGroupedFileFolderQueue",
    "Summary",
    "UpstreamFailureError",
    "WritableFolderQueue",
    "__version__",
    "pickup_dirs",
    "run",
]

_ROOMS = {
    "DONE": "_sentinels",
    "FAILED": "_sentinels",
    "FailedWork": "_journal.failures",
    "JournalError": "exceptions",
    "PersistentQueue": "_queue.persistent",
    "PersistqError": "exceptions",
    "PreviousRunActiveError": "exceptions",
    "ReadableFolderQueue": "_folder.readable",
    "ReadableGroupedFileFolderQueue": "_folder.grouped",
    "Summary": "_run.summary",
    "UpstreamFailureError": "exceptions",
    "WritableFolderQueue": "_folder.writable",
    "pickup_dirs": "_journal.runs",
    "run": "_run.job",
}


def _keep_quiet() -> None:
    """Let nothing be printed where the user has set up no logging."""
    import logging

    logger = logging.getLogger("persistq")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


# Loading `logging` takes as long as Python itself takes to start, so it waits for a queue.
if "logging" in sys.modules:
    _keep_quiet()

if not TYPE_CHECKING:  # or type checkers would believe in any name

    def __getattr__(name: str) -> object:
        room = _ROOMS.get(name)
        if room is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        _keep_quiet()
        value = getattr(importlib.import_module(f"persistq.{room}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
