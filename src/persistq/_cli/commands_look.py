"""The commands that look: their options, and what their help says."""

from __future__ import annotations

from persistq._cli.options import (
    Commands,
    failed_place,
    folder_look,
    journal_place,
    late,
    zero,
)


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


def add(commands: Commands) -> None:
    """Add the commands that look."""
    _look_commands(commands)
    _page_commands(commands)
