"""What every test has: a time limit of its own, children that never outlive it, and journals."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from journals import Journals
from persistq import PersistentQueue
from processes import Nursery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIME_LIMIT_S = 30

# Started by a shell in the background, this process ignores Ctrl-C; so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _time_limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else TIME_LIMIT_S


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fail a test that hangs, and say where it hung."""
    limit_s = _time_limit_s(item)

    def fail(signum: int, frame: object) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__)
        pytest.fail(f"took longer than its time limit of {limit_s:g} seconds")

    # Where the alarm cannot break the hang (a lock held in C), the watchdog ends the whole run.
    faulthandler.dump_traceback_later(limit_s * 2 + 10, exit=True, file=sys.__stderr__)
    use_alarm = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if use_alarm:
        previous = signal.signal(signal.SIGALRM, fail)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return (yield)
    finally:
        if use_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """Start child processes that are killed and reaped when the test ends."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def start_method(request: pytest.FixtureRequest) -> str:
    """Every start method that this platform has."""
    import multiprocessing

    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no start method {request.param!r}")
    return str(request.param)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    return tmp_path / "current"


@pytest.fixture
def journals(current: Path) -> Journals:
    return Journals(current)


@pytest.fixture
def make_queue(current: Path) -> Callable[..., PersistentQueue]:
    """Make a queue that journals as `jobs` in the current directory."""

    def make(**arguments: Any) -> PersistentQueue:
        arguments.setdefault("pickup_file_prefix", "jobs")
        arguments.setdefault("current_pickup_dir", current)
        return PersistentQueue(**arguments)

    return make
