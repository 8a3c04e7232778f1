"""Putting files on a folder queue."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
from pathlib import Path

import pytest

from folder_workers import listed, stage_then_wait
from persistq import DONE, FAILED, ReadableFolderQueue, WritableFolderQueue, _processes
from persistq._folder import names
from processes import Nursery


def write(path: Path, content: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def messages(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.tsv"))


def controls(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"*.{kind}"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def other_file_system() -> Path:
    import shutil
    import tempfile

    if not os.path.isdir("/dev/shm"):
        pytest.skip("no second file system at /dev/shm")
    path = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="persistq-test-"))
    yield path
    shutil.rmtree(path)


def test_put_moves_the_file_and_returns_its_new_path(tmp_path: Path, folder: Path) -> None:
    queue = WritableFolderQueue(folder)
    source = write(tmp_path / "a.tsv", "1\t2\n")
    assert queue.put(source) == str(folder / "a.tsv")
    assert (folder / "a.tsv").read_text() == "1\t2\n"
    assert not source.exists()


def test_put_with_copy_leaves_the_source(tmp_path: Path, folder: Path) -> None:
    queue = WritableFolderQueue(folder, fsync=True)
    source = write(tmp_path / "a.tsv", "x" * 3_000_000)
    source.chmod(0o640)
    queue.put(str(source), copy=True)
    assert source.read_text() == (folder / "a.tsv").read_text() == "x" * 3_000_000
    assert (folder / "a.tsv").stat().st_mode & 0o777 == 0o640
    assert [name for name in listed(folder) if name.startswith(".")] == []


@pytest.mark.parametrize("fsync", [False, True])
def test_put_moves_between_file_systems(
    tmp_path: Path, other_file_system: Path, fsync: bool
) -> None:
    if os.stat(tmp_path).st_dev == os.stat(other_file_system).st_dev:
        pytest.skip("both folders are on one file system")
    queue = WritableFolderQueue(tmp_path / "queue", fsync=fsync)
    source = write(other_file_system / "a.tsv", "x" * 100_000)
    os.utime(source, ns=(1_000_000_000, 2_000_000_000))
    queue.put(source)
    assert not source.exists()
    published = tmp_path / "queue" / "a.tsv"
    assert published.read_text() == "x" * 100_000
    assert published.stat().st_mtime_ns == 2_000_000_000


@pytest.mark.parametrize("copy", [False, True])
def test_put_never_overwrites(tmp_path: Path, folder: Path, copy: bool) -> None:
    queue = WritableFolderQueue(folder)
    queue.put(write(tmp_path / "a.tsv", "first"))
    source = write(tmp_path / "a.tsv", "second")
    with pytest.raises(FileExistsError):
        queue.put(source, copy=copy)
    assert (folder / "a.tsv").read_text() == "first"
    assert source.read_text() == "second"
    assert [name for name in listed(folder) if name.startswith(".")] == []


def test_a_file_may_be_put_while_one_of_its_name_is_worked_on(tmp_path: Path, folder: Path) -> None:
    producer, consumer = WritableFolderQueue(folder), ReadableFolderQueue(folder)
    producer.put(write(tmp_path / "a.tsv", "first"))
    claimed = consumer.get(0)
    producer.put(write(tmp_path / "a.tsv", "second"))
    assert Path(claimed).read_text() == "first"
    assert (folder / "a.tsv").read_text() == "second"


@pytest.mark.parametrize("name", ["a.csv", "tsv", ".a.tsv", ".tsv", "a.tsv.done"])
def test_a_name_that_consumers_would_never_see_is_refused(
    tmp_path: Path, folder: Path, name: str
) -> None:
    source = write(tmp_path / name)
    with pytest.raises(ValueError, match="ends with"):
        WritableFolderQueue(folder).put(source)
    assert source.exists()


def test_a_name_too_long_to_be_claimed_is_refused(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / ("a" * 245 + ".tsv"))
    with pytest.raises(ValueError, match="too long"):
        WritableFolderQueue(folder).put(source)
    assert source.exists()


def test_a_missing_source_and_a_folder_have_errors_of_their_own(
    tmp_path: Path, folder: Path
) -> None:
    queue = WritableFolderQueue(folder)
    with pytest.raises(FileNotFoundError):
        queue.put(tmp_path / "none.tsv")
    (tmp_path / "folder.tsv").mkdir()
    for path in (tmp_path / "folder.tsv", tmp_path):
        with pytest.raises(IsADirectoryError):
            queue.put(path)
    os.mkfifo(tmp_path / "pipe.tsv")
    with pytest.raises(ValueError, match="regular file"):
        queue.put(tmp_path / "pipe.tsv")
    (tmp_path / "dangling.tsv").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        queue.put(tmp_path / "dangling.tsv")
    assert messages(folder) == []


def test_a_moved_relative_link_still_points_to_its_file(tmp_path: Path, folder: Path) -> None:
    write(tmp_path / "data" / "real.txt", "the data")
    (tmp_path / "data" / "a.tsv").symlink_to("real.txt")
    WritableFolderQueue(folder).put(tmp_path / "data" / "a.tsv")
    assert (folder / "a.tsv").is_symlink()
    assert Path(ReadableFolderQueue(folder).get(0)).read_text() == "the data"
    assert not (tmp_path / "data" / "a.tsv").is_symlink()


def test_a_producer_is_announced_with_the_originals_header(folder: Path) -> None:
    queue = WritableFolderQueue(folder)
    (helo,) = controls(folder, "helo")
    header = json.loads(helo.read_text())["header"]
    assert set(header) == {
        "type",
        "createdUTCTimestamp",
        "uuid",
        "createdBy",
        "hostName",
        "machineFQDN",
        "pid",
        "messageExtension",
    }
    assert (header["type"], header["messageExtension"]) == ("helo", "tsv")
    assert header["pid"] == f"{os.getpid():06d}"
    expected = f"{header['createdUTCTimestamp']}__{header['pid']}_{header['uuid']}.helo"
    assert helo.name == expected
    queue.close()
    queue.close()
    (done,) = controls(folder, "done")
    assert json.loads(done.read_text())["header"]["uuid"] == header["uuid"]


def test_a_closed_queue_refuses_files_until_it_is_reset(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / "a.tsv")
    for end in (WritableFolderQueue.close, WritableFolderQueue.fail):
        queue = WritableFolderQueue(folder)
        end(queue)
        with pytest.raises(ValueError, match="closed"):
            queue.put(source)
        queue.reset()
        assert len(controls(folder, "helo")) == 1
        assert controls(folder, "done") + controls(folder, "failed") == []
    queue.put(source)
    assert messages(folder) == ["a.tsv"]


def test_a_with_block_closes_or_fails(folder: Path) -> None:
    with WritableFolderQueue(folder):
        pass
    assert ReadableFolderQueue(folder).get(0) is DONE
    with pytest.raises(ZeroDivisionError), WritableFolderQueue(folder):
        raise ZeroDivisionError
    assert ReadableFolderQueue(folder).get(0) is FAILED


def test_a_pickled_copy_is_a_producer_of_its_own(tmp_path: Path, folder: Path) -> None:
    queue = WritableFolderQueue(folder, ".tsv", tmp_path / "finished", fsync=True)
    copy = pickle.loads(pickle.dumps(queue))
    assert (copy.path, copy.message_extension, copy.fsync) == (str(folder), "tsv", True)
    assert copy.task_done_directory == str(tmp_path / "finished")
    assert len(controls(folder, "helo")) == 1
    copy.put(write(tmp_path / "a.tsv"))
    assert len(controls(folder, "helo")) == 2
    copy.close()
    consumer = ReadableFolderQueue(folder)
    consumer.task_done(consumer.get(0))
    import queue as standard

    with pytest.raises(standard.Empty):
        consumer.get(0)
    queue.close()
    assert consumer.get(0) is DONE


def test_reset_gives_claimed_files_of_any_process_their_names_back(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = WritableFolderQueue(folder)
    write(folder / "000123_0123456789_a.wip", "a")
    write(folder / "9999999_9876543210_b_c.wip", "b")
    write(folder / "000001_0123456789_taken.wip", "old")
    write(folder / "taken.tsv", "new")
    write(folder / "notes.wip", "no claimed file")
    with caplog.at_level(logging.WARNING, "persistq"):
        queue.reset()
    assert messages(folder) == ["a.tsv", "b_c.tsv", "taken.tsv"]
    assert (folder / "000001_0123456789_taken.wip").read_text() == "old"
    assert (folder / "taken.tsv").read_text() == "new"
    assert "taken" in caplog.text
    assert (folder / "notes.wip").exists()


def test_reset_removes_what_a_dead_process_left_half_written(
    folder: Path, nursery: Nursery
) -> None:
    queue = WritableFolderQueue(folder)
    digits = names.host_digits(_processes.machine_fqdn(), _processes.pid_namespace())
    dead = write(folder / f".persistq_4194999_{digits}_abc.tmp")  # as version 0.1 names it
    alive = write(folder / f".persistq_{os.getppid():06d}_{digits}_abc.tmp")
    child = nursery.start(stage_then_wait, WritableFolderQueue(folder), "dead")
    living = nursery.start(stage_then_wait, WritableFolderQueue(folder), "alive")
    child.receive(), living.receive()
    child.kill()
    queue.reset()
    assert not dead.exists()
    assert alive.exists()
    left = [path for path in folder.glob(".persistq_*.tmp") if path != alive]
    assert [path.read_text() for path in left] == ["alive"]


def test_purge_empties_the_folder_and_follows_no_link(tmp_path: Path, folder: Path) -> None:
    outside = write(tmp_path / "outside" / "precious.tsv")
    queue = WritableFolderQueue(folder)
    write(folder / "deep" / "er" / "x.txt")
    (folder / "deep" / "link").symlink_to(tmp_path / "outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "file-link.tsv").symlink_to(outside)
    (folder / "x.done").mkdir()
    queue.close()
    queue.purge()
    assert list(folder.iterdir()) == []
    assert outside.read_text() == "content"
    queue.put(outside, copy=True)
    assert len(controls(folder, "helo")) == 1
    assert messages(folder) == ["precious.tsv"]


def test_a_full_disk_leaves_the_source_and_nothing_half_written(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource
    import signal

    queue = WritableFolderQueue(folder)
    source = write(tmp_path / "a.tsv", "x" * 100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            queue.put(source, copy=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [os.path.splitext(name)[1] for name in listed(folder)] == [".helo"]
    assert len(source.read_text()) == 100_000
    queue.put(source)
    assert messages(folder) == ["a.tsv"]


def test_without_a_kernel_call_for_it_put_still_never_overwrites(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq import _fs

    monkeypatch.setattr(_fs, "_kernel_rename", _fs._no_kernel_rename)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    for _ in range(2):
        name = f"{_}.tsv"
        queue = WritableFolderQueue(folder)
        queue.put(write(tmp_path / name, "first"))
        with pytest.raises(FileExistsError):
            queue.put(write(tmp_path / name, "second"))
        assert (folder / name).read_text() == "first"
        assert (tmp_path / name).read_text() == "second"
        consumer = ReadableFolderQueue(folder)
        claimed = consumer.get(0)
        queue.put(tmp_path / name)
        with pytest.raises(FileExistsError):
            consumer.release(claimed)
        assert Path(claimed).read_text() == "first"
        consumer.task_done(claimed)
        consumer.task_done(consumer.get(0))
        # The second time round on a file system without links as well.
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("bad", ["", ".", "wip", "a/b"])
def test_a_bad_extension_is_refused_before_anything_is_made(folder: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="message_extension"):
        WritableFolderQueue(folder, bad)
    assert not folder.exists()


def test_finished_files_cannot_go_on_the_queue_again(folder: Path) -> None:
    with pytest.raises(ValueError, match="task_done_directory"):
        WritableFolderQueue(folder, task_done_directory=folder / ".." / "queue")
