"""The commands that decide and repair: their options, and what their help says."""

from __future__ import annotations

from persistq._cli.options import Commands, extension, failed_place, late, yes

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


def add(commands: Commands) -> None:
    """Add the commands that decide and repair."""
    _decision_commands(commands)
    _repair_commands(commands)
