"""A job whose processes log what they do, and the judge who reads that log as an outsider would.

Run as a program it is one start of the job: it requeues what is outstanding, puts some messages of
its own, and waits for its workers. Each line of the log is one write: the time of the machine's
own clock, what happened, the run, the process, the message.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persistq import (
    PersistentQueue,
    PersistqError,
    PreviousRunActiveError,
    UpstreamFailureError,
    pickup_dirs,
)
from persistq._journal import runs

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_S = 60.0
REFUSED, ELSEWHERE = 3, 4
LOG = "events"


class Log:
    """Where all processes of all starts write.

    Args:
        root (str): The folder with the log.
        run (str): What this start is called.
    """

    def __init__(self, root: str, run: str) -> None:
        self._fd = os.open(os.path.join(root, LOG), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._run = run

    def say(self, what: str, message: str = "-", pid: int | None = None) -> None:
        line = f"{time.monotonic_ns()} {what} {self._run} {pid or os.getpid()} {message}\n"
        os.write(self._fd, line.encode())


def work(q: PersistentQueue, root: str, run: str, busy_s: float, fails: int) -> None:
    log = Log(root, run)
    log.say("worker")
    rng = random.Random(os.getpid())
    try:
        for message in q:
            log.say("begin", message)
            time.sleep(rng.uniform(0, busy_s))
            log.say("end", message)
            if fails and rng.randrange(fails) == 0:
                q.task_failed(message, "as chance would have it")
            else:
                q.task_done(message)
    except UpstreamFailureError:
        pass
    log.say("over")


def start(options: argparse.Namespace) -> int:
    """One start of the job."""
    runs._WAIT_S = options.wait_s
    log = Log(options.root, options.name)
    if options.current:
        current, previous = options.current, options.previous
    else:
        current, previous = pickup_dirs(options.root, "jobs")
    context: Any = multiprocessing.get_context(options.start_method)
    try:
        q = PersistentQueue("jobs", current, previous, queue=context, max_attempts=None)
    except PreviousRunActiveError:
        log.say("refused")
        return REFUSED
    except PersistqError:
        log.say("elsewhere")
        return ELSEWHERE
    log.say("main")
    arguments = (q, options.root, options.name, options.busy_s, options.fails)
    workers = [context.Process(target=work, args=arguments) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    with q:
        q.requeue_unprocessed_work()
        rng = random.Random(options.name)
        if options.fails and rng.random() < 0.5:
            q.requeue_failed_work()
        for number in range(options.messages):
            message = f"{options.name}-{number}"
            q.put(message)
            log.say("put", message)
            time.sleep(rng.uniform(0, options.busy_s / 2))
    for worker in workers:
        worker.join()
    log.say("over")
    return 0


class Starts:
    """The starts of one job, from outside.

    Args:
        root (str): The folder with the log.
        arguments (list[str]): What all of them are given.
    """

    def __init__(self, root: str, *arguments: str) -> None:
        self.root = root
        self._arguments = arguments
        self._log = Log(root, "outside")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills = 0
        self.hangs = 0

    def begin(self, *arguments: str) -> str:
        """Begin one more; return its name."""
        name = f"run{len(self.processes)}"
        command = [sys.executable, __file__, "--root", self.root, "--name", name]
        self.processes[name] = subprocess.Popen(
            [*command, *self._arguments, *arguments],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        return name

    def living(self) -> list[str]:
        return [name for name, process in self.processes.items() if process.poll() is None]

    def workers_of(self, name: str) -> list[int]:
        """Return the ids of a start's workers that have not ended."""
        events = read(self.root)
        gone = {e.pid for e in events if e.what in ("over", "killed")}
        return [e.pid for e in events if (e.what, e.run) == ("worker", name) and e.pid not in gone]

    def kill(self, pid: int) -> None:
        """Kill one process; the log says when it was certainly dead."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._wait_until_dead(pid)
        self._log.say("killed", pid=pid)
        self.kills += 1

    def _wait_until_dead(self, pid: int) -> None:
        while True:
            try:
                with open(f"/proc/{pid}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] in "ZX":
                        return
            except OSError:
                return
            time.sleep(0.001)

    def kill_main(self, name: str) -> None:
        process = self.processes[name]
        if process.poll() is None:
            self.kill(process.pid)
            process.wait()

    def kill_all_of(self, name: str) -> None:
        """Kill a start with all of its processes, the main one first."""
        self.kill_main(name)
        for pid in self.workers_of(name):
            self.kill(pid)
        try:
            # Whatever had not yet said that it lives.
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def wait(self, name: str) -> int:
        """Wait for a start to end; return its exit status, -1 if it hangs."""
        try:
            return self.processes[name].wait(HANG_S)
        except subprocess.TimeoutExpired:
            self.hangs += 1
            self.kill_all_of(name)
            return -1

    def finish(self, *arguments: str) -> None:
        """Start the job until a start has come to its end, undisturbed."""
        deadline_s = time.monotonic() + HANG_S
        while True:
            name = self.begin(*arguments, "--messages", "0", "--fails", "0")
            status = self.wait(name)
            if status == 0:
                return
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the job cannot be finished: {status}")
            time.sleep(0.05)

    def end(self) -> None:
        """Let nothing outlive this program."""
        for name, process in self.processes.items():
            if process.poll() is None:
                self.kill_all_of(name)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


class Event:
    """One line of the log."""

    def __init__(self, line: str) -> None:
        when, self.what, self.run, pid, self.message = line.split()
        self.when_ns = int(when)
        self.pid = int(pid)


def read(root: str) -> list[Event]:
    path = Path(root, LOG)
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(map(Event, lines), key=lambda event: event.when_ns)


def judge(root: str, left: set[str]) -> dict[str, Any]:
    """Say what an outsider finds.

    Args:
        root (str): The folder with the log.
        left (set[str]): What is still outstanding or set aside.
    """
    events = read(root)
    accepted = {e.message for e in events if e.what == "put"}
    done = {e.message for e in events if e.what == "end"}
    died_ns: dict[int, int] = {}
    for event in events:
        if event.what in ("over", "killed"):
            died_ns.setdefault(event.pid, event.when_ns)
    begun: dict[str, list[Event]] = {}
    by_two_living, repeated = [], 0
    for event in events:
        if event.what != "begin":
            continue
        for before in begun.setdefault(event.message, []):
            repeated += 1
            # It may be begun anew by another run only when whoever had begun it is dead. (One that
            # has ended by itself without a word, with its session, died before it was missed.)
            if before.run != event.run and died_ns.get(before.pid, 0) > event.when_ns:
                by_two_living.append(f"{event.message}: {before.run} and {event.run}")
        begun[event.message].append(event)
    kinds = Counter(event.what for event in events)
    return {
        "starts": len({e.run for e in events} - {"outside"}),
        "refused": kinds["refused"],
        "elsewhere": kinds["elsewhere"],
        "accepted": len(accepted),
        "repeated": repeated,
        "lost": sorted(accepted - done - left),
        "by two living runs": by_two_living,
    }


def left_in(folder: str | None) -> set[str]:
    """Return what is outstanding in a directory, or set aside."""
    if folder is None:
        return set()
    import queue

    with_own = PersistentQueue("jobs", previous_pickup_dir=folder, queue=queue.Queue())
    found = set(with_own.get_list_of_outstanding_work())
    for path in Path(folder).glob("*jobs_failed*"):
        found |= {line.split("\t", 3)[3] for line in path.read_text().splitlines()}
    return found


def add(total: dict[str, Any], figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        total[name] = total.get(name, [] if isinstance(value, list) else 0) + value


def main_of_rounds(
    doc: str | None, of: str, one_round: Callable[[str, random.Random, Any], dict[str, Any]]
) -> int:
    """Do rounds of starts, as the command line says; print what came of them.

    Args:
        doc (str | None): What the program says of itself.
        of (str): What there are waves of.
        one_round ((root, rng, options) -> dict[str, Any]): Does one, and returns its figures.

    Returns:
        int: The program's exit status.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30, help="jobs (30)")
    parser.add_argument("--waves", type=int, default=4, help=f"of {of} for each job (4)")
    parser.add_argument("--start-method", default="fork", choices=["fork", "spawn", "forkserver"])
    options = parser.parse_args()
    rng, began_s = random.Random(options.seed), time.monotonic()
    total: dict[str, Any] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as root:
            add(total, one_round(root, rng, options))
    return report(total, options.seed, began_s)


def report(total: dict[str, Any], seed: int, began_s: float) -> int:
    """Print the figures; return the program's exit status."""
    seconds = round(time.monotonic() - began_s, 1)
    print(json.dumps({**total, "seed": seed, "seconds": seconds}, indent=2))
    return 1 if total["lost"] or total["by two living runs"] or total["hangs"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="the folder with the log")
    parser.add_argument("--name", required=True, help="what this start is called")
    parser.add_argument("--current", help="else the next of pickup_dirs")
    parser.add_argument("--previous")
    parser.add_argument("--messages", type=int, default=20, help="that it puts (20)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--busy-s", type=float, default=0.02, help="longest work of a message")
    parser.add_argument("--fails", type=int, default=0, help="of so many, one is set aside")
    parser.add_argument("--wait-s", type=float, default=0.3, help="for a run that still lives")
    parser.add_argument("--start-method", default="fork")
    return start(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
