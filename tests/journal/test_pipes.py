"""A pipe with a name of ours, which somebody else has made, keeps no reader of journals waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from persistq import _lease
from persistq._journal.lines import LineReader, place_of
from persistq._journal.reading import lines_of
from persistq._journal.run_state import RunState
from persistq._journal.tail import Tail
from persistq._queue.known import _Table
from persistq._run.chain import Job
from persistq._run.history import History
from persistq._survey.journals import _count_lines
from persistq.exceptions import PersistqError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from persistq import PersistentQueue

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names"),
    pytest.mark.timeout(20),
]
LIMIT_S = 15
RUN = """
import os, queue, sys
from persistq import PersistentQueue
q = PersistentQueue("jobs", *sys.argv[1:], queue=queue.Queue())
if sys.argv[2:]:
    print("requeued", q.requeue_unprocessed_work())
else:
    q.put("a")
    os._exit(0)
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S
    )


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that has died with one message outstanding."""
    folder = tmp_path / "run_1"
    assert run("-c", RUN, folder).returncode == 0
    return folder


@pytest.mark.parametrize("name", ["jobs_run.json", "jobs_seal.json"])
def test_what_only_says_whose_the_work_is_is_passed_over(name: str, stopped: Path) -> None:
    (stopped / name).unlink(missing_ok=True)
    os.mkfifo(stopped / name)
    assert RunState(str(stopped), "jobs").seal is None
    said = run("-m", "persistq", "status", "--json", stopped)
    assert (said.returncode, said.stderr) == (1, "")
    assert [survey["outstanding"] for survey in json.loads(said.stdout)] == [1]
    again = run("-c", RUN, stopped.with_name("run_2"), stopped)
    assert (again.returncode, again.stdout) == (0, "requeued 1\n"), again.stderr


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("jobs_carried.tsv", ["status", "watch"]),
        ("jobs_failed.tsv", ["status", "failed", "retry"]),
    ],
)
def test_what_would_hold_work_is_refused_by_name(
    name: str, commands: list[str], stopped: Path
) -> None:
    pipe = stopped / name
    os.mkfifo(pipe)
    for command in commands:
        said = run("-m", "persistq", command, stopped)
        assert (said.returncode, said.stdout) == (2, "")
        assert said.stderr == f"persistq: {pipe}: no regular file\n"
    report = run("-m", "persistq", "report", stopped, "-o", "-")
    assert (report.returncode, report.stdout.count("no regular file")) == (0, 1), report.stdout
    again = run("-c", RUN, stopped.with_name("run_2"), stopped)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"no regular file: '{pipe}'" in again.stderr
    pipe.unlink()  # and nothing is lost
    again = run("-c", RUN, stopped.with_name("run_3"), stopped)
    assert (again.returncode, again.stdout) == (0, "requeued 1\n"), again.stderr


READERS: dict[str, Callable[[str], object]] = {
    "reading": lambda path: list(lines_of(path)),
    "tail": lambda path: list(Tail().read([path])),
    "tail, counting": lambda path: Tail().count(path),
    "known": _Table,
    "survey": _count_lines,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_journals_refuses_it(reader: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        READERS[reader](str(tmp_path / "pipe"))


def test_a_large_message_whose_journal_it_replaces_is_told(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "pipe")
    os.mkfifo(path)
    with pytest.raises(PersistqError, match=r"cannot be read.*no regular file"):
        LineReader().read(place_of(path, 0, 10))


def test_a_job_refuses_what_would_say_which_runs_were_its(tmp_path: Path) -> None:
    run_1 = tmp_path / "jobs" / "run_1"
    run_1.mkdir(parents=True)
    assert run("-c", RUN, run_1).returncode == 0
    os.mkfifo(run_1 / "jobs_job.json")
    chain = Job(tmp_path, "jobs")

    def make_queue(current: str, previous: str | None) -> PersistentQueue:
        raise AssertionError("it goes on without knowing")

    with pytest.raises(OSError, match="no regular file"):
        chain.begin(make_queue)


def test_a_history_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "completed").mkdir()
    os.mkfifo(tmp_path / "completed" / "run_1.keys")
    with pytest.raises(OSError, match="no regular file"):
        list(History(str(tmp_path), "jobs").completed("run_1"))


def test_in_place_of_a_lease_it_takes_no_note_and_no_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lease")
    os.mkfifo(path)
    _lease.add_note(path, "killed by SIGKILL")
    assert _lease.lock(path) == -1
