"""Messages that are read only when they are about to be sent."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier.carrier import Carrier, is_refusal
from persistq._carrier.pipe import RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Nursery

FORK = multiprocessing.get_context("fork")
MANY = 3 * (1 << 20) // RECORD_BYTES


class Source:
    """Numbered messages, in lists; counts the lists that were read."""

    def __init__(self, count: int, each: int = 100, size: int = 0, fail_at: int = -1) -> None:
        self.messages = [b"%d" % n + b"x" * size for n in range(count)]
        self.each = each
        self.fail_at = fail_at
        self.lists = 0

    def __iter__(self) -> Iterator[list[bytes]]:
        for at in range(0, len(self.messages), self.each):
            if self.lists == self.fail_at:
                raise LookupError("line 17 cannot be read")
            self.lists += 1
            yield self.messages[at : at + self.each]


def finish(queue: Carrier, number: int) -> bool:
    for _ in range(number):
        queue.task_done()
    return queue.join(0)


def test_few_messages_are_in_the_pipe_at_once() -> None:
    queue = Carrier()
    source = Source(250)
    assert queue.send_source(250, iter(source)) == (250, None)
    assert not queue._feeder.records
    assert [queue.get_bytes(False) for _ in range(250)] == source.messages
    assert finish(queue, 250)


@pytest.mark.parametrize("size", [0, 300])
def test_many_arrive_in_order_and_later_puts_behind_them(size: int) -> None:
    queue = Carrier()
    source = Source(MANY, size=size)
    assert queue.send_source(MANY, iter(source)) == (MANY, None)
    queue.put_bytes(b"behind")
    second = Source(300)
    assert queue.send_source(300, iter(second)) == (300, None)
    assert queue.qsize() == MANY + 301
    expected = [*source.messages, b"behind", *second.messages]
    assert [queue.get_bytes() for _ in expected] == expected
    queue.put_bytes(b"last")
    assert queue.get_bytes() == b"last"  # nothing came twice, nor is left
    assert finish(queue, len(expected) + 1)


def test_it_is_read_no_further_than_what_the_pipe_takes() -> None:
    queue = Carrier()
    source = Source(MANY)
    queue.send_source(MANY, iter(source))
    held = (1 << 20) // RECORD_BYTES
    assert source.lists * source.each <= held + 2 * source.each
    for _ in range(MANY):
        queue.get_bytes()
    assert source.lists * source.each >= MANY


def test_a_bounded_carrier_takes_them_as_slots_come_free(nursery: Nursery) -> None:
    queue = Carrier(5, ctx=FORK)
    child = nursery.start(carrier_workers.get_raw, queue, 1000)
    assert child.receive() == "ready"
    source = Source(1000)
    assert queue.send_source(1000, iter(source)) == (1000, None)
    assert child.result() == source.messages
    assert finish(queue, 1000)


@pytest.mark.parametrize("maxsize", [0, 1000])
def test_what_the_source_raises_in_the_call_is_handed_back(maxsize: int) -> None:
    queue = Carrier(maxsize)
    source = Source(500, fail_at=2)
    sent, error = queue.send_source(500, iter(source))
    assert sent == 200
    assert isinstance(error, LookupError)
    assert not is_refusal(error)
    assert [queue.get_bytes(False) for _ in range(200)] == source.messages[:200]
    assert finish(queue, 200)


def test_what_the_source_raises_in_the_feeder_is_logged_and_costs_only_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = Carrier()
    number = MANY // 100 * 100
    source = Source(number, fail_at=number // 100 - 7)
    assert queue.send_source(number, iter(source)) == (number, None)
    queue.put_bytes(b"behind")
    expected = [*source.messages[:-700], b"behind"]
    assert [queue.get_bytes() for _ in expected] == expected
    assert "700 messages" in caplog.text
    assert "line 17 cannot be read" in caplog.text
    assert finish(queue, len(expected))


def test_a_source_with_too_few_leaves_no_task_that_nobody_does() -> None:
    queue = Carrier()
    sent, error = queue.send_source(150, iter(Source(100)))
    assert sent == 100
    assert "50 messages fewer" in str(error)
    assert finish(queue, 100)


def test_a_batch_whose_write_an_interrupt_hit_stays_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupt(BaseException):
        pass

    queue = Carrier()
    write = os.write

    def write_and_be_interrupted(fd: int, data: bytes) -> int:
        written = write(fd, data)
        if fd == queue._write_fd:
            raise Interrupt
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_and_be_interrupted)
        sent, error = queue.send_source(300, iter(Source(300)))
    assert sent == 0
    assert isinstance(error, Interrupt)
    number = queue.qsize()
    assert [queue.get_bytes(False) for _ in range(number)] == [b"%d" % n for n in range(number)]
    assert number > 0
    assert finish(queue, number)


def test_a_process_that_ends_sends_all_of_it(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    child = nursery.start(carrier_workers.send_numbers, queue, MANY)
    assert [queue.get_bytes(timeout=20) for _ in range(MANY)] == [b"%d" % n for n in range(MANY)]
    child.result()


MEMORY = """
import resource, threading
from persistq._carrier.carrier import Carrier
def lists():
    for at in range(0, 300_000, 200):
        yield [b"%0200d" % n for n in range(at, at + 200)]
def peak_kb():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1])
q = Carrier()
q.put_bytes(b"x"); q.get_bytes(); q.task_done()
before = peak_kb()
assert q.send_source(300_000, lists()) == (300_000, None)
assert q.qsize() == 300_000
for n in range(300_000):
    assert int(q.get_bytes()) == n
print(peak_kb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_three_hundred_thousand_messages_need_no_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3000  # KB; all of them would take 80,000
