"""What the tests' child processes run: importable under every start method."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persistq import (
    PersistentQueue,
    PreviousRunActiveError,
    UpstreamFailureError,
    pickup_dirs,
)
from persistq._queue import orphans, own_queue, user_queue

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


def limit_file_size(limit: int | None = None) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    soft = resource.RLIM_INFINITY if limit is None else limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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
    limit_file_size()
    q.put("space is back")
    accepted.append("space is back")
    return accepted, refused, [q.get() for _ in range(q.qsize())]


def complete_on_a_full_disk(talk: Any, folder: str) -> list[object]:
    q = PersistentQueue("jobs", folder, queue=queue.Queue())
    q.put("a message")
    message = q.get()
    limit_file_size(5)
    error = error_number(lambda: q.task_done(message))
    limit_file_size()
    q.task_done(message)
    return [error, q.join(0)]


def carry_on_a_full_disk(talk: Any, current: str, previous: str) -> int:
    limit_file_size(5000)
    return error_number(lambda: PersistentQueue("jobs", current, previous, queue=queue.Queue()))


def put_in_two_steps(talk: Any, q: PersistentQueue, step: str, messages: list[str]) -> None:
    """Put, and wait between the record of what is put and its way to others."""
    transport: Any = q._producer._transport
    send = getattr(transport, step)

    def wait_and_send(*args: Any) -> Any:
        talk.send("recorded")
        talk.recv()
        return send(*args)

    setattr(transport, step, wait_and_send)
    if step == "put":
        q.put(messages[0])
    else:
        q.put_many(messages)


def take_and_hold(talk: Any, q: PersistentQueue, count: int) -> list[Any]:
    held = [q.get() for _ in range(count)]
    talk.send("holding")
    talk.recv()
    for message in held:
        q.task_done(message)
    return held


def take_and_exit(talk: Any, q: PersistentQueue) -> None:
    q.get()


def work_but_for(talk: Any, q: PersistentQueue, bad: str) -> list[Any]:
    done = []
    for message in q:
        if message != bad:
            q.task_done(message)
            done.append(message)
    return done


def die_before_recording(talk: Any, q: PersistentQueue) -> None:
    def die(*taken: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    q._consumer._record = die  # type: ignore[method-assign]
    q.get()


def take_on_a_full_disk(talk: Any, folder: str) -> list[Any]:
    q = PersistentQueue("jobs", folder)
    q.put_many(["a message", "another message"])
    limit_file_size(3)
    return [q.get(), q.get()]


def be_a_parent(talk: Any, folder: str, method: str, is_users: bool) -> None:
    context: Any = multiprocessing.get_context(method)
    carrier = context.JoinableQueue() if is_users else context
    q = PersistentQueue("jobs", os.path.join(folder, "run"), queue=carrier, number_of_workers=2)
    q.put_many(["a", "b"])
    paths = [os.path.join(folder, f"told-{number}") for number in range(2)]
    for path in paths:
        context.Process(target=work_and_tell, args=(q, path)).start()
    assert q.join(20)
    # One of the two may have done it all, while the other still begins: with a semaphore that
    # goes with this process.
    wait_for_files([Path(path + ".begun") for path in paths])
    talk.send("workers wait")
    talk.recv()


def join_until(q: PersistentQueue, has_come: Callable[[], object]) -> None:
    """Join a moment at a time until something has come of that; the test's time limit ends it."""
    while not has_come():
        assert q.join(0.02) is False


def work_and_tell(q: PersistentQueue, path: str) -> None:
    orphans._LOOK_S = own_queue._LOOK_AROUND_S = user_queue._LOOK_AROUND_S = 0.1
    Path(path + ".begun").touch()
    try:
        work(None, q)
    except UpstreamFailureError as error:
        with open(path + ".new", "w") as file:
            file.write(type(error).__name__)
        os.rename(path + ".new", path)


