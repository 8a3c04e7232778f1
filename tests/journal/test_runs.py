"""From run to run: what was outstanding is carried on, once, in order, through any restarts."""

from __future__ import annotations

import logging
import os
import pickle
import queue
from typing import TYPE_CHECKING, Any

import pytest

import workers
from journals import Journals
from persistq import DONE, JournalError, PersistentQueue, pickup_dirs

if TYPE_CHECKING:
    from pathlib import Path

    from processes import Nursery


class Job:
    """A job that is run again and again, in this process, over thread queues."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self, current: str, previous: str | None = None, **arguments: Any) -> PersistentQueue:
        arguments.setdefault("queue", queue.Queue())
        return PersistentQueue(
            "jobs",
            self.root / current,
            self.root / previous if previous else None,
            **arguments,
        )

    def journals(self, run: str) -> Journals:
        return Journals(self.root / run)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def take(q: PersistentQueue, count: int | None = None) -> list[Any]:
    return [q.get(False) for _ in range(q.qsize() if count is None else count)]


def test_outstanding_work_is_carried_and_requeued_in_order(job: Job) -> None:
    first = job.start("1")
    first.put_many(["a", "b", ("c", 5), "b", {"d": 6}])
    first.task_done("b")

    second = job.start("2", "1")
    assert job.journals("2").lines("carried") == ["a", "c\t\x10=5", "b", '\x10={"d": 6}']
    left = ["a", ("c", 5), "b", {"d": 6}]
    assert second.get_list_of_outstanding_work() == left
    assert take(second) == []
    assert second.requeue_unprocessed_work() == 4
    assert second.requeue_unprocessed_work() == 0
    assert second.get_list_of_outstanding_work() == left
    assert take(second) == left
    assert job.journals("2").names() == [f"jobs_requested_PID{os.getpid()}_requeued.tsv"]
    assert job.journals("2").outstanding() == left
    second.task_done("b")
    assert job.journals("2").outstanding() == ["a", ("c", 5), {"d": 6}]
    assert second.get_list_of_outstanding_work() == left  # as it was at creation


def test_work_is_carried_through_runs_that_do_nothing(job: Job) -> None:
    job.start("1").put_many(["a", "b"])
    for number in range(2, 6):
        job.start(str(number), str(number - 1))
    q = job.start("6", "5")
    q.requeue_unprocessed_work()
    q.put("c")
    job.start("7", "6").requeue_unprocessed_work()
    assert job.start("8", "7").get_list_of_outstanding_work() == ["a", "b", "c"]


def test_a_restart_with_the_same_pair_carries_nothing_twice(job: Job) -> None:
    job.start("1").put_many(["a", "b", "c"])
    second = job.start("2", "1")
    second.requeue_unprocessed_work()
    second.put("d")
    second.task_done("b")

    again = job.start("2", "1")
    assert again.get_list_of_outstanding_work() == ["a", "c", "d"]
    assert again.requeue_unprocessed_work() == 3
    assert take(again) == ["a", "c", "d"]
    again.task_done("a")

    third = job.start("2", "1")
    assert third.get_list_of_outstanding_work() == ["c", "d"]
    assert job.journals("2").outstanding() == ["c", "d"]


def test_a_restart_with_the_same_pair_before_anything_was_requeued(job: Job) -> None:
    job.start("1").put_many(["a", "b"])
    job.start("2", "1")
    again = job.start("2", "1")
    assert again.requeue_unprocessed_work() == 2
    assert take(again) == ["a", "b"]
    assert job.journals("2").outstanding() == ["a", "b"]


def test_an_empty_list_is_carried_too_so_that_a_restart_knows(job: Job) -> None:
    first = job.start("1")
    first.put("a")
    first.task_done("a")
    second = job.start("2", "1")
    assert second.requeue_unprocessed_work() == 0
    second.put("new")
    assert job.start("2", "1").get_list_of_outstanding_work() == ["new"]


def test_the_same_directory_may_be_current_and_previous(job: Job) -> None:
    first = job.start("1", None)
    first.put_many(["a", "b", "a"])
    first.task_done("a")
    old = sorted(p.read_bytes() for p in (job.root / "1").glob("*.tsv"))

    second = job.start("1", "1")
    assert second.get_list_of_outstanding_work() == ["b", "a"]
    assert second.requeue_unprocessed_work() == 2
    assert take(second) == ["b", "a"]
    second.put("c")
    second.task_done("a")
    # The first run's files are set aside, as they were.
    aside = list((job.root / "1" / "jobs_earlier").glob("*/*.tsv"))
    assert sorted(p.read_bytes() for p in aside) == old

    third = job.start("1", "1")
    assert third.get_list_of_outstanding_work() == ["b", "c"]
    third.requeue_unprocessed_work()
    for message in ("b", "c"):
        third.task_done(message)
    assert job.start("1", "1").get_list_of_outstanding_work() == []


def test_messages_that_were_requeued_are_not_put_again(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    job.start("1").put_many(["a", ("b", 1), {"c": 2}])
    second = job.start("2", "1")
    second.requeue_unprocessed_work()
    with caplog.at_level(logging.INFO, "persistq"):
        second.put("a")
        second.put_nowait(("b", 1))
        second.put_many([{"c": 2}, "d"])
    assert take(second) == ["a", ("b", 1), {"c": 2}, "d"]
    assert len(caplog.records) == 3
    assert job.journals("2").outstanding() == ["a", ("b", 1), {"c": 2}, "d"]
    second.put("a")  # as many are passed over as were requeued
    assert take(second) == ["a"]


def test_without_a_journal_of_its_own_it_requeues_all_the_same(job: Job) -> None:
    job.start("1").put_many(["a", "b"])
    looker = PersistentQueue("jobs", previous_pickup_dir=job.root / "1", queue=queue.Queue())
    assert looker.requeue_unprocessed_work() == 2
    looker.put("a")
    looker.put({"not": {"journalled"}})
    assert take(looker) == ["a", "b", {"not": {"journalled"}}]


def test_carried_work_counts_without_a_queue_once_it_is_requeued(job: Job) -> None:
    job.start("1").put_many(["a", "b"])
    second = job.start("2", "1", queue=None, use_queue=False)
    second.put("c")
    assert second.qsize() == 1
    assert second.requeue_unprocessed_work() == 2
    second.put("a")
    assert list(second) == ["a", "b", "c"]


def test_journals_of_the_original_are_read(job: Job, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "jobs_requested_PID77.tsv").write_bytes(b"c:\\new\tx\r\nb\r\n")
    (old / "jobs_completed_PID78.tsv").write_bytes(b"b\n")
    assert job.start("2", "old").get_list_of_outstanding_work() == [("c:\\new", "x")]


def test_a_line_that_a_converter_rejects_queues_nothing(job: Job) -> None:
    job.start("1").put_many(["1", "two"])
    second = job.start("2", "1", converter_list=[int])
    for _ in range(2):
        with pytest.raises(JournalError, match=r"jobs_carried.tsv, line 2: 'two'"):
            second.requeue_unprocessed_work()
    assert take(second) == []
    assert job.start("2", "1").get_list_of_outstanding_work() == ["1", "two"]


def test_functions_that_do_not_undo_each_other_are_warned_of(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    first = job.start("1", formatter_list=[workers.to_hex])
    first.put_many([1, 2])
    job.start("2", "1", converter_list=[workers.from_hex]).requeue_unprocessed_work()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "undo each other" in caplog.text


def test_what_a_carrier_refuses_is_requeued_by_the_next_call(job: Job) -> None:
    class Small(queue.Queue):  # type: ignore[type-arg]
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item, False)

    job.start("1").put_many(["a", "b", "c"])
    second = job.start("2", "1", queue=Small(2))
    with pytest.raises(queue.Full):
        second.requeue_unprocessed_work()
    assert take(second) == ["a", "b"]
    assert second.requeue_unprocessed_work() == 1
    assert take(second) == ["c"]
    assert job.journals("2").outstanding() == ["a", "b", "c"]


@pytest.mark.parametrize("restarted", [False, True])
def test_one_copy_of_all_requeues(
    job: Job, nursery: Nursery, start_method: str, restarted: bool
) -> None:
    """Copies in four processes requeue at once, over a queue that is only the journal's."""
    job.start("1").put_many(["a", "b"])
    if restarted:
        job.start("2", "1").requeue_unprocessed_work()
    q = job.start("2", "1", queue=None, use_queue=False)
    children = [nursery.start(workers.requeue, q, method=start_method) for _ in range(4)]
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    assert sorted(child.result() for child in children) == [0, 0, 0, 2]
    assert q.requeue_unprocessed_work() == 0
    assert job.journals("2").outstanding() == ["a", "b"]
    assert q.get_list_of_outstanding_work() == ["a", "b"]


