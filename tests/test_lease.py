"""Who lives: a lease is held as long as its process lives, and no longer."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from persistq import _fs, _lease

if TYPE_CHECKING:
    from pathlib import Path

fork_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


def test_a_lease_is_whole_and_held_from_its_first_moment_on(tmp_path: Path) -> None:
    seen = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for name in os.listdir(tmp_path):
                if not _lease.is_temporary(name):
                    path = str(tmp_path / name)
                    seen.append((_lease.is_dead(path), bool(_lease.read(path))))

    looker = threading.Thread(target=look)
    looker.start()
    leases = []
    for number in range(50):
        leases.append(_lease.Lease(str(tmp_path / f"{number}.lease"), {"role": "main"}))
        if number % 2:
            leases.pop().release()
    stop.set()
    looker.join()
    assert len(leases) == 25
    assert seen
    assert not any(dead for dead, _ in seen)


@fork_only
def test_the_lease_of_a_killed_process_is_free_and_its_child_does_not_hold_it(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "a.lease")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            lease = _lease.Lease(path, {"role": "worker"})
            child = os.fork()
            if child == 0:  # it has let go of what the fork gave it
                os.write(writing, f"{os.getpid()} {lease.is_mine}".encode())
            time.sleep(60)
        finally:
            os._exit(1)
    child, mine = os.read(reading, 100).split()
    os.close(reading)
    os.close(writing)
    try:
        assert mine == b"False"
        assert _lease.is_dead(path) is False
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert _lease.is_dead(path) is True
    finally:
        os.kill(int(child), signal.SIGKILL)


@fork_only
def test_a_fork_in_the_midst_of_making_a_lease_does_not_keep_it_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _fs.publish_new
    about_to_publish = threading.Event()

    def publish_slowly(temporary: str, path: str) -> None:
        about_to_publish.set()
        time.sleep(0.05)
        slow(temporary, path)

    monkeypatch.setattr(_fs, "publish_new", publish_slowly)
    leases: list[_lease.Lease] = []
    path = str(tmp_path / "a.lease")
    thread = threading.Thread(target=lambda: leases.append(_lease.Lease(path, {})))
    thread.start()
    about_to_publish.wait()
    pid = os.fork()  # waits until the lease is made
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    thread.join()
    try:
        leases[0].abandon()  # as the kill of this process would
        assert _lease.is_dead(path) is True
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_taken_name_is_never_taken_twice(tmp_path: Path) -> None:
    first = _lease.Lease(str(tmp_path / "a.lease"), {})
    with pytest.raises(FileExistsError):
        _lease.Lease(first.path, {})
    assert os.listdir(tmp_path) == ["a.lease"]
    assert first.is_mine


def test_a_released_lease_is_gone_and_an_abandoned_one_is_a_dead_process(tmp_path: Path) -> None:
    released = _lease.Lease(str(tmp_path / "a.lease"), {})
    abandoned = _lease.Lease(str(tmp_path / "b.lease"), {})
    assert _lease.is_dead(released.path) is False
    released.release()
    abandoned.abandon()
    assert os.listdir(tmp_path) == ["b.lease"]
    assert _lease.is_dead(abandoned.path) is True


def test_a_renamed_lease_is_still_held(tmp_path: Path) -> None:
    lease = _lease.Lease(str(tmp_path / "a.lease"), {})
    lease.rename(str(tmp_path / "b.lease"))
    assert _lease.is_mine(lease.path)
    assert _lease.is_dead(lease.path) is False
    lease.release()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, True),  # the same mount of the same kernel: its lock is proof
        ({"device": -1}, None),  # another mount: its lock is not ours to see
        ({"boot": "before"}, True),  # this machine has been started anew since
        ({"boot": "before", "machine": "another"}, None),
        ({"boot": "before", "host": "another"}, None),
    ],
)
def test_where_locks_do_not_bind_all_only_this_kernels_leases_are_ever_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], dead: bool | None
) -> None:
    monkeypatch.setattr(_fs, "carries_locks", lambda path, device: False)
    monkeypatch.setattr(_lease._processes, "machine_id", lambda: "this one")
    lease = _lease.Lease(str(tmp_path / "a.lease"), {})
    said = {**_lease.read(lease.path), **changes}
    lease.abandon()
    (tmp_path / "a.lease").write_text(json.dumps(said) + "\n")
    assert _lease.is_dead(lease.path) is dead


def test_where_locks_are_refused_nobody_is_held_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(_lease, "_lock", refuse)
    monkeypatch.setattr(_lease, "_look", refuse)
    lease = _lease.Lease(str(tmp_path / "a.lease"), {})
    lease.abandon()
    assert _lease.is_dead(lease.path) is None


def test_a_lease_that_is_held_by_another_way_to_the_disk_is_not_proved_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server sees those that its clients hold by NFS or FUSE: their locks are no flocks."""
    with monkeypatch.context() as patch:
        patch.setattr(_fs, "lock_domain", lambda path, device: "nfs")
        _lease.Lease(str(tmp_path / "a.lease"), {}).abandon()
    said = json.loads((tmp_path / "a.lease").read_text())
    (tmp_path / "a.lease").write_text(json.dumps({**said, "device": 0}))
    assert _lease.is_dead(str(tmp_path / "a.lease")) is None
    (tmp_path / "a.lease").write_text(json.dumps({**said, "device": 0, "locks": "local"}))
    if _fs.lock_domain(str(tmp_path), os.stat(tmp_path).st_dev) == "local":
        assert _lease.is_dead(str(tmp_path / "a.lease")) is True
