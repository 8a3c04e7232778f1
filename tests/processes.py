"""Start child processes, shake hands with them, and reap them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import traceback
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

HANDSHAKE_LIMIT_S = 25


def _run(target: Callable[..., Any], talk: Connection, args: tuple[Any, ...]) -> None:
    # As for the tests themselves (pyproject.toml): forking beside a feeder thread is what some are
    # about. A spawned child has only what the command line says, which may be `-W error`.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    try:
        result = target(talk, *args)
    except BaseException as error:
        traceback.print_exc()
        talk.send(("error", repr(error)))
        os._exit(1)  # the error has been told: no second report by the interpreter's exit
    talk.send(("result", result))


def can_unshare(*flags: str) -> bool:
    """Tell whether `unshare` does this here: not without root, nor in every container or chroot."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False)
    return tried.returncode == 0


class Child:
    """A process that runs `target(talk, *args)`, where `talk` is a pipe to the test."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...], method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self.talk, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(target, theirs, args), daemon=False)
        self.process.start()
        theirs.close()
        self.pid: int = self.process.pid

    def receive(self) -> Any:
        """Wait for the next thing that the child sends with `talk.send`."""
        if not self.talk.poll(HANDSHAKE_LIMIT_S):
            raise TimeoutError(f"child {self.pid} said nothing for {HANDSHAKE_LIMIT_S} s")
        return self.talk.recv()

    def send(self, obj: Any) -> None:
        self.talk.send(obj)

    def result(self) -> Any:
        """Wait for the child to end, and return what its target returned."""
        while True:
            kind, value = self.receive()
            if kind == "result":
                self.process.join(HANDSHAKE_LIMIT_S)
                assert self.process.exitcode == 0
                return value
            if kind == "error":
                raise AssertionError(f"child {self.pid} failed: {value}")

    def kill(self) -> None:
        """Kill the child with SIGKILL and reap it."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.join()

    def join(self) -> int | None:
        self.process.join(HANDSHAKE_LIMIT_S)
        code: int | None = self.process.exitcode
        return code


class Nursery:
    """Children of one test: none of them outlives it."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def start(self, target: Callable[..., Any], *args: Any, method: str = "fork") -> Child:
        child = Child(target, args, method)
        self._children.append(child)
        return child

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in self._children:
            if child.process.is_alive():
                child.process.kill()
            child.process.join()
            child.talk.close()
            child.process.close()
