"""A whole job in one call: all is done or set aside, whatever dies, raises, or is asked to stop."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import persistq
import run_jobs
from persistq import PersistentQueue, PersistqError, PreviousRunActiveError, Summary, run
from persistq._run.direct import MAXSIZE

if TYPE_CHECKING:
    from processes import Nursery

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")


def named(folder: Path, *names: str) -> list[tuple[str, str]]:
    return [(str(folder), name) for name in names]


def run_folders(root: Path, prefix: str) -> list[str]:
    return sorted(path.name for path in (root / prefix).glob("run_*"))


# --- all is done, or set aside ------------------------------------------------------------


def mixture(good: int, bad: int, deadly: int) -> list[tuple[str, int]]:
    kinds = list(run_jobs.DEADLY)
    messages = [("good", n) for n in range(good)] + [("raise", n) for n in range(bad)]
    messages += [(kinds[n % len(kinds)], n) for n in range(deadly)]
    return sorted(messages, key=lambda message: message[1])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [4, 1])
def test_what_raises_and_what_kills_its_worker_is_set_aside_and_all_else_is_done(
    tmp_path: Path, start_method: str, workers: int
) -> None:
    # Under fork the whole of it, with 10 deadly messages of 1,000; a spawned process takes longer.
    good, bad, deadly = (940, 50, 10) if start_method == "fork" else (90, 5, 3)
    summary = run(
        run_jobs.mixed,
        mixture(good, bad, deadly),
        root=tmp_path,
        workers=workers,
        context=start_method,
        max_attempts=5 if start_method == "fork" else 2,
    )
    assert (summary.done, summary.failed, summary.outstanding) == (good, bad + deadly, 0)
    assert (summary.ok, summary.exit_status) == (False, 1)
    reasons = Counter(re.sub(r": bad \d+ .*", "", f.reason) for f in summary.failures)
    assert reasons["ValueError"] == bad
    times = 5 if start_method == "fork" else 2
    ends = ["killed by SIGSEGV", "killed by SIGKILL", "exit status 3"]
    for number, how in enumerate(ends):
        reason = f"began {times} times, and each time its process died (last: {how})"
        assert reasons[reason] == len(range(number, deadly, 3)), reasons
    line = run_jobs.mixed.__code__.co_firstlineno + 3
    raised = next(f for f in summary.failures if f.message[0] == "raise")
    assert f"line {line}, in mixed)" in raised.reason


def test_a_summary_is_one_line_for_a_log_and_an_exit_status(tmp_path: Path) -> None:
    summary = run(run_jobs.do, named(tmp_path, "a", "b"), root=tmp_path, workers=1)
    assert isinstance(summary, Summary)
    assert re.fullmatch(r"2 done, 0 failed, 0 outstanding in \d+\.\d s", str(summary))
    assert (summary.ok, summary.exit_status, summary.failures) == (True, 0, [])


def test_messages_are_taken_as_they_come_and_no_more_of_them_than_there_is_room_for(
    tmp_path: Path,
) -> None:
    taken = 0

    def messages() -> Any:
        nonlocal taken
        for number in range(1200):
            taken += 1
            yield str(tmp_path), str(number)
            if number == 0:
                # The first is done while the iterable still waits for the second.
                run_jobs.wait_for(tmp_path / "began-0")
                (tmp_path / "open").touch()

    summary = run(run_jobs.gate, messages(), root=tmp_path / "p", workers=2)
    assert (summary.done, taken) == (1200, 1200)


def test_no_more_is_taken_from_the_iterable_than_the_bound(
    tmp_path: Path, nursery: Nursery
) -> None:
    names = [str(n) for n in range(MAXSIZE * 2)]
    job = nursery.start(run_jobs.run_gate, str(tmp_path), names, {"workers": 1, "prefix": "j"})
    run_jobs.wait_for(tmp_path / "began-0")
    requested = next((tmp_path / "p/j/run_000001").glob("j_requested_*.tsv"))
    before = -1
    while before != (size := requested.read_bytes().count(b"\n")):
        before = size
        threading.Event().wait(0.2)
    assert size <= MAXSIZE + 1
    job.kill()


def test_nothing_to_do_is_done_at_once_and_starts_nobody(tmp_path: Path) -> None:
    summary = run(run_jobs.do, [], root=tmp_path)
    assert (summary.done, summary.ok) == (0, True)


def test_the_job_leaves_nothing_behind_and_prints_nothing(
    tmp_path: Path, start_method: str, capfd: Any
) -> None:
    summary = run(run_jobs.do, named(tmp_path, "a"), root=tmp_path / "p", context=start_method)
    assert summary.ok
    assert multiprocessing.active_children() == []
    assert [t for t in threading.enumerate() if t.name == "persistq-run"] == []
    assert list((tmp_path / "p/do/run_000001").glob(".*")) == []  # no lease
    assert capfd.readouterr() == ("", "")


# --- the same call again ------------------------------------------------------------------


def test_after_a_job_that_was_finished_the_same_call_is_a_new_job(tmp_path: Path) -> None:
    for _ in range(2):
        summary = run(run_jobs.do, named(tmp_path, "a", "b", "a"), root=tmp_path, workers=2)
        assert (summary.done, summary.passed_over) == (3, 0)
    assert Counter(run_jobs.noted(tmp_path)) == {"a": 4, "b": 2}


@pytest.mark.parametrize("with_results", [False, True])
def test_killed_and_called_again_the_job_goes_on_where_it_was(
    tmp_path: Path, nursery: Nursery, with_results: bool
) -> None:
    names = [f"{n}" for n in range(6)] + ["0", "0"]
    arguments = {"workers": 1, "prefix": "j", "with_results": with_results}
    (tmp_path / "open").touch()

    def messages() -> Any:
        yield from named(tmp_path, *names[:3])
        while len(run_jobs.noted(tmp_path)) < 3:
            threading.Event().wait(0.01)
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        run(run_jobs.gate, messages(), root=tmp_path / "p", workers=1, prefix="j")
    (tmp_path / "open").unlink()
    job = nursery.start(run_jobs.run_gate, str(tmp_path), names, dict(arguments))
    run_jobs.wait_for(tmp_path / "began-3")
    job.kill()
    (tmp_path / "open").touch()
    again = nursery.start(run_jobs.run_gate, str(tmp_path), names, dict(arguments))
    if with_results:
        assert again.result() == 5
    else:
        assert again.result() < 5  # its worker has done 3, and what it took before it noticed
    done = Counter(name for name in run_jobs.noted(tmp_path) if "result" not in name)
    # As often as it was given, and no more.
    assert done - Counter({"3": 1} if with_results else {}) == Counter(names)
    third = nursery.start(run_jobs.run_gate, str(tmp_path), ["0"], dict(arguments))
    assert third.result() == 1  # a new job: nothing is passed over


def test_what_was_set_aside_is_passed_over_until_it_is_retried(tmp_path: Path) -> None:
    given = named(tmp_path, "bad1", "good", "bad2")
    first = run(run_jobs.do_or_raise, given, root=tmp_path, workers=2)
    assert (first.done, first.failed, first.outstanding) == (1, 2, 0)
    second = run(run_jobs.do_or_raise, given, root=tmp_path, workers=2)
    assert (second.done, second.failed, second.passed_over) == (1, 2, 2)
    (tmp_path / "mended").touch()
    third = run(run_jobs.do_or_raise, given, root=tmp_path, workers=2, retry_failed=True)
    assert (third.done, third.failed, third.requeued, third.ok) == (3, 0, 2, True)
    assert Counter(run_jobs.noted(tmp_path)) == {"good": 3, "bad1": 1, "bad2": 1}


def test_once_passes_over_what_was_ever_completed_also_in_folders_that_are_gone(
    tmp_path: Path,
) -> None:
    for number in range(5):
        given = named(tmp_path, *map(str, range(number + 1)), "0")
        summary = run(run_jobs.do, given, root=tmp_path, workers=1, once=number > 0, keep_runs=1)
        assert summary.ok
    assert Counter(run_jobs.noted(tmp_path)) == {"0": 2, "1": 1, "2": 1, "3": 1, "4": 1}
    assert run_folders(tmp_path, "do") == ["run_000004", "run_000005"]


def test_a_long_chain_of_runs_remembers_the_runs_whose_folders_are_gone(tmp_path: Path) -> None:
    names = [str(n) for n in range(8)]

    def messages(count: int) -> Any:
        yield from named(tmp_path, *names[:count])
        while len(run_jobs.noted(tmp_path)) < count:
            threading.Event().wait(0.01)
        raise RuntimeError("no more")

    for count in range(1, 8):
        with pytest.raises(RuntimeError):
            run(run_jobs.do, messages(count), root=tmp_path, workers=1, keep_runs=2)
    assert len(run_folders(tmp_path, "do")) == 3
    summary = run(run_jobs.do, named(tmp_path, *names), root=tmp_path, workers=1, keep_runs=2)
    assert (summary.done, summary.passed_over) == (1, 7)
    assert run_jobs.noted(tmp_path) == names


def test_work_of_a_plain_queue_under_the_same_root_is_carried_on(tmp_path: Path) -> None:
    queue = PersistentQueue("do", tmp_path / "do/run_000001", number_of_workers=1)
    queue.put_many(named(tmp_path, "a", "b"))
    queue.task_done(queue.get())
    queue.fail()
    del queue
    summary = run(run_jobs.do, named(tmp_path, "a", "b", "c"), root=tmp_path, workers=1)
    assert (summary.requeued, summary.done) == (1, 3)
    assert sorted(run_jobs.noted(tmp_path)) == ["a", "b", "c"]


def test_a_job_at_work_is_not_begun_a_second_time(tmp_path: Path, nursery: Nursery) -> None:
    from persistq._run import chain

    arguments = {"workers": 1, "prefix": "j"}
    job = nursery.start(run_jobs.run_gate, str(tmp_path), ["a"], dict(arguments))
    run_jobs.wait_for(tmp_path / "began-a")
    before = chain._WAIT_S, __import__("persistq._journal.runs", fromlist=["x"])._WAIT_S
    from persistq._journal import runs

    chain._WAIT_S = runs._WAIT_S = 0.3
    try:
        with pytest.raises(PreviousRunActiveError):
            run(run_jobs.gate, named(tmp_path, "a"), root=tmp_path / "p", prefix="j")
    finally:
        chain._WAIT_S, runs._WAIT_S = before
    assert run_folders(tmp_path / "p", "j") == ["run_000001"]
    (tmp_path / "open").touch()
    assert job.result() == 1


# --- stopping -----------------------------------------------------------------------------


@pytest.mark.parametrize("with_results", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_finishes_what_is_in_hand_and_begins_nothing(
    tmp_path: Path, nursery: Nursery, number: int, with_results: bool
) -> None:
    names = [str(n) for n in range(50)]
    arguments = {"workers": 2, "prefix": "j", "with_results": with_results}
    job = nursery.start(run_jobs.run_gate, str(tmp_path), names, dict(arguments))
    run_jobs.wait_for(tmp_path / "began-0")
    run_jobs.wait_for(tmp_path / "began-1")
    os.kill(job.pid, number)
    run_jobs.wait_for(tmp_path / "stops")
    (tmp_path / "open").touch()
    if number == signal.SIGINT:
        assert job.result() == "interrupted"
    else:
        assert job.join() == -signal.SIGTERM
    done = [name for name in run_jobs.noted(tmp_path) if "result" not in name]
    assert sorted(done) == ["0", "1"]
    again = nursery.start(run_jobs.run_gate, str(tmp_path), names, dict(arguments))
    assert again.result() == 48
    done = [name for name in run_jobs.noted(tmp_path) if "result" not in name]
    assert sorted(done, key=int) == names  # each once


@pytest.mark.parametrize("with_results", [False, True])
def test_a_second_ctrl_c_ends_what_is_in_hand_and_no_death_is_counted(
    tmp_path: Path, nursery: Nursery, with_results: bool
) -> None:
    arguments = {"workers": 1, "prefix": "j", "with_results": with_results}
    job = nursery.start(run_jobs.run_gate, str(tmp_path), ["0", "1"], dict(arguments))
    run_jobs.wait_for(tmp_path / "began-0")
    os.kill(job.pid, signal.SIGINT)
    run_jobs.wait_for(tmp_path / "stops")
    os.kill(job.pid, signal.SIGINT)
    assert job.result() == "interrupted"
    assert run_jobs.noted(tmp_path) == []
    (tmp_path / "open").touch()
    again = nursery.start(run_jobs.run_gate, str(tmp_path), ["0", "1"], dict(arguments))
    assert again.result() == 2
    assert not list((tmp_path / "p/j/run_000002").glob("*attempts*"))


def test_ctrl_c_at_a_terminal_reaches_the_workers_too_and_they_finish(
    tmp_path: Path, nursery: Nursery, start_method: str
) -> None:
    arguments = {"workers": 2, "prefix": "j", "context": start_method}
    names, method = ["0", "1", "2"], "spawn" if start_method == "forkserver" else "fork"
    job = nursery.start(run_in_group, str(tmp_path), names, arguments, method=method)
    run_jobs.wait_for(tmp_path / "began-0")
    run_jobs.wait_for(tmp_path / "began-1")
    os.killpg(job.pid, signal.SIGINT)
    run_jobs.wait_for(tmp_path / "stops")
    (tmp_path / "open").touch()
    assert job.result() == "interrupted"
    assert sorted(run_jobs.noted(tmp_path)) == ["0", "1"]


def run_in_group(talk: Any, *args: Any) -> Any:
    os.setpgid(0, 0)
    return run_jobs.run_gate(talk, *args)


def test_called_from_a_thread_it_sets_no_handlers(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[Summary] = []
    thread = threading.Thread(
        target=lambda: found.append(run(run_jobs.do, named(tmp_path, "a"), root=tmp_path))
    )
    thread.start()
    thread.join()
    assert found[0].done == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_the_users_is_back_and_gets_its_sigterm(tmp_path: Path) -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:

        def messages() -> Any:
            yield str(tmp_path), "a"
            os.kill(os.getpid(), signal.SIGTERM)
            yield str(tmp_path), "b"

        summary = run(run_jobs.do, messages(), root=tmp_path, workers=1)
        assert calls == [signal.SIGTERM]
        assert not summary.outstanding or summary.exit_status == 1
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what takes too long, and what cannot be started ---------------------------------------


@pytest.mark.parametrize("with_results", [False, True])
def test_a_message_that_takes_too_long_is_ended_and_set_aside_and_says_so(
    tmp_path: Path, with_results: bool
) -> None:
    summary = run(
        run_jobs.hang,
        named(tmp_path, "hang", "quick"),
        root=tmp_path,
        workers=1,
        time_limit=0.2,
        max_attempts=2,
        on_result=(lambda message, result: None) if with_results else None,
    )
    assert (summary.done, summary.failed) == (1, 1)
    assert summary.failures[0].attempts == 2
    assert "took longer than the time limit of 0.2 s" in summary.failures[0].reason
    assert Counter(run_jobs.noted(tmp_path)) == {"left hang": 2, "left quick": 1}


def test_one_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq._run import workers

    monkeypatch.setattr(workers, "GRACE_S", 0.3)
    given = named(tmp_path, "stubborn", "quick")
    summary = run(run_jobs.hang, given, root=tmp_path, workers=1, time_limit=0.2, max_attempts=1)
    assert (summary.done, summary.failed) == (1, 1)
    assert run_jobs.noted(tmp_path) == ["left quick"]


@pytest.mark.parametrize("with_results", [False, True])
def test_workers_that_die_at_their_start_end_the_job_in_bounded_time(
    tmp_path: Path, with_results: bool
) -> None:
    with pytest.raises(PersistqError, match="ended before they began a message"):
        run(
            run_jobs.Unimportable(),
            ["a", "b"],
            root=tmp_path,
            workers=2,
            context="spawn",
            on_result=(lambda message, result: None) if with_results else None,
        )
    summary = run(run_jobs.double, ["a"], root=tmp_path, prefix="Unimportable", workers=1)
    assert (summary.requeued + summary.done) >= 1


def test_a_function_that_cannot_be_sent_is_refused_before_anything_is_put(tmp_path: Path) -> None:
    def nested(message: str) -> None:
        pass

    with pytest.raises(TypeError, match="cannot be sent to a worker process started by 'spawn'"):
        run(nested, ["a"], root=tmp_path / "p", context="spawn")
    assert not (tmp_path / "p").exists()
    with pytest.raises(ValueError, match="expected prefix="):
        run(lambda message: None, ["a"], root=tmp_path / "p")
    assert run(lambda message: None, ["a"], root=tmp_path, prefix="f", context="fork").done == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"time_limit": 0}, "time_limit is 0"),
        ({"time_limit": 1, "max_attempts": None}, "time_limit needs max_attempts"),
        ({"keep_runs": -1}, "keep_runs is -1"),
        ({"prefix": "a/b"}, "cannot start a file name"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tmp_path: Path, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        run(run_jobs.double, ["a"], root=tmp_path / "p", **arguments)
    assert not (tmp_path / "p").exists() or not list((tmp_path / "p").iterdir())


def test_a_worker_whose_parent_was_killed_ends_though_the_pipe_is_full(
    tmp_path: Path, nursery: Nursery
) -> None:
    names = [str(n) for n in range(MAXSIZE * 2)]
    job = nursery.start(run_jobs.run_gate, str(tmp_path), names, {"workers": 1, "prefix": "j"})
    run_jobs.wait_for(tmp_path / "began-0")
    requested = next((tmp_path / "p/j/run_000001").glob("j_requested_*.tsv"))
    while requested.read_bytes().count(b"\n") < MAXSIZE - 300:
        threading.Event().wait(0.01)
    worker = next((tmp_path / "p/j/run_000001").glob("j_started_PID*.tsv"))
    pid = int(re.findall(r"PID(\d+)", worker.name)[0])
    job.kill()
    try:
        threading.Event().wait(1.5)  # by then it has looked, and tried to wake itself
        (tmp_path / "open").touch()
        deadline_s = time.monotonic() + 20
        while _is_there(pid) and time.monotonic() < deadline_s:
            threading.Event().wait(0.02)
        assert not _is_there(pid), "the worker has not ended"
    finally:
        if _is_there(pid):
            os.kill(pid, signal.SIGKILL)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it has just gone, or there is no /proc
        return not os.path.exists("/proc/self")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_called_outside_of_main_it_is_refused_in_the_children_that_import_the_script(
    tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"from persistq import run\nrun(print, ['a'], context={method!r})\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(persistq.__file__).parent.parent)}
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "run() is called while a spawned process" in ended.stderr
    assert "PreviousRunActiveError" not in ended.stderr
