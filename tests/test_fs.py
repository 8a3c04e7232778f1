"""What differs between file systems, from several threads at once."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from persistq import _forks, _fs, _libc, _mounts


class Counted:
    def __init__(self) -> None:
        self.forks = 0

    def _after_fork(self) -> None:
        self.forks += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_forks_are_watched_while_other_threads_make_and_drop_what_watches() -> None:
    kept = [Counted() for _ in range(50)]
    for one in kept:
        _fs.watch_forks(one)
    stop = threading.Event()
    failures: list[BaseException] = []

    def make_and_drop() -> None:
        try:
            while not stop.is_set():
                for one in [Counted() for _ in range(20)]:
                    _fs.watch_forks(one)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make_and_drop) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if all(one.forks == 1 for one in kept) else 1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert all(one.forks == 0 for one in kept)
    before = len(_forks._forkables)
    kept.clear()
    gc.collect()
    assert len(_forks._forkables) <= before - 49


def test_threads_wait_until_the_kernels_rename_is_found(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one would go the way of systems without it, and neither would be safe from the other."""
    searching, go = threading.Event(), threading.Event()
    real, looks = _fs._look_for_kernel_rename, []

    def slow() -> object:
        looks.append(1)
        searching.set()
        go.wait(10)
        return real()

    monkeypatch.setattr(_fs, "_look_for_kernel_rename", slow)
    monkeypatch.setattr(_fs, "_kernel_rename", _fs._find_kernel_rename)
    source = os.path.join(tmp_path, "a")
    open(source, "w").close()
    claimed: list[bool] = []
    target = os.path.join(tmp_path, "b")
    threads = [
        threading.Thread(target=lambda: claimed.append(_fs.claim(source, target))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert searching.wait(10)
    assert claimed == []
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [False, False, True]
    assert looks == [1]


@pytest.mark.skipif(not os.path.exists("/proc/self/mountinfo"), reason="no table of mounts here")
def test_the_file_system_of_a_path_is_found_by_its_device_and_without_it() -> None:
    assert _mounts._mount_of("/proc/self", os.stat("/proc/self").st_dev)[0] == "proc"
    for path in ("/proc/self", "/dev"):
        found = _mounts._mount_of(path, os.stat(path).st_dev)
        assert found[0]
        # A number that no mount has, as of a volume of btrfs.
        assert _mounts._mount_of(path, os.makedev(0, 0)) == found


@pytest.mark.skipif(not os.path.exists("/proc/self/mountinfo"), reason="no table of mounts here")
def test_the_kernels_word_on_a_file_system_is_that_of_the_table_of_mounts(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = []
    for path in (os.fspath(tmp_path), "/dev/shm", "/proc/self", "/sys"):
        device = os.stat(path).st_dev
        magic, kind = _libc.file_system_magic(path), _mounts._mount_of(path, device)[0]
        assert magic != 0
        assert (magic in _mounts._LOCAL_MAGIC) == (kind in _mounts._LOCAL), (path, kind)
        if kind in _mounts._LOCAL:
            local.append((path, device))
    assert _libc.file_system_magic(os.path.join(tmp_path, "gone")) == 0
    assert local  # tmpfs, if nothing else

    # Where it is loaded, nothing else is asked; and what it says counts for locks, too.
    monkeypatch.setattr(_mounts, "_lock_domains", {})
    monkeypatch.setattr(_mounts, "_mount_of", None)
    for path, device in local:
        assert _fs.reports_every_change(path, device)
        assert _fs.lock_domain(path, device) == "local"


@pytest.mark.parametrize("code", ["EPERM", "EACCES"])
def test_a_refusal_is_not_taken_for_a_rename_that_is_not_there(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    import errno

    monkeypatch.setattr(_fs, "_kernel_rename", lambda source, target: getattr(errno, code))
    source, target = (os.path.join(tmp_path, name) for name in "ab")
    open(source, "w").close()
    for rename in (_fs.rename_new, _fs.claim):
        with pytest.raises(PermissionError):
            rename(source, target)
    assert os.listdir(tmp_path) == ["a"]
