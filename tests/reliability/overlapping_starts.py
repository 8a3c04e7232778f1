"""Start a job two to five times at once, or a moment apart, and kill starts and workers meanwhile.

Then: nothing that put() accepted is lost, and no message was begun by a run while whoever had begun
it in another run still lived. Figures as JSON.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

from logged_job import Starts, judge, left_in, main_of_rounds


def one_round(root: str, rng: random.Random, options: argparse.Namespace) -> dict[str, Any]:
    kind = rng.choice(["pickup_dirs", "same", "pair"])
    folders = {
        "pickup_dirs": [],
        "same": ["--current", f"{root}/same", "--previous", f"{root}/same"],
        "pair": ["--current", f"{root}/two", "--previous", f"{root}/one"],
    }[kind]
    for name in ("same", "one", "two"):
        os.mkdir(os.path.join(root, name))
    starts = Starts(root, "--start-method", options.start_method)
    try:
        if kind == "pair":
            # A dead run whose work is to be carried.
            first = starts.begin("--current", f"{root}/one")
            time.sleep(rng.uniform(0.2, 0.5))
            starts.kill_all_of(first)
        for _ in range(options.waves):
            for _ in range(rng.randrange(2, 6)):
                starts.begin(*folders)
                time.sleep(rng.choice([0, 0, rng.uniform(0, 0.05), rng.uniform(0, 0.4)]))
            for _ in range(rng.randrange(4)):
                time.sleep(rng.uniform(0, 0.3))
                living = starts.living()
                if not living:
                    break
                victim = rng.choice(living)
                how = rng.choice(["all", "main", "worker"])
                if how == "worker" and starts.workers_of(victim):
                    starts.kill(rng.choice(starts.workers_of(victim)))
                elif how == "main":
                    starts.kill_main(victim)
                else:
                    starts.kill_all_of(victim)
            if rng.random() < 0.5:
                for name in starts.living():
                    starts.wait(name)
        for name in starts.living():
            starts.wait(name)
        starts.finish(*folders)
        left = set() if kind == "pickup_dirs" else left_in(folders[1])
        return {**judge(root, left), "kills": starts.kills, "hangs": starts.hangs}
    finally:
        starts.end()


if __name__ == "__main__":
    sys.exit(main_of_rounds(__doc__, "starts", one_round))
