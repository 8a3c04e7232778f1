"""Getting files off a folder queue, in one process."""

from __future__ import annotations

import errno
import fractions
import gc
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

import pytest

from folder_workers import last_letter, listed, write
from persistq import (
    DONE,
    FAILED,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    UpstreamFailureError,
    WritableFolderQueue,
)
from persistq._folder import watch

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=["reports", "listing"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of learning what came: reports of the kernel, and listing alone."""
    if request.param == "listing":
        refuse_reports(monkeypatch)
    return str(request.param)


def refuse_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise OSError(24, "no more inotify instances")

    monkeypatch.setattr(watch, "Reports", refuse)


def names_of(queue: ReadableFolderQueue, count: int) -> list[str]:
    taken = [queue.get(2000) for _ in range(count)]
    return [os.path.basename(queue.original_filename_from_wip(path)) for path in taken]


def test_a_python_without_ctypes_lists_the_folder(folder: Path) -> None:
    write(folder, "a.tsv", "b.tsv")
    code = """
import sys
sys.modules["ctypes"] = None  # as if it could not be imported
from persistq import ReadableFolderQueue
queue = ReadableFolderQueue(sys.argv[1])
for _ in range(2):
    queue.task_done(queue.get(2000))
"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=20)
    assert os.listdir(folder) == []


def test_get_renames_the_file_to_a_name_of_this_process(folder: Path) -> None:
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    claimed = queue.get()
    assert claimed == queue.wip_filename("a.tsv") == queue.wip_filename(folder / "a.tsv")
    assert os.path.basename(claimed).startswith(f"{os.getpid():06d}_")
    assert queue.original_filename_from_wip(claimed) == str(folder / "a.tsv")
    assert listed(folder) == [os.path.basename(claimed)]
    assert Path(claimed).read_text() == "a.tsv"


def test_files_come_in_order_of_their_names(folder: Path, way: str) -> None:
    names = [f"m{number}.tsv" for number in range(2500)]
    write(folder, *names)
    assert names_of(ReadableFolderQueue(folder), 2500) == sorted(names)


@pytest.mark.parametrize("claimed_length", [1, 75, 76, 91, 92, 107, 150, 200])
@pytest.mark.parametrize("new_length", [1, 100, 200, 230])
def test_a_file_that_comes_takes_its_place_however_long_the_names(
    folder: Path, claimed_length: int, new_length: int
) -> None:
    """The reports of a claim and of a new file fit into one read, or just do not."""
    write(folder, "m" * claimed_length + ".tsv", "z.tsv")
    queue = ReadableFolderQueue(folder)
    queue.task_done(queue.get(0))
    (folder / ("a" * new_length + ".tsv")).touch()
    assert names_of(queue, 1) == ["a" * new_length + ".tsv"]


def test_a_file_that_comes_later_takes_its_place_in_the_order(folder: Path) -> None:
    write(folder, "b.tsv", "d.tsv")
    queue = ReadableFolderQueue(folder)
    assert names_of(queue, 1) == ["b.tsv"]
    write(folder, "e.tsv", "c.tsv", "a.tsv")
    assert names_of(queue, 1) == ["a.tsv"]
    write(folder, "a.tsv")
    # The first a.tsv is still worked on: the second waits, and the others do not.
    assert names_of(queue, 3) == ["c.tsv", "d.tsv", "e.tsv"]
    with pytest.raises(Empty):
        queue.get(50)
    queue.task_done(queue.wip_filename("a.tsv"))
    assert names_of(queue, 1) == ["a.tsv"]


@pytest.mark.parametrize("has_kernel_call", [True, False])
def test_a_claim_never_overwrites_a_file_in_progress(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_kernel_call: bool
) -> None:
    from persistq import _fs

    if not has_kernel_call:
        monkeypatch.setattr(_fs, "_kernel_rename", _fs._no_kernel_rename)
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    claimed = queue.get(0)
    (folder / "a.tsv").write_text("second")
    for consumer in (queue, ReadableFolderQueue(folder)):
        with pytest.raises(Empty):
            consumer.get(0)
    assert Path(claimed).read_text() == "a.tsv"
    assert (folder / "a.tsv").read_text() == "second"
    (folder / "x.done").touch()
    with pytest.raises(Empty):
        queue.get(0)
    queue.task_done(claimed)
    assert Path(queue.get(0)).read_text() == "second"
    queue.task_done(claimed)
    assert queue.get(0) is DONE


def test_a_rename_that_worked_but_reports_not_found_is_a_claim(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq import _fs

    monkeypatch.setattr(_fs, "_kernel_rename", _fs._no_kernel_rename)
    rename = os.rename

    def rename_twice(source: str, target: str) -> None:
        rename(source, target)
        rename(source, target)

    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    monkeypatch.setattr(os, "rename", rename_twice)
    assert queue.get(0) == queue.wip_filename("a.tsv")


@pytest.mark.parametrize("by", ["the short way", "the long way"])
def test_whatever_comes_and_goes_the_lowest_that_waits_is_next(folder: Path, by: str) -> None:
    chance = random.Random(11)
    queue, other = ReadableFolderQueue(folder), ReadableFolderQueue(folder)
    queue._is_quick = by == "the short way"
    waiting: set[str] = set()
    held: list[str] = []
    for step in range(1500):
        draw = chance.random()
        name = f"m{chance.randrange(60):02}.tsv"
        free = waiting - {original(path) for path in held}
        if draw < 0.25 or step % 200 == 0:
            come = [name] if draw < 0.2 else [f"n{number:03}.tsv" for number in range(40)]
            write(folder, *come)
            waiting.update(come)
        elif draw < 0.3 and name in waiting:
            os.unlink(folder / name)  # as another process does that takes it
            waiting.remove(name)
        elif draw < 0.4 and held:
            queue.task_done(held.pop(chance.randrange(len(held))))
        elif free:
            taker = other if draw < 0.45 else queue
            path = taker.get(0)
            assert original(path) == min(free)
            waiting.remove(original(path))
            if chance.random() < 0.1:
                held.append(path)
            else:
                taker.task_done(path)


def original(path: str) -> str:
    return os.path.basename(path).split("_", 2)[2][: -len(".wip")] + ".tsv"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (last_letter, ["b1.tsv", "a2.tsv", "c2.tsv", "a3.tsv"]),
        (lambda name: -int(name[1]), ["a3.tsv", "a2.tsv", "c2.tsv", "b1.tsv"]),
        (lambda name: {"b": None, "a": "x", "c": "w"}[name[0]], None),
        (lambda name: {"b": 10, "c": 9.5}[name[0]] if name[0] != "a" else "1", None),
    ],
)
def test_a_sorting_function_decides_the_order(
    folder: Path, function: object, expected: list[str] | None, way: str
) -> None:
    write(folder, "a3.tsv", "a2.tsv", "b1.tsv", "c2.tsv")
    queue = ReadableFolderQueue(folder, sorting_function=function)
    if expected is None and queue.sorting_function("b1.tsv") == "":
        expected = ["b1.tsv", "c2.tsv", "a2.tsv", "a3.tsv"]
    elif expected is None:
        expected = ["c2.tsv", "b1.tsv", "a2.tsv", "a3.tsv"]
    assert names_of(queue, 4) == expected


