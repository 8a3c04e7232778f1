"""The queues under the module name of the library that persistq replaces.

`from pympx import queuing as mpq` becomes `from persistq import queuing as mpq`.
"""

from __future__ import annotations

from persistq import (
    DONE,
    FAILED,
    JournalError,
    PersistentQueue,
    PersistqError,
    PreviousRunActiveError,
    UpstreamFailureError,
    __version__,
    pickup_dirs,
)

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
