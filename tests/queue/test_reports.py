"""Carriers that carry back what came of a message: workers need no journal, nor a folder."""

from __future__ import annotations

import importlib.util
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import persistq
from persistq import DONE, PersistentQueue, PersistqError
from redis_server import Server

EXAMPLES = Path(__file__).parents[2] / "docs/examples"

needs_redis = pytest.mark.skipif(
    importlib.util.find_spec("redis") is None or shutil.which("redis-server") is None,
    reason="needs redis (pip install --group redis) and redis-server",
)


class Reporting:
    """A carrier between threads, with two lists."""

    def __init__(self) -> None:
        self.todo: queue.Queue[Any] = queue.Queue()
        self.back: queue.Queue[Any] = queue.Queue()
        self.put, self.get = self.todo.put, self.todo.get

    def put_report(self, report: Any) -> None:
        self.back.put(report)

    def get_report(self, block: bool, timeout: float | None) -> Any:
        report = self.back.get(block, timeout)
        if isinstance(report, Exception):
            raise report
        return report


def pair(folder: Path, **arguments: Any) -> tuple[Reporting, PersistentQueue, PersistentQueue]:
    carrier = Reporting()
    parent: PersistentQueue = PersistentQueue("jobs", folder, queue=carrier, **arguments)
    worker: PersistentQueue = PersistentQueue(queue=carrier)
    return carrier, parent, worker


def test_what_a_worker_without_a_journal_does_stands_in_the_parents(tmp_path: Path) -> None:
    _, parent, worker = pair(tmp_path)
    parent.put_many(["a", ("b", 2), "bad", "left"])
    messages = [worker.get() for _ in range(4)]
    assert messages == ["a", ("b", 2), "bad", "left"]
    worker.task_done(messages[0])
    worker.task_done_many(messages[1:2])
    worker.task_failed(messages[2], "no header")
    assert not parent.join(timeout=0.2)
    worker.task_done(messages[3])
    assert parent.join(timeout=10)
    assert parent.progress().completed == 3
    assert [(f.message, f.reason) for f in parent.get_list_of_failed_work()] == [
        ("bad", "no header")
    ]
    parent.close()
    assert worker.get() is DONE


def test_what_is_reported_while_more_is_put_is_recorded_without_a_join(tmp_path: Path) -> None:
    _, parent, worker = pair(tmp_path)
    parent.put("a")
    worker.task_done(worker.get())
    arrived = threading.Event()
    while not parent.progress().completed:
        arrived.wait(0.01)  # the test's own time limit ends this
    assert (parent.progress().completed, parent.progress().outstanding) == (1, 0)


def test_what_is_lost_with_its_worker_comes_again_and_is_set_aside_when_that_is_too_often(
    tmp_path: Path,
) -> None:
    carrier, parent, worker = pair(tmp_path, max_attempts=3)
    parent.put("deadly")
    for _ in range(3):
        worker.get()
        carrier.put_report(("lost", b"deadly", "its host is gone"))
    assert parent.join(timeout=10)
    failure = parent.get_list_of_failed_work()[0]
    assert (failure.message, failure.attempts) == ("deadly", 3)
    assert "its host is gone" in failure.reason


def test_join_says_that_nothing_is_recorded_any_more_and_the_next_run_has_what_is_left(
    tmp_path: Path,
) -> None:
    carrier, parent, worker = pair(tmp_path)
    parent.put_many(["a", "b"])
    worker.task_done(worker.get())
    carrier.back.put(LookupError("the carrier is gone"))
    with pytest.raises(PersistqError, match="LookupError: the carrier is gone"):
        parent.join()
    parent.fail()
    del parent
    _, again, _ = pair(tmp_path / "next", previous_pickup_dir=tmp_path)
    assert again.get_list_of_outstanding_work() == ["b"]


WORKER = """
import sys
from redis_queue import RedisQueue
from persistq import PersistentQueue
print(PersistentQueue(queue=RedisQueue(sys.argv[1], "jobs")).work(len))
"""


@needs_redis
@pytest.mark.timeout(60)
def test_over_the_example_in_redis_workers_anywhere_do_what_the_parent_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from redis_queue import RedisQueue  # type: ignore[import-not-found]

    paths = [str(EXAMPLES), str(Path(persistq.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with Server(tmp_path / "redis") as server:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, server.url],
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=tmp_path,
            )
            for _ in range(2)
        ]
        try:
            parent: Any = PersistentQueue(
                "jobs", tmp_path / "p", queue=RedisQueue(server.url, "jobs", begin=True)
            )
            with parent:
                parent.put_many(f"message {n}" for n in range(200))
                parent.put_many([("no", "len"), 17])
                assert parent.join(timeout=30)
            done = [int(worker.communicate(timeout=20)[0]) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
    assert sum(done) == 201  # a tuple has a length
    assert [f.message for f in parent.get_list_of_failed_work()] == [17]
    (journal,) = (tmp_path / "p").glob("*_completed_*")
    counts = Counter(journal.read_text().splitlines())
    assert len(counts) == 201
    assert set(counts.values()) == {1}


@needs_redis
@pytest.mark.timeout(60)
def test_a_run_that_redis_has_lost_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from redis_queue import RedisQueue  # type: ignore[import-not-found]

    with Server(tmp_path / "redis") as server:
        parent: Any = PersistentQueue(
            "jobs", tmp_path / "p", queue=RedisQueue(server.url, "jobs", begin=True)
        )
        parent.put("a")
        server.kill()
        server.start()
        # Where the connection is found broken first, that is what it says.
        with pytest.raises(PersistqError, match=r"has lost this run|ConnectionError"):
            parent.join()
        parent.fail()
        again: Any = PersistentQueue(
            "jobs", tmp_path / "q", tmp_path / "p", queue=RedisQueue(server.url, "jobs", begin=True)
        )
        assert again.requeue_unprocessed_work() == 1


@needs_redis
@pytest.mark.timeout(60)
def test_what_a_worker_does_that_was_taken_for_dead_is_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from redis_queue import RedisQueue  # type: ignore[import-not-found]

    def lives_a_moment(self: Any, key: str) -> None:
        self._redis.set(key, "", ex=1)

    with Server(tmp_path / "redis") as server:
        parent: Any = PersistentQueue(
            "jobs", tmp_path / "p", queue=RedisQueue(server.url, "jobs", begin=True)
        )
        other: Any = PersistentQueue(queue=RedisQueue(server.url, "jobs"))
        slow = RedisQueue(server.url, "jobs")
        monkeypatch.setattr(slow, "_live", lives_a_moment.__get__(slow))
        stopped: Any = PersistentQueue(queue=slow)
        parent.put_many(["a", "b"])
        assert stopped.get() == "a"
        taken = [other.get(), other.get()]
        assert taken == ["b", "a"]  # put again
        stopped.task_done("a")  # it comes back, and has done it all the same
        other.task_done(taken[1])
        assert not parent.join(timeout=1)  # "b" is in hand
        other.task_done(taken[0])
        assert parent.join(timeout=10)
        assert parent.progress().completed == 2
        parent.close()
