"""Kill workers and writers of a carrier at random moments, and count what that does to the others.

    python tests/reliability/kill_carrier.py --rounds 50 --start-method spawn
    python tests/reliability/kill_carrier.py --rounds 50 --bare

In each round some workers take messages, small and large, from the parent and from a writing
process. Again and again one of them gets SIGKILL: a worker that waits, a worker that is busy, or
the writer; a new one takes its place. The message that a killed worker had in hand is gone, which
is nothing that a carrier could help (the journals bring it back); anything beyond that is lost.

The figures, as JSON:

- kills: how many processes were killed, and doing what;
- hangs: rounds in which the survivors, or the parent's put, made no progress for --patience
  seconds (the round is then given up, and its messages are not counted);
- in_hand: messages that went with killed workers, at most one a kill;
- lost: messages missing beyond that;
- repeated: messages that came twice;
- errors: workers that ended by an exception.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import signal
import struct
import sys
import time
from typing import Any

RESULT = struct.Struct("<II")  # who put it, its number
PARENT = 0
SIZES = [1, 30, 200, 300, 2000, 70_000]


def work(queue: Any, results: Any) -> None:
    """Take messages, and tell the parent the number of each."""
    fd = results.fileno()
    while (message := queue.get()) is not None:
        queue.task_done()
        os.write(fd, RESULT.pack(*message[0]))


def write(queue: Any, who: int, seed: int) -> None:
    """Put numbered messages until killed."""
    chance = random.Random(seed)
    number = 0
    while True:
        for _ in range(chance.randrange(1, 30)):
            queue.put(((who, number), "w" * chance.choice(SIZES)))
            number += 1
        time.sleep(chance.random() * 0.002)


class Hang(Exception):
    """No progress for too long."""


class Round:
    """One queue, its workers, and its writer."""

    def __init__(self, options: argparse.Namespace, seed: int, totals: dict[str, Any]) -> None:
        self.options = options
        self.totals = totals
        self.chance = random.Random(seed)
        self.context: Any = multiprocessing.get_context(options.start_method)
        if options.bare:
            self.queue: Any = self.context.JoinableQueue(options.maxsize)
        else:
            from persistq._carrier.carrier import Carrier

            self.queue = Carrier(options.maxsize, ctx=self.context)
        self.theirs, ours = self.context.Pipe(duplex=False)
        self.ours = ours
        os.set_blocking(self.theirs.fileno(), False)
        self.room = select.poll()
        self.room.register(self.theirs.fileno(), select.POLLIN)
        self.seen: dict[int, set[int]] = {PARENT: set()}
        self.put = self.repeated = self.killed_workers = self.writers = 0
        self.workers = [self.start_worker() for _ in range(options.workers)]
        self.writer: Any = None

    def start_worker(self) -> Any:
        process = self.context.Process(target=work, args=(self.queue, self.ours), daemon=True)
        process.start()
        return process

    def start_writer(self) -> None:
        self.writers += 1
        self.seen[self.writers] = set()
        self.writer = self.context.Process(
            target=write, args=(self.queue, self.writers, self.chance.randrange(1 << 30))
        )
        self.writer.daemon = True
        self.writer.start()

    def put_some(self, number: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.options.patience)
        try:
            for _ in range(number):
                self.queue.put(((PARENT, self.put), "p" * self.chance.choice(SIZES)))
                self.put += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def collect(self, seconds: float) -> bool:
        """Read what the workers report for so long; return whether anything came."""
        deadline = time.monotonic() + seconds
        came = False
        while True:
            try:
                data = os.read(self.theirs.fileno(), RESULT.size * 512)
                came = True
                for who, number in RESULT.iter_unpack(data):
                    self.repeated += number in self.seen[who]
                    self.seen[who].add(number)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return came
                self.room.poll(min(left * 1000, 20))
            if time.monotonic() >= deadline:
                return came

    def missing(self) -> int:
        """Count the messages that are in the pipe, in a worker's hand, or gone."""
        total = self.put - len(self.seen[PARENT])
        for who in range(1, self.writers + 1):
            seen = self.seen[who]
            total += max(seen, default=-1) + 1 - len(seen)
        return total

    def settle(self) -> None:
        """Wait until all that can come has come.

        A killed worker may have had a message in hand, so "all" is not a number: it is the time
        when a message put last has come (the pipe keeps the order), and nothing more does.
        """
        quiet_since = time.monotonic()
        while self.missing() > 0:
            if self.collect(0.02):
                quiet_since = time.monotonic()
            quiet_for = time.monotonic() - quiet_since
            if quiet_for > 0.1 and self.missing() <= self.killed_workers:
                return
            if quiet_for > self.options.patience:
                raise Hang

    def kill_a_worker(self, doing: str) -> None:
        index = self.chance.randrange(len(self.workers))
        victim = self.workers[index]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        self.killed_workers += 1
        self.totals["kills"][doing] += 1
        self.workers[index] = self.start_worker()

    def kill_the_writer(self) -> None:
        os.kill(self.writer.pid, signal.SIGKILL)
        self.writer.join()
        self.totals["kills"]["writers"] += 1

    def run(self) -> None:
        for _ in range(self.options.kills):
            doing = self.chance.choice(["idle", "busy", "writers"])
            if doing == "idle":
                self.settle()
                self.collect(self.chance.random() * 0.002)
                self.kill_a_worker("idle")
                self.put_some(self.options.workers)
                # With this a worker that waits for ever is noticed here, not rounds later.
                self.settle()
            elif doing == "busy":
                self.put_some(self.chance.randrange(1, 120))
                self.collect(self.chance.random() * 0.003)
                self.kill_a_worker("busy")
            else:
                self.start_writer()
                started = time.monotonic()
                while not self.seen[self.writers]:
                    self.collect(0.002)
                    if time.monotonic() - started > self.options.patience + 5:
                        raise Hang
                self.collect(self.chance.random() * 0.005)
                self.kill_the_writer()
        self.settle()
        signal.setitimer(signal.ITIMER_REAL, self.options.patience)
        for _ in self.workers:
            self.queue.put(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for worker in self.workers:
            started = time.monotonic()
            while worker.is_alive():
                self.collect(0.01)
                if time.monotonic() - started > self.options.patience:
                    raise Hang
            worker.join()
            self.totals["errors"] += worker.exitcode != 0
        self.collect(0)
        missing = self.missing()
        self.totals["in_hand"] += min(missing, self.killed_workers)
        self.totals["lost"] += max(0, missing - self.killed_workers)
        self.totals["repeated"] += self.repeated
        self.totals["messages"] += sum(map(len, self.seen.values()))

    def end(self) -> None:
        for process in [*self.workers, self.writer]:
            if process is not None:
                if process.is_alive():
                    process.kill()
                process.join()
                process.close()
        self.queue.cancel_join_thread()
        self.queue.close()
        self.theirs.close()
        self.ours.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="queues, one after another")
    parser.add_argument("--kills", type=int, default=10, help="kills in each round")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--maxsize", type=int, default=0, help="bound of the queue, 0 for none")
    parser.add_argument(
        "--start-method", default="fork", choices=multiprocessing.get_all_start_methods()
    )
    parser.add_argument("--patience", type=float, default=5.0, help="seconds before it is a hang")
    parser.add_argument("--bare", action="store_true", help="over a multiprocessing.JoinableQueue")
    options = parser.parse_args()

    def alarm(signum: int, frame: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarm)
    totals: dict[str, Any] = {
        "queue": "JoinableQueue" if options.bare else "Carrier",
        "start_method": options.start_method,
        "seed": options.seed,
        "rounds": options.rounds,
        "maxsize": options.maxsize,
        "kills": {"idle": 0, "busy": 0, "writers": 0},
        **dict.fromkeys(["hangs", "messages", "in_hand", "lost", "repeated", "errors"], 0),
    }
    started = time.monotonic()
    for index in range(options.rounds):
        one = Round(options, options.seed * 1_000_003 + index, totals)
        try:
            one.run()
        except Hang:
            totals["hangs"] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            one.end()
    totals["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(totals))
    sys.stdout.flush()
    # A hang is what --bare is there to show.
    return 0 if options.bare else int(bool(totals["hangs"] + totals["lost"] + totals["errors"]))


if __name__ == "__main__":
    sys.exit(main())
