"""What dead processes had claimed comes back, and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from folder_workers import get_one_then_wait, listed
from persistq import ReadableFolderQueue, _processes
from persistq._folder import failing, names, together
from processes import Nursery


def host() -> str:
    return names.host_digits(_processes.machine_fqdn(), _processes.pid_namespace())


def claimed_by(folder: Path, pid: int, stem: str, where: str | None = None) -> Path:
    path = folder / f"{names.wip_prefix(pid, where or host())}{stem}.wip"
    path.write_text(stem)
    return path


def test_what_a_killed_consumer_had_claimed_comes_back(folder: Path, nursery: Nursery) -> None:
    (folder / "a.tsv").write_text("a")
    (folder / "b.tsv").write_text("b")
    queue = ReadableFolderQueue(folder)
    dead, alive = (nursery.start(get_one_then_wait, queue) for _ in range(2))
    taken, kept = dead.receive(), alive.receive()
    assert queue.reclaim_abandoned() == []
    dead.kill()
    restored = queue.reclaim_abandoned()
    assert restored == [queue.original_filename_from_wip(taken)]
    assert Path(kept).exists()
    assert queue.get(0) == queue.wip_filename(restored[0])
    alive.send("end")
    alive.result()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_with_a_name_of_ours_stops_nobody(folder: Path) -> None:
    (folder / "a.tsv").write_text("a")
    (folder / "bad.tsv.rejected").write_text("bad")
    claimed = claimed_by(folder, 4711, "b", "0123456789")
    for name in (
        f"bad.tsv{names.REASON}",
        f"{names.NOTE}a.tsv",
        f"{names.NOTE}b.tsv",
        names.lease_name(4711, "0123456789"),
        together.name_of(names.wip_prefix(4711, "0123456789")),
    ):
        os.mkfifo(folder / name)
    queue = ReadableFolderQueue(folder)
    assert queue.reclaim_abandoned() == []
    assert claimed.exists()  # of whom nothing is proved
    queue.task_done(queue.get(0))
    (failed,) = failing.list_failed(str(folder), ".tsv")
    assert (failed.message, failed.reason) == ("bad.tsv", "")
    for command in ("status", "failed"):
        subprocess.run(
            [sys.executable, "-m", "persistq", command, folder], timeout=20, capture_output=True
        )


def test_a_zombie_does_not_live(folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claimed_by(folder, child.pid, "a")
    queue = ReadableFolderQueue(folder)
    assert queue.reclaim_abandoned() == []
    assert child.stdin is not None
    child.stdin.close()
    # Without reaping: WNOWAIT leaves it a zombie.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert queue.reclaim_abandoned() == [str(folder / "a.tsv")]
    finally:
        child.wait()


def test_files_of_other_hosts_are_never_touched(folder: Path) -> None:
    other = "0123456789" if host() != "0123456789" else "1234567890"
    paths = [claimed_by(folder, 4194999, "a", other), claimed_by(folder, os.getpid(), "b", other)]
    assert ReadableFolderQueue(folder).reclaim_abandoned() == []
    assert all(path.exists() for path in paths)


def test_a_claim_with_this_processs_id_that_it_did_not_make_is_abandoned(folder: Path) -> None:
    claimed_by(folder, os.getpid(), "left")
    (folder / "mine.tsv").write_text("mine")
    queue = ReadableFolderQueue(folder)
    mine = queue.get(0)
    assert ReadableFolderQueue(folder).reclaim_abandoned() == [str(folder / "left.tsv")]
    assert Path(mine).exists()
    again = queue.get(0)
    assert again == queue.wip_filename("left.tsv")
    assert queue.reclaim_abandoned() == []


def test_reclaiming_never_overwrites(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = claimed_by(folder, 4194999, "a")
    (folder / "a.tsv").write_text("new")
    with caplog.at_level(logging.WARNING, "persistq"):
        assert ReadableFolderQueue(folder).reclaim_abandoned() == []
    assert path.read_text() == "a"
    assert (folder / "a.tsv").read_text() == "new"
    assert "a.tsv" in caplog.text


def test_a_file_with_both_names_after_a_kill_loses_the_claimed_one(folder: Path) -> None:
    path = claimed_by(folder, 4194999, "a")
    os.link(path, folder / "a.tsv")
    assert ReadableFolderQueue(folder).reclaim_abandoned() == [str(folder / "a.tsv")]
    assert listed(folder) == ["a.tsv"]


def test_processes_are_told_apart_from_the_dead_and_the_threads() -> None:
    own = _processes.process_start_s(os.getpid())
    parent = _processes.process_start_s(os.getppid())
    assert own is not None
    assert parent is not None
    assert parent <= own + 0.1
    assert _processes.process_start_s(2**31 + 5) is None
    assert _processes.process_start_s(4194999) is None
    assert _processes.process_start_s(0) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        start_s = _processes.process_start_s(child.pid)
        assert start_s is not None
        assert own <= start_s
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
    assert _processes.process_start_s(child.pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives threads ids of this kind")
def test_an_id_that_belongs_to_a_thread_is_no_process() -> None:
    import threading

    ready, end = threading.Event(), threading.Event()
    ids = []

    def run() -> None:
        ids.append(threading.get_native_id())
        ready.set()
        end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        assert _processes.process_start_s(ids[0]) is None
    finally:
        end.set()
        thread.join()


def test_ps_tells_the_same_as_proc() -> None:
    import shutil

    if shutil.which("ps") is None:
        pytest.skip("no ps on this machine")
    exact, coarse = (
        _processes.process_start_s(os.getpid()),
        _processes._ps_process_start_s(os.getpid()),
    )
    assert exact is not None
    assert coarse is not None
    assert abs(exact - coarse) < 2.5


@pytest.mark.parametrize(
    ("answer", "age_s"),
    [("S+ 00:07", 7), ("Ss 1-02:03:04", 93784), ("R 03:00:01", 10801), ("Z 00:01", None)],
)
def test_the_answers_of_ps_are_understood(
    monkeypatch: pytest.MonkeyPatch, answer: str, age_s: int | None
) -> None:
    import time

    class Answer:
        stdout = answer + "\n"

    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: Answer)
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    expected = None if age_s is None else 1_000_000.0 - age_s
    assert _processes._ps_process_start_s(7) == expected
