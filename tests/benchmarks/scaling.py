"""How a job grows: with its workers, with the size of its messages, and when it is started again.

The figures of docs/explanation/scaling.md, besides those of other parts.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persistq import PersistentQueue, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

HERE = Path(__file__).resolve()


def nothing(message: str) -> None:
    pass


def five_milliseconds(message: str) -> None:
    time.sleep(0.005)


def rate(amounts: Amounts, function: Any, number: int, workers: int, size: int) -> float:
    """Messages a second, from before the first process starts until all have ended."""
    given = (f"{n:010d}".ljust(size, "x") for n in range(number))
    with amounts.new_folder() as folder:
        began_s = time.perf_counter()
        summary = run(function, given, root=folder, workers=workers)
        assert summary.done == number
        return number / (time.perf_counter() - began_s)


def by_workers(amounts: Amounts, report: Report) -> None:
    for function, number in (
        (nothing, amounts.of(100_000, 20_000, 200)),
        (five_milliseconds, amounts.of(2000, 500, 20)),
    ):
        report.compare(
            f"run, messages that do {function.__name__}",
            "/s",
            None,
            {
                f"{workers} workers": lambda w=workers, f=function, n=number: rate(
                    amounts, f, n, w, 30
                )
                for workers in (1, 2, 4, 8)
            },
            amounts.rounds_of(3),
        )


def by_size(amounts: Amounts, report: Report) -> None:
    sizes = {30: 50_000, 1_000: 50_000, 10_000: 20_000, 100_000: 2_000, 1_000_000: 200}
    report.compare(
        "run, 2 workers, messages that do nothing",
        "/s",
        None,
        {
            f"{size:,} bytes": lambda s=size, n=number: rate(
                amounts, nothing, amounts.of(n, n // 10, 20), 2, s
            )
            for size, number in sizes.items()
        },
        amounts.rounds_of(3),
    )


def bytes_on_disk(amounts: Amounts, report: Report) -> None:
    number = amounts.of(10_000, 10_000, 200)
    for size in (30, 1_000):
        given = (f"{n:010d}".ljust(size, "x") for n in range(number))
        with amounts.new_folder() as folder:
            run(nothing, given, root=folder, workers=2)
            total = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
        work = f"journals of a message of {size:,} bytes, when it is done"
        report.add(work, "run", [total / number], "bytes")


RESTART = """
import sys, time
began_s = time.perf_counter()
from persistq import PersistentQueue
queue = PersistentQueue("jobs", sys.argv[2], sys.argv[1])
count = queue.requeue_unprocessed_work()
took_s = time.perf_counter() - began_s
with open("/proc/self/status") as file:
    peak_kb = next(line.split()[1] for line in file if line.startswith("VmHWM"))
print(count, took_s, peak_kb, flush=True)
import os
os._exit(0)  # nobody is to do the work
"""


def restart(amounts: Amounts, report: Report) -> None:
    if not os.path.exists("/proc/self/status"):
        report.skip("a restart", "needs /proc, for its memory")
        return
    for number in amounts.of((10**5, 10**6, 10**7), (10**5, 10**6), (1000,)):
        with amounts.new_folder() as folder:
            first, second = os.path.join(folder, "first"), os.path.join(folder, "second")
            queue: PersistentQueue = PersistentQueue("jobs", first, use_queue=False)
            queue.put_many(f"/data/in/part-{n:09d}.tsv" for n in range(number))
            done = queue.done_file
            assert done is not None
            for start in range(0, number - number // 10, 1000):
                end = min(start + 1000, number - number // 10)
                done.write(b"".join(b"/data/in/part-%09d.tsv\n" % n for n in range(start, end)))
            queue.dispose(give_up=True)
            del queue, done
            command = [sys.executable, "-c", RESTART, first, second]
            paths = os.pathsep.join(filter(None, sys.path))
            environment = {**os.environ, "PYTHONPATH": paths}
            said = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
            count, took_s, peak_kb = said.split()
            assert int(count) == number // 10
        work = f"a restart of {number:,} messages, a tenth of them outstanding"
        report.add(work, "until all is on the queue", [float(took_s)], "s")
        report.add(work, "memory", [float(peak_kb) / 1024], "MB")


WORKER = """
import sys
from redis_queue import RedisQueue
from persistq import PersistentQueue
PersistentQueue(queue=RedisQueue(sys.argv[1], "jobs")).work(len)
"""


def redis(amounts: Amounts, report: Report) -> None:
    if importlib.util.find_spec("redis") is None or shutil.which("redis-server") is None:
        report.skip("workers by Redis", "needs redis and redis-server")
        return
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "docs/examples")]
    from redis_queue import RedisQueue  # type: ignore[import-not-found]

    from redis_server import Server

    number = amounts.of(10_000, 2000, 50)

    def by(workers: int) -> Callable[[], float]:
        def measure() -> float:
            with amounts.new_folder() as folder, Server(Path(folder, "redis")) as server:
                environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                command = [sys.executable, "-c", WORKER, server.url]
                running = [subprocess.Popen(command, env=environment) for _ in range(workers)]
                carrier = RedisQueue(server.url, "jobs", begin=True)
                where = tempfile.mkdtemp(dir=folder)
                queue: PersistentQueue = PersistentQueue("jobs", where, queue=carrier)
                began_s = time.perf_counter()
                queue.put_many(f"message {n}" for n in range(number))
                queue.join()
                took_s = time.perf_counter() - began_s
                queue.close()
                for process in running:
                    process.wait()
                del queue
            return number / took_s

        return measure

    report.compare(
        "workers by Redis on this machine, messages that do nothing",
        "/s",
        None,
        {f"{workers} workers": by(workers) for workers in (1, 2, 4)},
        amounts.rounds_of(3),
    )


SECTIONS = {
    "workers": by_workers,
    "sizes": by_size,
    "disk": bytes_on_disk,
    "restart": restart,
    "redis": redis,
}
