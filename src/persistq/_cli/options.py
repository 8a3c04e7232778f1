"""How a command of the command line is made, and the options that several of them have."""

from __future__ import annotations

import argparse
import sys

from persistq._cli.exits import ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Parser(argparse.ArgumentParser):
    """Says what is wrong and where help is, without the whole usage."""

    def error(self, message: str) -> Any:
        from persistq._cli.show import complain

        complain(f"{message.rstrip('.')}. See '{self.prog} --help'.")
        sys.exit(ERROR)


class Commands:
    """Adds commands to a parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(
            metavar="COMMAND", prog="persistq", parser_class=Parser, help=argparse.SUPPRESS
        )
        self.names: list[str] = []

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], about: str, example: str
    ) -> argparse.ArgumentParser:
        """Add a command, with what it does in a sentence or two, and an example of its use."""
        command = self._commands.add_parser(
            name,
            description=about,
            epilog="example:\n" + "".join(f"  {line}\n" for line in example.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        self.names.append(name)
        return command


def late(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Give a function of a module that is imported only when it is called."""

    def run(options: argparse.Namespace) -> int:
        import importlib

        room = importlib.import_module(f"persistq._cli.{module}")
        status: int = getattr(room, function)(options)
        return status

    return run


def extension(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-e",
        "--extension",
        metavar="EXT",
        help="how the names of messages end (default: as those who use the folder say, or .tsv)",
    )
    command.add_argument(
        "--ignore-case",
        action="store_true",
        help="take A.TSV for a message, too, where they end with .tsv (default: as those say)",
    )


def pid(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--pid",
        type=int,
        metavar="PID",
        help="id of the process that takes part (default: the one that calls)",
    )


def waiting(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--min-age",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="take only files that have stood still for so long: uploads may be half way",
    )
    command.add_argument(
        "--forever", action="store_true", help="wait for more when all producers are done, too"
    )


def yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")


def zero(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("-0", "--null", dest="zero", action="store_true", help=help)


def folder_look(
    command: argparse.ArgumentParser, metavar: str = "PATH", about: str = "a queue's directory"
) -> None:
    command.add_argument("paths", nargs="+", metavar=metavar, help=about)
    extension(command)
    command.add_argument(
        "--done-dir", metavar="DIR", help="where finished files go, to count them too"
    )
    failed_dir(command)
    command.add_argument(
        "--items", metavar="A,B,...", help="the items that make a group of files complete"
    )
    command.add_argument(
        "--group",
        metavar="REGEX",
        help="with --items: where a file name holds (?P<group>...) and (?P<item>...)",
    )


def journal_place(command: argparse.ArgumentParser) -> None:
    command.add_argument("path", metavar="PATH", help="a pickup directory, or a root of them")
    command.add_argument("--prefix", metavar="P", help="whose journals, where there are several")


def failed_place(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "path", metavar="PATH", help="a pickup directory, a root of them, or a folder queue"
    )
    command.add_argument("--prefix", metavar="P", help="whose journals, where there are several")
    extension(command)
    failed_dir(command)


def failed_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--failed-dir",
        metavar="DIR",
        help="where bad files of a folder queue go, besides those that stay in the folder",
    )