def test_any_sorting_value_has_a_place(folder: Path) -> None:
    values = {
        "a": 1 / 0.5,
        "b": float("nan"),
        "c": fractions.Fraction(3, 2),
        "d": complex(1, 1),
        "e": None,
        "f": ["list"],
        "g": True,
    }

    def by_value(name: str) -> object:
        return values[name[0]]

    write(folder, *(f"{letter}.tsv" for letter in "abcdefgh"))
    queue = ReadableFolderQueue(folder, sorting_function=by_value)
    # Numbers by value; then "", for None and the KeyError; then by str: "(1+1j)", "['list'", "nan".
    assert "".join(name[0] for name in names_of(queue, 8)) == "gcaehdfb"
    assert queue.sorting_function("e") == ""
    assert queue.sorting_function("unknown") == ""
    assert queue.sorting_function("a") == 2.0


def test_only_regular_files_and_links_to_them_are_messages(folder: Path, way: str) -> None:
    def make_others() -> None:
        for name in ("folder.tsv", "z.done.tsv"):
            (folder / name).mkdir()
        os.mkfifo(folder / "pipe.tsv")
        (folder / "dangling.tsv").symlink_to("nowhere")
        (folder / ".hidden.tsv").touch()
        (folder / "link.tsv").symlink_to("real.txt")
        (folder / "real.txt").write_text("real")

    make_others()
    queue = ReadableFolderQueue(folder)
    assert names_of(queue, 1) == ["link.tsv"]
    with pytest.raises(Empty):
        queue.get(0)
    for name in ("folder.tsv", "z.done.tsv"):
        (folder / name).rmdir()
    for name in ("pipe.tsv", "dangling.tsv", ".hidden.tsv", "real.txt"):
        (folder / name).unlink()
    queue.task_done(queue.wip_filename("link.tsv"))
    make_others()  # now they come while the queue watches
    assert names_of(queue, 1) == ["link.tsv"]
    with pytest.raises(Empty):
        queue.get(0)
    assert (folder / "pipe.tsv").exists()


