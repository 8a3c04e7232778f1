"""The commands by which a shell takes part in a folder queue: options, and what their help says."""

from __future__ import annotations

from persistq._cli.options import Commands, extension, late, pid, waiting, zero

_SHELL = """\
The producer or consumer is the process that calls: the shell that runs your script, also where
a pipe, $(...), parentheses, xargs or timeout stand between. Its id is in the names of claimed
files, and 'persistq reclaim' can tell when it died. Where something else stands between, say
--pid $$.
"""


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


def add(commands: Commands) -> None:
    """Add the commands by which a shell takes part in a folder queue."""
    _work_command(commands)
    _shell_commands(commands)
