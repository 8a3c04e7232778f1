"""What the child processes of the command line's tests run."""

from __future__ import annotations

import queue
from typing import Any

from persistq import PersistentQueue, ReadableFolderQueue, WritableFolderQueue, pickup_dirs


def put_and_work(talk: Any, folder: str, count: int, done: int) -> None:
    """Put some messages, take one more than are completed, and stay with that in hand."""
    q = PersistentQueue("jobs", folder, queue=queue.Queue())
    q.put_many([f"file {number}.csv" for number in range(count)])
    for _ in range(done):
        q.task_done(q.get())
    talk.send(q.get())
    while talk.recv() == "next":
        q.task_done(f"file {done}.csv")
        done += 1
        talk.send(q.get() if done < count else None)


def run_to_the_end(talk: Any, folder: str) -> None:
    q = PersistentQueue("jobs", folder, queue=queue.Queue())
    q.put("a")
    q.task_done(q.get())
    q.close()


def claim_and_stay(talk: Any, folder: str, count: int) -> None:
    q = ReadableFolderQueue(folder)
    talk.send([q.get(5000) for _ in range(count)])
    talk.recv()


def announce_and_stay(talk: Any, folder: str) -> None:
    WritableFolderQueue(folder)
    talk.send("announced")
    talk.recv()


def load_then_wait(talk: Any, root: str) -> None:
    """Complete one of four messages, set one aside, and take the next."""
    q = PersistentQueue("load", *pickup_dirs(root, "load"), queue=queue.Queue())
    q.put_many(["orders.csv", "returns.csv", "customers.csv", "invoices.csv"])
    q.task_done(q.get())
    q.task_failed(q.get(), "line 3: no amount")
    talk.send(q.get())
    talk.recv()


def run_job(
    talk: Any, current: str, previous: str | None, bad: list[Any], put: list[Any], stay: bool
) -> list[Any]:
    """Do a whole run: requeue, put, set aside what is bad; say what was done, and perhaps stay."""
    q = PersistentQueue("jobs", current, previous, queue=queue.Queue(), fsync=True)
    done = []
    if previous is not None:
        q.requeue_unprocessed_work()
    q.put_many(put)
    for _ in range(q.qsize()):
        message = q.get()
        with q.attempt(message):
            if message in bad:
                raise ValueError(f"cannot read {message}")
            done.append(message)
    if stay:
        talk.send(done)
        talk.recv()
    q.close()
    return done


def list_failed(talk: Any, current: str, previous: str) -> list[Any]:
    """Begin a run, and say what it finds set aside."""
    q = PersistentQueue("jobs", current, previous, queue=queue.Queue())
    return [(work.message, work.attempts) for work in q.get_list_of_failed_work()]