def test_get_waits_for_so_many_milliseconds(folder: Path, way: str) -> None:
    queue = ReadableFolderQueue(folder)
    with pytest.raises(Empty):
        queue.get(0)
    began_s = time.monotonic()
    with pytest.raises(Empty):
        queue.get(timeout=120)
    assert 0.12 <= time.monotonic() - began_s < 10


def test_nobody_announced_is_not_done(folder: Path) -> None:
    with pytest.raises(Empty):
        ReadableFolderQueue(folder).get(30)


def test_done_comes_when_all_producers_are_and_nothing_waits(tmp_path: Path, folder: Path) -> None:
    producers = [WritableFolderQueue(folder) for _ in range(3)]
    write(tmp_path, "a.tsv")
    producers[0].put(tmp_path / "a.tsv")
    consumer = ReadableFolderQueue(folder)
    for producer in producers:
        producer.close()
    claimed = consumer.get()
    assert consumer.get() is consumer.get(0) is ReadableFolderQueue(folder).get() is DONE
    consumer.release(claimed)
    assert consumer.get() == claimed
    assert len(list(folder.glob("*.helo"))) == 3


def test_a_file_that_the_listing_with_the_done_missed_comes_before_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_reports(monkeypatch)
    real = watch.Watch.look
    looks = []

    def look_while_a_producer_ends(self: watch.Watch) -> None:
        # A listing is no snapshot: it may have passed the place of a file that is put, and then
        # meet the .done of the producer, which came later.
        looks.append(1)
        if len(looks) == 1:
            (folder / "x.done").touch()
            real(self)
            write(folder, "a.tsv")
        else:
            real(self)

    monkeypatch.setattr(watch.Watch, "look", look_while_a_producer_ends)
    monkeypatch.setattr(watch, "_LISTING_S", 3600.0)  # no look but those that are asked for
    queue = ReadableFolderQueue(folder)
    queue._watch._idle_s = 3600.0
    assert queue.get(0) == queue.wip_filename("a.tsv")
    assert queue.get(0) is DONE


@pytest.mark.timeout(10)
def test_a_done_that_comes_while_another_consumer_takes_the_last_file_is_seen_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq import _fs

    def come_too_late(source: str, target: str) -> int:
        (folder / "a.tsv").unlink()
        (folder / "x.done").touch()
        return errno.ENOENT

    monkeypatch.setattr(watch, "_LOCAL_S", 3600.0)  # no look that would find it later
    monkeypatch.setattr(watch, "_REMOTE_S", 3600.0)
    monkeypatch.setattr(_fs, "_kernel_rename", come_too_late)
    write(folder, "a.tsv")
    assert ReadableFolderQueue(folder).get(20_000) is DONE


def test_failed_comes_before_waiting_files_until_it_is_reset(tmp_path: Path, folder: Path) -> None:
    producer = WritableFolderQueue(folder)
    write(folder, "a.tsv", "b.tsv")
    consumer = ReadableFolderQueue(folder)
    assert names_of(consumer, 1) == ["a.tsv"]
    producer.fail()
    assert consumer.get(0) is FAILED
    assert consumer.get(0) is FAILED
    producer.reset()
    assert names_of(consumer, 1) == ["a.tsv"]


def test_iterating_stops_at_done_and_raises_at_failed(folder: Path) -> None:
    with WritableFolderQueue(folder):
        write(folder, "a.tsv", "b.tsv")
    queue = ReadableFolderQueue(folder)
    taken = []
    for path in queue:
        taken.append(os.path.basename(queue.original_filename_from_wip(path)))
        queue.task_done(path)
    assert taken == ["a.tsv", "b.tsv"]
    (folder / "x.failed").touch()
    with pytest.raises(UpstreamFailureError, match="reset"):
        next(iter(queue))


def test_task_done_removes_the_file_unless_it_is_moved_already(
    tmp_path: Path, folder: Path
) -> None:
    write(folder, "a.tsv", "b.tsv")
    queue = ReadableFolderQueue(folder)
    queue.task_done(queue.get(0))
    moved = queue.get(0)
    os.rename(moved, tmp_path / "mine")
    queue.task_done(moved)
    assert listed(folder) == []


