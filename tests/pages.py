"""A page as a real server serves it, and a real browser that looks at it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 25
COMMAND = [sys.executable, "-m", "persistq"]


class Answer:
    """What the server has answered."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode("utf-8")  # strict


class Served:
    """`persistq serve`, which does not outlive the `with` block.

    Args:
        arguments (str | Path): Its arguments.
        first (str): What its process does before all else, in Python.
    """

    def __init__(self, *arguments: str | Path, first: str = "pass") -> None:
        code = f"{first}\nfrom persistq._cli import main\nraise SystemExit(main())"
        command = [sys.executable, "-c", code, "serve", "--port", "0", *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        match = re.search(r"http://\S+:(\d+)/", self.said)
        if match is None:
            _, errors = self.process.communicate(timeout=LIMIT_S)
            raise AssertionError(errors)
        self.url, self.port = match[0], int(match[1])

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders()
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def until(self, path: str, text: str) -> Answer:
        """Ask again and again until the answer holds a text."""
        deadline_s = time.monotonic() + LIMIT_S
        while text not in (answer := self.get(path)).text:
            assert time.monotonic() < deadline_s, answer.text
            time.sleep(0.1)
        return answer

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit status, and what was said on standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=5)
        return self.process.returncode, errors

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()


def why_no_browser() -> str | None:
    """Say what is missing for a test in a browser."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        return "chromium and chromedriver (Debian: chromium, chromium-driver) are not installed"
    return None


class Browser:
    """Chromium, driven by the WebDriver protocol: a telephone of 360 pixels, or a window.

    Args:
        folder (Path): Where its profile lives.
        width (int): Its width in pixels.
        switches (str): More of its command line.
    """

    def __init__(self, folder: Path, width: int = 1200, *switches: str) -> None:
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            match = re.search(r"on port (\d+)\.", line)
            if match:
                break
        self._base = f"http://127.0.0.1:{match[1]}" if match else ""
        metrics = {"width": width, "height": 800, "pixelRatio": 1}
        options = {
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                f"--user-data-dir={folder / 'profile'}",
                *switches,
            ],
            "mobileEmulation": {"deviceMetrics": metrics},
        }
        wanted = {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": options,
        }
        self._session = ""
        try:
            session = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.kill()
            raise
        self._session = f"/{session['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self._base}/session{self._session}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Run JavaScript in the page; give what it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def until(self, script: str) -> Any:
        """Wait until JavaScript gives something that is true."""
        deadline_s = time.monotonic() + LIMIT_S
        while not (value := self.run(script)):
            assert time.monotonic() < deadline_s, self.run("return document.body.innerText")
            time.sleep(0.1)
        return value

    def tell(self, command: str, **parameters: Any) -> Any:
        """Give a command of the Chrome DevTools Protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def source(self) -> str:
        return str(self._call("GET", "/source"))

    def complaints(self) -> list[str]:
        """Give what stands on the browser's console: errors, and what its policy has refused."""
        return [
            str(entry["message"]) for entry in self._call("POST", "/se/log", {"type": "browser"})
        ]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.communicate()


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what a write below a folder would change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = os.lstat(path)
        found[str(path)] = (status.st_mtime_ns, status.st_ino, status.st_size)
    return found
