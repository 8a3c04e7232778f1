"""A `redis-server` of a test's own: on loopback, in a folder, to be killed and started again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

START_LIMIT_S = 20


class Server:
    """One server.

    Args:
        folder (Path): Where it keeps what it keeps.
        appends (bool): Whether it writes an append-only file (AOF), and has all again when it is
            started again; else it has nothing.
    """

    def __init__(self, folder: Path, appends: bool = False) -> None:
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self._port}"
        self._appends = "yes" if appends else "no"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        command = shutil.which("redis-server")
        assert command is not None
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(command, "--port", str(self._port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._folder), "--save", "", "--appendonly", self._appends),
                ],
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + START_LIMIT_S
        while not self._answers():
            assert time.monotonic() < deadline_s, (self._folder / "log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"+PONG")  # not while it loads
        except OSError:
            return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
