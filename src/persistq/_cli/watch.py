"""Watching queues while they are worked on: `persistq watch`."""

from __future__ import annotations

import os
import shutil
import sys
import time

from persistq import _fs, _survey
from persistq._cli import look, show
from persistq._cli.exits import FINE, QUEUE_FAILED
from persistq._journal.run_state import RunState
from persistq._survey.rate import Done, Rate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, Union

    View = Union["JournalView", "FolderView"]

# A look may take a while (a large folder); the rest between two is at least so many times that.
_REST = 5
_LONGEST_INTERVAL_S = 86_400
_BAR = 20


class JournalView:
    """The progress of a run, from what is appended to its journals.

    Args:
        path (str): The directory.
        prefix (str): The queue's prefix.
    """

    def __init__(self, path: str, prefix: str) -> None:
        self.name = prefix
        self._path = path
        self._files: dict[tuple[int, int], tuple[int, int]] = {}  # inode to bytes read, and lines
        self._rate = Rate()

    def look(self) -> bool:
        """Look again; return whether the work is done."""
        self.failed = False
        for number in range(20):
            try:
                state = RunState(self._path, self.name)
                self.total = sum(map(self._lines, state.requested))
                failed = sum(map(self._lines, state.failed_here))
                self.done = sum(map(self._lines, state.completed)) + failed
                break
            except FileNotFoundError:
                if number == 19:
                    raise
        self._rate.add(self.done)
        self.rate = self._rate.per_second()
        self.note = f"{failed} set aside" if failed else ""
        if state.seal is not None:
            self.note = f"carried on in {show.safe(state.seal.directory)}"
            return True
        if self.done < self.total:
            # Of a run without an identity, as of version 0.1, nobody can tell.
            if state.run and all(member.is_dead() is True for member in state.members_of_run()):
                self.note += ", " * bool(self.note) + "nobody is at work"
            return False
        # Counted, all is completed; by name too, and does nobody put any more?
        survey = _survey.JournalSurvey(self._path, self.name)
        self.done, self.total = survey.requested - survey.outstanding, survey.requested
        return survey.is_finished and not survey.alive

    def _lines(self, path: str) -> int:
        """Count lines, less what was withdrawn, reading only what is new."""
        with open(path, "rb", buffering=0, opener=_fs.open_file) as file:
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino)
            place, count = self._files.get(key, (0, 0))
            if status.st_size < place:
                place = count = 0  # cut back: a line was withdrawn
            file.seek(place)
            while data := file.read(1 << 18):
                end = data.rfind(b"\n") + 1
                if not end:
                    break
                count += data.count(b"\n", 0, end)
                whole = b"\n" + data[:end]
                count -= 2 * whole.count(b"\n\x10-")
                place += end
                file.seek(place)
            self._files[key] = (place, count)
            return count


class FolderView:
    """The progress of a folder queue, as far as the folder tells.

    Args:
        path (str): The folder.
        folder_options (dict[str, Any]): What `_survey.FolderSurvey` takes.
    """

    def __init__(self, path: str, folder_options: dict[str, Any]) -> None:
        self.name = path
        self.is_queue = False
        self._options = folder_options
        self._rate = Rate()
        self._done = Done()

    def look(self) -> bool:
        """Look again; return whether the work is done, or a producer failed."""
        given = {**self._options}
        given["extension"], given["ignore_case"] = _survey.ending_of(
            self.name, given["extension"], given["ignore_case"]
        )
        survey = _survey.FolderSurvey(self.name, **given)
        self.is_queue = self.is_queue or survey.is_queue
        left = survey.outstanding
        self.done = self._done.look(survey)
        self.total = self.done + left
        self._rate.add(self.done)
        self.rate = self._rate.per_second()
        self.failed = survey.failed
        hands = sum(hand.count for hand in survey.in_progress)
        dead = sum(hand.count for hand in survey.in_progress if hand.state == _survey.DEAD)
        self.note = f"{hands} in progress" + (f", {dead} of the dead" if dead else "")
        if survey.set_aside:
            self.note += f", {survey.set_aside} set aside"
        if survey.failed:
            self.note = "a producer failed"
        return survey.failed or (survey.is_finished and survey.ended)


