"""Repairing folder queues: reset, reclaim and purge."""

from __future__ import annotations

import os
import sys

from persistq import _survey
from persistq._cli import ERROR, FINE, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def may(question: str, options: argparse.Namespace) -> bool:
    """Ask before what cannot be undone.

    Raises:
        ValueError: There is nobody to ask, and no `--yes`.
    """
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise ValueError(
            f"{question} This cannot be undone, and there is no terminal to ask on: say --yes, "
            "if it is what you want. Nothing has been changed."
        )
    sys.stdout.flush()
    sys.stderr.write(f"{question} This cannot be undone. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    show.complain("nothing has been changed")
    return False


def _folder(options: argparse.Namespace) -> _survey.FolderSurvey:
    """Look at a folder queue that is to be repaired.

    Raises:
        ValueError: It is none.
    """
    from persistq._folder.names import dotted

    path = options.folder
    if _survey.journal_prefixes(path) or _survey.homes(path):
        raise ValueError(
            f"{path} holds journals; expected a folder queue. Journals need no repair: the next "
            "run picks up what is outstanding."
        )
    return _survey.FolderSurvey(path, dotted(options.extension))


def _claims(folder: _survey.FolderSurvey) -> str:
    count = sum(hand.count for hand in folder.in_progress)
    # Of another host nobody knows, so it counts as living.
    living = sum(hand.count for hand in folder.in_progress if hand.state != _survey.DEAD)
    text = show.count_of(count, "claimed file")
    return f"{text} ({living} of processes that may be at work)" if living else text


def reclaim(options: argparse.Namespace) -> int:
    """Put back what dead processes of this host had claimed."""
    from persistq._folder.readable import ReadableFolderQueue

    _folder(options)
    restored = ReadableFolderQueue(options.folder, options.extension).reclaim_abandoned()
    for path in restored:
        show.say(f"waits again: {show.safe(os.path.basename(path))}")
    show.say(f"{show.count_of(len(restored), 'file')} put back")
    return FINE


def reset(options: argparse.Namespace) -> int:
    """Prepare a folder for the next run: no control files, and nothing claimed."""
    from persistq._folder import names, recovery

    folder = _folder(options)
    controls = [name for name in os.listdir(options.folder) if name.endswith(names.CONTROL)]
    question = (
        f"{options.folder}: {_claims(folder)} would wait again, and "
        f"{show.count_of(len(controls), 'control file')} be removed."
    )
    if not may(question, options):
        return ERROR
    recovery.purge_control_messages(options.folder)
    restored = recovery.reset_processing_files(options.folder, names.dotted(options.extension))
    for path in restored:
        show.say(f"waits again: {show.safe(os.path.basename(path))}")
    show.say(
        f"{show.count_of(len(restored), 'file')} put back, "
        f"{show.count_of(len(controls), 'control file')} removed"
    )
    return FINE


def purge(options: argparse.Namespace) -> int:
    """Remove all that is in the folder of a queue."""
    from persistq._folder import recovery

    folder = _folder(options)
    count = len(os.listdir(options.folder))
    if count and not folder.is_queue:
        raise ValueError(
            f"{options.folder} holds {show.count_of(count, 'file')}, but none of a folder queue: "
            "neither messages nor claimed nor control files. It is left alone. --extension says "
            "how messages end; what is no queue is for 'rm'."
        )
    rest = count - folder.waiting - sum(hand.count for hand in folder.in_progress)
    question = (
        f"{options.folder}: {show.count_of(folder.waiting, 'waiting message')}, "
        f"{_claims(folder)} and {show.count_of(rest, 'other file or folder')} would be deleted."
    )
    if not may(question, options):
        return ERROR
    recovery.purge(options.folder)
    show.say(f"deleted all that was in {show.safe(options.folder)}: {count} files and folders")
    return FINE
