"""PersistentQueue between processes, under every start method."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import DONE, PersistentQueue

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery


def carrier(method: str) -> Any:
    context: Any = multiprocessing.get_context(method)
    return context.JoinableQueue()


def expected_work(producers: int, count: int) -> list[str]:
    return sorted(f"{p}-{n}" for p in range(producers) for n in range(count))


@pytest.mark.parametrize("is_requeued_first", [True, False])
def test_a_job_is_finished_by_a_second_run(
    tmp_path: Path, nursery: Nursery, start_method: str, is_requeued_first: bool
) -> None:
    first = PersistentQueue("jobs", tmp_path / "1", use_queue=False)
    first.put_many(f"old-{n}" for n in range(50))

    q = PersistentQueue(
        "jobs", tmp_path / "2", tmp_path / "1", number_of_workers=2, queue=carrier(start_method)
    )
    if is_requeued_first:
        q.requeue_unprocessed_work()
        q.put("old-7")  # it has been requeued, and nobody has done it yet
    children = [nursery.start(workers.work, q, method=start_method) for _ in range(2)]
    if not is_requeued_first:
        q.requeue_unprocessed_work()
    with q:
        for number in range(50):
            q.put(f"new-{number}")
    done = [message for child in children for message in child.result()]
    assert sorted(done) == sorted(f"{age}-{n}" for age in ("old", "new") for n in range(50))
    assert q.join(20)
    journals = Journals(tmp_path / "2")
    assert journals.outstanding() == []
    assert sorted(journals.lines("completed")) == sorted(done)
    pids = {child.pid for child in children}
    names = {name for name in journals.names() if "completed" in name}
    assert names <= {f"jobs_completed_PID{pid}.tsv" for pid in pids}


def test_many_processes_put_at_once(tmp_path: Path, nursery: Nursery, start_method: str) -> None:
    q = PersistentQueue(
        "jobs",
        tmp_path,
        number_of_workers=2,
        number_of_producers=3,
        queue=carrier(start_method),
    )
    takers = [nursery.start(workers.work, q, method=start_method) for _ in range(2)]
    makers = [nursery.start(workers.produce, q, str(n), 200, method=start_method) for n in range(3)]
    for maker in makers:
        maker.result()
    done = [message for taker in takers for message in taker.result()]
    assert sorted(done) == expected_work(3, 200)
    assert Journals(tmp_path).outstanding() == []
    for maker, name in zip(makers, "012"):
        lines = (tmp_path / f"jobs_requested_PID{maker.pid}.tsv").read_text().split()
        assert lines == [f"{name}-{n}" for n in range(200)]


def test_each_worker_takes_what_one_producer_put_in_its_order(
    tmp_path: Path, nursery: Nursery
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=3)
    takers = [nursery.start(workers.work, q) for _ in range(3)]
    with q:
        for number in range(300):
            q.put(f"p-{number}")
    for taker in takers:
        numbers = [int(message.split("-")[1]) for message in taker.result()]
        assert numbers == sorted(numbers)


def test_many_threads_put_and_work_at_once(tmp_path: Path, nursery: Nursery) -> None:
    child = nursery.start(workers.threads_put_and_work, str(tmp_path))
    assert sorted(child.result()) == expected_work(4, 200)
    journals = Journals(tmp_path)
    assert sorted(journals.lines("requested")) == expected_work(4, 200)
    assert journals.outstanding() == []


def test_a_producer_that_fails_is_told_to_every_worker(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    q = PersistentQueue("jobs", tmp_path, number_of_workers=2, queue=carrier(start_method))
    children = [nursery.start(workers.work_until_told, q, method=start_method) for _ in range(2)]
    q.put("a")
    q.fail()
    told = [child.result() for child in children]
    assert [message for work, _ in told for message in work] == ["a"]
    assert [error for _, error in told] == ["UpstreamFailureError"] * 2


def test_a_process_id_that_comes_round_again_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Every run has this process's id, and some share their directory."""
    for run, previous in (("1", None), ("1", "1"), ("2", "1"), ("2", "2"), ("3", "2")):
        q = PersistentQueue(
            "jobs",
            tmp_path / run,
            tmp_path / previous if previous else None,
            queue=__import__("queue").Queue(),
        )
        q.requeue_unprocessed_work()
        q.put_many([f"{run}-{previous}-{n}" for n in range(3)])
        q.task_done(q.get())
    left = q.get_list_of_outstanding_work()
    assert len(left) == len(set(left)) == 3 * 4 - 4
    assert os.listdir(tmp_path / "3")


def test_a_forked_copy_is_a_copy_of_its_own(tmp_path: Path, nursery: Nursery) -> None:
    """As under spawn: it has requeued nothing, and has met no DONE."""
    PersistentQueue("jobs", tmp_path / "1", use_queue=False).put("a")
    q = PersistentQueue("jobs", tmp_path / "2", tmp_path / "1", number_of_producers=2)
    q.requeue_unprocessed_work()
    q.joinable_queue.put(DONE)
    assert q.get(timeout=5) == "a"
    child = nursery.start(workers.put_as_a_copy, q, "a")
    child.result()
    assert q.get(timeout=5) == "a"
