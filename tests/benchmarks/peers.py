"""The same work on the libraries that persist, where their packages are installed.

    python -m pip install --group peers

Each is used as its documentation shows. They promise different things, which the names say:
"ack" is acknowledged after the work, so that a killed worker's message comes again; without it,
a message that was taken is gone. The slow ones get fewer messages; compare rates.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from typing import TYPE_CHECKING, Any

from persistq import DONE, PersistentQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import Amounts, Report

_WAIT_S = 0.0005


class Persistq:
    """Both journals; the workers wait for messages, and are told of the end."""

    needs, share = "persistq", 1.0
    started, fsync = False, False

    def __init__(self, folder: str, workers: int) -> None:
        self.queue = PersistentQueue(
            "jobs",
            folder,
            number_of_workers=workers,
            record_started=self.started,
            fsync=self.fsync,
        )

    def open(self) -> None:
        """Do nothing: a copy in another process opens what it needs."""

    def put(self, text: str) -> None:
        self.queue.put(text)

    def take(self) -> bool:
        message = self.queue.get()
        if message is DONE:
            raise EOFError
        self.queue.task_done(message)
        return True


class PersistqStarted(Persistq):
    started = True


class PersistqSynced(Persistq):
    share, started, fsync = 0.05, True, True


class Peer:
    """A library whose workers look for a message, and wait a little where there is none."""

    needs, share = "", 0.05

    def __init__(self, folder: str, workers: int) -> None:
        self.path = os.path.join(folder, "queue")
        self.open()

    def open(self) -> None:
        """Open the queue in this process."""
        raise NotImplementedError

    def put(self, text: str) -> None:
        """Put a message."""
        raise NotImplementedError

    def take(self) -> bool:
        """Take a message and acknowledge it; False where there is none."""
        raise NotImplementedError


class PersistQueue(Peer):
    needs, share = "persistqueue", 0.02

    def open(self) -> None:
        module = importlib.import_module("persistqueue")
        self.empty = importlib.import_module("persistqueue.exceptions").Empty
        self.queue = module.SQLiteAckQueue(self.path, multithreading=True, auto_resume=False)

    def put(self, text: str) -> None:
        self.queue.put(text)

    def take(self) -> bool:
        try:
            item = self.queue.get(block=False)
        except self.empty:
            return False
        self.queue.ack(item)
        return True


class Litequeue(Peer):
    needs = "litequeue"

    def open(self) -> None:
        self.queue = importlib.import_module("litequeue").LiteQueue(self.path)

    def put(self, text: str) -> None:
        self.queue.put(text)

    def take(self) -> bool:
        task = self.queue.pop()
        if task is None:
            return False
        self.queue.done(task.message_id)
        return True


class Simplebroker(Peer):
    needs, share = "simplebroker", 0.02

    def open(self) -> None:
        module = importlib.import_module("simplebroker")
        self.queue = module.Queue("jobs", db_path=self.path, persistent=True)

    def put(self, text: str) -> None:
        self.queue.write(text)

    def take(self) -> bool:
        return self.queue.read() is not None


class Huey(Peer):
    needs = "huey"
    fsync = True

    def open(self) -> None:
        storage = importlib.import_module("huey.storage").SqliteStorage
        self.queue = storage("jobs", filename=self.path, fsync=self.fsync)

    def put(self, text: str) -> None:
        self.queue.enqueue(text.encode())

    def take(self) -> bool:
        return self.queue.dequeue() is not None


class HueyUnsynced(Huey):
    fsync, share = False, 0.1


class Diskcache(Peer):
    needs = "diskcache"

    def open(self) -> None:
        self.queue = importlib.import_module("diskcache").Deque(directory=self.path)

    def put(self, text: str) -> None:
        self.queue.append(text)

    def take(self) -> bool:
        try:
            self.queue.popleft()
        except IndexError:
            return False
        return True


class Dirq(Peer):
    """Goes round its iterator, which remembers the listing, rather than begin anew each time."""

    needs, share = "dirq", 0.1

    def open(self) -> None:
        self.queue = importlib.import_module("dirq.QueueSimple").QueueSimple(self.path)
        self.names = iter(())

    def put(self, text: str) -> None:
        self.queue.add(text)

    def take(self) -> bool:
        for name in self.names:
            if self.queue.lock(name):
                self.queue.get(name)
                self.queue.remove(name)
                return True
        self.names = iter(self.queue)
        return False


CONTENDERS: dict[str, Callable[[str, int], Any]] = {
    "persistq, ack": Persistq,
    "persistq, ack, started lines": PersistqStarted,
    "persistq, ack, fsync": PersistqSynced,
    "dirq, ack": Dirq,
    "litequeue, ack": Litequeue,
    "persist-queue, ack, fsync": PersistQueue,
    "huey": HueyUnsynced,
    "huey, fsync": Huey,
    "diskcache": Diskcache,
    "simplebroker, fsync": Simplebroker,
}


def work(contender: Any, ready: Any, taken: Any, total: int) -> None:
    contender.open()
    ready.release()
    waits_for_messages = isinstance(contender, Persistq)
    try:
        while waits_for_messages or taken.value < total:
            if not contender.take():
                time.sleep(_WAIT_S)
            elif not waits_for_messages:
                with taken.get_lock():
                    taken.value += 1
    except EOFError:
        pass


def end_to_end(contender: Any, workers: int, number: int) -> float:
    """Return messages a second, from the first put to the end of the last worker."""
    ready, taken = multiprocessing.Semaphore(0), multiprocessing.Value("l", 0)
    processes = [
        multiprocessing.Process(target=work, args=(contender, ready, taken, number))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    began_s = time.perf_counter()
    for n in range(number):
        contender.put(f"/data/in/part-{n:09d}.tsv")
    if isinstance(contender, Persistq):
        contender.queue.close()
    for process in processes:
        process.join()
    return number / (time.perf_counter() - began_s)


def put_alone(contender: Any, number: int) -> float:
    """Return the microseconds of one put that nobody waits for."""
    began_s = time.perf_counter()
    for n in range(number):
        contender.put(f"/data/in/part-{n:09d}.tsv")
    took_us = (time.perf_counter() - began_s) / number * 1e6
    if isinstance(contender, Persistq):
        contender.queue.joinable_queue.cancel_join_thread()
    return took_us


def peers(amounts: Amounts, report: Report) -> None:
    found = {}
    for name, contender in CONTENDERS.items():
        try:
            importlib.import_module(contender.needs)
        except ImportError:
            report.skip(f"peers: {name}", f"{contender.needs} is not installed")
        else:
            found[name] = contender
    number = amounts.of(20_000, 1_000, 100)
    rounds = amounts.rounds_of(5 if amounts.level == "full" else 1)

    with amounts.new_folder() as folder:

        def run(contender: Any, workers: int) -> float:
            share = max(int(number * contender.share), 20)
            home = os.path.join(folder, os.urandom(6).hex())
            os.mkdir(home)
            if workers:
                return end_to_end(contender(home, workers), workers, share)
            return put_alone(contender(home, 1), share)

        for workers in (1, 4):
            report.compare(
                f"peers: end to end, {workers} workers",
                "msgs/s",
                "persistq, ack",
                {name: lambda c=c, w=workers: run(c, w) for name, c in found.items()},
                rounds,
            )
        report.compare(
            "peers: put alone",
            "us",
            "persistq, ack",
            {name: lambda c=c: run(c, 0) for name, c in found.items()},
            rounds,
        )


SECTIONS = {"peers": peers}
