"""Folder queues between processes: exactly once, woken at once, the same by each start method."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest

from folder_workers import (
    consume_all,
    get_from_a_fork_with_threads,
    get_one_then_wait,
    last_letter,
    put_files,
    race_for_one_name,
    report_errors,
    stem_after_dash,
    stem_before_dash,
    wait_for_a_message,
)
from persistq import (
    DONE,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    WritableFolderQueue,
)
from persistq._folder import watch
from processes import Nursery


@pytest.mark.timeout(60)
def test_each_file_goes_to_exactly_one_consumer(
    tmp_path: Path, folder: Path, nursery: Nursery
) -> None:
    producers = [
        nursery.start(
            put_files, WritableFolderQueue(folder), str(tmp_path), number * 300, 300, method="fork"
        )
        for number in range(4)
    ]
    # The copies announce themselves when they first put: the originals stand for them until then.
    consumers = [nursery.start(consume_all, ReadableFolderQueue(folder)) for _ in range(4)]
    for child in producers + consumers:
        assert child.receive() == "ready"
        child.send("go")
    for producer in producers:
        producer.result()
    (folder / "end.done").touch()
    taken = [entry for consumer in consumers for entry in consumer.result()]
    expected = [(f"m{number:07}.tsv", str(number)) for number in range(1200)]
    assert sorted(taken) == expected
    assert not list(folder.glob("*.wip"))


@pytest.mark.timeout(60)
def test_done_never_comes_while_a_closed_producers_file_waits(
    tmp_path: Path, folder: Path, nursery: Nursery
) -> None:
    consumers = [nursery.start(consume_until_told, ReadableFolderQueue(folder)) for _ in range(2)]
    for _ in range(60):
        producer = WritableFolderQueue(folder)
        for consumer in consumers:
            consumer.send("go")
        for number in range(3):
            (tmp_path / f"{number}.tsv").touch()
            producer.put(tmp_path / f"{number}.tsv")
        producer.close()
        assert sum(consumer.receive() for consumer in consumers) == 3
        assert not list(folder.glob("*.tsv"))
        producer.purge_control_messages()
    for consumer in consumers:
        consumer.send(None)
        consumer.result()


def consume_until_told(talk: object, queue: ReadableFolderQueue) -> None:
    """Count, each time when told, the files that come until DONE."""
    while talk.recv():
        count = 0
        while (message := queue.get()) is not DONE:
            queue.task_done(message)
            count += 1
        talk.send(count)


def test_two_producers_race_for_a_name_and_one_wins(
    tmp_path: Path, folder: Path, nursery: Nursery
) -> None:
    rounds = 200
    children = []
    for mine in ("one", "two"):
        source = tmp_path / mine
        source.mkdir()
        children.append(nursery.start(race_for_one_name, str(folder), str(source), mine, rounds))
    for _ in range(rounds):
        for child in children:
            assert child.receive() == "ready"
        for child in children:
            child.send("go")
    won = [child.result() for child in children]
    assert sorted(won[0] + won[1]) == list(range(rounds))
    for mine, numbers in zip(("one", "two"), won):
        assert {(folder / f"r{number}.tsv").read_text() for number in numbers} <= {mine}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports changes of folders")
def test_a_waiting_consumer_is_woken_by_the_put_itself(
    tmp_path: Path, folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No full look for an hour: nothing but the report can wake it.
    monkeypatch.setattr(watch, "_LOCAL_S", 3600.0)
    monkeypatch.setattr(watch, "_REMOTE_S", 3600.0)
    producer = WritableFolderQueue(folder)
    child = nursery.start(wait_for_a_message, ReadableFolderQueue(folder))
    assert child.receive() == "waiting"
    (tmp_path / "a.tsv").touch()
    put_s = time.monotonic()
    producer.put(tmp_path / "a.tsv")
    message, woken_s = child.receive()
    assert message.endswith("_a.wip")
    assert put_s <= woken_s
    child.result()


def test_a_killed_consumers_files_reach_the_others(
    tmp_path: Path, folder: Path, nursery: Nursery
) -> None:
    with WritableFolderQueue(folder) as producer:
        for number in range(40):
            (tmp_path / f"{number:02}.tsv").write_text(str(number))
            producer.put(tmp_path / f"{number:02}.tsv")
    queue = ReadableFolderQueue(folder)
    victims = [nursery.start(get_one_then_wait, queue) for _ in range(5)]
    random.Random(5).shuffle(victims)
    for victim in victims:
        victim.receive()
        victim.kill()
    assert len(queue.reclaim_abandoned()) == 5
    taken = set()
    while (message := queue.get(0)) is not DONE:
        taken.add(Path(message).read_text())
        queue.task_done(message)
    assert taken == {str(number) for number in range(40)}


def test_errors_and_control_files_are_the_same_by_each_start_method(
    tmp_path: Path, folder: Path, nursery: Nursery, start_method: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "wrong.csv").touch()
    (source / "late.tsv").touch()
    (folder / "a1.tsv").touch()
    (folder / "b0.tsv").touch()
    queue = ReadableFolderQueue(folder, sorting_function=last_letter)
    producer = WritableFolderQueue(folder)
    child = nursery.start(report_errors, queue, producer, str(source), method=start_method)
    seen = child.result()
    assert seen == [
        str(folder / "b0.tsv"),
        str(folder / "a1.tsv"),
        ("ValueError",),
        ("ValueError",),
        ("FileNotFoundError",),
        ("ValueError",),
        ("ValueError",),
        ("Empty",),  # the parent's producer is still open
        ["done", "helo", "helo"],
    ]
    claimed = [path.name for path in folder.glob("*.wip")]
    assert {int(name.partition("_")[0]) for name in claimed} == {child.pid}


def test_groups_are_the_same_by_each_start_method(
    tmp_path: Path, folder: Path, nursery: Nursery, start_method: str
) -> None:
    for name in ("x-a.tsv", "x-b.tsv", "y-a.tsv"):
        (folder / name).touch()
    (folder / "end.done").touch()
    queue = ReadableGroupedFileFolderQueue(
        folder,
        grouping_function=stem_before_dash,
        item_function=stem_after_dash,
        list_of_items_in_group=["a", "b"],
    )
    queue.get(0)
    queue.release([queue.wip_filename("x-a.tsv"), queue.wip_filename("x-b.tsv")])
    child = nursery.start(consume_all, queue, method=start_method)
    assert child.receive() == "ready"
    child.send("go")
    assert child.result() == [("x-a.tsv", ""), ("x-b.tsv", "")]
    assert [path.name for path in folder.glob("*.tsv")] == ["y-a.tsv"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_copy_takes_no_reports_away_from_its_parent(
    tmp_path: Path, folder: Path, nursery: Nursery
) -> None:
    queue = ReadableFolderQueue(folder)
    producer = WritableFolderQueue(folder)
    (folder / "a.tsv").touch()
    assert queue.get(0) == queue.wip_filename("a.tsv")  # the parent watches from here on
    child = nursery.start(get_from_a_fork_with_threads, queue)
    for number in range(200):
        (tmp_path / f"{number}.tsv").touch()
        producer.put(tmp_path / f"{number}.tsv")
    mine = []
    producer.close()
    while (message := queue.get(10_000)) is not DONE:
        mine.append(os.path.basename(message))
        queue.task_done(message)
    theirs = child.result()
    stems = [name.split("_", 2)[2] for name in mine + theirs]
    assert sorted(stems) == sorted(f"{number}.wip" for number in range(200))


def test_a_waiting_consumer_uses_next_to_no_processor_time(folder: Path) -> None:
    from queue import Empty

    queue = ReadableFolderQueue(folder)
    WritableFolderQueue(folder)
    with pytest.raises(Empty):
        queue.get(0)
    before_s = time.process_time()
    with pytest.raises(Empty):
        queue.get(750)
    # A loop that spins would use all of it; the benchmark says how little it is.
    assert time.process_time() - before_s < 0.25
