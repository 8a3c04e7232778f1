"""Functions that `run` calls in the tests' worker processes, and jobs that are children themselves.

What a function has done is a file, or a line in one: that outlives every process.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from persistq import run


def _fault() -> None:
    faulthandler.disable()  # which a fork has from its test, and which would say so at length
    os.kill(os.getpid(), signal.SIGSEGV)


DEADLY = {
    "segfault": _fault,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
}


def note(folder: str, text: str) -> None:
    """Write a line in one write, which is whole or absent however this process ends."""
    fd = os.open(os.path.join(folder, "done"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def noted(folder: Path) -> list[str]:
    path = folder / "done"
    return path.read_text().splitlines() if path.exists() else []


def write_outcome(folder: str, outcome: dict[str, Any]) -> None:
    Path(folder, "outcome").write_text(json.dumps(outcome))


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return what `write_outcome` was given, and the lines of all notes as `results`."""
    return {**json.loads((folder / "outcome").read_text()), "results": noted(folder)}


def wait_for(path: Path, limit_s: float = 20) -> None:
    deadline_s = time.monotonic() + limit_s
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} has not come"
        time.sleep(0.005)


def mixed(message: tuple[str, int]) -> None:
    kind, number = message
    if kind == "raise":
        raise ValueError(f"bad {number}")
    if kind in DEADLY:
        DEADLY[kind]()


def double(message: str) -> str:
    return message * 2


def do(message: tuple[str, str]) -> None:
    folder, name = message
    note(folder, name)


def do_or_raise(message: tuple[str, str]) -> None:
    folder, name = message
    if name.startswith("bad") and not os.path.exists(os.path.join(folder, "mended")):
        raise LookupError(name)
    note(folder, name)


def hang(message: tuple[str, str]) -> None:
    """Hang on a message called `hang`, and close what is open where it is asked to end."""
    folder, name = message
    try:
        if name == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while name != "quick":
            time.sleep(0.01)
    finally:
        note(folder, f"left {name}")


def gate(message: tuple[str, str]) -> None:
    """Say that it has begun, and go on when the gate is open."""
    folder, name = message
    Path(folder, f"began-{name}").touch()
    wait_for(Path(folder, "open"))
    note(folder, name)


def strange_result(message: str) -> Any:
    if message == "function":
        return lambda: None
    if message == "bad":
        raise LookupError(message)
    if message in DEADLY:
        DEADLY[message]()
    if message == "lock":
        return threading.Lock()
    if message == "large":
        return b"x" * 3_000_000
    if message == "dies":
        os._exit(1)
    return message


def meet(own: str, other: str) -> None:
    """Make a file, and wait for another one: two that meet are two processes."""
    Path(own).touch()
    wait_for(Path(other))


def die_in_company(message: tuple[str, str]) -> None:
    """Die, or be the neighbour: which is at work at the first two deaths, and then for a while."""
    folder, name = message
    times = len(list(Path(folder).glob(f"{name}-*")))
    Path(folder, f"{name}-{times}").touch()
    if name == "deadly":
        if times < 2:
            wait_for(Path(folder, f"neighbour-{times}"))
        os._exit(1)
    time.sleep(60 if times < 2 else 0.3)  # its pool ends it
    note(folder, name)


class _Note(logging.Handler):
    """Make a file when the job says that it stops."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def emit(self, record: logging.LogRecord) -> None:
        if "stops: " in record.getMessage():
            Path(self._folder, "stops").touch()


def run_gate(talk: Any, folder: str, names: list[str], arguments: dict[str, Any]) -> Any:
    """Run a job in a process of its own; say what came of it."""
    logging.getLogger("persistq").addHandler(_Note(folder))
    if arguments.pop("with_results", False):
        arguments["on_result"] = lambda message, result: note(folder, f"result {message[1]}")
    try:
        summary = run(
            gate, [(folder, name) for name in names], root=os.path.join(folder, "p"), **arguments
        )
    except KeyboardInterrupt:
        return "interrupted"
    return summary.done


def run_and_end(talk: Any, folder: str, context: str) -> str:
    return str(run(do, [(folder, str(n)) for n in range(20)], root=folder, context=context))


def fail_to_start(message: str) -> None:
    """Do nothing: see `_Unimportable`."""


class Unimportable:
    """A function that can be pickled, and cannot be unpickled in a worker."""

    __name__ = "unimportable"

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __call__(self, message: str) -> None:
        pass

    def __reduce__(self) -> Any:
        return _unpickle, (os.getpid(),)


def _unpickle(pid: int) -> Unimportable:
    if os.getpid() != pid:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        raise ImportError("no module named nothing")
    return Unimportable()


def terminate_itself(message: tuple[str, str]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    note(*message)


def leave(message: str) -> None:
    if message == "a":
        sys.exit(4)


def _tell_and_sleep(connection: Any) -> None:
    connection.send("here")
    time.sleep(20)


def terminate_a_child(message: str) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_tell_and_sleep, args=(theirs,))
    with warnings.catch_warnings():  # a worker has threads, which Python 3.12 and later warn of
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    assert ours.recv() == "here"
    child.terminate()
    child.join(10)
    assert child.exitcode == -signal.SIGTERM
