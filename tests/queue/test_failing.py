"""Work that fails: set aside, carried, done again or given up; and never lost between two steps."""

from __future__ import annotations

import datetime
import itertools
import multiprocessing
import os
import queue
import signal
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import FailedWork, JournalError, PersistentQueue
from persistq._queue import joining

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from processes import Nursery

needs_kill = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")


def start(root: Path, current: str, previous: str | None = None, **how: Any) -> PersistentQueue:
    how.setdefault("queue", queue.Queue())
    return PersistentQueue("jobs", root / current, root / previous if previous else None, **how)


def failed(q: PersistentQueue) -> list[Any]:
    return [work.message for work in q.get_list_of_failed_work()]


def test_what_is_set_aside_is_neither_outstanding_nor_done(tmp_path: Path) -> None:
    q = start(tmp_path, "1")
    q.put_many(["a", ("b", 1), {"c": 2}])
    before = datetime.datetime.now(datetime.timezone.utc)
    q.task_failed(q.get(), "row 17\thas\n4 columns")
    try:
        raise KeyError("x")
    except KeyError as error:
        q.task_failed(q.get(), error)
    q.task_done(q.get())
    assert q.join(0)
    assert Journals(tmp_path / "1").outstanding() == []
    first, second = q.get_list_of_failed_work()
    assert (first.message, first.attempts) == ("a", 1)
    assert "row 17" in first.reason
    assert "\n" not in first.reason
    assert before - datetime.timedelta(seconds=1) < first.failed_at
    assert (second.message, "KeyError" in second.reason) == (("b", 1), True)
    assert "test_failing.py" in second.reason


def test_set_aside_work_is_carried_from_run_to_run_until_somebody_decides(tmp_path: Path) -> None:
    for run in range(1, 5):
        q = start(tmp_path, str(run), str(run - 1) if run > 1 else None)
        assert q.requeue_unprocessed_work() == 0
        q.put(f"bad {run}")
        q.task_failed(q.get(), "")
        assert failed(q) == [f"bad {n}" for n in range(1, run + 1)]
        if run == 2:
            assert isinstance(q.get_list_of_failed_work()[0], FailedWork)
        del q
    q = start(tmp_path, "5", "4")
    assert q.discard_failed_work(["bad 2", "unknown"]) == 1
    assert q.requeue_failed_work([q.get_list_of_failed_work()[0]]) == 1
    assert failed(q) == ["bad 3", "bad 4"]
    assert q.get(False) == "bad 1"
    del q
    q = start(tmp_path, "6", "5")
    assert failed(q) == ["bad 3", "bad 4"]
    assert q.get_list_of_outstanding_work() == ["bad 1"]
    assert q.requeue_failed_work() == 2
    assert q.discard_failed_work() == 0


def test_a_message_that_fails_again_behind_its_decision_is_set_aside_again(tmp_path: Path) -> None:
    q = start(tmp_path, "1")
    q.put("bad")
    for _ in range(3):
        q.task_failed(q.get(False), "again")
        assert failed(q) == ["bad"]
        assert q.requeue_failed_work() == 1
        assert failed(q) == []
    assert start_over(tmp_path, q) == (["bad"], [])


def start_over(root: Path, q: PersistentQueue) -> tuple[list[Any], list[Any]]:
    next_one = start(root, "next", "1")
    return next_one.get_list_of_outstanding_work(), failed(next_one)


def test_a_restart_passes_over_what_was_set_aside_as_often_as_that(tmp_path: Path) -> None:
    q = start(tmp_path, "1")
    q.put_many(["bad", "bad", "good"])
    q.task_failed(q.get(), "")
    q.task_failed(q.get(), "")
    del q
    q = start(tmp_path, "2", "1")
    assert q.requeue_unprocessed_work() == 1
    q.put_many(["bad", "bad", "bad", "good"])
    assert [q.get(False) for _ in range(q.qsize())] == ["good", "bad"]


def test_of_equal_messages_that_are_set_aside_as_many_are_decided_as_are_named(
    tmp_path: Path,
) -> None:
    q = start(tmp_path, "1")
    q.put_many(["bad", "bad", "bad"])
    for reason in ("first", "second", "third"):
        q.task_failed(q.get(), reason)
    assert q.requeue_failed_work(["bad"]) == 1
    assert [work.reason for work in q.get_list_of_failed_work()] == ["second", "third"]
    assert q.discard_failed_work(["bad", "bad"]) == 2
    assert failed(q) == []
    assert (q.get(False), q.qsize()) == ("bad", 0)


