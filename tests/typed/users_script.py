"""A script of a user who has types: a type checker reads it, nobody runs it.

Each `type: ignore` stands for an error that there must be: mypy --strict refuses one too many.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
from typing import TYPE_CHECKING, Any

from persistq import (
    DONE,
    FAILED,
    FailedWork,
    PersistentQueue,
    ReadableFolderQueue,
    ReadableGroupedFileFolderQueue,
    Summary,
    WritableFolderQueue,
    pickup_dirs,
    run,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type

Row = tuple[str, int]


def load(name: str) -> int:
    return len(name)


def work(orders: PersistentQueue[str]) -> None:
    for message in orders:
        assert_type(message, str)
        with orders.attempt(message) as attempt:
            load(message)
        if attempt.failed:
            continue
    orders.work(load)
    orders.work(sum)  # type: ignore[arg-type]


def take(orders: PersistentQueue[Row]) -> int:
    message = orders.get(timeout=1)
    if message is DONE or message is FAILED:
        return 0
    assert_type(message, Row)
    _, quantity = message
    orders.task_done(message)
    orders.task_done(quantity)  # type: ignore[arg-type]
    return quantity + orders.get_nowait()[1]  # type: ignore[index]


def main() -> None:
    current, previous = pickup_dirs("pickups", "orders")
    orders = PersistentQueue[str]("orders", current, previous, number_of_workers=4)
    rows: PersistentQueue[Row] = PersistentQueue("rows", current, use_queue=False)
    with orders:
        orders.put("a")
        orders.put(DONE)
        orders.put_many(name for name in "abc")
        orders.put(1)  # type: ignore[arg-type]
        orders.put_many([b"a"])  # type: ignore[list-item]
    with rows as same:
        assert_type(same, PersistentQueue[Row])
    assert_type(rows.get_list_of_outstanding_work(), list[Row])
    for failed in orders.get_list_of_failed_work():
        assert_type(failed, FailedWork[str])
        print(failed.message.upper(), failed.reason, failed.attempts, failed.failed_at)
    orders.requeue_failed_work(orders.get_list_of_failed_work())
    orders.discard_failed_work(["a"])
    print(orders.join(timeout=1.5), orders.progress().outstanding)


def choose_a_carrier() -> None:
    PersistentQueue[str](queue=queue.Queue())
    PersistentQueue[str](queue=queue.SimpleQueue())
    PersistentQueue[str](queue=multiprocessing.Queue())
    PersistentQueue[str](queue=multiprocessing.JoinableQueue(100))
    PersistentQueue[str](queue=multiprocessing.get_context("spawn"))
    PersistentQueue[str](queue=multiprocessing.get_context("spawn").JoinableQueue())
    PersistentQueue[str](queue=multiprocessing.Manager().JoinableQueue())
    PersistentQueue[str](queue=Mine())
    PersistentQueue[str](queue=None, maxsize=10)
    PersistentQueue[str](queue=42)  # type: ignore[arg-type]
    PersistentQueue[str](queue=[])  # type: ignore[arg-type]
    PersistentQueue[str](queue=multiprocessing.SimpleQueue())  # type: ignore[arg-type]


class Mine:
    """A carrier of somebody's own, with the least that one needs."""

    def put(self, message: object, block: bool, timeout: float | None) -> None: ...

    def get(self, block: bool, timeout: float | None) -> object: ...


class Orders(PersistentQueue[str]):
    """A queue of a user's own class."""


def without_annotations() -> None:
    orders = PersistentQueue("orders", "pickups")
    assert_type(orders, PersistentQueue[Any])
    threading.Thread(target=orders.work, args=(load,)).start()
    for message in Orders("orders", "pickups"):
        assert_type(message, str)


def call_run() -> Summary:
    def note(name: str, length: int) -> None:
        print(name, length)

    run(load, [1])  # type: ignore[arg-type]
    return run(load, ["a", "b"], on_result=note)


def use_folders() -> None:
    with WritableFolderQueue("files") as producer:
        producer.put("a.tsv")
    finished = ReadableFolderQueue("files", task_done_directory="finished")
    for path in finished:
        finished.task_done(path)
    for paths in ReadableGroupedFileFolderQueue("files"):
        print(sorted(paths))
