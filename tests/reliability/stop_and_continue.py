"""Stop mains and workers (SIGSTOP), restart the job over them, and let them go on (SIGCONT).

A stopped process lives: whatever it holds is its own, and no other run may begin it. Then: nothing
that put() accepted is lost, and no message was begun by a run while whoever had begun it in another
run still lived. Figures as JSON.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

from logged_job import Starts, judge, left_in, main_of_rounds


def one_round(root: str, rng: random.Random, options: argparse.Namespace) -> dict[str, Any]:
    same = os.path.join(root, "same")
    os.mkdir(same)
    uses_same = rng.random() < 0.5
    folders = ["--current", same, "--previous", same] if uses_same else []
    starts = Starts(root, "--start-method", options.start_method)
    stops = 0
    try:
        for _ in range(options.waves):
            name = starts.begin(*folders)
            time.sleep(rng.uniform(0.15, 0.6))
            pids = [starts.processes[name].pid, *starts.workers_of(name)]
            stopped = []
            for pid in rng.sample(pids, rng.randrange(1, len(pids) + 1)):
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:
                    continue
                stopped.append(pid)
                stops += 1
            if rng.random() < 0.4:
                starts.kill_main(name)  # a stopped one too
            # Over a run of which a process is stopped: refused, or it has ended.
            others = [starts.begin(*folders) for _ in range(rng.randrange(1, 3))]
            time.sleep(rng.uniform(0, 0.8))
            for pid in stopped:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
            for other in [*others, name]:
                starts.wait(other)
        starts.finish(*folders)
        left = left_in(same) if uses_same else set()
        figures = judge(root, left)
        return {**figures, "stops": stops, "kills": starts.kills, "hangs": starts.hangs}
    finally:
        starts.end()


if __name__ == "__main__":
    sys.exit(main_of_rounds(__doc__, "restarts", one_round))
