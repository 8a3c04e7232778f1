"""Kill workers, Redis, and the process that puts, at random, over `docs/examples/redis_queue.py`.

Redis is a server of this program's own, on loopback. It is started again at once, with what its
append-only file holds (`--aof`) or with nothing. Workers are processes that were not started by the
one that puts, and know no folder of it; two are kept alive. What was killed is started again until
a call ends with everything recorded.

After it: each message was done, or is set aside since it raises; each is recorded once; what was
worked on more than once was in hand, or not yet recorded, at a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "docs/examples"))

from until_killed import jobs

import persistq
from persistq import PersistentQueue, PersistqError, pickup_dirs
from redis_server import Server

CALL_LIMIT_S = 90
MOST_KILLS = 4
WORKERS = 2
CARRIER_LOST = 3


def is_bad(number: int) -> bool:
    return number % 20 == 3


def open_queue(url: str, root: str | None) -> PersistentQueue:
    import redis_queue

    redis_queue.BEAT_S, redis_queue.DEAD_S = 0.3, 2  # for a program that kills often
    if root is None:
        return PersistentQueue(queue=redis_queue.RedisQueue(url, "jobs"))
    carrier = redis_queue.RedisQueue(url, "jobs", begin=True)
    current, previous = pickup_dirs(os.path.join(root, "pickups"), "jobs")
    return PersistentQueue("jobs", current, previous, queue=carrier, max_attempts=None)


def journalled(root: str, kind: str) -> Counter[int]:
    """Return the messages of all journal files of a kind."""
    found: Counter[int] = Counter()
    for path in Path(root).glob(f"pickups/jobs/*/jobs_{kind}_*.tsv"):
        found.update(map(int, re.findall(r"\d+", path.read_text())))
    return found


def call(root: str, options: argparse.Namespace) -> int:
    """Put what is not requeued, wait until all is recorded, and say so."""
    import redis

    given = journalled(root, "requested")
    try:
        queue = open_queue(options.url, root)
        queue.requeue_unprocessed_work()
        for number in range(max(given, default=-1) + 1, options.messages):
            queue.put(number)
        queue.join()
        queue.close()
    except (redis.RedisError, PersistqError, RuntimeError) as error:
        print(f"the carrier is lost: {error!r}", file=sys.stderr, flush=True)
        os._exit(CARRIER_LOST)
    failed = [failure.message for failure in queue.get_list_of_failed_work()]
    Path(root, "outcome").write_text(json.dumps({"failed": failed}))
    return 0


def work(root: str, options: argparse.Namespace) -> int:
    queue = open_queue(options.url, None)
    for number in queue:
        with queue.attempt(number):
            if is_bad(number):
                raise ValueError(f"bad {number}")
            fd = os.open(os.path.join(root, "worked"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, f"{number}\n".encode())
            os.close(fd)
            time.sleep(0.002)
    return 0


def one_job(root: str, options: argparse.Namespace, rng: random.Random) -> Counter[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(persistq.__file__).parents[1])}
    passed_on = ["--messages", str(options.messages)]
    server = Server(Path(root, "redis"), options.aof)
    found: Counter[str] = Counter()
    workers: list[subprocess.Popen[bytes]] = []
    log = open(Path(root, "log"), "ab")  # noqa: SIM115

    def start(what: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, what, root, "--url", server.url, *passed_on]
        return subprocess.Popen(command, stderr=log, env=environment)

    is_done = False
    parent: subprocess.Popen[bytes] | None = None
    try:
        server.start()
        while not is_done and not found["hangs"]:
            parent = start("--run")
            found["calls"] += 1
            limit_s = time.monotonic() + CALL_LIMIT_S
            while parent.poll() is None and not found["hangs"]:
                workers = [worker for worker in workers if worker.poll() is None]
                workers += [start("--work") for _ in range(WORKERS - len(workers))]
                may_kill = sum(found[f"{t} killed"] for t in options.targets) < MOST_KILLS
                wait_s = rng.uniform(0.1, options.longest_s) if may_kill else 0.2
                try:
                    parent.wait(wait_s)
                except subprocess.TimeoutExpired:
                    found["hangs"] += time.monotonic() > limit_s
                    if not may_kill or not Path(root, "worked").exists():
                        continue
                    target = rng.choice(options.targets)
                    found[f"{target} killed"] += 1
                    if target == "redis":
                        server.kill()
                        server.start()
                    else:
                        (parent if target == "parent" else rng.choice(workers)).kill()
                        # A killed one is reaped above.
            if parent.poll() is None:
                parent.kill()
            code = parent.wait()
            is_done = code == 0
            if code not in (0, CARRIER_LOST, -signal.SIGKILL):
                raise RuntimeError(Path(root, "log").read_text()[-4000:])
    finally:
        for process in [*workers, *([parent] if parent is not None else [])]:
            process.kill()
            process.wait()
        server.kill()
        log.close()
    found.update(judge(root, options))
    return found


def judge(root: str, options: argparse.Namespace) -> dict[str, int]:
    numbers = set(range(options.messages))
    path, outcome = Path(root, "worked"), Path(root, "outcome")
    worked = Counter(map(int, path.read_text().split()))
    failed = Counter(json.loads(outcome.read_text())["failed"] if outcome.exists() else [])
    completed = journalled(root, "completed")
    bad = {number for number in numbers if is_bad(number)}
    return {
        "messages": options.messages,
        "lost": len(numbers - worked.keys() - bad) + len(numbers - completed.keys() - bad),
        "not set aside": len(bad - failed.keys()),
        "wrongly set aside": len(failed.keys() - bad),
        "recorded twice": sum(completed.values()) - len(completed),
        "worked twice": sum(worked.values()) - len(worked),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=40, help="go on until so many (default 40)")
    parser.add_argument("--messages", type=int, default=1500, help="for each job (default 1500)")
    parser.add_argument("--longest-s", type=float, default=1.0, help="before a kill, in seconds")
    parser.add_argument("--aof", action="store_true", help="Redis keeps an append-only file")
    parser.add_argument(
        "--targets", nargs="+", default=["worker", "redis", "parent"], metavar="TARGET"
    )
    parser.add_argument("--run", metavar="ROOT", help="put the messages of ROOT")
    parser.add_argument("--work", metavar="ROOT", help="work, and say so in ROOT")
    parser.add_argument("--url", help="of Redis, with --run or --work")
    options = parser.parse_args()
    if options.run:
        return call(options.run, options)
    if options.work:
        return work(options.work, options)
    total = jobs(one_job, options)
    wrong = ("hangs", "lost", "not set aside", "wrongly set aside", "recorded twice")
    return 1 if any(total[name] for name in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
