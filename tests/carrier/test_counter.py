"""A number that processes share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import carrier_workers
from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier import counter

if TYPE_CHECKING:
    from processes import Nursery

KINDS = [counter.EventCounter, counter.SemaphoreCounter]
if counter._eventfd is None:
    KINDS = [counter.SemaphoreCounter]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def make(kind: Any, value: int = 0, method: str = "spawn") -> Any:
    return kind(value, multiprocessing.get_context(method))


def test_it_goes_down_as_often_as_it_went_up(kind: Any) -> None:
    number = make(kind, 2)
    number.up()
    number.up(300)
    assert [number.down() for _ in range(304)] == [True] * 303 + [False]
    assert number.is_zero()


def test_looking_at_it_changes_nothing(kind: Any) -> None:
    number = make(kind, 1)
    assert [number.is_zero() for _ in range(3)] == [False] * 3
    assert number.down()
    assert number.is_zero()


def test_it_is_the_same_number_in_a_child(kind: Any, nursery: Nursery, start_method: str) -> None:
    number = make(kind, 3, start_method)
    child = nursery.start(carrier_workers.count_down_and_up, number, 5, method=start_method)
    assert child.result() == 3
    assert [number.down() for _ in range(6)] == [True] * 5 + [False]


def test_a_wait_ends_when_another_raises_it_or_time_is_up(kind: Any) -> None:
    number = make(kind)
    began = time.monotonic()
    assert not number.down_in_time(0.05)
    assert time.monotonic() - began >= 0.05
    other = threading.Thread(target=number.up)
    other.start()
    assert number.down_in_time(20)
    other.join()
    assert not number.down_in_time(0)


@pytest.mark.skipif(counter._eventfd is None, reason="no eventfd here: semaphores have names")
def test_a_killed_script_leaves_nothing_that_anybody_prints_about() -> None:
    code = (
        "import os, multiprocessing as m; from persistq._carrier.carrier import Carrier; "
        "q = Carrier(5, ctx=m.get_context('spawn')); q.put(1); "
        "from multiprocessing import resource_tracker as r; "
        "print(r._resource_tracker._pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == -signal.SIGKILL
    # Not even a tracker was started, for there was nothing to track.
    assert (done.stdout.strip(), done.stderr) == ("None", "")


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors cannot be listed here")
def test_it_closes_itself() -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        make(counter.Counter)
    assert len(os.listdir("/dev/fd")) <= before
