"""What a listing says of each file of a folder."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from persistq._folder.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class WithoutKinds:
    """A listing that tells no kinds, as some file systems give it: to be asked of each file."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries = _scandir(folder)

    def __enter__(self) -> Iterator[Any]:
        return (Entry(entry) for entry in self.entries)

    def __exit__(self, *_: object) -> None:
        self.entries.close()


class Entry:
    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name = entry.name
        self.is_dir, self.is_symlink = entry.is_dir, entry.is_symlink
        self._is_file = entry.is_file

    def is_file(self, follow_symlinks: bool = True) -> bool:
        if self.name == "stale.tsv":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return self._is_file(follow_symlinks=follow_symlinks)


_scandir = os.scandir


def fill(folder: Path) -> None:
    for name in ("a.tsv", "b.tsv", "C.TSV", "x.csv", ".hidden.tsv", "stale.tsv", "r.tsv.rejected"):
        (folder / name).touch()
    for name in ("000007_0123456789_c.wip", "e.helo", ".persistq_note_a.tsv"):
        (folder / name).touch()
    (folder / "folder.tsv").mkdir()
    os.mkfifo(folder / "pipe.tsv")
    (folder / "link.tsv").symlink_to("x.csv")
    (folder / "nothing.tsv").symlink_to("gone")
    (folder / "circle.tsv").symlink_to("circle.tsv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
@pytest.mark.parametrize("ignore_case", [False, True])
@pytest.mark.parametrize("tells_kinds", [True, False])
def test_each_file_is_of_one_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells_kinds: bool, ignore_case: bool
) -> None:
    fill(tmp_path)
    if not tells_kinds:
        monkeypatch.setattr(os, "scandir", WithoutKinds)
    listing = Listing(str(tmp_path), ".tsv", ignore_case)
    # One of which nothing can be learnt keeps no other from being handed out.
    messages = {"a.tsv", "b.tsv", "link.tsv"} | ({"stale.tsv"} if tells_kinds else set())
    assert sorted(listing.messages) == sorted(messages | ({"C.TSV"} if ignore_case else set()))
    odd = {
        "circle.tsv": os.strerror(errno.ELOOP),
        "folder.tsv": "a folder",
        "nothing.tsv": "a link to nothing",
        "pipe.tsv": "neither a file nor a link to one",
    }
    if not tells_kinds:
        odd["stale.tsv"] = os.strerror(errno.ESTALE)
    assert listing.odd == odd
    assert listing.dangling
    assert listing.claims == ["000007_0123456789_c.wip"]
    assert listing.controls == {"e.helo"}
    assert listing.rejected == ["r.tsv.rejected"]
    assert listing.notes == {"a.tsv"}
    assert listing.others == (1 if ignore_case else 2)
