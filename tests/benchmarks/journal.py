"""What journals cost: put, put_many, sync, recovery and requeueing, each against its bare limit."""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from persistq import PersistentQueue
from persistq._journal.outstanding import Journals
from persistq._journal.outstanding import outstanding as outstanding_of

if TYPE_CHECKING:
    from harness import Amounts, Report


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


def bare_write(count: int, folder: str) -> float:
    log, work = open_log(folder), messages(count)
    started_s = time.perf_counter()
    for message in work:
        os.write(log, message.encode() + b"\n")
    took_s = time.perf_counter() - started_s
    os.close(log)
    return took_s / count


def put_alone(q: Any, count: int) -> float:
    """Seconds a message, where all that is put stays where it is."""
    work = messages(count)
    started_s = time.perf_counter()
    for message in work:
        q.put(message)
    took_s = time.perf_counter() - started_s
    getattr(q, "joinable_queue", q).cancel_join_thread()
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


def write_journals(count: int, folder: str, files: int) -> tuple[list[str], list[str]]:
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


def outstanding(requested: list[str], completed: list[str]) -> object:
    """Return what `peak_of` measures."""
    return outstanding_of(Journals(requested, completed))


def peak_of(code: str, *arguments: str) -> tuple[float, float]:
    """Run code in a process of its own; return its processor seconds and its peak of memory in MB.

    It waits for nothing, so whatever else the machine does is left out.
    """
    prefix = (
        "import sys, time; sys.path[:0] = sys.argv[1].split(chr(10)); "
        "import journal; before = time.process_time();"
    )
    suffix = "; print(time.process_time() - before, journal.peak_kb())"
    command = [sys.executable, "-c", prefix + code + suffix, "\n".join(sys.path), *arguments]
    seconds, peak = subprocess.run(command, check=True, capture_output=True).stdout.split()
    return float(seconds), float(peak) / (1 << 10)


