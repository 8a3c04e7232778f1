"""Taking part in folder queues from a shell: put, get, done, release, name, close, fail.

Each command is a process of its own. The one that produces and claims is the process that calls,
by default the parent: the shell that runs the script.
"""

from __future__ import annotations

import errno
import os
import queue
import signal
import sys
import time

from persistq import _survey
from persistq._cli import show
from persistq._cli.exits import (
    ERROR,
    FINE,
    NOTHING,
    QUEUE_DONE,
    QUEUE_FAILED,
    end_by_signal,
    status_of,
)
from persistq._folder import acting
from persistq._folder.acting import ActingReader, ActingWriter, Actor
from persistq._folder.names import dotted, original_name, parse_wip
from persistq._folder.readable import ReadableFolderQueue
from persistq._sentinels import DONE, FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

# Between two looks whether the process that waits by way of this one still lives, and whether
# a signal has come.
_SLICE_MS = 200.0


def _producer(options: argparse.Namespace) -> Actor:
    own = os.getpid()
    if options.pid is not None:
        return Actor(options.pid)
    if acting.has_announced(own, options.folder):
        # `sh -c 'persistq put ...; persistq close ...'`: the shell has put the last command in
        # its own place, so it is this process that has put.
        return Actor(own)
    surroundings = acting.producer_of_surroundings()
    return _consumer(options) if surroundings is None else Actor(surroundings)


def _consumer(options: argparse.Namespace) -> Actor:
    return Actor(acting.caller() if options.pid is None else options.pid)


