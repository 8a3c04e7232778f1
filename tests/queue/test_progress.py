"""How far a run is, and what who hands messages out may say of them."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import pytest

import workers
from persistq import PersistentQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from processes import Nursery


def numbers(q: PersistentQueue) -> tuple[int, ...]:
    p = q.progress()
    return p.requested, p.completed, p.failed, p.outstanding, p.in_progress


def test_progress_counts_what_every_process_of_the_run_has_done(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    context: Any = multiprocessing.get_context(start_method)
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2, queue=context)
    q.put_many("abcdefgh")
    assert numbers(q) == (8, 0, 0, 8, 0)
    holder = nursery.start(workers.take_and_hold, q, 2, method=start_method)
    assert holder.receive() == "holding"
    for _ in range(3):
        q.task_done(q.get())
    q.task_failed(q.get(), "bad")
    q.get()
    assert numbers(q) == (8, 3, 1, 4, 3)
    holder.kill()
    assert numbers(q) == (8, 3, 1, 4, 1)  # the dead have nothing in hand


def test_across_a_restart_what_was_carried_counts_as_requested(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path / "1")
    q.put_many("abcd")
    q.task_done(q.get())
    q.task_failed(q.get(), "bad")
    del q
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1")
    assert numbers(q) == (2, 0, 1, 2, 0)
    q.requeue_unprocessed_work()
    assert numbers(q) == (2, 0, 1, 2, 0)
    q.put("new")
    q.discard_failed_work()
    q.task_done(q.get())
    assert numbers(q) == (3, 1, 0, 2, 0)


def test_lines_that_are_withdrawn_count_no_more(
    make_queue: Callable[..., PersistentQueue],
) -> None:
    q = make_queue(maxsize=1)
    q.put("a")
    assert numbers(q)[0] == 1
    for _ in range(3):
        with pytest.raises(queue.Full):
            q.put("b", timeout=0.01)
        assert numbers(q)[0] == 1
    q.task_done(q.get())
    q.put("c")
    assert numbers(q) == (2, 1, 0, 1, 0)


def test_the_rate_and_the_time_left_are_known_from_the_second_look_on(
    make_queue: Callable[..., PersistentQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("persistq._queue.progress.time", Clock(lambda: now_s))
    q = make_queue()
    q.put_many(map(str, range(100)))
    first = q.progress()
    assert (first.rate_per_s, first.seconds_left) == (0.0, None)
    for _ in range(20):
        q.task_done(q.get())
    now_s += 10
    second = q.progress()
    assert (second.rate_per_s, second.seconds_left) == (2.0, 40.0)
    now_s += 100  # nothing for so long: it is the last minute that counts
    q.progress()
    now_s += 61
    assert (q.progress().rate_per_s, q.progress().seconds_left) == (0.0, None)
    for _ in range(80):
        q.task_done(q.get())
    assert q.progress().seconds_left == 0.0


class Clock:
    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic


def test_a_look_at_a_million_lines_costs_a_hundredth_of_a_second_at_most(
    make_queue: Callable[..., PersistentQueue], current: Path
) -> None:
    q = make_queue()
    q.put("a")
    with open(next(current.glob("jobs_requested_*")), "ab") as file:
        file.write(b"".join(b"message %d\n" % n for n in range(1_000_000)))
    q.progress()
    before_s = time.process_time()
    for _ in range(20):
        q.put("b")
        assert q.progress().outstanding > 1_000_000
    assert (time.process_time() - before_s) / 20 < 0.01


def test_without_a_journal_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs current_pickup_dir"):
        PersistentQueue().progress()


# --- who hands messages out ---------------------------------------------------------------


def test_a_lost_attempt_counts_like_a_death_also_for_the_next_run(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path / "1", max_attempts=3)
    q.put_many("ab")
    first = q.get()
    assert q.task_lost(first, "killed")
    q.dispose(give_up=True)
    q.fail()
    del q
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", max_attempts=3)
    q.requeue_unprocessed_work()
    assert (q.get(), q.get()) == ("a", "b")
    assert q.task_lost("a", "killed")
    assert not q.task_lost("a", "killed by its engine")
    (failed,) = q.get_list_of_failed_work()
    assert (failed.message, failed.attempts) == ("a", 3)
    assert failed.reason == (
        "began 3 times, and each time its process died (last: killed by its engine)"
    )
    q.task_done("b")
    assert q.join(5)


def test_what_was_given_up_is_outstanding_and_no_death(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path / "1")
    q.put("a")
    q.get()
    q.dispose(give_up=True)
    del q
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1")
    assert q.get_list_of_outstanding_work() == ["a"]
    assert not [name for name in os.listdir(tmp_path / "2") if "attempts" in name]


def test_who_knows_what_it_puts_has_nothing_passed_over(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path / "1")
    q.put_many("ab")
    q.get()
    q.task_failed("a", "bad")
    del q
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1")
    assert q.requeue_unprocessed_work(pass_over=False) == 1
    q.put_many("ab")
    assert [q.get() for _ in range(3)] == ["b", "a", "b"]


def take_and_die(q: PersistentQueue, number: int) -> None:
    q.get()
    os.kill(os.getpid(), number)


def test_of_several_that_died_at_once_each_message_names_what_ended_its_own(
    tmp_path: Path,
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2, max_attempts=1)
    q.put_many(["0", "1"])
    context = multiprocessing.get_context("fork")
    numbers = [signal.SIGKILL, signal.SIGTERM]
    children = [context.Process(target=take_and_die, args=(q, number)) for number in numbers]
    for child in children:
        child.start()
    for child in children:
        wait([child.sentinel])
    q.join(5)
    reasons = {failed.reason.rpartition(" ")[2] for failed in q.get_list_of_failed_work()}
    assert reasons == {"SIGKILL)", "SIGTERM)"}
