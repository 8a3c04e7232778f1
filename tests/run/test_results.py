"""Results in the parent, and executors: each message is done when its result is, and never lost."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
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

    def submit(self, call: Any, function: Any, message: Any, wants: bool) -> Future[Any]:
        future: Future[Any] = Future()
        self._open.append((future, (call, function, message, wants)))
        self.most = max(self.most, len(self._open))
        if len(self._open) == 4 or message == "last":
            for waiting, task in self._open:
                self._end(waiting, *task)
            self._open = []
        return future

    def _end(self, future: Future[Any], call: Any, function: Any, message: Any, *rest: Any) -> None:
        if self.losses.get(message, 0) > 0:
            self.losses[message] -= 1
            future.set_exception(KilledWorker(message))
        else:
            future.set_result(call(function, message, *rest))


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

    def submit(self, call: Any, function: Any, message: Any, wants: bool) -> Future[Any]:
        future: Future[Any] = Future()
        self._inner._end(future, call, function, message, wants)
        return future


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
