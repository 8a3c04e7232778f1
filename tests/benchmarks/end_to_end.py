"""Messages from one producer to its workers: put, get, task_done, until join() returns.

Rates are by the clock. The processor time is that of all processes together, for one message:
it says what a queue costs also on a machine that does other things.

Limits: a bare `multiprocessing.JoinableQueue`, which forgets all, and one with the `os.write`s to
append-mode files that a journal cannot do without.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

from persistq import DONE, PersistentQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

GOALS = {
    30: {
        1: {"journals": 1.3, "and started lines": 1.0, "no directory": 1.8},
        4: {"journals": 1.3, "and started lines": 1.1, "no directory": 1.8},
    },
    1000: {n: {"journals": 1.0} for n in (1, 4)},
    100_000: {n: {"journals": 1.0} for n in (1, 4)},
}


class Logged:
    """A bare queue with one write to an append-mode file at put and one at task_done."""

    def __init__(self, folder: str) -> None:
        self._queue: Any = multiprocessing.JoinableQueue()
        self._folder = folder
        self._fd = -1

    def _log(self, message: str) -> None:
        if self._fd < 0:
            path = os.path.join(self._folder, f"log{os.getpid()}")
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._fd, message.encode() + b"\n")

    def put(self, message: Any) -> None:
        if type(message) is str:
            self._log(message)
        self._queue.put(message)

    def get(self) -> Any:
        return self._queue.get()

    def task_done(self, message: Any) -> None:
        if type(message) is str:
            self._log(message)
        self._queue.task_done()

    def join(self) -> None:
        self._queue.join()


def work_bare(queue: Any, ready: Any) -> None:
    get, task_done = queue.get, queue.task_done
    ready.release()
    while get() is not None:
        task_done()
    task_done()


def work(queue: Any, ready: Any) -> None:
    get, task_done = queue.get, queue.task_done
    ready.release()
    while True:
        message = get()
        if message is None or message is DONE:
            break
        task_done(message)
    task_done(message)


def distinct(size: int, number: int) -> list[str]:
    """Make messages of a size that differ, and end in what a line of text ends in."""
    width = min(size, 12)
    return [f"{n:0{width}d}".ljust(size, "x") for n in range(number)]


def processor_s() -> float:
    """Return the processor time of this process and of the children that have ended."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def rate(
    queue: Any, target: Callable[..., None], workers: int, messages: list[str]
) -> tuple[float, float]:
    """Return messages a second, from the first put to the last task_done, and microseconds each."""
    ready = multiprocessing.Semaphore(0)
    processes = [
        multiprocessing.Process(target=target, args=(queue, ready)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    gc.collect()
    put = queue.put
    used_s = processor_s()
    began_s = time.perf_counter()
    for message in messages:
        put(message)
    queue.join()
    took_s = time.perf_counter() - began_s
    if isinstance(queue, PersistentQueue):
        queue.close()
    else:
        for _ in processes:
            queue.put(None)
    for process in processes:
        process.join()
    return len(messages) / took_s, (processor_s() - used_s) / len(messages) * 1e6


def persistent(
    folder: str | None, workers: int, messages: list[str], record_started: bool = False
) -> tuple[float, float]:
    directory = None if folder is None else tempfile.mkdtemp(dir=folder)
    queue = PersistentQueue(
        "jobs", directory, number_of_workers=workers, record_started=record_started
    )
    return rate(queue, work, workers, messages)


def end_to_end(amounts: Amounts, report: Report) -> None:
    for size, goals in GOALS.items():
        number = amounts.of(40_000, 3_000, 300) * 30 // max(30, size // 40)
        for workers, wanted in goals.items():
            with amounts.new_folder() as folder:
                compare(folder, distinct(size, number), workers, wanted, amounts, report)


def compare(
    folder: str,
    messages: list[str],
    workers: int,
    goals: dict[str, float],
    amounts: Amounts,
    report: Report,
) -> None:
    def bare() -> tuple[float, float]:
        return rate(multiprocessing.JoinableQueue(), work_bare, workers, messages)

    def logged() -> tuple[float, float]:
        return rate(Logged(tempfile.mkdtemp(dir=folder)), work, workers, messages)

    contenders = {
        "bare JoinableQueue": bare,
        "bare and os.write twice": logged,
        "journals": lambda: persistent(folder, workers, messages),
        "and started lines": lambda: persistent(folder, workers, messages, True),
        "no directory": lambda: persistent(None, workers, messages),
    }
    used_us: dict[str, list[float]] = {name: [] for name in contenders}

    def measure(name: str) -> float:
        per_second, us = contenders[name]()
        used_us[name].append(us)
        return per_second

    title = f"end to end, {len(messages[0]):,} bytes, {workers} workers"
    report.compare(
        title,
        "msgs/s",
        "bare JoinableQueue",
        {name: functools.partial(measure, name) for name in contenders},
        amounts.rounds,
        {name: ("at least", ratio) for name, ratio in goals.items()},
    )
    limit = used_us["bare JoinableQueue"]
    for name, values in used_us.items():
        ratio = statistics.median(ours / bare for ours, bare in zip(values, limit))
        report.add(f"{title}: processor time a message", name, values, "us", ratio)


SECTIONS = {"end-to-end": end_to_end}