def wait_for_files(paths: list[Path]) -> None:
    """Wait until files are there; the test's time limit ends it."""
    while not all(path.exists() for path in paths):
        time.sleep(0.02)


def put_and_stay(talk: Any, folder: str, previous: str | None = None) -> None:
    q = PersistentQueue("jobs", folder, previous, queue=queue.Queue())
    q.put("a")
    talk.send("put")
    talk.recv()


def restart_in_time(talk: Any, current: str, previous: str, wait_s: float) -> tuple[str, str]:
    from persistq._journal import runs

    runs._WAIT_S = wait_s
    talk.send("waiting")
    try:
        q = PersistentQueue("jobs", current, previous, queue=queue.Queue())
    except PreviousRunActiveError as error:
        return type(error).__name__, str(error)
    return "requeued", str(q.requeue_unprocessed_work())


def look_and_requeue(talk: Any, previous: str) -> tuple[list[Any], str]:
    from persistq._journal import runs

    runs._WAIT_S = 0.1
    q = PersistentQueue("jobs", previous_pickup_dir=previous, queue=queue.Queue())
    seen = q.get_list_of_outstanding_work()
    try:
        q.requeue_unprocessed_work()
    except PreviousRunActiveError as error:
        return seen, type(error).__name__
    return seen, ""


def put_and_stay_under_an_id(talk: Any, folder: str, pid: int) -> None:
    """As a process whose id is that of another one, in another container."""
    os.getpid = lambda: pid
    put_and_stay(talk, folder)


def die_before_acknowledging(talk: Any, q: PersistentQueue) -> None:
    completed: Any = q._consumer.completed
    append = completed.append

    def append_and_die(data: bytes) -> None:
        append(data)
        os.kill(os.getpid(), signal.SIGKILL)

    completed.append = append_and_die
    q.task_done(q.get())


def take_under_an_id(talk: Any, q: PersistentQueue, pid: int, does_it: bool) -> None:
    """As a process whose id is that of an earlier one, which a container gives."""
    os.getpid = lambda: pid
    message = q.get()
    if does_it:
        q.task_done(message)
    talk.send("taken")
    talk.recv()


def stop_before_recording(talk: Any, q: PersistentQueue) -> Any:
    record = q._consumer._record

    def stop(*taken: Any) -> None:
        talk.send("taken")
        talk.recv()
        record(*taken)

    q._consumer._record = stop  # type: ignore[method-assign]
    message = q.get()
    q.task_done(message)
    return message


def a_night(
    talk: Any,
    current: str,
    previous: str | None,
    puts: list[Any],
    completes: int,
    ends: str = "killed",
) -> tuple[int, list[Any]]:
    """Restart a job, put some messages, complete the first of all; then die, or end."""
    q = PersistentQueue("jobs", current, previous, queue=queue.Queue())
    requeued = q.requeue_unprocessed_work()
    q.put_many(puts)
    waiting = list(q.joinable_queue.queue)
    for _ in range(min(completes, len(waiting))):
        q.task_done(q.get(False))
    talk.send(("result", (requeued, waiting)))
    if ends == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if ends == "lives":
        talk.recv()
    os._exit(0)


def error_of_a_night(talk: Any, current: str, previous: str | None, wait_s: float) -> str:
    """Say what is wrong with a start."""
    from persistq._journal import runs

    runs._WAIT_S = wait_s
    try:
        PersistentQueue("jobs", current, previous, queue=queue.Queue())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def set_aside(talk: Any, folder: str, messages: list[Any]) -> None:
    q = PersistentQueue("jobs", folder, queue=queue.Queue())
    q.put_many(messages)
    for _ in messages:
        q.task_failed(q.get(), "bad data")
    os.kill(os.getpid(), signal.SIGKILL)


