"""Signal handlers that put, end, close or raise, at any moment of a put."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import Full
from typing import TYPE_CHECKING, Any

import pytest

from persistq._carrier import default_carrier

if default_carrier._MISSING:
    missing = default_carrier._MISSING
    pytest.skip(f"no carrier here: {missing} is missing", allow_module_level=True)

from persistq._carrier.carrier import Carrier, is_refusal
from persistq._carrier.pipe import RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(__file__).parents[1] / "carrier_interrupts.py"
MANY = 3 * (1 << 20) // RECORD_BYTES


@pytest.mark.parametrize("mode", ["put", "raise", "exit"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_handler_at_random_moments_hangs_nothing_and_loses_nothing(
    mode: str, seed: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), mode, str(seed), str(tmp_path / "result")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=29,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def on_signal() -> Any:
    """Run a function in a signal handler, which the returned function calls for."""
    before = signal.getsignal(signal.SIGUSR1)

    def install(handler: Callable[[], None]) -> Callable[[], None]:
        signal.signal(signal.SIGUSR1, lambda number, frame: handler())
        return lambda: signal.raise_signal(signal.SIGUSR1)

    yield install
    signal.signal(signal.SIGUSR1, before)


def time_out() -> None:
    raise TimeoutError(errno.ETIMEDOUT, "too slow")


@pytest.mark.parametrize("way", ["put_bytes", "send_many"])
def test_what_a_handler_raises_behind_the_write_takes_nothing_back(
    way: str, on_signal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Carrier(5)
    interrupt = on_signal(time_out)
    write = os.write

    def write_and_interrupt(fd: int, data: bytes) -> int:
        written = write(fd, data)
        if len(data) >= RECORD_BYTES:
            interrupt()
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_and_interrupt)
        if way == "put_bytes":
            with pytest.raises(TimeoutError) as raised:
                queue.put_bytes(b"written")
            error: Any = raised.value
        else:
            sent, error = queue.send_many([b"written"])
            assert sent == 0
    assert not is_refusal(error)
    assert queue.get_bytes(False) == b"written"
    queue.task_done()  # it is still counted: else this would be once too often
    assert queue.join(0)
    assert queue.send_many([b"x"] * 9, block=False) == (5, None)


def test_errors_of_the_carrier_say_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Carrier(1)
    queue.put_bytes(b"x")
    with pytest.raises(Full) as full:
        queue.put_bytes(b"y", False)
    assert is_refusal(full.value)
    assert queue.is_refusal(full.value)
    queue.get_bytes()
    queue._write_fd = -1
    with pytest.raises(OSError, match="Bad file") as broken:
        queue.put_bytes(b"y")
    assert is_refusal(broken.value)
    sent, error = queue.send_many([b"y"])
    assert sent == 0
    assert error is not None
    assert is_refusal(error)
    queue.close()
    with pytest.raises(ValueError, match="closed") as closed:
        queue.put_bytes(b"y")
    assert is_refusal(closed.value)
    assert not is_refusal(TimeoutError())
    assert not is_refusal(Full())


def test_a_handler_that_closes_in_the_midst_of_a_put_makes_it_a_refusal(
    on_signal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Carrier()
    close = on_signal(queue.close)
    add = queue._feeder.add
    reader = os.dup(queue._reader.fileno())

    def close_and_add(entries: Any) -> None:
        close()
        add(entries)

    monkeypatch.setattr(queue._feeder, "add", close_and_add)

    def put_all() -> None:
        for n in range(MANY):
            queue.put_bytes(b"%d" % n)

    with pytest.raises(ValueError, match="closed") as raised:
        put_all()
    assert is_refusal(raised.value)
    assert not queue._feeder.records
    os.close(reader)


def test_a_handler_may_wait_for_the_feeder_of_the_put_that_it_interrupts(
    on_signal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Carrier(ctx=multiprocessing.get_context("fork"))
    child = os.fork()
    if child == 0:
        while queue.get_bytes():
            pass
        os._exit(0)

    def end() -> None:
        queue.put_bytes(b"")
        queue.close()
        queue.join_thread()
        raise InterruptedError

    wait = on_signal(end)
    backlog = queue.board.set_backlog

    def interrupt(waits: bool) -> None:
        backlog(waits)
        if waits:
            monkeypatch.setattr(queue.board, "set_backlog", backlog)
            wait()

    monkeypatch.setattr(queue.board, "set_backlog", interrupt)

    def put_all() -> None:
        while True:
            queue.put_bytes(b"x")

    with pytest.raises(InterruptedError):
        put_all()
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_on_the_way_of_a_message_imports() -> None:
    """A fork in the midst of an import leaves the child a lock that nobody releases."""
    import ast

    from persistq import _carrier

    folder = Path(_carrier.__path__[0])
    for path in folder.glob("*.py"):
        if path.name in ("default_carrier.py", "counter.py"):
            continue  # before there is a carrier
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, (ast.FunctionDef, ast.Lambda)):
                for node in ast.walk(function):
                    assert not isinstance(node, (ast.Import, ast.ImportFrom)), path.name
