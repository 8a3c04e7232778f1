"""A script of a user who has types: a type checker reads it, nobody runs it.

Each `type: ignore` stands for an error that there must be: mypy --strict and, with the next line,
pyright refuse one too many.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import multiprocessing
import queue
import threading
from typing import TYPE_CHECKING, Any, Union

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
    PersistentQueue[str](queue=multiprocessing.Manager().Queue())
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
        assert_type(producer.put("a.tsv"), str)
    files = ReadableFolderQueue("files", task_done_directory="finished")
    assert_type(files, ReadableFolderQueue[str])
    assert_type(files.path, str)
    assert_type(files.task_done_directory, Union[str, None])
    for path in files:
        assert_type(path, str)
        with files.attempt(path) as attempt:
            load(path)
        assert_type(attempt.failed, bool)
    files.work(load)
    files.work(load_all)  # type: ignore[arg-type]
    assert_type(files.reclaim_abandoned(), list[str])


def use_groups() -> None:
    groups = ReadableGroupedFileFolderQueue("files", list_of_items_in_group=["a", "b"])
    assert_type(groups.list_of_items_in_group, Union[list[str], None])
    for paths in groups:
        assert_type(paths, list[str])
        groups.release(paths, delay=10)
    groups.work(load_all)
    groups.work(load)  # type: ignore[arg-type]
    take_a_file(groups)  # type: ignore[arg-type]


def take_a_file(files: ReadableFolderQueue) -> str:
    message = files.get(timeout=10)
    message.upper()  # type: ignore[union-attr]
    if message is DONE or message is FAILED:
        return ""
    assert_type(message, str)
    files.task_done(message)
    files.task_done({"header": {"uuid": "b0a7"}})
    files.task_done(7.5)  # type: ignore[arg-type]
    return message


def load_all(paths: list[str]) -> int:
    return len(paths)


class Uploads(ReadableFolderQueue):
    """A folder queue of a user's own class."""


def use_uploads(uploads: Uploads) -> None:
    take_a_file(uploads)
    for path in uploads:
        assert_type(path, str)
