"""Getting whole groups of files."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import random
import sys
from pathlib import Path
from queue import Empty

import pytest

from folder_workers import (
    consume_all,
    get_in_two_steps,
    listed,
    stem_after_dash,
    stem_before_dash,
    write,
)
from persistq import DONE, FAILED, ReadableGroupedFileFolderQueue, WritableFolderQueue, _fs
from persistq._folder import identity, together
from persistq._folder.grouped import Groups
from processes import Child, Nursery


def grouped(folder: Path, items: object = ("a", "b"), **more: object) -> object:
    return ReadableGroupedFileFolderQueue(
        folder,
        grouping_function=stem_before_dash,
        item_function=stem_after_dash,
        list_of_items_in_group=None if items is None else list(items),
        **more,
    )


def names_of(queue: object, paths: list[str]) -> list[str]:
    return [os.path.basename(queue.original_filename_from_wip(path)) for path in paths]


def test_a_group_comes_whole_and_sorted_once_it_is_complete(folder: Path) -> None:
    queue = grouped(folder)
    write(folder, "2020-b.tsv")
    with pytest.raises(Empty):
        queue.get(0)
    write(folder, "2020-a.tsv")
    paths = queue.get(0)
    assert paths == sorted(paths)
    assert names_of(queue, paths) == ["2020-a.tsv", "2020-b.tsv"]
    assert [Path(path).read_text() for path in paths] == ["2020-a.tsv", "2020-b.tsv"]
    queue.task_done(paths)
    assert listed(folder) == []


def test_groups_come_in_the_order_of_their_first_file_names(folder: Path) -> None:
    write(folder, "y-b.tsv", "x-b.tsv", "y-a.tsv", "z-a.tsv", "x-a.tsv", "z-b.tsv")
    queue = grouped(folder)
    assert names_of(queue, queue.get(0))[0] == "x-a.tsv"
    write(folder, "w-a.tsv", "w-b.tsv")
    assert [names_of(queue, queue.get(0))[0][0] for _ in range(3)] == ["w", "y", "z"]


def item_letter(name: str) -> str:
    return name.partition("-")[2][:1]


def test_a_second_file_for_an_item_waits_for_the_next_group(folder: Path) -> None:
    queue = ReadableGroupedFileFolderQueue(
        folder,
        grouping_function=stem_before_dash,
        item_function=item_letter,
        list_of_items_in_group=["a", "b", "a"],
    )
    write(folder, "x-a1.tsv", "x-a2.tsv", "x-b1.tsv")
    assert names_of(queue, queue.get(0)) == ["x-a1.tsv", "x-b1.tsv"]
    with pytest.raises(Empty):
        queue.get(0)
    write(folder, "x-b2.tsv")
    assert names_of(queue, queue.get(0)) == ["x-a2.tsv", "x-b2.tsv"]


def test_without_a_list_each_file_is_a_group(folder: Path) -> None:
    write(folder, "x-a.tsv", "x-b.tsv")
    queue = grouped(folder, None)
    assert [names_of(queue, queue.get(0)) for _ in range(2)] == [["x-a.tsv"], ["x-b.tsv"]]


def raise_for_odd(name: str) -> str:
    if name.startswith("odd"):
        raise KeyError(name)
    return [] if name.startswith("list") else stem_before_dash(name)


def test_files_outside_any_group_are_ignored_and_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "odd-a.tsv", "x-c.tsv", "x-a.tsv", "list-a.tsv", "x-b.tsv")
    queue = ReadableGroupedFileFolderQueue(
        folder,
        grouping_function=raise_for_odd,
        item_function=stem_after_dash,
        list_of_items_in_group=["a", "b"],
    )
    (folder / "x.done").touch()
    with caplog.at_level(logging.WARNING, "persistq"):
        assert names_of(queue, queue.get(0)) == ["x-a.tsv", "x-b.tsv"]
        assert queue.get(0) is DONE
        queue.dispose()
        assert queue.get(0) is DONE
    ignored = [record.getMessage() for record in caplog.records if "ignored" in record.msg]
    assert sorted(text.split()[0] for text in ignored) == ["list-a.tsv", "odd-a.tsv", "x-c.tsv"]


def test_done_names_the_parts_that_stay_behind(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with WritableFolderQueue(folder):
        write(folder, "x-a.tsv")
    with caplog.at_level(logging.WARNING, "persistq"):
        assert grouped(folder, ("a", "b", "c")).get(0) is DONE
    (record,) = caplog.records
    assert "'x'" in record.getMessage()
    assert record.getMessage().endswith("without b, c")
    assert (folder / "x-a.tsv").exists()


def test_a_name_that_comes_back_counts_again(folder: Path) -> None:
    queue = grouped(folder)
    for _ in range(3):
        write(folder, "x-a.tsv", "x-b.tsv")
        queue.task_done(queue.get(0))
    write(folder, "x-a.tsv", "x-b.tsv")
    queue.get(0)
    WritableFolderQueue(folder).reset()
    assert names_of(queue, queue.get(0)) == ["x-a.tsv", "x-b.tsv"]


def test_a_claim_that_fails_half_way_is_undone(folder: Path) -> None:
    write(folder, "x-a.tsv", "x-b.tsv", "x-c.tsv")
    queue = grouped(folder, ("a", "b", "c"))
    queue._watch.look()
    # Nothing reports that a file has gone, so the queue learns it from the claim that fails.
    os.rename(folder / "x-c.tsv", folder / ".away")
    with pytest.raises(Empty):
        queue.get(0)
    assert sorted(listed(folder)) == [".away", "x-a.tsv", "x-b.tsv"]
    os.rename(folder / ".away", folder / "x-c.tsv")
    assert len(queue.get(0)) == 3


def test_a_claim_that_the_file_system_refuses_is_undone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq import _fs

    write(folder, "x-a.tsv", "x-b.tsv")
    real = _fs._kernel_rename

    def refuse_the_second(source: str, target: str) -> int:
        return errno.EACCES if source.endswith("b.tsv") else real(source, target)

    monkeypatch.setattr(_fs, "_kernel_rename", refuse_the_second)
    queue = grouped(folder)
    with pytest.raises(PermissionError):
        queue.get(0)
    assert sorted(listed(folder)) == ["x-a.tsv", "x-b.tsv"]
    monkeypatch.undo()
    assert len(queue.get(0)) == 2


def test_a_group_waits_while_this_process_holds_one_of_its_names(folder: Path) -> None:
    write(folder, "x-a.tsv", "x-b.tsv", "y-a.tsv", "y-b.tsv")
    queue = grouped(folder)
    first = queue.get(0)
    write(folder, "x-a.tsv", "x-b.tsv")
    assert names_of(queue, queue.get(0)) == ["y-a.tsv", "y-b.tsv"]
    (folder / "x.done").touch()
    with pytest.raises(Empty):
        queue.get(0)
    queue.task_done(first[1])  # the second name is free, the first is not
    with pytest.raises(Empty):
        queue.get(0)
    assert sorted(path.name for path in folder.glob("x-*.tsv")) == ["x-a.tsv", "x-b.tsv"]
    queue.task_done(first[0])
    assert queue.get(0) == first
    assert queue.get(0) is DONE


def test_failed_and_mark_all_work_done_are_as_without_groups(tmp_path: Path, folder: Path) -> None:
    write(folder, "x-a.tsv", "x-b.tsv", "y-a.tsv", "z-q.tsv")
    queue = grouped(folder, task_done_directory=tmp_path / "finished")
    queue.mark_all_work_done()
    assert sorted(os.listdir(tmp_path / "finished")) == ["x-a.tsv", "x-b.tsv", "y-a.tsv"]
    (folder / "x.failed").touch()
    assert queue.get() is FAILED


def test_parameters_are_kept_by_a_pickle_and_checked(folder: Path) -> None:
    queue = pickle.loads(pickle.dumps(grouped(folder)))
    assert queue.list_of_items_in_group == ["a", "b"]
    assert queue.grouping_function("x-a.tsv") == "x"
    assert queue.item_function("x-a.tsv") == "a"
    assert queue.sorting_function("x-a.tsv") == "x-a.tsv"
    with pytest.raises(ValueError, match="empty"):
        ReadableGroupedFileFolderQueue(folder, list_of_items_in_group=[])
    with pytest.raises(TypeError, match="list of str"):
        ReadableGroupedFileFolderQueue(folder, list_of_items_in_group="ab")
    with pytest.raises(TypeError, match="grouping_function"):
        ReadableGroupedFileFolderQueue(folder, grouping_function="x")
    with pytest.raises(pickle.PicklingError, match="item_function"):
        pickle.dumps(ReadableGroupedFileFolderQueue(folder, item_function=lambda name: name))


def test_groups_are_those_that_a_slow_count_finds() -> None:
    """The index against a model, over random comings and goings."""
    source = random.Random(3)
    items = frozenset("abc")

    def locate(name: str) -> tuple[str, str] | None:
        return None if name[1] == "q" else (name[0], name[1])

    for _ in range(150):
        groups = Groups(locate, items)
        present: set[str] = set()
        for _ in range(60):
            name = source.choice("xyz") + source.choice("abcq") + source.choice("123")
            if source.random() < 0.1:
                present = {name for name in present if source.random() < 0.7} | {name}
                groups.reconcile([*present])
            elif name in present and source.random() < 0.7:
                present.discard(name)
                groups.discard(name)
            else:
                present.add(name)
                groups.add(name)
            candidates = []
            for group in "xyz":
                files = [sorted(n for n in present if n[:2] == group + item) for item in "abc"]
                if all(files):
                    candidates.append(sorted(names[0] for names in files))
            assert groups.first() == min(candidates, default=None)


@pytest.mark.timeout(60)
def test_each_group_goes_to_one_consumer_whole(folder: Path, nursery: Nursery) -> None:
    queue = grouped(folder, ("a", "b", "c"))
    consumers = [nursery.start(consume_all, queue) for _ in range(4)]
    for consumer in consumers:
        assert consumer.receive() == "ready"
        consumer.send("go")
    parts = [f"g{number:03}-{item}.tsv" for number in range(300) for item in "abc"]
    random.Random(4).shuffle(parts)
    with WritableFolderQueue(folder) as producer:
        for name in parts:
            write(folder.parent, name)
            producer.put(folder.parent / name)
    taken = [consumer.result() for consumer in consumers]
    assert sorted(name for part in taken for name, _ in part) == sorted(parts)
    for part in taken:
        assert len(part) % 3 == 0
        for start in range(0, len(part), 3):
            assert len({name.partition("-")[0] for name, _ in part[start : start + 3]}) == 1


# Groups of the same names, day after day: each is of one day.


def put_day(folder: Path, day: str, items: str = "abc") -> None:
    for item in items:
        (folder / f"shop-{item}.tsv").write_text(day)


def begin_mondays_group(folder: Path, nursery: Nursery) -> Child:
    """Put a group, and have a process claim its first file; told to, it claims the rest."""
    other = nursery.start(get_in_two_steps, grouped(folder, "abc"))
    put_day(folder, "monday")
    other.send("begin")
    assert other.receive() == "first"
    return other


def days_of(paths: list[str]) -> str:
    return " ".join(Path(path).read_text() for path in paths)


@pytest.mark.parametrize("has_looked", [True, False])
def test_a_group_that_another_is_claiming_is_not_filled_up_with_later_files(
    folder: Path, nursery: Nursery, has_looked: bool
) -> None:
    queue = grouped(folder, "abc")
    if has_looked:
        with pytest.raises(Empty):
            queue.get(0)
    other = begin_mondays_group(folder, nursery)
    put_day(folder, "tuesday", "a")
    with pytest.raises(Empty):
        queue.get(100)
    other.send("go on")
    assert days_of(other.receive()) == "monday monday monday"
    put_day(folder, "tuesday", "bc")
    assert days_of(queue.get(10_000)) == "tuesday tuesday tuesday"


@pytest.mark.skipif(sys.platform != "linux", reason="needs reports of changes")
def test_a_file_that_is_another_one_by_the_time_of_its_claim_is_noticed(
    folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = nursery.start(get_in_two_steps, grouped(folder, "abc"))
    put_day(folder, "monday")
    queue = grouped(folder, "abc")
    claim, calls = _fs.claim, []

    def be_late(source: str, target: str) -> bool:
        calls.append(source)
        if len(calls) == 1:
            other.send("begin")
            assert other.receive() == "first"
            put_day(folder, "tuesday", "a")
        return bool(claim(source, target))

    monkeypatch.setattr(_fs, "claim", be_late)
    with pytest.raises(Empty):
        queue.get(100)
    assert calls
    assert [Path(path).name for path in calls] == ["shop-a.tsv"] * len(calls)
    other.send("go on")
    assert days_of(other.receive()) == "monday monday monday"
    put_day(folder, "tuesday", "bc")
    assert days_of(queue.get(10_000)) == "tuesday tuesday tuesday"


@pytest.mark.parametrize("has_looked", [True, False])
def test_of_one_killed_while_he_claimed_a_group_the_rest_stays_with_what_he_had(
    folder: Path, nursery: Nursery, has_looked: bool
) -> None:
    queue = grouped(folder, "abc")
    if has_looked:
        with pytest.raises(Empty):
            queue.get(0)
    other = begin_mondays_group(folder, nursery)
    other.kill()
    put_day(folder, "tuesday", "a")
    with pytest.raises(Empty):
        queue.get(100)
    assert days_of(sorted(map(str, folder.glob("*.wip")))) == "monday monday monday"
    put_day(folder, "tuesday", "bc")
    claimed = queue.get(10_000)
    assert days_of(claimed) == "tuesday tuesday tuesday"
    queue.task_done(claimed)
    assert len(queue.reclaim_abandoned()) == 3
    assert days_of(queue.get(10_000)) == "monday monday monday"


def test_where_nothing_proves_a_death_a_group_in_part_is_nobodys(
    folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = begin_mondays_group(folder, nursery)
    other.kill()
    put_day(folder, "tuesday", "a")
    (folder / "x.done").touch()
    monkeypatch.setattr(identity, "is_dead", lambda path: None)
    queue = grouped(folder, "abc")
    assert queue.get(10_000) is DONE
    assert sorted(path.name for path in folder.glob("*.tsv")) == [
        "shop-a.tsv",
        "shop-b.tsv",
        "shop-c.tsv",
    ]


def test_what_is_put_while_a_group_is_put_back_does_not_divide_it(
    folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = begin_mondays_group(folder, nursery)
    other.send("go on")
    assert len(other.receive()) == 3
    other.kill()
    queue = grouped(folder, "abc")
    really_write = together.Intent.write

    def write_and_be_overtaken(intent: together.Intent, staged: str) -> None:
        really_write(intent, staged)
        put_day(folder, "tuesday", "b")

    with monkeypatch.context() as patch:
        patch.setattr(together.Intent, "write", write_and_be_overtaken)
        assert queue.reclaim_abandoned() == []
    assert days_of(sorted(map(str, folder.glob("*.wip")))) == "monday monday monday"
    assert not list(folder.glob(".*.group"))
    put_day(folder, "tuesday", "ac")
    claimed = queue.get(10_000)
    assert days_of(claimed) == "tuesday tuesday tuesday"
    queue.task_done(claimed)
    assert len(queue.reclaim_abandoned()) == 3
    assert days_of(queue.get(10_000)) == "monday monday monday"