def set_aside_one(talk: Any, root: str, name: str, message: str) -> None:
    """Write to the journal of a dead run, as its process could have before it died."""
    from persistq._journal import failures

    folder = Path(root, name)
    path = next(folder.glob("jobs_requested_PID*.tsv"))
    tag = path.name[len("jobs_requested_PID") : -len(".tsv")].replace("_requeued", "")
    record = failures.failed_line(message.encode(), 1, "bad data")
    (folder / f"jobs_failed_PID{tag}.tsv").write_bytes(record + b"\n")


def start_at_once(talk: Any, current: str, previous: str, wait_s: float) -> None:
    from persistq._journal import runs

    runs._WAIT_S = wait_s
    talk.send("ready")
    talk.recv()
    try:
        q = PersistentQueue("jobs", current, previous, queue=queue.Queue())
        said = str(q.requeue_unprocessed_work())
    except PreviousRunActiveError as error:
        said = type(error).__name__
    talk.send(("result", said))
    talk.recv()
    os._exit(0)


# What a start does to the disk, and to locks.
COUNTED = ("rename", "replace", "link", "unlink", "mkdir", "fsync", "fdatasync", "write", "open")


def start_until(talk: Any, current: str, previous: str | None, number: int) -> None:
    """Start a run, and be killed before the so-manyth thing that it does to a directory."""
    calls = 0

    def counted(call: Any) -> Any:
        def count(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return count

    for name in COUNTED:
        setattr(os, name, counted(getattr(os, name)))
    PersistentQueue("jobs", current, previous, queue=queue.Queue())
    os.kill(os.getpid(), signal.SIGKILL) if calls >= number else os._exit(0)


def take_and_die(talk: Any, q: PersistentQueue, count: int) -> None:
    for _ in range(count):
        q.get()
    os.kill(os.getpid(), signal.SIGKILL)


def fail_and_decide_until(talk: Any, current: str, previous: str, what: str, number: int) -> None:
    """Decide of work set aside, or set some aside, and be killed before the so-manyth write."""
    q = PersistentQueue("jobs", current, previous, queue=queue.Queue())
    q.requeue_unprocessed_work()
    calls = 0
    q.task_done(q.get())  # all files that the start makes are made

    def counted(call: Any) -> Any:
        def count(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return count

    import io

    from persistq._journal import journal_file

    class Counted(io.FileIO):
        write = counted(io.FileIO.write)

    journal_file.io.FileIO = Counted  # type: ignore[misc]
    for name in ("rename", "open", "link", "unlink", "ftruncate", "fdatasync"):
        setattr(os, name, counted(getattr(os, name)))
    if what == "task_failed":
        q.task_failed(q.get(), "bad data")
    elif what == "requeue_failed_work":
        q.requeue_failed_work()
    else:
        q.discard_failed_work()
    os._exit(0 if calls < number else 9)


def work_and_fail(talk: Any, q: PersistentQueue) -> int:
    def function(message: Any) -> None:
        if "bad" in str(message):
            raise ValueError("row 17 has 4 columns")

    return q.work(function)


def die_of_the_first(talk: Any, current: str, previous: str) -> None:
    q = PersistentQueue("jobs", current, previous, queue=queue.Queue())
    q.requeue_unprocessed_work()
    q.get(False)
    os.kill(os.getpid(), signal.SIGKILL)


def take_and_dispose(talk: Any, q: PersistentQueue) -> Any:
    message = q.get()
    q.dispose()
    return message


def end_at_once(talk: Any, q: PersistentQueue) -> None:
    pass


def lock_folder(talk: Any, folder: str) -> None:
    from persistq import _fs

    with _fs.folder_lock(folder):
        talk.send("locked")
        talk.recv()


def wait_for_a_word(talk: Any) -> None:
    talk.recv()


def complete_what_was_never_put(talk: Any, folder: str, message: str) -> None:
    q = PersistentQueue("jobs", folder, queue=queue.SimpleQueue())  # which does not count
    q.task_done(message)
    os.kill(os.getpid(), signal.SIGKILL)
