"""A whole job of messages that do nothing: `run`, against the job that one would write by hand.

Limits: the README's job over a `PersistentQueue`, and `ProcessPoolExecutor.map`, which forgets
everything, with as many messages a chunk as `run` puts at a time. The clock runs from before the
first process is started until all have ended.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from persistq import PersistentQueue, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

WORKERS = 4
CHUNK = 100


def nothing(message: str) -> None:
    pass


def load(queue: PersistentQueue) -> None:
    for message in queue:
        nothing(message)
        queue.task_done(message)


def by_hand(folder: str, number: int) -> None:
    queue = PersistentQueue("orders", folder, number_of_workers=WORKERS)
    workers = [multiprocessing.Process(target=load, args=(queue,)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    with queue:
        queue.requeue_unprocessed_work()
        queue.put_many(f"message {n}" for n in range(number))
    for worker in workers:
        worker.join()


def by_run(folder: str, number: int) -> None:
    given = (f"message {n}" for n in range(number))
    summary = run(nothing, given, root=folder, workers=WORKERS)
    assert summary.done == number


def by_run_with_results(folder: str, number: int) -> None:
    given = (f"message {n}" for n in range(number))
    run(nothing, given, root=folder, workers=WORKERS, on_result=lambda message, result: None)


def by_pool(folder: str, number: int) -> None:
    with ProcessPoolExecutor(WORKERS) as executor:
        for _ in executor.map(nothing, (f"message {n}" for n in range(number)), chunksize=CHUNK):
            pass


def by_joblib(folder: str, number: int) -> None:
    from joblib import Parallel, delayed

    Parallel(n_jobs=WORKERS, batch_size=CHUNK)(
        delayed(nothing)(f"message {n}") for n in range(number)
    )


def jobs(amounts: Amounts, report: Report) -> None:
    number = amounts.of(100_000, 10_000, 200)

    def timed(job: Callable[[str, int], None]) -> Callable[[], float]:
        def measure() -> float:
            with amounts.new_folder() as parent:
                folder = tempfile.mkdtemp(dir=parent)
                began_s = time.perf_counter()
                job(os.path.join(folder, "run"), number)
                return time.perf_counter() - began_s

        return measure

    contenders = {
        "the README's job": timed(by_hand),
        "run": timed(by_run),
        "run, with on_result": timed(by_run_with_results),
        "ProcessPoolExecutor.map": timed(by_pool),
    }
    try:
        import joblib  # noqa: F401
    except ImportError:
        report.skip("joblib", "not installed")
    else:
        contenders["joblib"] = timed(by_joblib)
    report.compare(
        f"a job of {number:,} messages that do nothing, {WORKERS} workers",
        "s",
        "the README's job",
        contenders,
        amounts.rounds,
        {"run": ("at most", 1.25)},
    )


SECTIONS = {"jobs": jobs}
