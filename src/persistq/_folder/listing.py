"""What a listing of the folder means: each file of it is of one kind, and this says which."""

from __future__ import annotations

import os
from itertools import islice

from persistq._folder import names

_AT_ONCE = 256


class Listing:
    """All files of a folder by their kinds, as one look saw them.

    Args:
        folder (str): Path of the folder.
        extension (str): The message extension with its leading dot.
        ignore_case (bool): Whether the extension counts in other letters, too.

    Attributes:
        messages (list[str]): Names of messages that wait.
        odd (dict[str, str]): Names that end like a message's, and why they are none: a folder, a
            link to nothing, one that may not be followed.
        claims (list[str]): Names that end like those of claimed files.
        controls (set[str]): Names of control files.
        rejected (list[str]): Names of files that were set aside here.
        others (int): How many files are none of the queue's.
        leases (list[str]): Names of leases.
        notes (set[str]): Names of messages of which something is written down (`notes`).
        intents (set[str]): Names of what says that a group is half way (`together`).
        temporaries (list[str]): Names of files that were being written.

    Raises:
        OSError: The folder cannot be listed.
    """

    def __init__(self, folder: str, extension: str, ignore_case: bool = False) -> None:
        self.messages: list[str] = []
        self.odd: dict[str, str] = {}
        self.claims: list[str] = []
        self.controls: set[str] = set()
        self.rejected: list[str] = []
        self.others = 0
        self.leases: list[str] = []
        self.notes: set[str] = set()
        self.intents: set[str] = set()
        self.temporaries: list[str] = []
        with os.scandir(folder) as entries:
            while some := [*islice(entries, _AT_ONCE)]:
                self._take_up(some, extension, ignore_case)

    def _take_up(self, entries: list[os.DirEntry[str]], extension: str, ignore_case: bool) -> None:
        # Mostly nearly all are plain files with the extension, and there may be millions.
        others: list[os.DirEntry[str]] = []
        other = others.append
        try:
            self.messages += [
                name
                for entry in entries
                if (
                    (name := entry.name).endswith(extension)
                    and entry.is_file(follow_symlinks=False)
                    and name[0] != "."
                )
                or other(entry)
            ]
        except OSError:
            # Where listings do not tell kinds, it may be one file of which nothing can be learnt.
            others = entries
        for entry in others:
            if self._is_message(entry, extension, ignore_case):
                self.messages.append(entry.name)

    def _is_message(self, entry: os.DirEntry[str], extension: str, ignore_case: bool) -> bool:
        """Take up what may be of any kind but a message's; tell whether it is one all the same."""
        name = entry.name
        if name.startswith("."):
            self.hidden(name)
        elif name.endswith(extension) or (ignore_case and names.is_message(name, extension, True)):
            try:
                if entry.is_file():
                    return True
                self.odd[name] = _what(entry)
            except OSError as error:
                # A link in a circle, or into a folder that this user may not enter.
                self.odd[name] = error.strerror or str(error)
        elif name.endswith(names.WIP):
            self.claims.append(name)
        elif name.endswith(names.CONTROL):
            self.controls.add(name)
        elif name.endswith(names.REJECTED):
            self.rejected.append(name)
        else:
            self.others += 1
        return False

    def hidden(self, name: str) -> None:
        """Take up a file that no user sees: of ours, or of nobody's."""
        if not name.startswith(names.TEMPORARY):
            return
        if name.startswith(names.NOTE):
            self.notes.add(name[len(names.NOTE) :])
        elif name.endswith(names.LEASE):
            self.leases.append(name)
        elif name.endswith(names.INTENT):
            self.intents.add(name)
        elif name.endswith(".tmp"):
            self.temporaries.append(name)

    @property
    def dangling(self) -> bool:
        """Whether there are links whose target may come, or what may become a message."""
        return bool(self.odd)


def _what(entry: os.DirEntry[str]) -> str:
    if entry.is_dir():
        return "a folder"
    if entry.is_symlink():
        return "a link to nothing"
    return "neither a file nor a link to one"
