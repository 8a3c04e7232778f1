"""Results in the parent, and executors: each message is done when its result is, and never lost."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import run_jobs
from persistq import PersistqError, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")


def test_each_result_comes_once_with_its_message(tmp_path: Path, start_method: str) -> None:
    given, found = [str(n) for n in range(100)], []
    summary = run(
        run_jobs.double,
        given,
        root=tmp_path,
        workers=2,
        context=start_method,
        on_result=lambda message, result: found.append((message, result)),
    )
    assert summary.done == 100
    assert Counter(found) == Counter((message, message * 2) for message in given)


def test_large_results_and_those_that_cannot_be_sent_and_workers_that_die(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    summary = run(
        run_jobs.strange_result,
        ["function", "large", "dies", "a", "x" * 3_000_000],
        root=tmp_path,
        workers=1,
        max_attempts=2,
        on_result=found.__setitem__,
    )
    assert {key[:9]: len(value) for key, value in found.items()} == {
        "large": 3_000_000,
        "a": 1,
        "x" * 9: 3_000_000,
    }
    reasons = {f.message: f.reason for f in summary.failures}
    assert "the result, a function, cannot be sent" in reasons["function"]
    assert reasons["dies"] == (
        "began 2 times, and each time its process died (last: exit status 1)"
    )
    assert (summary.done, summary.outstanding) == (3, 0)


def test_a_message_whose_on_result_raises_is_set_aside(tmp_path: Path) -> None:
    def on_result(message: str, result: str) -> None:
        if message == "b":
            raise KeyError("no such row")

    summary = run(run_jobs.double, ["a", "b", "c"], root=tmp_path, workers=2, on_result=on_result)
    assert (summary.done, summary.failed) == (2, 1)
    assert summary.failures[0].reason.startswith("KeyError: 'no such row' (")


def test_a_message_is_done_only_when_on_result_has_returned(tmp_path: Path) -> None:
    def on_result(message: str, result: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(run_jobs.double, ["a"], root=tmp_path, workers=1, on_result=on_result)
    found: list[str] = []
    summary = run(
        run_jobs.double, ["a"], root=tmp_path, workers=1, on_result=lambda m, r: found.append(r)
    )
    assert (found, summary.requeued, summary.done) == (["aa"], 1, 1)


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("wants_results", [True, False])
def test_an_executor_calls_the_function_and_this_process_keeps_the_journal(
    tmp_path: Path, kind: Any, wants_results: bool
) -> None:
    found: list[str] = []
    with kind(2) as executor:
        summary = run(
            run_jobs.do_or_raise,
            [(str(tmp_path), name) for name in ("a", "bad", "b")],
            root=tmp_path,
            executor=executor,
            on_result=(lambda m, r: found.append(m[1])) if wants_results else None,
        )
    assert (summary.done, summary.failed, summary.outstanding) == (2, 1, 0)
    assert "LookupError: bad (" in summary.failures[0].reason
    assert "in do_or_raise)" in summary.failures[0].reason
    assert sorted(run_jobs.noted(tmp_path)) == ["a", "b"]
    assert sorted(found) == (["a", "b"] if wants_results else [])


class KilledWorker(Exception):
    """What an engine of many machines says of a message whose workers have died."""


class Unreliable:
    """An executor that loses the worker of some messages some times, and counts what it has."""

    def __init__(self, losses: dict[str, int]) -> None:
        self.losses = losses
        self.most = 0
        self._open: list[tuple[Future[Any], Any]] = []

    def submit(self, call: Any, message: Any, number: str) -> Future[Any]:
        future: Future[Any] = Future()
        self._open.append((future, (call, message)))
        self.most = max(self.most, len(self._open))
        if len(self._open) == 4 or message == "last":
            for waiting, task in self._open:
                self._end(waiting, *task)
            self._open = []
        return future

    def _end(self, future: Future[Any], call: Any, message: Any) -> None:
        if self.losses.get(message, 0) > 0:
            self.losses[message] -= 1
            future.set_exception(KilledWorker(message))
        else:
            future.set_result(call(message, "1"))


def test_a_lost_worker_is_an_attempt_and_no_more_are_in_flight_than_twice_the_workers(
    tmp_path: Path,
) -> None:
    executor = Unreliable({"b": 1, "c": 99})
    given = ["a", "b", "c", "d", "e", "f", "g", "last"]
    found: list[str] = []
    with pytest.MonkeyPatch.context():
        summary = run(
            run_jobs.double,
            given,
            root=tmp_path,
            workers=2,
            executor=_Draining(executor),
            max_attempts=3,
            on_result=lambda m, r: found.append(m),
        )
    assert sorted(found) == sorted(set(given) - {"c"})
    assert executor.most <= 4
    assert (summary.failures[0].message, summary.failures[0].attempts) == ("c", 3)
    assert "KilledWorker: c" in summary.failures[0].reason


class _Draining:
    """The same, and each message is answered at once: nothing waits for company."""

    def __init__(self, inner: Unreliable) -> None:
        self._inner = inner

    def submit(self, call: Any, message: Any, number: str) -> Future[Any]:
        future: Future[Any] = Future()
        self._inner._end(future, call, message)
        return future


class Scripted:
    """An executor whose answers are written down: each is what makes one of a call."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.open: list[Future[Any]] = []
        self.numbers: list[str] = []

    def submit(self, call: Any, message: Any, number: str) -> Future[Any]:
        self.numbers.append(number)
        future: Future[Any] = Future()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        answer(future, call, message, number)
        self.open.append(future)
        return future


