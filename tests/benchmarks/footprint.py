"""What persistq takes before it does anything: import time, memory, descriptors, semaphores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness import Amounts, Report

QUEUES = 20
MAKERS = {
    "bare JoinableQueue": "multiprocessing.JoinableQueue()",
    "persistq, no directory": "PersistentQueue()",
    "persistq, a directory": "PersistentQueue('jobs', tempfile.mkdtemp(dir=sys.argv[1]))",
}
MEASURE = """
import multiprocessing, os, sys, tempfile
from persistq import PersistentQueue

def usage():
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    with open("/proc/self/maps") as file:
        semaphores = sum("/sem." in line for line in file)
    return memory, len(os.listdir("/proc/self/fd")), semaphores

first = {make}
before = usage()
queues = [{make} for _ in range({number})]
print(*((b - a) / {number} for a, b in zip(before, usage())))
"""


def idle(amounts: Amounts, report: Report) -> None:
    """Memory, file descriptors and semaphores of one more queue that does nothing."""
    if not os.path.exists("/proc/self/statm"):
        report.skip("an idle queue", "there is no /proc here")
        return
    names = ("memory", "bytes"), ("file descriptors", ""), ("semaphores", "")
    found = {}
    with amounts.new_folder() as folder:
        for name, make in MAKERS.items():
            code = MEASURE.format(make=make, number=QUEUES)
            command = [sys.executable, "-c", code, folder]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name] = [float(value) for value in shown.split()]
    for index, (what, unit) in enumerate(names):
        for name, values in found.items():
            limit = found["bare JoinableQueue"][index]
            ratio = values[index] / limit if limit else None
            report.add(f"an idle queue: {what}", name, [values[index]], unit, ratio)


def import_time(amounts: Amounts, report: Report) -> None:
    """Over an empty interpreter; byte code is cached, as it is where a package is installed."""
    parts = "multiprocessing, multiprocessing.queues, multiprocessing.synchronize"
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def start(code: str) -> float:
            began_s = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            return (time.perf_counter() - began_s) * 1000

        def over_empty(code: str) -> float:
            # The fastest of several: all that a busy machine does to this is to make it longer.
            times = amounts.of(15, 4, 1)
            return min(start(code) for _ in range(times)) - min(start("") for _ in range(times))

        # All of its names: `import persistq` alone loads none of them.
        everything = "from persistq import *"
        start(f"{everything}; import {parts}")
        found = report.compare(
            "import, over an empty interpreter",
            "ms",
            None,
            {
                "multiprocessing's parts": lambda: over_empty("import " + parts),
                "logging": lambda: over_empty("import logging"),
                "persistq": lambda: over_empty(everything),
                "and making a queue": lambda: over_empty(
                    "from persistq import PersistentQueue as Q; Q()"
                ),
            },
            amounts.rounds_of(amounts.of(3, 1, 1)),
        )
    ms = found["persistq"]
    report.add("import, against 30 ms", "persistq", [ms], "ms", ms / 30, ("at most", 1.0))


SECTIONS = {"import": import_time, "idle-queue": idle}
