"""How an operator or a shell script uses queues: the command `persistq`.

Rooms: `parser` says which commands there are, `options` how they are made, `look`, `watch`,
`failed`, `serve`, `repair`, `retire`, `take_part` and `work` (with `children`) carry them out,
`show` prints, and `exits` knows what they exit with. Nothing else is imported here before it is
needed.
"""

from __future__ import annotations

import sys

import persistq
from persistq._cli.exits import FINE, end_by_signal, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
        return end_by_signal("SIGINT")
    except BrokenPipeError:
        _drop_output()
        return end_by_signal("SIGPIPE")
    except OSError as error:
        complain(_describe(error))
        _drop_output()
        return status_of(error)
    except (ValueError, persistq.PersistqError) as error:
        complain(str(error))
        return status_of(error)
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
