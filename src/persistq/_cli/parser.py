"""Which commands and options there are, and what their help says."""

from __future__ import annotations

import argparse
import sys
import textwrap

import persistq
from persistq._cli.exits import ERROR, MEANINGS
from persistq._cli.options import (
    Commands,
    Parser,
    extension,
    failed_place,
    folder_look,
    journal_place,
    late,
    pid,
    waiting,
    yes,
    zero,
)

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


_SHELL = """\
The producer or consumer is the process that calls: the shell that runs your script, also where
a pipe, $(...), parentheses, xargs or timeout stand between. Its id is in the names of claimed
files, and 'persistq reclaim' can tell when it died. Where something else stands between, say
--pid $$.
"""


def _look_commands(commands: Commands) -> None:
    status = commands.add(
        "status",
        late("look", "status"),
        "Show what is true of queues right now. A PATH is a pickup directory, a root of\n"
        "pickup_dirs(), or a folder queue: it finds out which. Looking changes nothing.\n"
        "Exits with 0 when nothing is outstanding or set aside, with 1 when something is (or\n"
        "a producer failed or died), and with more on an error.",
        "persistq status pickup/ orders/\n"
        "persistq status orders --items customers,orders --group '(?P<group>\\d+)_(?P<item>\\w+)'\n"
        "persistq status --json pickup/ | jq '.[].outstanding'\n"
        "persistq status --alert pickup/ orders/ >/dev/null || page the person on call",
    )
    folder_look(status)
    status.add_argument(
        "--alert",
        action="store_true",
        help="exit with 0 while processes are at work on what is outstanding, and with 1 only "
        "where a person must look: work that is set aside, or is left with nobody alive to do "
        "it, a producer that failed or died, files claimed by a dead process",
    )
    status.add_argument("--json", action="store_true", help="print JSON, for machines")
    watch = commands.add(
        "watch",
        late("watch", "watch"),
        "Show the progress of queues, redrawn in place on a terminal, a plain line now and\n"
        "then elsewhere. Ends when the work is done (or set aside) and nobody takes part in\n"
        "the run any more, when another run has carried it on, when all producers of a folder\n"
        "queue are done and nothing is left, or with Ctrl-C. Exits with 0, or with 4 when a\n"
        "producer failed.",
        "persistq watch pickup/\npersistq watch --interval 60 pickup/ >> progress.log",
    )
    folder_look(watch)
    watch.add_argument(
        "--interval",
        type=float,
        metavar="SECONDS",
        help="how often to look, in seconds (default: 1 on a terminal, 10 elsewhere)",
    )
    outstanding = commands.add(
        "outstanding",
        late("look", "outstanding"),
        "Print the messages of journals that were put and not completed, one a line as\n"
        "journalled, in the order in which they would be requeued.",
        "persistq outstanding pickup/ --prefix jobs | wc -l\n"
        "persistq outstanding -0 pickup/ | xargs -0 ls -l",
    )
    journal_place(outstanding)
    zero(outstanding, "end messages with NUL and print text as it was put, unescaped")
    failed = commands.add(
        "failed",
        late("failed", "failed"),
        "Print the work that was set aside and of which nobody has decided: the message, how\n"
        "often it was begun, when it was set aside, and why.",
        "persistq failed pickup/\npersistq failed --json pickup/ | jq -r '.[].reason'",
    )
    failed_place(failed)
    failed.add_argument("--json", action="store_true", help="print JSON, for machines")


def _page_commands(commands: Commands) -> None:
    serve = commands.add(
        "serve",
        late("serve", "serve"),
        "Show all queues under some folders to browsers: how much is done, set aside, in\n"
        "progress and waiting, how fast it goes, the last hours, and why work was set aside.\n"
        "The same data is at /status.json, and at /metrics for Prometheus. Looking changes\n"
        "nothing. Whoever can reach the address can read it: other users of this machine, too.\n"
        "Ctrl-C and SIGTERM end it.",
        "persistq serve pickup/ orders/\npersistq serve --port 9000 --host 0.0.0.0 /srv/queues",
    )
    report = commands.add(
        "report",
        late("serve", "report"),
        "Write the page of all queues under some folders to a file, which needs nothing else:\n"
        "for mail, or for a web server. It replaces the old file in one step.",
        "persistq report pickup/ orders/ -o /var/www/queues.html\n"
        "persistq report pickup/ -o - | mail -s queues -a 'Content-Type: text/html' ops@localhost",
    )
    for command in (serve, report):
        folder_look(
            command,
            "ROOT",
            "a pickup directory, a root of them, a folder queue, or a folder that holds such",
        )
    serve.add_argument(
        "--port", type=int, default=8765, metavar="P", help="the port (default: 8765; 0: any free)"
    )
    serve.add_argument(
        "--host",
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen at (default: 127.0.0.1, this machine; 0.0.0.0: all networks)",
    )
    serve.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which browsers may call it, besides its address and localhost",
    )
    report.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the file to write; - prints it"
    )


