"""Who lives is told from leases: of consumers, of producers, in containers, beside older ones."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty

import pytest

from folder_workers import get_one_then_wait, listed, put_then_wait, write
from persistq import (
    DONE,
    FAILED,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    WritableFolderQueue,
    _processes,
)
from persistq._folder import control, names
from processes import Nursery, can_unshare

needs_containers = pytest.mark.skipif(
    not can_unshare("-u", "-p", "-f", "--mount-proc"), reason="unshare cannot do this here"
)


def leases(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".lease"))


def test_a_claimed_file_and_its_producer_are_matched_to_leases(
    tmp_path: Path, folder: Path
) -> None:
    producer = WritableFolderQueue(folder)
    write(tmp_path, "a.tsv")
    producer.put(tmp_path / "a.tsv")
    claimed = ReadableFolderQueue(folder).get(0)
    (lease,) = leases(folder)  # of one process in one folder
    pid, digits, _ = os.path.basename(claimed).split("_", 2)
    assert lease == f".persistq_{pid}_{digits}.lease"
    said = json.loads((folder / lease).read_text())
    assert said["messageExtension"] == ".tsv"
    assert said["pid"] == os.getpid() == int(pid)
    (helo,) = folder.glob("*.helo")
    uuid = json.loads(helo.read_text())["header"]["uuid"]
    assert names.claimer_of_uuid(uuid) == digits


def test_a_lease_goes_when_nothing_is_claimed_and_the_queue_disposes(folder: Path) -> None:
    write(folder, "a.tsv", "b.tsv")
    queue = ReadableFolderQueue(folder)
    first, second = queue.get(0), queue.get(0)
    queue.task_done(first)
    queue.dispose()
    assert leases(folder)
    queue.task_done(second)
    queue.dispose()
    assert os.listdir(folder) == []
    write(folder, "c.tsv")
    assert queue.get(0) == queue.wip_filename("c.tsv")
    assert leases(folder)


def test_a_lease_goes_with_its_process_unless_something_is_claimed(folder: Path) -> None:
    write(folder, "a.tsv", "b.tsv")
    code = "import sys; from persistq import ReadableFolderQueue as R; q = R(sys.argv[1]); "
    code += "q.task_done(q.get(0)); sys.argv[2:] and q.get(0)"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=20)
    assert leases(folder) == []
    subprocess.run([sys.executable, "-c", code, str(folder), "x"], check=False, timeout=20)
    write(folder, "c.tsv", "d.tsv")
    subprocess.run([sys.executable, "-c", code, str(folder), "x"], check=True, timeout=20)
    assert len(leases(folder)) == len(list(folder.glob("*.wip")))


def test_two_queues_and_threads_of_a_process_share_no_claim(folder: Path) -> None:
    write(folder, *(f"m{number:03}.tsv" for number in range(300)))
    (folder / "x.done").touch()
    taken: list[str] = []

    def take() -> None:
        queue = ReadableFolderQueue(folder)
        for path in iter(lambda: queue.get(10_000), DONE):
            taken.append(os.path.basename(path))
            queue.task_done(path)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 300


def test_a_copy_in_another_process_draws_a_number_of_its_own(
    folder: Path, nursery: Nursery, start_method: str
) -> None:
    write(folder, "a.tsv", "b.tsv")
    queue = ReadableFolderQueue(folder)
    mine = os.path.basename(queue.get(0))
    child = nursery.start(get_one_then_wait, queue, method=start_method)
    theirs = os.path.basename(child.receive())
    assert mine.split("_")[1] != theirs.split("_")[1]
    assert len(leases(folder)) == 2
    assert queue.reclaim_abandoned() == []
    child.kill()
    assert queue.reclaim_abandoned() == [str(folder / "b.tsv")]
    assert len(leases(folder)) == 1


def test_nothing_is_asked_of_pid_and_clock_where_there_is_a_lease(
    folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.tsv")
    child = nursery.start(get_one_then_wait, ReadableFolderQueue(folder))
    claimed = child.receive()
    # As after a step of the clock, in another namespace, on a file server of another time.
    monkeypatch.setattr(_processes, "process_start_s", lambda pid: None)
    monkeypatch.setattr("time.time", lambda: 4e9)
    os.utime(claimed, (1, 1))
    assert ReadableFolderQueue(folder).reclaim_abandoned() == []
    child.kill()
    monkeypatch.setattr(_processes, "process_start_s", lambda pid: 0.0)
    assert ReadableFolderQueue(folder).reclaim_abandoned() == [str(folder / "a.tsv")]


@needs_containers
def test_a_container_that_starts_again_reclaims_what_its_predecessor_held(folder: Path) -> None:
    def container(code: str) -> subprocess.Popen[str]:
        command = ["unshare", "-u", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c"]
        command += ['hostname loader-0; exec "$@"', "x", sys.executable, "-c", code, str(folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    write(folder, "a.tsv")
    head = "import sys, time; from persistq import ReadableFolderQueue as R; q = R(sys.argv[1]); "
    hold = "print(q.get(9000), flush=True); time.sleep(60)"
    reclaim = "print(len(q.reclaim_abandoned()))"
    with container(head + hold) as first:
        assert first.stdout is not None
        assert "_a.wip" in first.stdout.readline()
        with container(head + reclaim) as second:
            assert second.communicate(timeout=20)[0] == "0\n"
        first.kill()
    with container(head + reclaim) as third:
        assert third.communicate(timeout=20)[0] == "1\n"
    assert os.listdir(folder).count("a.tsv") == 1
    assert not list(folder.glob("*.wip"))


def test_files_of_the_original_and_of_version_01_are_judged_by_pid_and_host(folder: Path) -> None:
    import socket

    fqdn = socket.getfqdn()
    text = f"{fqdn} {_processes.pid_namespace()}" if _processes.pid_namespace() else fqdn
    here = f"{int.from_bytes(hashlib.sha256(text.encode()).digest(), 'big') % 10**10:010d}"
    dead = folder / f"4194999_{here}_dead.wip"
    alive = folder / f"{os.getppid():06d}_{here}_alive.wip"
    elsewhere = folder / "4194999_0123456789_elsewhere.wip"
    for path in (dead, alive, elsewhere):
        path.touch()
    assert ReadableFolderQueue(folder).reclaim_abandoned() == [str(folder / "dead.tsv")]
    left = sorted(name for name in listed(folder) if not name.startswith("."))
    assert left == sorted(["dead.tsv", alive.name, elsewhere.name])


def test_a_queue_of_another_extension_keeps_its_claims(folder: Path, nursery: Nursery) -> None:
    write(folder, "a.csv")
    child = nursery.start(get_one_then_wait, ReadableFolderQueue(folder, "csv"))
    claimed = child.receive()
    child.kill()
    assert ReadableFolderQueue(folder, "tsv").reclaim_abandoned() == []
    WritableFolderQueue(folder, "tsv").reset()
    assert os.path.exists(claimed)
    assert ReadableFolderQueue(folder, "csv").reclaim_abandoned() == [str(folder / "a.csv")]


def test_a_killed_producer_has_failed_once_no_file_waits(
    tmp_path: Path, folder: Path, nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "a.tsv")
    child = nursery.start(put_then_wait, str(folder), str(tmp_path / "a.tsv"))
    child.receive()
    queue = ReadableFolderQueue(folder)
    child.kill()
    with caplog.at_level(logging.ERROR, "persistq"):
        queue.task_done(queue.get(0))  # what it has put comes first
        assert queue.get(0) is FAILED
        assert queue.get(20_000) is FAILED
    (record,) = caplog.records
    assert f"process {child.pid} of " in record.getMessage()

    # Started again: it announces itself anew, and puts the rest.
    write(tmp_path, "b.tsv")
    again = WritableFolderQueue(folder)
    again.put(tmp_path / "b.tsv")
    assert queue.get(0) == queue.wip_filename("b.tsv")
    queue.task_done(queue.wip_filename("b.tsv"))
    assert queue.get(0) is FAILED
    again.close(dead=True)
    assert queue.get(0) is ReadableFolderQueue(folder).get(0) is DONE


@pytest.mark.timeout(20)
def test_a_consumer_that_waits_hears_of_a_producers_death(folder: Path, nursery: Nursery) -> None:
    child = nursery.start(put_then_wait, str(folder), None)
    child.receive()
    queue = ReadableFolderQueue(folder)
    with pytest.raises(Empty):
        queue.get(0)
    threading.Timer(0.2, child.kill).start()
    assert queue.get(None) is FAILED


def test_a_producer_that_lives_and_says_nothing_is_waited_for(folder: Path) -> None:
    WritableFolderQueue(folder)
    with pytest.raises(Empty):
        ReadableFolderQueue(folder).get(600)
    code = "import sys; from persistq import WritableFolderQueue as W; W(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=20)
    with pytest.raises(Empty):
        ReadableFolderQueue(folder).get(0)


def test_a_producer_without_a_lease_is_not_held_for_dead(folder: Path) -> None:
    """As those of version 0.1 and of the original: nothing proves that they died."""
    header = {"type": "HELO", "uuid": "c0ffee00-1234-4678-9abc-def012345678", "pid": "4194999"}
    header["machineFQDN"] = _processes.machine_fqdn()
    name = f"20260101_120000_000000__4194999_{header['uuid']}.helo"
    (folder / name).write_text(json.dumps({"header": header}))
    with pytest.raises(Empty):
        ReadableFolderQueue(folder).get(0)


def test_what_the_dead_left_is_cleared_away_and_what_matters_stays(
    tmp_path: Path, folder: Path, nursery: Nursery
) -> None:
    code = "import sys; from persistq import WritableFolderQueue as W; W(sys.argv[1]).close()"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=20)
    dead = nursery.start(put_then_wait, str(folder), None)
    dead.receive()
    dead.kill()
    write(folder, "a.tsv")
    consumer = nursery.start(get_one_then_wait, ReadableFolderQueue(folder))
    consumer.receive()
    consumer.kill()
    queue = ReadableFolderQueue(folder)
    assert queue.reclaim_abandoned() == [str(folder / "a.tsv")]
    # The last of those that are done, so that whoever comes later hears of it; and the dead
    # producer, which counts as failed, with the lease that proves it.
    queue.task_done(queue.get(0))
    queue.dispose()
    kinds = sorted(name.rpartition(".")[2] for name in os.listdir(folder))
    assert kinds == ["done", "helo", "helo", "lease"]
    assert queue.get(0) is FAILED


def test_many_control_files_are_hardly_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = {"type": "helo", "machineFQDN": "x", "pid": "000123"}
    for number in range(200):
        header["uuid"] = f"c0ffee00-1234-4678-9abc-{number:012d}"
        for kind in ("helo", "done"):
            name = f"20260101_120000_{number:06d}__000123_{header['uuid']}.{kind}"
            (folder / name).write_text(json.dumps({"header": header}))
    read = []
    monkeypatch.setattr(control, "read", lambda path: read.append(path))
    assert ReadableFolderQueue(folder).get(0) is DONE
    assert read == []


def test_control_files_can_be_read_by_all_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        WritableFolderQueue(folder).close()
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in folder.glob("*__*")}
    assert modes == {0o644}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user"
)
def test_control_files_that_cannot_be_read_are_judged_by_their_names(folder: Path) -> None:
    queue = WritableFolderQueue(folder)
    queue.close()
    for path in folder.glob("*__*"):
        path.chmod(0o600)
    for path in (folder, *folder.parents):
        path.chmod(path.stat().st_mode | 0o755)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setuid(65534)
            code = 0 if ReadableFolderQueue(folder).get(0) is DONE else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_no_name_server_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def hang(*args: object) -> None:
        raise AssertionError("a name server was asked")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname", "getaddrinfo"):
        monkeypatch.setattr(socket, name, hang)
    monkeypatch.setattr(_processes, "_machine_fqdn", None)
    write(folder, "a.tsv")
    producer = WritableFolderQueue(folder)
    queue = ReadableFolderQueue(folder)
    queue.get(0)
    (folder / "4194999_0123456789_x.wip").touch()
    queue.reclaim_abandoned()
    producer.close()


def test_a_full_folder_of_leases_that_cannot_be_made_stops_no_consumer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from persistq import _lease

    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_lease, "Lease", refuse)
    write(folder, "a.tsv")
    queue = ReadableFolderQueue(folder)
    with caplog.at_level(logging.WARNING, "persistq"):
        queue.task_done(queue.get(0))
    assert "no lease" in caplog.text
    assert listed(folder) == []


def test_a_group_of_a_dead_consumer_comes_back_as_one(folder: Path, nursery: Nursery) -> None:
    from folder_workers import stem_after_dash, stem_before_dash

    queue = ReadableGroupedFileFolderQueue(
        folder,
        grouping_function=stem_before_dash,
        item_function=stem_after_dash,
        list_of_items_in_group=["a", "b"],
    )
    write(folder, "x-a.tsv", "x-b.tsv")
    child = nursery.start(get_one_then_wait, queue)
    assert len(child.receive()) == 2
    child.kill()
    write(folder, "x-b.tsv")  # of a later group: then all of it stays, and nothing is mixed
    assert queue.reclaim_abandoned() == []
    (folder / "x-b.tsv").unlink()
    assert len(queue.reclaim_abandoned()) == 2
    assert [os.path.basename(path)[18:] for path in queue.get(0)] == ["x-a.wip", "x-b.wip"]


def test_the_lease_of_one_who_claims_and_dies_during_a_reclaim_stays(
    folder: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from folder_workers import get_when_told
    from persistq._folder import recovery

    write(folder, "a.tsv", "b.tsv")
    child = nursery.start(get_when_told, ReadableFolderQueue(folder))
    child.send(0)
    os.unlink(child.receive())  # so nothing refers to its lease, which it has
    real = recovery.Listing
    looks: list[object] = []

    def look(*args: object) -> object:
        looks.append(real(*args))
        if len(looks) == 2:
            child.send(0)
            assert child.receive().endswith("_b.wip")
            child.kill()
        return looks[-1]

    monkeypatch.setattr(recovery, "Listing", look)
    queue = ReadableFolderQueue(folder)
    assert queue.reclaim_abandoned() == []
    assert len(looks) == 2
    assert queue.reclaim_abandoned() == [str(folder / "b.tsv")]
