"""How an operator or a shell script uses queues: the command `persistq`.

Rooms: `parser` says which commands there are, `options` how they are made, `look`, `watch`,
`failed`, `serve`, `repair`, `retire` and `take_part` carry them out, `show` prints. Nothing is
imported here before it is known that it is needed.
"""

from __future__ import annotations

import sys

import persistq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FINE, OUTSTANDING, ERROR, QUEUE_DONE, QUEUE_FAILED, NOTHING = range(6)
"""What the command exits with; the reference page says which command gives which."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv (Sequence[str] | None): The arguments; None for those of this process.

    Returns:
        int: The exit status.
    """
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    if arguments in (["--version"], ["-V"]):
        # Before anything is imported: scripts ask for it, and should not have to wait.
        print(f"persistq {persistq.__version__}")
        return FINE
    from persistq._cli.show import complain, log_to_stderr

    _replace_closed_streams()
    log_to_stderr(arguments[:1])
    try:
        try:
            from persistq._cli.parser import parse

            options = parse(arguments)
            status: int = options.run(options)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _end_by_signal("SIGINT", 130)
    except BrokenPipeError:
        return _end_by_signal("SIGPIPE", 141)
    except OSError as error:
        complain(_describe(error))
        _drop_output()
        return ERROR
    except (ValueError, persistq.PersistqError) as error:
        complain(str(error))
        return ERROR
    return status


def _replace_closed_streams() -> None:
    """Have a stream that the shell has closed (`>&-`) be one that is empty, or takes nothing."""
    import os

    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        # A write fails, for what a script asks for must not seem to have been told.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")


def _drop_output() -> None:
    """Forget what could not be written: it would fail once more when Python flushes at its end."""
    import os

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, stream.fileno())
            os.close(devnull)


def _describe(error: OSError) -> str:
    if error.filename is None:
        return error.strerror or str(error)
    target = f" -> {error.filename2}" if error.filename2 is not None else ""
    return f"{error.filename}{target}: {error.strerror}"


def _end_by_signal(name: str, status: int) -> int:
    """End as the signal would have ended us, which is what tells a shell to stop its loop."""
    import os
    import signal

    if name == "SIGPIPE":
        _drop_output()
    number = getattr(signal, name, None)
    if number is not None and os.name != "nt":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return status
