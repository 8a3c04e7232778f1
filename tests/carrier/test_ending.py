"""How a process says that it puts no more."""

from __future__ import annotations

import multiprocessing
import os
import signal
from queue import Empty
from typing import TYPE_CHECKING, Any

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier import backlog
from persistq._carrier.carrier import Carrier, is_refusal
from persistq._carrier.pipe import RECORD_BYTES

if TYPE_CHECKING:
    from processes import Nursery

FORK = multiprocessing.get_context("fork")
MANY = 3 * (1 << 20) // RECORD_BYTES


def take_all(queue: Carrier) -> list[bytes | None]:
    taken = []
    while True:
        try:
            taken.append(queue.get_bytes(False))
        except Empty:
            return taken


def test_an_end_is_posted_and_wakes_readers() -> None:
    queue = Carrier()
    queue.put_bytes(b"work")
    queue.end(b"D", 3)
    assert queue.board.count(b"D") == 1
    assert take_all(queue) == [b"work", None, None, None]
    queue.task_done()
    assert queue.join(0)


def test_a_notice_comes_between_the_work_and_the_wakes() -> None:
    queue = Carrier(1)
    queue.put_bytes(b"work")
    queue.end(b"F", 20, b"failed")
    assert queue.board.count(b"F") == 1
    assert take_all(queue) == [b"work", b"failed", *[None] * 20]


def test_an_end_comes_behind_what_waits_in_the_feeder() -> None:
    queue = Carrier()
    for n in range(MANY):
        queue.put_bytes(b"%d" % n)
    queue.end(b"F", 1, b"failed")
    assert queue.qsize() == MANY + 1
    assert [queue.get_bytes() for _ in range(MANY)] == [b"%d" % n for n in range(MANY)]
    assert [queue.get_bytes(), queue.get_bytes()] == [b"failed", None]
    assert queue.board.count(b"F") == 1
    assert queue.qsize() == 0


def test_an_end_is_not_posted_while_messages_wait_in_the_feeder() -> None:
    queue = Carrier()
    for n in range(MANY):
        queue.put_bytes(b"%d" % n)
    queue.end(b"D", 0)
    assert not queue.board.has_news()
    assert queue.board.in_transit()[queue.board.token()].backlog
    for _ in range(MANY):
        queue.get_bytes()
    queue.close()
    queue.join_thread()
    assert queue.board.count(b"D") == 1
    assert not queue.board.in_transit()[queue.board.token()].backlog


def test_an_end_never_waits_though_the_pipe_is_full() -> None:
    queue = Carrier()
    fill(queue)
    queue.end(b"D", 100)
    assert queue.board.count(b"D") == 1
    assert None not in take_all(queue)


def fill(queue: Carrier) -> None:
    record = b"\3abc" + b"\0" * (RECORD_BYTES - 5) + b"\n"
    while True:
        try:
            os.write(queue._writer.fileno(), record)
        except BlockingIOError:
            return


def test_a_closed_carrier_cannot_end() -> None:
    queue = Carrier()
    queue.put_bytes(b"x")
    queue.close()
    with pytest.raises(ValueError, match="is closed") as raised:
        queue.end(b"D", 1)
    assert is_refusal(raised.value)


def test_a_process_killed_before_the_wakes_has_ended_all_the_same(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    child = nursery.start(carrier_workers.end_and_die_before_the_wakes, queue)
    child.process.join(20)
    assert child.process.exitcode == -signal.SIGKILL
    assert queue.board.has_news()
    assert queue.board.count(b"D") == 1
    assert take_all(queue) == [b"work"]


def test_an_end_that_cannot_be_posted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: bytes) -> None:
        raise OSError(28, "No space left on device")

    queue = Carrier()
    monkeypatch.setattr(queue.board, "post", refuse)
    with pytest.raises(OSError, match="No space"):
        queue.end(b"D", 1)
    assert take_all(queue) == []


def test_a_feeder_that_cannot_post_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    queue = Carrier()
    monkeypatch.setattr(backlog.Ending, "tell", refuse)
    for n in range(MANY):
        queue.put_bytes(b"%d" % n)
    queue.end(b"D", 1)
    queue.put_bytes(b"behind")
    assert [queue.get_bytes() for _ in range(MANY + 1)][-1] == b"behind"
    assert "No space" in caplog.text
