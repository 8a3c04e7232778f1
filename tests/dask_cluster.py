"""A Dask cluster as one starts it by hand: a scheduler and workers, each a process to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import persistq

START_LIMIT_S = 40
# One death of a worker is one attempt at a message, as with workers of our own.
SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}


def environment() -> dict[str, str]:
    """Return an environment in which the tests' modules and this very persistq are found."""
    paths = [str(Path(persistq.__file__).parents[1]), str(Path(__file__).parent)]
    return {**os.environ, **SETTINGS, "PYTHONPATH": os.pathsep.join(paths)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A scheduler on loopback, and its workers.

    Args:
        folder (Path): Where workers keep what they spill, and all say what they do.
        workers (int): How many `dask worker` commands, each of one process with a nanny.
    """

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._number = workers
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment(),
                start_new_session=True,
            )

    def start(self) -> None:
        """Start whatever does not run; with a new scheduler new workers, which knew the old one."""
        if self._scheduler is None or self._scheduler.poll() is not None:
            for worker in self._workers:
                _kill_group(worker)
            port = self.address.rpartition(":")[2]
            self._scheduler = self._start(
                "dask_scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"
            )
            self._wait_for_port(int(port))
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < self._number:
            self._workers.append(
                self._start("dask_worker", self.address, "--nthreads=1", "--no-dashboard")
            )

    def _wait_for_port(self, port: int) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError((self._folder / "log").read_text())
            time.sleep(0.02)

    def kill_scheduler(self) -> None:
        assert self._scheduler is not None
        _kill_group(self._scheduler)

    def kill_worker(self, number: int) -> None:
        """Kill one with its nanny, as a host is lost."""
        _kill_group(self._workers[number])

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in (*self._workers, self._scheduler):
            if process is not None:
                _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
