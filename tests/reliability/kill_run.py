"""Kill the process that calls `run`, or all of its group, at random moments, and call it again.

Until a call ends by itself. Some messages raise, and some kill their worker. After it: each of the
others was done, those are set aside, no call hung, and what was done more than once was in hand at
a kill. Where the kill struck behind the recorded end of the job, the next call is a new job, which
does all once more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from until_killed import jobs

from persistq import run

CALL_LIMIT_S = 90
# At the fifth death a message is set aside, whoever it was that killed.
MOST_KILLS = 4


def is_bad(number: int) -> bool:
    return number % 20 == 3


def is_deadly(number: int) -> bool:
    return number % 100 == 57


def work(message: tuple[str, int]) -> int:
    folder, number = message
    if is_bad(number):
        raise ValueError(f"bad {number}")
    if is_deadly(number):
        os.kill(os.getpid(), signal.SIGSEGV)
    # One write of a line in append mode is whole or absent, whenever this process is killed.
    fd = os.open(os.path.join(folder, "worked"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{number}\n".encode())
    os.close(fd)
    return number


def call(root: str, options: argparse.Namespace) -> None:
    results: Any = (lambda message, result: None) if options.results else None
    summary = run(
        work,
        ((root, number) for number in range(options.messages)),
        root=os.path.join(root, "pickups"),
        workers=options.workers,
        context=options.start_method,
        on_result=results,
        keep_runs=1,
    )
    failed = sorted(failure.message[1] for failure in summary.failures)
    print(json.dumps({"failed": failed, "outstanding": summary.outstanding}))


def kill_and_call_again(
    root: str, options: argparse.Namespace, rng: random.Random
) -> dict[str, int]:
    command = [sys.executable, __file__, "--run", root, *options.passed_on]
    kills, hangs, ends, limit_s, said = 0, 0, 0, options.longest_s, ""
    while not said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        is_to_die = kills < MOST_KILLS
        try:
            wait_s = rng.uniform(0.05, limit_s) if is_to_die else CALL_LIMIT_S
            process.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            # Its workers are left to find out by themselves, or die with it.
            kill = rng.choice([os.kill, os.killpg]) if is_to_die else os.killpg
            kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            hangs += not is_to_die
            ends += has_ended(root)
        else:
            if process.returncode:
                raise RuntimeError(f"a call ended by itself with {process.returncode}")
            assert process.stdout is not None
            said = process.stdout.read()
        if hangs:
            break
    outcome = json.loads(said or '{"failed": [], "outstanding": 0}')
    path = Path(root, "worked")
    worked = Counter(map(int, path.read_text().split())) if path.exists() else Counter()
    numbers = set(range(options.messages))
    aside = {number for number in numbers if is_bad(number) or is_deadly(number)}
    return {
        "kills": kills,
        "hangs": hangs,
        "lost": len(numbers - worked.keys() - set(outcome["failed"])),
        "wrongly set aside": len(set(outcome["failed"]) - aside),
        "not set aside": len(aside - set(outcome["failed"])),
        "outstanding": outcome["outstanding"],
        "repeated": sum(worked.values()) - len(worked),
        "killed behind the end": ends,
        "repeated at most": kills * 2 * options.workers + ends * options.messages,
    }


def has_ended(root: str) -> bool:
    """Whether the job of the last call is recorded as ended."""
    runs = sorted(Path(root).glob("pickups/*/run_*/*_job.json"))
    return bool(runs) and bool(json.loads(runs[-1].read_bytes())["ended"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20, help="go on until so many (default 20)")
    parser.add_argument("--messages", type=int, default=1000, help="for each job (default 1000)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--longest-s", type=float, default=1.5, help="before a kill, in seconds")
    parser.add_argument("--start-method", default="fork", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("--results", action="store_true", help="with on_result")
    parser.add_argument("--run", metavar="ROOT", help="make one call over ROOT")
    options = parser.parse_args()
    if options.run:
        call(options.run, options)
        return 0
    options.passed_on = [
        *("--messages", str(options.messages), "--workers", str(options.workers)),
        *("--start-method", options.start_method),
        *["--results"] * options.results,
    ]
    total = jobs(kill_and_call_again, options)
    wrong = ("hangs", "lost", "wrongly set aside", "not set aside", "outstanding")
    if any(total[name] for name in wrong):
        return 1
    return 0 if total["repeated"] <= total["repeated at most"] else 1


if __name__ == "__main__":
    sys.exit(main())