class Place:
    """What there is to watch at a path, found as soon as it is there.

    Args:
        path (str): A pickup directory, a root of them, or a folder queue; or what will be one.
        folder_options (dict[str, Any]): What `_survey.FolderSurvey` takes.

    Attributes:
        views (list[View]): None while it is not there.
    """

    def __init__(self, path: str, folder_options: dict[str, Any]) -> None:
        self.path = path
        self.views: list[View] = []
        self._options = folder_options
        self._is_known = False

    def look(self) -> bool:
        """Look again; return whether the work is done."""
        if not self._is_known:
            self._find()
        finished = [view.look() for view in self.views]
        return bool(finished) and all(finished)

    def _find(self) -> None:
        try:
            journals = _survey.journals(self.path)
        except FileNotFoundError:
            if self.views:
                raise  # it was there
            return
        if journals:
            self.views = [JournalView(*place) for place in journals]
            self._is_known = True
        elif not self.views:
            self.views = [FolderView(self.path, self._options)]
        else:
            # An empty folder may yet become a pickup directory.
            (view,) = self.views
            self._is_known = isinstance(view, FolderView) and view.is_queue

    def lines(self) -> list[str]:
        """Give what there is to show."""
        if not self.views:
            return [f"{show.safe(self.path)}  not there yet"]
        return [_line(view) for view in self.views]


def watch(options: argparse.Namespace) -> int:
    """Show the progress of queues until their work is done.

    Args:
        options (argparse.Namespace): With `paths`, `interval`, and those of `folder_options`.

    Returns:
        int: QUEUE_FAILED when a producer of a folder queue failed.
    """
    if options.interval is not None and not 0 < options.interval <= _LONGEST_INTERVAL_S:
        raise ValueError(
            f"--interval {options.interval:g}: expected seconds, more than 0 and at most a day "
            f"({_LONGEST_INTERVAL_S})"
        )
    more = look.folder_options(options)
    places = [Place(path, more) for path in options.paths]
    is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    height = 0
    try:
        while True:
            began_s = time.monotonic()
            finished = [place.look() for place in places]
            lines = [line for place in places for line in place.lines()]
            if is_live:
                _redraw(lines, height)
                height = len(lines)
            else:
                for line in lines:
                    show.say(line)
                sys.stdout.flush()
            if all(finished):
                failed = any(view.failed for place in places for view in place.views)
                return QUEUE_FAILED if failed else FINE
            cost_s = time.monotonic() - began_s
            pause_s = options.interval or (1.0 if is_live else 10.0)
            time.sleep(max(pause_s, _REST * cost_s))
    except KeyboardInterrupt:
        if is_live:
            show.say()
        raise


def _line(view: View) -> str:
    share = view.done / view.total if view.total else 0.0
    filled = int(share * _BAR)
    parts = [
        f"{show.safe(view.name)} [{'#' * filled}{'-' * (_BAR - filled)}] {share:4.0%} "
        f"{view.done}/{view.total}"
    ]
    left = view.total - view.done
    parts.append(f"{view.rate:.1f}/s")
    if left and view.rate > 0:
        parts.append(f"{show.amount(left / view.rate)} left")
    elif not left:
        parts.append("nothing outstanding")
    if view.note:
        parts.append(view.note)
    return "  ".join(parts)


def _redraw(lines: list[str], height: int) -> None:
    """Draw over what was drawn before: up so many lines, and each cleared to its end."""
    width = shutil.get_terminal_size().columns
    text = f"\x1b[{height}A" if height else ""
    for line in lines:
        shown = line if len(line) < width else line[: width - 1]  # a wrapped line would be two
        text += f"\r{shown}\x1b[K\n"
    show.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()
