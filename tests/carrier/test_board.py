"""What the processes of one carrier know of one another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier import board
from persistq._carrier.board import Board, InTransit

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery


@pytest.fixture(params=["memory", "a temporary file"])
def new_board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Board:
    if request.param == "a temporary file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("no memfd here")
    return Board()


def test_an_event_is_counted_by_all_processes(
    new_board: Board, nursery: Nursery, start_method: str
) -> None:
    assert not new_board.has_news()
    assert new_board.count(b"D") == 0
    children = [
        nursery.start(carrier_workers.post_on_board, new_board, b"D", method=start_method)
        for _ in range(3)
    ]
    for child in children:
        child.result()
    new_board.post(b"F")
    assert new_board.has_news()
    assert (new_board.count(b"D"), new_board.count(b"F"), new_board.count(b"X")) == (3, 1, 0)
    new_board.post(b"D")
    assert new_board.count(b"D") == 4


def test_who_sees_no_news_has_missed_nothing(
    new_board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(new_board, "_append", lambda record: seen.append(new_board.has_news()))
    new_board.post(b"D")
    assert seen == [True]


def test_a_failure_once_told_is_told_everywhere(new_board: Board, nursery: Nursery) -> None:
    assert new_board.is_failed_told() is False
    nursery.start(carrier_workers.call, new_board.tell_failed).result()
    assert new_board.is_failed_told() is True
    assert not new_board.has_news()


def test_each_process_has_a_name_of_its_own(
    new_board: Board, nursery: Nursery, start_method: str
) -> None:
    mine = new_board.token()
    child = nursery.start(carrier_workers.show_in_transit, new_board, method=start_method)
    theirs = child.receive()
    assert mine == new_board.token() != theirs
    assert new_board.in_transit() == {
        mine: InTransit((), False, False),
        theirs: InTransit((7,), True, True),
    }
    child.send("go on")
    child.receive()
    assert new_board.in_transit()[theirs] == InTransit((), False, False)
    child.send("end")
    child.result()


def test_what_a_killed_process_was_doing_stays_to_be_seen(
    new_board: Board, nursery: Nursery
) -> None:
    child = nursery.start(carrier_workers.show_in_transit, new_board)
    theirs = child.receive()
    child.kill()
    assert new_board.in_transit()[theirs] == InTransit((7,), True, True)


def test_a_bare_fork_has_bytes_of_its_own(new_board: Board) -> None:
    new_board.flags()[0] = 3
    mine = new_board.token()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            new_board.flags()[0] = 9
            new_board.set_backlog(True)
            status = 0 if new_board.token() != mine else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    seen = new_board.in_transit()
    assert seen.pop(mine) == InTransit((3,), False, False)
    assert list(seen.values()) == [InTransit((9,), False, True)]


def test_each_thread_has_bytes_of_its_own_however_many_there_are(new_board: Board) -> None:
    number = 23
    all_there, all_seen = threading.Barrier(number + 1), threading.Barrier(number + 1)

    def take(generation: int) -> None:
        flags = new_board.flags()
        flags[0] = generation
        assert new_board.flags() is flags
        all_there.wait()
        all_seen.wait()

    threads = [threading.Thread(target=take, args=(n + 1,)) for n in range(number)]
    for thread in threads:
        thread.start()
    all_there.wait()
    (seen,) = new_board.in_transit().values()
    assert sorted(entry % 256 for entry in seen.taking) == list(range(1, number + 1))
    slots = [entry // 256 for entry in seen.taking]
    assert slots == sorted(set(slots))
    all_seen.wait()
    for thread in threads:
        thread.join()
    # What has ended is between nothing any more.
    assert new_board.in_transit() == {new_board.token(): InTransit((), False, False)}


def test_bytes_of_threads_that_have_ended_are_used_again(new_board: Board) -> None:
    def use() -> None:
        new_board.flags()[0] = 1

    new_board.token()
    size = os.fstat(new_board._fd).st_size
    for _ in range(50):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert os.fstat(new_board._fd).st_size == size


def test_processes_that_append_at_once_lose_nothing(new_board: Board, nursery: Nursery) -> None:
    number, each = 4, 800
    children = [
        nursery.start(carrier_workers.post_many_and_take_bytes, new_board, each)
        for _ in range(number)
    ]
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    tokens = [child.result() for child in children]
    assert new_board.count(b"D") == number * each
    seen = new_board.in_transit()
    assert [len(seen[token].taking) for token in tokens] == [8] * number


def test_a_process_killed_while_it_appends_leaves_whole_records(
    new_board: Board, nursery: Nursery
) -> None:
    for _ in range(5):
        child = nursery.start(carrier_workers.post_until_killed, new_board)
        assert child.receive() == "ready"
        child.kill()
    size = os.fstat(new_board._fd).st_size
    assert size % board.RECORD_BYTES == 0
    assert new_board.count(b"D") == size // board.RECORD_BYTES - 1


def test_a_signal_handler_may_use_the_board_at_any_moment(new_board: Board) -> None:
    events = 0

    def use(signum: int, frame: object) -> None:
        nonlocal events
        new_board.flags()[0] = 1
        new_board.post(b"D")
        events += 1

    before = signal.signal(signal.SIGVTALRM, use)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0003, 0.0003)
        while events < 30:
            new_board._after_fork()  # each round from the beginning
            new_board.flags()[0] = 1
            new_board.post(b"F")
            new_board.count(b"F")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert new_board.count(b"D") == events


def test_without_memory_or_a_folder_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="Set TMPDIR"):
        Board()


def test_a_limit_of_file_sizes_is_an_error_and_no_half_board() -> None:
    code = (
        "import resource; from persistq._carrier.board import Board\n"
        "def limit(n): resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))\n"
        "limit(4)\ntry: Board()\nexcept OSError: print('no board')\n"
        "limit(160); b = Board()\ntry: b.flags()\nexcept OSError: print('no bytes')\n"
        "print(b.count(b'D'), b.in_transit())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr) == ("no board\nno bytes\n0 {}\n", "")


def test_a_board_leaves_no_file_and_no_descriptors(tmp_path: Path) -> None:
    code = (
        "import os; from persistq._carrier.board import Board\n"
        "def use():\n b = Board(); b.flags(); b.post(b'D'); return len(os.listdir('/dev/fd'))\n"
        "use(); print(use() - use())\n"
        "del os.memfd_create; use(); print(use() - use()); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-u", "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["0", "0"], "")
    assert list(tmp_path.iterdir()) == []


def test_start_methods_share_one_board() -> None:
    # Made under one context, given to a child of another.
    shared = Board()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=carrier_workers.post_one, args=(shared, b"D"))
    process.start()
    process.join()
    assert shared.count(b"D") == 1
