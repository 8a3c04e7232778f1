"""A refusal is a refusal; of several who publish one file, one does; odd files stop nobody."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import threading
from pathlib import Path
from queue import Empty

import pytest

from folder_workers import listed, reclaim_when_told, release_when_told, write
from persistq import DONE, ReadableFolderQueue, WritableFolderQueue, _fs
from persistq._folder import names
from processes import Nursery

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be several users"
)


def as_user(uid: int, action: object) -> str:
    """Do something in a child that is another user; give what it raised, or nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "?"
        try:
            os.close(reading)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            action()
            said = ""
        except BaseException as error:
            said = type(error).__name__
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@needs_root
def test_a_put_that_a_sticky_folder_refuses_publishes_nothing(tmp_path: Path, folder: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o005:
            parent.chmod(0o755)
    drop = tmp_path / "drop"
    drop.mkdir()
    drop.chmod(0o1777)
    folder.chmod(0o777)
    write(drop, "a.tsv")
    os.chown(drop / "a.tsv", 5001, 5001)
    (drop / "a.tsv").chmod(0o666)

    said = as_user(5002, lambda: WritableFolderQueue(folder).put(drop / "a.tsv"))

    assert said == "PermissionError"
    assert (drop / "a.tsv").exists()
    assert [name for name in listed(folder) if not name.endswith(".helo")] == []


@needs_root
def test_a_put_across_file_systems_that_is_refused_publishes_nothing(folder: Path) -> None:
    import tempfile

    if not os.path.isdir("/dev/shm"):
        pytest.skip("no second file system at /dev/shm")
    drop = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        for parent in (folder, *folder.parents):
            if not parent.stat().st_mode & 0o005:
                parent.chmod(0o755)
        drop.chmod(0o1777)
        folder.chmod(0o777)
        write(drop, "a.tsv")
        os.chown(drop / "a.tsv", 5001, 5001)
        (drop / "a.tsv").chmod(0o666)
        said = as_user(5002, lambda: WritableFolderQueue(folder).put(drop / "a.tsv"))
        assert said == "PermissionError"
        assert (drop / "a.tsv").exists()
        assert [name for name in listed(folder) if not name.endswith(".helo")] == []
    finally:
        shutil.rmtree(drop)


@needs_root
def test_what_cannot_be_claimed_is_passed_over_and_logged_once(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "a.tsv").symlink_to("a.tsv")
    (folder / "b.tsv").symlink_to("/etc/passwd/x")
    (folder / ("c" * 240 + ".tsv")).touch()
    (folder / "d.tsv").mkdir()
    write(folder, "e.tsv", "z.tsv")
    immutable = shutil.which("chattr") is not None and (
        subprocess.run(["chattr", "+i", str(folder / "e.tsv")], capture_output=True).returncode == 0
    )
    try:
        queue = ReadableFolderQueue(folder)
        with caplog.at_level(logging.WARNING, "persistq"):
            if not immutable:
                assert queue.get(0) == queue.wip_filename("e.tsv")
            assert queue.get(0) == queue.wip_filename("z.tsv")
            for _ in range(3):
                with pytest.raises(Empty):
                    queue.get(0)
                queue._watch.distrust()
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == len(set(told)) == 4 + immutable
        (folder / "x.done").touch()
        assert queue.get(0) is DONE
    finally:
        if immutable:
            subprocess.run(["chattr", "-i", str(folder / "e.tsv")], check=True)
    if immutable:
        queue._watch._next_look_s = 0.0
        assert queue.get(0) == queue.wip_filename("e.tsv")  # it can be had now


@needs_root
def test_another_users_file_in_a_sticky_folder_is_passed_over(folder: Path) -> None:
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o005:
            parent.chmod(0o755)
    folder.chmod(0o1777)
    os.chown(folder, 5001, 5001)
    write(folder, "a.tsv", "b.tsv")
    os.chown(folder / "b.tsv", 5002, 5002)

    def take() -> None:
        queue = ReadableFolderQueue(folder)
        assert queue.get(0) == queue.wip_filename("b.tsv")

    assert as_user(5002, take) == ""


def test_a_folder_that_takes_a_messages_name_is_no_message(folder: Path) -> None:
    write(folder, "a.tsv", "b.tsv", "c.tsv")
    queue = ReadableFolderQueue(folder)
    queue.task_done(queue.get(0))
    (folder / "b.tsv").unlink()
    (folder / "b.tsv").mkdir()
    assert queue.get(0) == queue.wip_filename("c.tsv")
    assert (folder / "b.tsv").is_dir()


def test_a_folder_is_no_message_where_nothing_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq._folder import watch

    def refuse(folder: str) -> None:
        raise OSError(24, "no more inotify instances")

    monkeypatch.setattr(watch, "Reports", refuse)
    monkeypatch.setattr(watch, "_LISTING_S", 3600.0)
    write(folder, "a.tsv", "b.tsv", "c.tsv")
    queue = ReadableFolderQueue(folder)
    queue._watch._idle_s = 3600.0
    queue.task_done(queue.get(0))
    queue._watch._next_look_s = float("inf")
    (folder / "b.tsv").unlink()
    (folder / "b.tsv").mkdir()
    monkeypatch.setattr(queue._watch, "refresh", lambda: None)
    assert queue.get(0) == queue.wip_filename("c.tsv")
    assert (folder / "b.tsv").is_dir()


def test_of_two_who_put_one_source_one_publishes_it(tmp_path: Path, folder: Path) -> None:
    queues = [WritableFolderQueue(folder) for _ in range(2)]
    consumer = ReadableFolderQueue(folder)
    taken, told = [], []
    for number in range(50):
        write(tmp_path, f"{number}.tsv")
        barrier = threading.Barrier(3)

        def put(queue: WritableFolderQueue, name: str, barrier: threading.Barrier) -> None:
            barrier.wait()
            try:
                queue.put(tmp_path / name)
                told.append("put")
            except (FileNotFoundError, FileExistsError):
                told.append("refused")

        threads = [
            threading.Thread(target=put, args=(queue, f"{number}.tsv", barrier)) for queue in queues
        ]
        for thread in threads:
            thread.start()
        barrier.wait()
        taken.append(consumer.get(10_000))
        consumer.task_done(taken[-1])
        for thread in threads:
            thread.join()
    with pytest.raises(Empty):
        consumer.get(0)
    assert told.count("put") == told.count("refused") == 50


@pytest.mark.timeout(60)
@pytest.mark.parametrize("act", [reclaim_when_told, release_when_told])
def test_of_several_who_put_back_one_claim_one_does(
    folder: Path, nursery: Nursery, act: object
) -> None:
    """While a consumer takes each file as soon as it is there."""
    wips = [f"4194999_{host()}_f{number:03}.wip" for number in range(200)]
    for wip in wips:
        (folder / wip).write_text(wip)
    children = [nursery.start(act, ReadableFolderQueue(folder), wips) for _ in range(3)]
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    consumer = ReadableFolderQueue(folder)
    taken = []
    for _ in wips:
        path = consumer.get(20_000)
        taken.append(Path(path).read_text())
        consumer.task_done(path)
    counts = [child.result() for child in children]
    with pytest.raises(Empty):
        consumer.get(0)
    assert sorted(taken) == sorted(wips)
    assert sum(counts) == len(wips)


def host() -> str:
    from persistq import _processes

    return names.host_digits(_processes.machine_fqdn(), _processes.pid_namespace())


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_link_that_worked_while_its_answer_said_otherwise_is_a_put(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """A request repeated by NFS finds its own work; FUSE looks for what a consumer has taken."""
    real = os.link

    def link(source: str, target: str, **options: object) -> None:
        real(source, target)
        if error is FileNotFoundError:
            os.rename(target, folder / "000001_0123456789_a.wip")
        raise error(errno.EEXIST, "said", source, None, target)

    monkeypatch.setattr(_fs, "_kernel_rename", _fs._no_kernel_rename)
    monkeypatch.setattr(os, "link", link)
    write(tmp_path, "a.tsv")
    queue = WritableFolderQueue(folder, announce=False)
    assert queue.put(tmp_path / "a.tsv") == str(folder / "a.tsv")
    assert not (tmp_path / "a.tsv").exists()
    (left,) = [name for name in listed(folder) if not name.startswith(".")]
    assert left in ("a.tsv", "000001_0123456789_a.wip")


def test_a_file_taken_while_its_publisher_was_killed_is_not_published_again(
    tmp_path: Path, folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from folder_workers import die_between_link_and_unlink

    monkeypatch.setenv(_fs.NO_KERNEL_RENAME, "1")
    monkeypatch.setattr(_fs, "_kernel_rename", _fs._find_kernel_rename)
    write(tmp_path, "a.tsv")
    child = nursery.start(die_between_link_and_unlink, str(folder), str(tmp_path / "a.tsv"))
    assert child.join() == -9
    assert (folder / "a.tsv").exists()
    assert len(list(folder.glob("*_a.wip"))) == 1  # both names
    queue = ReadableFolderQueue(folder)
    queue.task_done(queue.get(0))
    assert queue.reclaim_abandoned() == []
    assert not list(folder.glob("*_a.*"))


def test_mode_and_times_are_kept_across_file_systems_whatever_the_umask(
    tmp_path: Path, folder: Path
) -> None:
    import tempfile

    if not os.path.isdir("/dev/shm"):
        pytest.skip("no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        source = Path(other, "a.tsv")
        source.write_text("a")
        source.chmod(0o664)
        os.utime(source, ns=(10**18, 10**18))
        if os.geteuid() == 0:
            os.chown(source, 5001, 5002)
        before = os.umask(0o077)
        try:
            WritableFolderQueue(folder).put(source)
        finally:
            os.umask(before)
    status = (folder / "a.tsv").stat()
    assert status.st_mode & 0o777 == 0o664
    assert status.st_mtime_ns == 10**18
    if os.geteuid() == 0:
        assert (status.st_uid, status.st_gid) == (5001, 5002)


@needs_root
def test_with_fsync_one_may_put_what_one_may_not_write_into_what_one_may_not_read(
    tmp_path: Path, folder: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for parent in (source, *source.parents):
        parent.chmod(parent.stat().st_mode | 0o755)
    source.chmod(0o777)
    folder.chmod(0o733)
    write(source, "a.tsv")
    (source / "a.tsv").chmod(0o444)

    def put() -> None:
        with WritableFolderQueue(folder, fsync=True) as queue:
            queue.put(source / "a.tsv")

    assert as_user(5001, put) == ""
    assert (folder / "a.tsv").exists()
    assert len(list(folder.glob("*.done"))) == 1


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace on this machine")
def test_a_new_folder_is_synced_into_its_parents(tmp_path: Path) -> None:
    import sys

    log = tmp_path / "log"
    code = "import sys; from persistq import WritableFolderQueue as W; W(sys.argv[1], fsync=True)"
    command = ["strace", "-qq", "-y", "-e", "trace=fsync", "-o", str(log), sys.executable, "-c"]
    ran = subprocess.run([*command, code, str(tmp_path / "new" / "queue")], capture_output=True)
    if ran.returncode:
        pytest.skip(f"strace cannot watch: {ran.stderr!r}")
    said = log.read_text()
    assert f"<{tmp_path}>" in said
    assert f"<{tmp_path / 'new'}>" in said


def test_the_six_thousandth_of_a_name_costs_what_the_first_did(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = tmp_path / "finished"
    queue = ReadableFolderQueue(folder, task_done_directory=finished)
    (finished / "a.tsv").touch()
    for number in range(1, 6000):
        (finished / f"a.{number}.tsv").touch()
    write(folder, "a.tsv")
    path = queue.get(0)
    looks = []
    real = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: looks.append(path) or real(path))
    queue.task_done(path)
    assert (finished / "a.6000.tsv").read_text() == "a.tsv"
    assert len(looks) < 50


@pytest.mark.parametrize("directory", [True, False])
def test_a_file_whose_move_was_killed_half_way_does_not_get_two_names(
    tmp_path: Path, folder: Path, directory: bool
) -> None:
    """Where a move takes two steps (NFS), its file has both names in between."""
    done, bad = tmp_path / "done", tmp_path / "bad"
    options = {"task_done_directory": done, "task_failed_directory": bad if directory else None}
    # One of each name was finished, or set aside, before.
    for content in ("first", "second"):
        for name in ("done.tsv", "failed.tsv"):
            (folder / name).write_text(content)
            queue = ReadableFolderQueue(folder, **options)
            claimed = queue.get(0)
            (queue.task_done if name == "done.tsv" else queue.task_failed)(claimed)
    place, ending = (bad, "") if directory else (folder, ".rejected")
    assert sorted(os.listdir(done)) == ["done.1.tsv", "done.tsv"]
    assert (place / f"failed.1.tsv{ending}").exists()
    # Now a move of the third is killed between its link and its unlink; another's came behind it.
    for name, target in (
        ("done", done / "done.2.tsv"),
        ("failed", place / f"failed.2.tsv{ending}"),
    ):
        claimed = folder / f"999999_{host()}_{name}.wip"  # as of 0.1
        claimed.write_text("third")
        os.link(claimed, target)
        (target.parent / target.name.replace(".2.", ".3.")).write_text("fourth")
    before = seen(place), seen(done)
    assert len(queue.reclaim_abandoned()) == 2
    first, second = queue.get(0), queue.get(0)
    queue.task_done(first)
    queue.task_failed(second)
    assert (seen(place), seen(done)) == before
    assert (done / "done.2.tsv").read_text() == "third"
    assert not list(folder.glob("*.wip"))


def seen(folder: Path) -> list[str]:
    """Give the names of finished, and of set-aside files, and of reasons."""
    return sorted(name for name in listed(folder) if not name.endswith((".wip", ".lease")))