def test_work_is_not_requeued_behind_the_end(job: Job) -> None:
    job.start("1").put("a")
    second = job.start("2", "1")
    second.close()
    with pytest.raises(ValueError, match="still outstanding"):
        second.requeue_unprocessed_work()
    assert take(second) == [DONE]
    assert job.start("3", "2").requeue_unprocessed_work() == 1


def test_two_scripts_that_start_over_one_pair_at_once_carry_it_once(
    job: Job, nursery: Nursery
) -> None:
    job.start("1").put_many([f"message {n}" for n in range(2000)])
    children = [
        nursery.start(workers.restart_and_requeue, str(job.root / "2"), str(job.root / "1"))
        for _ in range(3)
    ]
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    for child in children:
        child.result()
    assert len(job.journals("2").lines("requested")) == 2000
    assert len(job.journals("2").outstanding()) == 2000


def test_a_copy_means_the_same_work_from_any_working_directory(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.root)
    PersistentQueue("jobs", "1", queue=queue.Queue()).put("a")
    q = PersistentQueue("jobs", "2", "1", use_queue=False)
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(q))
    assert copy.get_list_of_outstanding_work() == ["a"]
    assert copy.requeue_unprocessed_work() == 1
    assert list(copy) == ["a"]


# --- pickup_dirs -------------------------------------------------------------------------


