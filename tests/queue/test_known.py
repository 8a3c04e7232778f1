"""Which puts are passed over, and which message a completion is about."""

from __future__ import annotations

import logging
import queue
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import PersistentQueue

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery


@pytest.fixture
def q(tmp_path: Path) -> PersistentQueue:
    """A queue that has requeued a, b, b and a dict."""
    first = PersistentQueue("jobs", tmp_path / "1", queue=queue.Queue())
    first.put_many(["a", "b", "b", {"x": 1, "y": 2}])
    del first
    second = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=queue.Queue())
    assert second.requeue_unprocessed_work() == 4
    return second


def waiting(q: PersistentQueue) -> int:
    return q.qsize()


# --- passing over -----------------------------------------------------------------------------


def test_as_many_puts_are_passed_over_as_were_requeued(q: PersistentQueue) -> None:
    q.put_many(["a", "b", "b", {"y": 2, "x": 1}])
    assert waiting(q) == 4
    q.put_many(["a", "b", "b", {"y": 2, "x": 1}])
    assert waiting(q) == 8


def test_passing_over_ends_with_the_completion(q: PersistentQueue) -> None:
    q.task_done(q.get())
    q.put("a")  # the next delivery of that name
    assert waiting(q) == 4
    q.task_done(q.get())  # one of the two b
    q.put("b")  # the other one waits still
    assert waiting(q) == 3
    q.put("b")
    assert waiting(q) == 4


def test_passing_over_ends_with_a_completion_by_another_process(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    import multiprocessing

    context: Any = multiprocessing.get_context(start_method)
    first = PersistentQueue("jobs", tmp_path / "1", queue=queue.Queue())
    first.put_many(["a", "b"])
    del first
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=context)
    assert q.requeue_unprocessed_work() == 2
    child = nursery.start(workers.take_and_hold, q, 1, method=start_method)
    assert child.receive() == "holding"
    q.put("a")  # in hand there: passed over
    assert q.qsize() == 1
    child.send("complete")
    child.result()
    q.put("a")
    assert q.qsize() == 2


def test_what_is_in_hand_here_may_be_put_again_for_later(
    q: PersistentQueue, tmp_path: Path
) -> None:
    message = q.get()
    q.put(message)
    q.task_done(message)
    assert [q.get() for _ in range(q.qsize())] == ["b", "b", {"x": 1, "y": 2}, "a"]
    assert "a" in Journals(tmp_path / "2").outstanding()


def test_what_was_set_aside_in_this_run_is_passed_over_still(q: PersistentQueue) -> None:
    q.task_failed(q.get(), "bad")
    q.put("a")
    assert waiting(q) == 3
    q.put("a")
    assert waiting(q) == 4


def test_a_copy_that_has_requeued_nothing_passes_nothing_over(
    q: PersistentQueue, nursery: Nursery, tmp_path: Path
) -> None:
    nursery.start(workers.put_as_a_copy, q, "a").result()
    assert len(Journals(tmp_path / "2").lines("requested")) == 5


# --- completing -------------------------------------------------------------------------------


@pytest.fixture
def taken(tmp_path: Path) -> tuple[PersistentQueue, list[Any]]:
    q = PersistentQueue("jobs", tmp_path / "run", queue=queue.Queue())
    q.put_many([{"id": 1}, {"id": 2}, {"id": 1}, "name.csv"])
    return q, [q.get() for _ in range(4)]


def test_a_message_that_was_changed_is_known_as_the_object_that_it_is(
    taken: tuple[PersistentQueue, list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q, messages = taken
    for number, message in enumerate(messages[:3]):
        message["status"] = f"loaded {number}"
    for message in reversed(messages):
        q.task_done(message)
    assert Journals(tmp_path / "run").outstanding() == []
    assert caplog.records == []


def test_an_equal_message_completes_what_is_in_hand(
    taken: tuple[PersistentQueue, list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q, _ = taken
    for message in ({"id": 2}, "name.csv", {"id": 1}, {"id": 1}):
        q.task_done(message)
    assert Journals(tmp_path / "run").outstanding() == []
    assert caplog.records == []


def test_a_path_in_place_of_the_name_is_warned_of_and_completes_nothing(
    taken: tuple[PersistentQueue, list[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q, _ = taken
    q.task_done("inbox/name.csv")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "inbox/name.csv" in record.getMessage()
    assert "{'id': 1}" in record.getMessage()
    assert len(Journals(tmp_path / "run").outstanding()) == 4


def test_a_dispatcher_may_complete_what_others_took(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q = PersistentQueue("jobs", tmp_path, queue=queue.Queue())
    q.put("a")
    q.task_done("a")
    assert caplog.records == []
    assert Journals(tmp_path).outstanding() == []


def test_a_batch_is_completed_with_one_write(
    taken: tuple[PersistentQueue, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, messages = taken
    sizes = []
    append = type(q._consumer.completed).append
    monkeypatch.setattr(
        type(q._consumer.completed),
        "append",
        lambda self, data: (sizes.append(data.count(b"\n")), append(self, data))[1],
    )
    q.task_done_many(iter(messages))
    assert sizes == [4]
    assert q.join(0)
    assert Journals(tmp_path / "run").outstanding() == []


def test_a_batch_with_too_many_leaves_no_record_of_those(
    taken: tuple[PersistentQueue, list[Any]], tmp_path: Path
) -> None:
    q, messages = taken
    with pytest.raises(ValueError, match="too many"):
        q.task_done_many([*messages, "one more", "and one"])
    assert Journals(tmp_path / "run").outstanding() == []
    assert len(Journals(tmp_path / "run").lines("completed")) == 4


def test_a_completion_too_many_of_a_thread_leaves_others_alone(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path, queue=queue.Queue())
    q.put_many(["a", "b"])
    q.task_done(q.get())
    q.task_done(q.get())
    for _ in range(2):
        with pytest.raises(ValueError, match="too many"):
            q.task_done("b")
    q.put("b")
    assert Journals(tmp_path).outstanding() == ["b"]