def test_an_attempt_is_done_or_set_aside_and_the_loop_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q = start(tmp_path, "1")
    q.put_many(["good", "bad", "also good"])
    q.close()
    assert workers.work_and_fail(None, q) == 2
    assert failed(q) == ["bad"]
    assert "row 17 has 4 columns" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_attempt_that_is_stopped_leaves_its_message_outstanding(
    tmp_path: Path, stop: type[BaseException]
) -> None:
    q = start(tmp_path, "1")
    q.put("a")
    with pytest.raises(stop), q.attempt(q.get()):
        raise stop
    assert failed(q) == []
    assert Journals(tmp_path / "1").outstanding() == ["a"]


def test_without_a_directory_nothing_is_set_aside(tmp_path: Path) -> None:
    q = PersistentQueue(queue=queue.Queue())
    q.put("a")
    for call in (lambda: q.task_failed(q.get()), q.requeue_failed_work, q.discard_failed_work):
        with pytest.raises(ValueError, match="current_pickup_dir"):
            call()
    assert q.get_list_of_failed_work() == []


def test_lines_that_cannot_be_read_are_set_aside_where_that_is_asked_for(tmp_path: Path) -> None:
    start(tmp_path, "1").put_many(["1", "two", "3", "four"])
    q = start(tmp_path, "2", "1", converter_list=[int], formatter_list=[str])
    with pytest.raises(JournalError, match="'two'"):
        q.requeue_unprocessed_work()
    assert q.qsize() == 0
    assert q.requeue_unprocessed_work(skip_unreadable=True) == 2
    assert [q.get(False), q.get(False)] == [1, 3]
    assert failed(q) == ["two", "four"]  # as they stand
    with pytest.raises(JournalError):
        q.requeue_failed_work()
    assert failed(q) == ["two", "four"]
    del q
    q = start(tmp_path, "3", "2")  # with the converter that matches
    assert q.get_list_of_outstanding_work() == ["1", "3"]
    assert q.requeue_failed_work() == 2
    assert [q.get(False), q.get(False)] == ["two", "four"]
    assert failed(q) == []


def test_what_cannot_be_read_can_be_given_up_as_it_was_listed(tmp_path: Path) -> None:
    start(tmp_path, "1").put_many(["0x1", "two", "two", "0x3"])
    functions = {"converter_list": [workers.from_hex], "formatter_list": [workers.to_hex]}
    q = start(tmp_path, "2", "1", **functions)
    assert q.requeue_unprocessed_work(skip_unreadable=True) == 2
    q.task_failed(q.get(), "")
    first, second, third = q.get_list_of_failed_work()
    assert [first.message, second.message, third.message] == ["two", "two", 1]
    assert q.discard_failed_work([second, third, third]) == 2
    (left,) = q.get_list_of_failed_work()  # of two that are equal, either
    assert left.message == "two"
    assert q.discard_failed_work([left]) == 1
    assert q.get_list_of_failed_work() == []


@needs_kill
@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["task_failed", "requeue_failed_work", "discard_failed_work"])
def test_killed_at_any_step_a_message_is_outstanding_or_set_aside_or_decided(
    tmp_path: Path, nursery: Nursery, what: str
) -> None:
    kills = 0
    for number in itertools.count(1):
        root = tmp_path / str(number)
        first = start(root, "1")
        first.put_many(["bad", "worse", "first", "second"])
        first.task_failed(first.get(), "x")
        first.task_failed(first.get(), "y")
        del first
        child = nursery.start(
            workers.fail_and_decide_until, str(root / "2"), str(root / "1"), what, number
        )
        code = child.join()
        q = start(root, "3", "2")
        left, aside = q.get_list_of_outstanding_work(), failed(q)
        assert set(left) | set(aside) | {"bad", "worse"} >= {"bad", "worse", "second"}
        assert "second" in left + aside
        assert len(left) == len(set(left)), left
        assert len(aside) == len(set(aside)), aside
        if what != "discard_failed_work":
            # At worst done again and still to be decided, but never neither.
            assert {"bad", "worse"} <= set(left) | set(aside)
        else:
            assert aside in (["bad", "worse"], [])
            assert left == ["second"]
        if what == "task_failed":
            assert ("second" in left) != ("second" in aside)
        del q
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills >= 2


# --- attempts -----------------------------------------------------------------------------------