def test_task_done_moves_to_the_directory_and_never_overwrites(
    tmp_path: Path, folder: Path
) -> None:
    finished = tmp_path / "finished"
    queue = ReadableFolderQueue(folder, "tar.gz", task_done_directory=finished)
    for number in range(3):
        write(folder, "a.tar.gz")
        (folder / "a.tar.gz").write_text(str(number))
        queue.task_done(queue.get(0))
    content = {path.name: path.read_text() for path in finished.iterdir()}
    assert content == {"a.tar.gz": "0", "a.1.tar.gz": "1", "a.2.tar.gz": "2"}
    write(folder, "a.tar.gz")
    gone = queue.get(0)
    os.unlink(gone)
    with pytest.raises(FileNotFoundError):
        queue.task_done(gone)


def test_task_done_moves_to_another_file_system(folder: Path) -> None:
    import shutil
    import tempfile

    if not os.path.isdir("/dev/shm"):
        pytest.skip("no second file system at /dev/shm")
    finished = tempfile.mkdtemp(dir="/dev/shm", prefix="persistq-test-")
    try:
        queue = ReadableFolderQueue(folder, task_done_directory=finished)
        for _ in range(2):
            write(folder, "a.tsv")
            queue.task_done(queue.get(0))
        assert sorted(os.listdir(finished)) == ["a.1.tsv", "a.tsv"]
        assert listed(folder) == []
    finally:
        shutil.rmtree(finished)


def test_task_done_takes_paths_lists_and_names(folder: Path) -> None:
    write(folder, "a.tsv", "b.tsv", "c.tsv", "d.tsv")
    queue = ReadableFolderQueue(folder)
    first, second, third, fourth = (queue.get(0) for _ in range(4))
    queue.task_done(Path(first))
    queue.task_done([second, os.path.basename(third)])
    (folder.parent / "link").symlink_to(folder)
    queue.task_done(str(folder.parent / "link" / os.path.basename(fourth)))
    assert listed(folder) == []


IDENTITY = "c0ffee00-1234-5678-9abc-def012345678"


@pytest.mark.parametrize("stem", [IDENTITY, IDENTITY.replace("-", "_"), f"x__{IDENTITY.upper()}"])
@pytest.mark.parametrize(
    "named",
    [
        IDENTITY,
        IDENTITY.replace("-", "_"),
        uuid.UUID(IDENTITY),
        {"uuid": IDENTITY},
        {"header": {"uuid": uuid.UUID(IDENTITY)}},
    ],
)
def test_task_done_finds_a_file_by_its_uuid(folder: Path, stem: str, named: object) -> None:
    write(folder, f"{stem}.tsv", "other.tsv")
    queue = ReadableFolderQueue(folder)
    queue.get(0)
    queue.get(0)
    queue.task_done(named)
    assert listed(folder) == [os.path.basename(queue.wip_filename("other.tsv"))]
    with pytest.raises(ValueError, match="no claimed file"):
        queue.task_done(named)


NO_CLAIMED_FILE = [
    *(None, "", "../x", b"../x", "a.tsv", "/etc/passwd", "not-a-uuid", 7, [], [None], object()),
    *({}, {"header": 3}, {"uuid": "../x"}, DONE),
    *("000123_0123456789_a.tsv", "../000123_0123456789_a.wip", "/x/000123_0123456789_a.wip"),
]


@pytest.mark.parametrize("bad", NO_CLAIMED_FILE)
def test_task_done_of_anything_else_touches_nothing(
    tmp_path: Path, folder: Path, bad: object
) -> None:
    write(tmp_path, "x", "000123_0123456789_a.wip")
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    claimed = queue.get(0)
    for call in (queue.task_done, queue.release):
        with pytest.raises(ValueError):  # noqa: PT011 - each kind has a text of its own
            call(bad)
        with pytest.raises(ValueError):  # noqa: PT011
            call([claimed, bad])
    assert Path(claimed).exists()
    assert (tmp_path / "x").exists()
    assert (tmp_path / "000123_0123456789_a.wip").exists()


def test_release_puts_a_file_back_unless_its_name_is_taken(folder: Path) -> None:
    write(folder, "a.tsv", "b.tsv")
    queue = ReadableFolderQueue(folder)
    first, second = queue.get(0), queue.get(0)
    queue.release([first, second])
    assert names_of(queue, 2) == ["a.tsv", "b.tsv"]
    (folder / "a.tsv").write_text("new")
    with pytest.raises(FileExistsError):
        queue.release([first, second])
    assert Path(first).read_text() == "a.tsv"
    assert (folder / "a.tsv").read_text() == "new"
    assert (folder / "b.tsv").exists()
    with pytest.raises(FileNotFoundError):
        queue.release(second)


