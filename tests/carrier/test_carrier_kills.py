"""A process killed at any moment stops none of the others."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import Full
from typing import TYPE_CHECKING, Any

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier import slots
from persistq._carrier.carrier import Carrier

if TYPE_CHECKING:
    from processes import Nursery

FORK = multiprocessing.get_context("fork")
PROGRAM = Path(__file__).parents[1] / "reliability" / "kill_carrier.py"
METHODS = [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]


def wait_for_death(child: Any) -> None:
    child.process.join(20)
    assert child.process.exitcode == -signal.SIGKILL


def test_killed_waiting_workers_do_not_stop_the_last_one(
    nursery: Nursery, start_method: str
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context(start_method))
    workers = [
        nursery.start(carrier_workers.get_until_killed, queue, method=start_method)
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.receive() == "ready"
    for worker in workers[:3]:
        worker.kill()
    for n in range(100):
        queue.put(n)
    assert [workers[3].receive() for _ in range(100)] == list(range(100))
    assert queue.join(timeout=10)


@pytest.mark.parametrize(
    "moment",
    ["after taking a slot", "after taking a record"],
)
def test_a_slot_that_a_killed_process_took_with_it_is_replaced(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(slots, "_LOST_AFTER_S", 0.2)
    monkeypatch.setattr(slots, "_LOOK_S", 0.05)
    queue = Carrier(1, ctx=FORK)
    if moment == "after taking a record":
        queue.put("taken")
    wait_for_death(nursery.start(carrier_workers.die_at, queue, moment, "never sent"))
    for n in range(5):
        queue.put(n, timeout=20)
        assert queue.full()
        assert queue.get(timeout=0) == n


def test_a_slot_wrongly_replaced_is_taken_out_again(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_LOST_AFTER_S", 0.2)
    monkeypatch.setattr(slots, "_LOOK_S", 0.05)
    queue = Carrier(2, ctx=FORK)
    mine: Any = queue._slots
    # A process that is only stopped: it has the slot, and gives it back in the end.
    assert mine.number.down()
    queue.put(1)
    queue.put(2, timeout=20)
    mine.free()
    assert [queue.get(), queue.get()] == [1, 2]
    queue.put(3)
    queue.put(4)
    with pytest.raises(Full):
        queue.put(5, block=False)
    assert [queue.get(), queue.get()] == [3, 4]
    queue.put(6)
    queue.put(7)
    assert queue.full()


def test_a_slot_whose_message_waits_in_a_feeder_is_not_held_for_lost(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_LOST_AFTER_S", 0.1)
    monkeypatch.setattr(slots, "_LOOK_S", 0.05)
    number = 10_000  # more than the pipe holds
    queue = Carrier(number, ctx=FORK)
    writer = nursery.start(carrier_workers.put_all_and_stay, queue, list(range(number)))
    assert writer.receive() == "all put"
    assert queue.qsize() < number
    with pytest.raises(Full):
        queue.put("one too many", timeout=0.5)
    assert [queue.get() for _ in range(number)] == list(range(number))
    writer.send("end")
    writer.result()


def test_a_reader_killed_before_it_reads_a_large_message_costs_that_message_only(
    nursery: Nursery,
) -> None:
    queue = Carrier(ctx=FORK)
    for n in range(50):
        queue.put((n, "x" * 3000))
    wait_for_death(
        nursery.start(carrier_workers.die_at, queue, "before reading a large message", None)
    )
    assert [queue.get()[0] for _ in range(49)] == list(range(1, 50))
    for n in range(50):
        queue.put((n, "y" * 3000))
        assert queue.get() == (n, "y" * 3000)


def test_a_writer_killed_before_it_sends_a_large_message_costs_nothing(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    wait_for_death(
        nursery.start(carrier_workers.die_at, queue, "before sending a large message", "x" * 3000)
    )
    assert queue.empty()
    assert queue.join(timeout=0)
    queue.put("y" * 3000)
    assert queue.get() == "y" * 3000


def test_writers_killed_in_the_middle_leave_whole_messages_in_order(nursery: Nursery) -> None:
    queue = Carrier(ctx=FORK)
    for size in (20, 300, 200_000):
        writer = nursery.start(carrier_workers.put_until_killed, queue, "x" * size)
        assert writer.receive() == "ready"
        for _ in range(5):
            assert queue.get(timeout=20) == "x" * size
        writer.kill()
        while not queue.empty():
            assert queue.get() == "x" * size
    queue.put("last")
    assert queue.get(timeout=5) == "last"


def run_program(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env={**os.environ},
    )
    assert done.stdout, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, (figures, done.stderr)
    return figures


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("maxsize", [0, 5])
def test_random_kills_stop_nobody_and_lose_nothing(method: str, maxsize: int) -> None:
    rounds = 6 if method == "fork" else 1
    figures = run_program(
        "--rounds", str(rounds), "--start-method", method, "--maxsize", str(maxsize)
    )
    assert sum(figures["kills"].values()) == rounds * 10
    assert (figures["hangs"], figures["lost"], figures["repeated"], figures["errors"]) == (
        0,
        0,
        0,
        0,
    )
    assert figures["messages"] > 0
