"""What a survey says of journals and folders, and that it agrees with the exact reading."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

import pytest

import cli_workers
import workers
from persistq import (
    PersistentQueue,
    ReadableFolderQueue,
    WritableFolderQueue,
    _processes,
    _survey,
)
from persistq._folder.acting import ActingReader, ActingWriter, Actor
from persistq._journal import locks
from persistq._journal import tally as tally_room
from persistq._journal.outstanding import outstanding
from persistq._journal.tally import tally

if TYPE_CHECKING:
    from processes import Nursery


def make_journals(folder: Path, seed: int) -> tuple[list[str], list[str]]:
    """Write journals as several producers and workers do, with some of all that may go wrong."""
    dice = random.Random(seed)
    lines = [f"message {number}".encode() for number in range(dice.choice([3, 300, 3000]))]
    if dice.random() < 0.5:
        lines += dice.choices(lines, k=dice.randrange(20))
    if dice.random() < 0.3:
        lines.insert(1, b"\x10-" + lines[0])
    done = dice.sample(lines, dice.randrange(len(lines) + 1))
    done = [line for line in done if not line.startswith(b"\x10")]
    if dice.random() < 0.5:
        done.sort(key=lambda line: lines.index(line) + dice.randrange(50))
    if dice.random() < 0.2:
        done.append(b"never requested")
    if dice.random() < 0.2 and done:
        done[1:1] = done[:1]
    paths: tuple[list[str], list[str]] = ([], [])
    for kind, all_lines in ((0, lines), (1, done)):
        files = dice.randrange(1, 4)
        for number in range(files):
            path = folder / f"{kind}-{number}"
            part = all_lines[number::files] if kind else all_lines * (number == 0)
            torn = b"torn" if dice.random() < 0.2 else b""
            path.write_bytes(b"".join(line + b"\n" for line in part) + torn)
            paths[kind].append(str(path))
    return paths


@pytest.mark.parametrize("seed", range(60))
def test_the_fast_tally_agrees_with_the_exact_reading(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq._journal import outstanding as room

    dice = random.Random(f"sizes {seed}")
    monkeypatch.setattr(room, "_BLOCK_BYTES", dice.choice([64, 4096]))
    monkeypatch.setattr(tally_room, "_LEAD_LINES", dice.choice([1, 100, 4000]))
    requested, completed = make_journals(tmp_path, seed)

    exact, fast = outstanding(requested, completed), tally(requested, completed)

    assert Counter(fast.lines) == Counter(exact.lines)
    assert (fast.requested, fast.completed, fast.torn) == (
        exact.requested,
        exact.completed,
        exact.torn,
    )


def test_a_message_completed_twice_and_requested_again_later_is_not_outstanding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq._journal import outstanding as room

    monkeypatch.setattr(room, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(tally_room, "_LEAD_LINES", 1)
    requested, completed = tmp_path / "requested", tmp_path / "completed"
    others = [f"other {number}\n" for number in range(100)]
    requested.write_text("".join(["a\n", *others, "a\n"]))
    completed.write_text("a\na\n")

    found = tally([str(requested)], [str(completed)])

    assert b"a" not in found.lines
    assert len(found.lines) == 100


def test_a_looker_knows_a_held_file_and_a_free_one(tmp_path: Path, nursery: Nursery) -> None:
    held, free = tmp_path / "held", tmp_path / "free"
    held.touch()
    free.touch()
    child = nursery.start(workers.hold_file, str(held))
    child.receive()

    looker = locks.Looker()
    assert looker.is_held(str(held))
    assert not looker.is_held(str(free))
    child.kill()
    assert not locks.Looker().is_held(str(held))
    with pytest.raises(FileNotFoundError):
        looker.is_held(str(tmp_path / "gone"))


def test_where_the_system_lists_no_locks_a_looker_still_knows(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, free = tmp_path / "held", tmp_path / "free"
    held.touch()
    free.touch()
    nursery.start(workers.hold_file, str(held)).receive()
    looker = locks.Looker()
    monkeypatch.setattr(looker, "_held", set())
    monkeypatch.setattr(looker, "_is_complete", False)

    assert looker.is_held(str(held))
    assert not looker.is_held(str(free))


def test_two_who_look_at_once_do_not_take_each_other_for_a_holder(tmp_path: Path) -> None:
    path = tmp_path / "free"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    locks._lock(fd, wait=False, shared=True)
    assert not locks.is_held(str(path))
    os.close(fd)


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
