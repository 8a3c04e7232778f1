"""Each message that is completed is one task less, whoever completes it, and no other is."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import workers
from persistq import DONE, PersistentQueue

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery

LARGE = "x" * 1000


def unfinished(q: PersistentQueue) -> int:
    return q.joinable_queue.board.unfinished()  # type: ignore[no-any-return]


@pytest.fixture(params=[True, False, None], ids=["started", "ends only", "no journal"])
def q(request: pytest.FixtureRequest, tmp_path: Path) -> PersistentQueue:
    return PersistentQueue(
        "jobs", None if request.param is None else tmp_path, record_started=bool(request.param)
    )


def test_one_by_one_together_and_by_another_thread(q: PersistentQueue) -> None:
    q.put_many(["a", ("b", "c"), LARGE, "d", "e", "f"])
    assert unfinished(q) == 6
    q.task_done(q.get())
    assert unfinished(q) == 5
    q.task_done_many([q.get(False), q.get(timeout=5)])
    assert unfinished(q) == 3
    other = threading.Thread(target=q.task_done, args=(q.get(),))
    other.start()
    other.join()
    assert unfinished(q) == 2
    q.task_done(q.get())
    q.task_done(q.get())
    assert unfinished(q) == 0
    with pytest.raises(ValueError, match="too many times"):
        q.task_done("never put")


def test_one_that_is_said_to_be_done_before_it_is_taken(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["a", "b"])
    q.task_done("b")
    assert [q.get(), q.get()] == ["a", "b"]
    q.task_done("a")
    assert unfinished(q) == 0
    with pytest.raises(ValueError, match="too many times"):
        q.task_done("never put")


def test_what_is_left_is_completed_as_a_whole(q: PersistentQueue) -> None:
    q.put_many(["a", ("b", "c"), LARGE])
    q.mark_all_work_done()
    assert unfinished(q) == 0
    with pytest.raises(ValueError, match="too many times"):
        q.task_done("a")


def test_what_users_take_from_the_carrier_itself_counts(q: PersistentQueue) -> None:
    carrier = q.joinable_queue
    carrier.put("a user's own")
    carrier.get()
    assert unfinished(q) == 1
    carrier.task_done()
    assert unfinished(q) == 0
    with pytest.raises(ValueError, match="too many times"):
        carrier.task_done()


def test_nothing_is_taken_from_a_carrier_that_was_closed(
    q: PersistentQueue, nursery: Nursery
) -> None:
    q.put("a")
    assert nursery.start(close_and_get, q).result() == "ValueError"
    assert q.get() == "a"


def close_and_get(talk: Any, q: PersistentQueue) -> str:
    q.joinable_queue.close()
    try:
        return str(q.get())
    except ValueError as error:
        return type(error).__name__


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_work_of_the_dead_that_was_never_on_its_way_is_no_task(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    putting = nursery.start(workers.put_in_two_steps, q, "put", ["late"])
    assert putting.receive() == "recorded"
    putting.kill()
    q.put("a")
    q.close()
    assert nursery.start(count_to_the_end, q).result() == (["a", "late"], 0)


def count_to_the_end(talk: Any, q: PersistentQueue) -> tuple[list[Any], int]:
    taken: list[Any] = []
    while True:
        message = q.get()
        if message is DONE:
            return taken, unfinished(q)
        taken.append(message)
        q.task_done(message)
