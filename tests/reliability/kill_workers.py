"""Kill single workers at random moments, idle and busy, while a run goes on, until it is finished.

Each message is counted in SQLite by the worker that does it. Lost is what nobody did though one
worker outlived the others; a hang is a run that does not end. With --bare the same runs over a
plain multiprocessing.JoinableQueue, for comparison: there, a killed worker can stop all others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from typing import Any

from persistq import DONE, PersistentQueue, UpstreamFailureError

HANG_S = 30.0


def database(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def work(q: Any, path: str, busy_s: float) -> None:
    connection = database(path)
    while True:
        message = q.get()
        if message is DONE or message is None:
            break
        if busy_s:
            time.sleep(busy_s)  # the work: so that kills meet workers with a message in hand
        connection.execute(
            "INSERT INTO done VALUES (?, 1) ON CONFLICT (message) DO UPDATE SET count = count + 1",
            (message,),
        )
        if message is not None:
            (q.task_done(message) if isinstance(q, PersistentQueue) else q.task_done())
    if isinstance(q, PersistentQueue):
        q.dispose()


def one_run(options: argparse.Namespace, rng: random.Random, folder: str) -> dict[str, int]:
    """Put messages with pauses (so workers are idle at times), kill, and see how it ends."""
    path = os.path.join(folder, "done.sqlite")
    with contextlib.closing(database(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE done (message TEXT PRIMARY KEY, count INT)")
    context: Any = multiprocessing.get_context(options.start_method)
    q: Any
    if options.bare:
        q = context.JoinableQueue()
    else:
        # More DONEs than workers at a time: each replacement needs one of its own.
        journal = os.path.join(folder, "journal")
        q = PersistentQueue("jobs", journal, queue=context, maxsize=options.maxsize)
    workers: list[Any] = []

    def start_worker() -> None:
        workers.append(context.Process(target=work, args=(q, path, options.busy_ms / 1000)))
        workers[-1].start()

    for _ in range(options.workers):
        start_worker()
    figures = {"kills": 0, "hangs": 0}

    def kill_one() -> None:
        living = [worker for worker in workers if worker.is_alive()]
        # One outlives the others, unless the killed are replaced.
        if len(living) > (0 if options.replace else 1):
            victim = rng.choice(living)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            figures["kills"] += 1
            if options.replace:
                start_worker()

    kills_at = {rng.randrange(options.messages) for _ in range(options.kills_per_run)}
    for number in range(options.messages):
        q.put(f"message {number}")
        if number in kills_at:
            if rng.random() < 0.5:
                wait_until_idle(q)
            time.sleep(rng.uniform(0, 0.004))  # into the middle of something
            kill_one()
    if options.bare:
        for _ in range(len(workers)):
            q.put(None)
    else:
        q.number_of_workers = len(workers)
        q.close()
    deadline_s = time.monotonic() + HANG_S
    for worker in workers:
        worker.join(max(deadline_s - time.monotonic(), 0))
    if any(worker.is_alive() for worker in workers):
        figures["hangs"] = 1
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join()
    with contextlib.closing(database(path)) as connection:
        done = dict(connection.execute("SELECT message, count FROM done"))
    wanted = {f"message {n}" for n in range(options.messages)}
    figures["left"] = len(wanted - done.keys())
    figures["repeated"] = sum(done.values()) - len(done)
    figures["lost"] = figures["left"]
    if not options.bare:
        journal = os.path.join(folder, "journal")
        left = PersistentQueue("jobs", previous_pickup_dir=journal).get_list_of_outstanding_work()
        figures["lost"] = len(wanted - done.keys() - set(left))
    else:
        q.cancel_join_thread()
    return figures


def wait_until_idle(q: Any) -> None:
    deadline_s = time.monotonic() + 1
    while not q.empty() and time.monotonic() < deadline_s:
        time.sleep(0.001)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50, help="runs go on until so many")
    parser.add_argument("--messages", type=int, default=300, help="a run")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills-per-run", type=int, default=3)
    parser.add_argument("--busy-ms", type=float, default=1.0, help="milliseconds of work a message")
    parser.add_argument("--replace", action="store_true", help="start a worker for each killed one")
    parser.add_argument("--start-method", default="fork", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("--maxsize", type=int, default=0, help="how many may wait; 0 for any")
    parser.add_argument("--bare", action="store_true", help="over a plain JoinableQueue")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    started_s = time.monotonic()
    total = dict.fromkeys(("runs", "kills", "hangs", "left", "lost", "repeated"), 0)
    while total["kills"] < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            figures = one_run(options, rng, folder)
        total["runs"] += 1
        for name, value in figures.items():
            total[name] += value
    print(json.dumps({**total, "seconds": round(time.monotonic() - started_s, 1)}))
    if options.bare:
        return 0
    return 1 if total["hangs"] or total["left"] or total["lost"] else 0


if __name__ == "__main__":
    with contextlib.suppress(UpstreamFailureError):
        sys.exit(main())
