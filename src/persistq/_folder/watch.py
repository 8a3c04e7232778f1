"""What waits in the folder, without listing it all again for each message.

The folder is listed once; from then on the kernel's reports (inotify, on Linux) say what came.
A full look from time to time is the safety net, and the only way where there are no reports.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import struct
import time
from functools import cache

from persistq import _fs
from persistq._folder import names
from persistq._folder.listing import Listing
from persistq._folder.reports import GONE, HEADER, IS_FOLDER, MOVED_TO, OVERFLOW, Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from persistq._folder.identity import Claimer

    class Index(Protocol):
        """What a queue makes of the names that wait."""

        def add(self, name: str) -> None:
            """Take up a file that appeared."""

        def discard(self, name: str) -> None:
            """Forget a file that is gone."""

        @property
        def follows(self) -> bool:
            """Whether claims are of interest, own ones too."""

        def follow(self, name: str, claimer: str) -> None:
            """Note that a file was claimed; then it is discarded."""

        def forget_all(self) -> None:
            """Forget who has claimed what, for it is told anew."""

        def reconcile(self, found: list[str]) -> None:
            """Make these names, and no others, the files that wait."""


_log = logging.getLogger("persistq")

_name_length = struct.Struct("I").unpack_from
_BUFFER_BYTES = 16 * 1024
# Mostly there is a single short report, and reading into a small buffer costs a third less. Where
# the longest report would still have fitted behind what was read, there are no more.
_FIRST_BUFFER_BYTES = 400
_LONGEST_BYTES = HEADER.size + 256

# Seconds between full looks, and how many times its own cost a look must stay away: 50 times is
# two percent of the time. The kernel reports everything on a local file system; on a network file
# system only what this machine does.
_LOCAL_S, _LOCAL_SHARE = 1.0, 50
_REMOTE_S, _REMOTE_SHARE = 0.25, 20
# Without any reports: from the first to the second while nothing comes.
_LISTING_S, _LISTING_IDLE_S = 0.001, 0.05
# Where not everything is reported, nobody is blind for longer, however long a look took: a
# server that stood still for some seconds is no large folder.
_LONGEST_S = 1.5

# A folder's time of modification moves in ticks of some milliseconds: only one that is older
# than this at the time of a look proves that nothing has come since.
_SETTLED_NS = 2_000_000_000


_MOVED = struct.pack("iI", 1, MOVED_TO)  # with the number of the one watch that there is


@cache
def _claims() -> re.Pattern[bytes]:
    """Match a report of a claim: its header of 16 bytes, the name, and the padding."""
    return re.compile(re.escape(_MOVED) + rb"(?s:.{8})(\d{6,}_\d{10}_)([^\0]+)\.wip\0+")


class Watch:
    """The files that wait in a folder, and its control files, kept up to date.

    Not safe for several threads at once, except `wait`. Belongs to the process that made it.

    Args:
        folder (str): Path of the queue's folder.
        extension (str): The message extension with its leading dot.
        member (Claimer): By which this process takes part in it.
        index (Index): Told what comes and goes.
        ignore_case (bool): Whether the extension counts in other letters, too.

    Attributes:
        controls (set[str]): Names of control files, some of them possibly gone.
        controls_changed (bool): Whether one came since the owner last set this to False.
        changes (int): How often something was learnt, other than of this process's own claims.
        unsure (set[str]): Names whose kind of file has not been looked at.
        odd (dict[str, str]): Names that are no message's though they end so, and why.
        noted (set[str]): Names of messages of which something is written down.
        intents (set[str]): Names of what says that a group is half way; some possibly gone.
        careful (bool): Whether a claimed file must be looked at: it may be another thing by now,
            since not every change is reported here, or have another name left.
        index (Index): As given.
    """

    def __init__(
        self,
        folder: str,
        extension: str,
        member: Claimer,
        index: Index,
        ignore_case: bool = False,
    ) -> None:
        self.folder = folder
        self.controls: set[str] = set()
        self.controls_changed = True
        self.changes = 0
        self.unsure: set[str] = set()
        self.odd: dict[str, str] = {}
        self.noted: set[str] = set()
        self.intents: set[str] = set()
        self.careful = True
        self.index = index
        self._watched: os.stat_result | None = None
        self._extension = extension
        self._ignore_case = ignore_case
        self._member = member
        self._prefix = member.prefix
        self._own = os.fsencode(member.prefix)
        self._reports: Reports | None = None
        self._refused = False
        self._local = False
        # As long as all files here are of this queue's kinds, a claimed file that appears is a
        # message that has gone. A second extension in the folder ends that.
        self._strangers = False
        self._dangling = False
        self._next_look_s = 0.0
        self._last_cost_s = 0.0
        self._settled_ns: int | None = None
        self._idle_s = _LISTING_S

    def refresh(self) -> None:
        """Learn what has come since the last call: one read, where the kernel reports it."""
        self.is_quiet()
        if time.monotonic() >= self._next_look_s:
            self._safety_look()

    def is_quiet(self) -> bool:
        """Apply what has been reported, and tell whether nothing is to be done but to claim.

        Not so where anything has come but claims, where a look is due, or where a file must be
        looked at before or after it is claimed.
        """
        if self._reports is None:
            return False
        try:
            data = os.read(self._reports.fd, _FIRST_BUFFER_BYTES)
        except BlockingIOError:
            pass
        else:
            # Mostly it is a single report, of what this process claimed last.
            is_own = (
                not self.index.follows
                and len(data) <= _FIRST_BUFFER_BYTES - _LONGEST_BYTES
                and data.startswith(self._own, 16)
                and _name_length(data, 12)[0] + 16 == len(data)
                and b".wip\0" in data
            )
            if not is_own and not self._take(data, _FIRST_BUFFER_BYTES):
                return False
        return not (
            self.controls_changed
            or self.careful
            or self.unsure
            or self.noted
            or self.odd
            or time.monotonic() >= self._next_look_s
        )

    def _drain(self) -> None:
        while self._reports is not None:
            try:
                data = os.read(self._reports.fd, _BUFFER_BYTES)
            except BlockingIOError:
                return
            self._take(data, _BUFFER_BYTES)

    def _take(self, data: bytes, room: int) -> bool:
        """Apply reports, and those behind them; where there is a gap, ask for a full look.

        Args:
            data (bytes): One or more reports.
            room (int): How many bytes they might have had.

        Returns:
            bool: Whether they were all of claims, so that nothing has come.
        """
        self.changes += 1
        index, extension = self.index, self._extension
        position, end = 0, len(data)
        only_claims = True
        while True:
            if self._take_claims(data):
                position = end
            else:
                only_claims = False
            while position < end:
                _, mask, _, length = HEADER.unpack_from(data, position)
                start = position + HEADER.size
                position = start + length
                if mask & (OVERFLOW | GONE):
                    if mask & GONE:
                        self._close_reports()
                    self.distrust()
                    if self._reports is None:
                        return False
                    continue
                name = os.fsdecode(data[start:position].rstrip(b"\0"))
                if mask & IS_FOLDER:
                    index.discard(name)  # of a message that was removed it may take the name
                elif name.endswith(names.WIP):
                    claimed = names.parse_wip(name)
                    if claimed is None:
                        continue
                    original = names.original_name(claimed[2], extension, self._ignore_case)
                    if index.follows:
                        index.follow(original, names.wip_prefix(*claimed[:2]))
                    if not self._strangers and not name.startswith(self._prefix):
                        index.discard(original)
                elif name.startswith("."):
                    if name.startswith(names.NOTE):
                        self.noted.add(name[len(names.NOTE) :])
                    elif name.endswith(names.INTENT):
                        self.intents.add(name)
                elif name.endswith(extension) or (
                    self._ignore_case and names.is_message(name, extension, True)
                ):
                    self.unsure.add(name)
                    index.add(name)
                elif name.endswith(names.CONTROL):
                    self.controls.add(name)
                    self.controls_changed = True
                else:
                    self._strangers = True
            if end <= room - _LONGEST_BYTES or self._reports is None:
                return only_claims
            room = _BUFFER_BYTES
            try:
                data = os.read(self._reports.fd, room)
            except BlockingIOError:
                return only_claims
            position, end = 0, len(data)

    def _take_claims(self, data: bytes) -> bool:
        """Apply reports that are all of claims, as where several consumers are at work."""
        if not data.startswith(_MOVED) or self.index.follows:
            return False  # as what a process reports of its own lease, before it needs the pattern
        parts = _claims().split(data)
        if self._strangers or self._ignore_case or any(parts[::3]):
            return False  # between the matches there is something else
        own, extension, discard = self._own, self._extension, self.index.discard
        for prefix, stem in zip(parts[1::3], parts[2::3]):
            if prefix != own:
                discard(os.fsdecode(stem) + extension)
        return True

    def is_file(self, name: str) -> bool:
        """Tell whether a name that only a report has shown is a regular file, or a link to one."""
        self.unsure.discard(name)
        try:
            regular = stat.S_ISREG(os.stat(os.path.join(self.folder, name)).st_mode)
        except FileNotFoundError:
            # Gone, or a link to nothing, which may yet come.
            self._dangling = True
            return False
        except OSError as error:
            self.pass_over(name, error.strerror or str(error))
            return False
        return regular

    def pass_over(self, name: str, reason: str) -> None:
        """Note that a file cannot be had now: it is tried again at the next look.

        Args:
            name (str): Its name.
            reason (str): Why.
        """
        self.odd[name] = reason
        self._dangling = True
        self._settled_ns = None

    def _safety_look(self) -> None:
        if self._settled_ns is not None:
            try:
                unchanged = os.stat(self.folder).st_mtime_ns == self._settled_ns
            except OSError:
                unchanged = False
            if unchanged:
                self._next_look_s = time.monotonic() + _LOCAL_S
                return
        self.look()

    def look(self) -> None:
        """List the whole folder.

        Raises:
            FileNotFoundError: The folder is gone.
        """
        began_s = time.monotonic()
        status = os.stat(self.folder)
        if self._watched is not None and not os.path.samestat(status, self._watched):
            # Of a folder above that moved nothing is reported; another one has this name now.
            self._close_reports()
        # Reports first: a file that comes during the listing is in the list or in a report.
        if self._reports is None and not self._refused:
            try:
                self._reports = Reports(self.folder)
                self._local = _fs.reports_every_change(self.folder, status.st_dev)
                self._watched = status
            except OSError as error:
                if error.errno == errno.ENOENT:
                    raise
                self._refused = True
                _log.info("no reports of changes in %s (%s): it is listed", self.folder, error)
        self._drain()
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        listing = Listing(self.folder, self._extension, self._ignore_case)
        self._member.renew()
        # Once is enough: a stranger that is gone may still be the subject of a report.
        self._strangers = self._strangers or listing.others > 0
        self._dangling = listing.dangling
        if listing.controls != self.controls:
            self.controls, self.controls_changed = listing.controls, True
        self.odd = listing.odd
        self.noted, self.intents = listing.notes, listing.intents
        self.careful = not (self._local and _fs.has_kernel_rename())
        self.unsure.clear()
        self.changes += 1
        if self.index.follows:
            self._follow_all(listing.claims)
        self.index.reconcile(listing.messages)
        cost_s = time.monotonic() - began_s
        # Of two looks the cheaper: one for which a server stood still says nothing of the folder.
        remote_s = _REMOTE_SHARE * min(cost_s, self._last_cost_s)
        self._last_cost_s = cost_s
        if self._reports is None:
            pause_s = min(max(self._idle_s, remote_s), _LONGEST_S)
            self._idle_s = min(self._idle_s * 1.5, _LISTING_IDLE_S)
        elif self._local:
            pause_s = max(_LOCAL_S, _LOCAL_SHARE * cost_s)
        else:
            pause_s = min(max(_REMOTE_S, remote_s), max(_REMOTE_S, _LONGEST_S))
        self._next_look_s = began_s + cost_s + pause_s
        trusted = self._reports is not None and self._local
        self._settled_ns = (
            status.st_mtime_ns if trusted and settled and not self._dangling else None
        )

    def _follow_all(self, claims: list[str]) -> None:
        self.index.forget_all()
        for parts in map(names.parse_wip, claims):
            if parts is not None:
                prefix = names.wip_prefix(*parts[:2])
                if prefix != self._prefix:
                    original = names.original_name(parts[2], self._extension, self._ignore_case)
                    self.index.follow(original, prefix)

    @property
    def sees_all(self) -> bool:
        """Whether every change of the folder is reported, in its order."""
        return self._reports is not None and self._local

    def is_sure_of_claims(self) -> bool:
        """Apply what has been reported by now; whether nothing was left out."""
        self._drain()
        return self._reports is not None and self._next_look_s > 0

    def is_elsewhere(self) -> bool:
        """Tell whether the folder is gone, or another one has its name now.

        A lease keeps the kernel from reporting that: of a file that is open the folder lives on.
        """
        try:
            status = os.stat(self.folder)
        except OSError:
            return True
        return self._watched is not None and not os.path.samestat(status, self._watched)

    def forget(self, name: str) -> None:
        """Note that a message is claimed: with reports or without, it waits no longer."""
        self._idle_s = _LISTING_S
        self.index.discard(name)

    def distrust(self) -> None:
        """Have the next call of `refresh` list the folder, whatever the reports say."""
        self._next_look_s = 0.0
        self._settled_ns = None

    def wait(self, seconds: float) -> None:
        """Sleep until something may have changed, at most so many seconds."""
        seconds = min(seconds, max(self._next_look_s - time.monotonic(), 0.0))
        reports = self._reports
        if reports is not None:
            reports.wait(seconds)
        else:
            time.sleep(seconds)

    def wake(self) -> None:
        """End the `wait` of another thread; where nothing is reported, it is short anyway."""
        if self._reports is not None:
            self._reports.wake()

    def _close_reports(self) -> None:
        if self._reports is not None:
            self._reports.close()
            self._reports = None

    def close(self) -> None:
        """Stop watching; the next call of `refresh` looks anew."""
        self._close_reports()
        self._refused = False  # whoever had all descriptors may have ended since
        self._next_look_s = 0.0
