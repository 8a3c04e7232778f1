"""Kill a whole run's process group at random moments, and restart, until a run finishes.

Workers count each message in files of their own, so it shows afterwards which messages were worked
on, and how often. Some are set aside, and later runs requeue them, or give one up. After the last
run: no message was lost, be it done, set aside or given up, and none was repeated but those that
were in progress at a kill (or whose completion was being written).
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
from typing import Any

from persistq import PersistentQueue, pickup_dirs


def work(q: PersistentQueue, folder: str) -> None:
    # One write of a line in append mode is whole or absent, whenever this process is killed.
    log = os.open(
        os.path.join(folder, f"worked-{os.getpid()}-{time.time_ns()}"),
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL,
    )
    rng = random.Random(os.getpid())
    for message in q:
        if rng.randrange(15) == 0:
            q.task_failed(message, "as chance would have it")
        else:
            os.write(log, f"{message}\n".encode())
            q.task_done(message)


def run(root: str, options: argparse.Namespace) -> None:
    """One run of the job: what is outstanding first, then the inputs anew."""
    folder = os.path.join(root, "worked")
    if options.same_directory:
        current = previous = os.path.join(root, "same")
        os.makedirs(current, exist_ok=True)
    else:
        current, previous = pickup_dirs(root, "jobs")
    context: Any = multiprocessing.get_context(options.start_method)
    q = PersistentQueue(
        "jobs",
        current,
        previous,
        number_of_workers=options.workers,
        queue=context.JoinableQueue(),
        fsync=options.fsync,
    )
    workers = [context.Process(target=work, args=(q, folder)) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    os.write(1, f"requeued {q.requeue_unprocessed_work()}\n".encode())
    rng = random.Random(os.getpid())
    if rng.random() < 0.5:
        q.requeue_failed_work()
    elif aside := q.get_list_of_failed_work():
        # Said first: killed behind this, it may still be set aside.
        with open(os.path.join(root, "given-up"), "a") as file:
            file.write(f"{aside[0].message}\n")
        q.discard_failed_work(aside[:1])
    # The inputs are put one by one, by whichever runs live long enough; what was put is noted.
    noted = os.open(os.path.join(root, "put"), os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with open(os.path.join(root, "put")) as lines:
        already = {int(line) for line in lines}
    with q:
        for number in range(options.messages):
            if number not in already:
                q.put(f"message {number}")
                os.write(noted, f"{number}\n".encode())
    for worker in workers:
        worker.join()
    with open(os.path.join(root, "aside"), "w") as file:
        file.writelines(f"{work.message}\n" for work in q.get_list_of_failed_work())
    os.write(1, b"finished\n")


def kill_and_restart(root: str, options: argparse.Namespace, rng: random.Random) -> dict[str, Any]:
    """Run the job to its end through kills; return the figures."""
    os.mkdir(os.path.join(root, "worked"))
    command = [sys.executable, __file__, "--run", root, *options.passed_on]
    kills, requeued, limit_s = 0, [], 1.0
    while True:
        started_s = time.monotonic()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            # A random moment of a run's life, that grows, so that some run finishes.
            said = process.communicate(timeout=rng.uniform(0.0, limit_s))[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate()[0]
            kills += 1
        limit_s *= 1.1
        requeued += [int(line.split()[1]) for line in said.splitlines() if "requeued" in line]
        if "finished" in said and process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the run ended by itself with {process.returncode}")
        if time.monotonic() - started_s > 120:
            raise RuntimeError("a run hangs")
    worked: Counter[str] = Counter()
    for path in Path(root, "worked").iterdir():
        worked.update(path.read_text().splitlines())
    wanted = {f"message {n}" for n in range(options.messages)}
    aside = set(Path(root, "aside").read_text().splitlines())
    given_up = Path(root, "given-up")
    decided = set(given_up.read_text().splitlines()) if given_up.exists() else set()
    repeated = sum(count - 1 for count in worked.values())
    # A message that was journalled, but not yet noted as put, at a kill of the putting parent is
    # put again by the next run: at most one a kill. Each worker has at most one in progress.
    # What was requeued, and not yet recorded as that, is requeued once more.
    allowed = kills * (options.workers + 1) + len(decided) + kills * (options.messages // 15)
    return {
        "kills": kills,
        "lost": len(wanted - worked.keys() - aside - decided),
        "set_aside": len(aside),
        "given_up": len(decided),
        "unknown": len(worked.keys() - wanted),
        "repeated": repeated,
        "repeated_at_most": allowed,
        "requeued": requeued,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20, help="go on until so many (default 20)")
    parser.add_argument("--messages", type=int, default=2000, help="for each job (default 2000)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start-method", default="fork", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("--same-directory", action="store_true", help="current is previous too")
    parser.add_argument("--fsync", action="store_true")
    parser.add_argument("--run", metavar="ROOT", help="run the job itself over ROOT")
    options = parser.parse_args()
    if options.run:
        run(options.run, options)
        return 0
    options.passed_on = [
        *("--messages", str(options.messages), "--workers", str(options.workers)),
        *("--start-method", options.start_method),
        *["--same-directory"] * options.same_directory,
        *["--fsync"] * options.fsync,
    ]
    rng = random.Random(options.seed)
    started_s = time.monotonic()
    jobs: list[dict[str, Any]] = []
    while sum(job["kills"] for job in jobs) < options.kills:
        with tempfile.TemporaryDirectory() as root:
            jobs.append(kill_and_restart(root, options, rng))
    figures = {
        name: sum(job[name] for job in jobs)
        for name in (
            *("kills", "lost", "unknown", "set_aside", "given_up"),
            *("repeated", "repeated_at_most"),
        )
    }
    figures["requeued"] = sum(sum(job["requeued"]) for job in jobs)
    print(json.dumps({**figures, "seconds": round(time.monotonic() - started_s, 1)}))
    is_well = not figures["lost"] and not figures["unknown"]
    return 0 if is_well and figures["repeated"] <= figures["repeated_at_most"] else 1


if __name__ == "__main__":
    sys.exit(main())
