"""The queues under the module name of the library that persistq replaces.

`from pympx import queuing as mpq` becomes `from persistq import queuing as mpq`.
"""

from __future__ import annotations

from persistq import (
    DONE,
    FAILED,
    FailedWork,
    JournalError,
    PersistentQueue,
    PersistqError,
    PreviousRunActiveError,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    Summary,
    UpstreamFailureError,
    WritableFolderQueue,
    __version__,
    pickup_dirs,
    run,
)
from persistq._folder.base import _FolderQueue

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
    "_FolderQueue",
    "__version__",
    "pickup_dirs",
    "run",
]
