"""What file systems carry, other than the one under the tests; and one between two hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from persistq import ReadableFolderQueue, _fs
from persistq._folder import watch
from processes import can_unshare

PROGRAMS = Path(__file__).parents[1] / "reliability"
SOURCE = Path(_fs.__file__).parents[1]

# How each is mounted on $1; those in a file are made first.
MOUNT = {
    kind: f"truncate -s 400M $1.img; mkfs.{kind} -q $1.img >/dev/null 2>&1; "
    f"mount -t {kind} -o loop $1.img $1"
    for kind in ("ext4", "xfs", "btrfs")
}
MOUNT["tmpfs"] = "mount -t tmpfs none $1"
MOUNT["overlay"] = (
    "mkdir $1.low $1.more; mount -t tmpfs none $1.more; mkdir $1.more/up $1.more/work; "
    "mount -t overlay none -o lowerdir=$1.low,upperdir=$1.more/up,workdir=$1.more/work $1"
)


@pytest.mark.skipif(not can_unshare("-m"), reason="needs root, to mount file systems")
@pytest.mark.parametrize("kind", MOUNT)
def test_a_local_file_system_carries_all_that_is_relied_on(kind: str, tmp_path: Path) -> None:
    if f"mkfs.{kind} " in MOUNT[kind] and shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs mkfs.{kind}")
    point = tmp_path / "point"
    point.mkdir()
    script = f'set -e; {{ {MOUNT[kind]}; }} || exit 77; shift; PYTHONPATH="$1"; export PYTHONPATH; '
    script += 'shift; exec "$@"'
    probe = [sys.executable, PROGRAMS / "probe_file_system.py", point]
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", point, SOURCE, *probe],
        capture_output=True,
        text=True,
    )
    if ended.returncode in (32, 77):
        pytest.skip(f"{kind} cannot be mounted here: {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "file system": kind,
        "rename without overwriting": "yes",
        "hard links": "yes",
        "locks on this machine": "flock, lockf",
        "reports of changes": "yes" if sys.platform == "linux" else "no",
    }


@pytest.mark.timeout(120)
def test_two_hosts_share_a_folder_by_sshfs_and_each_file_is_done_once() -> None:
    command = [sys.executable, str(PROGRAMS / "two_hosts.py"), "--files=200", "--kills=6"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(
        [*command, "--waits=4", "--longest-s=0.2"], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert found["sshfs"] == {
        "file system": "fuse.sshfs",
        "rename without overwriting": "no",
        "hard links": "yes, and does not count them",
        "locks on this machine": "flock, lockf",
        "reports of changes": "yes",
        "locks held here, seen there": "no",
        "changes there, reported here": "no",
    }
    assert (found["files"], found["lost"], found["twice"], found["left"]) == (200, 0, 0, 0)
    assert found["kills"] > 0
    assert found["server is told after s"]["median"] < 0.5
    assert found["client is told after s"]["median"] < 0.5


def test_a_look_for_which_a_server_stood_still_makes_nobody_blind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, stood_still = 0, threading.Event()

    class Listing(watch.Listing):
        def __init__(self, *arguments: Any) -> None:
            nonlocal looks
            looks += 1
            super().__init__(*arguments)
            if looks == 5:
                time.sleep(0.3)  # what 20 times this allows is a second and a half
                stood_still.set()

    def no_reports(folder: str) -> None:
        raise OSError("nothing is reported here")

    def put() -> None:
        stood_still.wait(20)
        (tmp_path / "a.tsv").touch()

    monkeypatch.setattr(watch, "Listing", Listing)
    monkeypatch.setattr(watch, "Reports", no_reports)
    putter = threading.Thread(target=put)
    putter.start()
    queue = ReadableFolderQueue(tmp_path, forever=True)
    assert queue.get(timeout=10_000)
    putter.join()
    assert looks >= 6
    claimed = next(tmp_path.glob("*.wip")).stat()
    assert time.time() - claimed.st_mtime < 1.0
