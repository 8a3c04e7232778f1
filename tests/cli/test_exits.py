"""What commands exit with: each status by a command that ends with it, and one table for all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import persistq
from persistq import ReadableFolderQueue, WritableFolderQueue
from persistq._cli import exits

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX errors and tools")

LIMIT_S = 25
COMMAND = [sys.executable, "-m", "persistq"]
RENAMES = "/^rename|^link"
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


def end_of(*arguments: str | Path, folder: Path, before: Sequence[str] = ()) -> tuple[int, str]:
    """Run a command; give its status and what it said on standard error."""
    result = subprocess.run(
        [*before, *COMMAND, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=LIMIT_S,
        text=True,
    )
    return result.returncode, result.stderr


def failing(call: str, error: str) -> list[str]:
    return ["strace", "-qq", "-o", "/dev/null", "-f", "-e", f"inject={call}:error={error}"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a place with a queue `q` of one file that waits, and one that is claimed."""
    with WritableFolderQueue(tmp_path / "q") as producer:
        for name in ("a.tsv", "b.tsv"):
            (tmp_path / name).write_text(name)
            producer.put(tmp_path / name)
    assert subprocess.run([*COMMAND, "get", "q"], cwd=tmp_path, timeout=LIMIT_S).returncode == 0
    return tmp_path


def the_claim(folder: Path) -> Path:
    (found,) = (folder / "q").glob("*.wip")
    return found


def test_a_name_that_is_there_already_is_told_apart(folder: Path) -> None:
    (folder / "b.tsv").write_text("another")
    status, said = end_of("put", "q", "b.tsv", folder=folder)
    assert (status, "is there already" in said) == (6, True)
    (folder / "q" / "a.tsv").write_text("another")
    assert end_of("release", the_claim(folder), folder=folder)[0] == 6
    assert end_of("reset", "--yes", "q", folder=folder)[0] == 6
    assert (folder / "b.tsv").read_text() == "another"
    assert the_claim(folder).read_text() == "a.tsv"


def test_a_reclaim_that_cannot_give_a_name_back_says_so(folder: Path) -> None:
    code = "import os, persistq; persistq.ReadableFolderQueue('q').get(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, timeout=LIMIT_S)
    (folder / "q" / "b.tsv").write_text("another")
    assert end_of("reclaim", "q", folder=folder)[0] == 6
    (folder / "q" / "b.tsv").unlink()
    assert end_of("reclaim", "q", folder=folder)[0] == 0


def test_a_retry_of_a_name_that_waits_says_so(folder: Path) -> None:
    consumer = ReadableFolderQueue(folder / "q")
    consumer.task_failed(consumer.get(0), "no amount")
    (folder / "q" / "b.tsv").write_text("another")
    assert end_of("retry", "q", folder=folder)[0] == 6


@needs_strace
def test_a_full_disk_is_told_apart(folder: Path) -> None:
    claim = the_claim(folder)
    (folder / "c.tsv").touch()
    for arguments, call in (
        (["put", "q", "c.tsv"], RENAMES),
        (["done", "--move-to", "out", claim], RENAMES),
        (["release", claim], RENAMES),
        (["close", "q"], "write"),
        (["get", "q"], RENAMES),
        (["work", "q", "--", "true"], RENAMES),
    ):
        status, said = end_of(*arguments, folder=folder, before=failing(call, "ENOSPC"))
        assert (arguments, status) == (arguments, 7), said
        assert call == "write" or "No space left on device" in said
    assert claim.exists()
    assert (folder / "q" / "b.tsv").exists()
    assert (folder / "c.tsv").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_does_not_fit_is_told_apart(folder: Path) -> None:
    for command in (["status", "q"], ["get", "q"], ["failed", "--json", "q"]):
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [*COMMAND, *command], cwd=folder, stdout=full, stderr=subprocess.PIPE
            )
        assert (command, result.returncode) == (command, 7)
    assert (folder / "q" / "b.tsv").exists()  # it was put back


@needs_strace
def test_a_refusal_of_the_system_is_told_apart(folder: Path) -> None:
    claim = the_claim(folder)
    for arguments, call, error in (
        (["put", "q", "c.tsv"], RENAMES, "EROFS"),
        (["done", claim], "unlink", "EACCES"),
        (["release", claim], RENAMES, "EPERM"),
    ):
        (folder / "c.tsv").touch()
        status, said = end_of(*arguments, folder=folder, before=failing(call, error))
        assert (arguments, status) == (arguments, 8), said
    assert claim.exists()


def test_wrong_use_and_what_is_not_there_are_told_apart(folder: Path) -> None:
    for arguments in (
        ["stats"],
        ["get"],
        ["get", "nowhere"],
        ["get", "q", "-n", "0"],
        ["put", "q", "missing.tsv"],
        ["put", "q", "q"],
        ["done", "q/b.tsv"],
        ["done", "q/000001_0000000000_x.wip"],
        ["status", "nowhere"],
        ["reset", "q"],
        ["purge", "q"],
        ["failed", "."],
        ["outstanding", "q"],
        ["retire", "q"],
        ["retry", "q", "x*"],
        ["work", "q"],
        ["work", "q", "-j", "0", "--", "true"],
    ):
        status, said = end_of(*arguments, folder=folder)
        assert (arguments, status) == (arguments, 2), said
        assert said.startswith("persistq: ")


def test_of_several_statuses_the_highest_is_given(folder: Path) -> None:
    (folder / "b.tsv").write_text("another")
    assert end_of("put", "q", "b.tsv", "missing.tsv", folder=folder)[0] == 6
    assert end_of("put", "q", "missing.tsv", "b.tsv", folder=folder)[0] == 6


def test_each_error_has_its_status() -> None:
    assert exits.status_of(FileExistsError(errno.EEXIST, "")) == exits.TAKEN
    assert exits.status_of(OSError(errno.EDQUOT, "")) == exits.NO_ROOM
    assert exits.status_of(PermissionError(errno.EACCES, "")) == exits.REFUSED
    assert exits.status_of(FileNotFoundError(errno.ENOENT, "")) == exits.ERROR
    assert exits.status_of(ValueError()) == exits.ERROR
    assert exits.status_of(persistq.PersistqError()) == exits.ERROR
    assert sorted(exits.MEANINGS) == list(range(9))


def test_no_other_place_knows_the_numbers() -> None:
    """Commands return names of this one table, never a number of their own."""
    for path in Path(exits.__file__).parent.glob("*.py"):
        if path.name != "exits.py":
            assert not re.search(
                r"\b(return|exit\(|SystemExit\() ?\d\b(?! \+)", path.read_text()
            ), path.name