def test_mark_all_work_done_finishes_what_waits(tmp_path: Path, folder: Path) -> None:
    finished = tmp_path / "finished"
    write(folder, "a.tsv", "b.tsv", "c.tsv", "other.txt")
    queue = ReadableFolderQueue(folder, task_done_directory=finished)
    held = queue.get(0)
    queue.mark_all_work_done()
    assert sorted(os.listdir(finished)) == ["b.tsv", "c.tsv"]
    assert sorted(listed(folder)) == sorted([os.path.basename(held), "other.txt"])
    with pytest.raises(Empty):
        queue.get(0)


def open_descriptors() -> int:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc/self/fd to count descriptors in")
    return len(os.listdir("/proc/self/fd"))


def test_a_disposed_queue_holds_no_descriptor_and_can_be_used_again(folder: Path) -> None:
    gc.collect()  # whatever other tests have left
    before = open_descriptors()
    queue = ReadableFolderQueue(folder)
    for _ in range(5):
        write(folder, "a.tsv")
        queue.task_done(queue.get(0))
        queue.dispose()
        assert open_descriptors() == before


@pytest.mark.parametrize(
    "make",
    [
        ReadableFolderQueue,
        lambda folder: ReadableFolderQueue(folder, sorting_function=last_letter),
        lambda folder: ReadableGroupedFileFolderQueue(folder, list_of_items_in_group=["a"]),
    ],
)
def test_a_queue_that_is_dropped_gives_its_descriptors_back_at_once(
    folder: Path, make: Callable[[Path], ReadableFolderQueue]
) -> None:
    gc.collect()
    gc.disable()
    try:
        before = open_descriptors()
        for _ in range(3):
            try:
                make(folder).get(0)
            except Empty:
                pass
            assert open_descriptors() == before
    finally:
        gc.enable()


def test_pickles_know_all_parameters_and_refuse_lambdas(tmp_path: Path, folder: Path) -> None:
    queue = ReadableFolderQueue(folder, "csv", tmp_path / "finished", last_letter)
    copy = pickle.loads(pickle.dumps(queue))
    assert copy.path == str(folder)
    assert copy.message_extension == "csv"
    assert copy.task_done_directory == str(tmp_path / "finished")
    assert copy.sorting_function("ab.csv") == "b"
    with pytest.raises(pickle.PicklingError, match="top of a module"):
        pickle.dumps(ReadableFolderQueue(folder, sorting_function=lambda name: name))


def test_a_relative_folder_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    queue = ReadableFolderQueue("queue")
    write(tmp_path / "queue", "a.tsv")
    monkeypatch.chdir("/")
    assert Path(queue.get(0)).parent == tmp_path / "queue"


def test_a_claimed_file_left_by_a_dead_process_of_this_id_is_not_in_the_way(folder: Path) -> None:
    queue = ReadableFolderQueue(folder)
    left = Path(queue.wip_filename("a.tsv"))
    left.write_text("old")
    write(folder, "a.tsv")
    assert queue.get(0) == str(left)
    assert left.read_text() == "old"
    assert (folder / "a.tsv").read_text() == "a.tsv"
    queue.task_done(str(left))
    assert queue.get(0) == str(left)
    assert left.read_text() == "a.tsv"


def test_threads_share_a_queue(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No safety look: a thread that misses its waking would wait for ever.
    monkeypatch.setattr(watch, "_LOCAL_S", 3600.0)
    monkeypatch.setattr(watch, "_REMOTE_S", 3600.0)
    queue = ReadableFolderQueue(folder)
    taken: list[str] = []

    def take() -> None:
        for path in iter(lambda: queue.get(10_000), DONE):
            taken.append(os.path.basename(path))
            queue.task_done(path)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    with WritableFolderQueue(folder) as producer:
        for number in range(300):
            write(folder.parent, f"m{number:04}.tsv")
            producer.put(folder.parent / f"m{number:04}.tsv")
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 300


@pytest.mark.parametrize("strange", [False, True])
def test_files_of_another_extension_with_the_same_stem_hide_none(
    folder: Path, strange: bool
) -> None:
    if strange:
        write(folder, "a.csv")
    write(folder, "a.tsv", "b.tsv")
    queue, other = ReadableFolderQueue(folder), ReadableFolderQueue(folder, "csv")
    assert names_of(queue, 1) == ["a.tsv"]
    queue.release(queue.wip_filename("a.tsv"))
    if not strange:
        write(folder, "a.csv")
    # As another process would claim it: a wip that a.tsv could have become.
    os.rename(folder / "a.csv", folder / "999999_0123456789_a.wip")
    assert names_of(queue, 2) == ["a.tsv", "b.tsv"]
    with pytest.raises(Empty):
        other.get(0)


def test_the_folder_is_not_listed_again_for_each_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, *(f"m{number:04}.tsv" for number in range(500)))
    queue = ReadableFolderQueue(folder)
    looks = []
    real = watch.Watch.look

    def counted(self: watch.Watch) -> None:
        looks.append(1)
        real(self)

    monkeypatch.setattr(watch.Watch, "look", counted)
    began_s = time.monotonic()
    for _ in range(500):
        queue.task_done(queue.get(0))
    assert len(looks) <= 2 + (time.monotonic() - began_s) / 0.25


