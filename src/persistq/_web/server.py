"""Who may ask, and what is answered: the page, its JSON, its metrics.

It only reads. A page of another site cannot read what is here, nor frame it; and one whose name
suddenly leads here (DNS rebinding) is refused for the `Host` that its requests name.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import secrets
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from persistq import _processes
from persistq._survey import as_json
from persistq._web import metrics, page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from persistq._web.looks import Looks, Seen

# A client that sends or takes nothing for so long is given up, and more at a time are turned away:
# each has a thread.
_PATIENCE_S = 10
_MOST_CLIENTS = 64
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Answers requests, each in a thread of its own.

    Args:
        host (str): The address to listen at, or a name of it.
        port (int): The port; 0 for any that is free.
        looks (Looks): What there is to see.
        roots (Sequence[str]): The folders that are looked at.
        allowed_hosts (Collection[str]): Names by which browsers may call it, besides its own.

    Raises:
        ValueError: The address is none of this machine's, or the port is taken or not allowed.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        host: str,
        port: int,
        looks: Looks,
        roots: Sequence[str],
        allowed_hosts: Collection[str] = (),
    ) -> None:
        if not 0 <= port <= 65535:  # getaddrinfo takes the rest of a division
            raise ValueError(f"--port {port}: expected a number from 0 (any that is free) to 65535")
        self.looks = looks
        self.roots = roots
        self._clients = threading.BoundedSemaphore(_MOST_CLIENTS)
        self._own_names = {"localhost", "127.0.0.1", "::1", host.lower()}
        self._own_names |= {name.lower() for name in allowed_hosts}
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, _, _, _, address = found[0]
            super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        except OSError as error:
            raise ValueError(_why_not(host, port, error)) from error
        bound = str(self.server_address[0])
        self._is_open_to_all = ipaddress.ip_address(bound).is_unspecified
        self._own_names.add(bound)

    def server_bind(self) -> None:
        """Bind, and ask no name server what this machine is called, as `http.server` would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = map(str, self.server_address[:2])  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = str(self.server_address[0])
        if self._is_open_to_all:
            host = "localhost"
        return (
            f"http://[{host}]:{self.server_port}/"
            if ":" in host
            else f"http://{host}:{self.server_port}/"
        )

    def is_own(self, host: str) -> bool:
        """Tell whether a `Host` header names this server, whatever the port: there may be a tunnel.

        Args:
            host (str): The header.
        """
        is_version_6 = host.startswith("[")
        name = host[1:].partition("]")[0] if is_version_6 else host.partition(":")[0]
        name = name.lower().rstrip(".")
        if name in self._own_names:
            return True
        if not self._is_open_to_all:
            return False
        # Names are what an attacker can point here; addresses, and what only this machine's own
        # network calls it, are not.
        if name == _processes.host_name().lower():
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there are not too many."""
        if not self._clients.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and let the next one come."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._clients.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _PATIENCE_S
    error_message_format = "%(code)d %(message)s. %(explain)s.\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.is_own(hosts[0].strip()):
            self._send(
                421,
                "text/plain; charset=utf-8",
                "This server does not answer to the name in the Host header: expected the address "
                "it listens at, or localhost. If people are to call it by another name, start it "
                "with --allowed-host NAME.\n",
            )
            return
        path = urlsplit(self.path).path
        if path not in ("/", "/status.json", "/metrics"):
            self._send(
                404,
                "text/plain; charset=utf-8",
                "There is nothing here. Expected /, /status.json or /metrics.\n",
            )
            return
        seen, looking_s = self.server.looks.latest()
        if path == "/":
            self._send_page(seen, looking_s)
        elif seen is None:
            self._send(
                503,
                "text/plain; charset=utf-8",
                "The first look has not ended yet. Try again.\n",
                {"Retry-After": "3"},
            )
        elif path == "/status.json":
            # ASCII: what is no UTF-8 in a name stands there as a lone surrogate.
            self._send(200, "application/json", json.dumps(_as_json(seen), indent=2) + "\n")
        else:
            self._send(200, metrics.CONTENT_TYPE, metrics.text(seen))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._send(
            405,
            "text/plain; charset=utf-8",
            "Nothing can be changed here. Expected GET or HEAD.\n",
            {"Allow": "GET, HEAD"},
        )

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST

    def _send_page(self, seen: Seen | None, looking_s: float) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        more = {"Content-Security-Policy": policy}
        if seen is None:
            more["Retry-After"] = "3"
            self._send(503, "text/html; charset=utf-8", page.waiting(nonce), more)
        else:
            text = page.render(seen, self.server.roots, nonce, looking_s)
            self._send(200, "text/html; charset=utf-8", text, more)

    def _send(self, status: int, kind: str, text: str, more: dict[str, str] | None = None) -> None:
        data = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in {**_HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def version_string(self) -> str:
        return "persistq"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a page that renews itself would fill the terminal."""


def _as_json(seen: Seen) -> list[dict[str, Any]]:
    """Give what `persistq status --json` prints, and what could not be read."""
    found = as_json.surveys(queue.survey for queue in seen.queues)
    found += [
        {"schema": as_json.SCHEMA, "kind": "unreadable", "path": place.path, "error": place.error}
        for place in seen.unreadable
    ]
    return found


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use, perhaps by another 'persistq serve'. Choose another "
            "one with --port; --port 0 takes any that is free."
        )
    if error.errno == errno.EACCES:
        return (
            f"port {port} of {host} is not allowed to this user. Choose one above 1023 with --port."
        )
    return (
        f"cannot listen at {host}, port {port}: {error}. Expected an address of this machine as "
        "--host: 127.0.0.1 for itself alone, 0.0.0.0 for all that reach it."
    )
