"""Files that are there, and must wait: too young, released with a delay; and other extensions."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import TypeVar

import pytest

from folder_workers import get_when_told, listed, write
from persistq import DONE, ReadableFolderQueue, WritableFolderQueue, _fs, _processes
from persistq._folder import notes
from processes import Nursery

T = TypeVar("T")


def test_a_file_that_still_grows_is_not_handed_out(folder: Path) -> None:
    queue = ReadableFolderQueue(folder, min_age=400)
    with open(folder / "a.tsv", "w") as upload:
        for _ in range(8):
            upload.write("a part\n")
            upload.flush()
            with pytest.raises(Empty):
                queue.get(150)
    began_s = time.monotonic()
    path = queue.get(20_000)
    assert time.monotonic() - began_s < 10
    assert Path(path).read_text() == "a part\n" * 8


def test_a_file_that_has_stood_still_for_long_is_handed_out_at_once(folder: Path) -> None:
    write(folder, "a.tsv")
    time.sleep(0.15)
    queue = ReadableFolderQueue(folder, min_age=100)
    assert queue.get(0) == queue.wip_filename("a.tsv")
    with pytest.raises(ValueError, match="min_age"):
        ReadableFolderQueue(folder, min_age=-1)


def test_a_young_file_keeps_done_from_coming_and_not_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_ns = notes.file_system_now_ns

    def an_hour_later(staged: str) -> int:
        return real_ns(staged) + 3600 * 10**9

    write(folder, "a.tsv")
    (folder / "x.done").touch()
    queue = ReadableFolderQueue(folder, min_age=3_000_000)
    with pytest.raises(Empty):
        queue.get(0)
    write(folder, "b.tsv")
    monkeypatch.setattr(notes, "file_system_now_ns", an_hour_later)
    assert queue.get(20_000) == queue.wip_filename("b.tsv")
    with pytest.raises(Empty):
        queue.get(0)  # it has seen for itself that "a" is younger than that
    another = ReadableFolderQueue(folder, min_age=3_000_000)
    assert another.get(20_000) == queue.wip_filename("a.tsv")
    assert another.get(0) is DONE


def test_a_file_released_with_a_delay_comes_behind_the_others_in_all_processes(
    folder: Path, nursery: Nursery
) -> None:
    write(folder, "a.tsv", "b.tsv")
    queue = ReadableFolderQueue(folder)
    other = nursery.start(get_when_told, ReadableFolderQueue(folder))
    claimed = queue.get(0)
    released_s = time.monotonic()
    queue.release(claimed, delay=900)
    other.send(0)
    assert other.receive().endswith("_b.wip")
    other.send(0)
    assert other.receive() == "Empty"
    with pytest.raises(Empty):
        queue.get(0)
    assert queue.get(20_000) == queue.wip_filename("a.tsv")
    assert time.monotonic() - released_s >= 0.9
    queue.task_done(queue.wip_filename("a.tsv"))
    assert [name for name in listed(folder) if name.startswith(".")] == []


def test_a_delay_is_judged_by_the_file_systems_clock_where_the_kernel_is_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    queue.release(queue.get(0), delay=60_000)
    monkeypatch.setattr(_processes, "kernel_key", lambda: "another kernel")
    with pytest.raises(Empty):
        ReadableFolderQueue(folder).get(0)
    # The file server says that a minute has gone by.
    note = notes.path_of(str(folder), "a.tsv")
    written_s = os.stat(note).st_mtime
    os.utime(note, (written_s - 60, written_s - 60))
    assert ReadableFolderQueue(folder).get(0) == queue.wip_filename("a.tsv")


def test_a_delay_speaks_of_one_file_and_not_of_a_later_one(folder: Path) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    queue.release(queue.get(0), delay=60_000)
    (folder / "a.tsv").unlink()
    write(folder, "a.tsv")
    os.utime(folder / "a.tsv", (1, 1))
    assert ReadableFolderQueue(folder).get(0) == queue.wip_filename("a.tsv")


def test_a_delay_must_be_a_time(folder: Path) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    claimed = queue.get(0)
    for bad in (-1, float("inf"), float("nan"), "1"):
        with pytest.raises(ValueError, match="delay"):
            queue.release(claimed, delay=bad)
    assert os.path.exists(claimed)


def test_extensions_in_other_letters_count_where_the_user_says_so(
    tmp_path: Path, folder: Path
) -> None:
    finished = tmp_path / "finished"
    write(folder, "DATA.TSV", "b.tsv", "c.Tsv")
    assert ReadableFolderQueue(folder).get(0).endswith("_b.wip")
    write(folder, "b.tsv")
    queue = ReadableFolderQueue(folder, task_done_directory=finished, ignore_case=True)
    first, second, third = queue.get(0), queue.get(0), queue.get(0)
    assert queue.wip_filename("DATA.TSV") == first
    assert queue.original_filename_from_wip(first) == str(folder / "DATA.TSV")
    queue.release(first)
    assert queue.get(0) == first
    for path in (first, second, third):
        queue.task_done(path)
    assert sorted(os.listdir(finished)) == ["DATA.TSV", "b.tsv", "c.Tsv"]
    write(tmp_path, "E.TSV")
    with pytest.raises(ValueError, match="ends with"):
        WritableFolderQueue(folder).put(tmp_path / "E.TSV")
    WritableFolderQueue(folder, ignore_case=True).put(tmp_path / "E.TSV")
    assert queue.get(0) == queue.wip_filename("E.TSV")


def test_a_file_in_other_letters_comes_back_under_its_own_name(
    folder: Path, nursery: Nursery
) -> None:
    write(folder, "DATA.TSV")
    queue = ReadableFolderQueue(folder, ignore_case=True)
    child = nursery.start(get_when_told, queue)
    child.send(0)
    child.receive()
    child.kill()
    assert queue.reclaim_abandoned() == [str(folder / "DATA.TSV")]


def test_a_consumer_that_goes_on_for_ever_does_not_stop_at_done(
    tmp_path: Path, folder: Path
) -> None:
    WritableFolderQueue(folder).close()
    queue = ReadableFolderQueue(folder, forever=True)
    with pytest.raises(Empty):
        queue.get(0)
    job = WritableFolderQueue(folder, announce=False)
    write(tmp_path, "a.tsv")
    job.put(tmp_path / "a.tsv")
    job.close()
    assert queue.get(0) == queue.wip_filename("a.tsv")
    assert len(list(folder.glob("*.helo"))) == 1


class Limit(Exception):
    """The time is over."""


@pytest.mark.timeout(60)
def test_a_get_that_is_interrupted_leaves_nothing_claimed_that_nobody_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    count = 400
    write(folder, *(f"m{number:04}.tsv" for number in range(count)))
    (folder / "x.done").touch()
    queue = ReadableFolderQueue(folder)

    def interrupt(number: int, frame: object) -> None:
        raise Limit

    before = signal.signal(signal.SIGUSR1, interrupt)
    got = []
    _fs.has_kernel_rename()  # it is looked for now, and not put back in place of what is set here

    def interrupting(rename: Callable[[str, str], T]) -> Callable[[str, str], T]:
        def interrupted(source: str, target: str) -> T:
            if chance.random() < 0.3:
                os.kill(os.getpid(), signal.SIGUSR1)
            done = rename(source, target)
            if chance.random() < 0.3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return done

        return interrupted

    calls = 0
    try:
        for name in ("_kernel_rename", "claim_by_rename"):
            monkeypatch.setattr(_fs, name, interrupting(getattr(_fs, name)))
        while True:
            try:
                message = queue.get(0)
            except Limit:
                calls += 1
                continue
            if message is DONE:
                break
            got.append(os.path.basename(message))
            queue.task_done(message)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls > 50
    assert len(got) == len(set(got)) == count
    assert not list(folder.glob("*.wip"))
