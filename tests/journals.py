"""What stands in the journals of a directory, for tests to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from persistq import PersistentQueue

if TYPE_CHECKING:
    from pathlib import Path


class Journals:
    """What stands in the journals of a directory."""

    def __init__(self, folder: Path, prefix: str = "jobs") -> None:
        self.folder = folder
        self.prefix = prefix

    def lines(self, kind: str) -> list[str]:
        """Return the lines of all files of a kind, file by file."""
        text = ""
        for path in sorted(self.folder.glob(f"{self.prefix}_{kind}*.tsv")):
            text += path.read_bytes().decode("utf-8", "surrogateescape")
        return text.splitlines()

    def names(self) -> list[str]:
        """Return the names of all files but for what is in hand."""
        return sorted(path.name for path in self.folder.iterdir() if "_started_" not in path.name)

    def outstanding(self) -> list[Any]:
        """Return what a later run finds outstanding."""
        return PersistentQueue(
            self.prefix, previous_pickup_dir=self.folder
        ).get_list_of_outstanding_work()