_DECIDES = """\
All of it, or the messages that match a PATTERN of the shell's kind (quote it). For journals it
is refused while the run is alive, since that would not see it: its script calls
{call}() then. A folder queue may be at work.
"""


def _decision_commands(commands: Commands) -> None:
    retry = commands.add(
        "retry",
        late("failed", "retry"),
        "Have work that was set aside done again, its attempts from 0 on: it is outstanding, so\n"
        "the next run does it; a file waits on its queue again.\n\n"
        + _DECIDES.format(call="requeue_failed_work"),
        "persistq retry pickup/\npersistq retry pickup/ 'orders_*.csv' customers.csv",
    )
    discard = commands.add(
        "discard",
        late("failed", "discard"),
        "Give up work that was set aside: nobody is told of it again, and files are deleted.\n"
        "Asks first.\n\n" + _DECIDES.format(call="discard_failed_work"),
        "persistq discard pickup/ 'test_*'",
    )
    for command in (retry, discard):
        failed_place(command)
        command.add_argument(
            "patterns", nargs="*", metavar="PATTERN", help="which messages (default: all)"
        )
    yes(discard)


def _repair_commands(commands: Commands) -> None:
    reclaim = commands.add(
        "reclaim",
        late("repair", "reclaim"),
        "Put back the files that dead processes had claimed, of whichever host or container,\n"
        "so that others get them. What living processes work on is left to them.",
        "persistq reclaim orders/",
    )
    reset = commands.add(
        "reset",
        late("repair", "reset"),
        "Prepare a folder for the next run, when nobody works on it: removes the control\n"
        "files (who produces, who is done, who failed) and puts back all claimed files,\n"
        "whoever claimed them. Asks first.",
        "persistq reset --yes orders/",
    )
    purge = commands.add(
        "purge",
        late("repair", "purge"),
        "Delete all that is of a queue in its folder: messages, claimed files, control files,\n"
        "what was set aside. Asks first.",
        "persistq purge orders/",
    )
    reclaim.add_argument(
        "--max-attempts",
        type=int,
        default=5,
        metavar="N",
        help="set a file aside with which so many processes have died (default: 5; 0: never)",
    )
    purge.add_argument(
        "--everything",
        action="store_true",
        help="delete what is none of the queue's, too, and of a folder that was no queue's",
    )
    for command in (reclaim, reset, purge):
        command.add_argument("folder", metavar="FOLDER", help="the folder of the queue")
        extension(command)
    retire = commands.add(
        "retire",
        late("retire", "retire"),
        "Delete run folders of pickup_dirs() whose work later runs have carried on, or that\n"
        "have none left; and what earlier runs have left of themselves in a\n"
        "directory that is used for one run after the other. Keeps the last runs, whatever is\n"
        "in them, those in which a process takes part, and work that is nowhere else. Asks\n"
        "first.",
        "persistq retire --dry-run pickup/\npersistq retire --keep 10 --yes pickup/",
    )
    retire.add_argument(
        "root", metavar="ROOT", help="the root given to pickup_dirs(), or a pickup directory"
    )
    retire.add_argument(
        "--keep",
        type=int,
        default=3,
        metavar="N",
        help="how many of the last runs to keep (default: 3)",
    )
    retire.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    for command in (reset, purge, retire):
        yes(command)


_WORK = """\
Run a command on each file of a folder queue, until its producers are done: {} is the path
of the claimed file, {name} its own name, in any argument; $PERSISTQ_CLAIM and $PERSISTQ_NAME
are the same. No shell is in between. At exit status 0 the file is done; else it is tried
again or set aside, with the last lines of its standard error. Ctrl-C and SIGTERM finish
what is in hand; a second one ends that, and its files wait again.
"""


