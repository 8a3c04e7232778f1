"""Queues for ETL jobs that remember their work when a process, or the whole server, is killed.

Rooms of the house, and the one question each answers:

- `queuing`, `exceptions`: names, as the library that persistq replaces has them.
- `_sentinels`: what DONE and FAILED are.
- `_fs`: what differs between operating systems and file systems.
- `_journal/`: `PersistentQueue`, a multiprocessing queue with journals.
- `_folder/`: the queues whose messages are files in a folder.
"""

from __future__ import annotations

import logging

from persistq._journal.persistent import PersistentQueue
from persistq._journal.runs import pickup_dirs
from persistq._sentinels import DONE, FAILED
from persistq.exceptions import (
    JournalError,
    PersistqError,
    PreviousRunActiveError,
    UpstreamFailureError,
)

__version__ = "0.1.0"

logging.getLogger("persistq").addHandler(logging.NullHandler())

__all__ = [
    "DONE",
    "FAILED",
    "JournalError",
    "PersistentQueue",
    "PersistqError",
    "PreviousRunActiveError",
    "UpstreamFailureError",
    "__version__",
    "pickup_dirs",
]
