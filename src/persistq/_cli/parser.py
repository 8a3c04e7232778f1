"""The parser of the command line: which commands there are, and what becomes of a wrong one."""

from __future__ import annotations

import argparse
import sys
import textwrap

import persistq
from persistq._cli import commands_look, commands_repair, commands_shell
from persistq._cli.exits import ERROR, MEANINGS
from persistq._cli.options import Commands, Parser

_ABOUT = """\
Look at queues on disk, repair them, and take part in them from a shell.

look
  status       what waits, what is in progress and with whom, what is done
  watch        the same, live, until the work is done
  outstanding  the messages of journals that were put and not completed
  failed       the work that was set aside, and why
  serve        a page of all queues for browsers, and numbers for the monitoring
  report       the same page once, as a file

decide
  retry        have work that was set aside done again
  discard      give up work that was set aside

repair
  reclaim      put back the files that dead processes had claimed
  reset        prepare a folder for the next run
  purge        delete all that is of a queue
  retire       delete run folders whose work has been carried on

take part in a folder queue
  work         run a command on each file, until all are done
  put          put files on the queue
  get          claim the next file, and print its path
  done         finish claimed files
  release      put claimed files back
  name         print the own names of claimed files
  close        say that this producer puts no more
  fail         say that this producer failed
"""


def _exits() -> str:
    lines = ["exit status (of several, the highest):"]
    for status, meaning in MEANINGS.items():
        head, *more = textwrap.wrap(meaning, 88)
        lines += [f"  {status}  {head}", *(f"     {line}" for line in more)]
    return "\n".join([*lines, "", "'persistq COMMAND --help' tells more, with an example."])


def make() -> tuple[argparse.ArgumentParser, list[str]]:
    """Make the parser.

    Returns:
        tuple[argparse.ArgumentParser, list[str]]: It, and the names of all commands.
    """
    parser = Parser(
        prog="persistq",
        usage="persistq [-h] [-V] COMMAND ...",
        description=_ABOUT,
        epilog=_exits(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"persistq {persistq.__version__}"
    )
    commands = Commands(parser)
    for room in (commands_look, commands_repair, commands_shell):
        room.add(commands)
    return parser, commands.names


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments of a command line.

    Args:
        arguments (list[str]): Without the program's name.

    Returns:
        argparse.Namespace: With `run`, which takes it.

    Raises:
        SystemExit: Help was asked for and is printed; or the use is wrong, and that is told.
    """
    parser, names = make()
    if not arguments:
        parser.print_help(sys.stderr)
        raise SystemExit(ERROR)
    first = arguments[0]
    if first not in names and not first.startswith("-"):
        import difflib

        close = difflib.get_close_matches(first, names, 1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        parser.error(f"{first!r} is no command.{hint}")
    words: list[str] = []
    if first == "work" and "--" in arguments:
        # Cut off here, for what argparse makes of it differs from Python to Python.
        place = arguments.index("--")
        arguments, words = arguments[:place], arguments[place + 1 :]
    options, rest = parser.parse_known_args(arguments)
    options.words = words
    if hasattr(options, "patterns") and not any(word.startswith("-") for word in rest):
        # Those behind an option; argparse takes the first of several words in a row only.
        options.patterns += rest
    elif rest and first == "work" and not words:
        parser.error("the command stands behind '--', such as: persistq work orders -- load {}")
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options