@needs_kill
@pytest.mark.parametrize("limit", [1, 2, 3, None])
def test_at_so_many_deaths_within_a_run_a_message_is_set_aside(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(joining, "_LOOK_S", 0.05)
    q = PersistentQueue("jobs", tmp_path, max_attempts=limit)
    q.put_many(["poison", "good"])
    for _ in range((limit or 6) - 1):
        assert nursery.start(workers.take_and_die, q, 1).join() == -signal.SIGKILL
        workers.join_until(q, lambda: q.qsize() == 2)  # puts it back, behind the other
        if q.get(timeout=5) == "good":
            q.put("good")
            q.task_done("good")
            assert q.get(timeout=5) == "poison"
        # In hand here: it is not this process that dies.
        give_back(q, "poison")
        take_until(q, "good", lambda: None)
    assert failed(q) == []
    assert nursery.start(workers.take_and_die, q, 1).join() == -signal.SIGKILL
    if limit is None:
        workers.join_until(q, lambda: q.qsize() == 2)
        assert failed(q) == []
        return
    other = nursery.start(workers.work, q)
    assert q.join(10)
    q.close()
    assert other.result() == ["good"]
    (work,) = q.get_list_of_failed_work()
    assert (work.message, work.attempts) == ("poison", limit)
    assert work.reason.startswith(f"began {limit} times, and each time its process died")


def give_back(q: PersistentQueue, message: Any) -> None:
    q.put(message)
    q.task_done(message)


def take_until(q: PersistentQueue, message: Any, then: Callable[[], object]) -> None:
    """Let the poison be first in line again."""
    if q.get(timeout=5) == message:
        give_back(q, message)
    else:
        give_back(q, "poison")
        assert q.get(timeout=5) == message
        give_back(q, message)
    then()


@needs_kill
def test_deaths_are_counted_over_take_overs(tmp_path: Path, nursery: Nursery) -> None:
    """A worker at its end takes over what a dead one had in hand, and dies of it, too."""
    q = PersistentQueue("jobs", tmp_path, max_attempts=3)
    q.put("poison")
    assert nursery.start(workers.take_and_die, q, 1).join() == -signal.SIGKILL
    q.close()
    for _ in range(2):
        assert nursery.start(workers.take_and_die, q, 1).join() == -signal.SIGKILL
    assert nursery.start(workers.work, q).result() == []
    (work,) = q.get_list_of_failed_work()
    assert (work.message, work.attempts) == ("poison", 3)
    assert q.join(10)
    assert Journals(tmp_path).outstanding() == []


@needs_kill
@pytest.mark.parametrize("same", [False, True])
def test_deaths_are_counted_over_restarts_and_suspects_come_last(
    tmp_path: Path, nursery: Nursery, same: bool
) -> None:
    def night(number: int) -> int | None:
        names = ("all", "all") if same else (str(number), str(number - 1))
        return nursery.start(
            workers.die_of_the_first, str(tmp_path / names[0]), str(tmp_path / names[1])
        ).join()

    first = tmp_path / ("all" if same else "0")
    q = PersistentQueue("jobs", first, queue=queue.Queue())
    q.put_many(["poison", "a", "b"])
    del q
    # Each night one process takes the first in line, and dies of it, before the others are done.
    for number in range(1, 3):
        assert night(number) == -signal.SIGKILL
    last = tmp_path / ("all" if same else "2")
    q = PersistentQueue("jobs", tmp_path / ("all" if same else "x"), last, queue=queue.Queue())
    assert q.get_list_of_outstanding_work() == ["a", "b", "poison"]
    q.requeue_unprocessed_work()
    q.task_done(q.get())
    q.task_done(q.get())
    place = tmp_path / ("all" if same else "x")
    q.dispose()
    del q
    previous = place
    for number in range(3):
        current = place if same else tmp_path / f"late {number}"
        assert (
            nursery.start(workers.die_of_the_first, str(current), str(previous)).join()
            == -signal.SIGKILL
        )
        previous = current
    q = PersistentQueue("jobs", place if same else tmp_path / "end", previous, queue=queue.Queue())
    assert q.get_list_of_outstanding_work() == []
    (work,) = q.get_list_of_failed_work()
    assert (work.message, work.attempts) == ("poison", 5)
    assert q.requeue_failed_work() == 1
    assert q.get(False) == "poison"


@needs_kill
def test_work_is_the_whole_loop_of_a_worker(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    context: Any = multiprocessing.get_context(start_method)
    q = PersistentQueue("jobs", tmp_path, queue=context, number_of_workers=2)
    children = [nursery.start(workers.work_and_fail, q, method=start_method) for _ in range(2)]
    with q:
        q.put_many([f"good {n}" for n in range(20)] + ["bad", "bad too"])
    assert sum(child.result() for child in children) == 20
    assert q.join(10)
    assert sorted(failed(q)) == ["bad", "bad too"]
