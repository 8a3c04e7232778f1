"""A stage of a pipeline in one command: `persistq work FOLDER -- COMMAND {}`.

The main thread takes files, each command has a thread that waits for it, and finishes its file.
Files are claimed by this process, whose lease each command holds, too: so a file is nobody else's
while its command runs, also when this process has been killed.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import threading
import time

from persistq import _processes, _survey
from persistq._cli import children, show, take_part
from persistq._cli.children import Child
from persistq._cli.exits import (
    ERROR,
    FINE,
    NOTHING,
    OUTSTANDING,
    QUEUE_FAILED,
    end_by_signal,
    status_of,
)
from persistq._folder import acting
from persistq._folder.trying import TryingReader
from persistq._reasons import describe
from persistq._sentinels import DONE, FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import FrameType

_PLACE = re.compile(r"\{name\}|\{\}")
# So many processes may die with a file in hand, as for `persistq reclaim`.
_DEATHS = 5
# Seconds that a command has to end after SIGTERM.
_GRACE_S = 5.0
# Seconds of waiting for a file before it is asked whether somebody has died with one.
_RECLAIM_S = 60.0


class _Interrupted(BaseException):
    """Takes the main thread out of its wait for a file."""


def _check(options: argparse.Namespace) -> None:
    for name, least in (("jobs", 1), ("max_attempts", 1)):
        if getattr(options, name) < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {getattr(options, name)}: expected {least} or more")
    for name in ("min_age", "retry_delay", "timeout"):
        seconds = getattr(options, name)
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} {seconds:g}: expected seconds, 0 or more")
    if not options.words:
        raise ValueError(
            "no command; expected it behind '--', such as: persistq work orders -- load {}"
        )
    program = options.words[0]
    if not _PLACE.search(program) and shutil.which(program) is None:
        raise ValueError(f"{program}: no such command, or none that may be run. No file is taken.")


def _have_an_output() -> None:
    """Where the shell has closed standard output, have what commands print there go nowhere."""
    import fcntl

    _processes.occupy_standard_streams()
    if fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    os.set_inheritable(1, True)


def work(options: argparse.Namespace) -> int:
    """Run a command on each file of a queue, until its producers are done.

    Args:
        options (argparse.Namespace): With `folder`, `words` and the command's options.
    """
    if os.name == "nt":
        raise ValueError("'work' needs a POSIX system; in Python, ReadableFolderQueue.work() does")
    _check(options)
    extension, ignore_case = _survey.ending_of_existing(
        options.folder, options.extension, options.ignore_case
    )
    take_part.warn_of_a_guess(options)
    _have_an_output()
    reader = TryingReader(
        options.folder,
        extension,
        task_done_directory=options.move_to,
        task_failed_directory=options.failed_to,
        min_age=options.min_age * 1000,
        ignore_case=ignore_case,
        forever=options.forever,
    )
    stage = _Stage(reader, options)
    status = stage.run()
    reader.dispose()
    if stage.signal is not None:
        return end_by_signal(signal.Signals(stage.signal).name)
    return status


class _Stage:
    """Takes files and has the command run on them.

    Args:
        reader (TryingReader): The queue.
        options (argparse.Namespace): With `words` and the command's options.

    Attributes:
        signal (int | None): The signal that has stopped it, which is yet to do what it does.
    """

    def __init__(self, reader: TryingReader, options: argparse.Namespace) -> None:
        self.signal: int | None = None
        self._reader = reader
        self._words: list[str] = options.words
        self._options = options
        # What runs, by the path of its file; None while it is being started.
        self._in_hand: dict[str, Child | None] = {}
        self._changed = threading.Condition()  # its lock may be taken in a signal handler, too
        self._main = threading.get_ident()
        self._stopping = False
        self._is_taking = False
        self._signals = 0
        self._came_back = False
        self._due_s = 0.0  # when the last of what came back is due, by the monotonic clock
        self._error = FINE
        self._told = 0
        # For whom commands put on a next queue: the script, which can close that at the end.
        self._producer = acting.producer_of_surroundings() or acting.calling_shell() or os.getpid()

    def run(self) -> int:
        """Work until there is no more, or until told to stop; return the exit status."""
        with _Handlers(self._handle):
            try:
                try:
                    status = self._take_all()
                finally:
                    self._is_taking = False
            except _Interrupted:
                status = FINE
            except OSError as error:
                self._fail(str(error), error)  # such as: the folder is gone
                status = FINE
            # Told to stop between the claim of a file and its start.
            self._put_back_unstarted()
            if self._signals and self._in_hand:
                show.complain("stops when what is in hand is done; one signal more ends that")
            with self._changed:
                self._changed.wait_for(lambda: not self._in_hand)
        if self._error:
            return self._error
        return OUTSTANDING if self._reader.set_aside and status != QUEUE_FAILED else status

    def _take_all(self) -> int:
        self._reclaim()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: len(self._in_hand) < self._options.jobs or self._stopping
                )
            try:
                message = self._get()
            except queue.Empty:
                message = None
            if self._stopping:
                return FINE
            if message is FAILED:
                show.complain(
                    f"{self._options.folder}: a producer failed. Find out why, then start the "
                    "next run with 'persistq reset'."
                )
                return QUEUE_FAILED
            if isinstance(message, str):
                self._begin(message)
            elif not self._has_more():
                return FINE if message is DONE else NOTHING

    def _get(self) -> str | int | None:
        timeout_s = self._options.timeout
        now_s = time.monotonic()
        end_s = float("inf") if timeout_s is None else max(now_s + timeout_s, self._due_s)
        while True:
            left_s = max(end_s - time.monotonic(), 0)
            try:
                return self._get_in(min(left_s, _RECLAIM_S))
            except queue.Empty:
                self._is_taking = False
                if left_s <= _RECLAIM_S:
                    raise
            self._reclaim()

    def _get_in(self, timeout_s: float) -> str | int | None:
        self._is_taking = True
        if self._stopping:  # asked behind the line above: from there on a signal interrupts
            return None
        message: str | int = self._reader.get(timeout_s * 1000)
        self._is_taking = False
        return message

    def _has_more(self) -> bool:
        """Wait for what is in hand; tell whether something waits again."""
        with self._changed:
            self._changed.wait_for(lambda: self._came_back or not self._in_hand or self._stopping)
            came_back, self._came_back = self._came_back, False
        return came_back or self._stopping or self._reclaim()

    def _reclaim(self) -> bool:
        """Put back what dead processes had in hand; tell whether there was something."""
        deaths = max(_DEATHS, self._options.max_attempts)
        restored = self._reader.reclaim_abandoned(deaths)
        self._tell_of_the_set_aside()
        return bool(restored)

    def _begin(self, path: str) -> None:
        with self._changed:
            self._in_hand[path] = None
        thread = threading.Thread(target=self._do, args=(path,))
        try:
            thread.start()
        except RuntimeError as error:
            self._fail(f"{path}: {error}", error)
            self._put_back(path)
            self._let_go(path)

    def _do(self, path: str) -> None:
        """Have the command run on a file, and see to what becomes of that; in a thread."""
        try:
            attempts = self._reader.attempts(path) + 1
            self._see_to(path, attempts)
        except OSError as error:
            # A full disk at the end of the work, say: it is done again, so nothing is lost.
            name = self._reader.name_of(path)
            self._fail(f"{name}: cannot be finished, so it waits again: {error}", error)
            self._put_back(path)
        except BaseException as error:
            self._fail(f"{path}: {error!r}", ValueError())
            self._put_back(path)
        finally:
            self._let_go(path)

    def _see_to(self, path: str, attempts: int) -> None:
        name = self._reader.name_of(path)
        child = self._start(path, name, attempts)
        if child is None:
            return
        with self._changed:
            self._in_hand[path] = child
            if self._signals > 1:
                child.end(signal.SIGTERM)  # told to end while it was being started
        status = child.wait()
        if status == 0:
            try:
                self._reader.task_done(path)
            except FileNotFoundError:
                show.complain(f"{name}: done, and the command has taken it away itself")
            return
        reason = _ending(status)
        if self._signals > 1:
            show.complain(f"{name}: waits again, since its command was ended: {reason}")
            self._put_back(path)
        elif children.is_unread(1):
            # Whoever read our output has gone, as in `| head`. No file is to be blamed for that.
            self._stop(int(signal.SIGPIPE))
            self._put_back(path)
        else:
            said = child.last_lines()
            self._attempt_failed(path, f"{reason}: {said}" if said else reason, attempts)

    def _start(self, path: str, name: str, attempts: int) -> Child | None:
        """Start the command; None where it cannot be, and that is seen to."""
        values = {"{}": path, "{name}": name}
        arguments = [_PLACE.sub(lambda match: values[match[0]], word) for word in self._words]
        environment = {
            **os.environ,
            "PERSISTQ_CLAIM": path,
            "PERSISTQ_NAME": name,
            "PERSISTQ_ATTEMPT": str(attempts),
            acting.PRODUCER: str(self._producer),
        }
        try:
            return Child(arguments, environment, self._reader.lease_fd())
        except OSError as error:
            text = f"{arguments[0]}: cannot be started: {error.strerror or error}"
            if _PLACE.search(self._words[0]):
                self._attempt_failed(path, text, attempts)  # the file is the program
            else:
                self._fail(text, error)
                self._put_back(path)
            return None

    def _attempt_failed(self, path: str, reason: str, attempts: int) -> None:
        options, name = self._options, self._reader.name_of(path)
        line = describe(reason)
        try:
            waits = self._reader.attempt_failed(
                path, line, attempts, options.max_attempts, options.retry_delay * 1000
            )
        except FileNotFoundError:
            show.complain(f"{name}: failed, and is not there any more: {line}")
            self._error = max(self._error, OUTSTANDING)
            return
        if waits:
            show.complain(f"{name}: is tried again ({attempts} of {options.max_attempts}): {line}")
            self._due_s = time.monotonic() + options.retry_delay
            self._came_back = True
        else:
            self._tell_of_the_set_aside()

    def _tell_of_the_set_aside(self) -> None:
        with self._changed:
            new = self._reader.set_aside[self._told :]
            self._told += len(new)
        for name, reason in new:
            show.complain(f"{name}: set aside: {reason}")

    def _put_back(self, path: str) -> None:
        try:
            self._reader.release(path)
        except FileNotFoundError:
            pass  # the command has taken it away
        except OSError as error:
            show.complain(f"{path}: stays claimed, until 'persistq reclaim': {error}")
            self._error = max(self._error, status_of(error))

    def _put_back_unstarted(self) -> None:
        try:
            self._reader.put_back_unstarted({*self._in_hand})
        except OSError as error:
            self._fail(f"{self._options.folder}: claimed files cannot be put back: {error}", error)

    def _let_go(self, path: str) -> None:
        with self._changed:
            self._in_hand.pop(path, None)
            self._changed.notify_all()

    def _fail(self, text: str, error: Exception) -> None:
        """Say what is wrong, and take no more files: the next would meet the same."""
        show.complain(text)
        self._error = max(self._error, status_of(error), ERROR)
        self._stop(None)

    def _stop(self, number: int | None) -> None:
        """From any thread: have the main one take no more files."""
        with self._changed:
            if number is not None and self.signal is None:
                self.signal = number
            self._stopping = True
            self._changed.notify_all()
        if self._is_taking and threading.get_ident() != self._main:
            signal.pthread_kill(self._main, signal.SIGURG)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGURG:
            self._signals += 1
            self._stop(number)
            if self._signals > 1:
                self._end_commands(signal.SIGTERM if self._signals == 2 else signal.SIGKILL)
        if self._stopping and self._is_taking:
            self._is_taking = False
            raise _Interrupted

    def _end_commands(self, number: signal.Signals) -> None:
        for child in [*self._in_hand.values()]:
            if child is not None:
                child.end(number)
        if number == signal.SIGTERM:
            timer = threading.Timer(_GRACE_S, self._end_commands, [signal.SIGKILL])
            timer.daemon = True
            timer.start()


class _Handlers:
    """A block in which the signals that ask for an end are handled; not those that are ignored.

    Args:
        handle ((number: int, frame: FrameType | None) -> None): The handler; of SIGURG, too, by
            which other threads interrupt the main one.
    """

    def __init__(self, handle: Callable[[int, FrameType | None], None]) -> None:
        self._handle = handle
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGURG):
            if number == signal.SIGURG or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *rest: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]


def _ending(status: int) -> str:
    """Say how a command ended."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
