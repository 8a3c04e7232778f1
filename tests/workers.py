"""What the tests' child processes run: importable under every start method."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from persistq import PersistentQueue, UpstreamFailureError, pickup_dirs

if TYPE_CHECKING:
    from collections.abc import Callable

    from persistq._journal.files import JournalFile


def append_in_fork(talk: Any, journal: JournalFile, inherited_fd: int, path: str) -> str:
    try:
        is_open = os.path.sameopenfile(inherited_fd, os.open(path, os.O_RDONLY))
    except OSError:
        is_open = False
    journal.append(b"child\n")
    return "the parent's file is open" if is_open else "the parent's file is closed"


def to_hex(number: int) -> str:
    return hex(number)


def from_hex(text: str) -> int:
    return int(text, 16)


def requeue(talk: Any, q: PersistentQueue) -> int:
    talk.send("ready")
    talk.recv()
    return q.requeue_unprocessed_work()


def restart_and_requeue(talk: Any, current: str, previous: str) -> int:
    talk.send("ready")
    talk.recv()
    q = PersistentQueue("jobs", current, previous, use_queue=False)
    return q.requeue_unprocessed_work()


def take_run(talk: Any, root: str) -> list[str]:
    talk.send("ready")
    talk.recv()
    return [pickup_dirs(root, "jobs")[0] for _ in range(10)]


def work(talk: Any, q: PersistentQueue) -> list[str]:
    done = []
    for message in q:
        done.append(message)
        q.task_done(message)
    return done


def work_until_told(talk: Any, q: PersistentQueue) -> tuple[list[str], str]:
    done = []
    try:
        for message in q:
            done.append(message)
            q.task_done(message)
    except UpstreamFailureError as error:
        return done, type(error).__name__
    return done, ""


def produce(talk: Any, q: PersistentQueue, name: str, count: int) -> None:
    with q:
        for number in range(count):
            q.put(f"{name}-{number}")


def put_as_a_copy(talk: Any, q: PersistentQueue, message: str) -> None:
    q.put(message)


def threads_put_and_work(talk: Any, folder: str) -> list[str]:
    """In a process of its own, since multiprocessing's feeder thread outlives its queue."""
    q = PersistentQueue("jobs", folder, number_of_workers=3, number_of_producers=4)
    done: list[str] = []
    copies = [q, *(PersistentQueue("jobs", folder, queue=q.joinable_queue) for _ in range(3))]
    for copy in copies[1:]:
        copy.number_of_workers = 3

    def work_in_thread() -> None:
        for message in q:
            done.append(message)
            q.task_done(message)

    threads = [
        threading.Thread(target=produce, args=(None, copy, str(n), 200))
        for n, copy in enumerate(copies)
    ]
    threads += [threading.Thread(target=work_in_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def limit_file_size(limit: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def error_number(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def put_on_a_full_disk(
    talk: Any, folder: str, limit: int
) -> tuple[list[str], dict[str, int], list[str]]:
    q = PersistentQueue("jobs", folder, queue=queue.Queue())
    accepted, refused = [], {}
    limit_file_size(limit)
    for number in range(20):
        name = f"message {number}" * (1 + number % 3)
        error = error_number(lambda name=name: q.put(name))  # type: ignore[misc]
        if error:
            refused[name] = error
        else:
            accepted.append(name)
    batch = [f"batch {n}" for n in range(3)]
    refused["batch"] = error_number(lambda: q.put_many(batch))
    limit_file_size(-1)
    q.put("space is back")
    accepted.append("space is back")
    return accepted, refused, [q.get() for _ in range(q.qsize())]


def complete_on_a_full_disk(talk: Any, folder: str) -> list[object]:
    q = PersistentQueue("jobs", folder, queue=queue.Queue())
    q.put("a message")
    message = q.get()
    limit_file_size(5)
    error = error_number(lambda: q.task_done(message))
    limit_file_size(-1)
    q.task_done(message)
    return [error, q.join(0)]


def carry_on_a_full_disk(talk: Any, current: str, previous: str) -> int:
    limit_file_size(5000)
    return error_number(lambda: PersistentQueue("jobs", current, previous, queue=queue.Queue()))
