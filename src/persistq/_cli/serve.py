"""Queues as a page: `persistq serve`, which shows it, and `persistq report`, which writes it."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading

from persistq._cli import look, show
from persistq._cli.exits import FINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from persistq._survey.under import Surveyor


def _roots(options: argparse.Namespace) -> list[str]:
    """Give the folders to look at, by paths that mean the same to who reads the page.

    Raises:
        ValueError: One is no folder.
        OSError: One is not there.
    """
    roots = []
    for path in options.paths:
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        except FileNotFoundError:
            raise ValueError(
                f"{path} is not there. Expected a folder: a pickup directory, a root of them, a "
                "folder queue, or one that holds such."
            ) from None
        if not is_folder:
            raise ValueError(f"{path} is no folder. Expected one that holds queues.")
        roots.append(os.path.abspath(path))
    return roots


def _surveyor(options: argparse.Namespace, roots: list[str]) -> Surveyor:
    from persistq._survey.under import Surveyor

    return Surveyor(roots, **look.folder_options(options))


def serve(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        options (argparse.Namespace): With `paths`, `host`, `port`, `allowed_host`, and those of
            `look.folder_options`.
    """
    from persistq._web.looks import Looks
    from persistq._web.server import Server

    roots = _roots(options)
    looks = Looks(_surveyor(options, roots))
    server = Server(options.host, options.port, looks, roots, options.allowed_host)
    # Waited for rather than handled: so they end it at once, wherever the threads are, which
    # inherit this. A shell's background job, of which Ctrl-C is none of the business, ignores it.
    ends = {
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    looks.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    show.say(f"serving {show.count_of(len(roots), 'folder')} at {server.url} (Ctrl-C ends it)")
    sys.stdout.flush()
    signal.sigwait(ends or {signal.SIGTERM})
    server.server_close()
    return FINE


def report(options: argparse.Namespace) -> int:
    """Write the page to a file, once.

    Args:
        options (argparse.Namespace): With `paths`, `output`, and those of `look.folder_options`.
    """
    from persistq._web import report

    roots = _roots(options)
    data = report.make(_surveyor(options, roots), roots)
    if options.output == "-":
        show.write(data)
    else:
        report.write(options.output, data)
    return FINE
