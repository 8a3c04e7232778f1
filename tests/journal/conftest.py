"""Directories, and queues over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from persistq import PersistentQueue

if TYPE_CHECKING:
    from collections.abc import Callable
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


@pytest.fixture
def current(tmp_path: Path) -> Path:
    return tmp_path / "current"


@pytest.fixture
def journals(current: Path) -> Journals:
    return Journals(current)


@pytest.fixture
def make_queue(current: Path) -> Callable[..., PersistentQueue]:
    """Make a queue that journals as `jobs` in the current directory."""

    def make(**arguments: Any) -> PersistentQueue:
        arguments.setdefault("pickup_file_prefix", "jobs")
        arguments.setdefault("current_pickup_dir", current)
        return PersistentQueue(**arguments)

    return make