def _work_command(commands: Commands) -> None:
    work = commands.add(
        "work",
        late("work", "work"),
        _WORK,
        "persistq work orders -- load {}\n"
        "persistq work orders -j 4 --move-to loaded/ --max-attempts 3 -- gzip -k {}",
    )
    work.usage = "persistq work [options] FOLDER -- COMMAND [ARGUMENT...]"
    work.add_argument("folder", metavar="FOLDER", help="the folder of the queue")
    work.add_argument(
        "-j", "--jobs", type=int, default=1, metavar="N", help="how many at a time (default: 1)"
    )
    work.add_argument(
        "--move-to", metavar="DIR", help="where to move what is done (default: it is removed)"
    )
    work.add_argument(
        "--failed-to",
        metavar="DIR",
        help="where to move what is set aside (default: it stays, as <name>.rejected)",
    )
    work.add_argument(
        "--max-attempts",
        type=int,
        default=1,
        metavar="K",
        help="how often a file is begun before it is set aside (default: 1)",
    )
    work.add_argument(
        "--retry-delay",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="how long a file that failed waits before it is tried again (default: 1)",
    )
    work.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="how long to wait for a file; 0: do what is there (default: for ever)",
    )
    waiting(work)
    extension(work)


def _shell_commands(commands: Commands) -> None:
    put = commands.add(
        "put",
        late("take_part", "put"),
        "Put files on a folder queue, which is made if missing: each is moved there whole,\n"
        "and never over another.\n\n" + _SHELL,
        "persistq put orders/ out/*.tsv --close",
    )
    put.add_argument("folder", metavar="FOLDER", help="the folder of the queue")
    put.add_argument("files", nargs="+", metavar="FILE", help="a file to put")
    put.add_argument("--copy", action="store_true", help="leave FILE in its place")
    put.add_argument(
        "--close",
        action="store_true",
        help="then say that this producer puts no more, as 'persistq close' does, if all are put",
    )
    put.add_argument(
        "--no-announcement",
        action="store_true",
        help="be no producer that consumers wait for: for jobs that come and go, and consumers "
        "that wait for ever",
    )
    get = commands.add(
        "get",
        late("take_part", "get"),
        "Claim the next file of a folder queue and print its path; waits for one. Exits with\n"
        "0 and a path, with 3 when all producers are done and no file waits, with 4 when a\n"
        "producer failed, with 5 when no file came within the time, or with that of an error.\n\n"
        + _SHELL,
        'while f=$(persistq get orders); do\n  load "$f" && persistq done "$f" || persistq release'
        ' "$f"\ndone',
    )
    get.add_argument("folder", metavar="FOLDER", help="the folder of the queue")
    get.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="how long to wait for a file, in seconds; 0 looks once (default: for ever)",
    )
    get.add_argument(
        "-n",
        "--number",
        type=int,
        default=1,
        metavar="N",
        help="claim up to N files, of those that wait once there is one (default: 1)",
    )
    zero(get, "end each path with NUL instead of a line end")
    done = commands.add(
        "done",
        late("take_part", "done"),
        "Finish claimed files: remove them, or move them to DIR under their own names, never\n"
        "over another file.",
        'persistq done "$f"\npersistq done --move-to loaded/ "$f"',
    )
    waiting(get)
    done.add_argument("--move-to", metavar="DIR", help="where to move them; made if missing")
    release = commands.add(
        "release",
        late("take_part", "release"),
        "Put claimed files back on the queue, under their own names.",
        'persistq release "$f"',
    )
    release.add_argument(
        "--delay",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="let nobody have them before so much time is over (default: 0)",
    )
    name = commands.add(
        "name",
        late("take_part", "name"),
        "Print the own names of claimed files: as they were put, without the folder.",
        'persistq name "$f"',
    )
    zero(name, "end each name with NUL instead of a line end")
    for command in (done, release, name):
        command.add_argument(
            "claimed", nargs="+", metavar="CLAIMED", help="a path that 'persistq get' printed"
        )
    close = commands.add(
        "close",
        late("take_part", "close"),
        "Say that this producer puts no more: when all have, and no file waits, consumers\n"
        "stop.\n\n" + _SHELL,
        "persistq close orders/",
    )
    close.add_argument(
        "--dead",
        action="store_true",
        help="close for the producers that died, too: this one has put what they had not",
    )
    fail = commands.add(
        "fail",
        late("take_part", "fail"),
        "Say that this producer failed: consumers stop, whatever waits.\n\n" + _SHELL,
        "trap 'persistq fail --pid $$ orders/' ERR",
    )
    for command in (close, fail):
        command.add_argument("folder", metavar="FOLDER", help="the folder of the queue")
    for command in (put, get, done, release, name, close, fail):
        extension(command)
    for command in (put, get, close, fail):
        pid(command)


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
    _look_commands(commands)
    _page_commands(commands)
    _decision_commands(commands)
    _repair_commands(commands)
    _work_command(commands)
    _shell_commands(commands)
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