def answers(future: Future[Any], call: Any, *arguments: Any) -> None:
    future.set_result(call(*arguments))


def cancels(future: Future[Any], *rest: Any) -> None:
    future.cancel()


def errs(future: Future[Any], *rest: Any) -> None:
    future.set_exception(ImportError("no module named elsewhere"))


def keeps_silent(future: Future[Any], *rest: Any) -> None:
    pass


def takes_no_more(*rest: Any) -> None:
    raise LookupError("the client is closed")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ([answers, keeps_silent, cancels], "has cancelled a message that it was given"),
        ([answers, keeps_silent, takes_no_more], "takes no more work .*the client is closed"),
    ],
)
def test_an_engine_that_is_lost_is_a_clear_error_and_all_it_had_is_outstanding(
    tmp_path: Path, script: list[Any], complaint: str
) -> None:
    executor = Scripted(*script)
    with pytest.raises(PersistqError, match=complaint):
        run(run_jobs.double, ["a", "b", "c"], root=tmp_path, workers=2, executor=executor)
    assert all(future.done() for future in executor.open)  # it is not left with what nobody awaits
    summary = run(run_jobs.double, ["a", "b", "c"], root=tmp_path, executor=Scripted(answers))
    assert (summary.requeued, summary.passed_over, summary.done) == (2, 3, 2)


def test_an_engine_that_answers_nothing_but_errors_ends_the_job_with_nothing_set_aside(
    tmp_path: Path,
) -> None:
    with pytest.raises(PersistqError, match=r"4 times in a row with an error .*elsewhere"):
        run(run_jobs.double, ["a", "b"], root=tmp_path, workers=2, executor=Scripted(errs))
    summary = run(run_jobs.double, ["a", "b"], root=tmp_path, executor=Scripted(answers))
    assert (summary.done, summary.failed) == (2, 0)


def test_an_error_of_an_engine_that_has_answered_is_an_attempt(tmp_path: Path) -> None:
    executor = Scripted(answers, errs, answers)
    summary = run(run_jobs.double, ["a", "b"], root=tmp_path, workers=1, executor=executor)
    assert (summary.done, len(set(executor.numbers))) == (2, 3)
    executor = Scripted(answers, errs)
    summary = run(run_jobs.double, ["a", "b"], root=tmp_path, workers=1, executor=executor)
    assert (summary.done, summary.failed) == (1, 1)
    assert "the executor has failed: ImportError: no module named" in summary.failures[0].reason


