"""Every verb over every carrier: the default one, the user's, and none at all."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import DONE, FAILED, PersistentQueue, UpstreamFailureError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from processes import Nursery

KINDS = ["own", "own, bounded", "joinable", "queue", "manager", "threads", "simple", "none"]


class Made:
    def __init__(self, kind: str, method: str = "fork") -> None:
        self.kind = kind
        self.context: Any = multiprocessing.get_context(method)
        self.manager: Any = self.context.Manager() if kind == "manager" else None

    def arguments(self) -> dict[str, Any]:
        if self.kind == "none":
            return {"use_queue": False}
        if self.kind == "own":
            return {"queue": self.context}
        if self.kind == "own, bounded":
            return {"queue": self.context, "maxsize": 50}
        return {
            "queue": {
                "joinable": self.context.JoinableQueue,
                "queue": self.context.Queue,
                "manager": lambda: self.manager.JoinableQueue(),
                "threads": queue.Queue,
                "simple": queue.SimpleQueue,
            }[self.kind]()
        }


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    made = Made(request.param)
    yield made
    if made.manager is not None:
        made.manager.shutdown()


def test_every_verb_in_one_process(made: Made, tmp_path: Path) -> None:
    def start(current: str, previous: str | None = None) -> PersistentQueue:
        where = tmp_path / previous if previous else None
        return PersistentQueue("jobs", tmp_path / current, where, **made.arguments())

    first = start("1")
    first.put("a")
    first.put_nowait(("b", 2))
    first.put_many([{"c": 3}, "d", "e", "f", "bad", "g"])
    if made.kind in ("own", "own, bounded", "threads", "none"):
        assert first.qsize() == 8
    taken = [first.get(timeout=5) for _ in range(7)]
    assert taken[:4] == ["a", ("b", 2), {"c": 3}, "d"]
    first.task_done(taken[0])
    first.task_done_many(taken[1:3])
    with first.attempt(taken[3]):
        pass
    with first.attempt(taken[6]):
        raise ValueError("four columns")
    assert first.get_nowait() == "g" if made.kind != "queue" else first.get(timeout=5)
    first.dispose()
    assert Journals(tmp_path / "1").outstanding() == ["e", "f", "g"]
    del first

    second = start("2", "1")
    assert second.get_list_of_outstanding_work() == ["e", "f", "g"]
    assert second.requeue_unprocessed_work() == 3
    second.put("e")  # it has been requeued
    assert [work.message for work in second.get_list_of_failed_work()] == ["bad"]
    assert second.requeue_failed_work() == 1
    second.put_many(["h", "i"])
    second.close()
    with pytest.raises(ValueError, match="close"):
        second.put("too late")
    assert [second.get(timeout=5) for _ in range(2)] == ["e", "f"]
    second.task_done("f")
    second.mark_all_work_done()
    assert second.get(timeout=5) is DONE
    second.task_done(DONE)
    second.task_done("e")
    if made.kind not in ("queue", "simple"):
        assert second.join(5) is True
    assert Journals(tmp_path / "2").outstanding() == []
    assert second.discard_failed_work() == 0
    del second

    third = start("3", "2")
    assert third.get_list_of_outstanding_work() == []
    third.fail()
    assert third.get(timeout=5) is FAILED
    del third
    fourth = start("4", "3")
    fourth.put("last")
    fourth.fail()
    if made.kind in ("own", "own, bounded"):
        # At once, or behind what stands before it: either is an end.
        assert fourth.get(timeout=5) in ("last", FAILED)
    with pytest.raises(UpstreamFailureError):
        for _ in fourth:
            pass
    assert Journals(tmp_path / "4").outstanding() == ["last"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["own", "own, bounded", "joinable", "queue", "manager"])
def test_two_runs_of_a_job_between_processes(
    kind: str, tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    made = Made(kind, start_method)
    first = PersistentQueue("jobs", tmp_path / "1", queue=queue.Queue())
    first.put_many([f"old {n}" for n in range(30)])
    del first
    q = PersistentQueue(
        "jobs", tmp_path / "2", tmp_path / "1", number_of_workers=2, **made.arguments()
    )
    children = [nursery.start(workers.work_and_fail, q, method=start_method) for _ in range(2)]
    assert q.requeue_unprocessed_work() == 30
    with q:
        q.put_many(f"new {n}" for n in range(30))
        q.put({"large": "x" * 5000})
        q.put("bad")
    assert sum(child.result() for child in children) == 61
    assert Journals(tmp_path / "2").outstanding() == []
    assert [work.message for work in q.get_list_of_failed_work()] == ["bad"]
    if made.manager is not None:
        made.manager.shutdown()


@pytest.mark.parametrize("kind", ["threads", "simple", "own"])
def test_threads_share_a_queue(kind: str, tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=3, **Made(kind).arguments())
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: done.append(workers.work_and_fail(None, q)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    with q:
        q.put_many(str(n) for n in range(300))
    for thread in threads:
        thread.join()
    assert sum(done) == 300
    assert Journals(tmp_path).outstanding() == []


def test_without_a_queue_a_later_process_does_what_was_put(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, use_queue=False, number_of_workers=2)
    with q:
        q.put_many(["a", "b", "bad"])
    assert nursery.start(workers.work_and_fail, q, method="spawn").result() == 2
    assert [q.get(), q.get()] == [DONE, DONE]  # nothing is outstanding: set aside is not
    with pytest.raises(queue.Empty):
        q.get()
    assert Journals(tmp_path).outstanding() == []
