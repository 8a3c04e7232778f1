"""Kill workers of an engine, its scheduler, and the process that calls `run` with it, at random.

With `--engine dask`: a scheduler and two workers that are processes of their own, started by hand,
and killed with all that they have started, or without their nannies. With `--engine loky`: the pool
of the calling process; a worker that dies breaks it, so the next call brings a new one.

What was killed is started again, and `run` is called until a call ends with nothing outstanding.
Some messages raise, and some kill their worker. After it: each of the others was done, these are
set aside, no call hung, and each result was given to `on_result` once, but for one message at each
kill of the calling process. What was worked on more than once was in flight at a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from until_killed import jobs

from dask_cluster import Cluster, environment
from persistq import PersistqError, run

CALL_LIMIT_S = 120
# Of one job: at the fifth attempt a message is set aside, whoever it was that killed.
MOST_KILLS = 4
WORKERS = 2
IN_FLIGHT = 2 * WORKERS
ENGINE_LOST = 3


def is_bad(number: int) -> bool:
    return number % 20 == 3


def is_deadly(number: int) -> bool:
    return number % 100 == 57


def note(folder: str, name: str, text: str) -> None:
    """Write a line in one write, which is whole or absent however this process ends."""
    fd = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def work(message: tuple[str, int, bool]) -> int:
    folder, number, with_deadly = message
    if is_bad(number):
        raise ValueError(f"bad {number}")
    if with_deadly and is_deadly(number):
        os.kill(os.getpid(), signal.SIGSEGV)
    note(folder, f"pid-{os.getpid()}", "")
    note(folder, "worked", str(number))
    time.sleep(0.005)
    return number


def call(root: str, options: argparse.Namespace) -> int:
    """Make one call of `run`; say in a file what came of it, if that is the end of the job."""
    messages = ((root, number, options.deadly) for number in range(options.messages))
    executor: Any
    if options.engine == "dask":
        from distributed import Client

        try:
            client = Client(options.address, timeout=10)
        except OSError:
            return ENGINE_LOST  # the scheduler was killed meanwhile
        executor = client.get_executor()
    else:
        from loky import get_reusable_executor

        executor = get_reusable_executor(WORKERS)
    try:
        summary = run(
            work,
            messages,
            root=os.path.join(root, "pickups"),
            executor=executor,
            workers=WORKERS,
            on_result=lambda message, result: note(root, "results", str(result)),
        )
    except PersistqError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(ENGINE_LOST)  # a client waits long for a scheduler that is gone
    said = {"failed": {f.message[1]: f.reason for f in summary.failures}}
    Path(root, "outcome").write_text(json.dumps({**said, "outstanding": summary.outstanding}))
    os._exit(0)


def worker_pids(root: str) -> list[int]:
    return [int(path.name[4:]) for path in Path(root).glob("pid-*")]


def kill(what: str, root: str, parent: int, cluster: Cluster | None, rng: random.Random) -> None:
    try:
        if what == "parent":
            os.kill(parent, signal.SIGKILL)
        elif what == "scheduler" and cluster is not None:
            cluster.kill_scheduler()
        elif what == "host" and cluster is not None:
            cluster.kill_worker(rng.randrange(WORKERS))
        else:
            # One that has worked; it may have ended since.
            pids = worker_pids(root)
            if pids:
                os.kill(rng.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        pass


def one_job(root: str, options: argparse.Namespace, rng: random.Random) -> Counter[str]:
    targets = ["worker", "host", "scheduler", "parent"]
    if options.engine == "loky":
        targets = ["worker", "parent"]
    cluster = Cluster(Path(root, "cluster"), WORKERS) if options.engine == "dask" else None
    address = cluster.address if cluster is not None else ""
    command = [sys.executable, __file__, "--run", root, "--address", address, *options.passed_on]
    found: Counter[str] = Counter()
    outcome: dict[str, Any] = {}
    groups: list[int] = []
    try:
        while not outcome and not found["hangs"]:
            if cluster is not None:
                cluster.start()
            with open(Path(root, "log"), "ab") as log:
                parent = subprocess.Popen(
                    command, stderr=log, env=environment(), start_new_session=True
                )
            groups.append(parent.pid)
            limit_s = time.monotonic() + CALL_LIMIT_S
            while parent.poll() is None:
                if sum(found[f"{t} killed"] for t in targets) < MOST_KILLS:
                    wait_s = rng.uniform(0.05, options.longest_s)
                else:
                    wait_s = limit_s - time.monotonic()
                try:
                    parent.wait(wait_s)
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= limit_s:
                        found["hangs"] += 1
                        parent.kill()
                        break
                    if not Path(root, "results").exists():
                        continue  # it has not begun
                    what = rng.choice(targets)
                    kill(what, root, parent.pid, cluster, rng)
                    found[f"{what} killed"] += 1
                    if cluster is not None and what == "host":
                        cluster.start()
            parent.wait()
            found["calls"] += 1
            if parent.returncode == 0:
                outcome = json.loads(Path(root, "outcome").read_text())
            elif parent.returncode == ENGINE_LOST:
                found["engine lost"] += 1
            elif parent.returncode != -signal.SIGKILL:
                raise RuntimeError(Path(root, "log").read_text()[-5000:])
    finally:
        if cluster is not None:
            cluster.__exit__()
        for group in groups:  # what is left of a pool whose process was killed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
    found.update(judge(root, options, outcome, found))
    return found


def numbers_in(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def judge(
    root: str, options: argparse.Namespace, outcome: dict[str, Any], found: Counter[str]
) -> dict[str, int]:
    worked, results = numbers_in(Path(root, "worked")), numbers_in(Path(root, "results"))
    failed = {int(number): reason for number, reason in outcome.get("failed", {}).items()}
    numbers = set(range(options.messages))
    aside = {n for n in numbers if is_bad(n) or (options.deadly and is_deadly(n))}
    # Five times the engine has told of a death of their worker, which was a deadly message's, too.
    lost = {number for number, reason in failed.items() if "its worker was lost" in reason}
    beside = lost if options.deadly else set()
    for number in sorted(failed.keys() - aside - beside):
        print(f"{number} is set aside: {failed[number]}", file=sys.stderr)
    deaths = sum(count for name, count in found.items() if name.endswith(" killed"))
    deadly = 5 * sum(is_deadly(n) for n in numbers) * options.deadly
    return {
        "messages": options.messages,
        "lost": len(numbers - results.keys() - failed.keys()),
        "not set aside": len(aside - failed.keys()),
        "wrongly set aside": len(failed.keys() - aside - beside),
        "beside the deadly": len(beside - aside),
        "outstanding": outcome.get("outstanding", 0),
        "results given twice": sum(results.values()) - len(results),
        "worked twice": sum(worked.values()) - len(worked),
        "worked twice at most": (deaths + deadly) * IN_FLIGHT,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="dask", choices=["dask", "loky"])
    parser.add_argument("--kills", type=int, default=40, help="go on until so many (default 40)")
    parser.add_argument("--messages", type=int, default=1000, help="for each job (default 1000)")
    parser.add_argument("--longest-s", type=float, default=1.5, help="before a kill, in seconds")
    parser.add_argument("--deadly", action="store_true", help="messages that kill their worker")
    parser.add_argument("--run", metavar="ROOT", help="make one call over ROOT")
    parser.add_argument("--address", help="of the scheduler, with --run")
    options = parser.parse_args()
    if options.run:
        return call(options.run, options)
    options.passed_on = [
        *("--messages", str(options.messages), "--engine", options.engine),
        *["--deadly"] * options.deadly,
    ]
    total = jobs(one_job, options)
    wrong = ("hangs", "lost", "not set aside", "wrongly set aside", "outstanding")
    if any(total[name] for name in wrong):
        return 1
    if total["results given twice"] > total["parent killed"]:
        return 1
    return 0 if total["worked twice"] <= total["worked twice at most"] else 1


if __name__ == "__main__":
    sys.exit(main())