def _ending(options: argparse.Namespace, actor: Actor, waits: bool = False) -> tuple[str, bool]:
    """Give how messages end, as was said, or as those of the queue that is there.

    Args:
        options (argparse.Namespace): With `folder`, `extension` and `ignore_case`.
        actor (Actor): For whom is acted.
        waits (bool): Whether it is told where that is a guess that files speak against.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    named = None if options.extension is None else dotted(options.extension)
    # From the lease of earlier commands, if it can be: a large folder takes long to list.
    known = actor.ending_in(options.folder)
    if known is not None and named in (None, known[0]):
        return known[0], known[1] or options.ignore_case
    found = _survey.ending_of_existing(options.folder, options.extension, options.ignore_case)
    if waits:
        warn_of_a_guess(options)
    return found


def warn_of_a_guess(options: argparse.Namespace) -> None:
    """Say so where a consumer would wait beside files that it does not take for messages."""
    if _survey.is_guessed(options.folder, options.extension, options.ignore_case):
        show.complain(f"{_survey.against_the_guess(options.folder, options.ignore_case)}.")


def _each(arguments: list[str], act: Callable[[str], object]) -> int:
    """Do all that can be done, and say what cannot; the highest status is that of the command."""
    status = FINE
    for argument in arguments:
        try:
            act(argument)
        except FileExistsError as error:
            taken = os.fsdecode(error.filename2 or error.filename or argument)
            show.complain(f"{argument}: not done, since {taken} is there already")
            status = max(status, status_of(error))
        except OSError as error:
            show.complain(f"{argument}: {error.strerror or error}")
            status = max(status, status_of(error))
        except ValueError as error:
            show.complain(str(error))
            status = max(status, status_of(error))
    return status


def _writer(
    actor: Actor, options: argparse.Namespace, ending: tuple[str, bool], announce: bool = True
) -> ActingWriter:
    extension, ignore_case = ending
    return ActingWriter(
        actor, options.folder, extension, ignore_case=ignore_case, announce=announce
    )


def put(options: argparse.Namespace) -> int:
    """Put files on a queue."""
    ending = _survey.ending_of(options.folder, options.extension, options.ignore_case)
    writer = _writer(_producer(options), options, ending, announce=not options.no_announcement)
    status = _each(options.files, lambda file: writer.put(file, copy=options.copy))
    if options.close and status == FINE:
        writer.close()
    elif options.close:
        show.complain(f"{options.folder}: not closed, since not all files are put")
    return status


def close(options: argparse.Namespace) -> int:
    """Say that this producer puts no more."""
    actor = _producer(options)
    _writer(actor, options, _ending(options, actor)).close(dead=options.dead)
    return FINE


def fail(options: argparse.Namespace) -> int:
    """Say that this producer failed."""
    actor = _producer(options)
    _writer(actor, options, _ending(options, actor)).fail()
    return FINE


def get(options: argparse.Namespace) -> int:
    """Claim the next file, and print its path."""
    if options.timeout is not None and not options.timeout >= 0:
        raise ValueError(f"--timeout {options.timeout:g}: expected seconds, 0 or more")
    if options.number < 1:
        raise ValueError(f"--number {options.number}: expected 1 or more")
    actor = _consumer(options)
    signals: list[int] = []
    # Between the claim and the print nothing may end us: nobody would know of the file.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: signals.append(number))
    extension, ignore_case = _ending(options, actor, waits=True)
    reader = ActingReader(
        actor,
        options.folder,
        extension,
        ignore_case=ignore_case,
        min_age=options.min_age * 1000,
        forever=options.forever,
    )
    try:
        return _get(reader, actor, options, signals)
    finally:
        reader.dispose()


def _get(
    reader: ActingReader, actor: Actor, options: argparse.Namespace, signals: list[int]
) -> int:
    deadline_s = None if options.timeout is None else time.monotonic() + options.timeout
    while True:
        left_ms = _SLICE_MS
        if deadline_s is not None:
            left_ms = min(left_ms, max(deadline_s - time.monotonic(), 0.0) * 1000)
        try:
            message = reader.get(left_ms)
        except queue.Empty:
            message = None
        if message is DONE:
            return QUEUE_DONE
        if message is FAILED and actor.lives():
            show.complain(
                f"{options.folder}: a producer failed. Find out why, then start the next run "
                "with 'persistq reset'."
            )
            return QUEUE_FAILED
        if signals or not actor.lives():
            if isinstance(message, str):
                reader.release(message)
            if signals:
                reader.dispose()
                return end_by_signal(signal.Signals(signals[0]).name)
            show.complain(f"process {actor.pid}, for which this was to get a file, has ended")
            return ERROR
        if isinstance(message, str):
            return _hand_over(reader, _those_behind(reader, message, options.number), options)
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return NOTHING


def _those_behind(reader: ActingReader, first: str, number: int) -> list[str]:
    """Claim what waits behind a first file, so many in all, without waiting for more."""
    claimed = [first]
    try:
        while len(claimed) < number:
            message = reader.get(0)
            if not isinstance(message, str):
                break  # the next call tells that
            claimed.append(message)
    except queue.Empty:
        pass
    except BaseException:
        reader.release(claimed)
        raise
    return claimed


def _hand_over(reader: ActingReader, paths: list[str], options: argparse.Namespace) -> int:
    """Print the paths of claimed files; where nobody can read them, put the files back."""
    end = b"\0" if options.zero else b"\n"
    shown = paths
    if not os.path.isabs(options.folder):
        shown = [os.path.join(options.folder, os.path.basename(path)) for path in paths]
    try:
        show.write(b"".join([show.name_out(path, end) for path in shown]))
        sys.stdout.flush()
    except BaseException:
        reader.release(paths)
        raise
    reader.hand_over()
    return FINE


def _check_claim(path: str) -> None:
    """Refuse what cannot be the path of a claimed file.

    Raises:
        ValueError: It is none.
    """
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise ValueError(f"{path}: no such folder; expected a path that 'persistq get' printed")
    if parse_wip(os.path.basename(path)) is None:
        raise ValueError(
            f"{path} is not a claimed file; expected a path that 'persistq get' printed, such "
            "as orders/004711_5354494819_a.wip"
        )


def _claimed(options: argparse.Namespace, act: Callable[[ReadableFolderQueue, str], None]) -> int:
    """Do something with claimed files, each in the folder in which it lies."""
    move_to = getattr(options, "move_to", None)
    # `done` alone removes the file, under whichever name; all others give it its own.
    renames = move_to is not None or not hasattr(options, "move_to")
    readers: dict[tuple[str, str, bool], ReadableFolderQueue] = {}

    def act_on(path: str) -> None:
        _check_claim(path)
        folder = os.path.dirname(os.path.abspath(path))
        extension, ignore_case = _survey.ending_of_claim(
            path, options.extension, options.ignore_case, renames
        )
        key = (folder, extension, ignore_case)
        if key not in readers:
            readers[key] = ReadableFolderQueue(folder, extension, move_to, ignore_case=ignore_case)
        act(readers[key], path)

    return _each(options.claimed, act_on)


def done(options: argparse.Namespace) -> int:
    """Finish claimed files."""

    def finish(reader: ReadableFolderQueue, path: str) -> None:
        if not os.path.lexists(path):
            raise FileNotFoundError(
                errno.ENOENT, "no longer claimed: finished, or put back, by somebody else", path
            )
        reader.task_done(path)

    return _claimed(options, finish)


def release(options: argparse.Namespace) -> int:
    """Put claimed files back."""
    if not options.delay >= 0:
        raise ValueError(f"--delay {options.delay:g}: expected seconds, 0 or more")
    delay_ms = options.delay * 1000
    return _claimed(options, lambda reader, path: reader.release(path, delay_ms))


def name(options: argparse.Namespace) -> int:
    """Print the own names of claimed files."""
    end = b"\0" if options.zero else b"\n"

    def tell(path: str) -> None:
        _check_claim(path)
        parts = parse_wip(os.path.basename(path))
        assert parts is not None
        ending = _survey.ending_of_claim(path, options.extension, options.ignore_case)
        own = original_name(parts[2], *ending)
        show.write(show.name_out(own, end))

    return _each(options.claimed, tell)
