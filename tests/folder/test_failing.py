"""Files that cannot be done: set aside with their reason, tried again, given up."""

from __future__ import annotations

import datetime
import logging
import os
from pathlib import Path
from queue import Empty

import pytest

from folder_workers import (
    get_one_then_wait,
    kill_at_unlink,
    listed,
    stem_after_dash,
    stem_before_dash,
    write,
)
from persistq import (
    DONE,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    UpstreamFailureError,
    WritableFolderQueue,
)
from persistq._folder import failing
from processes import Nursery


def groups(folder: Path, **options: object) -> ReadableGroupedFileFolderQueue:
    return ReadableGroupedFileFolderQueue(
        folder,
        grouping_function=stem_before_dash,
        item_function=stem_after_dash,
        list_of_items_in_group=["a", "b"],
        **options,
    )


def test_a_failed_file_goes_to_its_directory_with_the_reason_beside_it(
    tmp_path: Path, folder: Path
) -> None:
    queue = ReadableFolderQueue(folder, task_failed_directory=tmp_path / "failed")
    for _ in range(2):
        write(folder, "a.tsv")
        queue.task_failed(queue.get(0), "line 4:\tno number\n")
    assert sorted(os.listdir(tmp_path / "failed")) == [
        "a.1.tsv",
        "a.1.tsv.reason.txt",
        "a.tsv",
        "a.tsv.reason.txt",
    ]
    said = (tmp_path / "failed" / "a.tsv.reason.txt").read_text().splitlines()
    assert said[0] == "line 4: no number"
    assert listed(folder) == []
    with pytest.raises(FileNotFoundError):
        queue.task_failed(queue.wip_filename("a.tsv"))
    assert len(os.listdir(tmp_path / "failed")) == 4


@pytest.mark.parametrize("extension", ["tsv", "txt"])
def test_without_a_directory_it_stays_and_nobody_takes_it_for_a_message(
    folder: Path, extension: str
) -> None:
    queue = ReadableFolderQueue(folder, extension)
    for _ in range(2):
        write(folder, f"a.{extension}")
        queue.task_failed(queue.get(0), ValueError("bad"))
    (folder / "x.done").touch()
    assert queue.get(0) is ReadableFolderQueue(folder, extension).get(0) is DONE
    rejected = sorted(name for name in listed(folder) if name.endswith(".rejected"))
    assert rejected == [f"a.1.{extension}.rejected", f"a.{extension}.rejected"]
    first, second = failing.list_failed(str(folder), f".{extension}")
    assert (first.message, second.message) == (f"a.1.{extension}", f"a.{extension}")
    assert first.reason == second.reason == "ValueError: bad"


def test_an_attempt_ends_done_or_set_aside(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, "a.tsv", "b.tsv", "c.tsv")
    (folder / "x.done").touch()
    queue = ReadableFolderQueue(folder)
    with queue.attempt(queue.get(0)):
        pass
    with caplog.at_level(logging.ERROR, "persistq"), queue.attempt(queue.get(0)):
        raise ZeroDivisionError("none of it")
    assert "in test_an_attempt_ends_done_or_set_aside" in caplog.text  # the traceback
    claimed = queue.get(0)
    with pytest.raises(KeyboardInterrupt), queue.attempt(claimed):
        raise KeyboardInterrupt
    assert os.path.exists(claimed)
    (failed,) = failing.list_failed(str(folder), ".tsv")
    assert failed.message == "b.tsv"
    assert failed.reason.startswith("ZeroDivisionError: none of it (")
    assert __file__ in failed.reason


def test_work_does_what_it_can_and_says_how_much(folder: Path) -> None:
    write(folder, *(f"{number}.tsv" for number in range(10)))
    (folder / "x.done").touch()
    queue = ReadableFolderQueue(folder)

    def parse(path: str) -> None:
        if Path(path).read_text() in ("3.tsv", "7.tsv"):
            raise ValueError("bad input")

    assert queue.work(parse) == 8
    assert [one.message for one in failing.list_failed(str(folder), ".tsv")] == ["3.tsv", "7.tsv"]
    (folder / "x.failed").touch()
    with pytest.raises(UpstreamFailureError):
        queue.work(parse)


def test_what_kills_its_workers_is_set_aside(folder: Path, nursery: Nursery) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    for death in range(1, 4):
        child = nursery.start(get_one_then_wait, queue)
        child.receive()
        child.kill()
        restored = queue.reclaim_abandoned(max_attempts=3)
        assert restored == ([str(folder / "a.tsv")] if death < 3 else [])
    (failed,) = failing.list_failed(str(folder), ".tsv")
    assert failed.reason == "began 3 times, and each time its process died"
    assert failed.attempts == 3
    assert failed.failed_at is not None
    age = datetime.datetime.now(datetime.timezone.utc) - failed.failed_at
    assert age < datetime.timedelta(minutes=5)
    # Another file of that name has all its chances.
    write(folder, "a.tsv")
    child = nursery.start(get_one_then_wait, queue)
    child.receive()
    child.kill()
    assert queue.reclaim_abandoned(max_attempts=2) == [str(folder / "a.tsv")]


