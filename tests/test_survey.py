"""What a survey says of journals and folders, and that it agrees with the exact reading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

import pytest

import cli_workers
from persistq import (
    PersistentQueue,
    ReadableFolderQueue,
    WritableFolderQueue,
    _processes,
    _survey,
)
from persistq._folder.acting import ActingReader, ActingWriter, Actor

if TYPE_CHECKING:
    from processes import Nursery


def test_a_directory_that_holds_a_journal_and_a_folder_queue_shows_both(tmp_path: Path) -> None:
    with PersistentQueue("jobs", tmp_path) as q:
        q.put("a")
    with WritableFolderQueue(tmp_path):
        pass

    journal, folder = _survey.survey(str(tmp_path))

    assert isinstance(journal, _survey.JournalSurvey)
    assert isinstance(folder, _survey.FolderSurvey)
    assert (journal.outstanding, folder.waiting) == (1, 0)


def test_a_message_named_like_carried_work_does_not_make_a_folder_queue_a_journal(
    tmp_path: Path,
) -> None:
    (tmp_path / "orders_carried.tsv").touch()
    WritableFolderQueue(tmp_path)

    (folder,) = _survey.survey(str(tmp_path))

    assert isinstance(folder, _survey.FolderSurvey)
    assert (folder.waiting, folder.producers.open) == (1, 1)


def test_a_prefix_may_hold_anything(tmp_path: Path) -> None:
    for prefix in ("a_requested_PID1", "b (x)", "line\nend"):
        with PersistentQueue(prefix, tmp_path) as q:
            q.put("m")

    found = _survey.survey(str(tmp_path))

    assert [getattr(s, "prefix", None) for s in found] == ["a_requested_PID1", "b (x)", "line\nend"]
    assert [s.outstanding for s in found] == [1, 1, 1]


def test_completed_work_of_a_reused_process_id_is_not_in_progress(tmp_path: Path) -> None:
    (tmp_path / "jobs_requested_PID1.tsv").write_text("a\nb\nc\n")
    (tmp_path / "jobs_started_PID2.tsv").write_text("a\nb\n")
    (tmp_path / "jobs_completed_PID2.tsv").write_text("a\n")

    (found,) = _survey.survey(str(tmp_path))

    assert isinstance(found, _survey.JournalSurvey)
    assert [(hand.state, hand.messages) for hand in found.in_progress] == [("dead", [b"b"])]


# Acting for another process


def test_a_producer_is_the_same_in_all_calls_until_its_process_is_another(
    tmp_path: Path, nursery: Nursery
) -> None:
    one = nursery.start(cli_workers.announce_and_stay, str(tmp_path / "x"))
    other = nursery.start(cli_workers.announce_and_stay, str(tmp_path / "x"))

    assert Actor(one.pid).uuid() == Actor(one.pid).uuid() != Actor(other.pid).uuid()
    actor = Actor(one.pid)
    assert actor.lives()
    one.kill()
    assert not actor.lives()
    with pytest.raises(ProcessLookupError, match=f"no process {one.pid} lives"):
        Actor(one.pid)


def test_the_key_of_a_process_is_the_same_when_others_ask() -> None:
    code = "import sys; from persistq._processes import process_key as key; "
    code += "print(key(int(sys.argv[1])))"
    asked = subprocess.run(
        [sys.executable, "-c", code, str(os.getpid())], capture_output=True, text=True, timeout=20
    ).stdout
    assert asked.rstrip("\n") == _processes.process_key(os.getpid())


def test_a_second_call_finds_what_the_first_announced_and_closed(tmp_path: Path) -> None:
    actor = Actor(os.getpid())
    (tmp_path / "a.tsv").touch()
    ActingWriter(actor, str(tmp_path / "q"), ".tsv").put(tmp_path / "a.tsv")
    ActingWriter(actor, str(tmp_path / "q"), ".tsv").close()

    kinds = sorted(path.suffix for path in (tmp_path / "q").iterdir())
    assert kinds == [".done", ".helo", ".tsv"]
    with pytest.raises(ValueError, match="closed"):
        ActingWriter(actor, str(tmp_path / "q"), ".tsv").put(tmp_path / "b.tsv")


def test_what_a_dead_process_of_the_same_id_had_claimed_is_reclaimed(tmp_path: Path) -> None:
    actor = Actor(os.getpid())
    (tmp_path / "a.tsv").touch()
    first = ActingReader(actor, str(tmp_path), ".tsv")
    claimed = first.get(0)
    first.hand_over()
    (tmp_path / "a.tsv").touch()

    held = ActingReader(actor, str(tmp_path), ".tsv")
    with pytest.raises(Empty):
        held.get(0)  # claimed by this process: so the new file waits
    held.dispose()
    (tmp_path / "a.tsv").unlink()
    assert ReadableFolderQueue(tmp_path).reclaim_abandoned() == []

    # As if the process had been another one of the same id.
    (lease,) = tmp_path.glob("*.lease")
    said = json.loads(lease.read_text())
    said["for"]["key"] += "0"
    lease.write_text(json.dumps(said))
    assert ReadableFolderQueue(tmp_path).reclaim_abandoned() == [str(tmp_path / "a.tsv")]
    assert not os.path.exists(claimed)
    assert not lease.exists()


def test_two_commands_of_one_shell_never_share_a_number(tmp_path: Path) -> None:
    actor = Actor(os.getpid())
    first = ActingReader(actor, str(tmp_path), ".tsv")
    second = ActingReader(actor, str(tmp_path), ".tsv")
    assert first.wip_filename("a.tsv") != second.wip_filename("a.tsv")
    first.dispose()
    again = ActingReader(actor, str(tmp_path), ".tsv")
    assert first.wip_filename("a.tsv") == again.wip_filename("a.tsv")
    for reader in (second, again):
        reader.dispose()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_looked_into_is_no_queues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lost+found is not, where the queue's folder is a disk of its own."""
    from persistq._survey import find

    (tmp_path / "jobs" / "run_000001").mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()
    runs = find.runs

    def refuse(path: str) -> list[str]:
        if path.endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return runs(path)

    monkeypatch.setattr(find, "runs", refuse)
    assert find.homes(str(tmp_path)) == [str(tmp_path / "jobs")]