def run_names(dirs: tuple[str, str | None]) -> tuple[str, str | None]:
    return os.path.basename(dirs[0]), dirs[1] and os.path.basename(dirs[1])


def test_work_of_other_prefixes_is_warned_of_and_of_no_work_at_all_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current, _ = pickup_dirs(tmp_path, "jobs")
    assert caplog.text == ""
    PersistentQueue("other", current).put("a")
    pickup_dirs(tmp_path, "jobs")
    assert f"pickup_dirs({str(tmp_path)!r}, 'jobs'): no earlier run holds journals of 'jobs'" in (
        caplog.text
    )
    assert "some hold those of 'other'" in caplog.text


def test_runs_are_numbered_and_the_last_one_with_work_is_the_previous(tmp_path: Path) -> None:
    root = tmp_path / "made" / "if missing"
    assert run_names(pickup_dirs(root, "jobs")) == ("run_000001", None)
    assert run_names(pickup_dirs(root, "jobs")) == ("run_000002", None)
    current, previous = pickup_dirs(root, "jobs")
    assert current == str(root / "jobs" / "run_000003")
    PersistentQueue("jobs", current, previous).put("a")
    PersistentQueue("other", pickup_dirs(root, "jobs")[0]).put("not of these journals")
    assert run_names(pickup_dirs(root, "jobs")) == ("run_000005", "run_000003")
    assert run_names(pickup_dirs(root)) == ("run_000001", None)


def test_a_run_that_only_carried_work_is_the_previous_one(tmp_path: Path) -> None:
    current, previous = pickup_dirs(tmp_path, "jobs")
    PersistentQueue("jobs", current, previous).put("a")
    for _ in range(3):
        current, previous = pickup_dirs(tmp_path, "jobs")
        assert PersistentQueue("jobs", current, previous).get_list_of_outstanding_work() == ["a"]
    assert run_names((current, previous)) == ("run_000004", "run_000003")


def test_foreign_files_among_the_runs_do_not_matter(tmp_path: Path) -> None:
    home = tmp_path / "jobs"
    home.mkdir()
    for name in ("run_x", "run_", "notes.txt", "run_000007", "run_1000000.bak"):
        (home / name).touch()
    assert run_names(pickup_dirs(tmp_path, "jobs")) == ("run_000008", None)


def test_scripts_that_start_at_once_get_runs_of_their_own(tmp_path: Path, nursery: Nursery) -> None:
    children = [nursery.start(workers.take_run, str(tmp_path)) for _ in range(4)]
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    taken = [path for child in children for path in child.result()]
    assert len(set(taken)) == 40


@pytest.mark.parametrize("prefix", ["a/b", "", "nul\0"])
def test_a_prefix_that_cannot_start_a_file_name_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        pickup_dirs(tmp_path, prefix)


def test_done_is_handed_out_behind_requeued_work(job: Job) -> None:
    job.start("1").put("a")
    with job.start("2", "1") as q:
        q.requeue_unprocessed_work()
    assert take(q) == ["a", DONE]
