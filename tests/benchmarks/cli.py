"""Measure the command line against the bare loops and starts that it cannot do without.

Whole processes are measured, their start included.

- status and outstanding, on journals that two workers completed but for ten messages: against a
  Python program that loops over the lines of all files.
- status on a folder of files: against one that lists the folder.
- --version: against `python -c pass`.
- work, on a folder of files: against `xargs -n1`, which claims and finishes nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

LOOP = "import os, sys\nfor entry in os.scandir(sys.argv[1]):\n for line in open(entry): pass"
LIST = "import os, sys\nfor entry in os.scandir(sys.argv[1]): entry.is_file()"
LINE = "data/in/file-{:08}.csv\n"
LEFT = 10


def make_journals(folder: str, count: int) -> None:
    """Write journals of so many lines, requested and completed ones together."""
    os.mkdir(folder)
    # Nothing is kept: a child's largest memory is at least what its parent had at the fork.
    with open(os.path.join(folder, "jobs_requested_PID100.tsv"), "w") as file:
        file.writelines(map(LINE.format, range(count // 2)))
    for worker in (0, 1):
        with open(os.path.join(folder, f"jobs_completed_PID{101 + worker}.tsv"), "w") as file:
            file.writelines(map(LINE.format, range(worker, count // 2 - LEFT, 2)))


def timed(*command: str) -> Callable[[], float]:
    """Give a function that runs a command and returns the milliseconds it took."""

    def run() -> float:
        began_s = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        return (time.perf_counter() - began_s) * 1000

    return run


def largest_mb(*command: str) -> float:
    """Run a command, and give how much memory it took at most, in megabytes."""
    # By way of a small process: on Linux the figure begins with the size of the one that forks.
    wait = "print(os.wait4(subprocess.Popen(sys.argv[1:], stdout=-3).pid, 0)[2].ru_maxrss)"
    small = [sys.executable, "-c", f"import os, subprocess, sys; {wait}", *command]
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return int(subprocess.run(small, check=True, capture_output=True).stdout) * unit / 1e6


def command_line(amounts: Amounts, report: Report) -> None:
    lines, files = amounts.of((10**7, 10**5), (10**5, 1_000), (20_000, 500))
    with amounts.new_folder() as root:
        measure(root, lines, files, amounts, report)


def measure(root: str, lines: int, files: int, amounts: Amounts, report: Report) -> None:
    python, command = sys.executable, (sys.executable, "-m", "persistq")
    journals, folder = os.path.join(root, "journals"), os.path.join(root, "folder")
    make_journals(journals, lines)
    os.mkdir(folder)
    for number in range(files):
        with open(os.path.join(folder, f"file-{number:06}.tsv"), "w"):
            pass
    works = {
        f"command line: journals of {lines:,} lines": {
            "bare loop": timed(python, "-c", LOOP, journals),
            "status": timed(*command, "status", journals),
            "outstanding": timed(*command, "outstanding", journals),
        },
        f"command line: a folder of {files:,} files": {
            "bare listing": timed(python, "-c", LIST, folder),
            "status": timed(*command, "status", folder),
        },
        "command line: start": {
            "python -c pass": timed(python, "-c", "pass"),
            "--version": timed(*command, "--version"),
        },
    }
    for work, contenders in works.items():
        report.compare(work, "ms", next(iter(contenders)), contenders, amounts.rounds_of(5))
    bare_mb = largest_mb(python, "-c", "pass")
    status_mb = largest_mb(*command, "status", journals)
    report.add("command line: memory", "python -c pass", [bare_mb], "MB", 1.0)
    name = "status of the journals"
    report.add("command line: memory", name, [status_mb], "MB", status_mb / bare_mb)


def work(amounts: Amounts, report: Report) -> None:
    count = amounts.of(1_000, 300, 20)
    name = f"{count:,} files through `true`, one after the other"
    if not shutil.which("xargs") or not shutil.which("true"):
        report.skip(name, "xargs or true is not installed")
        return
    with amounts.new_folder() as root:
        queue, limit = os.path.join(root, "queue"), os.path.join(root, "limit")
        names = "\n".join(os.path.join(limit, f"{number:06}.tsv") for number in range(count))

        def fill(folder: str) -> None:
            os.makedirs(folder, exist_ok=True)
            for number in range(count):
                with open(os.path.join(folder, f"{number:06}.tsv"), "w"):
                    pass

        def with_xargs() -> float:
            fill(limit)
            began_s = time.perf_counter()
            subprocess.run(["xargs", "-n1", "true"], input=names.encode(), check=True)
            return (time.perf_counter() - began_s) * 1000 / count

        def with_work() -> float:
            fill(queue)
            command = [sys.executable, "-m", "persistq", "work", queue, "--timeout", "0"]
            began_s = time.perf_counter()
            done = subprocess.run([*command, "--", "true", "{}"])
            took_s = time.perf_counter() - began_s
            assert done.returncode == 5, "nothing came any more"
            assert not os.listdir(queue)
            return took_s * 1000 / count

        contenders = {"xargs -n1": with_xargs, "work": with_work}
        medians = report.compare(name, "ms a file", None, contenders, amounts.rounds_of(5))
        more_ms = medians["work"] - medians["xargs -n1"]
        goal = ("at most", 1.0)
        report.add(name, "more than xargs, against 4 ms", [more_ms], "ms", more_ms / 4, goal)


SECTIONS = {"command-line": command_line, "work": work}
