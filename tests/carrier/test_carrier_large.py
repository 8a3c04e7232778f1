"""Messages too large for a record: where they are kept, and that nothing of them remains."""

from __future__ import annotations

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

from persistq._carrier import spill
from persistq._carrier.carrier import Carrier, is_refusal
from persistq._carrier.home import MARKER
from persistq.exceptions import PersistqError

if TYPE_CHECKING:
    from processes import Nursery

FORK = multiprocessing.get_context("fork")
LARGE = "x" * 5000
HUGE = "x" * (spill.LARGEST_SLOT + 1)


class Folder:
    """A temporary directory, and what is in the homes that carriers make there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def homes(self) -> list[Path]:
        return sorted(self.path.iterdir())

    def files(self) -> list[Path]:
        return sorted(
            path for home in self.homes() for path in home.iterdir() if path.name != MARKER
        )


@pytest.fixture(params=["lazily", "at once"])
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Folder:
    """Make homes in a directory of the test; also as where files cannot be without a name."""
    if request.param == "at once":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("files always have a name here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Folder(tmp_path)


def test_a_huge_message_has_a_file_that_its_reader_removes(folder: Folder) -> None:
    queue = Carrier()
    queue.put(HUGE)
    assert len(folder.files()) == 1
    assert queue.get() == HUGE
    assert folder.files() == []


def test_a_slot_is_used_again_once_it_was_read(folder: Folder) -> None:
    queue = Carrier()
    for n in range(300):
        queue.put((n, LARGE))
        queue.put((-n, "y" * 90_000))
        assert queue.get() == (n, LARGE)
        assert queue.get() == (-n, "y" * 90_000)
    (arena,) = folder.files()
    assert arena.stat().st_size < 500_000


def test_what_the_arena_has_no_room_for_still_arrives_in_order(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "ARENA_BYTES", 20_000)
    queue = Carrier()
    for n in range(20):
        queue.put((n, LARGE))
    assert len(folder.files()) > 10
    assert [queue.get() for _ in range(20)] == [(n, LARGE) for n in range(20)]
    (arena,) = folder.files()
    assert arena.stat().st_size <= 20_000


def test_an_arena_full_of_slots_of_one_size_is_cut_anew_for_another(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "ARENA_BYTES", 40_000)
    queue = Carrier()
    for size, number in ((1000, 30), (15_000, 2), (300, 100), (9000, 3)):
        for _ in range(3):
            for n in range(number):
                queue.put((n, "x" * size))
            assert len(folder.files()) == 1  # all in the arena, none in a file of its own
            assert [queue.get() for _ in range(number)] == [(n, "x" * size) for n in range(number)]


def test_a_slot_that_nobody_reads_is_never_written_over(folder: Folder) -> None:
    queue = Carrier()
    queue.put(("first", LARGE))
    unread = os.read(queue._reader.fileno(), 256)
    for n in range(100):
        queue.put((n, LARGE))
        assert queue.get() == (n, LARGE)
    os.write(queue._writer.fileno(), unread)
    assert queue.get() == ("first", LARGE)


def test_a_full_disk_is_an_error_in_the_caller_and_queues_nothing(folder: Folder) -> None:
    import resource

    queue = Carrier(3)
    queue.put(LARGE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = folder.files()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        for data in ("y" * 50_000, HUGE):
            with pytest.raises(OSError, match="too large"):
                queue.put(data)
        with pytest.raises(OSError, match="too large"):
            queue.put_bytes_many([b"small", b"y" * 50_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.files() == before
    assert queue.qsize() == 1
    assert queue.get() == LARGE
    queue.task_done()
    assert queue.join(timeout=0)
    for _ in range(3):  # no slot went with the failures
        queue.put_nowait("y" * 50_000)
    assert queue.get() == "y" * 50_000


def test_a_full_disk_in_the_middle_of_put_bytes_many_leaves_no_file(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(spill, "ARENA_BYTES", 0)
    queue = Carrier()
    queue.put_bytes(b"y" * 300)
    before = folder.files()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            queue.put_bytes_many([b"y" * 5000, b"small", b"y" * 50_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.files() == before
    assert queue.qsize() == 1


def test_without_any_room_for_files_small_messages_still_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    queue = Carrier()
    queue.put("small")
    with pytest.raises(OSError, match="TMPDIR") as raised:
        queue.put(LARGE)
    assert is_refusal(raised.value)
    assert queue.get() == "small"
    assert queue.empty()


def test_a_message_whose_file_was_removed_is_an_error_that_says_to_restart(folder: Folder) -> None:
    queue = Carrier()
    queue.put(HUGE)
    folder.files()[0].unlink()
    with pytest.raises(PersistqError, match="Restart the job"):
        queue.get()
    queue.put(LARGE)
    folder.files()[0].unlink()
    with pytest.raises(PersistqError, match="Restart the job"):
        queue.get()


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from persistq._carrier.carrier import Carrier\n" + code],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_process_that_ends_normally_removes_its_home(tmp_path: Path) -> None:
    done = run(f"q = Carrier(); q.put('x' * {len(LARGE)}); q.put('x' * {len(HUGE)})", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    kill = "import os; os.kill(os.getpid(), 9)"
    done = run(f"q = Carrier(); q.put('x' * {len(LARGE)}); {kill}", tmp_path)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert len(list(left.iterdir())) == 2
    done = run(f"q = Carrier(); q.put('x' * {len(LARGE)}); {kill}", tmp_path)
    assert done.returncode == -signal.SIGKILL
    (mine,) = tmp_path.iterdir()
    assert mine != left


def test_the_home_of_a_living_run_is_left_alone(folder: Folder) -> None:
    queue = Carrier()
    queue.put(LARGE)
    assert run("q = Carrier(); q.put('x' * 5000)", folder.path).returncode == 0
    assert queue.get() == LARGE


def test_large_messages_of_a_writer_that_has_ended_can_still_be_read(
    folder: Folder, nursery: Nursery, start_method: str
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context(start_method))
    messages = [(n, "x" * size) for n, size in enumerate([300, 5000, 90_000, len(HUGE)])]
    nursery.start(carrier_workers.put_all, queue, messages, method=start_method).result()
    assert [queue.get(timeout=0) for _ in messages] == messages


def test_arenas_of_writers_that_have_ended_go_once_they_are_read(
    folder: Folder, nursery: Nursery
) -> None:
    queue = Carrier(ctx=FORK)
    for _ in range(6):
        nursery.start(carrier_workers.put_all, queue, [LARGE, LARGE]).result()
        assert len(folder.files()) == 1
        assert [queue.get(), queue.get()] == [LARGE, LARGE]


def test_an_arena_of_which_something_is_unread_stays(folder: Folder, nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    for n in range(4):
        nursery.start(carrier_workers.put_all, queue, [(n, LARGE), (n, "z" * 900)]).result()
    for n in range(4):
        assert [queue.get(), queue.get()] == [(n, LARGE), (n, "z" * 900)]
