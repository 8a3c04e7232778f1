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
        """Return the names of all journals but for what is in hand."""
        found = [path.name for path in self.folder.glob("*.tsv")]
        return sorted(name for name in found if "_started_" not in name)

    def all_names(self) -> list[str]:
        """Return the names of all files and folders, hidden ones too."""
        return sorted(path.name for path in self.folder.iterdir())

    def outstanding(self) -> list[Any]:
        """Return what a later run finds outstanding."""
        return PersistentQueue(
            self.prefix, previous_pickup_dir=self.folder
        ).get_list_of_outstanding_work()
