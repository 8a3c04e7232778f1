"""What a job shows, where it can be called from, and what it does to who calls it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import run_jobs
from persistq import run
from persistq._queue.progress import Progress
from persistq._run import progress_line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and flock")


def python(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-"]
    return subprocess.run(
        command, input=code, cwd=folder, capture_output=True, text=True, timeout=25
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --- the progress line --------------------------------------------------------------------


def line_of(stream: Any, monkeypatch: pytest.MonkeyPatch, wanted: bool | None) -> Any:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_line, "_TERMINAL_S", 0.0)
    monkeypatch.setattr(progress_line, "_LOG_S", 0.0)
    progress = Progress(10, 4, 1, 5, 2)
    progress.rate_per_s = 0.5
    return progress_line.ProgressLine("load", wanted, lambda: progress, lambda: 15)


def test_on_a_terminal_one_line_changes_and_is_taken_away_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Terminal()
    line = line_of(stream, monkeypatch, None)
    line.show()
    text = "load: 4 done, 1 failed, 20 left, 0.5/s, 0:00:40 to go"
    assert stream.getvalue() == "\r" + text
    line.end()
    assert stream.getvalue() == "\r" + text + "\r" + " " * len(text) + "\r"


@pytest.mark.parametrize(("wanted", "count"), [(None, 0), (False, 0), (True, 2)])
def test_in_a_log_there_are_lines_only_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, wanted: bool | None, count: int
) -> None:
    stream = io.StringIO()
    line = line_of(stream, monkeypatch, wanted)
    line.show()
    line.show()
    line.end()
    assert stream.getvalue().count(" to go\n") == count == stream.getvalue().count("\n")


def test_a_terminal_that_is_told_not_to_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    line_of(stream, monkeypatch, False).show()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("with_results", [False, True])
def test_the_line_is_shown_while_the_job_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_results: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_line, "_LOG_S", 0.05)

    def messages() -> Any:
        yield str(tmp_path), "a"
        while "gate: 0 done, 0 failed" not in stream.getvalue() and not with_results:
            pass
        (tmp_path / "open").touch()

    if with_results:
        (tmp_path / "open").touch()
    summary = run(
        run_jobs.gate,
        messages(),
        root=tmp_path,
        workers=1,
        progress=True,
        on_result=(lambda message, result: None) if with_results else None,
    )
    assert summary.done == 1


# --- where it is called from --------------------------------------------------------------

NOTEBOOK = """
from persistq import run
def load(name):
    if name == "bad": raise ValueError("bad")
print(run(load, ["a", "bad"], workers=1, context={context!r}).done)
"""


def test_a_function_of_a_notebook_works_under_fork(tmp_path: Path) -> None:
    ended = python(tmp_path, NOTEBOOK.format(context="fork"))
    assert (ended.stdout, ended.stderr) == ("1\n", "")


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_and_under_spawn_the_error_says_so_before_anything_is_put(
    tmp_path: Path, context: str
) -> None:
    ended = python(tmp_path, NOTEBOOK.format(context=context))
    assert ended.returncode == 1
    assert "is defined in a notebook, or at a prompt" in ended.stderr
    assert not (tmp_path / "pickups").exists()


def test_a_script_works_as_it_is_under_each_start_method(tmp_path: Path, start_method: str) -> None:
    code = NOTEBOOK.format(context=start_method).replace(
        "print", 'if __name__ == "__main__": print'
    )
    (tmp_path / "script.py").write_text(code)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=25
    )
    assert (ended.stdout, ended.stderr) == ("1\n", "")


def test_a_script_without_a_guard_is_told_so_and_ends(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(NOTEBOOK.format(context="spawn"))
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=25
    )
    assert ended.returncode == 1
    assert 'if __name__ == "__main__":' in ended.stderr
    assert [path.name for path in (tmp_path / "pickups/load").glob("run_*")] == ["run_000001"]


def test_a_traceback_that_is_kept_does_not_keep_the_job_at_work(tmp_path: Path) -> None:
    code = """
import gc, os, signal, subprocess, sys
gc.disable()
from persistq import run
def load(name): pass
def names(error):
    yield "a"
    raise error
kept = []
for error in (OSError("gone"), KeyboardInterrupt()):
    try: run(load, names(error), workers=1, context="fork")
    except BaseException as error: kept.append(error)
names = os.listdir("pickups/load/run_000002")
print([type(error).__name__ for error in kept], [name for name in names if "main" in name])
"""
    ended = python(tmp_path, code)
    assert (ended.stdout, ended.stderr) == ("['OSError', 'KeyboardInterrupt'] []\n", "")


def test_a_worker_that_is_sent_sigterm_finishes_its_message_and_is_replaced(
    tmp_path: Path,
) -> None:
    given = [(str(tmp_path), str(n)) for n in range(6)]
    summary = run(run_jobs.terminate_itself, given, root=tmp_path, workers=1)
    assert (summary.done, summary.ok) == (6, True)
    assert sorted(run_jobs.noted(tmp_path)) == list("012345")


def test_a_function_that_exits_kills_its_worker_as_any_other_death(tmp_path: Path) -> None:
    summary = run(run_jobs.leave, ["a", "b"], root=tmp_path, workers=1, max_attempts=2)
    assert (summary.done, summary.failed) == (1, 1)
    assert re.search(
        r"its process died \(last: (SystemExit: 4|exit status 4)\)", str(summary.failures)
    )


def test_a_child_that_the_function_forks_can_be_terminated(tmp_path: Path) -> None:
    summary = run(run_jobs.terminate_a_child, ["a"], root=tmp_path, workers=1)
    assert summary.failures == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