def test_a_group_that_kills_its_workers_is_set_aside_whole_or_never(
    folder: Path, nursery: Nursery
) -> None:
    write(folder, "x-a.tsv", "x-b.tsv")
    queue = groups(folder)
    both = [str(folder / "x-a.tsv"), str(folder / "x-b.tsv")]
    for max_attempts, expected in ((None, both), (3, both), (3, [])):
        child = nursery.start(get_one_then_wait, queue)
        child.receive()
        child.kill()
        assert sorted(queue.reclaim_abandoned(max_attempts=max_attempts)) == expected
    found = failing.list_failed(str(folder), ".tsv")
    assert [(failed.message, failed.attempts) for failed in found] == [
        ("x-a.tsv", 3),
        ("x-b.tsv", 3),
    ]


def test_what_a_person_has_set_aside_counts_as_one_attempt(folder: Path) -> None:
    (folder / "a.tsv.rejected").touch()
    (failed,) = failing.list_failed(str(folder), ".tsv")
    assert (failed.message, failed.reason, failed.attempts) == ("a.tsv", "", 1)


def test_a_death_counts_once_however_many_reclaim(folder: Path, nursery: Nursery) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    child = nursery.start(get_one_then_wait, queue)
    wip = os.path.basename(child.receive())
    child.kill()
    from persistq._folder import notes, recovery

    for _ in range(3):  # as reclaimers that are killed before they put it back
        assert recovery._may_be_tried_again(queue, wip, "a.tsv", 3)
    note = notes.read(str(folder), "a.tsv", str(folder / wip))
    assert note is not None
    assert note.attempts == 1


def test_a_note_does_not_outlive_its_message(folder: Path, nursery: Nursery) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    child = nursery.start(get_one_then_wait, queue)
    child.receive()
    child.kill()
    queue.reclaim_abandoned()
    assert list(folder.glob(".persistq_note_*"))
    queue.task_done(queue.get(0))
    assert listed(folder) == []


def test_failed_files_are_tried_again_or_given_up(tmp_path: Path, folder: Path) -> None:
    elsewhere = str(tmp_path / "failed")
    queue = ReadableFolderQueue(folder, task_failed_directory=elsewhere)
    write(folder, "a.tsv", "b.tsv", "c.tsv")
    for _ in range(3):
        queue.task_failed(queue.get(0), "bad")
    write(folder, "c.tsv")
    restored = failing.retry_failed(str(folder), ".tsv", elsewhere, {"a.tsv", "c.tsv"})
    assert restored == [str(folder / "a.tsv")]  # and c.tsv waits already
    assert failing.discard_failed(str(folder), ".tsv", elsewhere, {"b.tsv"}) == ["b.tsv"]
    assert sorted(os.listdir(elsewhere)) == ["c.tsv", "c.tsv.reason.txt"]
    assert Path(queue.get(0)).read_text() == "a.tsv"


@pytest.mark.parametrize("verb", ["task_done", "task_failed", "release"])
def test_a_group_is_finished_as_one_though_its_consumer_is_killed_half_way(
    tmp_path: Path, folder: Path, nursery: Nursery, verb: str
) -> None:
    write(folder, "x-a.tsv", "x-b.tsv")
    queue = groups(
        folder,
        task_done_directory=tmp_path / "finished",
        task_failed_directory=tmp_path / "failed",
    )
    child = nursery.start(kill_at_unlink, queue, verb)
    assert child.join() == -9
    where = {"task_done": "finished", "task_failed": "failed", "release": "queue"}[verb]
    there = [path.name for path in (tmp_path / where).glob("x-?.tsv")]
    assert there == ["x-a.tsv"]
    if verb == "release":
        write(folder, "y-a.tsv")
        with pytest.raises(Empty):
            queue.get(0)  # a part of it is no group, whatever else comes
    queue.reclaim_abandoned()
    there = sorted(path.name for path in (tmp_path / where).glob("x-?.tsv"))
    assert there == ["x-a.tsv", "x-b.tsv"]
    assert not list(folder.glob("*.wip"))
    assert not list(folder.glob(".persistq_*.group"))


def test_a_group_is_released_whole_or_not_at_all(folder: Path) -> None:
    write(folder, "x-a.tsv", "x-b.tsv")
    queue = groups(folder)
    claimed = queue.get(0)
    write(folder, "x-b.tsv")
    with pytest.raises(FileExistsError):
        queue.release(claimed)
    assert all(os.path.exists(path) for path in claimed)
    (folder / "x-b.tsv").unlink()
    queue.release(claimed)
    assert queue.get(0) == claimed


def test_failed_files_cannot_go_on_the_queue_again(folder: Path) -> None:
    with pytest.raises(ValueError, match="task_failed_directory"):
        ReadableFolderQueue(folder, task_failed_directory=folder)
    with pytest.raises(ValueError, match="choose another one"):
        WritableFolderQueue(folder, ".rejected")
