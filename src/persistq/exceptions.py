"""Which errors persistq raises that the standard library has no name for."""

from __future__ import annotations


class PersistqError(Exception):
    """Base class of the errors below."""


class UpstreamFailureError(PersistqError):
    """A producer failed (`fail()`, or its death), so a consumer cannot finish its work."""


class JournalError(PersistqError, ValueError):
    """A line of a journal cannot be turned back into a message."""


class PreviousRunActiveError(PersistqError):
    """The run whose work was to be carried over, or requeued, is still alive."""


MPXError = PersistqError
"""The name of the base class in the library that persistq replaces."""
