"""What journals cost: put, put_many, sync, recovery and requeueing, each against its bare limit.

Ratios are time over the limit's time in the same run, so 1 is as fast as the limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import subprocess
import sys
import tempfile
import time
from typing import Any

from harness import Report, interleave

from persistq import PersistentQueue
from persistq._journal.outstanding import outstanding  # noqa: F401 (recovery() calls it in a process of its own)


def consume(carrier: Any) -> None:
    while carrier.get() is not None:
        carrier.task_done()


def consume_persistent(q: PersistentQueue) -> None:
    for _ in q:
        pass


def messages(count: int) -> list[str]:
    return [f"/data/in/part-{n:09d}.tsv" for n in range(count)]


def open_log(folder: str) -> int:
    name = os.path.join(folder, f"log{time.monotonic_ns()}")
    return os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def bare_put(count: int, folder: str) -> float:
    """A JoinableQueue.put and an os.write of the line, with a consumer; seconds a message."""
    carrier = multiprocessing.JoinableQueue()
    consumer = multiprocessing.Process(target=consume, args=(carrier,))
    consumer.start()
    log, work = open_log(folder), messages(count)
    started_s = time.perf_counter()
    for message in work:
        os.write(log, message.encode() + b"\n")
        carrier.put(message)
    took_s = time.perf_counter() - started_s
    carrier.put(None)
    consumer.join()
    os.close(log)
    return took_s / count


def persistent_put(count: int, folder: str, many: int = 0) -> float:
    q = PersistentQueue(current_pickup_dir=tempfile.mkdtemp(dir=folder))
    consumer = multiprocessing.Process(target=consume_persistent, args=(q,))
    consumer.start()
    work = messages(count)
    started_s = time.perf_counter()
    if many:
        for start in range(0, count, many):
            q.put_many(work[start : start + many])
    else:
        for message in work:
            q.put(message)
    took_s = time.perf_counter() - started_s
    q.close()
    consumer.join()
    return took_s / count


def bare_sync(count: int, folder: str) -> float:
    log = open_log(folder)
    started_s = time.perf_counter()
    for message in messages(count):
        os.write(log, message.encode() + b"\n")
        getattr(os, "fdatasync", os.fsync)(log)
    took_s = time.perf_counter() - started_s
    os.close(log)
    return took_s / count


def persistent_sync(count: int, folder: str, many: int = 0) -> float:
    q = PersistentQueue(
        current_pickup_dir=tempfile.mkdtemp(dir=folder), fsync=True, queue=queue.Queue()
    )
    work = messages(count)
    q.put("the file is made")
    started_s = time.perf_counter()
    if many:
        for start in range(0, count, many):
            q.put_many(work[start : start + many])
    else:
        for message in work:
            q.put(message)
    return (time.perf_counter() - started_s) / count


def write_journals(count: int, folder: str, files: int = 4) -> tuple[list[str], list[str]]:
    """Half of the work is completed, each second message of each worker."""
    requested = [os.path.join(folder, f"requested{n}") for n in range(files)]
    completed = [os.path.join(folder, f"completed{n}") for n in range(files)]
    work = messages(count)
    for number in range(files):
        with open(requested[number], "w") as file:
            file.writelines(m + "\n" for m in work[number::files])
        with open(completed[number], "w") as file:
            file.writelines(m + "\n" for m in work[: count // 2][number::files])
    return requested, completed


def bare_loop(requested: list[str], completed: list[str]) -> list[bytes]:
    """Read the completed lines into a dict of counts, then stream the requested ones."""
    counts: dict[bytes, int] = {}
    for path in completed:
        with open(path, "rb") as file:
            for line in file:
                counts[line] = counts.get(line, 0) + 1
    left = []
    for path in requested:
        with open(path, "rb") as file:
            for line in file:
                count = counts.get(line)
                if count:
                    counts[line] = count - 1
                else:
                    left.append(line)
    return left


def peak_of(code: str, *arguments: str) -> tuple[float, float]:
    """Run code in a process of its own; return its seconds and its peak of memory in MB."""
    prefix = (
        "import sys, time, resource; sys.path[:0] = sys.argv[1].split(chr(10)); "
        "import journal; before = time.perf_counter();"
    )
    suffix = (
        "; print(time.perf_counter() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", prefix + code + suffix, "\n".join(sys.path), *arguments]
    seconds, peak = subprocess.run(command, check=True, capture_output=True).stdout.split()
    return float(seconds), float(peak) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def recovery(count: int, rounds: int, folder: str, report: Report) -> None:
    home = tempfile.mkdtemp(dir=folder)
    requested, completed = write_journals(count, home)
    paths = [",".join(requested), ",".join(completed)]
    peaks = {}

    def measure(name: str, code: str) -> float:
        seconds, peaks[name] = peak_of(code, *paths)
        return seconds

    split = "(sys.argv[2].split(','), sys.argv[3].split(','))"
    codes = {"bare loop": f"journal.bare_loop{split}", "persistq": f"journal.outstanding{split}"}
    times = interleave(
        {name: lambda n=name, c=code: measure(n, c) for name, code in codes.items()},  # type: ignore[misc]
        rounds,
    )
    for name, seconds in times.items():
        work = f"outstanding of {count:,} lines"
        report.add(work, name, seconds, "s", seconds / times["bare loop"])
        report.add(work + ", peak", name, peaks[name], "MB", peaks[name] / peaks["bare loop"])


def requeueing(count: int, rounds: int, folder: str, report: Report) -> None:
    """Requeue, against computing the outstanding work and put_many of as many."""
    previous = tempfile.mkdtemp(dir=folder)
    PersistentQueue("jobs", previous, use_queue=False).put_many(messages(count))

    def restart() -> PersistentQueue:
        current = tempfile.mkdtemp(dir=folder)
        return PersistentQueue("jobs", current, previous, queue=queue.Queue())

    def requeue() -> float:
        q = restart()
        started_s = time.perf_counter()
        assert q.requeue_unprocessed_work() == count
        return time.perf_counter() - started_s

    def look_and_put_many() -> float:
        q = restart()
        started_s = time.perf_counter()
        q.put_many(q.get_list_of_outstanding_work())
        return time.perf_counter() - started_s

    def put_after() -> float:
        q = restart()
        q.requeue_unprocessed_work()
        started_s = time.perf_counter()
        for number in range(count):
            q.put(f"new {number}")
        return time.perf_counter() - started_s

    def put_without() -> float:
        q = PersistentQueue("jobs", tempfile.mkdtemp(dir=folder), queue=queue.Queue())
        started_s = time.perf_counter()
        for number in range(count):
            q.put(f"new {number}")
        return time.perf_counter() - started_s

    for work, limit, contenders in (
        (
            "requeue",
            "look and put_many",
            {"look and put_many": look_and_put_many, "requeue": requeue},
        ),
        (
            "put",
            "nothing requeued",
            {"nothing requeued": put_without, "requeued before": put_after},
        ),
    ):
        times = interleave(contenders, rounds)
        for name, seconds in times.items():
            report.add(f"{work} {count:,}", name, seconds, "s", seconds / times[limit])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small amounts, a few seconds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - prints them")
    parser.add_argument("--dir", help="a directory on the disk to measure (default: temporary)")
    options = parser.parse_args()
    count, lines, rounds = (
        (2_000, [10_000], 1) if options.quick else (40_000, [10**5, 10**6], options.rounds)
    )
    report = Report()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        times = interleave(
            {
                "bare put and os.write": lambda: bare_put(count, folder),
                "put": lambda: persistent_put(count, folder),
                "put_many of 1,000": lambda: persistent_put(count, folder, 1000),
            },
            rounds,
        )
        for name, seconds in times.items():
            ratio = seconds / times["bare put and os.write"]
            report.add("put, journal on, one consumer", name, seconds * 1e6, "us", ratio)
        syncs = count // 40
        times = interleave(
            {
                "write and fdatasync": lambda: bare_sync(syncs, folder),
                "put, fsync=True": lambda: persistent_sync(syncs, folder),
                "put_many of 100, fsync=True": lambda: persistent_sync(syncs * 10, folder, 100),
            },
            rounds,
        )
        for name, seconds in times.items():
            ratio = seconds / times["write and fdatasync"]
            report.add("put on stable storage", name, seconds * 1e6, "us", ratio)
        for number in lines:
            recovery(number, rounds, folder, report)
        for number in lines if options.quick else [10**4, 10**5, 10**6]:
            requeueing(number, min(rounds, 3), folder, report)
    report.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
