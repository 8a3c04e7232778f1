"""Queues in several interpreters of one process (Python 3.14, `concurrent.interpreters`)."""

from __future__ import annotations

import queue
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from persistq import PersistentQueue, PreviousRunActiveError, ReadableFolderQueue
from persistq._journal import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

interpreters = pytest.importorskip(
    "concurrent.interpreters", reason="concurrent.interpreters is new in 3.14"
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Run code in another interpreter; what it raises is raised here."""
    other = interpreters.create()
    other.prepare_main(folder=str(tmp_path))
    yield lambda code: other.exec(textwrap.dedent(code))
    if other.is_running() or other in interpreters.list_all():
        other.close()


def test_more_is_put_than_the_pipe_holds_and_all_of_it_is_done(run: Callable[[str], None]) -> None:
    run(
        """
        from persistq import PersistentQueue
        q = PersistentQueue("jobs", folder)
        q.put_many(map(str, range(20_000)))
        q.close()
        got = []
        for message in q:
            got.append(message)
            q.task_done(message)
        assert got == list(map(str, range(20_000)))
        assert q.join(0)
        """
    )


def test_processes_work_for_another_interpreter(run: Callable[[str], None]) -> None:
    run(
        """
        import multiprocessing
        from persistq import PersistentQueue
        context = multiprocessing.get_context("spawn")
        q = PersistentQueue("jobs", folder, queue=context)
        worker = context.Process(target=q.work, args=(len,))
        worker.start()
        q.put_many(["a", "b"])
        q.close()
        assert q.join(20)
        worker.join()
        """
    )


def test_join_with_a_timeout_says_where_a_thread_is_needed_and_not_to_be_had(
    run: Callable[[str], None],
) -> None:
    run(
        """
        import queue
        from persistq import PersistentQueue, PersistqError
        class Mine:
            def __init__(self):
                self.queue = queue.Queue()
                self.put, self.get, self.join = self.queue.put, self.queue.get, self.queue.join
                self.task_done = self.queue.task_done
        q = PersistentQueue(queue=Mine())
        q.put("a")
        try:
            q.join(0)
        except PersistqError as error:
            assert "daemon thread" in str(error)
        else:
            raise AssertionError("it has a thread")
        """
    )


def test_the_claims_of_a_living_process_s_other_interpreter_are_not_taken(
    run: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "a.tsv").touch()
    run("from persistq import ReadableFolderQueue\nq = ReadableFolderQueue(folder)\nq.get(0)")
    own = ReadableFolderQueue(tmp_path)
    assert own.reclaim_abandoned() == []
    with pytest.raises(queue.Empty):
        own.get(0)


def test_the_run_of_a_living_process_s_other_interpreter_is_not_started_over(
    run: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_WAIT_S", 0.2)
    run(
        "import queue\nfrom persistq import PersistentQueue\n"
        "q = PersistentQueue('jobs', folder + '/1', queue=queue.Queue())\nq.put('a')\nq.get()"
    )
    arguments: Any = ("jobs", tmp_path / "2", tmp_path / "1")
    with pytest.raises(PreviousRunActiveError):
        PersistentQueue(*arguments, queue=queue.Queue())
    run("del q")
    again = PersistentQueue(*arguments, queue=queue.Queue())
    assert again.get_list_of_outstanding_work() == ["a"]
