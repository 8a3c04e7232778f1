"""Processes die: the others go on, take over what was in hand, and no run is restarted over."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import DONE, PersistentQueue, PersistqError, PreviousRunActiveError, _lease
from persistq._journal import runs
from persistq._queue import desertion, joining

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Child, Nursery

needs_kill = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")
pytestmark = needs_kill


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_LOOK_S", 0.05)


def started(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("jobs_started_*.tsv"))


def start_holder(nursery: Nursery, q: PersistentQueue, count: int, method: str = "fork") -> Child:
    """Start a worker that takes some messages and never completes them."""
    child = nursery.start(workers.take_and_hold, q, count, method=method)
    assert child.receive() == "holding"
    return child


# --- taking over -------------------------------------------------------------------------


def test_what_a_killed_worker_had_in_hand_is_done_by_another(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    context: Any = multiprocessing.get_context(start_method)
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2, queue=context)
    q.put_many(["a", ("b", 1), {"c": 2}, "d"])
    holder = start_holder(nursery, q, 3, start_method)
    other = nursery.start(workers.work, q, method=start_method)
    holder.kill()
    q.close()
    assert other.result() == ["d", "a", ("b", 1), {"c": 2}]
    assert Journals(tmp_path).outstanding() == []
    assert q.join(5)


def test_a_bounded_queue_keeps_its_bound_and_outlives_a_killed_worker(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    context: Any = multiprocessing.get_context(start_method)
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2, queue=context, maxsize=2)
    q.put_many(["0", "1"])
    assert q.full()
    with pytest.raises(queue.Full):
        q.put("refused", timeout=0.01)
    with pytest.raises(queue.Full):
        q.put_nowait("r" * 1000)  # which travels as its place in the journal
    holder = start_holder(nursery, q, 1, start_method)
    q.put("2")
    assert q.full()
    holder.kill()
    other = nursery.start(workers.work, q, method=start_method)
    for n in range(3, 50):
        q.put(str(n), timeout=20)
    q.close()
    assert other.result() == [*map(str, range(1, 50)), "0"]
    assert q.join(5)
    assert Journals(tmp_path).outstanding() == []


def test_a_bounded_queue_closes_though_most_of_its_workers_were_killed(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=4, maxsize=1)
    for number in range(3):
        q.put(str(number))
        start_holder(nursery, q, 1).kill()
    q.close()  # of the four DONEs, three stay
    assert nursery.start(workers.work, q).result() == ["0", "1", "2"]
    assert q.join(5)


def test_over_a_users_queue_it_is_too(tmp_path: Path, nursery: Nursery) -> None:
    q = PersistentQueue(
        "jobs", tmp_path, number_of_workers=2, queue=multiprocessing.Manager().JoinableQueue()
    )
    q.put_many([("a", 1), "b"])
    holder = start_holder(nursery, q, 1)
    holder.kill()
    q.close()
    assert nursery.start(workers.work, q).result() == ["b", ("a", 1)]


def test_of_several_workers_exactly_one_takes_over(tmp_path: Path, nursery: Nursery) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=5)
    q.put_many(f"held {n}" for n in range(20))
    holders = [start_holder(nursery, q, 10) for _ in range(2)]
    others = [nursery.start(workers.work, q) for _ in range(3)]
    for holder in holders:
        holder.kill()
    q.close()
    done = [message for other in others for message in other.result()]
    assert sorted(done) == sorted(f"held {n}" for n in range(20))


def second_producer(q: PersistentQueue, folder: Path) -> PersistentQueue:
    return PersistentQueue(
        "jobs",
        folder,
        number_of_workers=q.number_of_workers,
        number_of_producers=2,
        queue=q.joinable_queue,
    )


def test_who_takes_over_and_is_killed_is_taken_over_from(tmp_path: Path, nursery: Nursery) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=3, number_of_producers=2)
    q.put_many(["a", "b"])
    start_holder(nursery, q, 2).kill()
    q.close()
    second_producer(q, tmp_path).close()
    start_holder(nursery, q, 1).kill()  # behind DONE it gets what the first one had
    done = nursery.start(workers.work, q).result()
    assert sorted(done) == ["a", "b"]


def test_a_message_taken_and_not_recorded_at_the_kill_is_found_in_the_journals(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put_many(["a", "b", "c"])
    child = nursery.start(workers.die_before_recording, q)
    assert child.join() == -signal.SIGKILL
    holder = start_holder(nursery, q, 1)  # alive, with one in hand that is nobody else's
    q.close()
    assert nursery.start(workers.work, q).result() == ["c", "a"]
    holder.send("complete")
    assert holder.result() == ["b"]
    assert Journals(tmp_path).outstanding() == []


def test_with_several_producers_a_worker_goes_on_until_all_have_closed(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2, number_of_producers=2)
    other = second_producer(q, tmp_path)
    q.put_many(["a", "b"])
    start_holder(nursery, q, 1).kill()
    worker = nursery.start(workers.work, q)
    q.close()
    other.put("later")
    other.close()
    assert worker.result() == ["b", "later", "a"]
    assert Journals(tmp_path).outstanding() == []


def test_a_worker_that_ends_with_an_error_is_taken_over_from(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put_many(["a", "b"])
    child = nursery.start(workers.take_and_exit, q)
    child.result()
    q.close()
    assert nursery.start(workers.work, q).result() == ["b", "a"]


def test_what_a_worker_gives_up_is_left_to_the_next_run(tmp_path: Path, nursery: Nursery) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put_many(["bad", "good"])
    q.close()
    assert nursery.start(workers.work_but_for, q, "bad").result() == ["good"]
    assert nursery.start(workers.work, q).result() == []
    assert Journals(tmp_path).outstanding() == ["bad"]


def test_started_work_is_recorded_until_its_worker_is_at_the_end(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["a", ("b", 2)])
    q.close()
    assert q.get() == "a"
    assert started(tmp_path) == [f"jobs_started_PID{os.getpid()}.tsv"]
    assert Journals(tmp_path).lines("started") == ["a"]
    q.task_done("a")
    message = q.get()
    assert Journals(tmp_path).lines("started") == ["a", "b\t\x10=2"]
    q.task_done(message)
    q.get()
    assert started(tmp_path) == []


def test_started_work_is_recorded_only_where_wanted(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path, record_started=False)
    q.put("a")
    assert q.get() == "a"
    assert started(tmp_path) == []
    q.task_done("a")
    assert q.join(1)


def test_work_whose_beginning_cannot_be_recorded_is_handed_out(
    tmp_path: Path, nursery: Nursery
) -> None:
    child = nursery.start(workers.take_on_a_full_disk, str(tmp_path))
    assert child.result() == ["a message", "another message"]


def test_a_changed_message_completes_what_was_taken(tmp_path: Path) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put({"state": "old"})
    message = q.get()
    message["state"] = "new"
    q.task_done(message)
    assert Journals(tmp_path).outstanding() == []


def test_a_restart_over_the_same_directory_forgets_what_was_begun(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put("a")
    start_holder(nursery, q, 1).kill()
    assert len(started(tmp_path)) == 1
    again = PersistentQueue("jobs", tmp_path, tmp_path)
    assert started(tmp_path) == []
    again.put("b")
    start_holder(nursery, again, 1).kill()
    again.close()
    # "a" was not requeued, so it is not this run's to take over.
    assert nursery.start(workers.work, again).result() == ["b"]


def test_what_a_stopped_worker_has_taken_is_never_held_for_lost(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=3)
    q.put_many(["a", "b"])
    stopped = nursery.start(workers.stop_before_recording, q)
    assert stopped.receive() == "taken"
    os.kill(stopped.pid, signal.SIGSTOP)
    start_holder(nursery, q, 1).kill()
    workers.join_until(q, lambda: q.qsize() == 1)  # "b" is back
    assert q.join(0.5) is False  # and "a" may be in a living hand
    assert q.qsize() == 1
    q.close()
    assert nursery.start(workers.work, q).result() == ["b"]
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.send("go on")
    assert stopped.result() == "a"
    assert Journals(tmp_path).outstanding() == []
    assert Journals(tmp_path).lines("completed") == ["a", "b"]


def test_what_is_completed_in_a_new_file_meanwhile_is_not_taken_over(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=3)
    q.put_many(["a", "b"])
    holder = start_holder(nursery, q, 1)
    start_holder(nursery, q, 1).kill()
    q.close()

    def complete_it_meanwhile(path: str) -> bool | None:
        # Just when this process looks who lives, so behind its first listing.
        if not told:
            told.append(True)
            holder.send("complete and die")
            assert holder.result() == ["a"]
            holder.join()
        return is_dead(path)

    told: list[bool] = []
    is_dead = _lease.is_dead
    monkeypatch.setattr(_lease, "is_dead", complete_it_meanwhile)
    assert q.get() == "b"
    q.task_done("b")
    assert q.get() is DONE


# --- join --------------------------------------------------------------------------------


def test_join_puts_back_what_a_dead_worker_had_in_hand(tmp_path: Path, nursery: Nursery) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["a", "b"])
    start_holder(nursery, q, 2).kill()
    other = nursery.start(workers.work, q)
    assert q.join(20)
    q.close()
    assert sorted(other.result()) == ["a", "b"]
    assert Journals(tmp_path).outstanding() == []


def test_join_leaves_it_to_the_workers_once_the_queue_is_closed(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["a", "b"])
    start_holder(nursery, q, 1).kill()
    q.close()
    assert q.join(0.3) is False
    assert nursery.start(workers.work, q).result() == ["b", "a"]
    assert q.join(5)


def test_join_does_not_wait_for_ever_for_workers_that_all_died(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desertion, "_REPLACEMENT_S", 0.2)
    q = PersistentQueue("jobs", tmp_path)
    q.put("a")
    holder = start_holder(nursery, q, 1)
    q.close()
    assert q.join(0.3) is False
    holder.kill()
    assert q.join(0.3) is False
    with pytest.raises(PersistqError, match="Start the job again"):
        q.join()
    assert Journals(tmp_path).outstanding() == ["a"]


# --- the parent's end ---------------------------------------------------------------------


def test_a_parent_whose_workers_died_ends_though_more_was_put_than_the_pipe_holds(
    tmp_path: Path,
) -> None:
    code = (
        "import multiprocessing, os, sys; from persistq import PersistentQueue\n"
        "q = PersistentQueue('jobs', sys.argv[1])\n"
        "q.put(0); q.put_many(['x' * 200] * 20_000); q.close()\n"
        "worker = multiprocessing.get_context('fork').Process(\n"
        "    target=lambda: (q.get(), os.kill(os.getpid(), 9)))\n"
        "worker.start(); worker.join()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=25)
    assert len(Journals(tmp_path).outstanding()) == 20_001


def test_join_misses_a_message_whose_taker_died_before_recording_it(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put_many(["a", "b"])
    assert nursery.start(workers.die_before_recording, q).join() == -signal.SIGKILL
    holder = start_holder(nursery, q, 1)  # alive, with one in hand that nobody misses
    workers.join_until(q, q.qsize)
    assert q.get(timeout=5) == "a"
    q.task_done("a")
    with pytest.raises(queue.Empty):
        q.get(timeout=0.1)
    holder.send("complete")
    assert holder.result() == ["b"]
    assert q.join(10)
    assert Journals(tmp_path).outstanding() == []


@pytest.mark.parametrize("is_closed", [False, True])
def test_join_ends_though_a_worker_died_before_it_could_say_that_a_message_is_done(
    tmp_path: Path, nursery: Nursery, is_closed: bool
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put_many(["a", "b"])
    assert nursery.start(workers.die_before_acknowledging, q).join() == -signal.SIGKILL
    workers.join_until(q, lambda: list(tmp_path.glob(".jobs_*.settled")))
    assert q.join(0.2) is False  # for "b"
    other = nursery.start(workers.work, q)
    if is_closed:
        q.close()
        assert other.result() == ["b"]
    assert q.join(10)


# --- files of several runs in one directory ------------------------------------------------


def test_a_completion_of_an_earlier_run_is_not_taken_for_that_of_a_dead_worker(
    tmp_path: Path, nursery: Nursery
) -> None:
    for does_it in (True, False):
        # In a container each run's processes have the ids of those of the run before.
        q = PersistentQueue("jobs", tmp_path, tmp_path, number_of_workers=2)
        q.requeue_unprocessed_work()
        q.put("today's file")
        worker = nursery.start(workers.take_under_an_id, q, 4711, does_it)
        assert worker.receive() == "taken"
        worker.kill()
    other = nursery.start(workers.work, q)
    assert q.join(10)
    q.close()
    assert other.result() == ["today's file"]


def test_a_death_brings_no_work_of_an_earlier_run_that_nobody_requeued(
    tmp_path: Path, nursery: Nursery
) -> None:
    child = nursery.start(workers.put_and_stay, str(tmp_path))
    assert child.receive() == "put"
    child.kill()
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put_many(["b", "c"])
    assert nursery.start(workers.die_before_recording, q).join() == -signal.SIGKILL
    other = nursery.start(workers.work, q)
    assert q.join(10)
    q.close()
    assert sorted(other.result()) == ["b", "c"]
    assert Journals(tmp_path).outstanding() == ["a"]


def test_a_message_that_two_of_the_dead_had_in_hand_is_done_once(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put_many(["a", "a", "b"])
    first = start_holder(nursery, q, 3)
    # As a kill leaves it, of the worker that was taking them over.
    second = start_holder(nursery, q, 0, "spawn")
    (path,) = tmp_path.glob("jobs_started_*.tsv")
    (lease,) = tmp_path.glob(f".jobs_copy_*_PID{second.pid}.lease")
    shutil.copy(path, tmp_path / f"jobs_started_PID{second.pid}.tsv")
    assert lease.exists()
    first.kill()
    second.kill()
    q.close()
    assert sorted(nursery.start(workers.work, q).result()) == ["a", "a", "b"]
    assert q.join(5)


def test_join_puts_back_what_a_bounded_queue_has_room_for_and_each_once(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, maxsize=1)
    holder = nursery.start(workers.take_and_hold, q, 3)
    for message in "abc":
        q.put(message, timeout=20)
    assert holder.receive() == "holding"
    holder.kill()
    other = nursery.start(workers.work, q)
    assert q.join(20)
    q.close()
    assert other.result() == ["a", "b", "c"]


def test_join_counts_a_message_that_cannot_be_put_back_once(
    tmp_path: Path, nursery: Nursery
) -> None:
    def refuse(text: str) -> str:
        if text == "bad":
            raise RuntimeError("one way only")
        return text

    q = PersistentQueue("jobs", tmp_path, formatter_list=[str], converter_list=[refuse])
    q.put("bad")
    start_holder(nursery, q, 1).kill()
    q.put("good")
    holder = start_holder(nursery, q, 1)
    workers.join_until(q, lambda: list(tmp_path.glob(".jobs_*.settled")))
    assert not q.join(0.5)
    holder.send("complete")
    assert holder.result() == ["good"]
    assert q.join(20)


def test_deaths_of_an_earlier_run_in_the_same_directory_are_forgotten(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put("old")
    start_holder(nursery, q, 1).kill()
    workers.join_until(q, lambda: list(tmp_path.glob(".jobs_*.settled")))
    q.close()
    again = PersistentQueue("jobs", tmp_path, tmp_path)
    assert not list(tmp_path.glob(".jobs_*.settled"))
    again.put("new")
    message = again.get()
    again.task_done(message)
    with pytest.raises(ValueError, match="too many times"):
        again.task_done(message)


def test_a_script_ends_though_its_directory_and_all_workers_are_gone(tmp_path: Path) -> None:
    script = (
        "import shutil, sys\n"
        "from persistq import PersistentQueue\n"
        "q = PersistentQueue('jobs', sys.argv[1])\n"
        "q.put_many(map(str, range(10_000)))\n"
        "shutil.rmtree(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    ended = subprocess.run(command, timeout=25, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


# --- orphans -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_users", [False, True])
def test_a_worker_whose_parent_died_does_the_rest_and_stops(
    tmp_path: Path, nursery: Nursery, start_method: str, is_users: bool
) -> None:
    arguments = (str(tmp_path), start_method, is_users)
    parent = nursery.start(workers.be_a_parent, *arguments, method="spawn")
    assert parent.receive() == "workers wait"
    parent.kill()
    told = [(tmp_path / f"told-{n}") for n in range(2)]
    workers.wait_for_files(told)
    assert [path.read_text() for path in told] == ["UpstreamFailureError"] * 2


# --- restarts over a live run ------------------------------------------------------------


@pytest.mark.parametrize("current", ["1", "2"])
def test_a_live_run_is_not_restarted_over(tmp_path: Path, nursery: Nursery, current: str) -> None:
    owner = nursery.start(workers.put_and_stay, str(tmp_path / "1"))
    assert owner.receive() == "put"
    restart = (str(tmp_path / current), str(tmp_path / "1"))
    sibling = nursery.start(workers.restart_in_time, *restart, 0.3)
    assert sibling.receive() == "waiting"
    kind, text = sibling.result()
    assert kind == "PreviousRunActiveError"
    assert str(owner.pid) in text
    # A run that ends while it is waited for is restarted.
    sibling = nursery.start(workers.restart_in_time, *restart, 20)
    assert sibling.receive() == "waiting"
    owner.kill()
    assert sibling.result() == ("requeued", "1")


def test_a_live_run_is_not_restarted_over_with_the_same_pair(
    tmp_path: Path, nursery: Nursery
) -> None:
    pair = (str(tmp_path / "2"), str(tmp_path / "1"))
    PersistentQueue("jobs", pair[1], use_queue=False).put("a")
    owner = nursery.start(workers.put_and_stay, *pair)
    assert owner.receive() == "put"
    sibling = nursery.start(workers.restart_in_time, *pair, 0.3)
    assert sibling.receive() == "waiting"
    assert sibling.result()[0] == "PreviousRunActiveError"


def test_only_looking_never_waits(tmp_path: Path, nursery: Nursery) -> None:
    owner = nursery.start(workers.put_and_stay, str(tmp_path))
    assert owner.receive() == "put"
    sibling = nursery.start(workers.look_and_requeue, str(tmp_path))
    assert sibling.result() == (["a"], "PreviousRunActiveError")


def test_a_child_of_the_run_may_not_restart_it_either(tmp_path: Path, nursery: Nursery) -> None:
    q = PersistentQueue("jobs", tmp_path / "1")
    q.put("a")
    child = nursery.start(
        workers.restart_in_time, str(tmp_path / "2"), str(tmp_path / "1"), 0.3, method="spawn"
    )
    assert child.receive() == "waiting"
    assert child.result()[0] == "PreviousRunActiveError"


def test_another_containers_process_of_this_id_is_a_stranger(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_WAIT_S", 0.2)
    stranger = nursery.start(
        workers.put_and_stay_under_an_id, str(tmp_path / "1"), os.getpid(), method="spawn"
    )
    assert stranger.receive() == "put"
    with pytest.raises(PreviousRunActiveError, match=str(os.getpid())):
        PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=queue.Queue())
    stranger.kill()
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=queue.Queue())
    assert q.get_list_of_outstanding_work() == ["a"]


# --- locks -------------------------------------------------------------------------------


def test_where_locks_are_refused_runs_are_restarted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: Nursery
) -> None:
    import fcntl

    q = PersistentQueue("jobs", tmp_path / "1", number_of_workers=2)
    q.put_many(["a", "b"])
    start_holder(nursery, q, 1).kill()

    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    q.close()
    assert nursery.start(workers.work, q).result() == ["b"]  # and "a" may be in a living hand
    again = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", queue=queue.Queue())
    assert again.requeue_unprocessed_work() == 1


@pytest.mark.parametrize("step", ["put", "put_many"])
def test_what_is_recorded_and_not_yet_on_its_way_is_not_taken_for_lost(
    tmp_path: Path, nursery: Nursery, step: str
) -> None:
    q = PersistentQueue("jobs", tmp_path)
    q.put("a")
    putting = nursery.start(workers.put_in_two_steps, q, step, ["late"])
    assert putting.receive() == "recorded"
    nursery.start(workers.die_before_recording, q).join()
    assert not q.join(0.5)  # as long as that one is at it, nobody knows what is lost
    assert q.qsize() == 0
    putting.send("go on")
    putting.result()
    done = []
    while not q.join(0.2):
        with contextlib.suppress(queue.Empty):
            done.append(q.get(False))
            q.task_done(done[-1])
    assert done == ["late", "a"]


def test_a_death_is_logged(
    tmp_path: Path, nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2)
    q.put("a")
    start_holder(nursery, q, 1).kill()
    q.close()
    with caplog.at_level(logging.WARNING, "persistq"):
        assert q.get() == "a"
    assert "1 messages taken over from workers that died" in caplog.text


def test_workers_that_wait_all_hear_of_the_end_at_once(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq._queue import orphans

    monkeypatch.setattr(orphans, "_LOOK_S", 60.0)  # who misses it would sleep on
    q = PersistentQueue("jobs", tmp_path, number_of_workers=4)
    waiting = [nursery.start(workers.work, q) for _ in range(4)]
    q.put_many(map(str, range(100)))
    assert q.join(20)
    q.close()
    assert sum(len(child.result()) for child in waiting) == 100
