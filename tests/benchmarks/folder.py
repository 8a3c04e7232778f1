"""Measure folder queues against the bare calls that they cannot do without.

- drain: `get` and `task_done`, against `os.rename` and `os.unlink` over a list made once.
- four: the same in four processes; the limit's lists are dealt out beforehand, so that it never
  meets a file twice, and in a second form all four want the same list.
- grouped: `get` of a group of two and `task_done`, against the same renames and removals.
- put: by move against `os.rename`, by copy against `shutil.copyfile` and `os.rename`.
- wake: from `put` to the return of a blocked `get` in another process, in milliseconds.
- idle: the share of one processor that a blocked `get` takes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING, Any

from persistq import (
    DONE,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    WritableFolderQueue,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

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


def item_of(name: str) -> str:
    return str(int(name[1:9]) % 2)


def group_of(name: str) -> str:
    return str(int(name[1:9]) // 2)


def drain_grouped(root: str, count: int) -> float:
    folder = fill(root, count + 2)
    queue = ReadableGroupedFileFolderQueue(
        folder,
        list_of_items_in_group=["0", "1"],
        grouping_function=group_of,
        item_function=item_of,
    )
    queue.task_done(queue.get(0))  # with the first, the list is made once: as for the limit

    def drain() -> None:
        for _ in range(count // 2):
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


def wake(root: str, count: int) -> list[float]:
    """Put a file for a consumer that waits, again and again; milliseconds, sorted."""
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
    return sorted(waits_ms)


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
    return (time.process_time() - before_s) / seconds * 100


def drain(amounts: Amounts, report: Report) -> None:
    with amounts.new_folder() as root:
        drain_queue(root, 10)  # the modules that a first use imports
    for count in amounts.of([10**2, 10**3, 10**4, 10**5], [10**2, 10**3], [10**2]):
        drain_of(count, amounts, report)


def drain_of(count: int, amounts: Amounts, report: Report) -> None:
    # Few files take little time and much chance, so they get more rounds.
    rounds = {10**2: amounts.rounds * 5, 10**3: amounts.rounds * 2, 10**5: amounts.rounds_of(3)}
    with amounts.new_folder() as root:
        report.compare(
            f"folder get and task_done, {count:,} waiting",
            "files/s",
            "os.rename and os.unlink",
            {
                "os.rename and os.unlink": lambda: count / drain_bare(root, count),
                "ReadableFolderQueue": lambda: count / drain_queue(root, count),
            },
            rounds.get(count, amounts.rounds),
            {"ReadableFolderQueue": ("at least", 0.85)},
        )


def grouped(amounts: Amounts, report: Report) -> None:
    count = amounts.of(10_000, 1_000, 100)
    with amounts.new_folder() as root:
        report.compare(
            f"folder get of groups of two, {count:,} files waiting",
            "files/s",
            "os.rename and os.unlink",
            {
                "os.rename and os.unlink": lambda: count / drain_bare(root, count),
                "ReadableGroupedFileFolderQueue": lambda: count / drain_grouped(root, count),
            },
            amounts.rounds,
        )


def four(amounts: Amounts, report: Report) -> None:
    count = amounts.of(10_000, 2_000, 100)
    with amounts.new_folder() as root:
        report.compare(
            f"four consumers of one folder, {count:,} waiting",
            "files/s",
            "four bare loops, list dealt out",
            {
                "four bare loops, list dealt out": lambda: count / four_bare_dealt(root, count),
                "four bare loops, one list": lambda: count / four_bare_shared(root, count),
                "ReadableFolderQueue": lambda: count / four_queue(root, count),
            },
            amounts.rounds,
            {"ReadableFolderQueue": ("at least", 0.85)},
        )


def put(amounts: Amounts, report: Report) -> None:
    count = amounts.of(3_000, 500, 50)
    with amounts.new_folder() as root:
        for name, limit, size, copy, goal in (
            ("move", "os.rename", 0, False, 0.75),
            ("copy of 10 kB", "shutil.copyfile and os.rename", 10_000, True, 0.9),
        ):
            report.compare(
                f"folder put by {name}",
                "files/s",
                limit,
                {
                    limit: lambda s=size, c=copy: count / put_bare(root, count, s, c),
                    "WritableFolderQueue": lambda s=size, c=copy: (
                        count / put_queue(root, count, s, c)
                    ),
                },
                amounts.rounds,
                {"WritableFolderQueue": ("at least", goal)},
            )


def waiting(amounts: Amounts, report: Report) -> None:
    work = "folder get that waits"
    count = amounts.of(500, 200, 20)
    with amounts.new_folder() as root:
        waits_ms = wake(root, count)
        middle, late = waits_ms[count // 2], waits_ms[int(count * 0.99) - 1]
        report.add(f"{work}: median, against 0.5 ms", "wake", [middle], "ms", middle / 0.5, _ONE)
        report.add(f"{work}: p99, against 3 ms", "wake", [late], "ms", late / 3, _ONE)
        percent = idle(root, amounts.of(30, 2, 0.2))
        name = f"{work}: processor, against 0.05 %"
        report.add(name, "idle", [percent], "%", percent / 0.05, _ONE)


_ONE = ("at most", 1.0)

SECTIONS = {
    "folder-get": drain,
    "folder-grouped": grouped,
    "folder-four": four,
    "folder-put": put,
    "folder-wait": waiting,
}
