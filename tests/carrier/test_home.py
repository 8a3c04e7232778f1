"""Who removes the folder of large messages, and when."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier.carrier import Carrier
from persistq._carrier.home import MARKER, PREFIX

if TYPE_CHECKING:
    from processes import Nursery

LARGE = "x" * 5000
NAME = PREFIX + "0123456789abcdef" * 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def put_and_get_one(folder: Path) -> None:
    code = (
        "from persistq._carrier.carrier import Carrier\n"
        "q = Carrier(); q.put('x' * 5000); assert q.get()"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)}, check=True
    )


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="here homes are made at once")
def test_no_home_is_made_for_small_messages(folder: Path) -> None:
    queue = Carrier()
    queue.put("small")
    assert list(folder.iterdir()) == []
    queue.put(LARGE)
    (home,) = folder.iterdir()
    assert home.name.startswith(PREFIX)
    assert (home / MARKER).stat().st_size == 0


def test_what_has_not_both_the_name_and_the_marker_is_never_touched(folder: Path) -> None:
    for name, has_marker in [
        ("persistq-0.1.0", True),
        (NAME, False),
        (NAME + "0", True),
        (PREFIX + "of-mine", True),
    ]:
        (folder / name).mkdir()
        (folder / name / "precious.txt").write_text("mine")
        if has_marker:
            (folder / name / MARKER).touch()
    before = sorted(folder.rglob("*"))
    put_and_get_one(folder)
    assert sorted(folder.rglob("*")) == before


def test_what_has_both_and_nobody_uses_is_removed(folder: Path) -> None:
    (folder / NAME).mkdir()
    (folder / NAME / MARKER).touch()
    (folder / NAME / "arena-1-2").touch()
    put_and_get_one(folder)
    assert list(folder.iterdir()) == []


def test_a_home_whose_marker_somebody_holds_is_left_alone(folder: Path) -> None:
    (folder / NAME).mkdir()
    with open(folder / NAME / MARKER, "w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        put_and_get_one(folder)
        assert (folder / NAME / MARKER).exists()
    put_and_get_one(folder)
    assert list(folder.iterdir()) == []


def test_a_link_with_a_homes_name_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / MARKER).touch()
    (mine / "precious.txt").touch()
    (folder / NAME).symlink_to(mine)
    put_and_get_one(folder)
    assert (mine / "precious.txt").exists()


def test_a_home_lives_as_long_as_a_worker_that_has_never_looked_into_it(
    folder: Path, nursery: Nursery, start_method: str
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context(start_method))
    worker = nursery.start(carrier_workers.get_when_told, queue, method=start_method)
    assert worker.receive() == "ready"
    queue.put(LARGE)
    (home,) = folder.glob(PREFIX + "*")
    # As the end of the process, or its death: this copy of the carrier is gone.
    queue.close()
    queue.join_thread()
    del queue
    put_and_get_one(folder)
    assert home.exists()
    worker.send("get")
    assert worker.result() == LARGE
    put_and_get_one(folder)
    assert list(folder.glob(PREFIX + "*")) == []


def test_the_last_to_end_removes_the_home(
    folder: Path, nursery: Nursery, start_method: str
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context(start_method))
    worker = nursery.start(carrier_workers.get_when_told, queue, method=start_method)
    assert worker.receive() == "ready"
    queue.put(LARGE)
    del queue
    assert len(list(folder.glob(PREFIX + "*"))) == 1
    worker.send("get")
    worker.result()
    assert list(folder.glob(PREFIX + "*")) == []


def test_a_daemon_that_outlives_the_script_keeps_the_home(folder: Path) -> None:
    code = """
import os, sys
from persistq._carrier.carrier import Carrier
q = Carrier()
there, gone = os.pipe()
if os.fork():
    os.close(there)
    q.put("x" * 5000)
    sys.exit()
os.close(gone)
os.read(there, 1)  # the end of the script closes it
assert q.get(timeout=5) == "x" * 5000
for n in range(3):
    q.put("y" * 5000)
    assert q.get(timeout=5) == "y" * 5000
print("daemon done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("daemon done\n", "")
    assert list(folder.iterdir()) == []


def test_workers_of_a_killed_script_keep_the_home(folder: Path) -> None:
    code = """
import os, signal
from persistq._carrier.carrier import Carrier
q = Carrier()
there, gone = os.pipe()
if os.fork() == 0:
    os.close(gone)
    os.read(there, 1)
    other = Carrier()
    other.put("z" * 5000)  # makes a home, and removes those of the dead
    assert q.get(timeout=5) == "x" * 5000
    print("worker done", flush=True)
    os._exit(0)
q.put("x" * 5000)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "worker done\n", "")


CLOSED = """
import multiprocessing, os, stat, sys
for fd in (0, 1, 2):
    os.close(fd)
from persistq._carrier.carrier import Carrier
def report(queue, number):
    kinds = {stat.S_ISFIFO(os.fstat(fd).st_mode) or fd for fd in (0, 1, 2)}
    ends = [queue._reader, queue._waiter, queue._writer, queue.board._end, queue._spill.home._end]
    low = [end.fileno() for end in ends if end is not None and end.fileno() < 3]
    os.write(1, b"stray"), os.write(2, b"stray")
    queue.put((number, sorted(map(str, kinds)), low))
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    # A fork server of 3.14 that itself imports a script which closes its streams ends with that.
    multiprocessing.set_forkserver_preload([])
    queue = Carrier(ctx=context)
    report(queue, 0)
    process = context.Process(target=report, args=(queue, 1))
    process.start()
    process.join()
    with open(sys.argv[2], "w") as file:
        for _ in range(2):
            print(queue.get(timeout=5), file=file)
"""


def test_no_descriptor_of_ours_becomes_a_standard_stream(tmp_path: Path, start_method: str) -> None:
    (tmp_path / "program.py").write_text(CLOSED)
    subprocess.run(
        [sys.executable, "program.py", start_method, "result"], cwd=tmp_path, timeout=20, check=True
    )
    assert (tmp_path / "result").read_text() == "".join(
        f"({n}, ['0', '1', '2'], [])\n" for n in range(2)
    )