def test_what_a_pool_had_when_it_broke_has_met_a_death_also_where_the_next_submit_is_told_first(
    tmp_path: Path,
) -> None:
    class Broken(Scripted):
        def submit(self, call: Any, message: Any, number: str) -> Future[Any]:
            if self.open:
                self.open[0].set_exception(BrokenExecutor("a worker has died"))
                raise BrokenExecutor("a worker has died")
            return super().submit(call, message, number)

    for _ in range(2):
        with pytest.raises(PersistqError, match="takes no more"):
            run(
                run_jobs.double,
                ["a", "b"],
                root=tmp_path,
                workers=1,
                max_attempts=2,
                executor=Broken(keeps_silent),
            )
    summary = run(run_jobs.double, ["a", "b"], root=tmp_path, executor=Scripted(answers))
    assert [f.message for f in summary.failures] == ["a"]
    assert (summary.done, summary.failures[0].attempts) == (1, 2)


def test_a_message_that_breaks_the_pool_is_set_aside_without_its_neighbour(tmp_path: Path) -> None:
    given = [(str(tmp_path), name) for name in ("neighbour", "deadly")]
    summary, pools = None, 0
    while summary is None:
        with ProcessPoolExecutor(2) as executor, contextlib.suppress(PersistqError):
            # A pool does not watch a worker that it starts while it waits for another one, until
            # something comes, but for pools that fork. So let it have started both.
            pools += 1
            left, right = str(tmp_path / f"left {pools}"), str(tmp_path / f"right {pools}")
            list(executor.map(run_jobs.meet, [left, right], [right, left]))
            summary = run(
                run_jobs.die_in_company, given, root=tmp_path / "p", workers=1, executor=executor
            )
    assert [f.message[1] for f in summary.failures] == ["deadly"]
    assert summary.failures[0].attempts == 5
    assert run_jobs.noted(tmp_path) == ["neighbour"]


def test_a_stop_finishes_what_an_engine_has_that_does_not_say_what_it_has_begun(
    tmp_path: Path,
) -> None:
    found: list[str] = []

    def on_result(message: str, result: str) -> None:
        found.append(message)
        if len(found) == 1:
            # What is in flight is done by its worker, whatever we do; is it heard?
            threading.Timer(0.1, finish).start()
            raise KeyboardInterrupt

    def finish() -> None:
        for future, task in late:
            if not future.done():
                answers(future, *task)

    def is_late(future: Future[Any], *task: Any) -> None:
        late.append((future, task))

    late: list[tuple[Future[Any], Any]] = []
    executor = Scripted(answers, is_late)
    with pytest.raises(KeyboardInterrupt):
        run(run_jobs.double, ["a", "b", "c"], root=tmp_path, executor=executor, on_result=on_result)
    assert sorted(found) == ["a", *sorted(task[1] for _, task in late)]


def test_a_broken_pool_is_a_clear_error_and_its_messages_are_outstanding(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as executor, pytest.raises(PersistqError, match="with a new exec"):
        run(run_jobs.strange_result, ["dies", "a"], root=tmp_path, executor=executor)
    with ThreadPoolExecutor(1) as executor:
        summary = run(
            run_jobs.double, [], root=tmp_path, prefix="strange_result", executor=executor
        )
    assert (summary.requeued, summary.done) == (2, 2)


def test_a_function_that_a_pool_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as executor, pytest.raises(TypeError, match="ProcessPoolExecutor"):
        run(lambda m: m, ["a"], root=tmp_path / "p", prefix="f", executor=executor)
    assert not (tmp_path / "p").exists()
    with pytest.raises(ValueError, match="time_limit and context are for"):
        run(run_jobs.double, ["a"], root=tmp_path, executor=executor, time_limit=1)