def test_reports_that_were_lost_are_made_up_by_a_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.exists("/proc/sys/fs/inotify/max_queued_events"):
        pytest.skip("no inotify here")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"{limit} files would be needed to overflow the queue of reports")
    monkeypatch.setattr(watch, "_LOCAL_S", 3600.0)  # no look but the one that is asked for
    monkeypatch.setattr(watch, "_REMOTE_S", 3600.0)
    queue = ReadableFolderQueue(folder)
    with pytest.raises(Empty):
        queue.get(0)
    for number in range(limit // 2 + 50):
        # Two reports each, none of a message; then the one message is reported to nobody.
        (folder / f".a{number}").touch()
        os.rename(folder / f".a{number}", folder / f".b{number % 7}")
    write(folder, "a.tsv")
    assert names_of(queue, 1) == ["a.tsv"]


def test_a_folder_that_is_removed_and_made_again_is_watched_again(folder: Path) -> None:
    queue = ReadableFolderQueue(folder)
    write(folder, "a.tsv")
    queue.task_done(queue.get(0))
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        queue.get(0)
    folder.mkdir()
    write(folder, "b.tsv")
    assert names_of(queue, 1) == ["b.tsv"]


@pytest.mark.timeout(20)
def test_a_folder_that_takes_the_name_of_one_whose_parent_moved_is_the_queue(
    tmp_path: Path,
) -> None:
    queue = ReadableFolderQueue(tmp_path / "data" / "queue")
    write(Path(queue.path), "a.tsv", "b.tsv")
    assert queue.get(0) == queue.wip_filename("a.tsv")
    os.rename(tmp_path / "data", tmp_path / "old")  # which the kernel does not report
    Path(queue.path).mkdir(parents=True)
    write(Path(queue.path), "c.tsv")
    assert queue.get(15_000) == queue.wip_filename("c.tsv")
    write(Path(queue.path), "d.tsv")
    assert queue.get(0) == queue.wip_filename("d.tsv")  # so it is the new one that is watched


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")
def test_of_what_others_have_taken_nothing_is_tried(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq import _fs

    tried = []
    real = _fs._kernel_rename

    def rename(source: str, target: str) -> int:
        tried.append(os.path.basename(source))
        return real(source, target)

    waiting = sorted("n" * length + ".tsv" for length in range(2, 60))
    odd = "n_\udcff.123456_0123456789_.wip.tsv"
    write(folder, "a.tsv", "b.tsv", *waiting, "z.tsv")
    (folder / odd).touch()
    queue = ReadableFolderQueue(folder)
    monkeypatch.setattr(watch, "_LOCAL_S", 3600.0)
    monkeypatch.setattr(watch, "_REMOTE_S", 3600.0)
    queue.get(0)
    queue._watch._next_look_s = float("inf")
    monkeypatch.setattr(_fs, "_kernel_rename", rename)

    def others_take(*taken: str) -> None:
        for number, name in enumerate(taken):
            os.rename(folder / name, folder / f"{900_000 + number}_0000000000_{name[:-4]}.wip")

    others_take(*waiting[:20])
    assert queue.get(0) == queue.wip_filename("b.tsv")
    others_take(*waiting[20:40])  # and what this process took itself comes before
    write(folder, "c.tsv")
    assert queue.get(0) == queue.wip_filename("c.tsv")
    others_take(*waiting[40:], odd)
    assert queue.get(0) == queue.wip_filename("z.tsv")
    assert tried == ["b.tsv", "c.tsv", "z.tsv"]
