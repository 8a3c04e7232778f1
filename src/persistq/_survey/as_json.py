"""What JSON says of queues, and of the work that they have set aside."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from persistq._folder.failing import FailedFile
    from persistq._journal.codec import Codec
    from persistq._journal.failures import FailedLine
    from persistq._journal.run_state import RunState
    from persistq._survey.find import Survey

SCHEMA = 1
"""Which form it has; raised when a field changes or goes."""


def surveys(found: Iterable[Survey]) -> list[dict[str, Any]]:
    """Give what is true of queues.

    Args:
        found (Iterable[JournalSurvey | FolderSurvey]): The queues.

    Returns:
        list[dict[str, Any]]: To be written in ASCII: what is no UTF-8 in a name stands there as a
        lone surrogate.
    """
    return [{"schema": SCHEMA, **survey.as_dict()} for survey in found]


def failed_line(place: RunState, record: FailedLine, codec: Codec) -> dict[str, Any]:
    """Give a message of journals that was set aside.

    Args:
        place (RunState): The run that has it now.
        record (FailedLine): The message, when it was set aside, and why.
        codec (Codec): Turns its line into the message.
    """
    work = record.work(codec)
    return {
        "schema": SCHEMA,
        "kind": "journals",
        "path": place.directory,
        "prefix": place.names.prefix,
        "message": work.message,
        "text": text_of(codec, record),
        "reason": work.reason,
        "attempts": work.attempts,
        "failed_at": work.failed_at.isoformat(),
    }


def failed_file(path: str, file: FailedFile) -> dict[str, Any]:
    """Give a file of a folder queue that was set aside.

    Args:
        path (str): The queue's folder.
        file (FailedFile): The file, when it was set aside, and why.
    """
    return {
        "schema": SCHEMA,
        "kind": "folder",
        "path": path,
        "message": file.message,
        "text": file.message,
        "reason": file.reason,
        "attempts": file.attempts,
        "failed_at": file.failed_at.isoformat() if file.failed_at is not None else None,
        "file": file.path,
    }


def text_of(codec: Codec, record: FailedLine) -> str:
    """Give a message as it is shown, and as patterns see it."""
    return os.fsdecode(plain(codec, record.line))


def plain(codec: Codec, line: bytes) -> bytes:
    """Give a message as it was put, where it is text; as journalled where it is not."""
    try:
        message = codec.decode(line)
    except ValueError:
        return line
    fields = message if isinstance(message, tuple) and len(message) > 1 else (message,)
    if not all(isinstance(field, str) for field in fields):
        return line
    return b"\t".join([field.encode("utf-8", "surrogateescape") for field in fields])
