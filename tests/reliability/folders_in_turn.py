"""Use one, two or three pickup directories in turn, night after night, with kills at any moment.

Each night carries on what the one before has left, from its directory; after a kill the same pair
is started again, or it is left to the next night. Some messages are set aside, and requeued on
another night. Then: nothing that put() accepted is lost, and no message was begun by a run while
whoever had begun it in another run still lived. Figures as JSON.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))

from logged_job import Starts, add, judge, left_in, report


def one_job(
    root: str, count: int, rng: random.Random, options: argparse.Namespace
) -> dict[str, Any]:
    names = [os.path.join(root, f"folder{n}") for n in range(count)]
    for name in names:
        os.mkdir(name)
    starts = Starts(root, "--start-method", options.start_method, "--fails", "9", "--messages", "6")
    previous: str | None = None
    try:
        for night in range(options.nights):
            current = names[night % count]
            pair = ["--current", current, *(["--previous", previous] if previous else [])]
            while True:
                name = starts.begin(*pair, "--busy-s", "0.01", "--wait-s", "5")
                if rng.random() < 0.6:
                    time.sleep(rng.uniform(0, 0.35))
                    starts.kill_all_of(name)
                    is_begun = os.path.exists(os.path.join(current, "jobs_run.json"))
                    if rng.random() < 0.5 and (night == 0 or is_of(starts, name)) and is_begun:
                        break  # left to the next night
                elif starts.wait(name) == 0:
                    break
                pair = ["--current", current, "--previous", previous or current]
            previous = current
        assert previous is not None
        starts.finish("--current", previous, "--previous", previous)
        figures = judge(root, left_in(previous))
        return {**figures, "nights": options.nights, "kills": starts.kills, "hangs": starts.hangs}
    finally:
        starts.end()


def is_of(starts: Starts, name: str) -> bool:
    """Tell whether a start has come so far that its directory holds its run."""
    from logged_job import read

    return any(event.run == name and event.what == "main" for event in read(starts.root))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--rounds", type=int, default=4, help="jobs, for each number of folders (4)"
    )
    parser.add_argument("--nights", type=int, default=30, help="of each job (30)")
    parser.add_argument("--folders", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--start-method", default="fork", choices=["fork", "spawn", "forkserver"])
    options = parser.parse_args()
    rng, began_s = random.Random(options.seed), time.monotonic()
    total: dict[str, Any] = {}
    for _ in range(options.rounds):
        for count in options.folders:
            with tempfile.TemporaryDirectory() as root:
                add(total, one_job(root, count, rng, options))
    return report(total, options.seed, began_s)


if __name__ == "__main__":
    sys.exit(main())
