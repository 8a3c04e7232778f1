"""Measure folder queues against the bare calls that they cannot do without.

Each figure is a ratio to its limit, taken in the same run, in rounds that take turns; the median
of the rounds is shown. Trust ratios to about 20 percent on a machine that does other things.

- drain: `get` and `task_done`, against `os.rename` and `os.unlink` over a list made once.
- four: the same in four processes; the limit's lists are dealt out beforehand, so that it never
  meets a file twice, and in a second form all four want the same list.
- put: by move against `os.rename`, by copy against `shutil.copyfile` and `os.rename`.
- wake: from `put` to the return of a blocked `get` in another process, in milliseconds.
- idle: the share of one processor that a blocked `get` takes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

from persistq import DONE, ReadableFolderQueue, WritableFolderQueue

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "000123_0123456789_"


def fill(root: str, count: int) -> str:
    """Make a new folder of messages each time: ext4 is slow where much was deleted."""
    folder = tempfile.mkdtemp(dir=root)
    for number in range(count):
        with open(os.path.join(folder, f"m{number:08}.tsv"), "w") as file:
            file.write("some\tmessage\n")
    return folder


def claim_bare(folder: str, names: list[str]) -> None:
    for name in names:
        claimed = f"{folder}/{PREFIX}{name[:-4]}.wip"
        try:
            os.rename(f"{folder}/{name}", claimed)
        except FileNotFoundError:
            continue  # only where several want the same list
        os.unlink(claimed)


def timed(action: Callable[..., object], *args: Any) -> float:
    began_s = time.perf_counter()
    action(*args)
    return time.perf_counter() - began_s


def drain_bare(root: str, count: int) -> float:
    folder = fill(root, count)
    names = sorted(os.listdir(folder))
    return timed(claim_bare, folder, names)


def drain_queue(root: str, count: int) -> float:
    folder = fill(root, count + 1)
    queue = ReadableFolderQueue(folder)
    queue.task_done(queue.get(0))  # with the first, the list is made once: as for the limit

    def drain() -> None:
        for _ in range(count):
            queue.task_done(queue.get(0))

    return timed(drain)


def run_four(work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> float:
    """Run four processes at once; seconds from the start of the first to the end of the last."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    times = context.SimpleQueue()

    def child(*args: Any) -> None:
        barrier.wait()
        began_s = time.monotonic()
        work(*args)
        times.put((began_s, time.monotonic()))

    children = [context.Process(target=child, args=args) for args in arguments]
    for process in children:
        process.start()
    begun_s, ended_s = zip(*(times.get() for _ in children))
    for process in children:
        process.join()
    return max(ended_s) - min(begun_s)


def four_bare_dealt(root: str, count: int) -> float:
    folder = fill(root, count)
    names = sorted(os.listdir(folder))
    return run_four(claim_bare, [(folder, names[start::4]) for start in range(4)])


def four_bare_shared(root: str, count: int) -> float:
    folder = fill(root, count)
    names = sorted(os.listdir(folder))
    return run_four(claim_bare, [(folder, names)] * 4)


def take_all(queue: ReadableFolderQueue) -> None:
    while (path := queue.get()) is not DONE:
        queue.task_done(path)


def four_queue(root: str, count: int) -> float:
    folder = fill(root, count)
    with open(os.path.join(folder, "end.done"), "w"):
        pass
    return run_four(take_all, [(ReadableFolderQueue(folder),)] * 4)


def put_bare(root: str, count: int, size: int, copy: bool) -> float:
    source, target = fill(root, count), tempfile.mkdtemp(dir=root)
    grow(source, size)
    names = os.listdir(source)

    def work() -> None:
        for name in names:
            if copy:
                staged = f"{target}/.{name}"
                shutil.copyfile(f"{source}/{name}", staged)
                os.rename(staged, f"{target}/{name}")
            else:
                os.rename(f"{source}/{name}", f"{target}/{name}")

    return timed(work)


def put_queue(root: str, count: int, size: int, copy: bool) -> float:
    source, target = fill(root, count), tempfile.mkdtemp(dir=root)
    grow(source, size)
    names = os.listdir(source)
    queue = WritableFolderQueue(target)

    def work() -> None:
        for name in names:
            queue.put(f"{source}/{name}", copy=copy)

    return timed(work)