def peak_kb() -> float:
    """Return the most memory that this process has had."""
    try:
        # What getrusage says of Linux begins with the size of the process that forked this one.
        with open("/proc/self/status") as file:
            return next(float(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 10) if sys.platform == "darwin" else peak


def put(amounts: Amounts, report: Report) -> None:
    count = amounts.of(40_000, 5_000, 1_000)
    with amounts.new_folder() as folder:
        took = report.compare(
            "put, journal on, a consumer running",
            "us",
            "bare put and os.write",
            {
                "bare put and os.write": lambda: bare_put(count, folder) * 1e6,
                "put": lambda: persistent_put(count, folder) * 1e6,
                "put_many of 1,000": lambda: persistent_put(count, folder, 1000) * 1e6,
            },
            amounts.rounds,
            {"put": ("at most", 1.2)},
        )
        ratio = took["put_many of 1,000"] / took["put"]
        report.add(
            "put_many of 1,000, against put",
            "put_many of 1,000",
            [took["put_many of 1,000"]],
            "us",
            ratio,
            ("at most", 0.4),
        )
        report.compare(
            "put alone, nobody takes",
            "us",
            "os.write",
            {
                "os.write": lambda: bare_write(count, folder) * 1e6,
                "bare put": lambda: put_alone(multiprocessing.JoinableQueue(), count) * 1e6,
                "put, no directory": lambda: put_alone(PersistentQueue(), count) * 1e6,
                "put": lambda: (
                    put_alone(PersistentQueue("jobs", tempfile.mkdtemp(dir=folder)), count) * 1e6
                ),
            },
            amounts.rounds,
        )


def durable(amounts: Amounts, report: Report) -> None:
    syncs = amounts.of(1_000, 100, 20)
    with amounts.new_folder() as folder:
        report.compare(
            "put on stable storage",
            "puts/s",
            "write and fdatasync",
            {
                "write and fdatasync": lambda: 1 / bare_sync(syncs, folder),
                "put, fsync=True": lambda: 1 / persistent_sync(syncs, folder),
                "put_many of 100, fsync=True": lambda: 1 / persistent_sync(syncs * 10, folder, 100),
            },
            amounts.rounds,
            {
                "put, fsync=True": ("at least", 0.85),
                "put_many of 100, fsync=True": ("at least", 40),
            },
        )


def recovery(amounts: Amounts, report: Report) -> None:
    sizes = amounts.of([10**4, 10**5, 10**6, 10**7], [10**4, 10**5, 10**6], [10**3, 10**4])
    for files in (1, 4):
        took_s: dict[str, list[float]] = {"bare loop": [], "persistq": []}
        for count in sizes:
            medians = recover(count, files, amounts, report)
            for name, seconds in took_s.items():
                seconds.append(medians[name])
        grown = math.log10(sizes[-1] / sizes[0])
        for name, seconds in took_s.items():
            exponent = math.log10(seconds[-1] / seconds[0]) / grown
            work = f"outstanding, {files}+{files} files: exponent of growth"
            report.add(work, name, [exponent], "")


def recover(count: int, files: int, amounts: Amounts, report: Report) -> dict[str, float]:
    """Measure the outstanding lines of one journal; return the medians of the seconds."""
    work = f"outstanding of {count:,} lines in {files}+{files} files"
    with amounts.new_folder() as home:
        requested, completed = write_journals(count, home, files)
        paths = [",".join(requested), ",".join(completed)]
        peaks: dict[str, list[float]] = {"bare loop": [], "persistq": []}

        def measure(name: str, function: str) -> float:
            code = f"journal.{function}(sys.argv[2].split(','), sys.argv[3].split(','))"
            seconds, peak = peak_of(code, *paths)
            peaks[name].append(peak)
            return seconds

        took_s = report.compare(
            work,
            "s",
            "bare loop",
            {
                "bare loop": lambda: measure("bare loop", "bare_loop"),
                "persistq": lambda: measure("persistq", "outstanding"),
            },
            amounts.rounds_of({10**7: 3, 10**6: amounts.of(7, 1, 1)}.get(count, 7)),
            {"persistq": ("at most", 1.3)} if count >= 10**6 else None,
        )
        for name, values in peaks.items():
            report.add(work + ", peak", name, values, "MB", min(values) / min(peaks["bare loop"]))
    return took_s


def requeueing(amounts: Amounts, report: Report) -> None:
    """Requeue, against computing the outstanding work and put_many of as many."""
    for count in amounts.of([10**4, 10**5, 10**6], [10**4, 10**5], [1_000]):
        with amounts.new_folder() as folder:
            requeue(count, folder, amounts, report)


def requeue(count: int, folder: str, amounts: Amounts, report: Report) -> None:
    first = os.path.join(folder, "first")
    PersistentQueue("jobs", first, use_queue=False).put_many(messages(count))

    def restart() -> PersistentQueue:
        # A run is carried on once, so each restart has one of its own.
        previous = shutil.copytree(first, os.path.join(tempfile.mkdtemp(dir=folder), "previous"))
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

    def put_anew(q: PersistentQueue) -> float:
        started_s = time.perf_counter()
        for number in range(count):
            q.put(f"new {number}")
        return (time.perf_counter() - started_s) / count * 1e6

    def put_after() -> float:
        q = restart()
        q.requeue_unprocessed_work()
        return put_anew(q)

    def put_without() -> float:
        return put_anew(PersistentQueue("jobs", tempfile.mkdtemp(dir=folder), queue=queue.Queue()))

    rounds = amounts.rounds_of(3 if count >= 10**6 else 7)
    report.compare(
        f"requeue {count:,} messages",
        "s",
        "look and put_many",
        {"look and put_many": look_and_put_many, "requeue_unprocessed_work": requeue},
        rounds,
        {"requeue_unprocessed_work": ("at most", 1.2)},
    )
    report.compare(
        f"a put after requeueing {count:,}",
        "us",
        "nothing requeued",
        {"nothing requeued": put_without, "requeued before": put_after},
        min(rounds, 3),
    )


SECTIONS = {"put": put, "fsync": durable, "recovery": recovery, "requeue": requeueing}