def grow(folder: str, size: int) -> None:
    if size:
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(b"x" * size)


def wait_and_tell(talk: Any, queue: ReadableFolderQueue, count: int) -> None:
    for _ in range(count):
        talk.send("waiting")
        message = queue.get()
        talk.send(time.monotonic())
        queue.task_done(message)


def wake(root: str, count: int) -> dict[str, float]:
    """Put a file for a consumer that waits, again and again."""
    source, folder = fill(root, count), tempfile.mkdtemp(dir=root)
    producer = WritableFolderQueue(folder)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=wait_and_tell, args=(theirs, ReadableFolderQueue(folder), count))
    child.start()
    waits_ms = []
    for name in sorted(os.listdir(source)):
        assert mine.recv() == "waiting"
        time.sleep(0.01)  # it has said so, and now it goes to sleep
        began_s = time.monotonic()
        producer.put(os.path.join(source, name))
        waits_ms.append((mine.recv() - began_s) * 1000)
    child.join()
    waits_ms.sort()
    return {
        "median ms": round(statistics.median(waits_ms), 3),
        "p99 ms": round(waits_ms[int(len(waits_ms) * 0.99) - 1], 3),
    }


def idle(root: str, seconds: float) -> float:
    """Give the percentage of a processor that a process blocked in get takes."""
    from queue import Empty

    folder = tempfile.mkdtemp(dir=root)
    producer = WritableFolderQueue(folder)
    queue = ReadableFolderQueue(producer.path)
    try:
        queue.get(0)
    except Empty:
        pass
    before_s = time.process_time()
    try:
        queue.get(seconds * 1000)
    except Empty:
        pass
    return round((time.process_time() - before_s) / seconds * 100, 4)


def compare(rounds: int, limit: Callable[[], float], ours: Callable[[], float]) -> dict[str, float]:
    """Let both take turns; the ratio is 1 when the queue is as fast as its limit."""
    limits_s, ours_s = [], []
    for number in range(rounds):
        for action, times_s in ((limit, limits_s), (ours, ours_s))[:: 1 if number % 2 else -1]:
            times_s.append(action())
    return {
        "ratio": round(statistics.median(limits_s) / statistics.median(ours_s), 3),
        "limit s": round(statistics.median(limits_s), 5),
        "queue s": round(statistics.median(ours_s), 5),
    }


def measure(root: str, quick: bool, only: str | None) -> dict[str, Any]:
    figures: dict[str, Any] = {}

    def wanted(part: str) -> bool:
        return only is None or only == part

    # Few files take little time and much chance, so they get more rounds.
    drains = {100: 2, 1000: 1} if quick else {100: 41, 1000: 15, 10_000: 7, 100_000: 3}
    if wanted("drain"):
        drain_queue(root, 10)  # the modules that a first use imports
        for count, rounds in drains.items():
            figures[f"drain {count:,}"] = compare(
                rounds,
                lambda count=count: drain_bare(root, count),
                lambda count=count: drain_queue(root, count),
            )
    count, rounds = (200, 1) if quick else (10_000, 7)
    if wanted("four"):
        for name, limit in (("dealt", four_bare_dealt), ("shared", four_bare_shared)):
            figures[f"four, list {name}"] = compare(
                rounds,
                lambda limit=limit: limit(root, count),
                lambda: four_queue(root, count),
            )
    count, rounds = (100, 1) if quick else (3_000, 9)
    if wanted("put"):
        for name, size, copy in (("move", 0, False), ("copy 10 kB", 10_000, True)):
            figures[f"put by {name}"] = compare(
                rounds,
                lambda size=size, copy=copy: put_bare(root, count, size, copy),
                lambda size=size, copy=copy: put_queue(root, count, size, copy),
            )
    if wanted("wake"):
        figures["wake"] = wake(root, 20 if quick else 500)
    if wanted("idle"):
        figures["idle"] = {"percent": idle(root, 0.3 if quick else 30)}
    return figures


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small amounts, a few seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--only", choices=["drain", "four", "put", "wake", "idle"])
    parser.add_argument("--folder", help="where to work (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        figures = measure(root, options.quick, options.only)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, values in figures.items():
        print(f"{name:20}", "  ".join(f"{key} {value:g}" for key, value in values.items()))


if __name__ == "__main__":
    main()
